"""Tells systemd how we are: ready, reloading, stopping, alive (sd_notify(3)).

Knows nothing of daemons. Without NOTIFY_SOCKET, and when nobody listens there, every message is silently nothing:
a notice must never stop a daemon.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence


class Notifier:
    """One a daemon's parent process; `address` is NOTIFY_SOCKET, a path or, from `@`, an abstract name."""

    def __init__(self, address: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._monotonic = monotonic

    def __bool__(self) -> bool:
        """Whether anybody is to be told."""
        return bool(self._address)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Notifier:
        return cls(environ.get("NOTIFY_SOCKET", ""))

    def ready(self, status: str = "") -> None:
        """Started, or done with reloading."""
        self._send("READY=1", *_status(status))

    def reloading(self) -> None:
        """Type=notify-reload wants the moment with it; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(self._monotonic() * 1_000_000)}")

    def stopping(self, status: str = "") -> None:
        self._send("STOPPING=1", *_status(status))

    def status(self, text: str) -> None:
        """One line that `systemctl status` shows."""
        self._send(*_status(text))

    def watchdog(self) -> None:
        self._send("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """Ask for more time to start or stop: a drain may outlast the unit's time limit."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def store(self, kept: socket.socket, name: str) -> None:
        """Have it held over a restart, if the unit's `FileDescriptorStoreMax=` allows; nobody says whether it does."""
        self._send("FDSTORE=1", f"FDNAME={name}", descriptors=[kept.fileno()])

    def discard(self, name: str) -> None:
        """The opposite."""
        self._send("FDSTOREREMOVE=1", f"FDNAME={name}")

    def _send(self, *lines: str, descriptors: Sequence[int] = ()) -> None:
        if not self._address or not lines:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.connect(self._address)
                socket.send_fds(sock, ["\n".join(lines).encode("utf-8", "backslashreplace")], descriptors)
        except OSError:
            return


def _status(text: str) -> list[str]:
    return [f"STATUS={' '.join(text.split())}"] if text else []


def watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds between two `watchdog` messages: half of what the unit allows (sd_watchdog_enabled(3)), or None."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    allowed = environ.get("WATCHDOG_USEC", "")
    return int(allowed) / 2_000_000 if allowed.isdigit() and int(allowed) else None
