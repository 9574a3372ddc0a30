"""The tracking server's hits into the journal: lines of its spool become `Clicked` and `Opened`, each once.

The place up to which a file was read is saved in the transaction of the events it gave, so to be killed anywhere loses
and doubles nothing. A hit waits two seconds before it is judged, for whatever comes at the same time: the files of all
workers are read side by side. Knows nothing of HTTP; who is a person is told in `verdicts`, and what may be kept of one
in `discretion`. Files are deleted when they have been read and are no longer written, and addresses with them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from postmeter.books import spooled
from postmeter.books.discretion import Origin, clicked, open_source, opened, rejudged, unique_key
from postmeter.books.spooled import Seen
from postmeter.books.verdicts import MINUTE, About, Judge, Judged
from postmeter.events import Event, Submitted
from postmeter.mail.draft import Figure
from postmeter.runtime import spool
from postmeter.runtime.logs import OnceAMinute
from postmeter.runtime.tail import Line, Position, Tail, position
from postmeter.store import uniques
from postmeter.store.journal import Journal
from postmeter.tracking.hits import SPOOL
from postmeter.tracking.robots import Robots

log = logging.getLogger(__name__)
once = OnceAMinute(log)

SETTLE = 2.0
"""Seconds that a hit waits for those that belong to it."""

_PREFIX = "hits:"
_CHUNK = 512 * 1024  # bytes, about 1000 hits: a transaction of some milliseconds, so that no message waits for it
_LEAST = 64 * 1024  # bytes of a file, however many there are
_FILES = 64  # the oldest ones at a time: a day in which nobody read them leaves thousands
_ORIGINS = 10_000  # messages whose origin is remembered

Other: TypeAlias = Callable[[str, Mapping[str, Any]], tuple[Event, Mapping[Figure, int]]]
"""Makes an event, and what it adds to the figures, of a line of another kind and its source. ValueError, TypeError or
KeyError for what is none."""


@dataclass(slots=True)
class _Part:
    """What was read of a file this time: its lines in their order, and where the first of them begins."""

    path: Path
    lines: list[tuple[Line, Seen | Mapping[str, Any] | None]]
    full: bool
    """There is more than was read."""
    taken: int = 0

    @property
    def end(self) -> Position:
        """Behind what was taken."""
        line = self.lines[self.taken - 1][0]
        return Position(line.inode, line.offset + len(line.data) + line.whole)

    @property
    def last(self) -> float:
        """The time of the last hit that was read; whatever comes later in this file is not much older."""
        times = [hit.time for _, hit in self.lines if isinstance(hit, Seen)]
        return times[-1] if times else float("inf")

    def take(self, ripe: Callable[[Seen], bool]) -> None:
        """The lines before the first hit that is not ripe; some in any case where there is more than can be held."""
        waits = (at for at, (_, hit) in enumerate(self.lines) if isinstance(hit, Seen) and not ripe(hit))
        self.taken = next(waits, len(self.lines))
        if self.full:
            self.taken = max(self.taken, (len(self.lines) + 1) // 2)


@dataclass(slots=True)
class _Entry:
    """What goes into the journal in one transaction."""

    events: list[Event] = field(default_factory=list)
    figures: Counter[Figure] = field(default_factory=Counter)
    first: dict[bytes, float | None] = field(default_factory=dict)


class HitReader:
    """Reads the spool's files into the journal and deletes what has been read and is no longer written.

    `privacy` is for messages of which the journal knows nothing; `others` by the `kind` of their lines. On a disk with
    fewer than `spare` bytes left hits wait: whoever has a link can bring any number of them, and mail needs the rest.
    """

    def __init__(
        self,
        directory: Path,
        journal: Journal,
        *,
        robots: Robots,
        privacy: str,
        clock: Callable[[], float],
        others: Mapping[str, Other] | None = None,
        spare: int = spool.SPARE,
    ) -> None:
        self._directory = directory
        self._spare = spare
        self._journal = journal
        self._privacy = privacy
        self._clock = clock
        self._others = dict(others or {})
        self._origins: dict[str, Origin] = {}
        self._judge = Judge(robots, self._about)
        self._places: dict[str, str] | None = None

    def use(self, robots: Robots) -> None:
        """From now on judge by this list."""
        self._judge.robots = robots

    def work(self) -> bool:
        """One bounded piece of all files together; true when there is more that needs no waiting.

        OSError for a file that cannot be read, once there is nothing else to be done.
        """
        files = spool.files(self._directory, SPOOL)
        if files and spool.free_bytes(self._directory) < self._spare:
            return False
        places = self._read_places(files)
        files = files[:_FILES]
        chunk = max(_LEAST, _CHUNK // max(1, len(files)))
        parts: list[_Part] = []
        unread: OSError | None = None
        for path in files:
            try:
                part = self._read(path, places, chunk)
            except OSError as error:  # a file that the disk does not give keeps no other from being read
                unread = unread or error
                continue
            parts += [part] if part is not None else []
        self._take(parts)
        if any(part.taken for part in parts):
            self._record(parts, places)
            return True
        self._review()
        if unread is not None:
            raise unread
        return False

    def _review(self) -> None:
        """The log tells of deliveries later than robots come."""
        changed = self._judge.review(self._clock() - MINUTE)
        if changed:
            entry = _Entry()
            self._add_hits(entry, changed)
            self._journal.record(entry.events, first=entry.first)

    def _read_places(self, files: Iterable[Path]) -> dict[str, str]:
        """The places of those files; of files that are gone nothing needs to be kept."""
        if self._places is None:
            known = self._journal.positions(_PREFIX)
            stale = set(known) - {_PREFIX + path.name for path in files}
            if stale:
                self._journal.forget_positions(stale)
            self._places = {name: place for name, place in known.items() if name not in stale}
        return self._places

    def _read(self, path: Path, places: dict[str, str], chunk: int) -> _Part | None:
        """The next lines; a file without any is deleted if it may be."""
        name = _PREFIX + path.name
        tail = Tail(path, position(places[name]) if name in places else None, longest=spooled.LONGEST, chunk=chunk)
        try:
            batch = tail.read()
            if batch.lines:
                tail.accept(batch)
                lines = [(line, self._parse(path, line)) for line in batch.lines]
                return _Part(path, lines, full=tail.lag() > spooled.LONGEST)
            self._discard(path, places, batch.end.offset if batch.end else 0)
            return None
        finally:
            tail.close()

    def _parse(self, path: Path, line: Line) -> Seen | Mapping[str, Any] | None:
        """A hit, or an object of another kind that somebody here understands."""
        try:
            said = spooled.said(line.data) if line.whole else {}
            if said.get("kind") in self._others:
                return said
            return spooled.seen(f"hit:{path.name}:{line.offset}", said)
        except (ValueError, TypeError, KeyError, RecursionError):
            return None

    def _take(self, parts: Sequence[_Part]) -> None:
        """What all files together have told enough of: no hit before others of its time have been read."""
        now = self._clock()
        horizon = min([now, *(part.last for part in parts if part.full)]) - SETTLE
        for part in parts:
            part.take(lambda hit: hit.time <= horizon or hit.time > now + SETTLE)

    def _record(self, parts: Sequence[_Part], places: dict[str, str]) -> None:
        entry = _Entry()
        ripe: list[Seen] = []
        ahead: list[Seen] = []
        for part in parts:
            ripe += [hit for _, hit in part.lines[: part.taken] if isinstance(hit, Seen)]
            ahead += [hit for _, hit in part.lines[part.taken :] if isinstance(hit, Seen)]
            for line, hit in part.lines[: part.taken]:
                if not isinstance(hit, Seen):
                    self._add_other(entry, part.path, line, hit)
        judged = self._judge.judge(sorted(ripe, key=lambda hit: hit.time), ahead)
        self._add_hits(entry, judged)
        ends = {_PREFIX + part.path.name: str(part.end) for part in parts if part.taken}
        self._journal.record(entry.events, figures=entry.figures, positions=ends, first=entry.first)
        places.update(ends)

    def _add_other(self, entry: _Entry, path: Path, line: Line, said: Mapping[str, Any] | None) -> None:
        try:
            if said is None:
                raise ValueError("no line of ours")
            event, figures = self._others[str(said["kind"])](f"hit:{path.name}:{line.offset}", said)
        except (ValueError, TypeError, KeyError):
            entry.figures["errors_total", ("hits",)] += spooled.lost(line.data)
            once.log(logging.WARNING, "hits", "%s: a hit was lost at byte %d", path.name, line.offset)
            return
        entry.events.append(event)
        entry.figures.update(figures)

    def _add_hits(self, entry: _Entry, judged: Sequence[Judged]) -> None:
        """What is judged anew comes before the new ones, which may be the first in its place."""
        found = [(one, self._origin(one.seen.reference)) for one in judged]
        keys = {
            unique_key(told, origin, kind)
            for one, origin in found
            for told in (one, replace(one, verdict=one.before or one.verdict))
            for kind in ("click", "open")
        }
        known = uniques.known(self._journal.database, keys - {b""})
        for one, origin in found:
            if one.before is not None:
                self._add_anew(entry, one, origin, known)
        for one, origin in found:
            if one.before is None:
                self._add_new(entry, one, origin, known)

    def _add_anew(self, entry: _Entry, judged: Judged, origin: Origin, known: dict[bytes, float]) -> None:
        """With it the open that a click has shown: that was whose the click was."""
        unique = _first_now(entry, known, judged, origin, judged.seen.kind)
        again = rejudged(judged, origin, unique=unique)
        entry.events.append(again)
        shown = open_source(again.hit)
        if origin.opens and again.what == "click" and self._journal.has(shown):
            unique = _first_now(entry, known, judged, origin, "open")
            source = f"judged:{shown}:{again.by}"
            entry.events.append(replace(again, source=source, hit=shown, what="open", unique=unique))

    def _add_new(self, entry: _Entry, judged: Judged, origin: Origin, known: dict[bytes, float]) -> None:
        """A click counts as an open too, where nobody has seen one and opens are looked for.

        The totals come with the events: what is read again counts no more.
        """
        hit = judged.seen
        if hit.kind == "click":
            unique = _first(entry, known, unique_key(judged, origin, "click"), hit.time)
            entry.events.append(clicked(judged, origin, unique=unique))
            if not origin.opens or not _first(entry, known, unique_key(judged, origin, "open"), hit.time):
                return
            unique = True
        else:
            unique = _first(entry, known, unique_key(judged, origin, "open"), hit.time)
        entry.events.append(opened(judged, origin, unique=unique))

    def _discard(self, path: Path, places: dict[str, str], offset: int) -> None:
        torn = spool.discard(path, offset)
        if torn is None:
            return
        if torn:
            log.info("%s: its writer died in the middle of a line that nobody was told of", path.name)
        if places.pop(_PREFIX + path.name, None) is not None:
            self._journal.forget_positions([_PREFIX + path.name])

    def _about(self, reference: str) -> About:
        origin = self._origin(reference)
        delivered = self._journal.delivered(reference)
        deferred = delivered is None and self._journal.deferred(reference)
        return About(origin.time, delivered, deferred=deferred, single=not origin.shared)

    def _origin(self, reference: str) -> Origin:
        """A message that is not known may become so, when an emergency spool is replayed: that is not remembered."""
        if reference in self._origins:
            return self._origins[reference]
        message = self._journal.submitted(reference)
        if message is None:
            return Origin(None, self._privacy)
        if len(self._origins) >= _ORIGINS:
            self._origins.clear()
        self._origins[reference] = found = self._origin_of(message)
        return found

    def _origin_of(self, message: Submitted) -> Origin:
        facts = message.facts
        return Origin(
            time=message.time,
            privacy=str(facts.get("privacy", self._privacy)),
            recipients=max(1, len(message.recipients)),
            campaign=str(facts.get("campaign", "")),
            from_domain=message.from_domain,
            opens=facts.get("opens") is True,
        )


def _first(entry: _Entry, known: dict[bytes, float], key: bytes, when: float) -> bool | None:
    """Whether it is the first of its kind; None where nobody can tell."""
    if not key:
        return None
    if key in known:
        return False
    known[key] = entry.first[key] = when
    return True


def _first_now(entry: _Entry, known: dict[bytes, float], judged: Judged, origin: Origin, kind: str) -> bool | None:
    """The same of a hit judged anew; if it was the first of what it was taken for, nobody is any more."""
    when = judged.seen.time
    was = unique_key(replace(judged, verdict=judged.before or judged.verdict), origin, kind)
    if was and known.get(was) == when:
        del known[was]
        entry.first[was] = None
    return _first(entry, known, unique_key(judged, origin, kind), when)
