"""What would keep the quotas from their Redis: its library, the files of its password and authority, an open road.

Looks and changes nothing, and connects to nobody: that a Redis is down just now is no mistake of a configuration.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from importlib.util import find_spec

from postmeter.config.load import Loaded
from postmeter.config.permissions import Fault, Person, unfit, unreadable
from postmeter.config.problem import Problem
from postmeter.config.schema import InetAddress, RedisStore


def of_store(loaded: Loaded, me: Person) -> Iterator[Problem]:
    """`quota.store` and the keys beside it, where that names a Redis."""
    quota = loaded.config.quota
    if quota.store is None:
        for key in ("store_password_file", "store_ca"):
            if getattr(quota, key) is not None:
                yield loaded.warning(f"quota.{key}", "is not used: quotas are in SQLite", "name a Redis in quota.store")
        return
    if find_spec("redis") is None:
        yield loaded.problem("quota.store", "Python's redis library is not there", "apt-get install python3-redis")
    yield from _password(loaded, me, quota.store)
    yield from _authority(loaded, me, quota.store)


def _password(loaded: Loaded, me: Person, store: RedisStore) -> Iterator[Problem]:
    path = loaded.config.quota.store_password_file
    if path is None:
        return
    make = f"write Redis's password into it: install -D -m 0600 -o {me.name} /dev/stdin {path}"
    fault = unfit(path, me, make)
    if fault:
        yield loaded.problem("quota.store_password_file", fault.what, fault.fix)
    elif not store.tls and not all(place.loopback for place in store.places if isinstance(place, InetAddress)):
        what = "the password can be read on its way to Redis"
        yield loaded.warning("quota.store", what, "use rediss, or a network that nobody else is in")


def _authority(loaded: Loaded, me: Person, store: RedisStore) -> Iterator[Problem]:
    path = loaded.config.quota.store_ca
    if path is None:
        return
    if not store.tls:
        yield loaded.warning("quota.store_ca", "is not used without TLS", "write rediss in quota.store")
    fault = unreadable(path, me, "name the file of the authority that signed Redis's certificate")
    if fault is None:
        try:
            ssl.create_default_context(cafile=str(path))
        except (OSError, ValueError):
            fault = Fault(path, f"{path} holds no certificate in PEM", "name the authority's certificate")
    if fault:
        yield loaded.problem("quota.store_ca", fault.what, fault.fix)
