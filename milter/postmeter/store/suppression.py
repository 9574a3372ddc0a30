"""Who must not be written to any more, what about, and why: kept in the journal's database until somebody lifts it.

An unsubscribe is for one list or one From address (`mail.scope`) and for bulk mail alone, so that it never stops a
password reset. Knows nothing of mail that is on its way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from sqlite3 import Connection

from postmeter.events import Event, Unsubscribed
from postmeter.mail.scope import canonical

UNSUBSCRIBED = "unsubscribed"
"""A reason."""


@dataclass(frozen=True, slots=True)
class Suppression:
    """`since` is in seconds since the epoch."""

    address: str
    scope: str
    reason: str
    since: float


def wanted(events: Iterable[Event]) -> list[Suppression]:
    """What these events ask for."""
    asked = [event for event in events if isinstance(event, Unsubscribed)]
    return [Suppression(event.recipient, event.scope, UNSUBSCRIBED, event.time) for event in asked]


def add(link: Connection, suppressions: Iterable[Suppression]) -> None:
    """Those that are there already stay as they are. An address counts in any spelling."""
    rows = [(canonical(one.address), one.scope, one.reason, one.since) for one in suppressions]
    link.executemany("INSERT OR IGNORE INTO suppressions VALUES (?, ?, ?, ?)", rows)
