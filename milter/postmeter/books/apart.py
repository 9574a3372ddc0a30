"""A chore with a thread of its own: one that waits for other hosts, so that nobody else has to wait with it.

Knows nothing of what the chore does. A thread in the middle of something is not waited for when the daemon ends: a
chore keeps what it did in one transaction, and does again what it was interrupted at. After a reload a chore begins
when its predecessor has ended, so that the same thing is never done by two at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from postmeter.runtime.logs import OnceAMinute
from postmeter.store.database import StoreError
from postmeter.store.turn import deaf

once = OnceAMinute(logging.getLogger(__name__))

_EVERY = 1.0  # seconds between two looks


class Work(Protocol):
    """Made and used in the thread, and nowhere else."""

    def work(self) -> bool:
        """One piece; true when there is more to do at once."""

    def close(self) -> None:
        """Let go of everything."""


class Apart:
    """Begins when it is made; `make` is called in the thread, again and again until it succeeds."""

    def __init__(
        self,
        name: str,
        make: Callable[[], Work],
        *,
        failed: Callable[[str], None],
        after: Apart | None = None,
        every: float = _EVERY,
    ) -> None:
        self._name, self._make, self._failed, self._every = name, make, failed, every
        self._after = after
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end after the piece that it is at."""
        self._stopped.set()

    def join(self, until: float | None = None) -> None:
        """Wait for its end; until that moment of the monotonic clock at most."""
        self._thread.join(None if until is None else max(until - monotonic(), 0.0))

    def _run(self) -> None:
        deaf()
        if self._after is not None:
            self._after.join()
            self._after = None
        work: Work | None = None
        while not self._stopped.is_set():
            try:
                work = work or self._make()
                more = work.work()
            except Exception as error:  # boundary: whatever it fails at, it tries again, and nobody else notices
                expected = isinstance(error, OSError | StoreError)
                once.log(logging.ERROR, self._name, "%s: %s", self._name, error, exc_info=not expected)
                self._failed(self._name)
                more = False
            if not more:
                self._stopped.wait(self._every)
        if work is not None:
            work.close()
