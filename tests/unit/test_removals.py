"""The report to a sender: a person understands it, a program reads it, and nobody's words can break it."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from postmeter.books.mailing import Mailer
from postmeter.books.removals import doubts, report
from postmeter.config.values import InetAddress
from postmeter.events import Mistrusted, Submitted, Suppressed

NOW = 1_800_000_000.0
MAILER = Mailer(InetAddress("127.0.0.1", 25), "postmaster@example.com", "mail.example.com")
MESSAGE = Submitted(
    source="eom:4XyZ:1",
    time=NOW,
    queue_id="4XyZ",
    reference="00" * 8,
    message_id="<1.lab@example.com>",
    login="alice@example.com",
    sender="alice@example.com",
    service="ORIGINATING",
    mail_from="alice@example.com",
    from_domain="example.com",
    recipients=("carol@example.net",),
    size=1,
)
REMOVED = Suppressed(
    source="suppressed:x:bob@example.net",
    time=NOW,
    queue_id="4XyZ",
    reference="00" * 8,
    login="alice@example.com",
    from_domain="example.com",
    recipient="bob@example.net",
    reason="bounced",
    scope="everywhere",
    evidence="550 5.1.1 <bob@example.net> unknown",
    since=NOW - 86_400,
    until=NOW + 86_400,
    envid="QQ123",
)


def arrived(message: Submitted, *removed: Suppressed) -> EmailMessage:
    """As a mail program reads it, from its octets."""
    octets = report(message, removed, MAILER, ident="0" * 32, now=NOW).as_bytes()
    read = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(read, EmailMessage)
    return read


def test_the_name_in_which_it_is_told_may_go_beyond_ascii() -> None:
    mailer = replace(MAILER, sender="pöst@example.com")
    told = report(MESSAGE, [REMOVED], mailer, ident="0" * 32, now=NOW)
    assert "From: postmeter <pöst@example.com>\r\n".encode() in told.as_bytes(policy=SMTP.clone(utf8=True))


def groups(status: Any) -> list[dict[str, str]]:
    """The groups of fields of a delivery status, unfolded."""
    return [{name: str(value).strip() for name, value in group.items()} for group in status.get_payload()]


def test_it_is_a_delivery_status_notification() -> None:
    """RFC 3464, and RFC 3834: nobody answers it."""
    told = arrived(MESSAGE, REMOVED)
    assert told.get_content_type() == "multipart/report"
    assert told.get_param("report-type") == "delivery-status"
    assert (told["To"], told["Auto-Submitted"]) == ("alice@example.com", "auto-replied")
    assert told["In-Reply-To"] == "<1.lab@example.com>"
    words, status, header = told.iter_parts()
    assert status.get_content_type() == "message/delivery-status"
    assert header.get_content_type() == "text/rfc822-headers"
    about, bob = groups(status)
    assert about["Reporting-MTA"] == "dns; mail.example.com"
    assert about["Original-Envelope-Id"] == "QQ123"
    assert bob["Final-Recipient"] == "rfc822; bob@example.net"
    assert (bob["Action"], bob["Status"]) == ("failed", "5.7.1")
    assert bob["Diagnostic-Code"] == "x-postmeter; suppressed, bounced: 550 5.1.1 <bob@example.net> unknown"
    assert "suppressed since 2027-01-14, until 2027-01-16: its mail came back" in words.get_content()


def test_an_address_beyond_ascii_is_written_as_any_server_passes_it_on() -> None:
    """RFC 6533 section 3."""
    told = arrived(MESSAGE, replace(REMOVED, recipient="jörg@example.net"))
    words, status, _ = told.iter_parts()
    assert "jörg@example.net" in words.get_content()
    assert groups(status)[1]["Final-Recipient"] == "utf-8; j\\x{F6}rg@example.net"


def test_of_very_many_the_words_name_some_and_the_fields_all() -> None:
    many = [replace(REMOVED, recipient=f"r{at}@example.net") for at in range(200)]
    words, status, _ = arrived(MESSAGE, *many).iter_parts()
    assert "And 150 more." in words.get_content()
    assert len(groups(status)) == 201


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_nobodys_words_make_fields_or_parts(evidence: str, recipient: str, message_id: str) -> None:
    odd = replace(REMOVED, evidence=evidence, recipient=recipient, envid=evidence)
    told = arrived(replace(MESSAGE, message_id=message_id), odd)
    assert set(told.keys()) <= {
        "Content-Type", "MIME-Version", "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "In-Reply-To",
        "References", "X-Postmeter-Notice",
    }  # fmt: skip
    parts = list(told.iter_parts())
    assert [part.get_content_type() for part in parts[:2]] == ["text/plain", "message/delivery-status"]
    found = groups(parts[1])
    assert len(found) == 2
    assert set(found[1]) == {
        "Final-Recipient", "Action", "Status", "Diagnostic-Code", "Last-Attempt-Date",
    }  # fmt: skip


def test_the_administrator_reads_what_undoes_it() -> None:
    event = Mistrusted(
        source="m", time=NOW, provider="Google", recipients=1000, hard=240, suppressed=37, until=NOW + 3600
    )
    letter = doubts([event], host="mail")
    assert letter.subject == "postmeter on mail: bounces at Google suppress nobody for now"
    assert "240 of 1000 recipients within" in letter.text
    assert "postmeter suppress remove --since 2027-01-15T07:00:00Z --provider Google" in letter.text
    assert max(map(len, letter.text.splitlines())) <= 80
