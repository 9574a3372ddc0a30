"""A journal of many events and a ledger of many logins, made by SQL in the product's own schema.

Knows nothing of what is measured on it. References are by chance, as real ones are; sources and queue ids grow, as
Postfix's long queue ids do.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from postmeter.store import database
from postmeter.store.journal import Journal
from postmeter.store.rows import encode
from tests.bench.ledger import fill as fill_ledger
from tests.bench.ledger import submitted

_SLICE = 500_000
_EVENTS = """
    WITH RECURSIVE numbers (n) AS (SELECT :first UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :last)
    INSERT INTO events (time, host, kind, source, reference, queue_id, login, from_domain, data)
    SELECT :begun + n * :pace, 'lab', 'submitted', printf('eom:4A%010X:%d', n, :begun + n * :pace),
           lower(hex(randomblob(8))), printf('4A%010X', n),
           'user' || (abs(random()) % :logins) || '@example.com', 'example.com', :data
    FROM numbers
"""
_LOGINS = """
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?)
    INSERT INTO folios (name, idle, state)
    SELECT 'sender:user' || n || '@example.com' AS name, idle, state FROM numbers, (SELECT idle, state FROM folios)
    ORDER BY name
"""
_YEAR = 365 * 86_400
_ONE_BY_ONE = 5  # the last of so many parts; after less, pages are emptier than those of a grown journal


def fill(path: Path, *, events: int, logins: int) -> float:
    """An empty file at `path`, or none, becomes that journal; seconds that it took."""
    begun = time.monotonic()
    Journal(path, host="lab").close()
    if events:
        _fill_events(path, events, max(1, logins))
    if logins:
        _fill_ledger(path, logins)
    return time.monotonic() - begun


def recall(path: Path) -> None:
    """Into the memory of the kernel, all of it."""
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 24):
            pass


def hand_over(path: Path, user: str) -> None:
    for file in path.parent.glob(path.name + "*"):
        shutil.chown(file, user)


def _fill_events(path: Path, events: int, logins: int) -> None:
    """To put 10 million values by chance into an index takes an hour, so they are made when most events are in.

    But then their pages are full, and each message would split two of them, as none does where a journal has grown:
    the last events come one by one, and leave the pages as filled as messages do.
    """
    most = events - events // _ONE_BY_ONE
    with closing(_quick(path)) as link:
        indexes = link.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'events'")
        made = [(name, sql) for name, sql in indexes.fetchall() if sql]
        for name, _ in made:
            link.execute(f"DROP INDEX {name}")
        for first in range(0, most, _SLICE):
            _insert(link, range(first, min(first + _SLICE, most)), events=events, logins=logins)
        for _, sql in made:
            link.execute(sql)
        if most < events:
            _insert(link, range(most, events), events=events, logins=logins)


def _insert(link: sqlite3.Connection, part: range, *, events: int, logins: int) -> None:
    """In one transaction, so that a page in which several end up is written once."""
    data = encode(submitted("4A0", 0), "lab")[-1]
    values = {"first": part.start, "last": part.stop, "begun": time.time() - _YEAR, "pace": _YEAR / events}
    link.execute(_EVENTS, values | {"logins": logins, "data": data})
    link.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _fill_ledger(path: Path, logins: int) -> None:
    fill_ledger(path, 1)
    with closing(_quick(path)) as link:
        link.execute(_LOGINS, (logins,))
        link.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _quick(path: Path) -> sqlite3.Connection:
    """For what is lost if the machine stops."""
    link = sqlite3.connect(path, isolation_level=None)
    for setting in ("synchronous=OFF", "cache_size=-1000000", "temp_store=FILE", "journal_size_limit=0"):
        link.execute(f"PRAGMA {setting}")
    return link


def commits(path: Path) -> int:
    """Transactions in the write-ahead log: frames that end one (sqlite.org/fileformat2.html, 4.1)."""
    return sum(_frames(path))


def frames(path: Path) -> int:
    """Pages in the write-ahead log, as often as they were written."""
    return len(list(_frames(path)))


def _frames(path: Path) -> Iterator[bool]:
    """Whether each ends a transaction."""
    with path.with_name(path.name + "-wal").open("rb") as log:
        head = log.read(32)
        size = int.from_bytes(head[8:12], "big")
        while len(frame := log.read(24)) == 24:
            if frame[8:16] != head[16:24]:  # left by an earlier round
                break
            yield frame[4:8] != bytes(4)
            log.seek(size, 1)


def restart_log(path: Path) -> None:
    """The next transaction begins the write-ahead log anew."""
    with closing(sqlite3.connect(path, timeout=20)) as link:
        link.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()


def rows(path: Path) -> int:
    with closing(database.open(path, readonly=True)) as book:
        return int(book.query("SELECT count(*) FROM events")[0][0])


def octets(path: Path) -> int:
    with closing(database.open(path, readonly=True)) as book:
        sql = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        return int(book.query(sql)[0][0])
