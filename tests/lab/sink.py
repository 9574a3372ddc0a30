"""Where the private Postfix delivers: an SMTP or LMTP server that keeps envelope and exact bytes (RFC 5321, RFC 2033).

It accepts everything, unless told otherwise, and knows nothing of what was sent.
"""

from __future__ import annotations

import contextlib
import re
import socketserver
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

EXTENSIONS = ("8BITMIME", "SMTPUTF8", "SIZE", "DSN", "PIPELINING")
SEVEN_BIT = ("SIZE", "DSN", "PIPELINING")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as it came: addresses without angle brackets, ESMTP arguments, content with CRLF, dots unstuffed."""

    mail_from: bytes
    mail_args: tuple[bytes, ...]
    rcpt_to: tuple[bytes, ...]
    data: bytes

    def holds(self, wanted: bytes) -> bool:
        return wanted in self.data or wanted in self.rcpt_to

    @property
    def header(self) -> bytes:
        """The header with the CRLF of its last line."""
        return self.data.partition(b"\r\n\r\n")[0] + b"\r\n"

    @property
    def body(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def as_sent(self) -> bytes:
        """Without the topmost Received field, which is our own Postfix's (RFC 5321 section 4.4)."""
        return re.sub(rb"(?mi)^received:.*\r\n(?:[ \t].*\r\n)*", b"", self.data, count=1)

    def values(self, name: bytes) -> list[bytes]:
        """The values of all fields of that name, from the top, folded lines joined by CRLF as they came."""
        unfolded = re.sub(rb"\r\n(?=[ \t])", b"\0", self.header)
        found = [line.partition(b":") for line in unfolded.split(b"\r\n")]
        wanted = [value for key, colon, value in found if colon and key.strip().lower() == name.lower()]
        return [value.strip().replace(b"\0", b"\r\n") for value in wanted]


class Sink:
    """Use as a context manager. `extensions` are what it offers; without 8BITMIME smtp(8) converts (D44)."""

    def __init__(self, *, lmtp: bool = False, extensions: tuple[str, ...] = EXTENSIONS) -> None:
        self.lmtp = lmtp
        self.extensions = extensions
        self.deliveries: list[Delivery] = []
        self.answer: Callable[[bytes], str] = lambda recipient: "250 2.1.5 ok"
        """What RCPT is answered, by recipient."""
        self._arrived = threading.Condition()
        self._server = _Server(("127.0.0.1", 0), _Session)
        self._server.sink = self
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def transport(self) -> str:
        """How Postfix names it in default_transport or a transport map."""
        return f"lmtp:inet:127.0.0.1:{self.port}" if self.lmtp else f"smtp:[127.0.0.1]:{self.port}"

    def __enter__(self) -> Sink:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def keep(self, delivery: Delivery) -> None:
        with self._arrived:
            self.deliveries.append(delivery)
            self._arrived.notify_all()

    def clear(self) -> None:
        with self._arrived:
            self.deliveries.clear()

    def wait(self, count: int = 1, *, bound: float = 30) -> list[Delivery]:
        """All deliveries, as soon as there are `count` of them."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.deliveries) >= count, bound):
                raise AssertionError(f"{len(self.deliveries)} of {count} messages arrived within {bound} s")
            return list(self.deliveries)

    def wait_for(self, wanted: bytes | Callable[[Delivery], bool], *, bound: float = 30) -> Delivery:
        """The first delivery whose content or recipients hold `wanted`, or for which it is true."""
        until = time.monotonic() + bound
        with self._arrived:
            while True:
                for delivery in self.deliveries:
                    if wanted(delivery) if callable(wanted) else delivery.holds(wanted):
                        return delivery
                left = until - time.monotonic()
                if left <= 0 or not self._arrived.wait(left):
                    raise AssertionError(f"no message with {wanted!r} within {bound} s; {len(self.deliveries)} others")


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    sink: Sink


class _Session(socketserver.StreamRequestHandler):
    """One connection of smtp(8) or lmtp(8)."""

    def handle(self) -> None:
        assert isinstance(self.server, _Server)
        self.sink = self.server.sink
        self.reset()
        with contextlib.suppress(ConnectionError):  # a Postfix that is killed says no QUIT
            self.serve()

    def serve(self) -> None:
        self.say("220 sink.example.net ready")
        while line := self.rfile.readline():
            verb, _, rest = line.rstrip(b"\r\n").partition(b" ")
            if verb.upper() == b"QUIT":
                return self.say("221 2.0.0 bye")
            self.command(verb.upper(), rest)
        return None

    def reset(self) -> None:
        self.mail_from, self.mail_args = b"", tuple[bytes, ...]()
        self.rcpt_to: list[bytes] = []

    def say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    def command(self, verb: bytes, rest: bytes) -> None:
        if verb in (b"EHLO", b"LHLO"):
            names = ["sink.example.net", *self.sink.extensions]
            self.say(*(f"250-{name}" for name in names[:-1]), f"250 {names[-1]}")
        elif verb == b"MAIL":
            self.reset()
            self.mail_from, self.mail_args = _path(rest)
            self.say("250 2.1.0 ok")
        elif verb == b"RCPT":
            self.recipient(_path(rest)[0])
        elif verb == b"DATA":
            self.data()
        else:
            self.say("250 2.0.0 ok")

    def recipient(self, address: bytes) -> None:
        answer = self.sink.answer(address)
        if answer.startswith("2"):
            self.rcpt_to.append(address)
        self.say(answer)

    def data(self) -> None:
        if not self.rcpt_to:
            return self.say("503 5.5.1 no recipient")
        self.say("354 go on")
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line[1:] if line.startswith(b".") else line)
        if line == b"":
            return None  # the client vanished
        self.sink.keep(Delivery(self.mail_from, self.mail_args, tuple(self.rcpt_to), b"".join(lines)))
        # RFC 2033 section 4.2: LMTP answers for each recipient.
        return self.say(*["250 2.0.0 kept"] * (len(self.rcpt_to) if self.sink.lmtp else 1))


def _path(rest: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """`FROM:<a@b> SIZE=3` as address and arguments; an address may hold quoted spaces."""
    start, end = rest.find(b"<"), rest.rfind(b">")
    return rest[start + 1 : end], tuple(rest[end + 1 :].split())
