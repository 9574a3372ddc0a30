"""What a hit may say about a person: makes the event that is kept of it, by the privacy of its message.

A message of several recipients has one link for all of them: a hit is the message's, and nobody's. Of one recipient,

- `totals`: nothing that leads to a person: no reference (which leads to the message, and its recipient), no pseudonym,
  no client, of the target only its host, of the time only its hour. Unique it cannot be called either.
- `pseudonymous`: the same, and the pseudonym that the token holds.
- `recipients`: the reference, the client's network and program besides.

Pure. Knows neither the spool nor robots.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from postmeter.books.spooled import Seen
from postmeter.books.verdicts import Judged
from postmeter.config.schema import Tracking
from postmeter.events import Clicked, Opened, Rejudged
from postmeter.store.personal import only_host

STRICTEST = ("totals", "pseudonymous", "recipients")
"""From the one that keeps least on."""

_HOUR = 3600


@dataclass(frozen=True, slots=True)
class Origin:
    """What the journal knows of the message of a hit. `time` is None where it knows nothing."""

    time: float | None
    privacy: str
    recipients: int = 1
    campaign: str = ""
    from_domain: str = ""
    opens: bool = False

    @property
    def shared(self) -> bool:
        return self.recipients > 1

    @property
    def named(self) -> bool:
        """Whether a hit may lead to its message."""
        return self.shared or self.privacy == "recipients"


@dataclass(frozen=True, slots=True)
class Kept:
    """What an event says of a hit and its message."""

    source: str
    time: float
    reference: str
    recipient: str
    target: str
    address: str
    agent: str


def strictest(tracking: Tracking) -> str:
    """For a message that nobody knows: it may be of any of our domains and logins."""
    overrides = (*tracking.domains.values(), *tracking.logins.values())
    levels = [tracking.privacy, *(str(keys["privacy"]) for keys in overrides if "privacy" in keys)]
    return min(levels, key=STRICTEST.index)


def kept(hit: Seen, origin: Origin) -> Kept:
    personal = origin.privacy == "recipients"
    if origin.named:
        network, agent = (hit.network, hit.agent) if personal else ("", "")
        recipient = "" if origin.shared else hit.recipient
        return Kept(hit.source, hit.time, hit.reference, recipient, hit.target, network, agent)
    recipient = hit.recipient if origin.privacy == "pseudonymous" else ""
    return Kept(_hidden(hit.source), hit.time // _HOUR * _HOUR, "", recipient, only_host(hit.target), "", "")


def _hidden(source: str) -> str:
    """The event's key where the time may not be kept: the line's own tells when its file was begun."""
    return f"hit:{blake2b(source.encode(), digest_size=16).hexdigest()}"


def open_source(click: str) -> str:
    """Of the open that this click has shown."""
    return f"{click}:open"


def unique_key(judged: Judged, origin: Origin, kind: str) -> bytes:
    """Equal for what is a repeat, made of nothing but what the event keeps; empty where nobody can tell.

    Of a message by its reference; of a pseudonym by its campaign, or else by the day. A robot that was first does not
    make a repeat of what a person does.
    """
    hit, what = judged.seen, kept(judged.seen, origin)
    if what.reference:
        scope = [what.reference, what.recipient]
    elif what.recipient:
        scope = [what.recipient, origin.from_domain, origin.campaign or str(int(hit.time // 86_400))]
    else:
        return b""
    link = [str(hit.link)] if kind == "click" else []
    parts = "\0".join([kind, judged.verdict.by, *scope, *link])
    return blake2b(parts.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def clicked(judged: Judged, origin: Origin, *, unique: bool | None) -> Clicked:
    what, hit, verdict = kept(judged.seen, origin), judged.seen, judged.verdict
    return Clicked(
        source=what.source,
        time=what.time,
        reference=what.reference,
        link=hit.link,
        recipient=what.recipient,
        target=what.target,
        host=hit.host,
        method=hit.method,
        address=what.address,
        agent=what.agent,
        by=verdict.by,
        reason=verdict.reason,
        campaign=origin.campaign,
        from_domain=origin.from_domain,
        recipients=origin.recipients,
        unique=unique,
    )


def opened(judged: Judged, origin: Origin, *, unique: bool | None) -> Opened:
    """Of an open, or of the click that shows that the message was open."""
    what, hit, verdict = kept(judged.seen, origin), judged.seen, judged.verdict
    by_click = hit.kind == "click"
    return Opened(
        source=open_source(what.source) if by_click else what.source,
        time=what.time,
        reference=what.reference,
        recipient=what.recipient,
        host=hit.host,
        method=hit.method,
        address=what.address,
        agent=what.agent,
        by=verdict.by,
        reason="click" if by_click else verdict.reason,
        campaign=origin.campaign,
        from_domain=origin.from_domain,
        recipients=origin.recipients,
        unique=unique,
    )


def rejudged(judged: Judged, origin: Origin, *, unique: bool | None) -> Rejudged:
    assert judged.before is not None  # noqa: S101  (for the type checker)
    what = kept(judged.seen, origin)
    return Rejudged(
        source=f"judged:{what.source}:{judged.verdict.by}",
        time=what.time,
        reference=what.reference,
        hit=what.source,
        what=judged.seen.kind,
        was=judged.before.by,
        by=judged.verdict.by,
        reason=judged.verdict.reason,
        campaign=origin.campaign,
        from_domain=origin.from_domain,
        unique=unique,
    )
