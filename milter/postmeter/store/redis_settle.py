"""Settling with quotas in Redis or Valkey: one script charges every limit, then the local journal takes the message.

The two cannot be one transaction. A charge whose message the journal and its spool both refuse is taken back; a process
killed in between has charged a message that nobody got. What happens while the store is gone is for callers to decide
(`quota.on_store_down`): nothing was charged then, and a message may be recorded without charges.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Lock
from time import monotonic

from postmeter.events import Event, Released, Submitted
from postmeter.mail.draft import Figure
from postmeter.store import warnings
from postmeter.store.accounts import DONE, Account, Charge, Held, Hold, Overdrawn, Settled, StoreDownError
from postmeter.store.database import StoreError
from postmeter.store.folio import MICROSECONDS
from postmeter.store.redis_ledger import RedisLedger, Verdict
from postmeter.store.settle import Settler

log = logging.getLogger(__name__)

REMEMBERED = 1.0
"""Seconds for which a refusal is known without asking."""

_MOST = 1000  # refusals remembered; the oldest goes


class RemoteSettler:
    """`Accounts` in Redis, with the journal of this host. One a process, made after the fork, called by any thread."""

    def __init__(self, ledger: RedisLedger, journal: Settler) -> None:
        self._ledger, self._journal = ledger, journal
        self._memory = Memory()

    def open(self) -> None:
        """The journal must be there; a store that is not is met by `on_store_down`."""
        self._journal.open()

    def glance(self, charges: Sequence[Charge], now: float) -> Overdrawn | None:
        """From memory: no round trip for mail that is not at its end."""
        return self._memory.find(charges)

    def check(self, charges: Sequence[Charge], now: float) -> Overdrawn | None:
        return self._ledger.check(charges, now) if charges else None

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
        """As `Accounts.settle`; StoreDownError when nobody can tell whether there is room: then nothing was done.

        A Submitted is not looked for in the journal: its source has the microsecond in it, and is never met twice.
        """
        known = charges and event and not isinstance(event, Submitted) and self._journal.knows(event)
        if hold is not None or known:
            return self._journal.settle((), event, figures, now, hold=hold, besides=besides)

        def write(at: int) -> None:
            if isinstance(event, Submitted) and "charged_at" in event.facts:
                event.facts["charged_at"] = at / MICROSECONDS  # by the clock of who charged
            self._journal.settle((), event, figures, now, besides=besides)

        return self._charge(charges, write, now, login=getattr(event, "login", ""))

    def release(self, message: Held, event: Released, now: float) -> Settled:
        """As `Accounts.release`; StoreDownError as for `settle`: the message stays held."""
        goes = event.action == "released" and not self._journal.knows(event)
        charges = message.charges if goes else ()

        def write(at: int) -> None:
            self._journal.release(replace(message, charges=()), event, now)

        return self._charge(charges, write, now, login=event.login)

    def add(self, figures: Mapping[Figure, int]) -> None:
        self._journal.add(figures)

    def close(self) -> None:
        self._ledger.close()
        self._journal.close()

    def _charge(self, charges: Sequence[Charge], write: Callable[[int], None], now: float, *, login: str) -> Settled:
        """What is charged is also written, or else given back. `write` is told when, by the store's clock."""
        due = [charge for charge in charges if charge.amount]
        if not due:
            write(int(now * MICROSECONDS))
            return DONE
        verdict = self._ledger.settle(due, now)
        if verdict.settled.refused is not None:
            self._memory.keep(verdict.settled.refused, one_at=verdict.one_at, at=verdict.at / MICROSECONDS)
        else:
            self._write(due, write, verdict, now=now)
        self._tell(due, verdict, login=login)
        return verdict.settled

    def _write(self, charges: Sequence[Charge], write: Callable[[int], None], verdict: Verdict, *, now: float) -> None:
        try:
            write(verdict.at)
        except StoreError:
            with suppress(StoreDownError):
                self._ledger.give_back(charges, verdict, now)
            raise

    def _tell(self, charges: Sequence[Charge], verdict: Verdict, *, login: str) -> None:
        """Warnings are facts of their own, seldom, and none is worth a message."""
        for index, percent, used in verdict.told:
            at = verdict.at / MICROSECONDS
            event = warnings.warned(charges[index], percent=percent, used=used, login=login, now=at)
            try:
                self._journal.settle((), event, {}, at)
            except StoreError as error:
                log.error("a warning is lost: %s: %s", event.source, error)


@dataclass(frozen=True, slots=True)
class _Full:
    """`one_at`: when one more fits. `until` is by our monotonic clock."""

    used: int
    limit: int
    one_at: float
    until: float


class Memory:
    """Accounts that were full a moment ago: until one more fits, or a second has passed."""

    def __init__(self) -> None:
        self._full: OrderedDict[Account, _Full] = OrderedDict()
        self._mutex = Lock()

    def keep(self, over: Overdrawn, *, one_at: float, at: float) -> None:
        """An account that has room for less than this message is not full."""
        charge = over.charge
        if over.used < charge.limit:
            return
        full = _Full(over.used, charge.limit, one_at, monotonic() + min(REMEMBERED, one_at - at))
        with self._mutex:
            self._full[charge.account] = full
            self._full.move_to_end(charge.account)
            if len(self._full) > _MOST:
                self._full.popitem(last=False)

    def find(self, charges: Sequence[Charge]) -> Overdrawn | None:
        """The first charge of which it is known that it has no room, not even for one, and when it has for that."""
        for charge in charges:
            full = self._full.get(charge.account) if charge.enforce and charge.amount else None
            if full and full.limit == charge.limit and monotonic() < full.until:
                return Overdrawn(charge=charge, used=full.used, room_at=full.one_at)
        return None
