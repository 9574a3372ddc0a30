"""Orders about logins, exchanged by way of Redis: each host keeps its own table, and of two the newer one stands.

One hash for all, a field an order. Hosts that write at one moment may overwrite each other; whoever holds the newer one
finds that a second later and writes it again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from math import isfinite
from typing import Any

from postmeter.store import orders
from postmeter.store.accounts import StoreDownError, storable
from postmeter.store.database import Database
from postmeter.store.orders import Order
from postmeter.store.redis_server import RedisServer

log = logging.getLogger(__name__)


class RedisOrders:
    """`exchange` may raise StoreError, which a store that is gone is too."""

    def __init__(self, server: RedisServer, prefix: str) -> None:
        self._server, self._name = server, f"{{{prefix}}}:orders"

    def exchange(self, database: Database, now: float) -> bool:
        """Tell what is newer here, take over what is newer there; true when that changed our table."""
        theirs = dict(self._read())
        old = [field for field, order in theirs.items() if orders.forgotten(order, now)]
        mine = {_field(order): order for order in orders.all_known(database) if not orders.forgotten(order, now)}
        newer = {field: order for field, order in mine.items() if field not in theirs or _newer(order, theirs[field])}
        if newer:
            pairs = (text for field, order in newer.items() for text in (field, _text(order)))
            self._server.ask("HSET", self._name, *pairs)
        if old:
            self._server.ask("HDEL", self._name, *old)
        return orders.merge(database, [order for field, order in theirs.items() if field not in old])

    def answers(self) -> bool:
        """Whether the store can be read just now."""
        try:
            self._server.ask("EXISTS", self._name)
        except StoreDownError:
            return False
        return True

    def close(self) -> None:
        self._server.close()

    def _read(self) -> Iterator[tuple[str, Order]]:
        found = self._server.ask("HGETALL", self._name)
        pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
        for field, text in pairs:
            try:
                yield field.decode(), _order(field.decode(), json.loads(text))
            except (ValueError, TypeError, OverflowError, RecursionError) as error:
                log.warning("an order that cannot be read is left alone: %s", error)


def _newer(order: Order, than: Order) -> bool:
    return (order.since, order.value) > (than.since, than.value)


def _field(order: Order) -> str:
    return f"{order.kind}:{order.login}"


def _text(order: Order) -> str:
    return json.dumps([order.value, order.since, order.until])


def _order(field: str, found: Any) -> Order:
    """ValueError, TypeError or OverflowError for what `_text` never made."""
    kind, _, login = field.partition(":")
    value, since, until = found
    if not isfinite(float(since)) or (until is not None and not isfinite(float(until))):
        raise ValueError("a time that never comes")
    return Order(
        kind=orders.kind(kind), login=login, value=storable(str(value)), since=float(since),
        until=None if until is None else float(until),
    )  # fmt: skip
