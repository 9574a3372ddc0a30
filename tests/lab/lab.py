"""The whole bench: postmeter, a private Postfix that has it as its milter, a sink behind it.

`Lab.deliver` sends a message as a user's program would and gives what arrived. Knows nothing of what should happen to
the message on its way.
"""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from tests.lab.client import Answer, Client
from tests.lab.postfix import LOGINS, Postfix, Service, submission, transit
from tests.lab.product import Postmeter
from tests.lab.sink import EXTENSIONS, Delivery, Sink

ALICE = "alice@example.com"
BOB = "bob@example.org"
_numbers = itertools.count(1)


def attach(postmeter: str) -> str:
    """The milter as a Postfix parameter names it, with what contrib/postfix advises."""
    return f"{{ {postmeter}, default_action=tempfail, connect_timeout=10s, command_timeout=30s, content_timeout=300s }}"


class Lab:
    """Use as a context manager. Two services: `submission` has the milter, `transit` is Postfix alone.

    `settings` are postmeter's; `prepare` may add keys and secrets before it starts; `services` come besides the two;
    `sendmail` gives the milter to sendmail(1)'s mail too; `hop` is what the next hop offers, by default all.
    """

    def __init__(
        self,
        settings: Mapping[str, Any] | None = None,
        *,
        postmeter: Postmeter | None = None,
        services: Sequence[Service] = (),
        postfix: Mapping[str, str] | None = None,
        master: Sequence[str] = (),
        sendmail: bool = False,
        lmtp: bool = False,
        hop: tuple[str, ...] = EXTENSIONS,
    ) -> None:
        self.postmeter = postmeter or Postmeter(settings)
        self.sink = Sink(lmtp=lmtp, extensions=hop)
        milter = attach(self.postmeter.milter)
        main = {"non_smtpd_milters": milter} if sendmail else {}
        self.postfix = Postfix(
            submission(milter), transit(), *services,
            sink=self.sink.transport, settings={**main, **(postfix or {})}, master=master,
            folder=self.postmeter.folder / "postfix",  # so that all processes of a lab can be found by one name
        )  # fmt: skip
        self._stack = ExitStack()

    def __enter__(self) -> Lab:
        with ExitStack() as stack:
            for part in (self.sink, self.postmeter, self.postfix):
                stack.enter_context(part)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def as_root(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """One of postmeter's commands that ask Postfix, ours and not the system's, and are for root."""
        where = ("--postfix", str(self.postfix.config))
        return self.postmeter.run(*arguments, *where, user="root", env=self.postfix.environment())

    def client(self, login: str = ALICE, *, service: str = "submission", tls: bool = False) -> Client:
        """A connection; with no login where that is empty."""
        context = self.postfix.certificates.context() if tls else None
        credentials = (login, LOGINS[login]) if login else None
        return Client(self.postfix.ports[service], login=credentials, tls=context)

    def send(
        self,
        message: bytes,
        *,
        login: str = ALICE,
        service: str = "submission",
        mail_from: str | None = None,
        rcpt_to: Sequence[str] = ("reader@example.net",),
        args: bytes = b"",
    ) -> Answer:
        """One message over a connection of its own; RefusedError tells which step was refused."""
        sender = (login or ALICE) if mail_from is None else mail_from
        with self.client(login, service=service) as client:
            return client.send(message, mail_from=sender, rcpt_to=rcpt_to, args=args)

    def deliver(
        self, message: bytes, *, login: str = ALICE, service: str = "submission", mail_from: str | None = None,
        args: bytes = b"",
    ) -> Delivery:  # fmt: skip
        """Send it to a recipient whom nobody else has, and wait for it at the sink."""
        recipient = f"reader{next(_numbers)}@example.net"
        self.send(message, login=login, service=service, mail_from=mail_from, rcpt_to=[recipient], args=args)
        return self.sink.wait_for(recipient.encode())

    def deliver_bare(self, message: bytes) -> Delivery:
        """The same through Postfix alone: what arrives when nobody touches it."""
        return self.deliver(message, login="", service="transit")


def letter(
    body: str = "Good morning.\r\n",
    *,
    sender: str = ALICE,
    subject: str = "a letter",
    html: bool = False,
    fields: Sequence[str] = (),
) -> bytes:
    """A plain message with all the fields that Postfix would add; 8-bit text makes it declare so."""
    kind = "html" if html else "plain"
    header = [
        f"From: {sender}",
        "To: reader@example.net",
        f"Subject: {subject}",
        "Date: Mon, 02 Nov 2026 10:00:00 +0000",
        f"Message-ID: <{next(_numbers)}.lab@example.com>",
        "MIME-Version: 1.0",
        f"Content-Type: text/{kind}; charset=utf-8",
        f"Content-Transfer-Encoding: {'7bit' if body.isascii() else '8bit'}",
        *fields,
    ]
    return ("\r\n".join(header) + "\r\n\r\n" + body).encode()
