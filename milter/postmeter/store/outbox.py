"""What is still to be told to whom by mail: events of the journal under a topic, until somebody has been told.

A topic is what one mail is about, and whom it goes to; it remembers when its last mail went. Knows nothing of mail or
of what events mean. A restart loses nothing: the place up to which the journal was read is saved with what it gave.
"""

from __future__ import annotations

from collections.abc import Iterable

from postmeter.store import rows
from postmeter.store.database import Database
from postmeter.store.rows import Entry


class Outbox:
    """Every method may raise `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, found: Iterable[tuple[str, int]], *, position: tuple[str, int]) -> None:
        """Events by topic and number, with the name and value of the position behind them."""
        with self._database.transaction() as link:
            link.executemany("INSERT OR IGNORE INTO outbox VALUES (?, ?)", found)
            save = "INSERT INTO positions VALUES (?, ?) ON CONFLICT DO UPDATE SET position = excluded.position"
            link.execute(save, (position[0], str(position[1])))

    def topics(self) -> dict[str, float]:
        """Every topic with something to tell, and when its last mail went: 0 when none did. Longest ago first."""
        sql = """SELECT DISTINCT topic, coalesce(time, 0.0) AS last FROM outbox LEFT JOIN told USING (topic)
            ORDER BY last, topic"""
        return dict(self._database.query(sql))

    def waiting(self, topic: str) -> list[Entry]:
        """What is to be told under that topic, oldest first."""
        where = "WHERE seq IN (SELECT seq FROM outbox WHERE topic = ?) ORDER BY seq"
        return rows.readable(self._database.query(rows.SELECT + where, (topic,)))

    def told(self, topic: str, *, upto: int, now: float, forget: float) -> None:
        """Nothing up to that number has to be told any more. Times of mail before `forget` matter no longer."""
        with self._database.transaction() as link:
            link.execute("DELETE FROM outbox WHERE topic = ? AND seq <= ?", (topic, upto))
            link.execute("INSERT INTO told VALUES (?, ?) ON CONFLICT DO UPDATE SET time = excluded.time", (topic, now))
            link.execute("DELETE FROM told WHERE time < ?", (forget,))

    def drop(self, topic: str) -> None:
        """Nobody wants to know."""
        with self._database.transaction() as link:
            link.execute("DELETE FROM outbox WHERE topic = ?", (topic,))
