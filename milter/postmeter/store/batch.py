"""What waiting threads want settled, written together: each decided on its own, all in one transaction.

Knows nothing of threads, locks or failures of the disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from sqlite3 import Connection

from postmeter.mail.draft import Figure
from postmeter.store import ledger, rows, totals
from postmeter.store.accounts import Charge, Hold, Settled
from postmeter.store.database import Row
from postmeter.store.ledger import Ledger

DONE = Settled()


@dataclass(slots=True)
class Job:
    """One call of `settle`. `row` is its event as the journal keeps it; `outcome` is set by `write`."""

    charges: tuple[Charge, ...]
    row: Row | None
    figures: Mapping[Figure, int]
    now: float
    hold: Hold | None = None
    outcome: Settled = DONE
    error: BaseException | None = None
    done: bool = False


@dataclass(slots=True)
class _Page:
    """What a transaction will have written."""

    ledger: Ledger
    known: set[str]
    rows: list[Row] = field(default_factory=list)
    figures: Counter[Figure] = field(default_factory=Counter)


def write(link: Connection, jobs: Sequence[Job], figures: Mapping[Figure, int]) -> None:
    """Decide every job in turn and write what came of it, with `figures` besides. The cost does not grow with keys."""
    sources = {rows.source(job.row) for job in jobs if job.row and not rows.counts_up(job.row)}
    page = _Page(ledger.load(link, (charge for job in jobs for charge in job.charges)), rows.known(link, sources))
    page.figures.update(figures)
    for job in jobs:
        _decide(job, page)
    page.ledger.save(link)
    rows.insert(link, page.rows)
    totals.add(link, page.figures)


def _decide(job: Job, page: _Page) -> None:
    """A job whose event is known was settled before; to settle it again must not charge it again."""
    if job.row and rows.source(job.row) in page.known:
        return
    refused = page.ledger.overdrawn(job.charges, job.now)
    if refused is not None:
        job.outcome = Settled(refused=refused)
        return
    page.ledger.charge(job.charges, job.now)
    page.figures.update(job.figures)
    if job.row:
        page.rows.append(job.row)
        if not rows.counts_up(job.row):
            page.known.add(rows.source(job.row))
