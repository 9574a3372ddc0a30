"""The listening socket of `milter.listen`: made, or taken back from systemd, shared by forked workers, forgotten.

Knows nothing of who serves it. socket(7), unix(7), TCP_NODELAY in tcp(7); D23, D39, D40.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from postmeter.config.schema import Milter
from postmeter.config.values import InetAddress, UnixAddress
from postmeter.runtime.kept import NOTHING, Kept

BACKLOG = 1024  # connects that wait while workers are being replaced


@dataclass(frozen=True, slots=True)
class Listener:
    """`path` and `inode` are those of a unix socket's name; None and 0 for inet, and for a socket unit's."""

    socket: socket.socket
    path: Path | None = None
    inode: int = 0
    kept: str = ""
    """Its name in systemd's store, from which a stop takes it."""
    again: Callable[[], Listener] | None = None
    """Binds its path once more; raises OSError."""

    def lost(self) -> bool:
        """Whether its name is gone, so that nobody finds it any more."""
        return self.path is not None and not os.path.lexists(self.path)

    def forget(self) -> None:
        """Close our end and remove the name, unless another socket lies there by now (D23)."""
        with contextlib.suppress(FileNotFoundError):
            if self.path is not None and self.path.stat().st_ino == self.inode:
                self.path.unlink()
        self.socket.close()


def listen(milter: Milter, kept: Kept = NOTHING) -> Listener:
    """Bind and listen, non-blocking, with the mode and group asked for. Raises OSError, and KeptError.

    What systemd has `kept` of an earlier life is used where it still fits; what is bound anew is given to it.
    """
    address = milter.listen
    return _unix(address, milter, kept) if isinstance(address, UnixAddress) else listen_inet(address, kept)


def _unix(address: UnixAddress, milter: Milter, kept: Kept) -> Listener:
    path = address.path
    found = kept.find(socket.AF_UNIX, str(path))
    if found and not found.ours:
        return Listener(_share(found.socket))
    bound = found.socket if found else _bind(path)
    with contextlib.suppress(KeyError, PermissionError):
        os.chown(path, -1, grp.getgrnam(milter.socket_group or "").gr_gid)
    path.chmod(milter.socket_mode)
    inode = path.stat().st_ino
    again = partial(_unix, address, milter, kept.nothing())
    return Listener(_share(bound), path, inode, kept.keep(bound, found, inode), again)


def _bind(path: Path) -> socket.socket:
    """A leftover name is removed, one that answers never."""
    if path.is_socket():
        if _answers(path):
            raise OSError(errno.EADDRINUSE, "another program listens here", str(path))
        path.unlink()
    bound = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        bound.bind(str(path))
    finally:
        os.umask(before)
    return bound


def listen_inet(address: InetAddress, kept: Kept = NOTHING) -> Listener:
    """Accepted sockets inherit TCP_NODELAY: without it every added header waits 44 ms for an acknowledgement (D40)."""
    family, kind, protocol, _, place = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    found = kept.find(family, place)
    bound = found.socket if found else socket.socket(family, kind, protocol)
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not found:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(place)
    return Listener(_share(bound), kept=kept.keep(bound, found))


def _share(bound: socket.socket) -> socket.socket:
    """Non-blocking before the fork: of several workers woken by one connect the losers must not hang (D39)."""
    bound.listen(BACKLOG)
    bound.setblocking(False)
    return bound


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
