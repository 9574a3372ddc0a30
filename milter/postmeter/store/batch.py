"""What waiting threads want settled, written together: each decided on its own, all in one transaction.

Knows nothing of threads, locks or failures of the disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from sqlite3 import Connection

from postmeter.mail.draft import Figure
from postmeter.store import held, ledger, rows, totals
from postmeter.store.accounts import DONE, Charge, Held, Hold, Settled
from postmeter.store.database import Row
from postmeter.store.ledger import Ledger

FULL = Settled(full=True)

_UNCHARGED: Mapping[Figure, int] = {("quota_store_errors_total", ()): 1}


@dataclass(slots=True)
class Job:
    """One call of `settle`. `row` is its event as the journal keeps it; `outcome` is set by `write`."""

    charges: tuple[Charge, ...]
    row: Row | None
    figures: Mapping[Figure, int]
    now: float
    hold: Hold | None = None
    besides: tuple[Row, ...] = ()
    """Other events, which are recorded with it."""
    recipients: int = 0
    """Of the message that is held."""
    held: Held | None = None
    """The message that leaves the hold queue: let go if it `goes`."""
    goes: bool = False
    outcome: Settled = DONE
    error: BaseException | None = None
    done: bool = False


@dataclass(slots=True)
class _Page:
    """What a transaction will have written."""

    link: Connection
    host: str
    ledger: Ledger
    rows: list[Row] = field(default_factory=list)
    figures: dict[Figure, int] = field(default_factory=dict)

    def add(self, figures: Mapping[Figure, int]) -> None:
        for figure, count in figures.items():
            self.figures[figure] = self.figures.get(figure, 0) + count


def write(link: Connection, jobs: Sequence[Job], figures: Mapping[Figure, int], *, host: str) -> Set[str]:
    """Decide every job in turn and write what came of it, with `figures` besides. The cost does not grow with keys.

    Returns the names of accounts that cannot be read: a job with a limit on one of them gets an `error`, alone.
    """
    page = _Page(link, host, ledger.load(link, (charge for job in jobs for charge in job.charges)))
    if figures:
        page.add(figures)
    for job in jobs:
        _decide(job, page)
    page.ledger.save(link)
    if page.rows:
        rows.insert(link, page.rows)
    if page.figures:
        totals.add(link, page.figures)
    return page.ledger.unreadable


def _decide(job: Job, page: _Page) -> None:
    """A job whose event is known was settled before; to settle it again must not charge it again.

    To write the event is to ask whether it is known, in one statement instead of two.
    """
    if page.ledger.unreadable and (dark := page.ledger.dark(job.charges)):
        job.error = dark
        return
    if job.row is None or rows.add(page.link, job.row):
        job.outcome = _hold(job, job.hold, page) if job.hold else _charge(job, page)
        if job.outcome.refused or job.outcome.full:
            if job.row:
                rows.take_back(page.link, job.row)
            return
        page.add(job.figures)
        page.rows += job.besides
    if job.held:
        held.leaves(page.link, job.held, goes=job.goes)


def _hold(job: Job, hold: Hold, page: _Page) -> Settled:
    if hold.most and held.count(page.link, hold.sender) >= hold.most:
        return FULL
    held.add(page.link, hold, time=job.now, recipients=job.recipients)
    return DONE


def _charge(job: Job, page: _Page) -> Settled:
    """What is to be told of limits is recorded whatever becomes of the message."""
    if not job.charges:
        return DONE
    outcome, told = page.ledger.settle(job.charges, job.now, login=rows.login(job.row) if job.row else "")
    page.rows += [rows.encode(event, page.host) for event in told]
    if page.ledger.unreadable and any(charge.name in page.ledger.unreadable for charge in job.charges):
        page.add(_UNCHARGED)
    return outcome
