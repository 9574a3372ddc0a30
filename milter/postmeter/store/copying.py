"""A copy of the database as it is at one moment, made while others write: for a backup.

`VACUUM INTO` reads one snapshot, so nobody waits for it; the copy has no free pages, and nothing that was deleted. It
is marked: the first that opens it for writing goes on with numbers of events that the original never gave
(`database`). Knows nothing of where backups lie.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from postmeter.store.database import COPIED, Database, StoreError


def copy(database: Database, target: Path) -> int:
    """Into an empty file; returns the number of its last event. StoreError when that is impossible."""
    database.query("VACUUM INTO ?", (str(target),))
    try:
        with closing(sqlite3.connect(target, isolation_level=None)) as link:
            link.execute("PRAGMA journal_mode=DELETE")
            link.execute("INSERT OR REPLACE INTO positions VALUES (?, '')", (COPIED,))
            return int(link.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0])
    except sqlite3.Error as error:
        raise StoreError(target, str(error)) from error
