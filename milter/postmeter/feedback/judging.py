"""What a report may change: only what the journal says of the very message and recipient that it speaks of.

Pure. Reports are unauthenticated mail, and the tag is to be read by every recipient of the message: it proves which
message is meant, and no more. So a report is believed of that message's own recipients, and of each of them once. All
else is for a person to look at. Knows nothing of how a report was read, nor of files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from postmeter.events import Bounced, Complained, Event, Submitted
from postmeter.feedback.report import BOUNCE, COMPLAINT, OTHER, Report, Returned
from postmeter.mail.scope import canonical

ENDED = frozenset({"bounced", "expired"})
COMPLAINED = frozenset({"complained"})

_LONGEST = 1000  # characters of what the other side said


@dataclass(frozen=True, slots=True)
class Known:
    """A message of ours and what is recorded of it. `among` gives the journal's spelling of one of its recipients, or
    nothing; `recorded` the kinds of events of each, by its canonical spelling; `providers` who received."""

    message: Submitted
    among: Callable[[str], str]
    recorded: Mapping[str, frozenset[str]] = field(default_factory=dict)
    providers: Mapping[str, str] = field(default_factory=dict)

    def has(self, recipient: str, kinds: frozenset[str]) -> bool:
        return bool(self.recorded.get(canonical(recipient), frozenset()) & kinds)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`kept`: why a person should look at it; empty when nobody need. `result` is its name in `feedback_total`."""

    result: str
    events: tuple[Event, ...] = ()
    kept: str = ""
    pass_on: bool = False
    pass_on_to: str = ""
    """The sender, once it is clear that it may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """`source` names the report, for good. `named`: by a tag of ours and not by its Message-ID alone. `by_hand`: it has
    a sender, as a report has not. `everything`: the sender gets every DSN too (`bounces.tag: all`)."""

    source: str
    time: float
    named: bool
    by_hand: bool = False
    everything: bool = False


def judge(report: Report, known: Known, told: Circumstances) -> Verdict:
    """What is no bounce and no complaint goes to the sender, whose answer it is."""
    if report.feedback_type and report.feedback_type != "abuse":
        return Verdict("unclear", kept=f"a feedback report, but no complaint: {report.feedback_type}")
    if report.kind == COMPLAINT:
        return _complaint(report, known, told)
    if not told.named:
        return Verdict("untrusted", kept="it bears no tag of ours")
    if report.kind == BOUNCE:
        return _bounce(report, known, told)
    if report.kind != OTHER or told.by_hand:
        return Verdict("passed_on", pass_on=True)
    return Verdict("unclear", kept="not understood; passed on to the sender", pass_on=True)


def _bounce(report: Report, known: Known, told: Circumstances) -> Verdict:
    found: dict[str, Returned] = {}
    for one in report.recipients:
        recipient = _recipient(one, known)
        if one.action == "failed" and recipient:
            found.setdefault(recipient, one)
    new = {recipient: one for recipient, one in found.items() if not known.has(recipient, ENDED)}
    if not found:
        return Verdict("untrusted", kept="it names nobody whom that message went to", pass_on=told.everything)
    events = tuple(
        _bounced(one, recipient, known, source=f"dsn:{told.source}:{number}", time=told.time)
        for number, (recipient, one) in enumerate(new.items())
    )
    return Verdict("bounce" if new else "repeated", events, pass_on=told.everything)


def _recipient(one: Returned, known: Known) -> str:
    """As the sender named it, or as it was tried; one that says neither speaks of the only one there is."""
    if not one.original and not one.recipient:
        return _only(known)
    return known.among(one.original) or known.among(one.recipient)


def _only(known: Known) -> str:
    recipients = known.message.recipients
    return recipients[0] if len(recipients) == 1 else ""


def _bounced(one: Returned, recipient: str, known: Known, *, source: str, time: float) -> Bounced:
    message = known.message
    return Bounced(
        source=source,
        time=time,
        queue_id=message.queue_id,
        reference=message.reference,
        login=message.login,
        from_domain=message.from_domain,
        recipient=recipient,
        final=one.recipient if canonical(one.recipient) != canonical(recipient) else "",
        campaign=_campaign(message),
        relay=one.remote or one.reporting,
        provider=known.providers.get(canonical(recipient), ""),
        dsn=one.status,
        text=one.diagnostic[:_LONGEST],
        delay=max(time - message.time, 0.0),
        hard=one.hard,
        by="dsn",
    )


def _complaint(report: Report, known: Known, told: Circumstances) -> Verdict:
    """A Message-ID is believed only with the recipient; with our tag the only one need not be named: some providers
    black addresses out, others the name alone, by letters of their own (RFC 6590)."""
    asked = [found for address in report.original_rcpt if (found := known.among(address))]
    only = _only(known) if told.named and not asked else ""
    if only and all(_domain(address) == _domain(only) for address in report.original_rcpt):
        asked = [only]
    if not asked:
        return Verdict("untrusted", kept="a complaint that names nobody whom that message went to")
    new = [recipient for recipient in dict.fromkeys(asked) if not known.has(recipient, COMPLAINED)]
    events = tuple(
        Complained(
            source=f"arf:{told.source}" if number == 0 else f"arf:{told.source}:{number}",
            time=told.time,
            reference=known.message.reference,
            login=known.message.login,
            from_domain=known.message.from_domain,
            recipient=recipient,
            campaign=_campaign(known.message),
            provider=known.providers.get(canonical(recipient), ""),
            reporter=report.user_agent or report.reporting,
        )
        for number, recipient in enumerate(new)
    )
    return Verdict("complaint" if new else "repeated", events)


def _domain(address: str) -> str:
    return canonical(address).rpartition("@")[2]


def _campaign(message: Submitted) -> str:
    return str(message.facts.get("campaign", ""))
