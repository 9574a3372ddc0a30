"""Taking turns: processes that want to write wait here, on a flock(2), rather than in SQLite's busy handler.

SQLite lets a writer that finds the database busy sleep and try again: under load some wait for seconds while others
pass. A flock wakes who waits at once, and is gone when its holder is killed. What flock lacks is a time limit: so one
thread of ours does the waiting, and whoever asked it to waits no longer than they can afford. Before that they knock a
few times themselves: a turn is mostly over sooner than two threads have handed it on.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Callable
from time import monotonic, sleep

_NAPS = (50e-6, 100e-6, 100e-6, 200e-6, 200e-6, 400e-6)
"""Seconds between two knocks: a transaction takes 0.4 ms, and 1 to 1.4 where others want the processor."""


def deaf() -> None:
    """For a thread of ours: signals are for the thread that waits for them (pthread_sigmask(3))."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


class Turn:
    """The right to write, between processes. Within one process, one thread at a time may ask for it or hold it."""

    def __init__(self, file: int, *, nap: Callable[[float], None] = sleep) -> None:
        self._file = file
        self._nap = nap
        self._changed = threading.Condition()
        self._wanted = self._got = self._blocked = self._closed = False
        self._waiter: threading.Thread | None = None

    def take(self, patience: float) -> bool:
        """True once it is ours; False when it was not within `patience` seconds, OSError when nobody can wait."""
        until = monotonic() + patience
        return self._knock(until) or self._wait_for(until)

    def give(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            if self._waiter is None:
                os.close(self._file)

    def _knock(self, until: float) -> bool:
        for seconds in _NAPS:
            if self._try():
                return True
            if self._blocked or monotonic() >= until:
                return False
            self._nap(seconds)
        return self._try()

    def _wait_for(self, until: float) -> bool:
        with self._changed:
            self._send_waiter()
            self._wanted = True
            self._changed.wait_for(lambda: self._got, until - monotonic())
            got = self._got
            self._wanted = self._got = False
            return got

    def _try(self) -> bool:
        """Not where the waiting thread is at it, for somebody who gave up: what it gets and gives back is the same."""
        with self._changed:
            if self._blocked:
                return False
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def _send_waiter(self) -> None:
        if self._waiter is None:
            waiter = threading.Thread(target=self._wait, name="turn", daemon=True)
            try:
                waiter.start()
            except RuntimeError as error:  # none is to be had for a moment
                raise OSError(f"nobody can wait for a turn to write: {error}") from None
            self._waiter = waiter
        self._blocked = True
        self._changed.notify_all()

    def _wait(self) -> None:
        deaf()
        while self._next():
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._hand_over()
        os.close(self._file)  # closed here, so that no flock of ours can hit a descriptor used again

    def _next(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._blocked or self._closed)
            return self._blocked

    def _hand_over(self) -> None:
        with self._changed:
            self._blocked = False
            if self._wanted:
                self._got = True
                self._changed.notify_all()
            else:
                self.give()
