"""The wiring of what follows the journal: the chore of `books` that counts fates, and what the page shows of them.

Decides nothing about figures.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from postmeter.books.daemon import Chore
from postmeter.books.following import EVERY, Follower
from postmeter.books.host import Look
from postmeter.books.rates import Rates
from postmeter.config.schema import Config
from postmeter.delivery import providers
from postmeter.store import lessons
from postmeter.store.journal import Journal
from postmeter.store.lessons import Rules


def chores(config: Config, opened: Callable[[], Journal]) -> list[Chore]:
    """`opened` gives the journal when it is needed; it may not be there yet."""
    made: list[Follower] = []

    def work() -> bool:
        if not made:
            rules = Rules(config.suppression, host=config.journal.host or socket.gethostname())
            learn = partial(lessons.learn, rules=rules)
            made.append(Follower(opened(), domains=[entry.domain for entry in config.dkim.sign], learn=learn))
        return made[0].work()

    return [Chore("following", work, EVERY)]


def names(config: Config) -> tuple[str, ...]:
    """The providers that there are to count; those of a list that cannot be read are counted as they come."""
    where = config.delivery.providers
    try:
        return providers.read(where if isinstance(where, Path) else None).names
    except (OSError, ValueError):
        return ()


def looks(config: Config) -> list[Look]:
    domains = tuple(dict.fromkeys(entry.domain for entry in config.dkim.sign))[: config.metrics.domains]
    return [Rates(domains=domains, logins=config.metrics.per_login)]
