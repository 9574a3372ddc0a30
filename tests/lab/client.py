"""An SMTP client that does what it is told: raw lines, pipelines, BDAT, half a message and gone (RFC 5321, 2920, 3030).

`Client.send` is the well-behaved whole. Knows nothing of what the answers ought to be.
"""

from __future__ import annotations

import base64
import re
import smtplib
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

_BOUND = 60.0  # seconds for one answer; Postfix waits 30 s for a milter


@dataclass(frozen=True, slots=True)
class Answer:
    """One SMTP reply; the lines of its text, without codes, joined by newlines."""

    code: int
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.text}"

    @property
    def status(self) -> str:
        """The enhanced status code, or nothing (RFC 3463)."""
        found = re.match(r"[245]\.\d{1,3}\.\d{1,3}", self.text)
        return found[0] if found else ""


class RefusedError(Exception):
    """A step of a transaction was not accepted."""

    def __init__(self, answer: Answer, step: str) -> None:
        super().__init__(f"{step}: {answer}")
        self.answer = answer
        self.step = step


class Client:
    """One connection, from any address of loopback. `login` is (name, password); with `tls`, STARTTLS comes first."""

    def __init__(
        self,
        port: int,
        *,
        login: tuple[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        helo: bytes = b"client.example.com",
        source: str = "127.0.0.1",
    ) -> None:
        where = ("127.0.0.1", port)
        self.socket: socket.socket = socket.create_connection(where, timeout=_BOUND, source_address=(source, 0))
        self._input = self.socket.makefile("rb")
        self.greeting = self.answer()
        self.helo = helo
        self.command(b"EHLO " + helo)
        if tls:
            self.starttls(tls)
        if login:
            self.login(*login)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.vanish()

    # --- bytes

    def write(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> Answer:
        """The next reply, all its lines."""
        lines: list[str] = []
        while True:
            line = self._input.readline().decode("utf-8", "replace")
            if not line:
                raise ConnectionError("the server closed the connection")
            lines.append(line[4:].rstrip("\r\n"))
            if line[3:4] != "-":
                return Answer(int(line[:3]), "\n".join(lines))

    def command(self, line: bytes) -> Answer:
        self.write(line + b"\r\n")
        return self.answer()

    def pipeline(self, *lines: bytes) -> list[Answer]:
        """All lines at once, then all answers (RFC 2920)."""
        self.write(b"".join(line + b"\r\n" for line in lines))
        return [self.answer() for _ in lines]

    def vanish(self) -> None:
        """Close the connection without a word."""
        self._input.close()
        self.socket.close()

    def quit(self) -> Answer:
        answer = self.command(b"QUIT")
        self.vanish()
        return answer

    # --- what begins a session

    def starttls(self, context: ssl.SSLContext) -> None:
        _expect(self.command(b"STARTTLS"), "STARTTLS")
        self._input.close()
        self.socket = context.wrap_socket(self.socket, server_hostname="mail.example.com")
        self._input = self.socket.makefile("rb")
        self.command(b"EHLO " + self.helo)

    def login(self, name: str, password: str) -> None:
        secret = base64.b64encode(f"\0{name}\0{password}".encode())
        _expect(self.command(b"AUTH PLAIN " + secret), "AUTH")

    # --- messages

    def send(
        self, message: bytes, *, mail_from: str | bytes, rcpt_to: Sequence[str | bytes], args: bytes = b""
    ) -> Answer:
        """A whole transaction; `RefusedError` tells the first step that failed. The session stays usable."""
        try:
            self.envelope(mail_from, rcpt_to, args=args)
            return _expect(self.data(message), "end of DATA")
        except RefusedError as refused:
            if refused.answer.code != 421:
                self.command(b"RSET")
            raise

    def envelope(self, mail_from: str | bytes, rcpt_to: Sequence[str | bytes], *, args: bytes = b"") -> None:
        """MAIL and every RCPT; all must be accepted."""
        extra = b" " + args if args else b""
        _expect(self.command(b"MAIL FROM:<" + _octets(mail_from) + b">" + extra), "MAIL")
        for recipient in rcpt_to:
            _expect(self.command(b"RCPT TO:<" + _octets(recipient) + b">"), "RCPT")

    def data(self, message: bytes) -> Answer:
        """DATA, the message with dots stuffed, the final dot; a missing last CRLF is added, as SMTP must."""
        answer = self.command(b"DATA")
        if answer.code != 354:
            return answer
        end = b".\r\n" if message.endswith(b"\r\n") or not message else b"\r\n.\r\n"
        self.write(re.sub(rb"(?m)^\.", b"..", message) + end)
        return self.answer()

    def bdat(self, *chunks: bytes) -> list[Answer]:
        """The message in chunks, the last marked so (RFC 3030)."""
        answers = []
        for nth, chunk in enumerate(chunks, 1):
            last = b" LAST" if nth == len(chunks) else b""
            self.write(b"BDAT %d%s\r\n" % (len(chunk), last) + chunk)
            answers.append(self.answer())
        return answers


def smtp(port: int, *, login: tuple[str, str] | None = None) -> smtplib.SMTP:
    """Python's own client, logged in: what a user's program would use."""
    client = smtplib.SMTP("127.0.0.1", port, timeout=_BOUND)
    if login:
        client.login(*login)
    return client


def _octets(address: str | bytes) -> bytes:
    return address.encode() if isinstance(address, str) else address


def _expect(answer: Answer, step: str) -> Answer:
    if not 200 <= answer.code < 300:
        raise RefusedError(answer, step)
    return answer
