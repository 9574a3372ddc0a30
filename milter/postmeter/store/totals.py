"""Totals: what every metric adds up to since the first day, written in the transaction of the events they count."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from itertools import chain
from sqlite3 import Connection

from postmeter.mail.draft import Figure
from postmeter.store.database import Database

_MOST = 30  # in one statement


def add(link: Connection, figures: Mapping[Figure, int]) -> None:
    """Many by one statement: at each, whoever waits for this transaction waits for the interpreter too."""
    rows = [(name, _text(labels), value) for (name, labels), value in figures.items() if value]
    for first in range(0, len(rows), _MOST):
        some = rows[first : first + _MOST]
        link.execute(_adding(len(some)), list(chain.from_iterable(some)))


def read(database: Database) -> dict[Figure, int]:
    rows = database.query("SELECT name, labels, value FROM totals")
    return {(name, tuple(json.loads(labels))): value for name, labels, value in rows}


@lru_cache(maxsize=_MOST)
def _adding(count: int) -> str:
    places = ", ".join(["(?, ?, ?)"] * count)
    return (
        f"INSERT INTO totals (name, labels, value) VALUES {places} "
        "ON CONFLICT DO UPDATE SET value = value + excluded.value"
    )


@lru_cache(maxsize=4096)
def _text(labels: tuple[str, ...]) -> str:
    return json.dumps(labels, separators=(",", ":"))
