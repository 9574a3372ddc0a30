"""Follows the journal: what its events say of each recipient becomes fates, figures and totals.

One chore reads behind everybody who records, from a saved position, and saves what it made of a slice with the new
position in one transaction: to be killed anywhere loses and doubles nothing. Nobody else counts deliveries, so log,
bounces and complaints cannot be counted twice. Knows nothing of where events come from.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from time import sleep

from postmeter.events import Complained, Event, Sent, Submitted, Suppressed
from postmeter.mail.draft import Figure
from postmeter.metrics import DELAYS
from postmeter.store.figures import Names
from postmeter.store.following import KINDS, POSITION, Change, Learn, follow, nothing
from postmeter.store.journal import Journal
from postmeter.store.rows import Entry

EVERY = 0.5  # seconds between two looks

_SLICE = 50  # events of one transaction: a few milliseconds, for which messages wait
_WEIGHT = 150  # recipients of one transaction, if it has more than one event
_WRITTEN, _CAUGHT_UP = 1000, 250  # events before the write-ahead log is copied back, while there are more and after
_FAR = 10_000  # numbers without anything to follow that are passed before the place is saved
_STEP = 1000  # numbers that one look at the journal passes, where there are so many
_YIELD = 0.001  # seconds between two slices: who waits for a turn to write is only then sure to get it
_BOUNDS = tuple(float(bound) for bound in DELAYS)
_OTHER = "other"


class Follower:
    """`domains` are those whose deliveries are counted by name; of all others there may be any number."""

    def __init__(
        self,
        journal: Journal,
        *,
        domains: Collection[str],
        learn: Learn = nothing,
        rest: Callable[[float], object] = sleep,
    ) -> None:
        """`rest` lets others write."""
        self._journal, self._learn, self._rest = journal, learn, rest
        self._domains = frozenset(domains)
        self._names = Names()
        self._seen = -1
        self._behind = 0
        """Events since the write-ahead log was copied back."""

    def work(self) -> bool:
        """One slice; true when there is more."""
        saved = int(self._journal.position(POSITION) or 0)
        if not saved <= self._seen < saved + _FAR:
            self._seen = saved
        found, end = self._journal.of_kinds(KINDS, after=self._seen, limit=_SLICE)
        entries = _slice(found)
        if len(entries) < len(found):
            end = entries[-1].seq
        passed = end - self._seen
        if entries or end - saved >= _FAR:
            self._keep([entry.event for entry in entries], saved, end)
        self._seen = end
        self._copy_back(len(entries))
        return len(found) == _SLICE or len(entries) < len(found) or passed >= _STEP

    def _keep(self, events: Sequence[Event], saved: int, end: int) -> None:
        try:
            follow(
                self._journal.database,
                events,
                was=saved,
                now=end,
                count=self._count,
                names=self._names,
                learn=self._learn,
            )
        except BaseException:
            self._names = Names()  # it may know names that were not written
            raise

    def _copy_back(self, events: int) -> None:
        """Before it comes due in a message's transaction. Events tell how much was written: a message's, 9 pages."""
        self._behind += events
        if events == _SLICE:
            self._rest(_YIELD)
        if self._behind >= (_WRITTEN if events == _SLICE else _CAUGHT_UP):
            self._behind = 0
            self._journal.database.checkpoint()

    def _count(self, events: Sequence[Event], changes: Sequence[Change]) -> Counter[Figure]:
        counted: Counter[Figure] = Counter()
        for change in changes:
            counted.update(self._delivered(change))
        for event in events:
            counted.update(dict(_by_event(event)))
        return counted

    def _delivered(self, change: Change) -> Iterator[Figure]:
        """A recipient counts once for each status that it comes to, so that no total goes down."""
        status, fate = change.new, change.now
        if status not in ("sent", "deferred", "bounced", "expired", "unknown"):
            return
        domain = fate.group.from_domain if fate.group.from_domain in self._domains else _OTHER
        provider = fate.provider or _OTHER
        yield "deliveries_total", (status, domain, provider)
        if status == "bounced":
            yield "bounces_total", ("hard" if change.step.hard else "soft", provider)
        elif status == "expired":
            yield "bounces_total", ("expired", provider)


def _by_event(event: Event) -> Iterator[tuple[Figure, int]]:
    if isinstance(event, Sent):
        yield from _delay(max(0.0, event.delay))
    elif isinstance(event, Complained):
        yield ("complaints_total", ()), 1
    elif isinstance(event, Suppressed):
        yield ("suppression_observed_total" if event.observed else "suppressed_total", (event.reason,)), 1


def _delay(seconds: float) -> Iterator[tuple[Figure, int]]:
    """As `metrics.Stopwatch` counts: the first bucket that it does not exceed, and the sum in microseconds."""
    at = bisect_left(_BOUNDS, seconds)
    if at < len(DELAYS):
        yield ("delivery_delay_seconds", (DELAYS[at],)), 1
    yield ("delivery_delay_seconds", ("sum",)), round(seconds * 1_000_000)
    yield ("delivery_delay_seconds", ("count",)), 1


def _slice(entries: Sequence[Entry]) -> Sequence[Entry]:
    """The first of them that together have no more recipients than a transaction shall have; one in any case."""
    weight = 0
    for number, entry in enumerate(entries):
        weight += len(entry.event.recipients) if isinstance(entry.event, Submitted) else 1
        if weight > _WEIGHT and number:
            return entries[:number]
    return entries
