"""Which refusals are the address's fault."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.mail.hardness import HARD, hard, statuses


@pytest.mark.parametrize("status", sorted(HARD))
def test_nobody_is_there(status: str) -> None:
    assert hard(status, f"550 {status} no such user here", at_rcpt=True)


@pytest.mark.parametrize("status", ["5.2.2", "5.7.1", "5.7.26", "5.4.4", "5.4.6", "5.0.0", "5.3.4", "4.1.1", ""])
def test_a_full_mailbox_policy_our_own_troubles_and_what_may_pass_are_soft(status: str) -> None:
    assert not hard(status, "no such user", at_rcpt=True)


def test_only_the_recipients_own_server_can_say_so() -> None:
    assert not hard("5.1.1", "550 5.1.1 no such user", at_rcpt=False)


def test_a_status_that_says_nothing_gives_way_to_that_in_the_words() -> None:
    assert hard("5.0.0", "550 5.1.1 <a@example.com>: user unknown", at_rcpt=True)
    assert not hard("5.0.0", "550 5.7.1 blocked", at_rcpt=True)


def test_policy_in_the_words_outweighs_a_gateways_status() -> None:
    assert not hard("5.1.1", "550 5.7.1 Client host blocked", at_rcpt=True)
    assert not hard("5.1.1", "450 4.1.1 unknown for now", at_rcpt=True)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("5.2.1", "550-5.2.1 The user you write to gets mail at a rate that 550-5.2.1 keeps more from being delivered"),
        ("5.2.1", "550-5.2.1 This person receives mail at a 550-5.2.1 rate that is beyond what 550 5.2.1 we deliver"),
        ("5.1.1", "550 5.1.1 <a@example.com> - 192.0.2.7 has written to too many recipients this hour"),
        ("5.1.1", "550 5.1.1 daily limit of this recipient reached"),
        ("5.1.1", "550 5.1.1 mailbox temporarily not there, try again later"),
    ],
)
def test_what_will_pass_by_the_words_is_no_fault_of_the_address(status: str, words: str) -> None:
    said = f"host mx.example.com[192.0.2.25] said: {words} (in reply to RCPT TO command)"
    assert not hard(status, said, at_rcpt=True)


@pytest.mark.parametrize(
    "words",
    [
        "550 5.1.1 <b@example.com>: Sender address rejected: no such user",
        "550-5.1.1 Verification failed for <b@example.com> 550 Sender verify failed",
        "550 5.1.1 sender is unknown",
        "550 5.1.1 Sender not found",
        "550 5.1.1 invalid sender",
    ],
)
def test_what_is_said_of_the_sender_is_no_fault_of_the_address(words: str) -> None:
    """Many servers answer to MAIL FROM only when they are told the recipient."""
    said = f"host mx.example.com[192.0.2.25] said: {words} (in reply to RCPT TO command)"
    assert not hard("5.1.1", said, at_rcpt=True)


@pytest.mark.parametrize("words", ["552 5.1.1 <a@example.com> quota of the recipient", "552-5.1.1 the box is full"])
def test_a_reply_about_space_is_no_fault_of_the_address(words: str) -> None:
    """Comcast, Orange and Zoho have 5.1.1 for it."""
    assert not hard("5.1.1", f"host mx.example.com[192.0.2.25] said: {words}", at_rcpt=True)
    assert hard("5.1.1", f"host mx.example.com[192.0.2.25] said: 550{words[3:]}", at_rcpt=True)


def test_what_tells_less_of_the_address_takes_nothing_from_what_tells_more() -> None:
    """Some mail systems put a class of their own before what the other server said."""
    assert hard("5.1.1", "5.1.0 - bad address 550-'5.1.1 <a@example.com>... unknown'", at_rcpt=True)
    assert not hard("5.1.1", "5.1.0 - bad address 550-'5.7.1 <a@example.com>... blocked'", at_rcpt=True)
    assert not hard("5.1.1", "550 5.1.0 address rejected", at_rcpt=True)
    assert not hard("5.1.1", "5.7.0 policy 550-'5.1.1 unknown'", at_rcpt=True)


def test_an_address_of_the_internet_is_no_status() -> None:
    assert hard("5.1.1", "host mx.example.com[192.0.2.25] said: 550 no (10.5.7.1)", at_rcpt=True)
    assert statuses("from 15.7.1.1 and 5.7.1") == ["5.7.1"]


@given(st.text(max_size=300), st.text(max_size=5000), st.booleans())
def test_any_text_is_answered(status: str, diagnostic: str, at_rcpt: bool) -> None:
    assert hard(status, diagnostic, at_rcpt=at_rcpt) in (True, False)
