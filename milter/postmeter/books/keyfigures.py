"""The figures about DKIM keys: which of them DNS shows, domains by name as far as they are shown by name.

Knows nothing of pages. A key that nobody could tell of yet is not shown, rather than shown as wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from postmeter.books.families import OTHER
from postmeter.mail.draft import Figure
from postmeter.store import keychecks
from postmeter.store.database import Database

NAME = "dkim_key_ok"


def of_keys(database: Database, domains: Sequence[str]) -> dict[Figure, float]:
    """All other domains are one series: 0 when one of them has a key that DNS does not show."""
    shown = keychecks.signing(database, domains)
    figures: dict[Figure, float] = {(NAME, (domain, selector)): float(ok) for (domain, selector), ok in shown.items()}
    others = keychecks.others(database, domains)
    if others is not None:
        figures[NAME, (OTHER, OTHER)] = float(others)
    oldest = keychecks.oldest(database)
    if oldest is not None:
        figures["dkim_checked_timestamp_seconds", ()] = oldest
    return figures
