"""Messages that came back, as they were received, each a file in a directory until somebody has dealt with it.

A message is on disk, and its name too, before whoever handed it over is told so (fsync(2)); what was being written when
the power failed has no name yet, and was never acknowledged. Bounded: a full directory takes no more, and mail waits in
Postfix's queue instead. Knows nothing of what a message says.

The first line of a file is JSON: when it came, the envelope, and what is to be known about it; the message follows.
Another user may write here too, an alias's program's: only plain files are read. What root makes it gives to the owner.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path

LARGEST = 16 * 1024 * 1024
"""Octets of a message: Postfix's own limit is ten million."""

_MOST, _MOST_BYTES = 10_000, 1024 * 1024 * 1024
_HEADER = 8 * 1024 * 1024  # octets of the first line: 1,000 recipients of 1,000 letters, each six octets in JSON
_LATEST = 253_402_300_800.0  # the year 10000, which no clock of ours shows
_LOOK = 1.0  # seconds for which the size of the directory is believed
_numbers = count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """`sender` is None where nobody told. `why` tells a person for what reason the message is still here."""

    time: float
    sender: str | None = None
    recipients: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class Arrival:
    """`raw` is the message as it was received."""

    name: str
    envelope: Envelope
    raw: bytes


class Arrivals:
    """One directory. Safe for several threads and processes that put, and one that takes."""

    def __init__(self, directory: Path, *, most: int = _MOST, most_bytes: int = _MOST_BYTES) -> None:
        self.directory, self._most, self._most_bytes = directory, most, most_bytes
        self._looked, self._full = float("-inf"), False

    def begin(self, envelope: Envelope, *, name: str = "") -> Draught:
        """A message that is about to come. OSError when there is no room for it."""
        _make(self.directory)
        if self._is_full():
            raise OSError(errno.EDQUOT, "too many messages wait to be read", str(self.directory))
        return Draught(self.directory, name or _new_name(), envelope)

    def put(self, envelope: Envelope, raw: bytes, *, name: str = "") -> str:
        """A whole message, durably; its name. One of the same name is replaced. OSError when it cannot be kept."""
        with contextlib.closing(self.begin(envelope, name=name)) as draught:
            draught.write(raw)
            return draught.keep()

    def names(self, most: int | None = None) -> list[str]:
        """The oldest first."""
        try:
            with os.scandir(self.directory) as entries:
                found = [one.name for one in entries if _is_message(one.name) and one.is_file(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        return sorted(found)[:most]

    def read(self, name: str) -> Arrival | None:
        """None when it is gone, or no file that we would have written. OSError when it cannot be read."""
        if not _is_message(name) or "/" in name:
            return None
        try:
            opened = os.open(self.directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):  # a link (open(2)), a socket
                return None
            raise
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            os.close(opened)
            return None
        with open(opened, "rb") as file:
            header, raw = file.readline(_HEADER), file.read(LARGEST + 1)
        return Arrival(name, _envelope(header), raw) if len(raw) <= LARGEST else None

    def set_aside(self, name: str) -> Path:
        """Out of the way of the others, under a name that only a person looks at; where it is then."""
        aside = self.directory / f".{name}.unreadable"
        os.replace(self.directory / name, aside)
        return aside

    def drop(self, name: str) -> None:
        (self.directory / name).unlink(missing_ok=True)

    def move(self, name: str, other: Arrivals, *, why: str = "") -> bool:
        """Into another directory under a new name: who remembers the old one is done with it. False when it is gone."""
        found = self.read(name)
        if found is None:
            return False
        other.put(replace(found.envelope, why=why), found.raw)
        self.drop(name)
        return True

    def trim(
        self, *, now: float, age: float, most: int, most_bytes: int, before: Callable[[Sequence[str]], None]
    ) -> None:
        """Drop the oldest and what is older than `age` seconds, until the rest is within bounds. `before` that it is
        told their names."""
        sizes = [(name, state.st_size, state.st_mtime) for name in self.names() if (state := self._state(name))]
        total, left = sum(size for _, size, _ in sizes), len(sizes)
        surplus = []
        for name, size, written in sizes:
            if left <= most and total <= most_bytes and now - written <= age:
                continue
            surplus.append(name)
            total, left = total - size, left - 1
        if surplus:
            before(surplus)
        for name in surplus:
            self.drop(name)
        self._looked = float("-inf")

    def sweep(self, *, now: float, age: float = 3600.0) -> None:
        """Remove what somebody began to write and never finished."""
        for path in self.directory.glob(".*.part"):
            with contextlib.suppress(OSError):
                if now - path.stat().st_mtime > age:
                    path.unlink()

    def _state(self, name: str) -> os.stat_result | None:
        try:
            return (self.directory / name).lstat()
        except OSError:
            return None

    def _is_full(self) -> bool:
        """Looked up once a second: between two looks not more can come than a disk writes in a second."""
        if time.monotonic() - self._looked >= _LOOK:
            sizes = [state.st_size for name in self.names() if (state := self._state(name))]
            self._full = len(sizes) >= self._most or sum(sizes) >= self._most_bytes
            self._looked = time.monotonic()
        return self._full


class Draught:
    """A message on its way into the directory; it has no name there until `keep`."""

    def __init__(self, directory: Path, name: str, envelope: Envelope) -> None:
        self._directory, self._name, self._left = directory, name, LARGEST
        self._part = directory / f".{name}.{os.getpid()}-{next(_numbers)}.part"
        self._file = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            os.fchmod(self._file, 0o640)  # whatever the umask of pipe(8) is
            if os.geteuid() == 0:  # whoever reads here is not root
                owner = directory.stat()
                os.fchown(self._file, owner.st_uid, owner.st_gid)
            self._write(json.dumps(asdict(envelope), separators=(",", ":")).encode("ascii") + b"\n")
        except BaseException:
            self.close()
            raise

    def write(self, octets: bytes) -> None:
        """OSError when the disk is full, or with EFBIG when the message is larger than we take."""
        self._left -= len(octets)
        if self._left < 0:
            raise OSError(errno.EFBIG, "larger than we take", str(self._part))
        self._write(octets)

    def keep(self) -> str:
        """On return the message survives a power cut. After an OSError it is not here: who brought it comes again."""
        path = self._directory / self._name
        os.fsync(self._file)
        os.replace(self._part, path)
        try:
            _sync_folder(self._directory)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return self._name

    def close(self) -> None:
        """What was not kept is gone."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._part.unlink(missing_ok=True)

    def _write(self, octets: bytes) -> None:
        done = 0
        while done < len(octets):
            done += os.write(self._file, octets[done:] if done else octets)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _make(directory: Path) -> None:
    """As the owner of what it is in would make it."""
    if directory.is_dir():
        return
    if not directory.parent.is_dir():
        _make(directory.parent)
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o750)
        if os.geteuid() == 0:
            owner = directory.parent.stat()
            os.chown(directory, owner.st_uid, owner.st_gid, follow_symlinks=False)


def too_large(error: OSError) -> bool:
    """Whether the message is at fault, so that it makes no sense to come again with it."""
    return error.errno == errno.EFBIG


def first(values: Iterable[str | None]) -> str:
    """The first that says something."""
    return next((value for value in values if value), "")


def _new_name() -> str:
    """Sorts by time; no two messages ever have the same."""
    now = time.time()
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now)) + f".{int(now * 1_000_000) % 1_000_000:06d}Z"
    return f"{stamp}-{os.getpid()}-{next(_numbers)}.eml"


def _is_message(name: str) -> bool:
    return name.endswith(".eml") and not name.startswith(".")


def _envelope(header: bytes) -> Envelope:
    """A line that says something else, as no writer of ours leaves it, tells nothing."""
    try:
        said = json.loads(header)
        when, sender, recipients = float(said["time"]), said.get("sender"), said.get("recipients", ())
    except (ValueError, OverflowError, TypeError, KeyError, AttributeError, RecursionError):
        return Envelope(time=0.0)
    when = when if 0 <= when < _LATEST else 0.0
    known = sender if isinstance(sender, str) else None
    return Envelope(time=when, sender=known, recipients=_texts(recipients), why=str(said.get("why", "")))


def _texts(values: object) -> tuple[str, ...]:
    listed: Sequence[object] = values if isinstance(values, list) else ()
    return tuple(value for value in listed if isinstance(value, str))
