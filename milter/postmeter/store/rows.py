"""Events as rows of the journal and back: what is looked up has a column, the rest is JSON beside it."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from sqlite3 import Connection
from typing import Any

from postmeter.events import KINDS, Event, kind
from postmeter.mail.draft import Figure
from postmeter.store.database import Database, Row

log = logging.getLogger(__name__)

_COLUMNS = ("source", "time", "reference", "queue_id", "login", "from_domain")
_TEXTS = tuple(column for column in _COLUMNS if column != "time")
_json = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode  # facts are trees
_WIDTH = len(("host", "kind", *_COLUMNS, "data"))
_REST = {name: tuple(f.name for f in fields(cls) if f.name not in _COLUMNS) for name, cls in KINDS.items()}

SELECT = "SELECT seq, host, kind, source, time, reference, queue_id, login, from_domain, data FROM events "
"""Ends where WHERE begins."""

# Refusals of one sender, reason and minute share a source and are one event that counts up.
_INSERT = """
    INSERT INTO events (host, kind, source, time, reference, queue_id, login, from_domain, data)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (source) DO UPDATE SET data = json_set(data,
        '$.count', (data ->> '$.count') + (excluded.data ->> '$.count'),
        '$.recipients', (data ->> '$.recipients') + (excluded.data ->> '$.recipients'))
    WHERE excluded.kind = 'refused'
"""

_KNOWN = "SELECT 1 FROM events WHERE source = ?"

_COUNTED = {"unsubscribed": "unsubscribes_total", "clicked": "clicks_total", "opened": "opens_total"}
"""Figures of events that may be told of again and again: they count with the event."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An event with the number and host that the journal gave it."""

    seq: int
    host: str
    event: Event


def encode(event: Event, host: str) -> Row:
    """Done before anybody's turn to write: it costs time, and what cannot be written fails here, alone."""
    name = kind(event)
    data = _json({key: getattr(event, key) for key in _REST[name]})
    texts = [getattr(event, column, "") for column in _TEXTS]
    if not "".join(texts).isascii():  # SQLite takes no half of a surrogate pair
        texts = [text.encode("utf-8", "backslashreplace").decode() for text in texts]
    return host, name, texts[0], event.time, *texts[1:], data


def checked(plain: Sequence[Any]) -> Row:
    """A row from the JSON of one; ValueError or TypeError for what no statement takes."""
    host, name, found, time, *others = plain
    "".join([host, name, found, *others]).encode()
    if len(plain) != _WIDTH or type(time) not in (int, float):
        raise ValueError("no row of the journal")
    return tuple(plain)


def source(row: Row) -> str:
    found: str = row[2]
    return found


def login(row: Row) -> str:
    found: str = row[6]
    return found


def counted(new: Iterable[Row]) -> Counter[Figure]:
    """What new events add to the figures by themselves."""
    return Counter(_figure(row) for row in {source(row): row for row in new}.values() if row[1] in _COUNTED)


def _figure(row: Row) -> Figure:
    by = json.loads(row[-1]).get("by")
    return _COUNTED[row[1]], () if by is None else (by,)


def counts_up(row: Row) -> bool:
    return bool(row[1] == "refused")


def decode(row: Row) -> Entry:
    """The opposite of `encode`, from a row of SELECT, as far as this version knows what it says."""
    seq, host, name, *columns, data = row
    cls = KINDS[name]
    known = {field.name for field in fields(cls)}
    values: dict[str, Any] = {key: value for key, value in zip(_COLUMNS, columns, strict=True) if key in known}
    said = {key: value for key, value in json.loads(data).items() if key in known}
    values |= {key: tuple(value) if isinstance(value, list) else value for key, value in said.items()}
    return Entry(seq, host, cls(**values))


def readable(found: Iterable[Row]) -> list[Entry]:
    """Without what the disk gave back otherwise, or a newer version's: who follows would stand before it for ever."""
    entries = []
    for row in found:
        try:
            entries.append(decode(row))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            log.error("event %s of %s cannot be read and is left out, %r: %r", row[0], row[1], row[2], error)
    return entries


def add(link: Connection, row: Row) -> bool:
    """Insert one; false when the journal holds it already."""
    return link.execute(_INSERT, row).rowcount > 0


def take_back(link: Connection, row: Row) -> None:
    """One that `add` inserted in the same transaction. What counts up stays: it is charged to nobody."""
    link.execute("DELETE FROM events WHERE source = ? AND kind != 'refused'", (source(row),))


def insert(link: Connection, rows: Iterable[Row]) -> None:
    link.executemany(_INSERT, rows)


def known(link: Connection, sources: Collection[str]) -> set[str]:
    """Those that the journal holds already."""
    return {source for source in sources if link.execute(_KNOWN, (source,)).fetchone()}


def has(database: Database, source: str) -> bool:
    """As `known`, without a transaction."""
    return bool(database.query(_KNOWN, (source,)))
