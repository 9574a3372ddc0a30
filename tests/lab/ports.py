"""Ports of the laboratory: each is given away once, to one process, and never to a client's connection.

They lie below those that the kernel takes for outgoing connections (ip(7), `ip_local_port_range`): a port from there
may be some client's own between the moment it was found free and the moment a server wants it.
"""

from __future__ import annotations

import random
import socket

_FIRST, _LAST = 20_000, 32_000
_kept: list[socket.socket] = []
"""An abstract socket a port, which ends with this process: until then no other one is given the same (unix(7))."""


def free_port() -> int:
    """A TCP port on loopback that nobody listens on, and that nobody else who asks here will get."""
    for port in random.sample(range(_FIRST, _LAST), 1000):
        if _keep(port):
            return port
    raise OSError("a thousand ports were tried, and none was free")


def _keep(port: int) -> bool:
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0postmeter-test-port-{port}")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
    except OSError:
        claim.close()
        return False
    _kept.append(claim)
    return True
