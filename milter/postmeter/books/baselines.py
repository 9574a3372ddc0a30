"""Learns from the journal what is usual for a login, for the brake to compare with.

A slice of events at a time, and where it was is kept with what it gave: to be killed loses and doubles nothing, and
a long past is worked off between other chores. Knows nothing of what is unusual.
"""

from __future__ import annotations

from collections.abc import Callable

from postmeter.events import Event, Released, Submitted
from postmeter.store import profiles
from postmeter.store.journal import Journal
from postmeter.store.profiles import Sighting

EVERY = 10.0
"""Seconds between two looks; what is new counts for the brake after an hour at the earliest."""

REMEMBERED = 400 * 86_400.0
"""Seconds for which is known whom a login wrote to: those who get a card each Christmas are no strangers."""

SWEEP_EVERY = 300.0
"""Seconds between two parts of what is forgotten: all of it within a day."""

_SLICE = 100  # events, a transaction of some milliseconds
_TOLD = 600.0  # seconds between two notes that nothing waits


class Baselines:
    """`learn` is `quota.brake.learn`."""

    def __init__(self, journal: Journal, *, learn: float, clock: Callable[[], float]) -> None:
        self._journal, self._learn, self._clock = journal, learn, clock
        self._position: int | None = None
        self._told = float("-inf")
        self._part = 0

    def work(self) -> bool:
        """One slice; true when there is more."""
        if self._position is None:
            self._position = int(self._journal.position(profiles.POSITION) or 0)
        entries = self._journal.events(after=self._position, limit=_SLICE)
        more, now = len(entries) == _SLICE, self._clock()
        if not more and not entries and 0 <= now - self._told < _TOLD:
            return False
        position = entries[-1].seq if entries else self._position
        seen = [sighting for entry in entries if (sighting := self._sighting(entry.event)) is not None]
        profiles.learn(self._journal.database, seen, position=position, caught_up=None if more else now)
        self._position = position
        if not more:
            self._told = now
        return more

    def sweep(self) -> None:
        """Forget a part of what is older than it may serve."""
        now = self._clock()
        profiles.sweep(
            self._journal.database,
            self._part,
            hours_before=now - self._learn,
            contacts_before=now - REMEMBERED,
        )
        self._part = (self._part + 1) % profiles.SLICES

    def _sighting(self, event: Event) -> Sighting | None:
        """What the brake held is the login's own once a person let it go. Bounces say nothing about a login."""
        if isinstance(event, Released) and event.action == "released":
            held = (entry.event for entry in self._journal.of_queue_id(event.queue_id))
            return next((_of(one) for one in held if isinstance(one, Submitted) and _by_brake(one)), None)
        return _of(event) if isinstance(event, Submitted) and not _by_brake(event) else None


def _of(event: Submitted) -> Sighting | None:
    if not event.mail_from or not event.sender or "discarded" in event.facts:
        return None
    return Sighting(event.sender, event.time, event.network, event.recipients)


def _by_brake(event: Submitted) -> bool:
    return event.facts.get("held") == "brake"
