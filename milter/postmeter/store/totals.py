"""Totals: what every metric adds up to since the first day, written in the transaction of the events they count."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from sqlite3 import Connection

from postmeter.mail.draft import Figure
from postmeter.store.database import Database

_ADD = """
    INSERT INTO totals (name, labels, value) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value
"""


def add(link: Connection, figures: Mapping[Figure, int]) -> None:
    link.executemany(_ADD, [(name, _text(labels), value) for (name, labels), value in figures.items() if value])


def read(database: Database) -> dict[Figure, int]:
    rows = database.query("SELECT name, labels, value FROM totals")
    return {(name, tuple(json.loads(labels))): value for name, labels, value in rows}


@lru_cache(maxsize=4096)
def _text(labels: tuple[str, ...]) -> str:
    return json.dumps(labels, separators=(",", ":"))
