"""The facts of a message's life, the only language between the rooms.

Frozen values with plain types, so that a journal row, a spool line and a webhook are the same thing. `source` is a key
unique on its host: recording an event twice changes nothing. Host and sequence number are given by the journal.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias, get_args

REFERENCE = re.compile(r"[0-9a-f]{16}")
"""What a `reference` looks like: 8 octets that this message's tokens hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What every event begins with. `time` is when it happened, not when it was written down."""

    source: str
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted(Fact):
    """A message of ours that Postfix was told to take. `source` is `eom:QUEUE-ID:TIME`."""

    queue_id: str
    reference: str
    message_id: str
    login: str
    sender: str
    service: str
    mail_from: str
    from_domain: str
    recipients: tuple[str, ...]
    size: int
    network: str = ""
    """The client's, by `quota.networks.prefix`; empty for sendmail(1)."""
    facts: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refiltered(Fact):
    """A message of ours came back from a content filter, under another queue id. `source` is `back:QUEUE-ID:TIME`."""

    queue_id: str
    reference: str
    """As in the Submitted of its first pass."""
    first_queue_id: str
    login: str
    from_domain: str
    service: str
    recipients: tuple[str, ...]
    facts: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(Fact):
    """Mail of ours that we refused. `source` is `refused:SENDER:REASON:MINUTE`: one event a minute, counted up."""

    login: str
    sender: str
    service: str
    reason: str
    reply: str
    recipients: int = 0
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Clicked(Fact):
    """A tracked link was followed. `source` is `hit:FILE:OFFSET`, or a digest of that.

    What leads to a person is there as far as the privacy of the message allows: else `reference`, `recipient` (a
    pseudonym), `address` (the client's network) and `agent` are empty, `target` is a host and `time` an hour.
    """

    reference: str
    link: int
    """The link's number in the message; 0 is the hidden one."""
    recipient: str
    target: str
    host: str
    method: str
    address: str
    agent: str
    by: str = "unsure"
    """`human`, `machine` or `unsure`, as it looked at first; see Rejudged."""
    reason: str = ""
    campaign: str = ""
    from_domain: str = ""
    recipients: int = 1
    """Of the message: a link is shared by all of them."""
    unique: bool | None = None
    """False for a repeat; None where privacy leaves nothing to tell it by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened(Fact):
    """A message was opened, as far as an image tells, or a click on a link in it: then `reason` is `click` and `source`
    ends in `:open`. All else as in Clicked."""

    reference: str
    recipient: str
    host: str
    method: str
    address: str
    agent: str
    by: str
    reason: str
    campaign: str
    from_domain: str
    recipients: int
    unique: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejudged(Fact):
    """What came later shows a hit in another light; `time` is the hit's. `source` is `judged:SOURCE of the hit:BY`."""

    reference: str
    hit: str
    """Its `source`."""
    what: str
    """`click` or `open`."""
    was: str
    by: str
    reason: str
    campaign: str
    from_domain: str
    unique: bool | None = None
    """Whether it is the first of its kind `by` such a one; None where privacy leaves nothing to tell it by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsubscribed(Fact):
    """A person wants no more of what `scope` names (`mail.scope`). `source` is `unsubscribed:REFERENCE`: the message
    had one recipient, and to say it again says nothing new."""

    reference: str
    recipient: str
    """The address, at every level of privacy: whom the sender must not write to any more."""
    scope: str
    from_domain: str
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Released(Fact):
    """A message left Postfix's hold queue. `source` is `released:QUEUE-ID:TIME of its hold`."""

    queue_id: str
    login: str
    sender: str
    action: str
    """`released`; `deleted`; `gone` when somebody else let it go or deleted it: then it was not charged."""
    by: str
    """`due`, or `person`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned(Fact):
    """An account reached a share of its limit; told once a window over all hosts. `source`: `warned:ACCOUNT:%:TIME`."""

    login: str
    level: str
    key: str
    unit: str
    window: int
    limit: int
    text: str
    used: int
    percent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Braked(Fact):
    """A login sends as it never did. `source` is `braked:LOGIN:HOUR`. `observed`: it was only watched."""

    login: str
    observed: bool
    action: str
    recipients: int
    """In the hour that ended then."""
    usual: int
    """What it may send in such an hour before anybody wonders."""
    signs: tuple[str, ...]
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChanged(Fact):
    """What became of a DKIM key. `source` is `key:DOMAIN:SELECTOR:CHANGE:TIME`, the time of what it tells."""

    domain: str
    selector: str
    change: str
    """`failed` and `mended`: DNS does not show it any more, or again. Of a rotation: `pending`, to be published;
    `waiting`, not seen everywhere for a week; `active`, it signs now; `retired`; `removable`."""
    what: str
    fix: str = ""
    record: str = ""
    """What DNS has to show, where there is something to publish."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Fact):
    """What became of a message of ours, or of a recipient of it; the base of several."""

    queue_id: str
    reference: str
    login: str
    from_domain: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(Outcome):
    """What an attempt to deliver to one recipient came to, as Postfix's log tells it; the base of the next four.

    `source` is `log:` and a digest of what the line says. `recipient` is the address that the sender named (`orig_to`
    where an alias changed it), `final` the one it was sent to, where that is another.
    """

    recipient: str
    final: str = ""
    campaign: str = ""
    relay: str = ""
    provider: str = ""
    dsn: str = ""
    text: str = ""
    """The last word of the other side, or of Postfix."""
    delay: float = 0.0
    """Seconds since the message came in."""
    delays: tuple[float, ...] = ()
    """Before the queue, in it, to connect, to hand over: Postfix's `delays=a/b/c/d`, in seconds."""
    tls: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent(Delivery):
    """The next server took it (RFC 3464 section 2.3.3: `relayed` or `delivered`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferred(Delivery):
    """Not yet: Postfix will try again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounced(Delivery):
    """Refused for good; one a recipient, whoever told it first. From a bounce: `source` is `dsn:SHA256:N`."""

    hard: bool = False
    """The address is at fault, not the mail, its sender or the mailbox's size: only this may suppress."""
    by: str = "log"
    """Who told: `log`, or `dsn` when it was taken at first and came back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired(Delivery):
    """Postfix gave up after `maximal_queue_lifetime`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown(Outcome):
    """What became of a recipient cannot be known any more. `source` is `unknown:REFERENCE:RECIPIENT`."""

    recipient: str
    campaign: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Untaken(Outcome):
    """We took it and Postfix did not after all: its charge was given back. `source` is `untaken:REFERENCE`."""

    recipients: tuple[str, ...]
    campaign: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Complained(Fact):
    """A person called it spam, and the report is believed (RFC 5965). `source` is `arf:SHA256`."""

    reference: str
    login: str
    from_domain: str
    recipient: str
    campaign: str = ""
    provider: str = ""
    reporter: str = ""
    """User-Agent or Reporting-MTA of the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppressed(Outcome):
    """A recipient that was not written to. `source` is `suppressed:REFERENCE:RECIPIENT`."""

    recipient: str
    reason: str
    """`bounced`, `complained`, `unsubscribed` or `manual`."""
    scope: str
    campaign: str = ""
    observed: bool = False
    """It was only looked on: the recipient got the message."""
    evidence: str = ""
    """Why it is suppressed, in the words of whoever said so."""
    since: float = 0.0
    until: float | None = None
    """When it ends; None for never."""
    envid: str = ""
    """What the client calls the message (RFC 3461 section 4.4)."""
    quiet: bool = False
    """The client asked for no report of it (RFC 3461 section 4.1: NOTIFY without FAILURE)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistrusted(Fact):
    """A provider refuses more recipients for good than can be true: its bounces suppress nobody for a while.
    `source` is `mistrusted:PROVIDER:TIME`."""

    provider: str
    recipients: int
    """Whose fate became known in the hour before."""
    hard: int
    """Of these, the hard bounces."""
    suppressed: int
    """Whom bounces at this provider had suppressed in that hour: these stay so until a person undoes it."""
    until: float


Event: TypeAlias = (
    Submitted
    | Refiltered
    | Refused
    | Clicked
    | Opened
    | Rejudged
    | Unsubscribed
    | Released
    | Warned
    | Braked
    | KeyChanged
    | Sent
    | Deferred
    | Bounced
    | Expired
    | Unknown
    | Untaken
    | Complained
    | Suppressed
    | Mistrusted
)

KINDS: dict[str, type[Event]] = {kind.__name__.lower(): kind for kind in get_args(Event)}


def kind(event: Event) -> str:
    """The event's name in lower case, as it stands in the journal."""
    return type(event).__name__.lower()


def as_json(event: Event) -> dict[str, Any]:
    """The event as a JSON object, its `kind` with it."""
    return {"kind": kind(event), **asdict(event)}
