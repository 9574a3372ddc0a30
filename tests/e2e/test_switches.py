"""What a program says in header fields that it wrote for a hosted relay: obeyed, gone at the sink, or refused."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import OpenLab
from tests.lab.client import RefusedError
from tests.lab.lab import BOB, Lab, letter
from tests.lab.product import Postmeter

PAGE = '<p><a href="https://shop.example/">offers</a></p>\r\n'
TRACKED = b"https://click.example.com/"
LIMIT = 3


@pytest.fixture(scope="module")
def lab(open_lab: OpenLab) -> Lab:
    """Bob has a limit; switches on mail from else.example do not count."""
    postmeter = Postmeter(
        {
            "quota": {"rules": [{"login": BOB, "limits": [f"{LIMIT} messages/day"]}]},
            "tracking": {
                "url": "https://click.example.com",
                "mail": "all",
                "domains": {"else.example": {"switches": "none"}},
            },
        }
    )
    postmeter.key("example.com", "pm")
    postmeter.secrets()
    return open_lab(Lab(postmeter=postmeter, sendmail=True))


def last(lab: Lab) -> dict[str, object]:
    """The facts of the newest message."""
    facts = lab.postmeter.events()[-1]["facts"]
    assert isinstance(facts, dict)
    return facts


@pytest.mark.parametrize(
    ("fields", "tracked"),
    [
        ([], True),
        (["X-Mailgun-Track-Clicks: no"], False),
        (["X-SMTPAPI: " + json.dumps({"filters": {"clicktrack": {"settings": {"enable": 0}}}})], False),
        (["X-PM-TrackLinks: None", "X-PM-TrackOpens: false"], False),
        (["X-Mailjet-TrackClick: 0"], False),
        (["X-Postmeter-Track: off", "X-Mailgun-Track: yes"], False),
        (["X-Mailgun-Track: no", "X-Postmeter-Track: clicks"], True),
    ],
)
def test_a_switch_is_obeyed_and_gone(lab: Lab, fields: list[str], tracked: bool) -> None:
    arrived = lab.deliver(letter(PAGE, html=True, fields=fields))
    assert (TRACKED in arrived.body) == tracked
    for field in fields:
        assert arrived.values(field.partition(":")[0].encode()) == []


def test_what_the_sender_calls_it_is_in_the_journal_and_not_in_the_mail(lab: Lab) -> None:
    """Several fields of a name, folded and encoded ones; what is in no list arrives as it was sent."""
    fields = [
        "X-Mailgun-Tag: welcome",
        "X-Mailgun-Tag: =?utf-8?q?gr=C3=BCn?=",
        'X-Mailgun-Variables: {\r\n\t"order": 17}',
        "X-PM-Metadata-Shop: north",
        "X-Postmeter-Campaign: spring",
        "X-Mailgun-Sid: left alone",
    ]
    arrived = lab.deliver(letter(fields=fields))
    facts = last(lab)
    assert (facts["campaign"], facts["tags"]) == ("spring", ["welcome", "grün"])
    assert facts["metadata"] == {"order": "17", "shop": "north"}
    assert arrived.header.count(b"X-Mailgun") == 1
    assert arrived.values(b"X-Mailgun-Sid") == [b"left alone"]
    assert b"X-PM-" not in arrived.header
    assert b"X-Postmeter" not in arrived.header


@pytest.mark.parametrize("field", ["X-Mailgun-Drop-Message: yes", "X-Sib-Sandbox: drop", "X-Postmeter-Test: yes"])
def test_a_test_is_accepted_and_reaches_nobody(lab: Lab, field: str) -> None:
    """It is in the journal, not charged, and counted by itself; what is sent behind it arrives."""
    before = lab.postmeter.metrics()
    tests = before.figure("messages_total", service="ORIGINATING", result="discarded")
    recipients = before.figure("recipients_total")
    for _ in range(LIMIT + 1):
        answer = lab.send(letter(fields=[field], sender=BOB), login=BOB, rcpt_to=["nobody-gets-it@example.net"])
        assert answer.code == 250
    facts = last(lab)
    assert facts["discarded"] == field.partition(":")[0]
    assert "charged" not in facts
    lab.postmeter.wait_figure(tests + LIMIT + 1, "messages_total", service="ORIGINATING", result="discarded")
    assert lab.postmeter.metrics().figure("recipients_total") == recipients
    assert lab.deliver(letter()).rcpt_to
    assert not [one for one in lab.sink.deliveries if b"nobody-gets-it@example.net" in one.rcpt_to]
    lab.postmeter.wait_until(lambda: lab.postfix.queued() == [])


def test_a_test_that_does_not_count_is_refused(lab: Lab) -> None:
    """It is not sent, for nobody was to get it; a switch that does not count is gone all the same."""
    with pytest.raises(RefusedError) as refused:
        lab.send(letter(fields=["X-Mailgun-Drop-Message: yes"], sender="news@else.example"))
    assert str(refused.value.answer).startswith("550 5.6.0 X-Mailgun-Drop-Message does not count")
    arrived = lab.deliver(letter(PAGE, html=True, sender="news@else.example", fields=["X-Mailgun-Track: no"]))
    assert TRACKED in arrived.body
    assert arrived.values(b"X-Mailgun-Track") == []


def test_a_test_by_sendmail_reaches_nobody(lab: Lab) -> None:
    lab.postfix.sendmail(letter(fields=["X-Postmeter-Test: yes"]), "nobody-gets-it@example.net")
    lab.postfix.wait_for(r"milter-discard: END-OF-MESSAGE from localhost")
    assert lab.deliver(letter()).rcpt_to
    assert not [one for one in lab.sink.deliveries if b"nobody-gets-it@example.net" in one.rcpt_to]


@pytest.mark.parametrize(
    ("field", "named"),
    [
        ("X-Mailgun-Deliver-By: Fri, 25 Oct 2030 23:10:10 -0000", "X-Mailgun-Deliver-By"),
        ("X-MC-MergeVars: {}", "X-MC-MergeVars"),
        ('X-SMTPAPI: {"sub": {"%n%": ["Ben"]}}', "X-SMTPAPI (sub)"),
        ('X-MSYS-API: {"bcc": [{"email": "c@example.net"}]}', "X-MSYS-API (bcc)"),
    ],
)
def test_what_cannot_be_done_here_is_refused_by_name(lab: Lab, field: str, named: str) -> None:
    with pytest.raises(RefusedError) as refused:
        lab.send(letter(fields=[field]))
    assert str(refused.value.answer).startswith(f"550 5.6.0 {named} ")
    assert lab.postmeter.events("refused")[-1]["reason"] == "switches"
