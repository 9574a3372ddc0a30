"""Which header fields are signed: all that matter, from the bottom up, and one more than there are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from postmeter.config.schema import HeaderRule
from postmeter.mail.message import Field
from postmeter.submission import headers

ALWAYS = [b"from", b"reply-to", b"subject", b"to", b"cc"]
NAMES = [b"From", b"SUBJECT", b"date", b"Received", b"List-Unsubscribe", b"X-Other", b"To", b"DKIM-Signature"]
messages = st.lists(st.sampled_from(NAMES), max_size=12).map(
    lambda names: [Field(name, b" %d" % nth) for nth, name in enumerate(names)]
)


def found_by_a_verifier(fields: list[Field], names: tuple[bytes, ...]) -> list[Field]:
    """RFC 6376 section 5.4.2: each name takes the lowest field of that name which no earlier one took, if any."""
    left = list(fields)
    found = []
    for name in names:
        for field in reversed(left):
            if field.name.lower() == name:
                found.append(field)
                left.remove(field)
                break
    return found


@given(messages)
def test_what_we_hash_is_what_a_verifier_will_find(fields: list[Field]) -> None:
    choice = headers.BY_DEFAULT.choose(fields)
    assert list(choice.fields) == found_by_a_verifier(fields, choice.names)


@given(messages)
def test_nobody_can_add_a_field_that_programs_show(fields: list[Field]) -> None:
    """True oversigning, of absent fields as well (C9: dkimpy's own does only those present)."""
    names = headers.BY_DEFAULT.choose(fields).names
    for name in ALWAYS:
        assert names.count(name) == 1 + sum(field.key == name for field in fields)


def test_all_fields_of_a_name_are_signed_from_the_bottom_up() -> None:
    top, bottom = Field(b"To", b" top"), Field(b"to", b" bottom")
    choice = headers.BY_DEFAULT.choose([top, Field(b"From", b" a@b"), bottom])
    assert choice.fields == (Field(b"From", b" a@b"), bottom, top)
    assert choice.names == (b"from", b"from", b"reply-to", b"subject", b"to", b"to", b"to", b"cc")


def test_one_click_unsubscribe_is_covered() -> None:
    """RFC 8058 section 4: without both in h=, Gmail and Yahoo show no button (C4)."""
    fields = [Field(b"List-Unsubscribe", b" <https://x>"), Field(b"List-Unsubscribe-Post", b" List-Unsubscribe=One")]
    assert {b"list-unsubscribe", b"list-unsubscribe-post"} <= set(headers.BY_DEFAULT.choose(fields).names)


def test_trace_fields_and_other_signatures_are_never_signed() -> None:
    """They change on the road (RFC 6376 section 5.4)."""
    names = {rule.name for rule in headers.DEFAULT}
    assert not names & {"received", "return-path", "dkim-signature", "bcc", "delivered-to", "authentication-results"}


def test_a_list_of_ones_own_marks_each_field() -> None:
    rules = (HeaderRule("from", "o"), HeaderRule("date", "x"), HeaderRule("subject"), HeaderRule("cc"))
    assert headers.Order(rules).choose([]).names == (b"from",)
    fields = [Field(name, b" x") for name in (b"From", b"Date", b"Subject")]
    assert headers.Order(rules).choose(fields).names == (b"from", b"from", b"date", b"date", b"subject")


def test_a_name_listed_twice_counts_once() -> None:
    rules = (HeaderRule("from", "o"), HeaderRule("from"), HeaderRule("from", "o"))
    assert headers.Order(rules).choose([Field(b"From", b" a@b")]).names == (b"from", b"from")
    assert headers.Order(rules).choose([]).names == (b"from",)
