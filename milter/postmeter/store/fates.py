"""What became of each recipient: the sum of what the journal's events say of it, in whatever order they are read.

Every event moves a fate up only: of two that contradict each other the one further down `STATUSES` counts, of two
alike the later one. So a Deferred that is read after the Sent undoes nothing, and a bounce that comes days after it
does. Pure, but for `load` and `save`; who reads the journal is `books.following`, what is counted of it `figures`.

RFC 3464 section 2.3.3 names what may become of a recipient.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from sqlite3 import Connection
from typing import TypeAlias

from postmeter.events import (
    Bounced,
    Complained,
    Deferred,
    Delivery,
    Event,
    Expired,
    Released,
    Sent,
    Submitted,
    Suppressed,
    Unknown,
    Unsubscribed,
    Untaken,
)
from postmeter.mail.scope import canonical
from postmeter.store.accounts import storable
from postmeter.store.database import Database, Row

STATUSES = ("", "accepted", "untaken", "suppressed", "deferred", "unknown", "sent", "expired", "bounced")
"""From the least that can be known. Empty: nothing but a complaint or an unsubscribe, or a test that nobody gets.
`untaken` and `suppressed` were not sent to; what the log says of a delivery after all is believed more than either."""

Key: TypeAlias = tuple[str, str]
"""Reference and recipient."""

_RANK = {status: rank for rank, status in enumerate(STATUSES)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A fate changed from `was` to `now`. A complaint changes neither: then `complained` is true and they are equal."""

    time: float
    """Of the event that changed it."""
    reference: str
    recipient: str
    """Canonical (`mail.scope`), or a keyed hash where the address was forgotten."""
    from_domain: str
    login: str
    campaign: str
    provider: str
    was: str
    now: str
    hard: bool = False
    complained: bool = False
    evidence: str = ""
    """What the other side said, or who reported it."""
    dsn: str = ""
    bulk: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """What fates of one sender, campaign and kind have in common."""

    from_domain: str = ""
    login: str = ""
    campaign: str = ""
    bulk: bool = False


@dataclass(frozen=True, slots=True)
class Fate:
    """What is known of one recipient. `time` is when the message was submitted, or what is first known of it."""

    reference: str
    recipient: str
    group: Group = Group()
    time: float = 0.0
    submitted: bool = False
    status: str = ""
    at: float = 0.0
    """When what made it this status happened."""
    hard: bool = False
    provider: str = ""
    provider_at: float = 0.0
    complained: bool = False
    unsubscribed: bool = False
    seen: frozenset[str] = frozenset()
    """Every status that it ever was said to have."""

    @property
    def key(self) -> Key:
        return self.reference, self.recipient


@dataclass(frozen=True, slots=True)
class Step:
    """What an event says of one recipient, in the words of fates."""

    time: float
    status: str = ""
    group: Group | None = None
    hard: bool = False
    provider: str = ""
    complained: bool = False
    unsubscribed: bool = False
    submitted: bool = False
    evidence: str = ""
    dsn: str = ""


def steps(event: Event) -> list[tuple[Key, Step]]:
    """What an event says of whom; nothing where no message is known."""
    if not getattr(event, "reference", ""):
        return []
    if isinstance(event, Submitted):
        taken = "" if event.facts.get("discarded") else "accepted"
        step = Step(event.time, taken, _of_message(event), submitted=True)
        return [(_key(event.reference, recipient), step) for recipient in event.recipients]
    if isinstance(event, Untaken):
        step = Step(event.time, "untaken", _of(event), evidence=event.why)
        return [(_key(event.reference, recipient), step) for recipient in event.recipients]
    if isinstance(event, Delivery | Unknown | Suppressed | Complained | Unsubscribed):
        told = _step(event)
        return [(_key(event.reference, event.recipient), told)] if told else []
    return []


def withdrawn(event: Released) -> Step | None:
    """A held message that a person deleted goes nowhere; of what else left the hold queue the log tells."""
    return Step(event.time, "untaken", evidence="deleted from the hold queue") if event.action == "deleted" else None


def _key(reference: str, recipient: str) -> Key:
    """As SQLite takes it, so that what is read back is the same."""
    return storable(reference), storable(canonical(recipient))


def _step(event: Delivery | Unknown | Suppressed | Complained | Unsubscribed) -> Step | None:
    if isinstance(event, Delivery):
        return _delivery(event)
    if isinstance(event, Unknown):
        return Step(event.time, "unknown", _of(event), evidence=event.why)
    if isinstance(event, Complained):
        return Step(event.time, "", _of(event), complained=True, evidence=event.reporter)
    if isinstance(event, Unsubscribed):
        return Step(event.time, "", _named(event.from_domain), unsubscribed=True)
    return None if event.observed else Step(event.time, "suppressed", _of(event), evidence=event.reason)


def _delivery(event: Delivery) -> Step | None:
    kinds: dict[type[Delivery], str] = {Sent: "sent", Deferred: "deferred", Bounced: "bounced", Expired: "expired"}
    status = kinds.get(type(event))
    if status is None:
        return None
    hard = isinstance(event, Bounced) and event.hard
    provider = storable(event.provider)
    return Step(event.time, status, _of(event), hard=hard, provider=provider, evidence=event.text, dsn=event.dsn)


def _of_message(event: Submitted) -> Group:
    campaign = str(event.facts.get("campaign", ""))
    return _named(event.from_domain, event.login, campaign, bulk=event.facts.get("bulk") is True)


def _of(event: Delivery | Unknown | Untaken | Suppressed | Complained) -> Group:
    return _named(event.from_domain, event.login, event.campaign)


def _named(from_domain: str, login: str = "", campaign: str = "", *, bulk: bool = False) -> Group:
    return Group(storable(from_domain), storable(login), storable(campaign), bulk)


def after(fate: Fate, step: Step) -> Fate:
    """The fate that knows this as well: in whatever order steps come, and however often."""
    rank = _RANK[step.status]
    moved = rank and (rank, step.time, step.hard) > (_RANK[fate.status], fate.at, fate.hard)
    provider = step.provider and (step.time, step.provider) > (fate.provider_at, fate.provider)
    return Fate(
        fate.reference,
        fate.recipient,
        _group(fate, step),
        _time(fate, step),
        fate.submitted or step.submitted,
        *((step.status, step.time, step.hard) if moved else (fate.status, fate.at, fate.hard)),
        *((step.provider, step.time) if provider else (fate.provider, fate.provider_at)),
        fate.complained or step.complained,
        fate.unsubscribed or step.unsubscribed,
        fate.seen | {step.status} if step.status else fate.seen,
    )


def _group(fate: Fate, step: Step) -> Group:
    """The message's own word counts most; of others the one that says most."""
    if step.group is None or (fate.submitted and not step.submitted):
        return fate.group
    return step.group if step.submitted else max(fate.group, step.group, key=_telling)


def _telling(group: Group) -> tuple[int, str, str, str]:
    words = (group.from_domain, group.login, group.campaign)
    return sum(map(bool, words)), *words


def _time(fate: Fate, step: Step) -> float:
    if fate.submitted:
        return fate.time
    return step.time if step.submitted or not fate.time else min(fate.time, step.time)


def transition(before: Fate, now: Fate, step: Step) -> Transition | None:
    """What a step changed; None where it told nothing new."""
    complained = now.complained and not before.complained
    if before.status == now.status and not complained:
        return None
    return Transition(
        time=step.time,
        reference=now.reference,
        recipient=now.recipient,
        from_domain=now.group.from_domain,
        login=now.group.login,
        campaign=now.group.campaign,
        provider=now.provider,
        was=before.status,
        now=now.status,
        hard=now.hard,
        complained=complained,
        evidence=step.evidence,
        dsn=step.dsn,
        bulk=now.group.bulk,
    )


_READ = """
    SELECT reference, recipient, time, status, at, provider, provider_at, flags, from_domain, login, campaign
    FROM fates JOIN fate_groups ON fate_groups.id = fates.sender WHERE
"""
_SAVE = """
    INSERT INTO fates (reference, recipient, sender, time, status, at, provider, provider_at, flags)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET sender = excluded.sender, time = excluded.time, status = excluded.status,
        at = excluded.at, provider = excluded.provider, provider_at = excluded.provider_at, flags = excluded.flags
"""
_GROUP = "SELECT id FROM fate_groups WHERE from_domain = ? AND login = ? AND campaign = ?"
_NEW_GROUP = "INSERT INTO fate_groups (from_domain, login, campaign) VALUES (?, ?, ?) RETURNING id"
_FLAGS = (("submitted", 1), ("hard", 2), ("complained", 4), ("unsubscribed", 8))
_BULK, _SEEN = 16, 5  # the bit of a group's `bulk`; the bits from here on tell which statuses it ever had


def load(link: Connection, keys: Iterable[Key]) -> dict[Key, Fate]:
    """Those that are known, by reference and recipient."""
    sql = _READ + "reference = ? AND recipient = ?"
    found = (link.execute(sql, key).fetchone() for key in keys)
    return {fate.key: fate for row in found if row for fate in (_fate(row),)}


def save(link: Connection, fates: Iterable[Fate]) -> None:
    groups: dict[tuple[str, str, str], int] = {}
    rows: list[Row] = []
    for fate in fates:
        names = (fate.group.from_domain, fate.group.login, fate.group.campaign)
        if names not in groups:
            groups[names] = (link.execute(_GROUP, names).fetchone() or link.execute(_NEW_GROUP, names).fetchone())[0]
        rows.append(_row(fate, groups[names]))
    link.executemany(_SAVE, rows)


def of_reference(database: Database, reference: str) -> list[Fate]:
    """Of every recipient of a message."""
    return [_fate(row) for row in database.query(_READ + "reference = ? ORDER BY recipient", (reference,))]


def of_recipient(database: Database, recipient: str, *, most: int) -> list[Fate]:
    """What became of the latest messages to an address, in any spelling, or to a keyed hash of one; latest first."""
    sql = _READ + "recipient = ? ORDER BY time DESC, reference LIMIT ?"
    return [_fate(row) for row in database.query(sql, (storable(canonical(recipient)), most))]


def references(database: Database, message_id: str) -> list[str]:
    """Of the messages with that Message-ID, with its angle brackets; a digest that fits, so look at the message."""
    sql = "SELECT reference FROM message_ids WHERE digest = ? ORDER BY reference"
    return [str(reference) for (reference,) in database.query(sql, (digest(message_id),))]


def message(link: Connection, reference: str) -> tuple[float, Group] | None:
    """When a message was submitted, and what it belongs to."""
    sql = _READ + "reference = ? AND flags & 1 LIMIT 1"
    row = link.execute(sql, (reference,)).fetchone() if reference else None
    return (fate.time, fate.group) if row and (fate := _fate(row)) else None


def name(link: Connection, messages: Iterable[Submitted]) -> None:
    """Let messages be found by their Message-ID."""
    rows = [(digest(event.message_id), event.reference) for event in messages if event.message_id and event.reference]
    link.executemany("INSERT OR IGNORE INTO message_ids VALUES (?, ?)", rows)


def forget(link: Connection, messages: Iterable[Submitted]) -> None:
    """What is known of messages whose time is over. Figures stay."""
    messages = list(messages)
    link.executemany("DELETE FROM fates WHERE reference = ?", [(event.reference,) for event in messages])
    rows = [(digest(event.message_id), event.reference) for event in messages]
    link.executemany("DELETE FROM message_ids WHERE digest = ? AND reference = ?", rows)


def digest(message_id: str) -> int:
    """Eight bytes for an index: Message-IDs are long, and clients choose them."""
    octets = message_id.strip().encode("utf-8", "backslashreplace")
    return int.from_bytes(blake2b(octets, digest_size=8).digest(), "big", signed=True)


def _fate(row: Row) -> Fate:
    reference, recipient, time, status, at, provider, provider_at, flags, from_domain, login, campaign = row
    submitted, hard, complained, unsubscribed = (bool(flags & bit) for _, bit in _FLAGS)
    return Fate(
        reference=reference,
        recipient=recipient,
        group=Group(from_domain, login, campaign, bool(flags & _BULK)),
        time=time,
        submitted=submitted,
        status=status,
        at=at,
        hard=hard,
        provider=provider,
        provider_at=at if provider_at is None else provider_at,
        complained=complained,
        unsubscribed=unsubscribed,
        seen=_seen(flags >> _SEEN),
    )


@lru_cache(maxsize=1 << len(STATUSES))
def _seen(bits: int) -> frozenset[str]:
    return frozenset(status for status, rank in _RANK.items() if bits >> rank & 1)


def _row(fate: Fate, group: int) -> Row:
    """A second time that equals the first takes no room."""
    flags = sum(bit for attribute, bit in _FLAGS if getattr(fate, attribute)) | (_BULK if fate.group.bulk else 0)
    flags |= sum(1 << _RANK[status] for status in fate.seen) << _SEEN
    provider_at = None if fate.provider_at == fate.at else fate.provider_at
    return *fate.key, group, fate.time, fate.status, fate.at, fate.provider, provider_at, flags
