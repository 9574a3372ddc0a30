"""Settling: charge every limit and record the message with its totals, all in one transaction or not at all.

Threads that wait for each other are committed together by the first of them; processes take turns. When the journal
cannot be written the event goes to the emergency spool; only when that fails too is there a `StoreError`. Knows
nothing of replies: what a failure means to a client is the caller's to say (`journal.on_error`).
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path
from time import monotonic, time

from postmeter.events import Event, Released, Submitted
from postmeter.mail.draft import Figure
from postmeter.store import batch, held, ledger, rows
from postmeter.store.accounts import DONE, Charge, Held, Hold, Overdrawn, Settled, UnreadableError, unreadable
from postmeter.store.batch import FULL, Job
from postmeter.store.database import PATIENCE, Database, StoreError
from postmeter.store.emergency import Spool
from postmeter.store.plenty import Plenty
from postmeter.store.turn import deaf

log = logging.getLogger(__name__)

TICK = 1.0
"""Seconds that a figure of `add` may wait, and what was committed for the disk, between two looks into the emergency
spool, and after a failure until anybody waits for the database again."""

_TELL = 60.0  # seconds between two lines in the log about the same trouble


class Settler:
    """`Accounts` in SQLite. One a process, made after the fork, called from any thread.

    One of a host `syncs`: where `sync` is normal, it gives what anybody committed to the disk, at each tick.
    """

    def __init__(
        self,
        path: Path,
        *,
        sync: str = "normal",
        host: str = "",
        patience: float = PATIENCE,
        tick: float = TICK,
        syncs: bool = False,
    ) -> None:
        self._writer = Database(path, sync=sync, readonly=False, patience=patience)
        self._reader = Database(path, sync=sync, readonly=True, patience=patience)
        self._plenty = Plenty()
        self._tick_every = tick
        self._syncs = syncs and sync == "normal"
        self._spool = Spool(path.parent / "spool" / "events", durable=sync == "full")
        self._host = host
        self._mutex = threading.Lock()  # over _waiting and _added
        self._lead = threading.Lock()  # who holds it commits what waits
        self._waiting: list[Job] = []
        self._added: Counter[Figure] = Counter()
        self._closing = threading.Event()
        self._ticker: threading.Thread | None = None
        self._rests_until = self._told_at = float("-inf")
        self._told_of: dict[str, float] = {}

    def open(self) -> None:
        """Make sure the database is there and can be written: a daemon does so before it takes mail."""
        with self._lead, self._writer.transaction():
            pass
        self._start_ticker()

    def glance(self, charges: Sequence[Charge], now: float) -> Overdrawn | None:
        """As `check`, but for accounts that had plenty of room a moment ago (`plenty`), and for one that is full and
        nobody was told of: a limit was lowered. `settle` refuses it then, and tells."""
        if self._plenty.of(charges):
            return None
        found = ledger.peek(self._reader, charges)
        if found.ahead(charges, now):
            return None
        over = found.overdrawn(charges, now)
        if over is None:
            self._plenty.keep([(charge, found.used(charge, now)) for charge in charges])
        return over if over is None or found.told(over.charge, now) else None

    def check(self, charges: Sequence[Charge], now: float) -> Overdrawn | None:
        """The charge without room that frees last, or None. Reads only."""
        if not charges:
            return None
        found = ledger.peek(self._reader, charges)
        return None if found.ahead(charges, now) else found.overdrawn(charges, now)

    def settle(
        self,
        charges: Sequence[Charge],
        event: Event | None,
        figures: Mapping[Figure, int],
        now: float,
        *,
        hold: Hold | None = None,
        besides: Sequence[Event] = (),
    ) -> Settled:
        """Charge all and record `event` with `figures`, or, without room for one charge, do nothing and say which.

        An event whose `source` the journal knows already was settled before, and is not charged again.
        """
        row = rows.encode(event, self._host) if event else None
        recipients = len(event.recipients) if hold and isinstance(event, Submitted) else 0
        more = tuple(rows.encode(one, self._host) for one in besides)
        job = Job(tuple(charges), row, figures, now, hold=hold, recipients=recipients, besides=more)
        error = self._settle(job)
        if isinstance(error, UnreadableError):
            raise error
        if error is not None:
            self._keep(job, error)
        if job.outcome.refused is not None:
            self._plenty.forget(charges)
        return job.outcome

    def release(self, message: Held, event: Released, now: float) -> Settled:
        """Charge a message of the hold queue, mark it as going and record that, all together or not at all."""
        goes = event.action == "released"
        charges = message.charges if goes else ()
        job = Job(charges, rows.encode(event, self._host), {}, now, held=message, goes=goes)
        error = self._settle(job)
        if error is not None:
            raise error
        return job.outcome

    def _settle(self, job: Job) -> StoreError | None:
        """With whoever else waits; the answer is what keeps the journal from being written."""
        with self._mutex:
            self._waiting.append(job)
        with self._lead:
            if not job.done:
                self._commit()
        if job.error is None or isinstance(job.error, StoreError):
            return job.error
        raise job.error

    def knows(self, event: Event) -> bool:
        """Whether the journal has that event already, as far as it can be read just now."""
        try:
            return rows.has(self._reader, event.source)
        except StoreError:
            return False

    def add(self, figures: Mapping[Figure, int]) -> None:
        """Add to the totals with the next transaction, or a second from now at most. Costs nothing, never fails."""
        with self._mutex:
            self._added.update(figures)
        self._start_ticker()

    def close(self) -> None:
        """Write what `add` still holds, and let go of everything. A figure that cannot be written is spooled."""
        self._closing.set()
        if self._ticker is not None:
            self._ticker.join(2 * PATIENCE)
        self._rests_until = float("-inf")
        self._flush()
        with self._mutex:
            left = Job((), None, self._added, time())
            self._added = Counter()
        with self._lead:
            self._writer.close()
        self._reader.close()
        if left.figures:
            self._keep(left, StoreError(self._writer.path, "the last figures cannot be written"))

    def _commit(self) -> None:
        """As leader: everything that waits by the time it is our turn. Never raises for another thread's job."""
        jobs: list[Job] = []
        added: Mapping[Figure, int] = {}
        dark: Set[str] = frozenset()
        try:
            self._look_rested()
            with self._writer.transaction() as link:
                jobs, added = self._collect()
                dark = batch.write(link, jobs, added, host=self._host)
        except BaseException as error:  # boundary: whoever waits must learn that nothing was written, whatever failed
            more, _ = self._collect(figures=False)
            jobs += more
            self._failed(jobs, added, error)
            if not isinstance(error, Exception):
                raise
        finally:
            for job in jobs:
                job.done = True
        self._tell_of(dark)

    def _collect(self, *, figures: bool = True) -> tuple[list[Job], Mapping[Figure, int]]:
        added: Mapping[Figure, int] = {}
        with self._mutex:
            jobs, self._waiting = self._waiting, []
            if figures and self._added:
                added, self._added = self._added, Counter()
        return jobs, added

    def _look_rested(self) -> None:
        if monotonic() < self._rests_until:
            raise StoreError(self._writer.path, "failed a moment ago")

    def _failed(self, jobs: Sequence[Job], added: Mapping[Figure, int], error: BaseException) -> None:
        for job in jobs:
            job.outcome, job.error = DONE, error
        with self._mutex:
            self._added.update(added)
        now = monotonic()
        if isinstance(error, StoreError) and now >= self._rests_until:
            self._rests_until = now + self._tick_every
            if now - self._told_at >= _TELL:
                self._told_at = now
                log.error("the journal cannot be written, events go to the emergency spool: %s", error)

    def _tell_of(self, names: Set[str]) -> None:
        """Of accounts that cannot be read: whoever waits has an answer, and this is for those who can mend it."""
        now = monotonic()
        for name in names:
            if now - self._told_of.get(name, float("-inf")) >= _TELL:
                self._told_of[name] = now
                log.error("%s", unreadable(name))

    def _keep(self, job: Job, error: StoreError) -> None:
        """To the emergency spool; a limit that can still be read and leaves no room is kept all the same."""
        with suppress(StoreError):
            job.outcome = self._last_word(job)
        if job.outcome.refused or job.outcome.full:
            return
        try:
            self._spool.put(job)
        except OSError as trouble:
            what = f"{error.what}; nor can the emergency spool be written: {trouble}"
            raise StoreError(self._writer.path, what) from error
        self._start_ticker()

    def _last_word(self, job: Job) -> Settled:
        if job.hold and job.hold.most and held.look(self._reader, job.hold.sender) >= job.hold.most:
            return FULL
        return Settled(refused=self.check(job.charges, job.now))

    def _start_ticker(self) -> None:
        with self._mutex:
            if self._ticker is None and not self._closing.is_set():
                self._ticker = threading.Thread(target=self._tick, name="settle", daemon=True)
                self._ticker.start()

    def _tick(self) -> None:
        deaf()
        while not self._closing.wait(self._tick_every):
            try:
                self._flush()
                while self._spool.waits() and not self._closing.is_set() and self._replay():
                    pass
                if self._syncs:
                    self._writer.sync_log()
            except (StoreError, OSError) as error:
                log.debug("another time: %s", error)
            except Exception:  # boundary: figures must go on being written, whatever one event in the spool does
                log.exception("the emergency spool cannot be replayed")

    def _flush(self) -> None:
        with self._lead:
            if self._added or self._waiting:
                self._commit()

    def _replay(self) -> bool:
        """A slice of the emergency spool into the journal; false when there was none."""
        self._look_rested()
        with self._lead, self._writer.transaction() as link:
            paths, jobs = self._spool.take(link, time())
            self._tell_of(batch.write(link, jobs, {}, host=self._host))
        self._spool.remove(paths)
        log.info("%d events came back from the emergency spool", len(jobs))
        return bool(paths)
