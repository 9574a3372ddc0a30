"""Quotas on a real Postfix: what a sender over the limit is told, when, and what is not charged."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Iterator

import pytest

from tests.lab.client import RefusedError, smtp
from tests.lab.lab import ALICE, BOB, Lab, letter
from tests.lab.postfix import LOGINS
from tests.lab.product import Postmeter

ROOM = r"room for (\d+) at \d\d:\d\d(:\d\d)? UTC \(in \d+ (s|min|h)\)"


@pytest.fixture
def lab(needs_postfix: None) -> Iterator[Lab]:
    """A lab for each test, with all its room: alice may write to four recipients an hour and two a message, bob one
    message a day, and is refused for good beyond that."""
    rules = [
        {"login": ALICE, "limits": ["4 recipients/hour", "2 recipients/message"]},
        {"login": BOB, "limits": ["1 message/day"], "over": "reject"},
    ]
    settings = {"quota": {"rules": rules}, "senders": {"from": {"*": "any"}}}
    with Lab(postmeter=Postmeter(settings)) as lab:
        yield lab


def refusal(lab: Lab, login: str, *, recipients: int = 1) -> RefusedError:
    """What a message to so many recipients is refused with."""
    names = [f"one{nth}@example.net" for nth in range(recipients)]
    with pytest.raises(RefusedError) as caught:
        lab.send(letter(sender=login), login=login, rcpt_to=names)
    return caught.value


def test_over_the_limit_is_told_in_words_and_numbers(lab: Lab) -> None:
    """Refused at MAIL, before the message is sent, with what was used, of how much, and when there is room."""
    for _ in range(4):
        lab.deliver(letter())
    refused = refusal(lab, ALICE)
    assert (refused.step, refused.answer.code, refused.answer.status) == ("MAIL", 451, "4.7.1")
    said = rf"4\.7\.1 {ALICE}: 4 of 4 recipients in the last hour; {ROOM}, limit 4 recipients/hour"
    assert re.fullmatch(said, refused.answer.text), refused.answer


def test_a_message_that_does_not_fit_is_refused_whole(lab: Lab) -> None:
    """Three used, two asked for: refused at its end, for all recipients, and a smaller one still fits."""
    for _ in range(3):
        lab.deliver(letter())
    refused = refusal(lab, ALICE, recipients=2)
    assert (refused.step, refused.answer.code) == ("end of DATA", 451)
    assert "3 of 4 recipients in the last hour; room for 2 at" in refused.answer.text
    lab.deliver(letter())


def test_what_can_never_fit_is_refused_for_good(lab: Lab) -> None:
    """RFC 3463 5.5.3: a client must not come again with it."""
    answer = refusal(lab, ALICE, recipients=3).answer
    assert (answer.code, answer.status) == (550, "5.5.3")
    assert "3 recipients in one message, limit 2 recipients/message" in answer.text


def test_a_rule_may_reject(lab: Lab) -> None:
    """`over: reject` turns 451 into 550; Python's own client sees the same words."""
    lab.deliver(letter(sender=BOB), login=BOB)
    with smtp(lab.postfix.ports["submission"], login=(BOB, LOGINS[BOB])) as client:
        with pytest.raises(smtplib.SMTPSenderRefused) as caught:
            client.sendmail(BOB, ["one@example.net"], letter(sender=BOB))
        assert caught.value.smtp_code == 550
        assert b"1 of 1 message in the last day" in bytes(caught.value.smtp_error)


def test_what_is_not_finished_is_not_charged(lab: Lab) -> None:
    """Recipients named and taken back, and a client gone in the middle, leave all of the room."""
    for _ in range(3):
        with lab.client() as client:
            client.envelope(ALICE, ["one@example.net", "two@example.net"])
            client.command(b"RSET")
            client.envelope(ALICE, ["one@example.net", "two@example.net"])
            client.command(b"DATA")
            client.write(b"Subject: half a message\r\n\r\nand")
    for _ in range(4):
        lab.deliver(letter())


def test_the_window_survives_a_restart(lab: Lab) -> None:
    """kill -9 and a new start: nothing is forgotten."""
    for _ in range(4):
        lab.deliver(letter())
    lab.postmeter.kill("milter")
    lab.postmeter.start("milter")
    assert "4 of 4 recipients" in refusal(lab, ALICE).answer.text


def test_the_null_sender_is_never_refused(lab: Lab) -> None:
    """A bounce is neither refused nor charged (RFC 5321 4.5.5), whoever sends it."""
    lab.deliver(letter(), mail_from="")
    for _ in range(4):
        lab.deliver(letter())
    lab.deliver(letter(), mail_from="")
