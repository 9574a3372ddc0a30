"""`postmeter backup`: all that is needed to go on elsewhere, in a new directory, while the daemons run.

The journal as it is at one moment, what waits in the spools, the configuration and every file it names; private keys
only when asked for. Below `files` each lies where it belongs, with its mode and, where root asks, its owner; nobody
else may enter the directory. It appears under its name when it is whole and on disk, or not at all. How to put it back
stands in docs/operations.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postmeter import __version__
from postmeter.cli.command import FOUND_A_PROBLEM, OK, Command, given, said

if TYPE_CHECKING:
    from postmeter.config.schema import Config

_NOT_OURS = {("journal", "path"), ("delivery", "log")}  # copied otherwise, or somebody else's
_SPOOLS = ("events", "hits", "returns")
_BLOCK = 1 << 20


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", type=_folder, help="where a directory postmeter-TIME is made")
    parser.add_argument("--keys", action="store_true", help="with the private keys of dkim and web")


def _folder(text: str) -> Path:
    return Path(given(text))


def run(args: Namespace) -> int:
    from postmeter.config.load import load
    from postmeter.store.database import StoreError

    config = load(args.config)
    name = f"postmeter-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    draft, final = args.directory / f".{name}.partial", args.directory / name
    try:
        args.directory.mkdir(parents=True, exist_ok=True)
        draft.mkdir(mode=0o700)  # where it is there already it is another's, who began in this second
        try:
            count = _fill(draft, config, args.config, keys=args.keys)
            draft.rename(final)
        except (StoreError, OSError):
            shutil.rmtree(draft, ignore_errors=True)
            raise
        _sync(args.directory)
    except (StoreError, OSError) as error:
        print(f"postmeter backup: {said(error)}", file=sys.stderr)
        return FOUND_A_PROBLEM
    size = sum(path.stat().st_size for path in final.rglob("*") if path.is_file())
    print(f"{final}: {count} files, {size / 1_000_000:.1f} MB")
    return OK


def _fill(draft: Path, config: Config, file: Path, *, keys: bool) -> int:
    """What waits is copied first: an event that went into the journal meanwhile is known there by its source."""
    from postmeter.store import copying, database

    journal, files = config.journal, draft / "files"
    spool = journal.path.absolute().parent / "spool"
    waiting = [path for name in _SPOOLS for path in _waiting(spool / name)]
    told = [_take(path, files) for path in waiting]
    _room(draft, journal.path)
    target = _place(journal.path.absolute(), files)
    target.touch(0o600)
    opened = database.open(journal.path, sync=journal.sync)
    try:
        last = copying.copy(opened, target)
    finally:
        opened.close()
    told.append(_told(journal.path.absolute(), target))
    told += [_take(path, files) for path in sorted({file.absolute(), *_named(config, keys=keys)})]
    _write_manifest(draft, [one for one in told if one], config, file=file, last=last, keys=keys)
    for path in draft.rglob("*"):
        _sync(path)
    return sum(map(bool, told)) + 1


def _room(draft: Path, journal: Path) -> None:
    need, free = journal.stat().st_size, shutil.disk_usage(draft).free
    if need > free:
        raise OSError(f"{draft.parent}: {need} octets are needed and {free} are free")


def _waiting(spool: Path) -> list[Path]:
    """Files and nothing else, in it and in its directories: ours have no more below, and it may be another user's."""
    found = [path for path in spool.glob("*") if not path.is_symlink()]
    found += [path for one in found if one.is_dir() for path in one.glob("*") if not path.is_symlink()]
    return sorted(path for path in found if path.is_file())


def _below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _named(config: Config, *, keys: bool) -> Iterator[Path]:
    """Every file that the configuration names, and all that lie in a directory it names."""
    for trail, path in _paths(config, ()):
        private = trail[0] == "dkim" or trail == ("web", "key")
        if trail[:2] in _NOT_OURS or (private and not keys):
            continue
        yield from _below(path) if path.is_dir() and private else [path.absolute()] if path.is_file() else []


def _paths(value: Any, trail: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Path]]:
    if isinstance(value, Path):
        yield trail, value
    elif is_dataclass(value):
        for field in fields(value):
            yield from _paths(getattr(value, field.name), (*trail, field.name))
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from _paths(one, (*trail, str(name)))
    elif isinstance(value, tuple | list | frozenset):
        for one in value:
            yield from _paths(one, trail)


def _place(source: Path, files: Path) -> Path:
    """Where it goes; directories on the way are made as they are there."""
    target = files / source.relative_to(source.anchor)
    for old, new in zip(reversed(source.parents), reversed(target.parents[: len(source.parents)]), strict=True):
        if not new.exists():
            new.mkdir()
            _alike(old, new, least=0o700)
    return target


def _alike(old: Path, new: Path, *, least: int = 0) -> None:
    state = old.stat()
    if os.geteuid() == 0:
        os.chown(new, state.st_uid, state.st_gid)
    new.chmod(state.st_mode & 0o7777 | least)


def _take(source: Path, files: Path) -> dict[str, object]:
    """What is gone by now has been dealt with; nothing to tell then."""
    target = files / source.relative_to(source.anchor)
    try:
        with _place(source, files).open("xb") as new:
            new.writelines(_blocks(source))
        return _told(source, target)
    except FileNotFoundError:
        target.unlink(missing_ok=True)
        return {}


def _told(source: Path, target: Path) -> dict[str, object]:
    """Make it like the original, and tell which octets it has."""
    _alike(source, target)
    digest = hashlib.sha256()
    for block in _blocks(target):
        digest.update(block)
    return {"path": str(source), "size": target.stat().st_size, "sha256": digest.hexdigest()}


def _blocks(path: Path) -> Iterator[bytes]:
    """Of a file, which an error of the disk names: read(2) does not."""
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block
    except OSError as error:
        error.filename = str(path)
        raise


def _write_manifest(
    draft: Path, told: list[dict[str, object]], config: Config, *, file: Path, last: int, keys: bool
) -> None:
    said = {
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": __version__,
        "host": config.journal.host or socket.gethostname(),
        "configuration": str(file.absolute()),
        "journal": str(config.journal.path),
        "last_event": last,
        "private_keys": keys,
        "files": told,
    }
    (draft / "manifest.json").write_text(json.dumps(said, indent=1) + "\n", "utf-8")


def _sync(path: Path) -> None:
    """To disk: a file, or the names in a directory (fsync(2))."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


COMMANDS = (
    Command(
        "backup",
        "copy journal, spools, configuration and secrets while the daemons run",
        "postmeter backup /var/backups/postmeter",
        arguments,
        run,
    ),
)
