"""Which hits have been there before: a digest of what makes a hit a repeat, and when it came first.

Knows nothing of hits. A digest is made of nothing but what events say anyway, so this table tells no more than they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from sqlite3 import Connection

from postmeter.store.database import Database

KEEP = 400 * 86_400.0
"""Seconds; what comes again after that is new."""


def known(database: Database, keys: Iterable[bytes]) -> set[bytes]:
    sql = "SELECT 1 FROM hit_keys WHERE key = ?"
    return {key for key in keys if database.query(sql, (key,))}


def add(link: Connection, keys: Mapping[bytes, float]) -> None:
    link.executemany("INSERT OR IGNORE INTO hit_keys VALUES (?, ?)", keys.items())


def sweep(database: Database, now: float, *, most: int) -> int:
    """Forget the oldest, so many at most; how many those were."""
    sql = "DELETE FROM hit_keys WHERE key IN (SELECT key FROM hit_keys WHERE since < ? ORDER BY since LIMIT ?)"
    with database.transaction() as link:
        return link.execute(sql, (now - KEEP, most)).rowcount
