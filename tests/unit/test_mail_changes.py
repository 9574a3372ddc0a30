"""Changes: a draft equals its message with the recorded changes made, and they reach Postfix in the right order."""

from __future__ import annotations

import copy
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.mail.apply import apply, ordered
from postmeter.mail.draft import Draft
from postmeter.mail.message import (
    Change,
    DropField,
    DropRecipient,
    Envelope,
    Field,
    InsertField,
    Message,
    ReplaceBody,
    ReplaceField,
)
from postmeter.mail.reading import read
from postmeter.mail.reply import Reply

NAMES = st.sampled_from([b"A", b"a", b"B", b"Received"])
VALUES = st.binary(max_size=5).filter(lambda raw: b"\n" not in raw and b"\r" not in raw)
FIELDS = st.lists(st.builds(Field, NAMES, VALUES))


def message(fields: list[Field], body: bytes = b"body\r\n") -> Message:
    return Message(Envelope(b"a@b"), tuple(fields), body, "4Q", 0.0, b"12345678")


def wire(draft: Draft) -> bytes:
    return b"".join(field.wire() for field in draft.fields) + b"\r\n" + draft.body


@given(FIELDS, st.data())
def test_a_draft_equals_its_message_with_the_changes_made(fields: list[Field], data: st.DataObject) -> None:
    """Edits of received fields, from the highest instance down; then insertions; and a body."""
    draft = Draft(message(fields))
    for name in (b"a", b"B", b"received"):
        count = sum(field.key == name.lower() for field in fields)
        for nth in range(count, 0, -1):
            if data.draw(st.booleans()):
                draft.replace_field(name, nth=nth, value=b" new")
        if data.draw(st.booleans()):
            assert draft.drop_fields(name) is None
            assert not any(field.key == name.lower() for field in draft.fields)
    for value in data.draw(st.lists(st.sampled_from([b" 1", b" 2"]), max_size=3)):
        draft.insert_field(Field(b"X-New", value))
    if data.draw(st.booleans()):
        draft.replace_body(b"other\r\n", ())
    assert apply(draft.message, draft.changes) == wire(draft)


@given(FIELDS, st.binary(max_size=9), st.binary(max_size=9))
def test_a_body_that_is_handed_over_is_gone_when_it_is_replaced(fields: list[Field], body: bytes, new: bytes) -> None:
    """And the sizes told stay those of the message with its body."""
    whole, draft = message(fields, body), Draft(message(fields, b""), body=body)
    for one in (draft, Draft(whole)):
        assert (one.body, one.size, one.size_with(new)) == (body, whole.size(), message(fields, new).size())
    draft.replace_body(new, ())
    assert (draft.body, draft.message.body) == (new, b"")
    assert (draft.size, draft.size_with(body)) == (whole.size(), whole.size())


@pytest.mark.parametrize(("count", "dropped"), [(100, 100), (101, 0), (1_000_000, 0)])
def test_so_many_fields_that_postfix_would_be_busy_for_long_are_not_dropped(count: int, dropped: int) -> None:
    """It goes through the header anew for each."""
    draft = Draft(message([Field(b"X-Odd", b" 1")] * count))
    reply = draft.drop_fields(b"x-odd")
    assert (len(draft.changes), count - len(draft.fields)) == (dropped, dropped)
    assert (reply is None) == bool(dropped)


def test_changes_reach_postfix_body_first_insertions_last() -> None:
    """D7, D13, D17: one body, then edits from the highest instance down, our own fields at the end."""
    stamp = InsertField(0, Field(b"DKIM-Signature", b" v=1"))
    low, high, who = DropField(b"X", 1), ReplaceField(b"X", 3, b" y"), DropRecipient(b"bob@example.net")
    changes: list[Change] = [ReplaceBody(b"draft"), low, stamp, high, who, ReplaceBody(b"final")]
    assert ordered(changes) == [ReplaceBody(b"final"), who, high, low, stamp]


def test_a_draft_goes_back_to_what_it_was_whatever_was_done_to_it() -> None:
    """Every attribute that a draft has, those to come too, each altered in place where that can be done."""
    draft = Draft(message([Field(b"A", b" 1")]), sender="alice")
    draft.count("quota_refusals_total")
    draft.note("identity", "alice")
    names = [one.name for one in dataclasses.fields(draft)]
    was = {name: copy.deepcopy(getattr(draft, name)) for name in names}
    state = draft.state()
    for name in names:
        match known := getattr(draft, name):
            case list():
                known += ["more"]
            case dict():
                known.clear()
                known["more", ()] = 1
            case _:
                setattr(draft, name, "another")
    draft.restore(state)
    assert {name: getattr(draft, name) for name in names} == was
    draft.count("links_rewritten_total")


@pytest.mark.parametrize(
    ("raw", "fields", "body"),
    [
        (b"A: 1\r\nB:2\r\n\r\nbody\r\n", [Field(b"A", b" 1"), Field(b"B", b"2")], b"body\r\n"),
        (b"A: 1\n\tfold\n\nbody", [Field(b"A", b" 1\n\tfold")], b"body"),
        (b"From x@y Sun\nA: 1\n\n", [Field(b"A", b" 1")], b""),
        (b"A : 1\nno field here\nB: 2\n", [Field(b"A", b" 1")], b"no field here\r\nB: 2\r\n"),
        (b"", [], b""),
    ],
)
def test_a_message_file_is_read_as_postfix_hands_it_over(raw: bytes, fields: list[Field], body: bytes) -> None:
    assert read(raw) == (tuple(fields), body)


@given(st.binary())
def test_reading_any_octets_never_raises(raw: bytes) -> None:
    read(raw)


@given(st.text())
def test_a_reply_is_one_printable_line_whatever_is_in_it(text: str) -> None:
    line = Reply(451, "4.7.1", text).line()
    assert line.isascii()
    assert all(" " <= char <= "~" for char in line)
    assert len(line) <= 400


@pytest.mark.parametrize(("code", "status"), [(250, "2.0.0"), (451, "5.7.1"), (550, "4.7.1"), (354, "")])
def test_a_reply_only_ever_refuses(code: int, status: str) -> None:
    with pytest.raises(ValueError, match="reply"):
        Reply(code, status, "x")
