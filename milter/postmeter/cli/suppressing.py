"""The wiring of suppression in `books`: reports to senders in a thread of their own, and the sweep of what has ended.

Decides nothing about who is suppressed or what is told.
"""

from __future__ import annotations

import random
import re
import secrets
import time
from collections.abc import Callable, Mapping
from functools import partial

from postmeter.books import removed
from postmeter.books.apart import Apart
from postmeter.books.daemon import Chore
from postmeter.books.mailing import Mailer
from postmeter.config.schema import Config
from postmeter.store import suppression
from postmeter.store.journal import Journal

_EVERY = 600.0  # seconds between two looks for what has ended long ago
_SWEEP = 500  # rows forgotten in one transaction
_NAME = "removed"


def chores(config: Config, opened: Callable[[], Journal]) -> list[Chore]:
    """`opened` gives the journal when it is needed; it may not be there yet."""

    def sweep() -> bool:
        with opened().database.transaction() as link:
            gone = suppression.sweep(link, time.time(), within=config.suppression.within, most=_SWEEP)
        return gone >= _SWEEP

    return [Chore("suppressions", sweep, _EVERY)]


def threads(
    config: Config,
    *,
    host: str,
    opened: Callable[[], Journal],
    failed: Callable[[str], None],
    old: Mapping[str, Apart],
) -> dict[str, Apart]:
    if not _removes(config):
        return {}
    make = partial(_reports, config, host, opened, failed)
    return {_NAME: Apart(_NAME, make, failed=failed, after=old.get(_NAME))}


def tidy(config: Config, journal: Journal) -> None:
    if not _removes(config):
        removed.forget(journal)


def _removes(config: Config) -> bool:
    return not config.suppression.observe and config.mode != "observe"


def _reports(
    config: Config, host: str, opened: Callable[[], Journal], failed: Callable[[str], None]
) -> removed.Removed:
    name = host if re.fullmatch(r"[A-Za-z0-9.-]+", host) else "localhost"
    mailer = Mailer(config.notify.smtp, config.notify.from_ or f"postmaster@{name}", name)
    token = partial(secrets.token_hex, 16)
    return removed.Removed(opened(), mailer, failed=failed, token=token, chance=random.random)
