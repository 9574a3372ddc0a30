"""Charges that must be given back: of messages that Postfix did not take after all.

In SQLite that is done in the transaction that says so. A Redis is told afterwards: what it is to be told is noted in
that transaction, and struck off when it was; told twice, it gives back once. Knows nothing of how we learned it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Any, TypeAlias

from postmeter.store import ledger
from postmeter.store.accounts import Charge
from postmeter.store.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """What the message of this reference was charged, at that time by the store's clock."""

    reference: str
    at: float
    charges: tuple[Charge, ...]


def refund(reference: str, facts: Mapping[str, Any]) -> Refund | None:
    """What a Submitted says that it was charged; None for nothing. Two limits on one account charged it once."""
    try:
        at = float(facts["charged_at"])
        charges = {
            (level, key, unit, window): Charge(
                level=level, key=key, unit=unit, window=int(window), amount=int(amount), limit=0, text="", enforce=False
            )
            for level, key, unit, window, amount in facts["charged"]
        }
    except (KeyError, TypeError, ValueError):
        return None
    return Refund(reference=reference, at=at, charges=tuple(charges.values())) if charges else None


Give: TypeAlias = Callable[[Connection, Iterable[Refund], float], None]
"""Takes charges back in a transaction, at that time."""


def give(link: Connection, refunds: Iterable[Refund], now: float) -> None:
    """Back into the ledger of this database."""
    for each in refunds:
        book = ledger.load(link, each.charges)
        book.refund(each.charges, each.at, now)
        book.save(link)


def note(link: Connection, refunds: Iterable[Refund], now: float) -> None:
    """To be given back by somebody who can ask the other store."""
    rows = [(each.reference, each.at, json.dumps([_plain(charge) for charge in each.charges])) for each in refunds]
    link.executemany("INSERT OR IGNORE INTO refunds VALUES (?, ?, ?)", rows)


def waiting(database: Database, *, most: int = 100) -> list[Refund]:
    """Those noted first."""
    rows = database.query("SELECT reference, at, charges FROM refunds ORDER BY rowid LIMIT ?", (most,))
    found = []
    for reference, at, charges in rows:
        plain = {"charged": json.loads(charges), "charged_at": at}
        if one := refund(reference, plain):
            found.append(one)
    return found


def strike(database: Database, reference: str) -> None:
    """It has been given back."""
    with database.transaction() as link:
        link.execute("DELETE FROM refunds WHERE reference = ?", (reference,))


def _plain(charge: Charge) -> list[object]:
    return [charge.level, charge.key, charge.unit, charge.window, charge.amount]
