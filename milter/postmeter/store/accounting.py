"""Which store keeps the quotas: the one place that chooses between SQLite and Redis.

Redis' library is loaded only where the configuration names a Redis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from postmeter.config.schema import Journal, Quota, RedisStore
from postmeter.store.accounts import Accounts
from postmeter.store.database import PATIENCE
from postmeter.store.settle import Settler

if TYPE_CHECKING:
    from postmeter.store.redis_ledger import RedisLedger
    from postmeter.store.redis_orders import RedisOrders
    from postmeter.store.redis_server import RedisServer


def accounts(quota: Quota, journal: Journal, *, host: str, patience: float = PATIENCE) -> Accounts:
    """To be made after the fork, and opened before it is used."""
    settler = Settler(journal.path, sync=journal.sync, host=host, patience=patience)
    remote = redis(quota)
    if remote is None:
        return settler
    from postmeter.store.redis_settle import RemoteSettler

    return RemoteSettler(remote, settler)


def preload(quota: Quota) -> None:
    """Before the fork: the library is some 9 MB, which workers then share."""
    redis(quota)


def redis(quota: Quota) -> RedisLedger | None:
    """The ledger in Redis, if quotas are kept there. Connects to nothing yet."""
    if quota.store is None:
        return None
    from postmeter.store.redis_ledger import RedisLedger

    return RedisLedger(_server(quota, quota.store), quota.store_prefix)


def orders(quota: Quota) -> RedisOrders | None:
    """What exchanges orders with other hosts, if quotas are shared with any."""
    if quota.store is None:
        return None
    from postmeter.store.redis_orders import RedisOrders

    return RedisOrders(_server(quota, quota.store), quota.store_prefix)


def _server(quota: Quota, store: RedisStore) -> RedisServer:
    from postmeter.store.redis_server import RedisServer

    return RedisServer(store, password_file=quota.store_password_file, ca=quota.store_ca, timeout=quota.store_timeout)
