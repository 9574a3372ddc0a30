"""One connection to a Redis or Valkey, on which everything has a deadline: to find the name, TLS, each command.

redis-py writes and reads the protocol and logs in; what it leaves without a bound in time is done here. Knows nothing
of what is asked, of clusters, or of what a failure means (redis.io: protocol-spec).
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from redis.connection import Connection
from redis.exceptions import RedisError, ResponseError

from postmeter.config.schema import SocketAddress, UnixAddress
from postmeter.store.turn import deaf

_FIRST_WORDS = {
    "NoScriptError": "NOSCRIPT", "MovedError": "MOVED", "AskError": "ASK",
    "ClusterDownError": "CLUSTERDOWN", "MasterDownError": "MASTERDOWN",
}  # fmt: skip
_LEAST = 0.001  # seconds; a timeout of 0 would mean not to wait at all (socket(2), O_NONBLOCK)


class LinkError(Exception):
    """The connection failed, or its server does not answer in time. The text never holds a password."""


class RefusedError(Exception):
    """The server answers, but with an error: its words, the first of which names the kind (LOADING, MOVED …)."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.kind, _, self.rest = words.partition(" ")


class Link(Connection):
    """Made connected and logged in, within the deadline; `ask` may be called by one thread at a time."""

    def __init__(self, place: SocketAddress, login: Login, deadline: float) -> None:
        self.place, self._login, self._deadline = place, login, deadline
        host, port = ("", 0) if isinstance(place, UnixAddress) else (place.host, place.port)
        super().__init__(host=host, port=port, db=login.database, username=login.user, password=login.password)
        try:
            self.connect()
        except (RedisError, OSError) as error:
            raise _told(place, error) from None
        self._poll = select.poll()
        self._poll.register(self._wire, select.POLLIN)

    def ask(self, command: Sequence[Any], deadline: float) -> Any:
        """One command and its answer. RefusedError leaves the connection as good as it was."""
        self._deadline = deadline
        try:
            self._wire.settimeout(_left(deadline))
            self.send_packed_command(self.pack_command(*command), check_health=False)
            return self.read_response()
        except ResponseError as error:
            raise RefusedError(_words(error)) from None
        except (RedisError, OSError) as error:
            raise _told(self.place, error) from None

    def fresh(self) -> bool:
        """Whether it can be used again: between two commands a server says nothing, but that it hangs up."""
        return not self._poll.poll(0)

    def read_response(self, *arguments: Any, **more: Any) -> Any:
        """Called by redis-py too, for each of the answers by which it logs in: they have one deadline together."""
        self._wire.settimeout(_left(self._deadline))
        return super().read_response(*arguments, **more)

    def _connect(self) -> socket.socket:
        """Called by redis-py for a socket that is connected; what it sends next must not be late either."""
        if isinstance(self.place, UnixAddress):
            wire = _dial(socket.AF_UNIX, str(self.place.path), self._deadline)
        else:
            wire = self._tcp(self.place.host, self.place.port)
        wire.settimeout(_left(self._deadline))
        self._wire = wire
        return wire

    def _error_message(self, exception: BaseException) -> str:
        """Called by redis-py with what `_connect` raised; which server it was is said once, by us."""
        return str(exception)

    def _tcp(self, host: str, port: int) -> socket.socket:
        failure: OSError = OSError("the name has no address")
        found = _addresses(host, port, self._deadline)
        for nth, (family, address) in enumerate(found):
            share = (self._deadline - monotonic()) / (len(found) - nth)  # a dead one leaves time for others
            try:
                wire = _dial(family, address, monotonic() + share)
            except OSError as error:
                failure = error
                continue
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return self._login.context.wrap_socket(wire, server_hostname=host) if self._login.context else wire
        raise failure


class Login:
    """Who we are to the server, and how its connections are encrypted: read once, from files."""

    def __init__(self, *, user: str, password_file: Path | None, database: int, tls: bool, ca: Path | None) -> None:
        """LinkError when a file cannot be read."""
        self.user = user or None
        self.database = database
        try:
            self.password = password_file.read_text("utf-8").strip() if password_file else None
            # As old as the protocol that Debian's default asks of servers, and names are checked.
            self.context = ssl.create_default_context(cafile=str(ca) if ca else None) if tls else None
        except UnicodeDecodeError:  # its text tells of the password
            raise LinkError(f"the login for Redis cannot be read: {password_file} is no UTF-8") from None
        except (OSError, ValueError) as error:  # of which ssl.SSLError is one
            raise LinkError(f"the login for Redis cannot be read: {error}") from None


def _dial(family: int, address: Any, deadline: float) -> socket.socket:
    wire = socket.socket(family, socket.SOCK_STREAM)
    try:
        wire.settimeout(_left(deadline))
        wire.connect(address)
    except BaseException:
        wire.close()
        raise
    return wire


def _addresses(host: str, port: int, deadline: float) -> list[tuple[int, Any]]:
    """What the name means now. Where DNS is gone that takes ten seconds: a thread of its own waits for it."""
    try:
        return _resolve(host, port, socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass
    found: list[list[tuple[int, Any]] | OSError] = []

    def look() -> None:
        deaf()
        try:
            found.append(_resolve(host, port, socket.AI_ADDRCONFIG))
        except OSError as error:
            found.append(error)

    thread = threading.Thread(target=look, name="resolve", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # none is to be had for a moment
        raise OSError(str(error)) from None
    thread.join(_left(deadline))
    if not found:
        raise OSError(f"{host} is not resolved in time")
    if isinstance(found[0], OSError):
        raise found[0]
    return found[0]


def _resolve(host: str, port: int, flags: int) -> list[tuple[int, Any]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [(family, address) for family, _, _, _, address in found]


def _left(deadline: float) -> float:
    return max(_LEAST, deadline - monotonic())


def _words(error: ResponseError) -> str:
    """As the server said it: redis-py cuts the first word off those that it knows."""
    known, text = _FIRST_WORDS.get(type(error).__name__, ""), str(error)
    return text if text.startswith(known) else f"{known} {text}"


def _told(place: SocketAddress, error: Exception) -> LinkError:
    return LinkError(f"{place}: {' '.join(str(error).split()) or type(error).__name__}")
