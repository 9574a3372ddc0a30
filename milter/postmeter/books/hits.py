"""The tracking server's hits into the journal: a line of its spool becomes `Clicked`, once.

The place up to which a file was read is saved in the transaction of the events it gave, so to be killed anywhere loses
and doubles nothing. The server is another, less trusted user: a line is taken for what it may hold and for no more.
Knows nothing of HTTP. Who followed a link is not told apart yet: HEAD is a machine, all others are `unsure`.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from postmeter.events import Clicked
from postmeter.mail.draft import Figure
from postmeter.runtime import spool
from postmeter.runtime.logs import OnceAMinute
from postmeter.runtime.tail import Batch, Line, Tail, position
from postmeter.store.journal import Journal
from postmeter.tracking.hits import SPOOL

log = logging.getLogger(__name__)
once = OnceAMinute(log)

_PREFIX = "hits:"
_CHUNK = 256 * 1024  # bytes, about 500 hits: a transaction of some milliseconds, so that no message waits for it
_LONGEST = 8192  # bytes of a line; a request that is longer than max_line_size is not answered
_REFERENCE = re.compile("[0-9a-f]{16}")


class HitReader:
    """Reads the spool's files into the journal and deletes what has been read and is no longer written.

    `personal` false keeps out who it was: address and program (`tracking.privacy: totals`).
    """

    def __init__(self, directory: Path, journal: Journal, *, personal: bool) -> None:
        self._directory = directory
        self._journal = journal
        self._personal = personal
        self._places: dict[str, str] | None = None

    def work(self) -> bool:
        """One bounded piece of each file; true when there is more."""
        files = spool.files(self._directory, SPOOL)
        places = self._read_places(files)
        more = [self._read(path, places) for path in files]
        return any(more)

    def _read_places(self, files: Iterable[Path]) -> dict[str, str]:
        """The places of those files; of files that are gone nothing needs to be kept."""
        if self._places is None:
            known = self._journal.positions(_PREFIX)
            stale = set(known) - {_PREFIX + path.name for path in files}
            if stale:
                self._journal.forget_positions(stale)
            self._places = {name: place for name, place in known.items() if name not in stale}
        return self._places

    def _read(self, path: Path, places: dict[str, str]) -> bool:
        name = _PREFIX + path.name
        tail = Tail(path, position(places[name]) if name in places else None, longest=_LONGEST, chunk=_CHUNK)
        try:
            batch = tail.read()
            if batch.lines:
                places[name] = self._record(path, batch)
                return True
            self._discard(path, places, batch.end.offset if batch.end else 0)
            return False
        finally:
            tail.close()

    def _record(self, path: Path, batch: Batch) -> str:
        events: list[Clicked] = []
        figures: Counter[Figure] = Counter()
        for line in batch.lines:
            clicked = self._clicked(path, line)
            if clicked is None:
                figures["errors_total", ("hits",)] += _lost(line)
                once.log(logging.WARNING, "hits", "%s: a click was lost at byte %d", path.name, line.offset)
            else:
                figures["clicks_total", ("machine" if clicked.method == "HEAD" else "unsure",)] += 1
                events.append(clicked)
        end = str(batch.end)
        self._journal.record(events, figures=figures, positions={_PREFIX + path.name: end})
        return end

    def _discard(self, path: Path, places: dict[str, str], offset: int) -> None:
        torn = spool.discard(path, offset)
        if torn is None:
            return
        if torn:
            log.info("%s: its writer died in the middle of a line that nobody was told of", path.name)
        if places.pop(_PREFIX + path.name, None) is not None:
            self._journal.forget_positions([_PREFIX + path.name])

    def _clicked(self, path: Path, line: Line) -> Clicked | None:
        try:
            said = json.loads(line.data) if line.whole else {}
            return Clicked(
                source=f"hit:{path.name}:{line.offset}",
                time=_number(said["time"]),
                reference=_reference(said["reference"]),
                link=int(_number(said["link"])),
                recipient=_text(said["recipient"], 510),
                target=_text(said["target"], _LONGEST),
                host=_text(said["host"], 255),
                method=_text(said["method"], 8),
                address=_text(said["address"], 64) if self._personal else "",
                agent=_text(said["agent"], 512) if self._personal else "",
            )
        except (ValueError, TypeError, KeyError, RecursionError):
            return None


def _lost(line: Line) -> int:
    """How many clicks a line stands for that is none: the server says so of those that it could not keep."""
    try:
        return min(int(_number(json.loads(line.data)["lost"])), 1_000_000)
    except (ValueError, TypeError, KeyError, RecursionError):
        return 1


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        raise ValueError("not a number that fits")
    return value


def _reference(value: object) -> str:
    if not isinstance(value, str) or not _REFERENCE.fullmatch(value):
        raise ValueError("not a reference")
    return value


def _text(value: object, longest: int) -> str:
    """Text that any database can hold: a lone surrogate, which JSON can say, is none."""
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value[:longest].encode("utf-8", "replace").decode()
