"""Listening sockets that systemd keeps while nobody runs: who connects during a restart waits, and is not refused.

A daemon shares it when it has bound it (FDSTORE= in sd_notify(3), `FileDescriptorStoreMax=` in its unit), and is given
it at its next start (sd_listen_fds(3)). A socket unit's comes the same way. Knows nothing of who serves it.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from postmeter.runtime.notify import Notifier

log = logging.getLogger(__name__)

Place: TypeAlias = str | bytes | tuple[object, ...]

_FIRST = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)
_OURS = "postmeter-"  # and the inode of a unix socket's path, which tells whether another lies there by now


class KeptError(Exception):
    """What systemd hands over is not what the configuration asks for, and not ours to give back."""


@dataclass(frozen=True, slots=True)
class Received:
    """`name` is FDNAME=: ours, or the name of a socket unit."""

    socket: socket.socket
    name: str

    @property
    def ours(self) -> bool:
        return self.name.startswith(_OURS)

    @property
    def place(self) -> Place:
        place: Place = self.socket.getsockname()
        return place

    def listens(self) -> bool:
        """Whether it is a stream socket that connections can be accepted from."""
        asked = socket.SO_ACCEPTCONN, socket.SO_TYPE
        return [self.socket.getsockopt(socket.SOL_SOCKET, what) for what in asked] == [1, socket.SOCK_STREAM]

    def named(self) -> bool:
        """Whether a unix socket's path still leads to it; a socket unit is believed."""
        path = Path(str(self.place))
        return not self.ours or self.name == _name(path.stat().st_ino if path.is_socket() else 0)


class Kept:
    """What systemd holds for this daemon; without systemd, nothing."""

    def __init__(self, notifier: Notifier, received: Iterable[Received] = ()) -> None:
        self._notifier = notifier
        self._received = tuple(received)

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] = os.environ) -> Kept:
        """Takes the variables out of the environment: no child shall think that they mean it."""
        return cls(Notifier.from_environment(environ), _receive(environ, os.getpid()))

    def nothing(self) -> Kept:
        """The same, which has handed over all that it had."""
        return Kept(self._notifier)

    def find(self, family: int, place: Place) -> Received | None:
        """What listens there. Elsewhere, ours is given up, and a socket unit's raises KeptError."""
        found = None
        for received in self._received:
            if not received.listens():
                raise KeptError(f"{received.name} is no listening stream socket")
            if (received.socket.family, received.place) == (family, place) and (
                family != socket.AF_UNIX or received.named()
            ):
                found = received
            elif received.ours:
                self._give_up(received)
            else:
                raise KeptError(f"{received.name} listens at {_said(received.place)}, not at {_said(place)}")
        return found

    def keep(self, bound: socket.socket, found: Received | None, inode: int = 0) -> str:
        """Its name in systemd's store, which is asked to hold it from now on; none for a socket unit's."""
        if found is not None:
            return found.name if found.ours else ""
        self._notifier.store(bound, _name(inode))
        return _name(inode)

    def _give_up(self, received: Received) -> None:
        """The address has changed, or the path has been removed."""
        log.info("no longer listening at %s", _said(received.place))
        self._notifier.discard(received.name)
        if received.socket.family == socket.AF_UNIX and received.named():
            Path(str(received.place)).unlink(missing_ok=True)
        received.socket.close()


NOTHING = Kept(Notifier(""))


def _receive(environ: MutableMapping[str, str], pid: int) -> Iterator[Received]:
    """Descriptors count when they are meant for this process; an older parent may have left the variables behind."""
    whose, count, names = (environ.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES"))
    if whose != str(pid) or not (count.isascii() and count.isdigit()):
        return
    called = names.split(":")
    for nth in range(int(count)):
        try:
            given = socket.socket(fileno=_FIRST + nth)
        except OSError as error:
            log.warning("descriptor %d, which systemd hands over, is no socket: %s", _FIRST + nth, error.strerror)
            continue
        given.set_inheritable(False)
        yield Received(given, called[nth] if nth < len(called) else "systemd's socket")


def _name(inode: int) -> str:
    return f"{_OURS}{inode}"


def _said(place: Place) -> str:
    return f"{place[0]} port {place[1]}" if isinstance(place, tuple) else str(place)
