"""Read a file that grows: complete lines only, from a position that the caller keeps with what it made of them.

Knows nothing of what the lines say, keeps nothing on disk. Rotation by rename is followed: the old file is looked for
under its inode in the same directory and read to its end before the new one; one that is gone, or was cut short, is a
counted gap (logrotate(8): `create` is followed, `copytruncate` may lose lines by its nature). Compressed files are not
read. Lines are bytes as they are; one longer than the bound comes in pieces.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

LONGEST = 64 * 1024  # bytes of a line handed out as one: rsyslog cuts at 8 kB, a hit holds at most 8 kB
_CHUNK = 1024 * 1024  # bytes of a file read at one time


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a file: which file, and how many of its bytes have been dealt with."""

    inode: int
    offset: int

    def __str__(self) -> str:
        return f"{self.inode}:{self.offset}"


def position(text: str) -> Position:
    """The place that `str` wrote down; ValueError for what it never wrote."""
    inode, _, offset = text.partition(":")
    return Position(int(inode), int(offset))


@dataclass(frozen=True, slots=True)
class Line:
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
        self._file = -1
        self.position = start
        self.gaps = 0

    def read(self) -> Batch:
        """What stands complete behind `position`, a bounded part of it. Reads the same again until `accept`."""
        if self._file < 0 and not self._open():
            return Batch((), self.position)
        while True:
            batch = self._behind()
            if batch.lines or not self._next():
                return batch

    def accept(self, batch: Batch) -> None:
        """Go on behind this batch: what came of it has been kept."""
        self.position = batch.end

    def lag(self) -> int:
        """Bytes of the file in hand that have not been accepted yet."""
        if self._file < 0 or self.position is None:
            return 0
        return max(0, os.fstat(self._file).st_size - self.position.offset)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _behind(self) -> Batch:
        place = self.position
        assert place is not None  # noqa: S101  (an open file has a place; for the type checker)
        if os.fstat(self._file).st_size < place.offset:
            self.gaps += 1
            place = self.position = Position(place.inode, 0)
        data = os.pread(self._file, self._chunk, place.offset)
        lines = _lines(data, place, self._longest)
        done = sum(len(line.data) + line.whole for line in lines)
        return Batch(lines, Position(place.inode, place.offset + done))

    def _open(self) -> bool:
        """Open the file that `position` is in, wherever it was moved, or else the one at the path from its start."""
        if self.position is not None:
            path = _with_inode(self._path, self.position.inode)
            if path is not None and self._take(path) == self.position.inode:
                return True
            self.close()
        inode = self._take(self._path)
        if not inode:
            return False
        self.gaps += self.position is not None
        self.position = Position(inode, 0)
        return True

    def _next(self) -> bool:
        """Leave a file that was renamed and read to its end for the one that now has its name."""
        try:
            now = os.stat(self._path)
        except FileNotFoundError:
            return False
        if self.position is None or now.st_ino == self.position.inode or not now.st_size:
            return False  # a new file that is empty yet: its writer may still be writing to the old one
        if b"\n" in self._remainder():
            return False
        self.close()
        self.position = None
        return self._open()

    def _remainder(self) -> bytes:
        """What came between the last look at this file and the first line of the new one."""
        assert self.position is not None  # noqa: S101  (as above)
        return os.pread(self._file, self._chunk, self.position.offset)

    def _take(self, path: Path) -> int:
        """Open a path; its inode, or 0 when there is no such file (yet)."""
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hold us
        except FileNotFoundError:
            return 0
        state = os.fstat(self._file)
        if not stat.S_ISREG(state.st_mode):
            self.close()
            return 0
        return state.st_ino


def _lines(data: bytes, place: Position, longest: int) -> tuple[Line, ...]:
    found = []
    at = 0
    while at < len(data):
        end = data.find(b"\n", at, at + longest + 1)
        if end < 0 and len(data) - at <= longest:
            break
        whole = end >= 0
        line = data[at : end if whole else at + longest]
        found.append(Line(place.inode, place.offset + at, line, whole))
        at += len(line) + whole
    return tuple(found)


def _with_inode(path: Path, inode: int) -> Path | None:
    """The file of that inode: the path itself, or a file beside it whose name begins with the path's."""
    if not path.parent.is_dir():
        return None
    beside = (found for found in path.parent.iterdir() if found.name.startswith(path.name))
    for candidate in (path, *beside):
        with contextlib.suppress(FileNotFoundError):
            if candidate.stat().st_ino == inode:
                return candidate
    return None
