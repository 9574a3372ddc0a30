"""The journal: every fact of a message's life, in the order in which it was recorded, read and written by `books`.

Sequence numbers are never reused. Knows nothing of limits: messages of ours come in by `settle`, charged.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Set
from pathlib import Path
from sqlite3 import Connection

from postmeter.events import Event, Submitted
from postmeter.mail.draft import Figure
from postmeter.store import database, personal, rows, suppression, totals, uniques
from postmeter.store.database import Database, Row
from postmeter.store.rows import Entry

__all__ = ["Entry", "Journal", "last_release"]

_SLICE = 1000  # rows read at once; a longer read would keep the write-ahead log from being copied back


class Journal:
    """One a process; not to be carried over a fork. Every method may raise `StoreError`."""

    def __init__(self, path: Path, *, sync: str = "normal", host: str = "", readonly: bool = False) -> None:
        self.database = database.open(path, sync=sync, readonly=readonly)
        self._host = host

    def record(
        self,
        events: Iterable[Event],
        *,
        figures: Mapping[Figure, int] | None = None,
        positions: Mapping[str, str] | None = None,
        first: Mapping[bytes, float | None] | None = None,
        also: Callable[[Connection, Set[str]], None] | None = None,
    ) -> int:
        """Record events, totals and positions in one transaction; returns how many events were new.

        Who unsubscribes is suppressed in the same one. `first`: keys of hits that came for the first time, and when
        (`uniques.save`). `also` writes what must be true together with them, told the sources of those that were new.
        """
        events = [personal.discreet(event) for event in events]
        encoded = [rows.encode(event, self._host) for event in events]
        with self.database.transaction() as link:
            new = _new(link, encoded)
            rows.insert(link, new)
            suppression.add(link, suppression.wanted(events))
            totals.add(link, {**(figures or {}), **rows.counted(new)})
            save = "INSERT INTO positions VALUES (?, ?) ON CONFLICT DO UPDATE SET position = excluded.position"
            link.executemany(save, (positions or {}).items())
            uniques.save(link, first or {})
            sources = {rows.source(row) for row in new}
            if also is not None:
                also(link, sources)
        return len(sources)

    def position(self, name: str) -> str:
        """The position saved under that name; empty when there is none."""
        found = self.database.query("SELECT position FROM positions WHERE name = ?", (name,))
        return str(found[0][0]) if found else ""

    def positions(self, prefix: str = "") -> dict[str, str]:
        """Every saved position whose name begins so."""
        sql = "SELECT name, position FROM positions WHERE substr(name, 1, length(?1)) = ?1"
        return dict(self.database.query(sql, (prefix,)))

    def forget_positions(self, names: Iterable[str]) -> None:
        """For files that are gone."""
        with self.database.transaction() as link:
            link.executemany("DELETE FROM positions WHERE name = ?", [(name,) for name in names])

    def events(self, *, after: int = 0, limit: int = _SLICE) -> list[Entry]:
        """The next slice of events behind `after`, oldest first."""
        return self._entries("WHERE seq > ? ORDER BY seq LIMIT ?", after, limit)

    def last(self) -> int:
        """The number of the newest event; 0 when there is none."""
        return int(self.database.query("SELECT coalesce(max(seq), 0) FROM events")[0][0])

    def of_kinds(self, kinds: Collection[str], *, after: int, limit: int = _SLICE) -> tuple[list[Entry], int]:
        """Of the next slice of events behind `after` those of these kinds, `limit` at most; and where to go on."""
        slice_ = "SELECT max(seq) FROM (SELECT seq FROM events WHERE seq > ? ORDER BY seq LIMIT ?)"
        end = self.database.query(slice_, (after, _SLICE))[0][0]
        if end is None:
            return [], after
        marks = ", ".join("?" * len(kinds))
        where = f"WHERE seq > ? AND seq <= ? AND kind IN ({marks}) ORDER BY seq LIMIT ?"
        found = self.database.query(rows.SELECT + where, (after, end, *kinds, limit))
        return rows.readable(found), int(found[-1][0] if len(found) == limit else end)

    def of_reference(self, reference: str) -> list[Entry]:
        return self._entries("WHERE reference = ? AND reference != '' ORDER BY seq LIMIT ?", reference, _SLICE)

    def submitted(self, reference: str) -> Submitted | None:
        """The message of that reference, which is the first that was recorded of it."""
        where = "WHERE reference = ? AND reference != '' AND kind = 'submitted' ORDER BY seq LIMIT 1"
        found = self._entries(where, reference)
        return found[0].event if found and isinstance(found[0].event, Submitted) else None

    def delivered(self, reference: str) -> float | None:
        """When the first server took the message of that reference, as far as the log has told."""
        sql = "SELECT min(time) FROM events WHERE reference = ? AND reference != '' AND kind = 'sent'"
        [(when,)] = self.database.query(sql, (reference,))
        return None if when is None else float(when)

    def deferred(self, reference: str) -> bool:
        """Whether the log tells that a server did not take that message yet."""
        sql = "SELECT 1 FROM events WHERE reference = ? AND reference != '' AND kind = 'deferred' LIMIT 1"
        return bool(self.database.query(sql, (reference,)))

    def bounced(self, reference: str) -> set[str]:
        """The recipients of that message of whom it is known that it came back, as they were written then."""
        sql = """SELECT DISTINCT data ->> 'recipient' FROM events
            WHERE reference = ? AND reference != '' AND kind IN ('bounced', 'expired')"""
        return {str(recipient) for (recipient,) in self.database.query(sql, (reference,))}

    def taken_as(self, queue_id: str, *, since: float, until: float) -> Event | None:
        """The newest message that was taken under that queue id between these times, for the first time or again."""
        where = """WHERE queue_id = ? AND queue_id != '' AND kind IN ('submitted', 'refiltered')
            AND time BETWEEN ? AND ? ORDER BY time DESC LIMIT 1"""
        found = self._entries(where, queue_id, since, until)
        return found[0].event if found else None

    def decided(self, reference: str) -> set[str]:
        """The recipients of that message of whom the last word is known, as they were written then."""
        sql = """SELECT DISTINCT data ->> 'recipient' FROM events
            WHERE reference = ? AND reference != '' AND kind IN ('sent', 'bounced', 'expired', 'unknown')"""
        return {str(recipient) for (recipient,) in self.database.query(sql, (reference,))}

    def has(self, source: str) -> bool:
        """Whether the event of that source is recorded."""
        return rows.has(self.database, source)

    def of_queue_id(self, queue_id: str) -> list[Entry]:
        return self._entries("WHERE queue_id = ? AND queue_id != '' ORDER BY seq LIMIT ?", queue_id, _SLICE)

    def totals(self) -> dict[Figure, int]:
        """Every total since the first day."""
        return totals.read(self.database)

    def close(self) -> None:
        self.database.close()

    def _entries(self, where: str, *values: object) -> list[Entry]:
        return rows.readable(self.database.query(rows.SELECT + where, values))


def _new(link: Connection, encoded: list[Row]) -> list[Row]:
    """Those that say something: a conflict would change nothing either, and waste a sequence number."""
    known = rows.known(link, {rows.source(row) for row in encoded})
    return [row for row in encoded if rows.counts_up(row) or rows.source(row) not in known]


def last_release(link: Database, queue_id: str) -> float:
    """When the message was last let out of the hold queue by us; 0 when it never was."""
    sql = """
        SELECT max(time) FROM events
        WHERE queue_id = ? AND queue_id != '' AND kind = 'released' AND data ->> 'action' = 'released'
    """
    [(when,)] = link.query(sql, (queue_id,))
    return float(when or 0)
