"""Makes key pairs and puts them into a domain's directory, beside what lies there: nothing is ever overwritten.

RFC 8301 section 3.2 (RSA of 2048 bits), RFC 8463. Whoever changes a directory holds its lock, an flock(2) on the
directory itself, so that two never do; it is gone when its holder is killed. Of a new key the state is written before
its file: a key never signs because somebody was killed in between.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from postmeter.submission import keydir, keyfiles, keys
from postmeter.submission.keydir import KeyState
from postmeter.submission.keyfiles import KeyProblem
from postmeter.submission.keyrecord import ENOUGH_BITS
from postmeter.submission.rotation import OwnKey

_EXPONENT = 65537  # RFC 6376 section 3.3.1 asks verifiers for no other
_FILE, _FOLDER = 0o600, 0o750
_LOCK_LOOKS = 0.05  # seconds
_LETTERS = "bcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Owner:
    """To whom new files belong; without the right to give them away they stay ours."""

    uid: int
    gid: int

    def give(self, handle: int) -> None:
        """By an open file: a name may lead elsewhere by now, where the directory is not root's."""
        if os.geteuid() == 0:
            os.fchown(handle, self.uid, self.gid)


def selector(algorithm: str, *, day: str, taken: Collection[str]) -> str:
    """pm, the day as YYYYMMDD, and r or e; a letter between where that is taken."""
    for letter in ("", *_LETTERS):
        name = f"pm{day}{letter}{algorithm[0]}"
        if name not in taken:
            return name
    raise ValueError(f"no selector is free for {algorithm} on {day}")


def open_folder(keys_dir: Path, domain: str, owner: Owner) -> Path:
    """The domain's directory, made where it is missing."""
    folder = keydir.folder(keys_dir, domain)
    for path in (keys_dir, folder):
        try:
            if not path.exists():
                _make_folder(path, owner)
        except FileNotFoundError:
            raise KeyProblem(path.parent, "no such directory", "make it, or correct dkim.keys_dir") from None
        except OSError as error:
            raise _cannot(path, error) from None
    return folder


def _make_folder(path: Path, owner: Owner) -> None:
    path.mkdir(mode=_FOLDER)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(handle, _FOLDER)
        owner.give(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(folder: Path, *, patience: float) -> Iterator[None]:
    """Alone with the directory. KeyProblem when somebody else is at it for longer than `patience` seconds."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise keyfiles.unreadable(folder, error) from None
    try:
        until = time.monotonic() + patience
        while not _lock(handle):
            if time.monotonic() >= until:
                raise KeyProblem(folder, "somebody else is changing keys there", "try again in a moment")
            time.sleep(_LOCK_LOOKS)
        yield
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def own_keys(folder: Path) -> dict[str, OwnKey]:
    """Every key that has its file. One without an entry is active since its file was written."""
    files = keydir.key_files(folder)
    states = keydir.read_state(folder)
    return {name: OwnKey(_algorithm(file), states.get(name) or _from_of_old(file)) for name, file in files.items()}


def _algorithm(file: Path) -> str:
    return "rsa" if isinstance(keys.parse(file, keyfiles.read(file)), RSAPrivateKey) else "ed25519"


def _from_of_old(file: Path) -> KeyState:
    try:
        return KeyState("active", file.stat().st_mtime)
    except OSError as error:
        raise keyfiles.unreadable(file, error) from None


def save(folder: Path, changed: Mapping[str, KeyState]) -> None:
    """Other states of some keys; for whoever holds the lock. Entries of files that are gone go with it."""
    files = keydir.key_files(folder)
    known = {name: state for name, state in keydir.read_state(folder).items() if name in files}
    try:
        keydir.write_state(folder, {**known, **changed})
    except OSError as error:
        raise _cannot(folder, error) from None


def add(folder: Path, algorithms: Sequence[str], *, now: float, signs: bool, owner: Owner) -> dict[str, Path]:
    """A new key for each algorithm, by selector; for whoever holds the lock. `signs` False: they wait, pending."""
    _sweep(folder)
    taken = {*keydir.key_files(folder), *keydir.read_state(folder)}
    day = time.strftime("%Y%m%d", time.gmtime(now))
    made: dict[str, bytes] = {}
    for algorithm in algorithms:
        try:
            name = selector(algorithm, day=day, taken={*taken, *made})
        except ValueError as error:
            raise KeyProblem(folder, str(error), "take keys away that nobody needs, or wait a day") from None
        made[name] = generate(algorithm)
    if not signs:
        save(folder, {name: KeyState("pending", now) for name in made})
    return {name: _write(folder / f"{name}.pem", private, owner) for name, private in made.items()}


def generate(algorithm: str) -> bytes:
    """A private key as PEM (PKCS#8)."""
    made: RSAPrivateKey | Ed25519PrivateKey
    if algorithm == "rsa":
        made = generate_private_key(public_exponent=_EXPONENT, key_size=ENOUGH_BITS)
    else:
        made = Ed25519PrivateKey.generate()
    return made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, private: bytes, owner: Owner) -> Path:
    """Beside it first, and then linked: nobody reads half a key, and link(2) overwrites nothing."""
    beside = path.with_name(f".{path.stem}.new")
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE)
        with os.fdopen(handle, "wb") as file:
            file.write(private)
            file.flush()
            owner.give(file.fileno())
            os.fsync(file.fileno())
        os.link(beside, path)
        beside.unlink()
        keydir.sync(path.parent)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise _cannot(path, error) from None
    return path


def _sweep(folder: Path) -> None:
    """Half a key of somebody who was killed."""
    for path in folder.glob(".*.new"):
        path.unlink(missing_ok=True)


def _cannot(path: Path, error: OSError) -> KeyProblem:
    fix = "give that directory to the daemons' user, or run the command as root"
    return KeyProblem(path, f"cannot be written: {error.strerror or error}", fix)
