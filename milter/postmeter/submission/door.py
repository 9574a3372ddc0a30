"""Where connections come in: libmilter's listening descriptor, laid over the shared socket or over one that is dead.

libmilter takes whatever comes. Out of descriptors it asks accept(2) again at once and for ever (listener.c), and out of
threads it forgets the session: nobody reads it or closes it again (worker.c, LAUNCH_WORKER). So the kernel is told
where this process ends, by RLIMIT_NOFILE; once there, the door is shut until a fifth of the connections has gone. What
waits outside is taken by another worker, or given up by Postfix after milter_connect_timeout, as its
milter_default_action says. Knows nothing of what is spoken. D39; getrlimit(2), accept(2).
"""

from __future__ import annotations

import logging
import os
import resource
import socket
import sys
from threading import Thread

from postmeter.runtime.logs import OnceAMinute

once = OnceAMinute(logging.getLogger(__name__))

_RESERVE = 64  # descriptors for what is not a connection, once the door is shut: SQLite, Redis, key files
_AGAIN = 0.8  # of the connections there may be: with so many the door opens again


class Door:
    """`look` is to be called about once a second; for that long a full process asks accept(2) in vain."""

    def __init__(self, fd: int, shared: socket.socket, dead: socket.socket, *, most: int) -> None:
        """`fd` is libmilter's own, `shared` the listener of all workers; `most` connections, if the system has room."""
        self._fd = fd
        self._shared = shared
        self._dead = dead
        self._own = _open_files()
        self._hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        hard = sys.maxsize if self._hard == resource.RLIM_INFINITY else self._hard
        self._most = min(self._own + most, max(hard - _RESERVE, hard // 2))
        self._all = min(self._most + _RESERVE, hard)
        self._swing_open()

    def look(self) -> bool:
        """Shut it or open it, as things are; False when this process can go on no more, and another must."""
        if self.open and _full(self._fd):
            once.log(logging.WARNING, "full", "%d connections, as many as there may be", self._most - self._own)
            self._swing_shut()
        elif not self.open and _open_files() - self._own < _AGAIN * (self._most - self._own):
            self._swing_open()
        return _can_start_threads()

    def shut(self) -> None:
        """For good. The shared socket goes on with those who have it still, and with nobody once they are gone."""
        self._swing_shut()
        self._shared.close()

    def _swing_open(self) -> None:
        # Never below what is open: poll(2) takes no more descriptors than that, and libmilter ends when it fails.
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._most, self._hard))
        os.dup2(self._shared.fileno(), self._fd)
        self.open = True

    def _swing_shut(self) -> None:
        os.dup2(self._dead.fileno(), self._fd)  # first, or connections would take what is kept for us
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._all, self._hard))
        self.open = False


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd")) - 1  # one of them is what lists them


def _full(fd: int) -> bool:
    try:
        os.close(os.dup(fd))
    except OSError:  # EMFILE, or ENFILE of the whole system
        return True
    return False


def _can_start_threads() -> bool:
    """Asked by trying: what forbids it may be this user's limit, the service's (TasksMax) or memory."""
    try:
        Thread(target=bool, daemon=True).start()
    except RuntimeError:
        once.log(logging.ERROR, "threads", "no thread can be started: TasksMax, or ulimit -u, is too low")
        return False
    return True
