"""Read a file that grows: complete lines only, from a position that the caller keeps with what it made of them.

Knows nothing of what the lines say, keeps nothing on disk. Rotation is followed (logrotate(8)): a file that was renamed
is looked for under its inode, one that was copied and cut short, or compressed, by its first bytes, and read to its end
before those that came after it, oldest first, and at last the one at the path. A place that is nowhere any more is a
counted gap; what was written between `copytruncate`'s copy and its cut is lost by its nature, and cannot be told. Lines
are bytes as they are; one longer than the bound comes in pieces.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from postmeter.runtime.packed import PackedError, Unpacked, is_packed

LONGEST = 64 * 1024  # bytes of a line handed out as one: rsyslog cuts at 8 kB, a hit holds at most 8 kB
_CHUNK = 1024 * 1024  # bytes of a file read at one time
_HEAD = 256  # bytes by which a file is known: a line or two, with a time
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # nothing can be opened for a moment: no word about this file
_ROTATED = re.compile(r"[.-]([0-9][0-9._-]*?)(\.gz|\.xz|\.zst)?")  # logrotate's names, with and without dateext


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a file: which file, and how many of its bytes have been dealt with."""

    inode: int
    offset: int
    head: str = ""
    """A digest of its first bytes, as far as they have been dealt with: inodes are used again."""

    def __str__(self) -> str:
        return f"{self.inode}:{self.offset}" + (f":{self.head}" if self.head else "")


_START = Position(0, 0)


def position(text: str) -> Position:
    """The place that `str` wrote down; ValueError for what it never wrote."""
    inode, _, rest = text.partition(":")
    offset, _, head = rest.partition(":")
    return Position(int(inode), int(offset), head)


class Line(NamedTuple):
    """A line without its end, and where it began. Not `whole`: only a piece of one longer than the bound."""

    inode: int
    offset: int
    data: bytes
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines that follow each other, and the place behind them, to be saved in one transaction with what they gave."""

    lines: tuple[Line, ...]
    end: Position | None


class Tail:
    """The lines of one path, from a saved place on or from the file's beginning."""

    def __init__(self, path: Path, start: Position | None, *, longest: int = LONGEST, chunk: int = _CHUNK) -> None:
        self._path = path
        self._longest = longest
        self._chunk = max(chunk, longest + 1)
        self._file: _Plain | _Old | None = None
        self.position = start
        self.gaps = 0

    def read(self) -> Batch:
        """What stands complete behind `position`, a bounded part of it. Reads the same again until `accept`."""
        if self._file is None and not self._open():
            return Batch((), self.position)
        while True:
            batch = self._behind()
            if batch.lines or not self._next():
                return batch

    def accept(self, batch: Batch) -> None:
        """Go on behind this batch: what came of it has been kept."""
        self.position = batch.end

    def lag(self) -> int:
        """Bytes that have not been accepted yet: of the file in hand and those that came after it."""
        file, place = self._file, self.position
        if file is None or place is None:
            return 0
        newer = [] if _inode(self._path) in (0, place.inode) else [*_after(self._path, place), self._path]
        return max(0, file.size() - place.offset) + sum(map(_size, newer))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def _behind(self) -> Batch:
        place, file = self.position, self._file
        if file is not None and place is not None and not file.holds(place):
            self.close()
            self._open()
            place, file = self.position, self._file
        if file is None or place is None:
            return Batch((), place)
        data = file.pread(self._chunk, place.offset)
        found = lines(data, place.inode, place.offset, longest=self._longest)
        if not found:
            return Batch((), place)
        end = place.offset + sum(len(line.data) + line.whole for line in found)
        head = place.head if place.head and place.offset >= _HEAD else _digest(file, end)
        return Batch(found, Position(place.inode, end, head))

    def _open(self) -> bool:
        """Open the file that holds `position`, wherever it went, or else the one at the path from its start."""
        if self.position is not None:
            for path in _candidates(self._path, self.position):
                if self._take(path, self.position):
                    return True
        begun = self.position is not None
        if not self._take(self._path, _START):
            return False
        self.gaps += begun
        return True

    def _next(self) -> bool:
        """Leave a file that was rotated and read to its end for the one that came after it."""
        file, place = self._file, self.position
        if file is None or place is None:
            return False
        try:
            now = os.stat(self._path)
        except FileNotFoundError:
            return False
        if now.st_ino == place.inode or not now.st_size:
            return False  # a new file that is empty yet: its writer may still be writing to the old one
        if b"\n" in file.pread(self._chunk, place.offset):
            return False  # it came between the last look at this file and the first line of the new one
        self.gaps += file.damaged
        self.close()
        return any(self._take(path, _START) for path in (*_after(self._path, place)[:1], self._path))

    def _take(self, path: Path, place: Position) -> bool:
        """Open a path at that place, if it holds it. OSError when nobody can tell just now."""
        try:
            file = _Old(path) if path != self._path and is_packed(path) else _Plain(path)
        except (OSError, PackedError) as error:
            _raise_scarce(error)
            return False
        held = False
        try:
            held = bool(file.inode) and file.holds(place)
        finally:  # also where the disk does not give what it has: somebody tries that again every second
            if not held:
                file.close()
        if held:
            self._file = file
            self.position = replace(place, inode=file.inode)
        return held


class _Plain:
    """A file as it is; `inode` is 0 for what is no file."""

    damaged = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hold us
        state = os.fstat(self._number)
        self.inode = state.st_ino if stat.S_ISREG(state.st_mode) else 0

    def pread(self, count: int, at: int) -> bytes:
        """OSError, by the name of the file, when the disk does not give it."""
        try:
            return os.pread(self._number, count, at)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from None

    def size(self) -> int:
        return os.fstat(self._number).st_size

    def holds(self, place: Position) -> bool:
        return self.size() >= place.offset and (not place.head or _digest(self, place.offset) == place.head)

    def close(self) -> None:
        os.close(self._number)


class _Old:
    """A file that was compressed, where nobody writes any more."""

    def __init__(self, path: Path) -> None:
        self.inode = path.stat().st_ino
        self._known: Position | None = None
        self._file = Unpacked(path)

    @property
    def damaged(self) -> bool:
        return self._file.damage is not None

    def pread(self, count: int, at: int) -> bytes:
        return self._file.pread(count, at)

    def size(self) -> int:
        return 0  # not without unpacking it

    def holds(self, place: Position) -> bool:
        """Looked at once: nobody changes it, and to go back costs unpacking it again."""
        if self._known is None:
            if (place.head and _digest(self, place.offset) != place.head) or (
                place.offset and not self.pread(1, place.offset - 1)
            ):
                return False
            self._known = place
        return True

    def close(self) -> None:
        self._file.close()


def _digest(file: _Plain | _Old, offset: int) -> str:
    return format(zlib.crc32(file.pread(min(offset, _HEAD), 0)), "08x") if offset else ""


def lines(data: bytes, inode: int, offset: int, *, longest: int) -> tuple[Line, ...]:
    """The lines that are complete in what stands at that offset, or longer than the bound."""
    found = []
    at = 0
    while at < len(data):
        end = data.find(b"\n", at, at + longest + 1)
        if end < 0 and len(data) - at <= longest:
            break
        whole = end >= 0
        line = data[at : end if whole else at + longest]
        found.append(Line(inode, offset + at, line, whole))
        at += len(line) + whole
    return tuple(found)


def _candidates(path: Path, place: Position) -> Iterator[Path]:
    """Where the place may be: under its inode, or in a rotated file with the same beginning."""
    beside = _beside(path)
    known = [found for found in (path, *beside) if _inode(found) == place.inode]
    yield from known
    if place.head:
        yield from (found for found in beside if found not in known and _rank(path, found))


def _after(path: Path, place: Position) -> list[Path]:
    """The rotated files between the one of the place and the path's, oldest first."""
    holders = (found for found in _candidates(path, place) if _rank(path, found) and _begins(found, place))
    holder = next(holders, None)
    if holder is None:
        return []
    own = _rank(path, holder)
    ranked = sorted((rank, found) for found in _beside(path) if (rank := _rank(path, found)))
    return [found for rank, found in ranked if rank > own and rank[0] == own[0]]


def _begins(path: Path, place: Position) -> bool:
    """Whether that file is the place's, by its inode or its beginning."""
    try:
        with contextlib.closing(_Old(path)) as file:
            return file.inode == place.inode or (place.head != "" and _digest(file, place.offset) == place.head)
    except (OSError, PackedError) as error:
        _raise_scarce(error)
        return False


def _raise_scarce(error: OSError | PackedError) -> None:
    """To take a file for gone, for want of a descriptor, would tell of lines lost, or read all of it again."""
    if isinstance(error, OSError) and error.errno in _SCARCE:
        raise error


def _rank(path: Path, found: Path) -> tuple[int, ...]:
    """The greater, the later it was rotated: `.1` after `.2`, `-20261122` after `-20261121`; empty for other names."""
    name = _ROTATED.fullmatch(found.name[len(path.name) :])
    if name is None:
        return ()
    numbers = tuple(int(digits) for digits in re.findall(r"[0-9]+", name[1]))
    return (0, -numbers[0]) if len(numbers) == 1 and len(name[1]) < 5 else (1, *numbers)


def _beside(path: Path) -> list[Path]:
    """Other files whose name begins with the path's."""
    if not path.parent.is_dir():
        return []
    return [found for found in path.parent.iterdir() if found.name.startswith(path.name) and found != path]


def _inode(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_ino
    return 0


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
