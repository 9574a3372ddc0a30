"""What a person or the brake ordered about a login: frozen, other limits for a time, stopped by the brake.

Knows nothing of what an order does to mail. Hosts that share a store of quotas exchange orders: of two about the same
login the newer one stands, so one that was lifted stays in the table as an order that ended long ago.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from sqlite3 import Connection
from typing import Literal, TypeAlias, cast, get_args

from postmeter.store.accounts import storable
from postmeter.store.database import Database, StoreError

EVERY = 1.0
"""Seconds that a worker may not know of a new order."""

_KEPT = 90 * 86_400.0  # seconds for which what has ended is told to hosts that were away
_LIFTED = 0.0  # the end of an order that was lifted: past on every clock
_TICK = 0.001  # seconds by which a later order is newer at least, whatever the clock says

_TAKE = """
    INSERT INTO orders (kind, login, value, since, until) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET value = excluded.value, since = excluded.since, until = excluded.until
    WHERE (excluded.since, excluded.value) > (since, value)
"""
_ALL = "SELECT kind, login, value, since, until FROM orders"

Kind: TypeAlias = Literal["freeze", "limits", "brake"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Stands from `since` up to `until`, for ever when that is None. `value`: limits as text, or why it was given."""

    kind: Kind
    login: str
    value: str = ""
    since: float
    until: float | None = None

    def stands(self, now: float) -> bool:
        return self.until is None or now < self.until


class Standing:
    """The orders that stand now, for workers: looked up once a second at most. Any thread may ask.

    While the database cannot be read the last look goes on, and orders with an end still end.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock
        self._orders: dict[tuple[str, str], Order] = {}
        self._looked_at = float("-inf")
        self._looking = threading.Lock()

    def frozen(self, login: str) -> Order | None:
        return self._standing("freeze", login)

    def limits(self, login: str) -> str | None:
        """Limits that replace those of the configuration, as they are written there."""
        order = self._standing("limits", login)
        return order.value if order else None

    def braked(self, login: str) -> Order | None:
        return self._standing("brake", login)

    def released(self, login: str, *, at_once: bool = False) -> float:
        """When a person last ended the brake on it; 0 when that never was, or is forgotten."""
        if at_once:
            self._looked_at = float("-inf")
        self._refresh()
        order = self._orders.get(("brake", storable(login)))
        return order.since if order and order.until == _LIFTED else 0.0

    def _standing(self, kind: Kind, login: str) -> Order | None:
        now = self._refresh()
        order = self._orders.get((kind, storable(login)))
        return order if order and order.stands(now) else None

    def _refresh(self) -> float:
        now = self._clock()
        if not 0 <= now - self._looked_at < EVERY:
            self._look(now)
        return now

    def _look(self, now: float) -> None:
        """One thread looks; others go on with what is known, but for the very first time."""
        if not self._looking.acquire(blocking=self._looked_at == float("-inf")):
            return
        try:
            if not 0 <= now - self._looked_at < EVERY:
                self._orders = {(order.kind, order.login): order for order in all_known(self._database)}
        except StoreError:
            pass
        finally:
            self._looked_at = now
            self._looking.release()


def put(database: Database, order: Order) -> None:
    """Replaces the one of that kind about that login, which it is newer than even when the clock was stepped back."""
    with database.transaction() as link:
        _replace(link, order)


def lift(database: Database, kind: Kind, login: str, now: float) -> bool:
    """False when there was none to lift."""
    with database.transaction() as link:
        found = _find(link, kind, login)
        if found is None or not found.stands(now):
            return False
        _replace(link, Order(kind=kind, login=login, since=now, until=_LIFTED))
        return True


def read(database: Database, now: float) -> list[Order]:
    """All that stand, oldest first."""
    rows = database.query(_ALL + " WHERE until IS NULL OR until > ? ORDER BY since, kind, login", (now,))
    return [_order(*row) for row in rows]


def all_known(database: Database) -> list[Order]:
    """With those that have ended: what other hosts are to be told."""
    return [_order(*row) for row in database.query(_ALL + " ORDER BY since, kind, login")]


def merge(database: Database, orders: Iterable[Order]) -> bool:
    """Take over what other hosts know, where it is newer; true when that changed something. No write when not."""
    known = {(order.kind, order.login): (order.since, order.value) for order in all_known(database)}
    newer = [order for order in orders if (order.since, order.value) > known.get((order.kind, order.login), (0.0, ""))]
    if newer:
        with database.transaction() as link:
            link.executemany(_TAKE, [_row(order) for order in newer])
    return bool(newer)


def forgotten(order: Order, now: float) -> bool:
    """Whether it ended so long ago that no host needs to be told."""
    return order.until is not None and max(order.since, order.until) < now - _KEPT


def kind(text: str) -> Kind:
    """A kind of orders from its name; ValueError for what is none."""
    for known in get_args(Kind):
        if text == known:
            return cast(Kind, known)
    raise ValueError(f"{text!r} is no kind of orders")


def forget(database: Database, now: float) -> int:
    """Drop what ended long ago; returns how many went."""
    where = "WHERE max(since, until) < ?"  # NULL for one without end
    if not database.query(f"SELECT 1 FROM orders {where} LIMIT 1", (now - _KEPT,)):
        return 0
    with database.transaction() as link:
        return link.execute(f"DELETE FROM orders {where}", (now - _KEPT,)).rowcount


def _replace(link: Connection, order: Order) -> None:
    found = _find(link, order.kind, order.login)
    since = max(order.since, found.since + _TICK) if found else order.since
    link.execute(_TAKE, _row(replace(order, since=since)))


def _find(link: Connection, kind: Kind, login: str) -> Order | None:
    row = link.execute(_ALL + " WHERE kind = ? AND login = ?", (kind, storable(login))).fetchone()
    return _order(*row) if row else None


def _order(kind: Kind, login: str, value: str, since: float, until: float | None) -> Order:
    return Order(kind=kind, login=login, value=value, since=since, until=until)


def _row(order: Order) -> tuple[object, ...]:
    return order.kind, storable(order.login), storable(order.value), order.since, order.until
