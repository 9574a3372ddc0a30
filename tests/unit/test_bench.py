"""The benchmark measures what it says: its two messages, its medians and ratios."""

from __future__ import annotations

import email
import email.policy
import re

import pytest

from tests.bench import account, report, signers, web
from tests.bench.messages import Mail, newsletter, plain
from tests.bench.rows import ALONE, FLOOR, OURS
from tests.bench.run import Sample


@pytest.mark.parametrize(("mail", "octets"), [(plain(), 2_000), (newsletter(), 30_000)], ids=["plain", "newsletter"])
def test_sizes_and_lines_are_as_announced(mail: Mail, octets: int) -> None:
    """Within two hundredths of 2 kB and 30 kB, with no line that a server would cut."""
    assert abs(len(mail.raw) - octets) < octets / 50
    assert all(len(line) <= 78 for line in mail.raw.split(b"\r\n"))
    assert b"\n" not in mail.raw.replace(b"\r\n", b"")


def test_newsletter_has_its_links_in_quoted_printable() -> None:
    """What Python's own parser decodes holds 25 links, and half of the message or more is HTML."""
    parsed = email.message_from_bytes(newsletter().raw, policy=email.policy.default)
    page = next(part for part in parsed.walk() if part.get_content_type() == "text/html")
    assert page["content-transfer-encoding"] == "quoted-printable"
    assert len(re.findall(r'<a href="https://', page.get_content())) == newsletter().links == 25
    assert len(page.get_content()) > 15_000


def test_fields_and_body_are_the_message() -> None:
    """What goes over the milter protocol is what goes over SMTP."""
    mail = newsletter()
    header = b"".join(b"%b:%b\r\n" % (name.encode(), value.replace(b"\n", b"\r\n")) for name, value in mail.fields())
    assert header + b"\r\n" + mail.body() == mail.raw


def test_medians_and_ratios() -> None:
    """A median of three rates, the spread over it, ratios to Postfix alone and to the milter that does nothing."""
    seconds = {ALONE: (1.0, 2.0, 4.0), FLOOR: (4.0, 4.0, 4.0), OURS: (8.0, 8.0, 10.0)}
    cpu = {ALONE: 0.0, FLOOR: 0.4, OURS: 1.2}
    pairs = [(row, nth, took) for row, each in seconds.items() for nth, took in enumerate(each)]
    samples = [Sample(row, "plain", nth, 1000, took, cpu[row]) for row, nth, took in pairs]
    found = report.results(samples)
    assert [(each.row, each.rate, each.rounds) for each in found] == [(ALONE, 500, 3), (FLOOR, 250, 3), (OURS, 125, 3)]
    assert found[0].spread == pytest.approx((1000 - 250) / 500)
    ours = next(line for line in report.table(found) if OURS in line).split()
    assert ours == [OURS, "125", "20%", "1.20", "0.25", "0.50", "3.0"]


def test_signers_stand_beside_the_floor() -> None:
    """The median of the rounds, and how many times the floor it is."""
    found = [signers.Spent("floor", "plain", [0.1, 0.2, 0.3]), signers.Spent("postmeter", "plain", [9.0, 0.5, 0.1])]
    assert [line.split()[-2:] for line in signers.table(found)[1:]] == [["0.20", "1.0x"], ["0.50", "2.5x"]]
    assert abs(len(signers.large().raw) - 10_000_000) < 10_000


def test_a_message_too_few_is_a_difference() -> None:
    """One message not in the journal, one not charged, one account that should not be: each is told."""
    wanted = account.expected(messages=10, links=250, limits={"messages": 1})
    assert account.differences(wanted, wanted) == []
    found = account.Account(9, 0, 10, 250, {"messages": 10, "bytes": 4})
    assert account.differences(found, wanted) == [
        "messages in the journal is 9, not 10",
        "ledger, bytes is 4, not None",
    ]
    uncharged = account.Account(10, 0, 10, 250, {"messages": 9})
    assert account.differences(uncharged, wanted) == ["ledger, messages is 9, not 10"]


def test_what_wrk_prints_is_read_and_errors_are_no_figures() -> None:
    text = "  Latency Distribution\n     50%  900.00us\n     99%    1.19s \n  12102 requests\nRequests/sec:   6036.27\n"
    assert web.read(text) == web.Speed(6036.27, 1190.0)
    for error in ("  Socket errors: connect 0, read 1\n", "  Non-2xx or 3xx responses: 5\n"):
        with pytest.raises(RuntimeError):
            web.read(text + error)
