"""A spool: facts that wait to be read into the journal, one a line, written by who may not open the database.

Every writer has files of its own, `NAME-STAMP-PID-N.jsonl`, and only appends. It holds a shared lock (flock(2)) on the
file it writes, so that a reader knows a finished file, or one whose writer was killed, from one that may still grow.
Readers go through `tail` and keep the position; here they learn only which files there are and when one may go.
Knows nothing of what a line says. A line that was appended survives the death of its writer; a power cut may take it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path

LIMIT = 16 * 1024 * 1024  # bytes; then a new file, so that what has been read can be deleted

SPARE = 64 * 1024 * 1024
"""Bytes of a disk that what strangers bring leaves alone: the journal needs them, or no mail is taken."""

_MODE = 0o640
_TORN = b" <torn>\n"  # ends what a full disk cut off, so that no reader takes it for a whole line


class SpoolError(Exception):
    """The file system took only the first `written` of the lines; the rest may be appended again."""

    def __init__(self, written: int, cause: OSError) -> None:
        super().__init__(f"{cause.filename or 'spool'}: {cause.strerror}")
        self.written = written


class Writer:
    """Appends lines for one process and one thread. Opens its file with the first line. Leaves `spare` bytes free."""

    def __init__(
        self, directory: Path, *, name: str, now: Callable[[], float], limit: int = LIMIT, spare: int = 0
    ) -> None:
        self._directory = directory
        self._spare = spare
        self._name = name
        self._now = now
        self._limit = limit
        self._count = 0
        self._file = -1
        self._torn = False

    def append(self, lines: Sequence[bytes]) -> None:
        """Write lines, each without its line end and holding none; on return all of them survive our death."""
        done = start = 0
        data = b"\n".join((*lines, b""))
        try:
            self._ready()
            start = len(_TORN) * self._torn
            data = _TORN * self._torn + data
            while done < len(data):
                done += os.write(self._file, data[done:] if done else data)
                self._torn = data[done - 1 : done] != b"\n"
        except OSError as error:
            raise SpoolError(data.count(b"\n", start, done), error) from error

    def close(self) -> None:
        """Finish the file; a reader that has read it may delete it."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
        self._torn = False

    def _ready(self) -> None:
        """Go on to a new file when there is none, it is full, or somebody deleted it under us."""
        if self._spare and free_bytes(self._directory) < self._spare:
            raise OSError(errno.ENOSPC, "the last of the disk is for mail", str(self._directory))
        if self._file >= 0:
            state = os.fstat(self._file)
            if state.st_nlink and state.st_size < self._limit:
                return
        self.close()
        while self._file < 0:
            self._open()

    def _open(self) -> None:
        """Try a name that no file ever had: positions and events are kept by it, and a container's PID is always 1."""
        self._count += 1
        now = self._now()
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now)) + f".{int(now * 1_000_000) % 1_000_000:06d}Z"
        path = self._directory / f"{self._name}-{stamp}-{os.getpid()}-{self._count}.jsonl"
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, _MODE)
        except FileExistsError:
            return
        os.fchmod(self._file, _MODE)  # whatever our umask is: the reader is another user
        fcntl.flock(self._file, fcntl.LOCK_SH)
        if not os.fstat(self._file).st_nlink:  # a reader was quicker, between open and flock
            self.close()


def files(directory: Path, name: str) -> list[Path]:
    """The spool's files, oldest first; none while the directory does not exist.

    A link is none of them: whoever may write here must not make us read or lock what only we may open. Nor is a name
    that no writer gives and that no database or log can hold.
    """
    found = (path for path in directory.glob(f"{name}-*.jsonl") if path.name.isascii() and path.name.isprintable())
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def free_bytes(directory: Path) -> int:
    """What is free for us on its disk (statvfs(3))."""
    state = os.statvfs(directory)
    return state.f_bavail * state.f_frsize


def discard(path: Path, offset: int) -> int | None:
    """Delete a file whose writer has let go of it and that has no line behind `offset`.

    None as long as it must stay, else how many bytes of a line that was never finished went with it.
    """
    with contextlib.suppress(BlockingIOError, FileNotFoundError), open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return None
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.seek(offset)
        rest = 0
        while block := file.read(1 << 16):
            if b"\n" in block:
                return None
            rest += len(block)
        path.unlink()
        return rest
    return None


def _without_waiting(path: str, flags: int) -> int:
    """A pipe that somebody has put there since must not hold us."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
