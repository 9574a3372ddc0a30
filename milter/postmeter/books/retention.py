"""Forgets what is old: addresses after `journal.keep_addresses`, whole events after `journal.keep`.

An event is looked at in the order in which it was recorded, once everybody has read it who follows the journal: what is
not counted or shipped yet stays as it is, however old. All of it a little at a time: a tenth of a second each second at
most, in transactions of some milliseconds, so that no mail waits; then there is an hour of rest. The room that is left
in the file is used again for what comes; the file itself does not shrink. Knows nothing of what is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, time

from postmeter.store import retention
from postmeter.store.database import Database

EVERY = 1.0
"""Seconds between two looks."""

_BUDGET = 0.1  # seconds of work in one look
_REST = 3600.0
_SLICE = 200
_FAR = 5000  # events without an old one among them, behind which none is looked for: clocks go back by less


@dataclass(frozen=True, slots=True)
class Ages:
    """Seconds. What webhooks may still have to tell keeps its addresses as long as they try."""

    events: float
    addresses: float


class Retention:
    """`read` answers up to where everybody has read the journal."""

    def __init__(
        self,
        database: Database,
        ages: Ages,
        *,
        read: Callable[[], int],
        now: Callable[[], float] = time,
        ticks: Callable[[], float] = monotonic,
    ) -> None:
        self._database, self._ages, self._read, self._now, self._ticks = database, ages, read, now, ticks
        self._due = 0.0
        self._passes: list[Callable[[], bool]] = []

    def work(self) -> None:
        """As much as its time allows."""
        end = self._ticks() + _BUDGET
        if self._ticks() < self._due:
            return
        if not self._passes:
            self._begin()
        while self._passes and self._ticks() < end:
            if not self._passes[0]():
                self._passes.pop(0)
        if not self._passes:
            self._due = self._ticks() + _REST

    def _begin(self) -> None:
        now, upto = self._now(), self._read()
        deleting = _Pass(self._database, before=now - self._ages.events, upto=upto, hashes=False)
        before = now - min(self._ages.addresses, self._ages.events)
        hashing = _Pass(self._database, before=before, upto=upto, hashes=True)

        def suppressed() -> bool:
            return retention.hash_suppressed(self._database, before=before) > 0

        self._passes = [deleting.work, hashing.work, suppressed]


class _Pass:
    """Once through the journal, up to where it is young."""

    def __init__(self, database: Database, *, before: float, upto: int, hashes: bool) -> None:
        self._database, self._before, self._upto, self._hashes = database, before, upto, hashes
        self._at = retention.hashed_up_to(database) if hashes else 0
        self._whole = True  # nothing young was left behind: up to here it need not be looked at again
        self._young = 0

    def work(self) -> bool:
        """One slice; false when there is nothing old behind it."""
        seen = retention.look(self._database, after=self._at, upto=self._upto, most=_SLICE)
        old = [event for event in seen if event.time < self._before]
        self._whole = self._whole and len(old) == len(seen)
        if old and self._hashes:
            retention.hash_addresses(self._database, old, position=seen[-1].seq if self._whole else None)
        elif old:
            retention.delete(self._database, old)
        self._young = 0 if old else self._young + len(seen)
        self._at = seen[-1].seq if seen else self._at
        return len(seen) == _SLICE and self._young < _FAR
