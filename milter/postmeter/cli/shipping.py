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
from postmeter.books.returns import AWAY, KEPT, NEW, place
from postmeter.config.schema import Config
from postmeter.feedback.arrivals import Arrivals
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
    """Where no database is named any more nobody has to put down what changes, and no mail waits for other hosts."""
    if config.journal.ship_to is None:
        unshipped.end(journal.database)
        away, new, _ = _returns(config)
        for name in away.names():
            away.move(name, new)


def looks(config: Config) -> list[Look]:
    return [_lag] if config.journal.ship_to is not None else []


def _lag(database: Database) -> Gauges:
    return {("ship_lag_events", ()): float(unshipped.lag(database))}


def _returns(config: Config) -> tuple[Arrivals, Arrivals, Arrivals]:
    state = config.journal.path.parent
    return Arrivals(place(state, AWAY)), Arrivals(place(state, NEW)), Arrivals(place(state, KEPT))


def _shipper(url: str, config: Config, host: str, opened: Callable[[], Journal]) -> Work:
    from postmeter.books.elsewhere import Elsewhere
    from postmeter.books.shipping import Shipper
    from postmeter.store.postgres import Postgres

    journal = opened()
    away, new, kept = _returns(config)
    return Shipper(
        journal,
        Postgres(url, password_file=config.journal.ship_password_file),
        host=host,
        keep=config.journal.keep_addresses,
        instance=partial(secrets.token_hex, 16),
        chance=random.random,
        besides=[Elsewhere(journal, away=away, new=new, kept=kept)],
    )
