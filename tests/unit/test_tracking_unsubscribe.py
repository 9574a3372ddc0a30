"""List-Unsubscribe and List-Unsubscribe-Post stand on bulk mail of one recipient, and on no other."""

from __future__ import annotations

import re
from dataclasses import replace
from email import message_from_bytes, policy
from typing import Any

import pytest

from postmeter.config.load import loads, read
from postmeter.config.schema import Tracking
from postmeter.config.unsubscribing import of_unsubscribes
from postmeter.mail import reading
from postmeter.mail.apply import apply
from postmeter.mail.draft import Draft
from postmeter.mail.message import Envelope, Message
from postmeter.submission.headers import BY_DEFAULT
from postmeter.token import Mint, Unsubscribe
from postmeter.tracking import unsubscribe

BASE = "https://click.example.com"
MINT = Mint([b"s" * 32])
NEWSLETTER = "From: Shop <news@shop.example>\r\nX-Campaign: spring\r\nSubject: Hello\r\n"
BODY = "\r\nLook!\r\n"
ONE = (b"bob@example.net",)


def run(
    header: str = NEWSLETTER,
    *,
    rcpt_to: tuple[bytes, ...] = ONE,
    size_limit: int = 0,
    given: dict[str, Any] | None = None,
    **keys: Any,
) -> Draft:
    fields, body = reading.read((header + BODY).encode())
    envelope = Envelope(b"news@shop.example", rcpt_to=rcpt_to, login="shop")
    message = Message(envelope, fields, body, queue_id="4X", time=0.0, reference=b"referenc")
    draft = replace(Draft(message, from_domain="shop.example"), **(given or {}))
    tracking = Tracking(**{"url": BASE, "unsubscribe": True, **keys})
    unsubscribe.step(tracking, MINT, nonce=lambda: b"only used 1x", size_limit=size_limit)(draft)
    return draft


def added(draft: Draft) -> list[tuple[str, str]]:
    """As the email package reads the message that leaves; nothing else of it may have changed."""
    before, after = apply(draft.message, ()), apply(draft.message, draft.changes)
    header, _, body = after.partition(b"\r\n\r\n")
    assert header.startswith(before.partition(b"\r\n\r\n")[0])
    assert body == draft.message.body
    assert max(map(len, header.split(b"\r\n"))) <= 998
    known = message_from_bytes(after, policy=policy.SMTP).items()
    return [(name, str(value)) for name, value in known[len(draft.message.fields) :]]


def test_bulk_mail_to_one_recipient_gets_both_fields() -> None:
    draft = run()
    (name, value), post = added(draft)
    assert name == "List-Unsubscribe"
    assert post == ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")
    found = re.fullmatch(rf"<{BASE}/u/([\w-]+)>", value)
    assert found
    assert MINT.open_unsubscribe("click.example.com", found[1]) == Unsubscribe(
        b"referenc", b"bob@example.net", "from:news@shop.example"
    )
    assert draft.facts == {"unsubscribe": "from:news@shop.example", "bulk": True}
    assert draft.notes[0].text.endswith("who uses it leaves from:news@shop.example")


def test_both_are_signed_by_default() -> None:
    """RFC 8058 section 4."""
    assert {b"list-unsubscribe", b"list-unsubscribe-post"} <= set(BY_DEFAULT.choose(run().fields).names)


@pytest.mark.parametrize("privacy", ["totals", "pseudonymous", "recipients"])
def test_privacy_makes_no_difference(privacy: str) -> None:
    assert added(run(privacy=privacy)) == added(run())


def test_a_list_is_left_by_its_id() -> None:
    assert run(f"{NEWSLETTER}List-Id: <weekly.shop.example>\r\n").facts["unsubscribe"] == (
        "list:shop.example/weekly.shop.example"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"header": "From: news@shop.example\r\n"}, "not bulk mail"),
        ({"header": f"{NEWSLETTER}In-Reply-To: <1@a.example>\r\n"}, "not bulk mail"),
        ({"header": f"{NEWSLETTER}Auto-Submitted: auto-generated\r\n"}, "not bulk mail"),
        ({"header": f"{NEWSLETTER}LIST-UNSUBSCRIBE: <mailto:a@b.example>\r\n"}, "one of its own"),
        ({"header": f"{NEWSLETTER}List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"}, "one of its own"),
        ({"header": f"{NEWSLETTER}DKIM-Signature: v=1\r\n"}, "somebody else has signed it"),
        ({"header": f"{NEWSLETTER}ARC-Message-Signature: i=1\r\n"}, "somebody else has signed it"),
        ({"rcpt_to": (b"a@a.example", b"b@b.example")}, "not exactly one recipient"),
        ({"rcpt_to": ()}, "not exactly one recipient"),
        ({"given": {"borrowed": True}}, "may not use this From domain"),
        ({"header": "X-Campaign: x\r\n"}, "no one author"),
        ({"header": "From: a@a.example, b@b.example\r\nX-Campaign: x\r\n"}, "no one author"),
        ({"url": "http://click.example.com"}, "not https"),
        ({"rcpt_to": (b"x" * 700 + b"@a.example",)}, "its line would be too long"),
        ({"size_limit": 4096}, "the message would be too large"),
    ],
)
def test_other_mail_stays_as_it_is_and_explain_says_why(changes: dict[str, Any], reason: str) -> None:
    draft = run(**changes)
    assert draft.changes == []
    assert draft.facts == {}
    assert [note.text for note in draft.notes if reason in note.text], draft.notes


@pytest.mark.parametrize(
    "changes", [{"unsubscribe": False}, {"url": None}, {"given": {"free": "notice"}}, {"given": {"free": "marked"}}]
)
def test_where_it_is_not_wanted_nothing_is_said_of_it(changes: dict[str, Any]) -> None:
    draft = run(**changes)
    assert (draft.changes, draft.notes, draft.facts) == ([], [], {})


def test_a_domain_or_login_can_have_it_otherwise() -> None:
    assert added(run(unsubscribe=False, domains={"shop.example": {"unsubscribe": True}}))
    assert not added(run(domains={"shop.example": {"unsubscribe": True}}, logins={"shop": {"unsubscribe": False}}))
    (_, value), _ = added(run(domains={"shop.example": {"url": "https://go.shop.example"}}))
    assert value.startswith("<https://go.shop.example/u/")


def test_every_copy_has_a_nonce_of_its_own() -> None:
    numbers = iter(range(2))
    tracking = Tracking(url=BASE, unsubscribe=True)
    step = unsubscribe.step(tracking, MINT, nonce=lambda: bytes([next(numbers)]) * 12, size_limit=0)
    drafts = [Draft(run().message, from_domain="shop.example") for _ in range(2)]
    for draft in drafts:
        step(draft)
    assert added(drafts[0]) != added(drafts[1])


HOOK = "webhooks: [{url: 'https://crm.example.com/', events: [unsubscribed]}]\n"


def warned(text: str) -> list[str]:
    return [str(problem) for problem in of_unsubscribes(read(text, "pm.yaml"))]


def test_a_good_configuration_has_no_warnings() -> None:
    assert warned("{}") == []
    assert warned(f"{HOOK}tracking: {{url: {BASE}, unsubscribe: true}}") == []
    assert loads(f"tracking: {{url: {BASE}, unsubscribe: true}}").tracking.unsubscribe


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (f"{HOOK}tracking:\n  unsubscribe: true", "pm.yaml:3: tracking.unsubscribe: warning: has no effect without"),
        (
            f"{HOOK}tracking:\n  url: http://a.example\n  unsubscribe: true",
            "pm.yaml:4: tracking.unsubscribe: warning: http://a.example is not https, so no List-Unsubscribe is added",
        ),
        (
            f"{HOOK}tracking:\n  url: {BASE}\n  unsubscribe: true\n  domains: {{a.example: {{url: 'http://a.example'}}}}",
            "pm.yaml:5: tracking.domains.a.example.url: warning: http://a.example is not https",
        ),
        (
            f"{HOOK}tracking:\n  url: {BASE}\n  logins: {{ann: {{unsubscribe: true}}}}\ndkim: {{headers: ['(o)from']}}",
            "pm.yaml:5: dkim.headers: warning: mail programs offer one click only where the signature covers both",
        ),
        (
            f"tracking:\n  url: {BASE}\n  unsubscribe: true",
            "pm.yaml:3: tracking.unsubscribe: warning: who unsubscribes is recorded",
        ),
    ],
)
def test_what_keeps_it_from_working_is_told(text: str, warning: str) -> None:
    (line,) = warned(text)
    assert line.startswith(warning)


def test_a_section_that_leaves_it_off_is_not_warned_of() -> None:
    assert warned("tracking: {url: 'http://a.example', domains: {a.example: {url: 'http://b.example'}}}") == []


def test_a_program_without_one_click_can_write_a_mail() -> None:
    """RFC 2369: the token of the page stands in the subject; https comes first, as RFC 8058 wants it."""
    (_, value), post = added(run(unsubscribe_mailto="leave+shop@example.com"))
    assert post == ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")
    mail = r"<mailto:leave\+shop@example\.com\?subject=unsubscribe%20([\w-]+)>"
    found = re.fullmatch(rf"<{BASE}/u/([\w-]+)>, {mail}", value)
    assert found
    assert found[1] == found[2]


def test_an_address_cannot_end_the_url_it_stands_in() -> None:
    (_, value), _ = added(run(unsubscribe_mailto="a?b=c&d>e,<f#@example.com"))
    assert "<mailto:a%3Fb%3Dc%26d%3Ee%2C%3Cf%23@example.com?subject=unsubscribe%20" in value
