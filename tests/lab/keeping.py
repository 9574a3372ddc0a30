"""postmeter under somebody who keeps its socket over a restart, as systemd does by FileDescriptorStoreMax= of a unit.

Speaks sd_notify(3) and sd_listen_fds(3), and knows nothing of what it keeps.
"""

from __future__ import annotations

import signal
import socket

from tests.lab.product import Postmeter

_GIVE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.argv[3], sys.argv[3:])
"""


class Keeping(Postmeter):
    """Hands the milter the socket that its last life gave away."""

    held: tuple[str, socket.socket] | None = None

    def hear(self, notices: socket.socket) -> bytes:
        told, descriptors, _, _ = socket.recv_fds(notices, 4096, 4)
        said = dict(line.partition(b"=")[::2] for line in told.split(b"\n"))
        if b"FDSTORE" in said:
            self.held = said[b"FDNAME"].decode(), socket.socket(fileno=descriptors[0])
        return told

    def restart(self, how: signal.Signals = signal.SIGUSR2) -> None:
        """As `systemctl restart` by the package's unit: SIGUSR2, its end, the next one. Its workers may live on."""
        assert self.held is not None, "it gave nothing away"
        assert self.stop("milter", how=how) == (0 if how == signal.SIGUSR2 else -how)
        self.passed = (self.held[1].fileno(),)
        self.start("milter")
        self.passed = ()

    def command(self, *arguments: str) -> list[str]:
        command = super().command(*arguments)
        if self.held and self.passed and arguments == ("milter",):
            name, kept = self.held
            return [command[0], "-c", _GIVE, str(kept.fileno()), name, *command]
        return command

    def close(self) -> None:
        super().close()
        if self.held:
            self.held[1].close()
