"""Postfix's log into the journal: a piece of it becomes events, lives and the place behind it, in one transaction.

So to be killed anywhere loses and doubles nothing: what is in memory is what was written, or is read again. A message
that Postfix did not take after all costs nothing, from that transaction on. Before each piece of the log our own record
is read to its end, so that the log never knows of a message that nobody awaits. Knows neither files nor Redis.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from postmeter.books.awaiting import Awaiting
from postmeter.books.logsource import Piece, Source
from postmeter.delivery.correlate import Correlator
from postmeter.delivery.ours import Ours, Provider
from postmeter.delivery.shelf import Told
from postmeter.delivery.word import name
from postmeter.events import Bounced, Event, Expired, Refiltered, Submitted, Unknown, Untaken
from postmeter.mail.draft import Figure
from postmeter.store import lives, refunds, veil
from postmeter.store.database import Database
from postmeter.store.journal import Journal
from postmeter.store.lives import Changes
from postmeter.store.refunds import Give, Refund

POSITION = "log"

_DAY = 86_400.0
_LOOK = 5.0  # seconds between two looks at the whole queue
_SLICES = 20  # of our record read at one time: 20,000 events
_SILENT = "the log never showed it"
_LOST = "the log was not read while it was in the queue"

MakeSource = Callable[[str, str], Source]
"""Of the name and the place that were saved; both are empty at first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """`give` takes charges back, in the transaction that records why; `late` tells whether our record may be behind."""

    provider: Provider
    lifetime: float
    """How long Postfix tries: maximal_queue_lifetime."""
    forget: float
    give: Give
    late: Callable[[], bool] = lambda: False
    awaits: bool = True
    """Whether messages that the log does not show are told of: not of old logs."""


@dataclass(slots=True)
class _State:
    """What is in memory; thrown away when it may be ahead of what was written."""

    source: Source
    correlator: Correlator
    awaiting: Awaiting
    followed: int
    begun: bool
    """There is a log: of messages before its first line nothing is expected."""
    gaps: int = 0


@dataclass(slots=True)
class _Entry:
    """What goes into the journal in one transaction."""

    told: Told = field(default_factory=Told)
    figures: Counter[Figure] = field(default_factory=Counter)
    refunds: dict[str, Refund] = field(default_factory=dict)
    """By the source of the event that tells why."""


class PostLog:
    """One chore of `books`. Every method may raise StoreError or OSError, and goes on from what was written then."""

    def __init__(self, journal: Journal, make: MakeSource, rules: Rules, *, clock: Callable[[], float]) -> None:
        self._journal, self._make, self._rules, self._clock = journal, make, rules, clock
        self._state: _State | None = None
        self._seen: set[tuple[str, str]] = set()
        self._looked = float("-inf")
        self.figures: dict[Figure, float] = {}
        """What is so now: of the queue, and how far we are behind. Replaced as a whole, for other threads to read."""
        self.recorded = 0
        """Events that were new."""

    def work(self) -> bool:
        """One piece of the log; true when there is more at once."""
        try:
            return self._work(self._state or self._open())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Forget all that is in memory."""
        if self._state is not None:
            self._state.source.close()
        self._state = None

    def _open(self) -> _State:
        rules, database = self._rules, self._journal.database
        saved = json.loads(self._journal.position(POSITION) or "{}") if rules.awaits else {}
        source = self._make(saved.get("source", ""), saved.get("place", ""))
        same = saved.get("source") == source.name
        key = veil.read_key(database)
        correlator = Correlator(
            lives.read(database) if rules.awaits else [],
            lookup=lambda queue_id, since, until: ours(self._journal, queue_id, since, until),
            provider=rules.provider,
            lifetime=rules.lifetime,
            forget=rules.forget,
            veiled=lambda address: veil.hashed(address, key),
        )
        correlator.now = saved.get("time", 0.0)
        since = saved["since"] if same else self._clock()
        awaited = lives.awaited(database) if rules.awaits else []
        awaiting = Awaiting(awaited, since=since, heard=saved.get("heard", {}))
        if not same:
            awaiting.gap(since)
        followed = saved.get("followed", self._journal.last())
        self._state = _State(source, correlator, awaiting, followed, bool(saved), source.gaps)
        return self._state

    def _work(self, state: _State) -> bool:
        if self._follow(state):
            self._record(state, _Entry(), "")
            return True
        piece = state.source.read(self._clock(), state.correlator.now)
        state.correlator.late = self._rules.late()
        entry = _Entry()
        self._take(state, piece, entry)
        if any(reference not in state.awaiting for reference in entry.told.shown):
            self._follow(state)
        for reference in entry.told.shown:
            state.awaiting.shown(reference)
        self._judge(state, entry)
        self._record(state, entry, piece.place if piece.lines else "")
        state.source.accept()
        self._look(state)
        return bool(piece.lines)

    def _follow(self, state: _State) -> bool:
        """Our own record up to its end; true when that is still to come."""
        if not self._rules.awaits:
            return False
        for _ in range(_SLICES):
            found, end = self._journal.of_kinds({"submitted"}, after=state.followed)
            for each in found:
                if isinstance(each.event, Submitted) and state.begun and not each.event.facts.get("discarded"):
                    state.awaiting.add(each.event, now=state.correlator.now)
            if end == state.followed:
                return False
            state.followed = end
        return True

    def _take(self, state: _State, piece: Piece, entry: _Entry) -> None:
        now, lost = self._clock(), 0
        if now < state.correlator.now:
            state.awaiting.stepped_back(now)
        for line in piece.lines:
            if line is None:
                continue
            state.begun = True
            if line.what == "suppressed":
                lost += 1
            elif line.what == "broken":
                entry.figures["errors_total", ("log",)] += 1
            state.correlator.take(line, clock=now)
        if piece.ended:
            state.correlator.wait(now)
        lost += state.source.gaps - state.gaps
        state.gaps = state.source.gaps
        if lost:
            entry.figures["log_gaps_total", ()] += lost
            state.awaiting.gap(state.correlator.now)
        entry.told = state.correlator.told()

    def _judge(self, state: _State, entry: _Entry) -> None:
        """What follows from all that; each bounce is told once, by whoever was first."""
        now, awaiting = state.correlator.now, state.awaiting
        events = self._news(entry.told.events)
        if self._rules.awaits:
            events += self._silent(state, now)
            for reference in awaiting.given_up(now, lifetime=self._rules.lifetime + _DAY):
                events += self._unknown(reference, now)
                awaiting.forget(reference)
        for event in events:
            if isinstance(event, Untaken):
                awaiting.forget(event.reference)
                message = self._journal.submitted(event.reference)
                if message and (back := refunds.refund(event.reference, message.facts)):
                    entry.refunds[event.source] = back
        entry.told.events = events

    def _news(self, events: Sequence[Event]) -> list[Event]:
        """Without bounces that were told of before, and without the unknown of whom another log has told."""
        bounced: dict[str, set[str]] = {}
        decided: dict[str, set[str]] = {}
        news: list[Event] = []
        for event in events:
            if isinstance(event, Bounced | Expired | Unknown):
                lost = isinstance(event, Unknown)
                known, read = (decided, self._journal.decided) if lost else (bounced, self._journal.bounced)
                if event.reference not in known:
                    known[event.reference] = set(map(name, read(event.reference)))
                if name(event.recipient) in known[event.reference]:
                    continue
                known[event.reference].add(name(event.recipient))
            news.append(event)
        return news

    def _silent(self, state: _State, now: float) -> list[Event]:
        """Messages that were not taken, as nothing was heard of them."""
        events: list[Event] = []
        references = list(state.awaiting.silent(now))
        coming = state.correlator.lives.coming() if references else set()
        for reference in references:
            message = self._journal.submitted(reference)
            if message is not None and message.queue_id in coming:
                state.awaiting.coming(reference)
                continue
            state.awaiting.forget(reference)
            if message is not None:
                events.append(self._untaken(message, now))
        return events

    def _untaken(self, message: Submitted, now: float) -> Untaken:
        return Untaken(
            source=f"untaken:{message.reference}",
            time=now,
            queue_id=message.queue_id,
            reference=message.reference,
            login=message.login,
            from_domain=message.from_domain,
            recipients=message.recipients,
            campaign=str(message.facts.get("campaign", "")),
            why=_SILENT,
        )

    def _unknown(self, reference: str, now: float) -> list[Event]:
        message = self._journal.submitted(reference)
        if message is None:
            return []
        known = set(map(name, self._journal.decided(reference)))
        return [
            Unknown(
                source=f"unknown:{reference}:{name(recipient)}",
                time=now,
                queue_id=message.queue_id,
                reference=reference,
                login=message.login,
                from_domain=message.from_domain,
                recipient=recipient,
                campaign=str(message.facts.get("campaign", "")),
                why=_LOST,
            )
            for recipient in message.recipients
            if name(recipient) not in known
        ]

    def _record(self, state: _State, entry: _Entry, place: str) -> None:
        """All of it, or nothing where there is nothing to keep. An empty place leaves the last one."""
        told, (awaited, shown) = entry.told, state.awaiting.changes()
        if not (told.events or entry.figures or told.changed or told.gone or awaited or shown or place):
            return
        changes = Changes(refunds=entry.refunds)
        if self._rules.awaits:
            changes.changed, changes.gone, changes.awaited, changes.shown = told.changed, told.gone, awaited, shown
        also = changes.writer(self._rules.give, self._clock())
        positions = {POSITION: self._place(state, place)} if self._rules.awaits else {}
        self.recorded += self._journal.record(told.events, figures=entry.figures, positions=positions, also=also)

    def _place(self, state: _State, place: str) -> str:
        if not place:
            saved = json.loads(self._journal.position(POSITION) or "{}")
            place = saved.get("place", "") if saved.get("source") == state.source.name else ""
        return json.dumps(
            {
                "source": state.source.name,
                "place": place,
                "time": state.correlator.now,
                "since": state.awaiting.since,
                "heard": state.awaiting.heard,
                "followed": state.followed,
            }
        )

    def _look(self, state: _State) -> None:
        now = self._clock()
        if 0 <= now - self._looked < _LOOK:
            return
        self._looked = now
        figures: dict[Figure, float] = {("log_lag_bytes", ()): float(state.source.lag())}
        queue = state.correlator.lives.queue()
        self._seen.update(queue)
        for labels in self._seen:
            count, since = queue.get(labels, (0, now))
            figures["queue_recipients", labels] = float(count)
            figures["queue_oldest_seconds", labels] = max(0.0, now - since)
        self.figures = figures


def ours(journal: Journal, queue_id: str, since: float, until: float) -> Ours | None:
    """What our record says of a queue id in that time."""
    event = journal.taken_as(queue_id, since=since, until=until)
    first = journal.submitted(event.reference) if isinstance(event, Refiltered) else event
    if not isinstance(event, Submitted | Refiltered):
        return None
    facts = first.facts if isinstance(first, Submitted) else {}
    return Ours(
        time=event.time,
        reference=event.reference,
        login=event.login,
        from_domain=event.from_domain,
        campaign=str(facts.get("campaign", "")),
        recipients=event.recipients,
        first=isinstance(event, Submitted),
        bounce=isinstance(event, Submitted) and not event.mail_from and not event.login,
        discarded=bool(facts.get("discarded")),
        held=bool(facts.get("held")),
        over=_people(journal.decided(event.reference)) >= _people(event.recipients),
    )


def _people(recipients: Iterable[str]) -> int:
    """Whoever was named twice gets it once."""
    return len(set(map(name, recipients)))


def repay(database: Database, refund: Callable[[Refund], None]) -> bool:
    """Give back what was noted for another store; what fails is tried again. True when there is more."""
    found = refunds.waiting(database)
    for each in found:
        refund(each)
        refunds.strike(database, each.reference)
    return bool(found)
