"""Lets held mail go: the oldest of each sender first, each charged before it leaves Postfix's hold queue.

Whatever happens in between, nothing is lost and nothing charged twice: a message is charged and marked as going in one,
and only then postsuper(1) is asked; what a killed run left marked is let go by the next one, free. Knows nothing of how
mail came to be held. Postfix's side is `postsuper -H` in postsuper(1).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from postmeter.config.amounts import limits
from postmeter.config.problem import MistakeError
from postmeter.events import Released
from postmeter.runtime.mailqueue import Queued
from postmeter.store import held, orders
from postmeter.store.accounts import Accounts, Charge, Held, UnreadableError, storable
from postmeter.store.database import Database

log = logging.getLogger(__name__)

LATE = 900.0
"""Seconds after which a held message that Postfix's queue does not show is gone, and not on its way into it: other
milters may take 300 s each behind us (postconf(5): milter_content_timeout)."""

_SLICE = 100  # messages for one call of postsuper, so that a killed run leaves few of them marked


@dataclass(slots=True)
class Outcome:
    """How many messages were `released` or `deleted`, `wait` for room, or were `gone` without us."""

    released: int = 0
    deleted: int = 0
    wait: int = 0
    gone: int = 0

    def any(self) -> bool:
        return bool(self.released or self.deleted or self.wait or self.gone)


class Queue(Protocol):
    """What is asked of Postfix (`runtime.mailqueue`)."""

    def look(self) -> list[Queued]: ...

    def release(self, ids: Iterable[str]) -> None: ...

    def delete(self, ids: Iterable[str]) -> None: ...


class Releaser:
    """`queue` is Postfix's, of this host. `stops` are the orders under which nothing of a login leaves by itself.

    The clock is asked at each charge: Postfix may take minutes over a long queue, and a charge dated back by as much
    would look like a clock stepped back to accounts charged since.
    """

    def __init__(
        self,
        database: Database,
        accounts: Accounts,
        queue: Queue,
        *,
        clock: Callable[[], float],
        stops: Collection[orders.Kind] = ("freeze", "brake"),
    ) -> None:
        self._database, self._accounts, self._queue = database, accounts, queue
        self._clock, self._stops = clock, stops
        self._orders: dict[str, str] = {}
        self._outcome = Outcome()

    def due(self) -> Outcome:
        """What there is room for. A sender's later mail waits for its oldest.

        What the brake holds, or of whom a person or the brake has stopped since, waits for a person.
        """
        rows = [*held.going(self._database), *held.waiting(self._database)]
        if not rows:
            return self._outcome
        standing = orders.read(self._database, self._clock())
        self._orders = {order.login: order.value for order in standing if order.kind == "limits"}
        stopped = {order.login for order in standing if order.kind in self._stops}
        present = [row for row in self._present(rows) if storable(row.sender) not in stopped]
        self._let_go([row for row in present if row.going])
        self._charge_due([row for row in present if not row.going and row.reason == "quota"])
        return self._outcome

    def _charge_due(self, rows: Sequence[Held]) -> None:
        """What is charged is let go, also when the store fails at the next one."""
        full: set[str] = set()
        going: list[Held] = []
        try:
            for row in rows:
                if row.sender not in full and self._has_room(row):
                    going.append(row)
                else:
                    full.add(row.sender)
                    self._outcome.wait += 1
                if len(going) == _SLICE:
                    self._let_go(going)
                    going = []
        finally:
            self._let_go(going)

    def _has_room(self, row: Held) -> bool:
        """Whose account cannot be read waits, alone, until somebody has mended it."""
        try:
            return self._charge(row, by="due")
        except UnreadableError:
            return False

    def by_person(self, name: str, *, delete: bool = False) -> Outcome:
        """All that is held for a sender, whatever its limits say; deleted mail is not charged."""
        started = [row for row in held.going(self._database) if row.sender == storable(name)]
        rows = [*started, *held.waiting(self._database, sender=name)]
        present = self._present(rows) if rows else []
        for start in range(0, len(present), _SLICE):
            part = present[start : start + _SLICE]
            if delete:
                self._delete(part)
            else:
                for row in part:
                    unlimited = tuple(replace(charge, enforce=False) for charge in row.charges)
                    self._charge(replace(row, charges=unlimited), by="person")
                self._let_go(part)
        return self._outcome

    def _present(self, rows: Sequence[Held]) -> list[Held]:
        """Those that still lie in the hold queue; what is not there any more is struck off, and told of."""
        queue, now = {found.queue_id: found for found in self._queue.look()}, self._clock()
        present = []
        for row in rows:
            found = queue.get(row.queue_id)
            if found is not None and found.queue == "hold" and found.came(row.time):
                present.append(row)
            elif row.going or found is not None or row.time < now - LATE:
                self._strike_off(row, found)
        return present

    def _strike_off(self, row: Held, found: Queued | None) -> None:
        """Somebody else let it go or deleted it, or a run of ours was killed just before it could strike it off."""
        if row.going:
            held.remove(self._database, row)
            return
        log.info("%s: not in the hold queue any more%s", row.queue_id, f", but in {found.queue}" if found else "")
        self._accounts.release(row, self._event(row, "gone", by="person"), self._clock())
        self._outcome.gone += 1

    def _charge(self, row: Held, *, by: str) -> bool:
        """Whether there is room; if so it is charged and going. One that was going already is not charged again."""
        charged = replace(row, charges=under(row.charges, self._orders.get(row.sender)))
        return self._accounts.release(charged, self._event(row, "released", by=by), self._clock()).refused is None

    def _let_go(self, rows: Sequence[Held]) -> None:
        self._queue.release(row.queue_id for row in rows)
        for row in rows:
            held.remove(self._database, row)
        self._outcome.released += len(rows)

    def _delete(self, rows: Sequence[Held]) -> None:
        self._queue.delete(row.queue_id for row in rows)
        for row in rows:
            self._accounts.release(row, self._event(row, "deleted", by="person"), self._clock())
        self._outcome.deleted += len(rows)

    def _event(self, row: Held, action: str, *, by: str) -> Released:
        return Released(
            source=f"released:{row.queue_id}:{row.time:.6f}",
            time=self._clock(),
            queue_id=row.queue_id,
            login=row.login,
            sender=row.sender,
            action=action,
            by=by,
        )


def under(charges: tuple[Charge, ...], order: str | None) -> tuple[Charge, ...]:
    """With the limits that a person has ordered for the sender; what those do not limit is charged all the same."""
    try:
        known = None if order is None else {(limit.unit, limit.window): limit for limit in limits(order)}
    except MistakeError:  # a later version's
        known = None
    if known is None:
        return charges
    found = []
    for charge in charges:
        limit = known.get((charge.unit, charge.window))
        if charge.level != "sender":
            found.append(charge)
        elif limit is None:
            found.append(replace(charge, enforce=False))
        else:
            found.append(replace(charge, limit=limit.count, text=limit.text))
    return tuple(found)
