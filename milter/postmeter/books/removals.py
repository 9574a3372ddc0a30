"""What senders are told of recipients that were removed, and administrators of a provider that is not believed.

Pure: events in, mail out. A report is a delivery status notification (RFC 3464, RFC 3462, and RFC 6533 for addresses
beyond ASCII), written so that a person understands it and a program reads it. Evidence is somebody else's words, and
addresses are what clients say: none reaches a report but on one line, printable and cut. Knows nothing of when or how.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from email.message import EmailMessage, Message
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import SMTP
from email.utils import format_datetime

from postmeter.books.letters import Letter
from postmeter.books.mailing import Mailer
from postmeter.events import Mistrusted, Submitted, Suppressed

STATUS = "5.7.1"
"""RFC 3463 section 3.8: a rule of ours. What is wrong with the address, if anything is, nobody asked today."""

_MOST = 50  # recipients that the words for people name; the part for programs has all
_WHY = {
    "bounced": "its mail came back",
    "complained": "its owner reported mail as spam",
    "unsubscribed": "its owner unsubscribed",
    "manual": "the administrator does not want it written to",
}
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,500}>")


def report(
    message: Submitted, removed: Sequence[Suppressed], mailer: Mailer, *, ident: str, now: float
) -> MIMEMultipart:
    """To the sender of a message, about those who did not get it."""
    told = MIMEMultipart("report", policy=SMTP)
    told.set_param("report-type", "delivery-status")
    told["From"] = mailer.author
    told["To"] = message.mail_from
    count = len(removed)
    told["Subject"] = f"Not sent to {count} {'recipients' if count > 1 else 'recipient'}: suppressed"
    told["Date"] = format_datetime(datetime.fromtimestamp(now, UTC))
    told["Message-ID"] = f"<removed.{hashlib.sha256(message.reference.encode()).hexdigest()[:32]}@{mailer.host}>"
    told["Auto-Submitted"] = "auto-replied"  # RFC 3834 section 5
    named = _MESSAGE_ID.fullmatch(message.message_id)
    if named:
        told["In-Reply-To"] = told["References"] = named[0]
    told["X-Postmeter-Notice"] = ident
    told.attach(_text(_words(message, removed, mailer.host)))
    told.attach(_status(message, removed, mailer.host))
    if named:
        told.attach(_header(named[0]))
    return told


def doubts(events: Sequence[Mistrusted], *, host: str) -> Letter:
    """For the administrator."""
    last = events[-1]
    share = last.hard / max(last.recipients, 1)
    subject = f"postmeter on {host}: bounces at {_printable(last.provider)} suppress nobody for now"
    return Letter(subject, "\n".join([*(_doubt(event) for event in events[-_MOST:]), _undo(last, share)]))


def _doubt(event: Mistrusted) -> str:
    return f"""\
{_printable(event.provider)}, on {_clock(event.time)}: {event.hard} of {event.recipients} recipients within
an hour were refused as addresses that do not exist. {event.suppressed} were suppressed
before this was clear.
"""


def _undo(event: Mistrusted, share: float) -> str:
    since = datetime.fromtimestamp(event.time - 3600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"""\
{share:.0%} of an hour's recipients cannot all have disappeared. Either that provider
is at fault, or many addresses were written to that never were any good. Its
bounces suppress nobody until an hour has passed since it last was so.

What was learned in that hour can be undone:

  postmeter suppress remove --since {since} --provider {shlex.quote(_printable(event.provider))}
      those suppressed for bounces there since then may be written to again
  postmeter suppress list --since {since} --provider {shlex.quote(_printable(event.provider))}
      who they are, and what was said
"""


def _words(message: Submitted, removed: Sequence[Suppressed], host: str) -> str:
    others = "It concerns no\nothers." if message.recipients else ""
    told = "\n".join(_told(one) for one in removed[:_MOST])
    more = f"\nAnd {len(removed) - _MOST} more.\n" if len(removed) > _MOST else ""
    named = f"\n  {_printable(message.message_id)}\n" if message.message_id else "\n"
    return f"""\
This is the mail server {host}. Your message of {_clock(message.time)}
{named}
was not sent to these recipients, since mail to them is suppressed here. {others}

{told}{more}
Do not send it to them once more: the answer would be the same. If one of these
addresses is right all the same, ask whoever runs this mail server to lift it:

  postmeter suppress remove {shlex.quote(_printable(removed[0].recipient))}
"""


def _text(words: str) -> Message:
    """Readable as it stands, whatever it holds."""
    part = EmailMessage(policy=SMTP)
    part.set_content(words, cte="7bit" if words.isascii() else "quoted-printable")
    return part


def _told(one: Suppressed) -> str:
    since = f" since {_day(one.since)}" if one.since else ""
    until = f", until {_day(one.until)}" if one.until is not None else ""
    said = f"      {_printable(one.evidence)}\n" if one.evidence else ""
    return f"  {_printable(one.recipient)}\n      suppressed{since}{until}: {_WHY.get(one.reason, one.reason)}\n{said}"


def _status(message: Submitted, removed: Sequence[Suppressed], host: str) -> MIMEBase:
    """RFC 3464 section 2: fields of the message, then a group of fields for each recipient."""
    part = MIMEBase("message", "delivery-status", policy=SMTP)
    first = _fields(("Reporting-MTA", f"dns; {host}"), ("Arrival-Date", _date(message.time)))
    if removed[0].envid:
        first["Original-Envelope-Id"] = _ascii(removed[0].envid)
    groups: list[Message | str] = [first]
    for one in removed:
        said = _ascii(f"suppressed, {one.reason}: {one.evidence}" if one.evidence else f"suppressed, {one.reason}")
        groups.append(
            _fields(
                ("Final-Recipient", _address(one.recipient)),
                ("Action", "failed"),
                ("Status", STATUS),
                ("Diagnostic-Code", f"x-postmeter; {said}"),
                ("Last-Attempt-Date", _date(one.time)),
            )
        )
    part.set_payload(groups)
    return part


def _header(message_id: str) -> MIMEText:
    """Of the message, all that is known of it (RFC 6522 section 4)."""
    return MIMEText(f"Message-ID: {message_id}\n", "rfc822-headers", "us-ascii", policy=SMTP)


def _fields(*pairs: tuple[str, str]) -> Message:
    group = Message()
    for name, value in pairs:
        group[name] = value
    return group


def _address(recipient: str) -> str:
    """RFC 6533 section 3: what is beyond ASCII is written so that any server passes it on."""
    if recipient.isascii():
        return f"rfc822; {_ascii(recipient)}"
    return "utf-8; " + "".join(
        char if "!" <= char <= "~" and char != "\\" else f"\\x{{{ord(char):X}}}" for char in recipient
    )


def _ascii(text: str) -> str:
    return "".join(char if " " <= char <= "~" else "?" for char in text[:500])


def _printable(text: str, longest: int = 300) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:longest])


def _date(when: float) -> str:
    return format_datetime(datetime.fromtimestamp(when, UTC))


def _day(when: float) -> str:
    return f"{datetime.fromtimestamp(when, UTC):%Y-%m-%d}"


def _clock(when: float) -> str:
    return f"{datetime.fromtimestamp(when, UTC):%Y-%m-%d at %H:%M:%S} UTC"
