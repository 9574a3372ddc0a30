"""Whose mail is ours, whom it is counted on, and which From it may bear."""

from __future__ import annotations

from ipaddress import ip_network
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.config.schema import Senders
from postmeter.mail.draft import Draft
from postmeter.mail.message import Client, Envelope, Field, Message
from postmeter.submission.identity import Identity, Whose, from_domain, relayed, sender

OURS = {"example.com", "shop.example"}


def identity(**settings: object) -> Identity:
    return Identity(Senders(**settings), lambda domain: domain in OURS)  # type: ignore[arg-type]


def draft(*fields: tuple[str, str], login: str = "", sender: bytes = b"x@example.com") -> Draft:
    known = tuple(Field(name.encode(), b" " + value.encode()) for name, value in fields)
    client = Client(name="c", address="192.0.2.7", port=1)
    envelope = Envelope(sender, rcpt_to=(b"r@example.net",), login=login, service="ORIGINATING", client=client)
    return Draft(Message(envelope, known, b"", "4Q", 0.0, b"12345678"))


@pytest.mark.parametrize(
    ("envelope", "whose"),
    [
        (Envelope(b"a@b", login="alice", client=Client(address="192.0.2.1", port=9), service="smtpd"), Whose.OURS),
        (Envelope(b"a@b", client=Client(address="192.0.2.1", port=9), service="ORIGINATING"), Whose.OURS),
        (Envelope(b"a@b", client=Client(address="192.0.2.1", port=9), service="smtpd"), Whose.FOREIGN),
        (Envelope(b"a@b", client=Client(address="127.0.0.1", port=9), service="smtpd"), Whose.UNDECIDED),
        (Envelope(b"a@b", client=Client(address="::1", port=9), service="smtpd"), Whose.UNDECIDED),
        (Envelope(b"a@b"), Whose.UNDECIDED),
        (Envelope(b"a@b", client=Client(address="", port=-1), service="smtpd"), Whose.FOREIGN),
        (Envelope(b"a@b", client=Client(address="192.0.2.1", port=9, certificate="cn"), service="x"), Whose.FOREIGN),
    ],
)
def test_what_mail_tells(envelope: Envelope, whose: Whose) -> None:
    assert identity().by_envelope(envelope) is whose


def test_certificates_and_logins_count_only_where_configured() -> None:
    by_certificate = Envelope(b"a@b", client=Client(address="192.0.2.1", port=9, certificate="cn"), service="x")
    assert identity(certificates=True).by_envelope(by_certificate) is Whose.OURS
    by_login = Envelope(b"a@b", client=Client(address="192.0.2.1", port=9), login="alice", service="x")
    assert identity(authenticated=False).by_envelope(by_login) is Whose.FOREIGN


@pytest.mark.parametrize(
    "value",
    [
        " from mx (mx [192.0.2.9])\n\tby host (Postfix) with ESMTPS id 4Xy\n\tfor <x@y>; Sun, 1 Nov 2026",
        " from mx by host with SMTP; now",
        " by host (Dovecot) with LMTP id AbC",
        " from x (localhost) by host (Postfix) with UTF8SMTPSA id 4Xy; now",
        " from exchange by other with Microsoft SMTP Server (TLS) id 15; now",
        " from with (unknown [192.0.2.9]) by host (Postfix) with ESMTP id 4X; now",
        " from x(y (unknown [192.0.2.9]) by host (Postfix) with ESMTP id 4X; now",
        " (qmail 1 invoked from network) from x by y with (AES256 encrypted) SMTP; now",
    ],
)
def test_a_received_field_of_smtp_or_lmtp_means_transit(value: str) -> None:
    """Also when a HELO name tries to hide the clause."""
    assert relayed(value.encode())
    fields = [Field(b"Received", value.encode()), Field(b"From", b" a@example.com")]
    assert identity().by_header(fields) == "relayed"


@pytest.mark.parametrize(
    "value",
    [" by host (Postfix, from userid 1000)\n\tid 4Xy; now", " by app.example with HTTP; now", " (qmail 1 by uid 5)"],
)
def test_other_received_fields_mean_written_here(value: str) -> None:
    fields = [Field(b"Received", value.encode()), Field(b"From", b" a@example.com")]
    assert identity().by_header(fields) == ""


def test_mail_of_a_trusted_network_needs_a_domain_of_ours() -> None:
    foreign = [Field(b"From", b" a@elsewhere.example")]
    assert identity().by_header(foreign) == "foreign_domain"
    assert identity(from_={"x@example.com": ("elsewhere.example",)}).by_header(foreign) == ""
    assert identity().by_header([]) == "foreign_domain"


@given(st.binary(max_size=300))
def test_no_header_raises(value: bytes) -> None:
    fields = [Field(b"Received", value), Field(b"From", value)]
    assert identity().by_header(fields) in ("", "relayed", "foreign_domain")


@pytest.mark.parametrize(
    ("fields", "domain"),
    [
        ([("From", "Alice <a@Example.COM>")], "example.com"),
        ([("From", "a@example.com"), ("From", "a@example.com")], ""),
        ([("From", "a@example.com, b@example.com")], ""),
        ([], ""),
        ([("From", '"a@shop.example" <b@example.com>')], "example.com"),
    ],
)
def test_one_from_with_one_address_has_a_domain(fields: list[tuple[str, str]], domain: str) -> None:
    assert from_domain(draft(*fields).fields) == domain


@pytest.mark.parametrize(
    ("client", "login", "expected"),
    [
        (Client(address="192.0.2.7", port=1), "Alice@Example.com", "alice@example.com"),
        (Client(address="192.0.2.7", port=1), "", "192.0.2.7"),
        (Client(address="2001:db8:1:2:3::4", port=1), "", "2001:db8:1:2::/64"),
        (Client(), "", "local"),
        (Client(address="192.0.2.7", port=1, certificate="Printer"), "", "printer"),
    ],
)
def test_whom_quotas_count(client: Client, login: str, expected: str) -> None:
    """Letters' case gains nobody a second quota, nor do the addresses of one IPv6 network."""
    assert sender(Envelope(b"a@b", client=client, login=login)) == expected


@pytest.mark.parametrize(
    ("login", "from_", "lists", "reason"),
    [
        ("alice@example.com", "alice@example.com", {}, ""),
        ("ALICE@Example.com", "other@example.com", {}, ""),
        ("alice@example.com", "x@shop.example", {}, "from_mismatch"),
        ("alice@example.com", "x@sub.example.com", {}, "from_mismatch"),
        ("alice@example.com", "x@shop.example", {"alice@example.com": ("shop.example",)}, ""),
        ("alice@example.com", "x@shop.example", {"*@example.com": "any"}, ""),
        ("alice@example.com", "x@shop.example", {"bob@example.com": ("shop.example",)}, "from_mismatch"),
        ("alice", "x@shop.example", {}, ""),
        ("alice", "x@shop.example", {"alice": ("example.com",)}, "from_mismatch"),
        ("alice", "x@example.com", {"alice": ("example.com",)}, ""),
        ("alice@", "x@shop.example", {"alice": ("example.com",)}, "from_mismatch"),
        ("alice@.", "x@shop.example", {}, "from_mismatch"),
        ("", "x@shop.example", {}, ""),
        ("alice", "x@bücher.example", {"alice": ("xn--bcher-kva.example",)}, ""),
        ("alice@bücher.example", "x@xn--bcher-kva.example", {}, ""),
        ("alice@fass.example", "x@faß.example", {}, "from_mismatch"),
        ("alice", "x@shop.example", {"alice": ("example.com",), "a*": ("shop.example",)}, ""),
        ("alice", "x@shop.example", {"alice": ("example.com",), "*": "any"}, ""),
    ],
)
def test_a_login_signs_for_its_own_domain_and_those_listed(
    login: str, from_: str, lists: dict[str, object], reason: str
) -> None:
    who = identity(from_=lists)
    message = draft(("From", from_), login=login)
    who.step(message)
    assert who.why_unsigned(message) == reason


@pytest.mark.parametrize(("action", "code"), [("unsigned", None), ("report", None), ("reject", 550)])
def test_a_from_of_another_domain_is_counted_and_refused_where_asked(action: str, code: int | None) -> None:
    who = identity(from_mismatch=action)
    message = draft(("From", "x@shop.example"), login="alice@example.com")
    who.step(message)
    reply = who.check_from(message)
    assert (reply and reply.code) == code
    assert message.figures["from_mismatch_total", (action,)] == 1
    assert who.why_unsigned(message) == ("" if action == "report" else "from_mismatch")


def test_the_null_sender_is_never_refused_for_its_from() -> None:
    message = draft(("From", "x@shop.example"), login="alice@example.com", sender=b"")
    who = identity(from_mismatch="reject")
    who.step(message)
    assert who.check_from(message) is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ([], "no_from"),
        ([("From", "a@example.com"), ("From", "a@example.com")], "several_from"),
        ([("From", "a@example.com, b@example.com")], "several_from"),
        ([("From", "a@evil <a@example.com>")], "unclear_from"),
        ([("From", "nobody")], "unclear_from"),
    ],
)
def test_no_from_or_several_leave_unsigned(fields: list[tuple[str, str]], reason: str) -> None:
    message = draft(*fields, login="alice@example.com")
    who = identity()
    who.step(message)
    assert who.why_unsigned(message) == reason


def test_a_network_of_the_office_is_trusted_where_listed() -> None:
    envelope = Envelope(b"a@b", client=Client(address="198.51.100.9", port=1), service="smtpd")
    assert identity().by_envelope(envelope) is Whose.FOREIGN
    assert identity(networks=(ip_network("198.51.100.0/24"),)).by_envelope(envelope) is Whose.UNDECIDED


def test_a_list_of_thousands_of_logins_costs_a_message_as_much_as_one() -> None:
    """Each is tried once a login and From domain, and no glob is compiled at a message."""
    who = identity(from_={f"user{number}@example.com": ("shop.example",) for number in range(3000)})
    made = draft(("From", "x@shop.example"), login="user2999@example.com")
    made.from_domain = "shop.example"
    assert who.why_unsigned(made) == ""
    start = process_time()
    for _ in range(200):
        who.why_unsigned(made)
    assert process_time() - start < 0.1
