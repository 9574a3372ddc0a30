"""Messages of ours that Postfix's log has yet to show, and what it means when it never does.

A worker that is killed between its record and its answer, or a later milter's refusal, leaves a message that was
charged and never taken. When the log has not shown its queue id a quarter of an hour later it was not taken: but only
where the log was read without a gap all that time, and has shown a later message of the same service, so that it is
known to be the right log, and complete. What cannot be told that way is unknown when Postfix would have given up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice

from postmeter.events import Submitted
from postmeter.store.lives import Awaited

PATIENCE = 900.0
"""Seconds of the log in which a message that was taken shows."""

_LONG = 9000.0  # seconds for one that Postfix has begun; the correlation forgets what was begun two hours ago
_AGAIN = 60.0  # seconds between two looks for what is too old
_SOME = 500  # messages given up at one time
_MOST = 200_000  # messages; the oldest are not awaited any more
_SERVICES = 100


class Awaiting:
    """`since`: from then on the log was read without a gap. `heard`: by service, the newest message that it showed."""

    def __init__(self, awaited: Iterable[Awaited], *, since: float, heard: dict[str, float]) -> None:
        found = list(awaited)
        self._watched = {each.reference: each for each in found if each.watched}
        self._lost = {each.reference: each for each in found if not each.watched}
        self._saved = set(self._watched) | set(self._lost)
        self._changed: dict[str, None] = {}
        self._coming: set[str] = set()
        self._looked = float("-inf")
        self.since, self.heard = since, heard

    def __contains__(self, reference: str) -> bool:
        return reference in self._watched or reference in self._lost

    def add(self, message: Submitted, *, now: float) -> None:
        """One that has been recorded. What comes late, from the emergency spool, the log may have shown before."""
        watched = message.time > max(self.since, now - PATIENCE)
        self._put(Awaited(message.reference, message.time, message.service, watched))
        while len(self._watched) + len(self._lost) > _MOST:
            self.forget(next(iter(self._lost or self._watched)))

    def shown(self, reference: str) -> None:
        """Postfix has taken it."""
        found = self._find(reference)
        if found is not None:
            self.forget(reference)
            if found.service in self.heard or len(self.heard) < _SERVICES:
                self.heard[found.service] = max(found.time, self.heard.get(found.service, 0.0))

    def forget(self, reference: str) -> None:
        self._watched.pop(reference, None)
        self._lost.pop(reference, None)
        self._coming.discard(reference)
        self._changed[reference] = None

    def gap(self, now: float) -> None:
        """Lines were lost up to this moment: of messages until then nothing follows from silence."""
        self.since = max(self.since, now)
        for each in [each for each in self._watched.values() if each.time <= self.since]:
            self._put(Awaited(each.reference, each.time, each.service, watched=False))

    def stepped_back(self, now: float) -> None:
        """The clock was ahead, and is no more: nothing is known of times to come."""
        self.since, self._looked = min(self.since, now), float("-inf")
        self.heard = {service: min(time, now) for service, time in self.heard.items()}
        self.gap(now)
        for each in [each for each in self._watched.values() if each.time > now]:
            self._put(Awaited(each.reference, each.time, each.service, watched=False))

    def coming(self, reference: str) -> None:
        """The log shows that Postfix began it, and may have it: where more mail waits than its queue manager looks at,
        that takes longer."""
        self._coming.add(reference)

    def silent(self, now: float) -> Iterator[str]:
        """Those that the log would have shown by now."""
        for each in list(self._watched.values()):
            if each.time > now - PATIENCE:
                return
            if each.reference in self._coming and each.time > now - _LONG:
                continue
            if self.heard.get(each.service, 0.0) >= each.time > self.since:
                yield each.reference

    def given_up(self, now: float, *, lifetime: float) -> Iterator[str]:
        """Those of which nothing can be told any more; looked for once a minute, and some at a time, as they may be
        many: whoever writes keeps mail waiting."""
        if 0 <= now - self._looked <= _AGAIN:
            return
        both = chain(self._lost.values(), self._watched.values())
        found = list(islice((each.reference for each in both if each.time < now - lifetime), _SOME))
        self._looked = now if len(found) < _SOME else float("-inf")
        yield from found

    def changes(self) -> tuple[list[Awaited], list[str]]:
        """What is to be written down, and what is to be forgotten, since the last time."""
        new = [found for reference in self._changed if (found := self._find(reference)) is not None]
        gone = [reference for reference in self._changed if reference in self._saved and reference not in self]
        self._saved.difference_update(gone)
        self._saved.update(each.reference for each in new)
        self._changed.clear()
        return new, gone

    def _find(self, reference: str) -> Awaited | None:
        return self._watched.get(reference) or self._lost.get(reference)

    def _put(self, awaited: Awaited) -> None:
        self.forget(awaited.reference)
        (self._watched if awaited.watched else self._lost)[awaited.reference] = awaited
