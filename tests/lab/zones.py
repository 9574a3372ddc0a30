"""Zones of their own on loopback: name servers that are asked directly, and a resolver that knows all they say.

Each zone has servers on addresses of 127/8 that nobody else has; all listen on one port. Knows nothing of DKIM.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType

from tests.lab.dns import NameServer
from tests.lab.ports import free_port


class Zones:
    """Use as a context manager. `servers` by name; `resolver` answers from `publish`, not by asking the servers."""

    def __init__(self, *domains: str, servers: int = 2, port: int = 0) -> None:
        self.port = port or free_port()
        self.resolver = NameServer(address=self._address(), port=self.port)
        self.servers: dict[str, NameServer] = {}
        for domain in domains:
            for nth in range(1, servers + 1):
                self._add(domain, f"ns{nth}.{domain}")

    def __enter__(self) -> Zones:
        with ExitStack() as stack:
            for server in (self.resolver, *self.servers.values()):
                stack.enter_context(server)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    @property
    def address(self) -> str:
        """The resolver as `dkim.resolvers` names it."""
        return f"{self.resolver.address}:{self.port}"

    def publish(self, name: str, text: str, *, on: Sequence[str] = (), resolver: bool = True) -> None:
        """A TXT record on these servers, or all, and at the resolver."""
        for server in [self.servers[each] for each in on or self.servers]:
            server.records[name] = text
        if resolver:
            self.resolver.records[name] = text

    def withdraw(self, name: str) -> None:
        for server in (self.resolver, *self.servers.values()):
            server.records.pop(name, None)

    def _add(self, domain: str, name: str) -> None:
        server = NameServer(address=self._address(), port=self.port, authority=True)
        self.servers[name] = server
        for each in (server, self.resolver):
            each.rdata.setdefault((domain, "NS"), []).append(name + ".")
            each.rdata[name, "A"] = [server.address]

    def _address(self) -> str:
        return f"127.{random.randrange(1, 255)}.{random.randrange(1, 255)}.{random.randrange(1, 255)}"
