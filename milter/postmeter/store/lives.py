"""The lives of messages in Postfix's queue, as far as its log has told of them: what a restart must not forget.

A life is keyed by host, instance, queue id and arrival, for short queue ids are given again within hours (postconf(5),
enable_long_queue_ids). Only lives that are not over are kept; they are written in the transaction of the events that
the same lines gave, with the place in the log behind them. Beside them the messages of ours that the log has yet to
show. Knows nothing of log lines, nor of when a life ends.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Set
from dataclasses import asdict, dataclass, field
from sqlite3 import Connection
from typing import Any, TypeAlias

from postmeter.store.accounts import storable
from postmeter.store.database import Database
from postmeter.store.refunds import Give, Refund

Key: TypeAlias = tuple[str, str, str]
"""Host, instance and queue id: one life at a time has them."""

log = logging.getLogger(__name__)

_json = json.JSONEncoder(separators=(",", ":")).encode
_COLUMNS = ("host", "instance", "queue_id", "arrival")


@dataclass(slots=True)
class Recipient:
    """One recipient of a message of ours, under the name by which the log knows it."""

    address: str
    """As the sender named it."""
    finals: dict[str, list[str]] = field(default_factory=dict)
    """Every address that it was delivered to: its last state, and the provider; an alias may have several."""
    fallback: dict[str, Any] | None = None
    """The event that is true unless this life tells another: of a message that came from another queue id."""

    def open(self) -> bool:
        """Whether the last word about it is still to come."""
        return not self.finals or all(state == "deferred" for state, _ in self.finals.values())


@dataclass(slots=True)
class Life:
    """A message under one queue id. Without `reference` nobody knows yet whether it is ours."""

    host: str
    instance: str
    queue_id: str
    arrival: float
    begun: bool = False
    """Its first line was read."""
    message_id: str = ""
    reference: str = ""
    login: str = ""
    from_domain: str = ""
    campaign: str = ""
    recipients: dict[str, Recipient] = field(default_factory=dict)
    targets: int = 0
    """Recipients that Postfix has for it: more than were named where aliases lead to several, or copies are sent."""
    first: bool = True
    """Not what came back from a content filter."""
    shown: float = 0.0
    """When Postfix had taken it; 0 when it has not said so."""
    held: bool = False
    owed: bool = False
    """We had it held, and it was not let go yet: so nobody has tried to deliver it."""
    kin: bool = False
    """Of one message with another life: it may turn out to be ours, and outlives its end for a while."""
    ended: float = 0.0
    told: bool = False
    """Its open recipients were given up as unknown."""
    waiting: list[dict[str, Any]] = field(default_factory=list)
    """Lines about deliveries, until it is known whose they are."""

    @property
    def key(self) -> Key:
        return self.host, self.instance, self.queue_id


@dataclass(frozen=True, slots=True)
class Awaited:
    """A message of ours that the log has yet to show. Not `watched`: the log was not read all that time."""

    reference: str
    time: float
    service: str
    watched: bool = True


def read(database: Database) -> list[Life]:
    """All of them that can be read, oldest first."""
    sql = "SELECT host, instance, queue_id, arrival, data FROM lives ORDER BY arrival"
    found = []
    for row in database.query(sql):
        try:
            found.append(_life(*row))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            log.error("%s: what Postfix's log has told of it cannot be read: %r", row[2], error)
    return found


def save(link: Connection, changed: Iterable[Life], gone: Iterable[tuple[str, str, str, float]]) -> None:
    """Those that are over by key and arrival. Text in keys is as the log has it, printable."""
    link.executemany("DELETE FROM lives WHERE host = ? AND instance = ? AND queue_id = ? AND arrival = ?", gone)
    link.executemany("INSERT OR REPLACE INTO lives VALUES (?, ?, ?, ?, ?)", map(_row, changed))


def awaited(database: Database) -> list[Awaited]:
    """All of them, oldest first."""
    rows = database.query("SELECT reference, time, service, watched FROM awaited ORDER BY time")
    return [Awaited(reference, time, service, bool(watched)) for reference, time, service, watched in rows]


def save_awaited(link: Connection, new: Iterable[Awaited], gone: Iterable[str]) -> None:
    """Those that need not be awaited any more by reference."""
    link.executemany("DELETE FROM awaited WHERE reference = ?", [(reference,) for reference in gone])
    rows = [(each.reference, each.time, storable(each.service), each.watched) for each in new]
    link.executemany("INSERT OR REPLACE INTO awaited VALUES (?, ?, ?, ?)", rows)


@dataclass(slots=True)
class Changes:
    """What is written in one transaction with the events that the same lines gave."""

    changed: list[Life] = field(default_factory=list)
    gone: list[tuple[str, str, str, float]] = field(default_factory=list)
    awaited: list[Awaited] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    refunds: dict[str, Refund] = field(default_factory=dict)
    """By the source of the event that tells why: one that was known gives nothing back."""

    def writer(self, give: Give, now: float) -> Callable[[Connection, Set[str]], None]:
        """For `Journal.record`."""

        def also(link: Connection, new: Set[str]) -> None:
            save(link, self.changed, self.gone)
            save_awaited(link, self.awaited, self.shown)
            if back := [refund for source, refund in self.refunds.items() if source in new]:
                give(link, back, now)

        return also


def _row(life: Life) -> tuple[object, ...]:
    plain = asdict(life)
    keys = [plain.pop(name) for name in _COLUMNS]
    return (*keys, _json(plain))


def _life(host: str, instance: str, queue_id: str, arrival: float, data: str) -> Life:
    plain = json.loads(data)
    plain["recipients"] = {name: Recipient(**each) for name, each in plain["recipients"].items()}
    return Life(host, instance, queue_id, arrival, **plain)
