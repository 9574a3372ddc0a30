"""The books: does its chores one after the other, each when it is due, until it is told to stop.

Knows nothing of what the chores do. A chore does a bounded piece of work and keeps it in one transaction, so that to
stop between two of them loses nothing. What a chore fails at is said once a minute and tried again: a database that is
locked or not there is waited for. sd_notify(3) tells systemd how it goes.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from postmeter.runtime.logs import OnceAMinute
from postmeter.runtime.notify import Notifier
from postmeter.runtime.signals import RELOAD, STOP, Signals
from postmeter.store.database import StoreError

log = logging.getLogger(__name__)
once = OnceAMinute(log)

_IDLE = 1.0  # seconds at most without a look at what is due


@dataclass(frozen=True, slots=True)
class Chore:
    """`work` answers true when there is more to do at once; else it is due again `every` so many seconds."""

    name: str
    work: Callable[[], bool | None]
    every: float


class Daemon:
    """`reload` answers with the chores of the new configuration, or None to go on with the present ones."""

    def __init__(
        self,
        chores: Sequence[Chore],
        *,
        reload: Callable[[], Sequence[Chore] | None],
        failed: Callable[[str], None],
        notifier: Notifier,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._reload, self._failed, self._notifier, self._clock = reload, failed, notifier, clock
        self._take(chores)

    def run(self, signals: Signals) -> None:
        """Until a stop signal; what has been read by then has been recorded."""
        self._notifier.ready()
        while True:
            received = signals.wait(self._pause())
            if received in STOP:
                break
            self._handle(received)
            self._round()
        self._notifier.stopping()

    def _take(self, chores: Sequence[Chore]) -> None:
        self._chores = tuple(chores)
        self._due = dict.fromkeys(range(len(self._chores)), 0.0)

    def _handle(self, received: signal.Signals | None) -> None:
        if received != RELOAD:
            return
        self._notifier.reloading()
        chores = self._reload()
        if chores is not None:
            self._take(chores)
        self._notifier.ready()

    def _pause(self) -> float:
        return min(max(min(self._due.values(), default=_IDLE) - self._clock(), 0.0), _IDLE)

    def _round(self) -> None:
        """One piece of each chore that is due."""
        for number, chore in enumerate(self._chores):
            if self._due[number] <= self._clock():
                more = self._do(chore)
                self._due[number] = 0.0 if more else self._clock() + chore.every

    def _do(self, chore: Chore) -> bool:
        try:
            return bool(chore.work())
        except Exception as error:  # boundary: a chore that fails, for whatever reason, must not end the others
            expected = isinstance(error, OSError | StoreError)
            once.log(logging.ERROR, chore.name, "%s: %s", chore.name, error, exc_info=not expected)
            self._failed(chore.name)
            return False
