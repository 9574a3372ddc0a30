"""The wiring of what forgets: the chore of `books`, and who has to have read an event before it may be forgotten.

Decides nothing about what is old.
"""

from __future__ import annotations

from collections.abc import Callable

from postmeter.books.daemon import Chore
from postmeter.books.retention import EVERY, Ages, Retention
from postmeter.config.schema import Config
from postmeter.store import following, profiles, unshipped
from postmeter.store.journal import Journal


def chores(config: Config, opened: Callable[[], Journal]) -> list[Chore]:
    """`opened` gives the journal when it is needed; it may not be there yet."""
    made: list[Retention] = []

    def work() -> None:
        if not made:
            journal = opened()
            made.append(Retention(journal.database, _ages(config), read=lambda: read(config, journal)))
        made[0].work()

    return [Chore("retention", work, EVERY)]


def read(config: Config, journal: Journal) -> int:
    """Up to where everybody has read the journal who needs events as they were: who counts, ships and learns."""
    positions = [int(journal.position(following.POSITION) or 0)]
    if config.quota.brake.mode != "off":
        positions.append(int(journal.position(profiles.POSITION) or 0))
    if config.journal.ship_to is not None:
        state = unshipped.read(journal.database)
        positions.append(state.shipped if state else 0)
    return min(positions)


def _ages(config: Config) -> Ages:
    tried = max((hook.retry_for for hook in config.webhooks), default=0.0)
    return Ages(events=max(config.journal.keep, tried), addresses=max(config.journal.keep_addresses, tried))
