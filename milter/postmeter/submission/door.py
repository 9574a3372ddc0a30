"""Where connections come in: libmilter's listening descriptor, laid over the shared socket or over one that is dead.

libmilter takes whatever comes. Out of descriptors it asks accept(2) again at once and for ever (listener.c), and a
session for which no thread could be started it never looks at again, nor closes it (worker.c, LAUNCH_WORKER). So the
kernel is told where this process ends, by RLIMIT_NOFILE; once there, the door is shut until a fifth of the connections
has gone. What waits outside is taken by another worker, or given up by Postfix after milter_connect_timeout, as its
milter_default_action says. Knows nothing of what is spoken. D39; getrlimit(2), accept(2), poll(2).
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import select
import socket
import stat
import sys
from time import monotonic, sleep

from postmeter.runtime.logs import OnceAMinute

once = OnceAMinute(logging.getLogger(__name__))

FORGOTTEN = 300.0  # seconds after its peer hung up; no callback takes so long, and Postfix's milter_content_timeout
_SEARCH = 10.0  # seconds between two searches for such
_MOMENT = 0.2  # seconds
_RESERVE = 64  # descriptors for what is not a connection, once the door is shut: SQLite, Redis, key files
_AGAIN = 0.8  # of the connections there may be: with so many the door opens again


class Door:
    """`look` is to be called about once a second; for that long a full process asks accept(2) in vain.

    Once open again it takes connections after five seconds at most: so long libmilter's poll(2) may stay with the dead.
    """

    def __init__(self, fd: int, shared: socket.socket, dead: socket.socket, *, most: int) -> None:
        """`fd` is libmilter's own, `shared` the listener of all workers; `most` connections, if the system has room."""
        self._fd = fd
        self._shared = shared
        self._dead = dead
        self._own = len(_open_files())
        known = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        hard = known if known >= 0 else sys.maxsize
        self._most = min(self._own + most, max(hard - _RESERVE, hard // 2))
        self._hung: dict[tuple[int, int], float] = {}
        """Connections whose peer has gone, by descriptor and inode, and since when."""
        self._searched = monotonic()
        self._swing_open()

    def look(self) -> bool:
        """Shut it or open it, as things are; False when a session is lost, and another process should go on."""
        if self.open and self._stays_full():
            once.log(logging.WARNING, "full", "%d connections, as many as there may be", self._most - self._own)
            self._swing_shut()
        elif not self.open and 0 < len(_open_files()) < self._own + _AGAIN * (self._most - self._own):
            self._swing_open()
        return not self._lost(monotonic())

    def shut(self) -> None:
        """For good. The shared socket goes on with those who have it still, and with nobody once they are gone."""
        self._swing_shut()
        self._shared.close()

    def _stays_full(self) -> bool:
        """Connections that wait since a flood, and whose peers have gone, fill it for a moment only."""
        if not _full(self._fd):
            return False
        sleep(_MOMENT)
        return _full(self._fd)

    def _swing_open(self) -> None:
        # Never below what is open: poll(2) takes no more descriptors than that, and libmilter ends when it fails.
        _limit(self._most)
        os.dup2(self._shared.fileno(), self._fd)
        self.open = True

    def _swing_shut(self) -> None:
        os.dup2(self._dead.fileno(), self._fd)  # first, or connections would take what is kept for us
        _limit(self._most + _RESERVE)
        self.open = False

    def _lost(self, now: float) -> bool:
        if now - self._searched < _SEARCH:
            return False
        self._searched = now
        self._hung = {which: self._hung.get(which, now) for which in _hung_up(self._shared)}
        lost = sum(now - since > FORGOTTEN for since in self._hung.values())
        if lost:
            text = "%d sessions found no thread to serve them: TasksMax of the service, or ulimit -u, is too low"
            once.log(logging.ERROR, "lost", text, lost)
        return lost > 0


def _open_files() -> list[int]:
    """None where there is not even one left to look with."""
    try:
        return [int(entry) for entry in os.listdir("/proc/self/fd")][:-1]  # the last one lists them
    except OSError:
        return []


def _limit(files: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (files if hard < 0 else min(files, hard), hard))  # -1 is infinity


def _full(fd: int) -> bool:
    try:
        os.close(os.dup(fd))
    except OSError:  # EMFILE, or ENFILE of the whole system
        return True
    return False


def _hung_up(listener: socket.socket) -> list[tuple[int, int]]:
    """Descriptor and inode of the connections that came in by this listener, and whose peer has gone."""
    asked = select.poll()
    for fd in _open_files():
        asked.register(fd, select.POLLRDHUP)
    found = []
    for fd, _ in asked.poll(0):
        with contextlib.suppress(OSError):  # closed by now, or no descriptor left to look with
            about = os.fstat(fd)
            if not stat.S_ISSOCK(about.st_mode):
                continue
            with socket.socket(fileno=os.dup(fd)) as twin:
                if _place(twin) == _place(listener):
                    found.append((fd, about.st_ino))
    return found


def _place(one: socket.socket) -> object:
    """A path, or a port: who listens at any address is found at the one that was meant."""
    name = one.getsockname()
    return name[1] if isinstance(name, tuple) else name
