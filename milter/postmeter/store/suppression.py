"""Who must not be written to any more, what about, why and how long: kept in the journal's database.

A scope is `everywhere`, `domain:FROM-DOMAIN`, or what a person leaves who unsubscribes (`mail.scope`). An unsubscribe,
and whatever has such a narrow scope, is for bulk mail alone, so that it never stops a password reset. Knows nothing of
mail that is on its way, nor of how anybody comes to be suppressed (`lessons`).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from sqlite3 import Connection

from postmeter.events import Event, Unsubscribed
from postmeter.mail.scope import canonical
from postmeter.store import veil
from postmeter.store.accounts import storable
from postmeter.store.database import Database, Row

BOUNCED, COMPLAINED, UNSUBSCRIBED, MANUAL = "bounced", "complained", "unsubscribed", "manual"
REASONS = (MANUAL, COMPLAINED, BOUNCED, UNSUBSCRIBED)
"""The weightiest first: that one is told where several hold."""

EVERYWHERE = "everywhere"
EVERY = 1.0
"""Seconds after which a worker looks again whether anybody is suppressed at all."""

_DAY = 86_400.0
_KEPT = 90 * _DAY  # seconds for which one that has ended can still be looked at
_LATE = 30 * _DAY  # bounces may be read so long after they happened
_LONGEST = 500  # characters of evidence
_COLUMNS = "address, scope, reason, since, until, evidence, count, provider"
_INSERT = f"INSERT INTO suppressions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_LONGER = f"""{_INSERT} ON CONFLICT DO UPDATE SET
    until = iif(until IS NULL OR excluded.until IS NULL, NULL, max(until, excluded.until)),
    evidence = iif(excluded.since >= since, excluded.evidence, evidence),
    provider = iif(excluded.since >= since, excluded.provider, provider),
    count = iif(excluded.since >= since, excluded.count, count),
    since = max(since, excluded.since)
"""
_REPLACE = _INSERT.replace("INSERT", "INSERT OR REPLACE", 1)
_HERE = "FROM suppressions AS each WHERE each.address IN (?1, ?2) AND each.scope = ?3 AND each.reason = ?4"
_HIDE = f"""
    UPDATE OR REPLACE suppressions SET address = ?1, evidence = '', since = (SELECT max(each.since) {_HERE}),
        until = (SELECT iif(count(each.until) < count(*), NULL, max(each.until)) {_HERE})
    WHERE address = ?2 AND scope = ?3 AND reason = ?4
"""


@dataclass(frozen=True, slots=True)
class Suppression:
    """`since` and `until` are in seconds since the epoch; `until` None is for ever."""

    address: str
    """In any spelling, or a keyed hash of one (`veil`)."""
    scope: str
    reason: str
    since: float
    until: float | None = None
    evidence: str = ""
    """The line that says so, as it came."""
    count: int = 1
    """How often: bounces within `suppression.within`, complaints."""
    provider: str = ""

    def stands(self, now: float) -> bool:
        """One that a clock years ahead has made holds nobody up for years."""
        return self.since - _DAY <= now and (self.until is None or now < self.until)

    @property
    def narrow(self) -> bool:
        """Whether it is about bulk mail only, whatever `suppression.mail` says."""
        return self.reason == UNSUBSCRIBED or not (self.scope == EVERYWHERE or self.scope.startswith("domain:"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which of them; empty is any. `since` is when they began, at the earliest."""

    addresses: tuple[str, ...] = ()
    scope: str = ""
    reason: str = ""
    provider: str = ""
    since: float | None = None


def wanted(events: Iterable[Event]) -> list[Suppression]:
    """What these events ask for."""
    asked = [event for event in events if isinstance(event, Unsubscribed)]
    return [Suppression(event.recipient, event.scope, UNSUBSCRIBED, event.time) for event in asked]


def add(link: Connection, suppressions: Iterable[Suppression]) -> None:
    """Those that are there already stay as they are. An address counts in any spelling."""
    link.executemany(_INSERT.replace("INSERT", "INSERT OR IGNORE", 1), map(_row, suppressions))


def lengthen(link: Connection, suppressions: Iterable[Suppression]) -> None:
    """Of two of the same kind the later end holds, and what is told is the later one's."""
    link.executemany(_LONGER, map(_row, suppressions))


def replace(link: Connection, suppressions: Iterable[Suppression]) -> None:
    """What a person says holds, whatever was there, under the hash of the address as well."""
    rows = [_row(one) for one in suppressions]
    key = veil.key(link)
    known = [(veil.hashed(str(address), key), address, scope, reason) for address, scope, reason, *_ in rows]
    gone = "DELETE FROM suppressions WHERE address = ?1 AND address != ?2 AND scope = ?3 AND reason = ?4"
    link.executemany(gone, known)
    link.executemany(_REPLACE, rows)


def hide(link: Connection, names: Iterable[tuple[str, str, str, str]]) -> None:
    """Let these stand under their hashes, without the words that tell why; of two that meet there the later end holds.

    `names` are hash, address, scope and reason. A row is changed and not made anew, so that other hosts forget it.
    """
    link.executemany(_HIDE, names)


def select(database: Database, choice: Choice, *, most: int = 1000) -> Iterator[Suppression]:
    """In the order of addresses, so many at a time: a longer read would keep the write-ahead log from shrinking."""
    key = veil.read_key(database) if choice.addresses else b""
    where, values = _where(choice, key)
    after: tuple[str, str, str] = ("", "", "")
    sql = f"SELECT {_COLUMNS} FROM suppressions WHERE {where} AND (address, scope, reason) > (?, ?, ?)"
    while rows := database.query(f"{sql} ORDER BY address, scope, reason LIMIT ?", (*values, *after, most)):
        yield from (Suppression(*row) for row in rows)
        after = rows[-1][:3]


def remove(link: Connection, choice: Choice) -> int:
    """Returns how many went. The bounces that were counted towards new ones go with them."""
    key = veil.key(link)
    where, values = _where(choice, key, began="time", reason=f"'{BOUNCED}'")
    link.execute(f"DELETE FROM hard_bounces WHERE {where}", values)
    where, values = _where(choice, key)
    return link.execute(f"DELETE FROM suppressions WHERE {where}", values).rowcount


def sweep(link: Connection, now: float, *, within: float, most: int) -> int:
    """Forget what ended long ago, and bounces that can suppress nobody any more; returns how many rows went."""
    gone = link.execute(
        "DELETE FROM suppressions WHERE (address, scope, reason) IN (SELECT address, scope, reason FROM suppressions"
        " WHERE since < ?1 AND until < ?1 LIMIT ?2)",
        (now - _KEPT, most),
    ).rowcount
    gone += link.execute(
        "DELETE FROM hard_bounces WHERE (address, scope, reference) IN"
        " (SELECT address, scope, reference FROM hard_bounces WHERE time < ? LIMIT ?)",
        (now - within - _LATE, most),
    ).rowcount
    link.execute("DELETE FROM mistrusted WHERE until < ?", (now - _LATE,))
    link.execute("DELETE FROM bounced_lately WHERE last < ?", (now - _KEPT,))
    return gone


class Lookup:
    """For a worker, who asks of each message; any thread may. What holds now is looked up each time, under the address
    and under its hash, which may have taken its place a moment ago; nothing at all while nobody is suppressed."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock
        self._anybody, self._key, self._looked_at = True, b"", float("-inf")
        self._looking = threading.Lock()

    def find(self, recipients: Collection[str]) -> dict[str, list[Suppression]]:
        """By recipient, as asked for; only those for whom something stands. StoreError when it cannot be read."""
        now = self._clock()
        self._look(now)
        if not self._anybody:
            return {}
        self._key = self._key or veil.read_key(self._database)
        asked: dict[str, list[str]] = {}
        for recipient in recipients:
            for form in veil.forms(recipient, self._key):
                asked.setdefault(storable(form), []).append(recipient)
        found: dict[str, list[Suppression]] = {}
        for row in self._read(list(asked)):
            one = Suppression(*row)
            if one.stands(now):
                for recipient in asked[one.address]:
                    found.setdefault(recipient, []).append(one)
        return found

    def _read(self, forms: Sequence[str]) -> list[Row]:
        sql = f"SELECT {_COLUMNS} FROM suppressions WHERE address"
        if len(forms) == 1:
            return self._database.query(f"{sql} = ?", forms)
        return self._database.query(f"{sql} IN (SELECT value FROM json_each(?))", (json.dumps(forms),))

    def _look(self, now: float) -> None:
        """Whether there is anybody."""
        if self._looked_at <= now < self._looked_at + EVERY or not self._looking.acquire(blocking=False):
            return
        try:
            ((anybody,),) = self._database.query("SELECT EXISTS (SELECT 1 FROM suppressions)")
            self._anybody, self._looked_at = bool(anybody), now
        finally:
            self._looking.release()


def line(text: str) -> str:
    """Somebody else's words as evidence: one printable line, cut."""
    return "".join(char if char.isprintable() else " " for char in text[:_LONGEST]).strip()


def _where(
    choice: Choice, key: bytes, *, began: str = "since", reason: str = "reason"
) -> tuple[str, tuple[object, ...]]:
    parts: list[tuple[str, tuple[object, ...]]] = []
    if choice.addresses:
        forms = sorted({storable(form) for address in choice.addresses for form in veil.forms(address, key)})
        parts.append(("address IN (SELECT value FROM json_each(?))", (json.dumps(forms),)))
    for column, value in (("scope", choice.scope), (reason, choice.reason), ("provider", choice.provider)):
        if value:
            parts.append((f"{column} = ?", (value,)))
    if choice.since is not None:
        parts.append((f"{began} >= ?", (choice.since,)))
    return " AND ".join(["true", *(part for part, _ in parts)]), tuple(value for _, values in parts for value in values)


def _row(one: Suppression) -> tuple[object, ...]:
    address = one.address if veil.is_hashed(one.address) else canonical(one.address)
    return (
        storable(address),
        storable(one.scope),
        one.reason,
        one.since,
        one.until,
        storable(line(one.evidence)),
        one.count,
        storable(one.provider),
    )
