"""Time grows with the length of what strangers send, whatever stands in it: addresses, field texts, lines of the log.

By processor time; each takes longer than its rule is worth between two changes of the code.
"""

from __future__ import annotations

import time

import pytest

from postmeter.delivery.postfixlog import parse
from postmeter.mail import address
from postmeter.mail.fieldtext import text
from tests.growth import growth
from tests.unit.test_delivery_postfixlog import NOW, STARTS


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
