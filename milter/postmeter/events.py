"""The facts of a message's life, the only language between the rooms.

Frozen values with plain types, so that a journal row, a spool line and a webhook are the same thing. `source` is a key
unique on its host: recording an event twice changes nothing. Host and sequence number are given by the journal.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A message of ours that Postfix was told to take. `source` is `eom:QUEUE-ID:TIME`."""

    source: str
    time: float
    queue_id: str
    reference: str
    """16 hexadecimal digits, as in this message's tokens."""
    message_id: str
    login: str
    sender: str
    service: str
    mail_from: str
    from_domain: str
    recipients: tuple[str, ...]
    size: int
    facts: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Mail of ours that we refused. `source` is `refused:SENDER:REASON:MINUTE`: one event a minute, counted up."""

    source: str
    time: float
    login: str
    sender: str
    service: str
    reason: str
    reply: str
    recipients: int = 0
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Clicked:
    """A tracked link was followed. `source` is `hit:FILE:OFFSET`."""

    source: str
    time: float
    reference: str
    link: int
    recipient: str
    target: str
    host: str
    method: str
    address: str
    agent: str


Event: TypeAlias = Submitted | Refused | Clicked

KINDS: dict[str, type[Submitted] | type[Refused] | type[Clicked]] = {
    kind.__name__.lower(): kind for kind in (Submitted, Refused, Clicked)
}


def kind(event: Event) -> str:
    """The event's name in lower case, as it stands in the journal."""
    return type(event).__name__.lower()


def as_json(event: Event) -> dict[str, Any]:
    """The event as a JSON object, its `kind` with it."""
    return {"kind": kind(event), **asdict(event)}
