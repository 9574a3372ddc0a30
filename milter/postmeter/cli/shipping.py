"""The wiring of what speaks with the database of all hosts: the thread of `books` that ships to it, and its lag.

psycopg is loaded only where the configuration names such a database. Decides nothing about what is shipped.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Mapping
from functools import partial

from postmeter.books.apart import Apart, Work
from postmeter.books.families import Gauges
from postmeter.books.host import Look
from postmeter.config.schema import Config
from postmeter.store import unshipped
from postmeter.store.database import Database
from postmeter.store.journal import Journal

_NAME = "shipping"


def threads(
    config: Config,
    *,
    host: str,
    opened: Callable[[], Journal],
    failed: Callable[[str], None],
    old: Mapping[str, Apart],
) -> dict[str, Apart]:
    """None where no database is named."""
    if config.journal.ship_to is None:
        return {}
    make = partial(_shipper, config.journal.ship_to, config, host, opened)
    return {_NAME: Apart(_NAME, make, failed=failed, after=old.get(_NAME))}


def tidy(config: Config, journal: Journal) -> None:
    """Where no database is named any more nobody has to put down what changes."""
    if config.journal.ship_to is None:
        unshipped.end(journal.database)


def looks(config: Config) -> list[Look]:
    return [_lag] if config.journal.ship_to is not None else []


def _lag(database: Database) -> Gauges:
    return {("ship_lag_events", ()): float(unshipped.lag(database))}


def _shipper(url: str, config: Config, host: str, opened: Callable[[], Journal]) -> Work:
    from postmeter.books.shipping import Shipper
    from postmeter.store.postgres import Postgres

    return Shipper(
        opened(),
        Postgres(url, password_file=config.journal.ship_password_file),
        host=host,
        keep=config.journal.keep_addresses,
        instance=partial(secrets.token_hex, 16),
        chance=random.random,
    )
