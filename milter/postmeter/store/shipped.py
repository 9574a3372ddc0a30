"""What the database of all hosts has of each journal: who ships under which name, up to where, and the events.

A journal is registered under the name of its host, which no other may use until it is ended. What is shipped twice
replaces itself, and where a journal stands is written with it in one transaction. Knows nothing of SQLite or of time.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from postmeter.mail.scope import canonical
from postmeter.store.accounts import storable
from postmeter.store.database import Row
from postmeter.store.postgres import Cursor

_LONGEST = 255  # characters of a name to look up: an entry of an index has a limit (manual, 67.4.1), mail has none
_COLUMNS = "journal, seq, host, kind, source, time, reference, queue_id, login, from_domain, data"
_FIGURES = "journal, name, day, from_domain, login, campaign, provider, what, value"
_ROWS = 100  # of one statement


class NameTakenError(Exception):
    """This journal may not ship: its name is another's. For the administrator, with what to do."""


class MovedError(Exception):
    """Somebody else shipped as this journal meanwhile."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A journal as the database knows it. `seq` is the last event it has."""

    id: int
    instance: str
    host: str
    seq: int


def join(cursor: Cursor, *, instance: str, prior: str, began: int, host: str, now: float) -> Registered:
    """Our entry, made where there is none. NameTakenError when the name or our place is another's."""
    sql = "SELECT id, host, seq, ended FROM journals WHERE instance = %s"
    row = cursor.execute(sql, (instance,)).fetchone()
    if row is None and _renamed(cursor, instance, prior=prior, began=began, now=now):
        row = cursor.execute(sql, (instance,)).fetchone()
    if row is None:
        return _register(cursor, instance, host, now)
    number, called, reached, ended = row
    if ended is not None:
        raise NameTakenError(
            f"this journal was ended in the database: another copy of it, or a person, took the name {called} over. "
            "Stop one of the two; the copy that goes on keeps the name, a host of its own needs an empty journal"
        )
    if called != host:
        _free(cursor, host)
    cursor.execute("UPDATE journals SET host = %s, seen = %s WHERE id = %s", (host, now, number))
    return Registered(int(number), instance, host, int(reached))


def _register(cursor: Cursor, instance: str, host: str, now: float) -> Registered:
    _free(cursor, host)
    sql = "INSERT INTO journals (instance, host, seq, since, seen) VALUES (%s, %s, 0, %s, %s) RETURNING id"
    [number] = cursor.execute(sql, (instance, host, now, now)).fetchone() or [0]
    return Registered(int(number), instance, host, 0)


def _renamed(cursor: Cursor, instance: str, *, prior: str, began: int, now: float) -> bool:
    """What was shipped under the prior name is ours up to where we began; what came behind is nobody's any more, and
    kept: the journal that had it was lost."""
    sql = "SELECT id, host, seq FROM journals WHERE instance = %s AND ended IS NULL"
    row = cursor.execute(sql, (prior,)).fetchone() if prior else None
    if row is None:
        return False
    number, host, reached = row
    cursor.execute("UPDATE journals SET instance = %s, seq = %s WHERE id = %s", (instance, began, number))
    sql = "INSERT INTO journals (instance, host, seq, since, seen, ended) VALUES (%s, %s, %s, %s, %s, %s) RETURNING id"
    [lost] = cursor.execute(sql, (prior, host, reached, now, now, now)).fetchone() or [0]
    for table in ("lookups", "events"):
        cursor.execute(f"UPDATE {table} SET journal = %s WHERE journal = %s AND seq > %s", (lost, number, began))
    return True


def _free(cursor: Cursor, host: str) -> None:
    cursor.execute("SELECT instance FROM journals WHERE host = %s AND ended IS NULL", (host,))
    if cursor.fetchone() is not None:
        raise NameTakenError(
            f"another host ships as {host}: give each a journal.host of its own. If that host, or its journal, is gone "
            f"for good, say so in the database: UPDATE journals SET ended = seen WHERE host = '{_quoted(host)}' AND "
            "ended IS NULL"
        )


def advance(cursor: Cursor, journal: Registered, upto: int, now: float) -> Registered:
    """To be done first in a transaction: whoever else would ship as this journal waits, and is told."""
    sql = "UPDATE journals SET seq = %s, seen = %s WHERE id = %s AND instance = %s AND seq = %s AND ended IS NULL"
    cursor.execute(sql, (upto, now, journal.id, journal.instance, journal.seq))
    if cursor.rowcount != 1:
        raise MovedError
    return dataclasses.replace(journal, seq=upto)


def begin_anew(cursor: Cursor, journal: Registered, now: float) -> Registered:
    """All of it will be shipped once more, each piece in place of what is there.

    What it says of suppressions gets numbers that nobody has heard yet, also where the database was put back to an
    earlier state: they go on from the clock, in milliseconds.
    """
    sql = "UPDATE journals SET seq = 0, said = greatest(said, %s) WHERE id = %s"
    cursor.execute(sql, (int(now * 1000), journal.id))
    cursor.execute("DELETE FROM figures WHERE journal = %s", (journal.id,))
    return dataclasses.replace(journal, seq=0)


def replace_range(cursor: Cursor, journal: Registered, after: int, upto: int, events: Sequence[Row]) -> None:
    """These are the events with numbers above `after` up to `upto`, and there are no others."""
    for table in ("lookups", "events"):
        cursor.execute(f"DELETE FROM {table} WHERE journal = %s AND seq > %s AND seq <= %s", (journal.id, after, upto))
    _insert(cursor, journal, events)


def replace(cursor: Cursor, journal: Registered, seqs: Sequence[int], events: Sequence[Row]) -> None:
    """Of the events with these numbers these are left, as they are here."""
    marks = ", ".join(["%s"] * len(seqs))
    for table in ("lookups", "events"):
        cursor.execute(f"DELETE FROM {table} WHERE journal = %s AND seq IN ({marks})", (journal.id, *seqs))
    _insert(cursor, journal, events)


def replace_figures(cursor: Cursor, journal: Registered, keys: Sequence[Row], figures: Sequence[Row]) -> None:
    """Of the figures with these keys these are left, as they are here."""
    gone = [(journal.id, _digest(key)) for key in keys]
    cursor.executemany("DELETE FROM figures WHERE journal = %s AND name = %s", gone)
    if figures:
        rows = [(journal.id, _digest(row[:-1]), *map(text, row)) for row in figures]
        insert(cursor, f"INSERT INTO figures ({_FIGURES})", rows)


def forget(cursor: Cursor, host: str, before: float) -> int:
    """Drop old events of journals of that host that nobody keeps any more; how many went."""
    ended = "SELECT id FROM journals WHERE host = %s AND ended IS NOT NULL"
    return sum(
        cursor.execute(sql, (host, before)).rowcount
        for sql in (
            f"""DELETE FROM lookups WHERE journal IN ({ended}) AND EXISTS (SELECT 1 FROM events
                WHERE events.journal = lookups.journal AND events.seq = lookups.seq AND events.time < %s)""",
            f"DELETE FROM events WHERE journal IN ({ended}) AND time < %s",
        )
    )


def sources(cursor: Cursor, journal: Registered, after: int, most: int) -> dict[int, str]:
    """What tells the next events behind `after` from each other, by their numbers, which rise."""
    sql = "SELECT seq, source FROM events WHERE journal = %s AND seq > %s ORDER BY seq LIMIT %s"
    return dict(cursor.execute(sql, (journal.id, after, most)).fetchall())


def _insert(cursor: Cursor, journal: Registered, events: Sequence[Row]) -> None:
    if not events:
        return
    rows = [(journal.id, *map(text, event)) for event in events]
    insert(cursor, f"INSERT INTO events ({_COLUMNS})", rows)
    names = [(name, journal.id, event[0]) for event in events for name in _names(event)]
    insert(cursor, "INSERT INTO lookups (name, journal, seq)", names)


def insert(cursor: Cursor, into: str, rows: Sequence[Row]) -> None:
    """Many in one statement: to read a statement costs the server more than a row."""
    for at in range(0, len(rows), _ROWS):
        some = rows[at : at + _ROWS]
        marks = f"({', '.join(['%s'] * len(some[0]))})"
        cursor.execute(f"{into} VALUES {', '.join([marks] * len(some))}", [value for row in some for value in row])


def text(value: object) -> object:
    """PostgreSQL's text holds no NUL, and no half of a surrogate pair."""
    return storable(value) if isinstance(value, str) else value


def _names(event: Row) -> set[str]:
    """By which a message is looked up."""
    if event[2] != "submitted":
        return set()
    try:
        said = json.loads(event[9])
        found = {address_name(address) for address in said.get("recipients", ())}
        message_id = said.get("message_id", "")
        return found | ({message_id_name(message_id)} if message_id else set())
    except (ValueError, TypeError, AttributeError):  # garbage: shipped as it is, for all behind it wait
        return set()


def _digest(key: Row) -> str:
    """Names in a key have no bound, and entries of an index do."""
    said = json.dumps(key, separators=(",", ":")).encode()
    return blake2b(said, digest_size=16).hexdigest()


def address_name(address: str) -> str:
    return _name("r:", canonical(address))


def message_id_name(message_id: str) -> str:
    return _name("m:", message_id)


def _name(kind: str, name: str) -> str:
    return kind + storable(name)[:_LONGEST]


def _quoted(name: str) -> str:
    return name.replace("'", "''")
