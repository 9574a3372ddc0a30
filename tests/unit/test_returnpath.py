"""Bulk mail of ours leaves with a return path by which we know it again; all other mail as it came."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.config.load import loads, read
from postmeter.config.returning import of_returns
from postmeter.config.schema import Bounces
from postmeter.mail import reading
from postmeter.mail.apply import apply
from postmeter.mail.draft import Draft, Wishes
from postmeter.mail.message import Envelope, InsertField, Message, ReplaceSender
from postmeter.submission import returnpath
from postmeter.submission.headers import BY_DEFAULT
from postmeter.tag import Tagger

TAGGER = Tagger([bytes(32)])
REFERENCE = b"referenc"
TAG = TAGGER.tag(REFERENCE)
DOMAINS = {"example.com": "bounces@example.com"}
LETTER = b"From: Alice <alice@example.com>\r\nSubject: Hello\r\n\r\nHello.\r\n"


def run(
    raw: bytes = LETTER,
    *,
    envelope: dict[str, Any] | None = None,
    draft: dict[str, Any] | None = None,
    bulk: bool = True,
    size_limit: int = 0,
    **keys: Any,
) -> Draft:
    fields, body = reading.read(raw)
    known = Envelope(b"alice@example.com", rcpt_to=(b"r@example.net",), login="alice@example.com")
    message = Message(replace(known, **(envelope or {})), fields, body, "4X", 0.0, REFERENCE)
    made = replace(Draft(message, sender="alice@example.com", from_domain="example.com"), **(draft or {}))
    bounces = Bounces(**{"domains": DOMAINS, **keys})
    assert returnpath.step(bounces, TAGGER, bulk=lambda draft: bulk, size_limit=size_limit)(made) is None
    return made


def sender(draft: Draft) -> ReplaceSender | None:
    found = [change for change in draft.changes if isinstance(change, ReplaceSender)]
    assert len(found) <= 1
    return found[0] if found else None


def added(draft: Draft) -> dict[str, str]:
    fields = [change.field for change in draft.changes if isinstance(change, InsertField)]
    return {field.name.decode(): field.value.decode().strip() for field in fields}


def test_bulk_mail_gets_a_tagged_return_path_of_the_from_domains_entry() -> None:
    draft = run()
    assert sender(draft) == ReplaceSender(f"bounces+{TAG}@example.com".encode(), (f"ENVID={TAG}".encode(),))
    assert draft.facts == {"bulk": True, "return_path": f"bounces+{TAG}@example.com"}
    assert TAGGER.open_address(str(draft.facts["return_path"])) == REFERENCE
    assert draft.notes[0].text == f"bounces come to bounces+{TAG}@example.com, with that ENVID"
    assert apply(draft.message, draft.changes) == apply(draft.message, ())


@given(st.binary(min_size=8, max_size=8), st.integers(1, 31))
def test_a_local_part_never_outgrows_what_servers_must_take(reference: bytes, length: int) -> None:
    draft = run()
    draft.message = replace(draft.message, reference=reference)
    draft.changes.clear()
    bounces = Bounces(domains={"example.com": "b" * length + "@example.com"})
    returnpath.step(bounces, TAGGER, bulk=lambda draft: True)(draft)
    change = sender(draft)
    assert change
    assert len(change.address.partition(b"@")[0]) == length + 33 <= 64


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"envelope": {"mail_from": b""}}, "it has none"),
        ({"draft": {"free": "notice"}}, "it is a notice"),
        ({"draft": {"free": "marked"}}, "it was here before"),
        ({"draft": {"free": "test"}}, "it is a test"),
        ({"draft": {"borrowed": True}}, "its login may not use this From domain"),
        ({"draft": {"from_domain": ""}}, "it has no one From domain"),
        ({"draft": {"from_domain": "example.org"}}, "example.org is not in bounces.domains"),
        ({"bulk": False}, "it is not bulk mail"),
        ({"envelope": {"mail_from": f"Bounces+{TAG}@example.com".encode()}}, "it has a tag of ours"),
        ({"domains": {"example.com": "b" * 32 + "@example.com"}}, "has no room for a tag"),
    ],
)
def test_other_mail_keeps_its_return_path_and_explain_says_why(given: dict[str, Any], why: str) -> None:
    draft = run(**given)
    assert draft.changes == []
    assert "return_path" not in draft.facts
    assert [note.step for note in draft.notes] == ["return path"]
    assert draft.notes[0].text.startswith("left as it is: ")
    assert draft.notes[0].text.endswith(why)


def test_with_tag_all_other_mail_is_tagged_too_and_is_no_bulk_mail() -> None:
    draft = run(bulk=False, tag="all")
    assert sender(draft)
    assert "bulk" not in draft.facts


@pytest.mark.parametrize(
    ("envelope", "envid"),
    [
        ({"args": (b"SIZE=100", b"RET=HDRS")}, True),
        ({"args": (b"SIZE=100", b"ENVID=theirs")}, False),
        ({"args": (b"envid=theirs",)}, False),
        ({"waits": False}, False),
    ],
)
def test_envid_is_set_only_where_the_client_sent_none(envelope: dict[str, Any], envid: bool) -> None:
    """Of sendmail(1)'s mail Postfix tells nothing, so it may have one."""
    change = sender(run(envelope=envelope))
    assert change
    assert bool(change.args) is envid
    off = sender(run(envelope=envelope, envid=False))
    assert off
    assert off.args == ()


def test_feedback_id_names_campaign_login_and_domain() -> None:
    draft = run(draft={"wishes": Wishes(campaign="spring: 2026")}, feedback_id=True)
    assert added(draft) == {"Feedback-ID": "spring-2026:alice:example.com:postmeter"}


def test_a_login_that_the_message_does_not_show_is_not_to_be_read() -> None:
    draft = run(draft={"sender": "secret-login"}, feedback_id=True)
    assert added(draft) == {"Feedback-ID": f":{TAGGER.pseudonym('secret-login')}:example.com:postmeter"}


@given(campaign=st.text(max_size=200), login=st.text(max_size=100))
def test_no_campaign_or_login_breaks_out_of_its_place(campaign: str, login: str) -> None:
    value = added(run(draft={"wishes": Wishes(campaign=campaign), "sender": login}, feedback_id=True))["Feedback-ID"]
    assert value.isascii()
    assert value.isprintable()
    assert len(value) < 300
    assert value.count(":") == 3
    assert value.endswith(":example.com:postmeter")


def test_complaints_are_asked_for_where_the_rfc_lets_us() -> None:
    """RFC 9477 section 3.1: the address is of the From domain, or below it; else both would have to sign."""
    for within in ("fbl@example.com", "fbl@news.example.com"):
        wanted = {"CFBL-Address": f"{within}; report=arf", "CFBL-Feedback-ID": TAG}
        assert added(run(cfbl_address=within)) == wanted
    assert added(run(cfbl_address="fbl@example.com", draft={"from_domain": "news.example.com"})) == {}
    assert added(run(cfbl_address="fbl@example.org")) == {}
    assert added(run(cfbl_address="fbl@ample.com")) == {}


def test_fields_of_the_senders_own_stay_alone() -> None:
    own = b"Feedback-ID: 1:2:3:mine\r\nCFBL-Address: own@example.com\r\n" + LETTER
    assert added(run(own, feedback_id=True, cfbl_address="fbl@example.com")) == {}


def test_a_message_that_is_all_but_too_large_gets_no_fields() -> None:
    draft = run(feedback_id=True, size_limit=1000)
    assert added(draft) == {}
    assert sender(draft)
    assert added(run(feedback_id=True, size_limit=2000)) == added(run(feedback_id=True)) != {}


def test_what_is_added_is_signed() -> None:
    draft = run(feedback_id=True, cfbl_address="fbl@example.com")
    names = BY_DEFAULT.choose(draft.fields).names
    assert {b"feedback-id", b"cfbl-address", b"cfbl-feedback-id"} <= set(names)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("bounces: {domains: {example.com: bounces@example.com}}", []),
        ("bounces: {domains: {example.com: b@mail.example.com}}", []),
        ("bounces: {domains: {news.example.com: b@example.com}}", []),
        ("bounces: {domains: {example.com: b@example.org}}", ["b@example.org is not of example.com"]),
        (f"bounces: {{domains: {{example.com: {'b' * 32}@example.com}}}}", ["has no room for a tag"]),
        ("bounces: {feedback_id: yes}", []),
        ("bounces: {feedback_id: yes, cfbl_address: f@example.com}\ndkim: {headers: [from, feedback-id]}",
         ["it leaves cfbl-address, cfbl-feedback-id unsigned"]),
    ],
)  # fmt: skip
def test_check_config_tells_what_would_not_work(text: str, told: list[str]) -> None:
    found = [problem.what for problem in of_returns(read(text, "test"))]
    assert len(found) == len(told)
    assert all(part in message for part, message in zip(told, found, strict=True)), found
    assert loads(text)
