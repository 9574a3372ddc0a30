"""What servers' own words mean: the same in Postfix's log as in the bounce that Postfix makes of it.

tests/data/replies.txt was written for this test.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from postmeter.delivery import word
from postmeter.delivery.postfixlog import parse
from postmeter.events import Bounced
from postmeter.feedback.reading import read
from postmeter.mail import said
from postmeter.store.lives import Life
from tests.growth import growth

LINES = (Path(__file__).parent.parent / "data" / "replies.txt").read_text("utf-8").splitlines()
REPLIES = [tuple(line.split("|", 1)) for line in LINES if not line.startswith("#")]
_ADDRESS = re.compile(r"[\w.+-]+@[\w.-]+\w")
_LINE = (
    "2026-11-22T12:00:00Z mx postfix/smtp[7]: 0F5383D: to=<a@example.com>, relay=mx.example.net[192.0.2.25]:25, "
    "delay=1, delays=0/0/0/1, dsn={status}, status=bounced "
    "(host mx.example.net[192.0.2.25] said: {reply} (in reply to {to} command))"
)
_BOUNCE = """From: MAILER-DAEMON@mx.example.com (Mail Delivery System)
To: news+tag@example.com
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: text/plain; charset=utf-8

This is the mail system at host mx.example.com.

<a@example.com>: host mx.example.net[192.0.2.25] said: {reply} (in
    reply to {to} command)
--b
Content-Type: message/global-delivery-status; charset=utf-8

Reporting-MTA: dns; mx.example.com

Final-Recipient: rfc822; a@example.com
Action: failed
Status: {status}
Remote-MTA: dns; mx.example.net
Diagnostic-Code: smtp; {reply}

--b
Content-Type: message/rfc822

From: news@example.com
To: a@example.com

x
--b--
"""


def _status(reply: str) -> str:
    """As Postfix has it: what stands behind the code, else the class alone."""
    found = re.match(r"(\d)\d\d[ -](\1\.\d{1,3}\.\d{1,3})(?=\s)", reply)
    return found[2] if found else f"{reply[0]}.0.0"


def in_the_log(reply: str, to: str) -> bool:
    line = parse(_LINE.format(status=_status(reply), reply=reply, to=to).encode(), now=0.0)
    assert line is not None
    life = Life("mx", "postfix", "0F5383D", 0.0)
    event = word.delivery(life, "a@example.com", line, final="", provider="other", tls="", time=0.0)
    assert isinstance(event, Bounced)
    return event.hard


def in_a_report(reply: str, to: str) -> bool:
    report = read(_BOUNCE.format(status=_status(reply), reply=reply, to=to).encode())
    [one] = report.recipients
    assert (one.recipient, one.action) == ("a@example.com", "failed")
    return one.hard


def test_log_and_report_say_alike_whether_nobody_is_there() -> None:
    found = [(reply, in_the_log(reply, "RCPT TO"), in_a_report(reply, "RCPT TO")) for _, reply in REPLIES]
    assert found == [(reply, what == "hard", what == "hard") for what, reply in REPLIES]


NAMES = ["temporary@example.com", "joe@temporary.example", "over-quota@example.com", "rate-limit@example.com",
         "blocked@spamhaus.example", "sender@disabled.example", "unknown.user@no.such.example"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_what_an_address_is_called_says_nothing(name: str) -> None:
    named = [(what, _ADDRESS.sub(name, reply)) for what, reply in REPLIES if _ADDRESS.search(reply)]
    found = [(reply, in_the_log(reply, "RCPT TO"), in_a_report(reply, "RCPT TO")) for _, reply in named]
    assert found == [(reply, what == "hard", what == "hard") for what, reply in named]


@pytest.mark.parametrize("host", ["mx.spamhaus.example", "relaying.example", "mx.dkim-test.example"])
def test_what_a_server_is_called_says_nothing(host: str) -> None:
    assert said.gone("5.0.0", f"host {host}[192.0.2.25] said: 550 No such user (in reply to RCPT TO)", at_rcpt=True)


@pytest.mark.parametrize(("stated", "hard"), [("5.1.1", True), ("5.7.1", False)])
def test_a_status_that_is_stated_counts_more_than_words(stated: str, hard: bool) -> None:
    words = {"5.1.1": "550 your message was blocked (#5.1.1)", "5.7.1": "550 no such user (#5.7.1)"}[stated]
    assert in_the_log(words, "RCPT TO") is in_a_report(words, "RCPT TO") is hard


def test_in_the_log_only_an_answer_to_rcpt_says_so() -> None:
    others = ("MAIL FROM", "DATA", "end of DATA")
    assert not [reply for _, reply in REPLIES if any(in_the_log(reply, to) for to in others)]


@pytest.mark.parametrize(
    "piece",
    ["sender ", "address ", "adresse ", "unknown ", "user. ", "用户", "your ", "bad ", "domaine ", "宛先"],
)
def test_time_grows_with_the_length_only(piece: str) -> None:
    def work(count: int) -> object:
        return said.gone("5.0.0", f"host mx said: 550 {piece * count}", at_rcpt=True)

    assert growth(work, 100, 800) < 32  # a square would be 64
