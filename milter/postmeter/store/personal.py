"""What the journal holds about the people who are written to, and what is left of it when addresses are forgotten.

Every field of every event is named here, and every column that can hold an address: tests see to both. Senders (logins,
their networks, the addresses they write from) are the operator's own people and stay for as long as events do. Rows in,
rows out; knows nothing of time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from postmeter.events import Delivery, Event
from postmeter.store.veil import hashed, is_hashed

Treat: TypeAlias = Callable[[Any, bytes], Any]

_ADDRESS = re.compile(r"[^\s<>\"(),;:@]{1,255}@[^\s<>\"(),;:@]{1,255}")
_ORIGIN = re.compile(r"(?i:https?)://[^/?#\\]*")
_json = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Place:
    """A table's columns that can hold an address, or words that name one. `then`: what becomes of them in time."""

    table: str
    columns: tuple[str, ...]
    then: str
    lasting: bool = True
    """Not what somebody is at work with and will forget soon."""


PLACES = (
    Place("events", ("source", "data"), "hashed or emptied after journal.keep_addresses, deleted after journal.keep"),
    Place("fates", ("recipient",), "hashed, and deleted, with the events of their message"),
    Place("suppressions", ("address", "evidence"), "hashed and emptied after journal.keep_addresses"),
    Place("hard_bounces", ("address", "evidence"), "deleted some days after suppression.within"),
    Place("unshipped", ("key",), "deleted when the database of all hosts has been told", lasting=False),
    Place("lives", ("data",), "deleted when the message has left the queue, or delivery.forget is over", lasting=False),
)
"""In the order in which they are erased."""


def _each(values: list[str], key: bytes) -> list[str]:
    return [hashed(value, key) for value in values]


def _nothing(value: Any, key: bytes) -> str:
    return ""


def only_host(target: str) -> str:
    """The host that a link leads to: what follows may be made for one person."""
    found = _ORIGIN.match(target)
    return f"{re.sub('//.*@', '//', found[0])}/" if found else ""


def _origin(target: str, key: bytes) -> str:
    return only_host(target)


def _masked(text: str, key: bytes) -> str:
    """Our own words, without the addresses in them."""
    return _ADDRESS.sub(lambda found: hashed(found[0], key), text)


def _facts(facts: dict[str, Any], key: bytes) -> dict[str, Any]:
    """What a client says of a message (X-PM-Metadata and its like) may say it of its reader."""
    return {name: value for name, value in facts.items() if name != "metadata"}


_DELIVERY: Mapping[str, Treat] = {"recipient": hashed, "final": hashed, "text": _nothing}

AGED: Mapping[str, Mapping[str, Treat]] = {
    "submitted": {"recipients": _each, "facts": _facts},
    "refiltered": {"recipients": _each, "facts": _facts},
    "refused": {"reply": _masked},
    "clicked": {"address": _nothing, "agent": _nothing, "target": _origin},
    "opened": {"address": _nothing, "agent": _nothing},
    "unsubscribed": {"recipient": hashed},
    "sent": _DELIVERY,
    "deferred": _DELIVERY,
    "bounced": _DELIVERY,
    "expired": _DELIVERY,
    "unknown": {"recipient": hashed},
    "untaken": {"recipients": _each},
    "complained": {"recipient": hashed},
    "suppressed": {"recipient": hashed, "evidence": _nothing, "envid": _nothing},
}
"""By kind and field. The recipient of a hit is a pseudonym, by which people are told apart, and stays."""

KEPT = frozenset({
    "action", "by", "campaign", "change", "count", "delay", "delays", "domain", "dsn", "first_queue_id", "fix",
    "from_domain", "hard", "hit", "host", "key", "level", "limit", "link", "login", "mail_from", "message_id", "method",
    "network", "observed", "percent", "provider", "queue_id", "quiet", "reason", "record", "reference", "relay",
    "reporter", "scope", "selector", "sender", "service", "signs", "since", "size", "source", "time", "tls", "unique",
    "unit", "until", "used", "usual", "was", "what", "why", "window",
})  # fmt: skip
"""Fields that say nothing of a recipient, under any kind; `source` only where it ends in one, which is hashed too."""

KEPT_OF: Mapping[str, frozenset[str]] = {
    "refused": frozenset({"recipients"}),
    "clicked": frozenset({"recipient", "recipients"}),
    "opened": frozenset({"recipient", "recipients"}),
    "warned": frozenset({"text"}),
    "braked": frozenset({"recipients", "evidence"}),
    "mistrusted": frozenset({"recipients", "suppressed"}),
}
"""Numbers of recipients, pseudonyms, and words about a sender."""


def discreet(event: Event) -> Event:
    """What is told late of somebody whose address was forgotten: without words that may repeat it."""
    if isinstance(event, Delivery) and is_hashed(event.recipient):
        return replace(event, final="", text="")
    return event


def aged(kind: str, source: str, data: str, key: bytes) -> tuple[str, str]:
    """Source and data of an event of that kind, without addresses; as they are where there is nothing to forget."""
    treatments = AGED.get(kind)
    if not treatments:
        return source, data
    found: dict[str, Any] = json.loads(data)
    before = dict(found)
    for name in treatments.keys() & found.keys():
        found[name] = treatments[name](found[name], key)
    if found == before:
        return source, data
    plain = str(before.get("recipient", "")) if treatments.get("recipient") is hashed else ""
    return _source(source, plain, key), _json(found)


def _source(source: str, plain: str, key: bytes) -> str:
    """Of what can be told but once a recipient it ends in the address."""
    head, _, last = source.rpartition(":")
    return f"{head}:{hashed(plain, key)}" if plain and last.lower() == plain.lower() else source
