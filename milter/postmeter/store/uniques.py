"""Which hits have been there before: a digest of what makes a hit a repeat, and when it came first.

Knows nothing of hits. A digest is made of nothing but what events say anyway, so this table tells no more than they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from sqlite3 import Connection

from postmeter.store.database import Database

KEEP = 400 * 86_400.0
"""Seconds; what comes again after that is new."""


def known(database: Database, keys: Iterable[bytes]) -> dict[bytes, float]:
    """Those that came before, and when they came first."""
    sql = "SELECT since FROM hit_keys WHERE key = ?"
    return {key: float(found[0][0]) for key in keys if (found := database.query(sql, (key,)))}


def save(link: Connection, keys: Mapping[bytes, float | None]) -> None:
    """When each came first; None where what came turned out to be something else."""
    since = "INSERT INTO hit_keys VALUES (?, ?) ON CONFLICT DO UPDATE SET since = excluded.since"
    link.executemany(since, [(key, first) for key, first in keys.items() if first is not None])
    link.executemany("DELETE FROM hit_keys WHERE key = ?", [(key,) for key, first in keys.items() if first is None])


def sweep(database: Database, now: float, *, most: int) -> int:
    """Forget the oldest, so many at most; how many those were."""
    sql = "DELETE FROM hit_keys WHERE key IN (SELECT key FROM hit_keys WHERE since < ? ORDER BY since LIMIT ?)"
    with database.transaction() as link:
        return link.execute(sql, (now - KEEP, most)).rowcount
