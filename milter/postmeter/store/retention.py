"""Old events deleted, and before that the addresses in them hashed: a piece a transaction, each short.

Mail waits for whoever writes, so a transaction is some milliseconds. Deleting needs no position: what is deleted is
gone. Hashing saves how far it came with what it did. What is done twice is done once. Figures stay, which are sums of a
day, and totals. Knows nothing of when something is old, nor who still has to read an event: `before` and `upto` say so.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from sqlite3 import Connection
from typing import TypeVar

from postmeter.events import Submitted
from postmeter.store import fates, personal, rows, suppression, veil
from postmeter.store.database import Database
from postmeter.store.fates import Key

log = logging.getLogger(__name__)

POSITION = "retention:addresses"
"""Up to there every event is hashed."""

_Row = TypeVar("_Row")

_PIECE = 100  # rows of one transaction
_SAVE = "INSERT INTO positions VALUES (?, ?) ON CONFLICT DO UPDATE SET position = excluded.position"
_HASHED = f"'{veil.PREFIX}%'"


@dataclass(frozen=True, slots=True)
class Seen:
    """An event, as far as its age matters."""

    seq: int
    time: float
    kind: str
    reference: str


def look(database: Database, *, after: int, upto: int, most: int) -> list[Seen]:
    """The next events behind `after`, in the order in which they were recorded."""
    sql = "SELECT seq, time, kind, reference FROM events WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
    return [Seen(*row) for row in database.query(sql, (after, upto, most))]


def hashed_up_to(database: Database) -> int:
    """Up to there nothing has to be looked at again."""
    found = database.query("SELECT position FROM positions WHERE name = ?", (POSITION,))
    return int(found[0][0]) if found else 0


def delete(database: Database, events: Sequence[Seen]) -> int:
    """These, and what became of the recipients of their messages; returns how many rows of all went."""
    done = 0
    for piece in _pieces(_fates(database, _over(database, events), hashed=True)):
        with database.transaction() as link:
            link.executemany("DELETE FROM fates WHERE reference = ? AND recipient = ?", piece)
        done += len(piece)
    for some in _pieces(events):
        with database.transaction() as link:
            done += _delete(link, some)
    return done


def hash_addresses(database: Database, events: Sequence[Seen], *, position: int | None) -> int:
    """In these and in the fates of their messages, and save the position, if any; returns how many rows changed."""
    done = 0
    key = veil.read_key(database)
    references = {event.reference for event in events if event.reference}
    for piece in _pieces(_fates(database, references, hashed=False)):
        with database.transaction() as link:
            done += _veil_fates(link, piece, key)
    for some in _pieces(events):
        with database.transaction() as link:
            done += _veil_events(link, some, key)
            if position is not None and some[-1] == events[-1]:
                link.execute(_SAVE, (POSITION, str(position)))
    return done


def hash_suppressed(database: Database, *, before: float, most: int = _PIECE) -> int:
    """Addresses suppressed since before then, and the words that tell why; returns how many rows changed."""
    sql = f"SELECT address, scope, reason FROM suppressions WHERE since < ? AND address NOT LIKE {_HASHED} LIMIT ?"
    found = database.query(sql, (before, most))
    if not found:
        return 0
    key = veil.read_key(database)
    with database.transaction() as link:
        suppression.hide(link, [(veil.hashed(row[0], key), row[0], row[1], row[2]) for row in found])
    return len(found)


def _over(database: Database, events: Iterable[Seen]) -> set[str]:
    """References of messages that will have left nothing behind, or no word of what they were."""
    ours = {event.reference: event.kind == "submitted" for event in events if event.reference}
    ours |= {event.reference: True for event in events if event.kind == "submitted"}
    known = "SELECT 1 FROM events WHERE reference = ? AND reference != '' AND kind = 'submitted' LIMIT 1"
    return {reference for reference, here in ours.items() if here or not database.query(known, (reference,))}


def _fates(database: Database, references: Collection[str], *, hashed: bool) -> list[Key]:
    """Those of these messages, with or without those that are hashed."""
    which = "" if hashed else f" AND recipient NOT LIKE {_HASHED}"
    sql = f"SELECT reference, recipient FROM fates WHERE reference IN (SELECT value FROM json_each(?)){which}"
    return [(str(row[0]), str(row[1])) for row in database.query(sql, (json.dumps(sorted(references)),))]


def _delete(link: Connection, events: Sequence[Seen]) -> int:
    for event in events:
        if event.kind == "submitted":
            found = rows.readable(link.execute(f"{rows.SELECT}WHERE seq = ?", (event.seq,)))
            fates.forget(link, [entry.event for entry in found if isinstance(entry.event, Submitted)])
    numbers = [(event.seq,) for event in events]
    link.executemany("DELETE FROM outbox WHERE seq = ?", numbers)
    return link.executemany("DELETE FROM events WHERE seq = ?", numbers).rowcount


def _veil_fates(link: Connection, keys: Sequence[Key], key: bytes) -> int:
    """Where the same is there hashed already, this one stays: it knows the message."""
    rows = [(veil.hashed(recipient, key), reference, recipient) for reference, recipient in keys]
    sql = "UPDATE OR REPLACE fates SET recipient = ? WHERE reference = ? AND recipient = ?"
    return link.executemany(sql, rows).rowcount


def _veil_events(link: Connection, events: Iterable[Seen], key: bytes) -> int:
    done = 0
    for event in events:
        row = link.execute("SELECT kind, source, data FROM events WHERE seq = ?", (event.seq,)).fetchone()
        if row is None:
            continue
        kind, *before = row
        try:
            source, data = personal.aged(kind, before[0], before[1], key)
        except (ValueError, TypeError, AttributeError) as error:  # it may name anybody, and nobody can read it any more
            log.error("event %d, %r, cannot be read, and is emptied: %s", event.seq, kind, type(error).__name__)
            source, data = before[0], "{}"
        if [source, data] != before:
            write(link, event.seq, source, data)
            done += 1
    return done


def write(link: Connection, seq: int, source: str, data: str) -> None:
    """An event without what it said of somebody. One that says the same by now as another, of that source, goes."""
    values = (source, data, seq)
    if not link.execute("UPDATE OR IGNORE events SET source = ?, data = ? WHERE seq = ?", values).rowcount:
        link.execute("DELETE FROM events WHERE seq = ?", (seq,))


def _pieces(found: Sequence[_Row]) -> Iterator[Sequence[_Row]]:
    return (found[at : at + _PIECE] for at in range(0, len(found), _PIECE))
