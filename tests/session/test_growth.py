"""Time grows with the length of what strangers send, whatever stands in it: addresses, fields, bounces, lines of a log.

By processor time; each takes longer than its rule is worth between two changes of the code.
"""

from __future__ import annotations

import time

import pytest

from postmeter.delivery.postfixlog import parse
from postmeter.feedback.reading import read
from postmeter.mail import address
from postmeter.mail.fieldtext import text
from tests.growth import growth
from tests.unit.test_delivery_postfixlog import NOW, STARTS
from tests.unit.test_feedback_reading import report


@pytest.mark.parametrize("unit", [b"()", b"(", b"\"\\\"", b" ", b"a", b".", b"<", b",", b"a@b,", b"=?", b"\\", b":;"])
def test_addresses_take_no_longer_than_their_length(unit: bytes) -> None:
    """60,000 octets are the most that Postfix hands over (D15); the bound is a hundred times what it takes."""
    much = unit * (60_000 // len(unit))
    for value in (much, b"a@b" + much, b'"' + much + b'" <a@b>'):
        start = time.process_time()
        address.mailboxes(value)
        assert time.process_time() - start < 5


@pytest.mark.parametrize("unit", [b"=?a?q?", b"=?utf-8?b?", b"?= ", b"?=\t=?", b"=?utf-8?q?a?= ", b" ", b"=?"])
def test_the_text_of_a_field_takes_as_long_as_its_length(unit: bytes) -> None:
    """Four times the value takes about four times as long, not sixteen times."""
    assert growth(text, unit * (25_000 // len(unit)), unit * (100_000 // len(unit))) < 10


@pytest.mark.parametrize(
    "piece", ['"', '\\"<', ", a=<", "; from=<", " as ", "#012", ": ", "queued as ", "(in reply to "]
)
def test_a_line_of_the_log_takes_as_long_as_its_length(piece: str) -> None:
    starts = [f"2026-11-22T12:00:00Z mx postfix/{tag}[1]: {start}" for tag in ("smtp", "cleanup") for start in STARTS]

    def work(count: int) -> object:
        return [parse(f"{start}{piece * count}".encode(), now=NOW) for start in starts]

    assert growth(work, 250, 2000) < 32  # a square would be 64


@pytest.mark.parametrize("piece", ["x", "\\", "\\]", "[]", "[", "] ", " - "])
def test_structured_data_takes_as_long_as_its_length(piece: str) -> None:
    def work(count: int) -> object:
        return [parse(f"1 2026-11-22T12:00:00Z mx postfix/smtp 1 - {start}{piece * count}".encode(), now=NOW)
                for start in ("", "[", "[a]", "- ")]  # fmt: skip

    assert growth(work, 2000, 16_000) < 32  # a square would be 64


HOSTILE = {
    "a returned message of 10 MB": report("Final-Recipient: rfc822; a@b.example\nAction: failed\nStatus: 5.1.1")
    + b"x" * (10 << 20),
    "100,000 parts": b"Content-Type: multipart/report; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 100_000,
    "300,000 fields": b"X: y\r\n" * 300_000,
    "a field of 300,000 lines": b"X: y\r\n" + b" z\r\n" * 300_000,
    "100,000 recipients": report("Final-Recipient: rfc822; a@b.example\nAction: failed\n\n" * 100_000),
    "100,000 addresses": b"From: MAILER-DAEMON@x\r\n\r\ncould not be delivered\r\n"
    + b"<a@b.example>: 550 x\r\n" * 100_000,
    "nested parts": b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(5000)
    ),
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE)
def test_hostile_mail_costs_what_its_length_costs(raw: bytes) -> None:
    begun = time.process_time()
    found = read(raw)
    assert time.process_time() - begun < 1
    assert len(found.recipients) <= 1000


WORDS = [
    "user ",
    "deliver",
    "no such ",
    "could not ",
    "550 ",
    "original message ",
    "a@b.example ",
    "- ",
    "host.",
    "exceed ",
]


@pytest.mark.parametrize("word", WORDS)
def test_words_repeated_for_ever_cost_what_their_length_costs(word: str) -> None:
    raw = b"From: MAILER-DAEMON@x\r\nSubject: Undeliverable\r\n\r\nnot delivered " + word.encode() * (
        60_000 // len(word)
    )
    begun = time.process_time()
    read(raw)
    assert time.process_time() - begun < 0.3
