"""A letter as a message, and its way to the server that takes our own mail (`notify`).

RFC 5322, RFC 3834 (nobody answers it by itself), RFC 5321 by smtplib. Knows nothing of why a letter is written. What
names it may hold comes from clients: EmailMessage refuses a line end in a field, and encodes what is not ASCII.
"""

from __future__ import annotations

import hashlib
import smtplib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage, Message
from email.policy import SMTP
from email.utils import format_datetime

from postmeter.books.letters import Letter
from postmeter.config.schema import InetAddress

ID_LIVES = 600.0
"""Seconds for a notice's one-time id: an SMTP transaction, and a server that comes up again meanwhile."""

OF_ONE = (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError, smtplib.SMTPNotSupportedError)
"""What a server says about one mail and not about all of ours."""

_PATIENCE = 10.0  # seconds for a server that is meant to be our own to say who it is
_TAKING = 300.0  # seconds for each later answer: it may have a filter, and who gives up too early sends twice


@dataclass(frozen=True, slots=True)
class Mailer:
    """`host` is what we call ourselves, at EHLO and in Message-ID."""

    smtp: InetAddress
    sender: str
    host: str

    @property
    def author(self) -> str:
        """The From field; formataddr takes no address beyond ASCII."""
        return f"postmeter <{self.sender}>"

    def compose(self, letter: Letter, *, to: Sequence[str], ident: str, about: str, now: float) -> EmailMessage:
        """`about` makes the Message-ID: the same letter sent twice, when nobody knows whether it arrived, bears one."""
        message = EmailMessage(policy=SMTP)
        message["From"] = self.author
        message["To"] = ", ".join(to)
        message["Subject"] = letter.subject.replace("=?", "= ?")  # no encoded word (RFC 2047)
        message["Date"] = format_datetime(datetime.fromtimestamp(now, UTC))
        message["Message-ID"] = f"<notice.{hashlib.sha256(about.encode()).hexdigest()[:32]}@{self.host}>"
        message["Auto-Submitted"] = "auto-generated"
        message["X-Postmeter-Notice"] = ident
        message.set_content(letter.text, cte="7bit" if letter.text.isascii() else "quoted-printable")
        if letter.html:
            message.add_alternative(letter.html, subtype="html", cte="quoted-printable")
        return message

    def send(self, message: Message, *, to: Sequence[str], sender: str | None = None) -> list[str]:
        """Until the server has taken it; returns whom it did not take it for. Else an OSError, smtplib's among them.

        A `sender` other than our own address is empty: of a report, so that nobody returns it.
        """
        smtp = smtplib.SMTP(self.smtp.host, self.smtp.port, local_hostname=self.host, timeout=_PATIENCE)
        try:
            if smtp.sock is not None:
                smtp.sock.settimeout(_TAKING)
            refused = smtp.send_message(message, self.sender if sender is None else sender, list(to))
            with suppress(OSError):  # it has been taken by now
                smtp.quit()
        finally:
            smtp.close()
        return list(refused)
