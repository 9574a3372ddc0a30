"""The directory of a domain with `keys: auto`: which keys lie there, and which of them sign.

SELECTOR.pem is a key. What a rotation is at stands beside the keys in `state.json`, {"keys": {SELECTOR: {"state":
"pending", "since": 1793700000.0}}}; a key without an entry is active, and only active keys sign. Knows nothing of what
is in a key, nor of why a state changes.

Readers list the files before they read the states. So no key signs by a slip when a new one's state is written before
its file, and when the file of a retired one goes before its entry does.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, cast, get_args

from postmeter.config.problem import MistakeError
from postmeter.config.values import selector
from postmeter.submission.keyfiles import KeyProblem, unreadable

STATE = "state.json"
_SUFFIX = ".pem"

State: TypeAlias = Literal["pending", "active", "retired"]
_STATES = get_args(State)


@dataclass(frozen=True, slots=True)
class KeyState:
    """`pending`: not in DNS everywhere yet. `retired`: mail that it signed may still be on its way."""

    state: State
    since: float


def folder(keys_dir: Path, domain: str) -> Path:
    """Where the keys of a domain lie, which is written as DNS has it (`ascii_domain`)."""
    return keys_dir / domain


def key_files(folder: Path) -> dict[str, Path]:
    """Every key by its selector, whatever its state. Raises KeyProblem when the directory cannot be read."""
    return {name.removesuffix(_SUFFIX): folder / name for name in _names(folder) if _is_key(name)}


def strays(folder: Path) -> list[Path]:
    """What lies there and is not used. Hidden files are nobody's business: programs write beside and rename."""
    known = (folder / name for name in _names(folder) if not (name.startswith(".") or _is_key(name)))
    return [path for path in known if path.name != STATE]


def active(folder: Path) -> dict[str, Path]:
    """The keys that sign, by selector. Raises KeyProblem when there is none, or one of them is not there."""
    files = key_files(folder)
    states = read_state(folder)
    for name, known in states.items():
        if known.state == "active" and name not in files:
            path = folder / f"{name}{_SUFFIX}"
            raise KeyProblem(path, f"no such file, but {STATE} says that it signs", "put the key back there")
    if not files:
        raise KeyProblem(folder, "holds no key", f"put one there as SELECTOR{_SUFFIX}")
    found = {name: file for name, file in files.items() if name not in states or states[name].state == "active"}
    if not found:
        raise KeyProblem(folder / STATE, "says that no key here is active", "make one active, or add a key")
    return found


def read_state(folder: Path) -> dict[str, KeyState]:
    """What is known of each key; nothing of those that no rotation has touched. Raises KeyProblem."""
    path = folder / STATE
    try:
        known = json.loads(path.read_bytes())["keys"]
        return {name: _state(entry) for name, entry in known.items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        fix = "restore it; without it all keys beside it sign"
        raise KeyProblem(path, "does not tell the states of keys", fix) from None


def write_state(folder: Path, states: Mapping[str, KeyState]) -> None:
    """All of it anew: whoever reads finds the old or the new, also after a power cut (rename(2), fsync(2))."""
    known = {name: {"state": entry.state, "since": entry.since} for name, entry in states.items()}
    handle, name = tempfile.mkstemp(prefix=f".{STATE}.", dir=folder)
    try:
        with os.fdopen(handle, "w") as file:
            json.dump({"keys": known}, file, indent=1)
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # no secret, and root may write what the daemon reads
            os.fsync(file.fileno())
        Path(name).replace(folder / STATE)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync(folder)


def sync(folder: Path) -> None:
    """The names in it to disk (fsync(2))."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _state(entry: Mapping[str, object]) -> KeyState:
    """Other members are left alone: a later version may have written them."""
    state, since = entry["state"], entry["since"]
    if state not in _STATES or not isinstance(since, int | float):
        raise ValueError
    return KeyState(cast(State, state), float(since))


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        fix = f"postmeter dkim new {folder.name} makes it, and keys; or put one there as SELECTOR{_SUFFIX}"
        raise KeyProblem(folder, "no such directory", fix) from None
    except OSError as error:
        raise unreadable(folder, error) from None


def _is_key(name: str) -> bool:
    stem = name.removesuffix(_SUFFIX)
    try:
        return name.endswith(_SUFFIX) and selector(stem) == stem
    except MistakeError:
        return False
