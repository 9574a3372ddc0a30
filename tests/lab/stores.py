"""Stores of quotas for tests: the same questions to SQLite and to every kind of Redis.

A store lives as long as the test; its accounts are nobody else's. `clock="caller"` lets the test say what time it is.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from postmeter.config.schema import RedisStore
from postmeter.config.stores import store
from postmeter.store import database, ledger
from postmeter.store.accounts import Accounts
from postmeter.store.ledger import Usage
from postmeter.store.redis_ledger import RedisLedger
from postmeter.store.redis_server import RedisServer
from postmeter.store.redis_settle import RemoteSettler
from postmeter.store.settle import Settler

_prefixes = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where quotas are kept: in the journal alone, or in a Redis."""

    path: Path
    redis: RedisStore | None = None
    password_file: Path | None = None
    ca: Path | None = None
    prefix: str = ""
    timeout: float = 5.0

    def accounts(self, *, caller_clock: bool = False) -> Accounts:
        """One for this process; to be opened."""
        settler = Settler(self.path, host="mx1")
        return RemoteSettler(self.ledger(caller_clock=caller_clock), settler) if self.redis else settler

    def ledger(self, *, caller_clock: bool = False) -> RedisLedger:
        assert self.redis is not None
        server = RedisServer(self.redis, password_file=self.password_file, ca=self.ca, timeout=self.timeout)
        return RedisLedger(server, self.prefix, caller_clock=caller_clock)

    def usage(self, now: float, *, level: str = "sender", key: str) -> list[Usage]:
        """What a key has used, whichever store it is."""
        if self.redis is not None:
            remote = self.ledger(caller_clock=True)
            found = remote.usage(now, level=level, key=key)
            remote.close()
            return found
        book = database.open(self.path, readonly=True)
        found = ledger.usage(book, now, level=level, key=key)
        book.close()
        return found


def place(
    folder: Path,
    url: str = "sqlite",
    *,
    password_file: Path | None = None,
    ca: Path | None = None,
    timeout: float = 5.0,
) -> Place:
    """A store with nothing in it: on a server that others use too it has a prefix of its own."""
    prefix = f"t{os.getpid()}-{next(_prefixes)}"
    return Place(
        path=folder / "journal.db", redis=store(url), password_file=password_file, ca=ca, prefix=prefix, timeout=timeout
    )


@contextmanager
def opened(where: Place, *, caller_clock: bool = False) -> Iterator[Accounts]:
    accounts = where.accounts(caller_clock=caller_clock)
    accounts.open()
    try:
        yield accounts
    finally:
        accounts.close()
