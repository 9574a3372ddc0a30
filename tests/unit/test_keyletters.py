"""What administrators are told of keys: which, what is wrong, what helps, what to publish; nothing that misleads."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.books import keyletters
from postmeter.events import KeyChanged

FAILED = KeyChanged(
    source="key:1", time=1_793_700_000.0, domain="example.com", selector="pm1r", change="failed",
    what="missing: pm1r._domainkey.example.com: there is no such name", fix="publish it",
    record="v=DKIM1; k=rsa; p=" + "A" * 392,
)  # fmt: skip


def test_a_failing_key_is_named_in_the_subject_with_its_fault_and_its_record() -> None:
    letter = keyletters.news([FAILED], host="mx")
    assert letter.subject == "postmeter on mx: DKIM key pm1r of example.com: DNS does not show what we sign with"
    for said in ("no such name", "What helps: publish it", "pm1r._domainkey.example.com. IN TXT", "dkim check"):
        assert said in letter.text


def test_a_key_is_told_once_as_it_was_last_heard_of() -> None:
    letter = keyletters.news([FAILED, replace(FAILED, change="mended", what="right", record="")], host="mx")
    assert letter.subject.endswith("DNS shows it again")
    assert letter.text.count("pm1r._domainkey") == 1


def test_of_many_the_failing_ones_come_first_and_the_rest_is_counted() -> None:
    many = [replace(FAILED, selector=f"n{nth}", change="pending") for nth in range(60)]
    letter = keyletters.news([*many, FAILED], host="mx")
    assert letter.subject == "postmeter on mx: 1 of 61 DKIM keys failed"
    assert letter.text.startswith("pm1r._domainkey")
    assert "And 11 more" in letter.text
    assert keyletters.news(many, host="mx").subject == "postmeter on mx: news of 60 DKIM keys"


@pytest.mark.parametrize("change", sorted(keyletters.TOLD))
def test_every_change_that_is_told_has_words(change: str) -> None:
    assert keyletters.news([replace(FAILED, change=change)], host="mx").subject


@given(st.text(), st.text())
def test_what_strangers_name_servers_say_stays_on_its_line(what: str, fix: str) -> None:
    letter = keyletters.news([replace(FAILED, what=what, fix=fix)], host="mx")
    plain = keyletters.news([replace(FAILED, what="", fix="x")], host="mx")
    assert len(letter.text.splitlines()) == len(plain.text.splitlines()) - (not fix)
    assert all(char.isprintable() or char == "\n" for char in letter.text)
