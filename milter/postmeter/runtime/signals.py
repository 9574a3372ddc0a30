"""Signals as a queue that the one thread of a parent reads, never as code that runs in between.

Knows nothing of what signals mean to a daemon beyond stop and reload. SIGUSR1 reloads; SIGUSR2 makes room for the next
parent, in daemons whose socket systemd keeps; SIGHUP stops, as it stops every libmilter program (D22), where a daemon
does not say that it reloads too. The signals stay blocked, so that none is lost between two waits (sigtimedwait(2),
signal(7)); a child inherits the mask and must call `release` before anything else (a program by `preexec_fn`).
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from types import TracebackType

STOP = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
RELOAD = signal.SIGUSR1
HAND_OVER = signal.SIGUSR2
HANGUP = signal.SIGHUP
CHILD = signal.SIGCHLD
WATCHED = frozenset({*STOP, RELOAD, HAND_OVER, CHILD})


class Signals:
    """Blocks the watched signals while it is open. Open it before the first thread: threads inherit the mask."""

    def __init__(self, watched: Iterable[signal.Signals] = WATCHED) -> None:
        self._watched = frozenset(watched)
        self._before: Iterable[int] = ()

    def __enter__(self) -> Signals:
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, self._watched)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def wait(self, timeout: float) -> signal.Signals | None:
        """The next signal, or None when none came in so many seconds."""
        info = signal.sigtimedwait(self._watched, max(timeout, 0.0))
        return signal.Signals(info.si_signo) if info else None

    def release(self) -> None:
        """For a child: the signals reach it again."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._watched)
