"""Where lines of Postfix's log come from: a file that grows, the systemd journal, or old files one after the other.

All give the same: lines that follow each other, and the place behind them as text, to be kept with what came of them.
Knows nothing of what lines say.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Protocol

from postmeter.delivery import postfixlog
from postmeter.delivery.postfixlog import Line
from postmeter.runtime import journald, oldlogs, tail
from postmeter.runtime.journald import Journal
from postmeter.runtime.logs import OnceAMinute
from postmeter.runtime.tail import Tail

once = OnceAMinute(logging.getLogger(__name__))

_CHUNK = 256 * 1024  # bytes of a file at one time, some 1500 lines: a transaction of some milliseconds
_QUIET = 10.0  # seconds without an entry after which the journal is taken to have been read to its end
_OLD = 2000  # lines of an old file at one time


@dataclass(frozen=True, slots=True)
class Piece:
    """Some lines; None for those that no Postfix wrote. `ended`: there is no more for now."""

    lines: tuple[Line | None, ...]
    place: str
    ended: bool


class Source(Protocol):
    """`gaps` counts how often lines were lost before anybody could read them."""

    name: str
    """Where it reads: a place of one source means nothing to another."""

    @property
    def gaps(self) -> int: ...

    def read(self, now: float, since: float) -> Piece:
        """The next lines, at once; the same again until `accept`. Those before were written until `since`."""

    def accept(self) -> None:
        """What came of them has been kept."""

    def lag(self) -> int:
        """Bytes that are known and were not read yet."""

    def close(self) -> None:
        """Let go of everything."""


class File:
    """A log file by its path, also before it is there."""

    def __init__(self, path: Path, place: str, *, names: Collection[str]) -> None:
        self.name = f"file:{path}"
        self._names = tuple(names)
        start = None
        with contextlib.suppress(ValueError):
            start = tail.position(place) if place else None
        self._tail = Tail(path, start, chunk=_CHUNK)
        self._batch: tail.Batch | None = None

    @property
    def gaps(self) -> int:
        return self._tail.gaps

    def read(self, now: float, since: float) -> Piece:
        batch = self._batch = self._tail.read()
        lines = tuple(_parsed((line.data for line in batch.lines), names=self._names, now=now, since=since))
        if not any(lines) and (strange := _strange(batch.lines, self._names)):
            once.log(logging.WARNING, "form", "%s: not read, for it has another form: %.200s", self.name, strange)
        return Piece(lines, str(batch.end) if batch.end else "", ended=not batch.lines)

    def accept(self) -> None:
        if self._batch is not None:
            self._tail.accept(self._batch)

    def lag(self) -> int:
        return self._tail.lag()

    def close(self) -> None:
        self._tail.close()


class Journald:
    """The systemd journal, from `since` seconds ago where no place is known."""

    name = "journald"

    def __init__(
        self, place: str, *, names: Collection[str], since: float, clock: Callable[[], float] = monotonic
    ) -> None:
        self._names = tuple(names)
        self._journal = Journal(place or None, since=since)
        self._batch: journald.Batch | None = None
        self._clock = clock
        self._heard = clock()

    @property
    def gaps(self) -> int:
        return self._journal.gaps

    def read(self, now: float, since: float) -> Piece:
        """The child needs time to find its place, and a silence of a moment is not the end."""
        batch = self._batch = self._journal.read()
        if batch.entries:
            self._heard = self._clock()
        lines = tuple(
            postfixlog.entry(each.time, each.host, each.identifier, each.pid, each.message, self._names)
            for each in batch.entries
        )
        return Piece(lines, batch.end or "", ended=not lines and self._clock() - self._heard > _QUIET)

    def accept(self) -> None:
        if self._batch is not None:
            self._journal.accept(self._batch)

    def lag(self) -> int:
        return self._journal.lag()

    def close(self) -> None:
        self._journal.close()


class OldFiles:
    """Files that nobody writes any more, in the order of their first stamps. OSError or PackedError for a bad one."""

    name = "old"
    gaps = 0

    def __init__(self, paths: Iterable[Path], *, names: Collection[str], now: float) -> None:
        self._names = tuple(names)
        self._lines = _lines(sorted(paths, key=lambda path: self._first(path, now)))
        self.read_lines = self.of_postfix = 0

    def read(self, now: float, since: float) -> Piece:
        data = list(islice(self._lines, _OLD))
        self.read_lines += len(data)
        lines = tuple(_parsed(data, names=self._names, now=now, since=since))
        self.of_postfix += sum(line is not None for line in lines)
        return Piece(lines, "", ended=False)  # what they leave open may have its end in another one

    def accept(self) -> None:
        """They are read once."""

    def lag(self) -> int:
        return 0

    def close(self) -> None:
        """Nothing is open but what the garbage collector closes."""

    def _first(self, path: Path, now: float) -> float:
        for line in islice(_lines([path]), 100):
            found = postfixlog.parse(line, now=now, names=self._names)
            if found is not None:
                return found.time
        return now


def _strange(lines: Iterable[tail.Line], names: Iterable[str]) -> str:
    """The first that names a daemon of Postfix all the same."""
    marks = [f"{name}/smtp".encode() for name in names]
    found = next((line.data for line in lines if any(mark in line.data for mark in marks)), b"")
    return repr(found)[2:-1]


def _parsed(data: Iterable[bytes], *, names: Sequence[str], now: float, since: float) -> Iterator[Line | None]:
    """Each in the light of those before it."""
    for each in data:
        line = postfixlog.parse(each, now=now, names=names, since=since)
        if line is not None and line.time > since:
            since = line.time
        yield line


def _lines(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        for line in oldlogs.read(path):
            yield line.data
