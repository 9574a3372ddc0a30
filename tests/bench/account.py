"""What postmeter's journal and ledger say of a run, against what was sent: a fast milter that forgets is no milter.

Knows nothing of how mail was sent. It reads as the product's own commands do.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from postmeter.mail.draft import Figure
from postmeter.store import database, ledger, totals
from postmeter.store.database import Database
from tests.bench.rows import Row

ONE_EACH = {"recipients in 86400 s": 1, "messages in 3600 s": 1}
"""What a message of ours puts on each account of rows.LIMITS."""
_PASSED = ("messages_total", ("passed",))
_BOUND = 10.0  # seconds until counts that are written once a second must be there


@dataclass(frozen=True, slots=True)
class Account:
    """`submitted` and `refused` are rows of the journal; `ledger` is what is used, by unit and window.

    `passed` is mail that was none of ours.
    """

    submitted: int
    refused: int
    signatures: int
    links: int
    passed: int = 0
    ledger: Mapping[str, int] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """All of it, each count under a name that a person understands."""
        return {
            "messages in the journal": self.submitted,
            "refusals in the journal": self.refused,
            "signatures": self.signatures,
            "links": self.links,
            "not ours": self.passed,
            **{f"ledger, {name}": used for name, used in self.ledger.items()},
        }


def read(journal: Path) -> Account:
    """From the database while the milter still runs."""
    store = database.open(journal, readonly=True)
    try:
        figures = totals.read(store)
        return Account(
            submitted=_rows(store, "submitted"),
            refused=_rows(store, "refused"),
            signatures=_sum(figures, "dkim_signatures_total"),
            links=_sum(figures, "links_rewritten_total"),
            passed=sum(each for (name, labels), each in figures.items() if (name, labels[1:]) == _PASSED),
            ledger={f"{row.unit} in {row.window} s": row.used for row in ledger.usage(store, time.time())},
        )
    finally:
        store.close()


def expected(*, messages: int, links: int, limits: Mapping[str, int]) -> Account:
    """The account after so many messages with so many links; `limits` as in the ledger, to be used by each."""
    return Account(messages, 0, messages, links, ledger={name: messages * amount for name, amount in limits.items()})


def wanted(row: Row, sent: Mapping[str, int], links: Mapping[str, int]) -> Account:
    """Of a row of ours to which so many messages of each kind, with so many links, have been sent."""
    messages = sum(sent.values())
    if row.foreign:
        return Account(0, 0, 0, 0, passed=messages)
    return expected(messages=messages, links=sum(sent[mail] * links[mail] for mail in sent), limits=ONE_EACH)


def settled(journal: Path, wanted: Account) -> Account:
    """As it is when it is as wanted, or when the bound is over: what only counts is written about once a second."""
    until = time.monotonic() + _BOUND
    while (found := read(journal)) != wanted and time.monotonic() < until:
        time.sleep(0.1)
    return found


def differences(found: Account, wanted: Account) -> list[str]:
    """What is not as it should be, in words."""
    has, wants = found.counts(), wanted.counts()
    names = [name for name in {**wants, **has} if has.get(name) != wants.get(name)]
    return [f"{name} is {has.get(name)}, not {wants.get(name)}" for name in names]


def _rows(store: Database, kind: str) -> int:
    return int(store.query("SELECT count(*) FROM events WHERE kind = ?", (kind,))[0][0])


def _sum(figures: Mapping[Figure, int], name: str) -> int:
    return sum(value for (known, _), value in figures.items() if known == name)
