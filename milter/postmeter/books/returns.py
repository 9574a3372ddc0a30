"""What came back, from the spool into the journal: read, held against the journal, recorded once, passed on or kept.

A batch of messages is one transaction, with a note of their names and of whom they are to be passed on to; only then
are they passed on and removed: whoever is killed in between, or has no journal for a while, counts nothing twice, loses
nothing, and tells nobody again and again. Reports are believed as `feedback.judging` says; here is found out which
message they speak of.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from postmeter.books import unsubscribes
from postmeter.config.schema import Bounces
from postmeter.delivery.providers import OTHER
from postmeter.events import Bounced, Complained, Event, Submitted, kind
from postmeter.feedback import reading
from postmeter.feedback.arrivals import Arrival, Arrivals
from postmeter.feedback.judging import Circumstances, Known, Verdict, judge
from postmeter.feedback.report import COMPLAINT, Report
from postmeter.mail import fieldtext
from postmeter.mail.address import text
from postmeter.mail.draft import Figure
from postmeter.mail.reading import read as read_fields
from postmeter.mail.scope import canonical
from postmeter.runtime.logs import OnceAMinute
from postmeter.store import endings, fates, veil
from postmeter.store.database import StoreError
from postmeter.store.journal import Journal
from postmeter.tag import Tagger, untagged
from postmeter.token import Mint

once = OnceAMinute(logging.getLogger(__name__))

EVERY = 0.5  # seconds between two looks
SWEEP_EVERY = 600.0
NEW, KEPT, FORWARD, AWAY = "new", "kept", "forward", "away"
"""Directories below `spool/returns`: what has not been read, what a person should look at, what goes to its sender, and
what another host may know more of (`elsewhere`)."""

_BATCH = 100  # messages in one transaction
_POSITION, _DROPPED = "returns", "returns:dropped"
_HEADER = 1 << 17  # octets; Postfix's header_size_limit is 102,400
_COPIES = 100  # messages of one Message-ID that are looked at
_MOST_HOPS = 50  # Postfix's hopcount_limit
_AGE, _MOST_KEPT, _MOST_KEPT_BYTES = 30 * 86400.0, 1000, 64 * 1024 * 1024
_TOKEN = re.compile(r"[A-Za-z0-9_-]{60,1000}")  # of an unsubscribe, in a subject


def place(state: Path, which: str) -> Path:
    return state / "spool" / "returns" / which


@dataclass(frozen=True, slots=True)
class Leave:
    """Unsubscribes by mail: the addresses of `tracking.unsubscribe_mailto`, and what opens tokens, on which hosts."""

    addresses: frozenset[str] = frozenset()
    mint: Mint | None = None
    hosts: tuple[str, ...] = ()


class Returns:
    """One in the books' own thread; the only one that takes from the spool."""

    def __init__(
        self,
        journal: Journal,
        state: Path,
        *,
        bounces: Bounces,
        tagger: Tagger | None,
        leave: Leave,
        clock: Callable[[], float],
        away: Arrivals | None = None,
        provider: Callable[[Mapping[str, str]], str] = lambda values: OTHER,
    ) -> None:
        self._journal, self._bounces, self._tagger, self._leave, self._clock = journal, bounces, tagger, leave, clock
        self._away, self._provider = away, provider
        self._new = Arrivals(place(state, NEW))
        self._kept = Arrivals(place(state, KEPT), most=2 * _MOST_KEPT, most_bytes=2 * _MOST_KEPT_BYTES)
        self._forward = Arrivals(place(state, FORWARD))
        addresses = [*bounces.domains.values(), *([bounces.cfbl_address] if bounces.cfbl_address else [])]
        self._ours = frozenset(map(canonical, addresses)) | leave.addresses

    def work(self) -> bool:
        """One batch; true when there is more."""
        names = self._new.names()
        if not names:
            return False
        done = self._recorded()
        self._finish(done)
        batch = [name for name in names if name not in done][:_BATCH]
        if batch:
            self._finish(self._record(batch))
        return len(names) > len(batch)

    def sweep(self) -> None:
        """What nobody looked at goes, the oldest first; and what was never finished."""
        now = self._clock()
        self._trim()
        for arrivals in (self._new, self._kept, self._forward, *([self._away] if self._away else [])):
            arrivals.sweep(now=now)

    def _trim(self) -> None:
        self._kept.trim(
            now=self._clock(), age=_AGE, most=_MOST_KEPT, most_bytes=_MOST_KEPT_BYTES, before=self._count_dropped
        )

    def _count_dropped(self, names: Sequence[str]) -> None:
        """Those that were counted the last time are still there when we were killed then."""
        new = set(names).difference(json.loads(self._journal.position(_DROPPED) or "[]"))
        once.log(logging.WARNING, "kept", "%d messages that came back and were kept for a person go", len(new))
        self._journal.record([], figures={_figure("dropped"): len(new)}, positions={_DROPPED: json.dumps(names)})

    def _keep(self, arrival: Arrival, why: str) -> None:
        """For a person. However many strangers send, what is to be recorded does not wait for room here."""
        envelope = replace(arrival.envelope, why=why)
        try:
            self._kept.put(envelope, arrival.raw, name=arrival.name)
        except OSError as error:
            if error.errno != errno.EDQUOT:
                raise
            self._trim()
            self._kept.put(envelope, arrival.raw, name=arrival.name)

    def _read(self, name: str) -> Arrival | None:
        """None when there is nothing to be read; what somebody else wrote and keeps from us holds up nobody."""
        try:
            return self._new.read(name)
        except PermissionError as error:
            where = self._new.set_aside(name)
            once.log(logging.ERROR, "aside", "%s: it is %s until it is readable and has its name again", error, where)
            return None

    def _recorded(self) -> dict[str, str]:
        """Names of the last batch, and the sender where there is something to be passed on."""
        saved = self._journal.position(_POSITION)
        return {str(name): str(to) for name, to in json.loads(saved).items()} if saved else {}

    def _finish(self, recorded: Mapping[str, str]) -> None:
        """Those that are still there have only to be passed on and removed."""
        for name, to in recorded.items():
            arrival = self._new.read(name) if to else None
            if arrival is not None:
                self._send_on(arrival, to)
            self._new.drop(name)

    def _send_on(self, arrival: Arrival, to: str) -> None:
        """While no server takes them, answers stop neither each other nor bounces."""
        try:
            self._forward.put(replace(arrival.envelope, sender="", recipients=(to,)), arrival.raw, name=arrival.name)
        except OSError as error:
            if error.errno != errno.EDQUOT:
                raise
            self._keep(arrival, "not passed on: too many wait for that")

    def _record(self, batch: Sequence[str]) -> dict[str, str]:
        events: list[Event] = []
        figures: Counter[Figure] = Counter()
        done = dict.fromkeys(batch, "")
        messages = _Messages(self._journal, self._provider)
        for name in batch:
            arrival = self._read(name)
            if arrival is None:
                continue
            verdict = self._understood(arrival, messages)
            messages.recorded(verdict.events)
            events += verdict.events
            figures[_figure(verdict.result)] += 1
            done[name] = verdict.pass_on_to
            if verdict.kept:
                self._keep(arrival, verdict.kept)
        self._journal.record(events, figures=figures, positions={_POSITION: json.dumps(done)})
        return done

    def _understood(self, arrival: Arrival, messages: _Messages) -> Verdict:
        try:
            return self._judged(arrival, messages)
        except (OSError, StoreError):
            raise
        except Exception as bug:  # whatever a stranger writes must not keep what came behind it from being read
            once.log(logging.ERROR, "returns", "%s cannot be read: %r", arrival.name, bug, exc_info=True)
            return Verdict("unclear", kept="failed by a bug of ours")

    def _judged(self, arrival: Arrival, messages: _Messages) -> Verdict:
        if any(canonical(untagged(address)) in self._leave.addresses for address in arrival.envelope.recipients):
            return self._unsubscribe(arrival)
        report = reading.read(arrival.raw, sender=arrival.envelope.sender)
        named = self._named(report, arrival.envelope.recipients)
        message = messages.of(named) if named else self._by_message_id(report, messages)
        if message is None:
            elsewhere = self._send_away(arrival, named or (report.message_id if report.kind == COMPLAINT else ""))
            return Verdict("elsewhere") if elsewhere else Verdict("untrusted", kept=_stranger(named, report))
        told = Circumstances(
            source=hashlib.sha256(arrival.raw).hexdigest(),
            time=self._clock(),
            named=bool(named),
            by_hand=bool(arrival.envelope.sender),
            everything=self._bounces.tag == "all",
        )
        verdict = judge(report, message, told)
        return self._pass_on(arrival, message.message, verdict) if verdict.pass_on else verdict

    def _send_away(self, arrival: Arrival, sought: str) -> bool:
        """To whatever other host may know that message; false where there is none, or no room."""
        if self._away is None or not sought:
            return False
        try:
            self._away.put(replace(arrival.envelope, why=sought), arrival.raw, name=arrival.name)
        except OSError as error:
            once.log(logging.WARNING, "away", "mail about other hosts' messages is kept here: %s", error)
            return False
        return True

    def _named(self, report: Report, recipients: Sequence[str]) -> str:
        """The message whose tag the report bears: where it was sent to, or in what it says of the message."""
        if self._tagger is None:
            return ""
        opened: Iterator[bytes | None] = (
            found(value)
            for found, values in (
                (self._tagger.open_address, (*recipients, report.original_from)),
                (self._tagger.open, (report.envid, report.cfbl_feedback_id)),
            )
            for value in values
        )
        return next((reference.hex() for reference in opened if reference), "")

    def _by_message_id(self, report: Report, messages: _Messages) -> Known | None:
        """For complaints alone, whose reporters send back what they were sent, and to no tagged address. Servers that
        send each recipient a copy of his own give them all one Message-ID."""
        if report.kind != COMPLAINT or not report.message_id:
            return None
        first: Known | None = None
        for reference in fates.references(self._journal.database, report.message_id)[:_COPIES]:
            known = messages.of(reference)
            if known is not None and known.message.message_id == report.message_id:
                if any(map(known.among, report.original_rcpt)):
                    return known
                first = first or known
        return first

    def _pass_on(self, arrival: Arrival, message: Submitted, verdict: Verdict) -> Verdict:
        """To the sender on record, unless that would be a circle."""
        wrong = self._circle(arrival, message.mail_from)
        if wrong:
            return replace(verdict, result="unclear", kept=wrong)
        return replace(verdict, pass_on_to=message.mail_from)

    def _circle(self, arrival: Arrival, to: str) -> str:
        if "@" not in to or veil.is_hashed(to):
            return "not passed on: its sender is not known any more"
        if canonical(untagged(to)) in self._ours or (self._tagger and self._tagger.open_address(to)):
            return "not passed on: its sender is one of our own addresses"
        fields, _ = read_fields(arrival.raw[:_HEADER])
        if sum(field.key == b"received" for field in fields) >= _MOST_HOPS:
            return "not passed on: it has been through too many servers"
        return ""

    def _unsubscribe(self, arrival: Arrival) -> Verdict:
        """The token is the right to leave, as on the web; it stands in the subject (RFC 2369 section 3.2)."""
        fields, _ = read_fields(arrival.raw[:_HEADER])
        subject = next((fieldtext.text(field.value) for field in fields if field.key == b"subject"), "")
        for token in _TOKEN.findall(subject)[:10]:
            for host in self._leave.hosts:
                said = self._leave.mint.open_unsubscribe(host, token) if self._leave.mint else None
                if said is not None:
                    line = {"time": self._clock(), "reference": said.reference.hex(), "scope": said.scope, "host": host}
                    event, _ = unsubscribes.unsubscribed("", {**line, "recipient": text(said.recipient)})
                    return Verdict("unsubscribe", (event,))
        return Verdict("untrusted", kept="an unsubscribe without a token of ours in its subject")


class _Messages:
    """Those of one batch, with what is being recorded of them."""

    def __init__(self, journal: Journal, provider: Callable[[Mapping[str, str]], str]) -> None:
        self._journal, self._provider = journal, provider
        self._key = veil.read_key(journal.database)
        self._known: dict[str, Known | None] = {}
        self._kinds: dict[str, dict[str, frozenset[str]]] = {}  # what `Known.recorded` shows, by reference

    def of(self, reference: str) -> Known | None:
        if reference not in self._known:
            message = self._journal.submitted(reference)
            self._known[reference] = self._look(message) if message is not None else None
        return self._known[reference]

    def recorded(self, events: Sequence[Event]) -> None:
        """The journal does not tell of them yet."""
        for event in events:
            if isinstance(event, Bounced | Complained):
                kinds, recipient = self._kinds[event.reference], canonical(event.recipient)
                kinds[recipient] = kinds.get(recipient, frozenset()) | {kind(event)}

    def _look(self, message: Submitted) -> Known:
        found = endings.of_reference(self._journal.database, message.reference)
        names = {canonical(name): name for name in message.recipients}
        recorded = self._kinds[message.reference] = dict(found.recorded)
        # A bounce of our own Postfix's may be here before its log is read: its provider is that of the address then.
        told = {spelt: self._provider({"to": name}) for spelt, name in names.items()}
        named = {spelt: provider for spelt, provider in told.items() if provider != OTHER}
        return Known(message, partial(_among, names, self._key), recorded, {**named, **found.providers})


def _among(names: Mapping[str, str], key: bytes, address: str) -> str:
    """The recipient that is this address, as it stands there: an address, or the hash of one."""
    return next((names[form] for form in veil.forms(address, key) if form in names), "") if address else ""


def _stranger(named: str, report: Report) -> str:
    if named:
        return "it bears our tag, and this journal does not know the message"
    return f"{report.kind}: it bears no tag of ours" + (", nor a Message-ID we know" if report.message_id else "")


def _figure(result: str) -> Figure:
    return "feedback_total", (result,)
