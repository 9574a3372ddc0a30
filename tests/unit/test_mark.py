"""Mail that comes back from a content filter is believed by its mark alone, and for an hour."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.config.schema import Senders
from postmeter.mail.draft import Draft, Figure
from postmeter.mail.message import Client, DropField, Envelope, Field, InsertField, Message
from postmeter.store.database import StoreError
from postmeter.submission.identity import Identity, Whose
from postmeter.submission.mark import LIFE, Marks, drop, last_pass_only
from postmeter.token import Marker

NOW = 1_793_000_000.5
SECRET = bytes(32)
ALICE = "alice@example.com"
OFFICE = Envelope(ALICE.encode(), rcpt_to=(b"r@example.net",), login=ALICE, service="ORIGINATING")
FILTER = replace(OFFICE, login="", service="REFILTERED", client=Client("filter", "127.0.0.1", 9))
IDENTITY = Identity(Senders(refiltered=("REFILTERED",)), lambda domain: domain == "example.com")
FIELDS = (("From", ALICE), ("Message-ID", "<1@example.com>"), ("Subject", "hello"))


def draft(*fields: tuple[str, str], envelope: Envelope = OFFICE, time: float = NOW, queue_id: str = "4First") -> Draft:
    known = tuple(Field(name.encode(), b" " + value.encode()) for name, value in fields)
    return Draft(Message(envelope, known, b"", queue_id, time, b"12345678"))


def marks(**settings: object) -> Marks:
    return Marks(Marker([SECRET]), may_sign=IDENTITY.why_unsigned, host="mx.example.com", **settings)  # type: ignore[arg-type]


def decided(message: Draft) -> Draft:
    """As the first steps leave it."""
    IDENTITY.step(message)
    IDENTITY.check_from(message)
    return message


def first_pass(*fields: tuple[str, str], envelope: Envelope = OFFICE) -> Draft:
    message = decided(draft(*(fields or FIELDS), envelope=envelope))
    marks().step(message)
    return message


def mark_of(message: Draft) -> str:
    [text] = [field.value.decode().strip() for field in message.fields if field.name == b"X-Postmeter-Mark"]
    return text


def back(message: Draft, *more: tuple[str, str], time: float = NOW + 5) -> Draft:
    """The message as the filter gives it back."""
    fields = [(field.name.decode(), field.value.decode().strip()) for field in message.fields]
    return draft(*fields, *more, envelope=FILTER, time=time, queue_id="4Second")


@pytest.mark.parametrize(
    "envelope", [FILTER, replace(FILTER, login=ALICE), replace(FILTER, client=Client("c", "192.0.2.1", 9))]
)
def test_on_a_filters_service_nothing_but_a_mark_makes_mail_ours(envelope: Envelope) -> None:
    """Neither a trusted network nor a login: inbound mail comes the same way."""
    assert IDENTITY.by_envelope(envelope) is Whose.RETURNED
    assert IDENTITY.by_envelope(OFFICE) is Whose.OURS


def test_the_first_pass_puts_one_short_mark_on_top() -> None:
    message = first_pass()
    [change] = message.changes
    assert isinstance(change, InsertField)
    assert (change.at, change.field.name) == (0, b"X-Postmeter-Mark")
    assert len(change.field.wire()) < 320
    assert message.facts["marked"] is True


def test_what_comes_back_marked_is_what_the_first_pass_said() -> None:
    message = back(first_pass())
    assert marks().believe(message)
    assert message.free == "marked"
    assert message.mark is not None
    assert (message.mark.queue_id, message.mark.login, message.mark.reference) == ("4First", ALICE, b"12345678")
    decided(message)
    assert message.sender == ALICE
    assert marks().why_unsigned(message) == ""
    marks().step(message)
    assert message.changes == [DropField(b"X-Postmeter-Mark", 1)]


def test_a_filter_may_fold_fields_anew_and_add_its_own() -> None:
    message = first_pass()
    text = mark_of(message)
    folded = draft(
        ("Received", "from a by b with ESMTP"),
        ("message-id", "\n\t<1@example.com>"),
        ("x-postmeter-mark", f"{text[:70]}\n {text[70:]}"),
        ("From", ALICE),
        envelope=FILTER,
    )
    assert marks().believe(folded)


@pytest.mark.parametrize("age", [-61.0, LIFE, LIFE + 1, 10 * LIFE])
def test_a_mark_of_another_hour_is_not_believed(age: float) -> None:
    message = back(first_pass(), time=int(NOW) + age)
    assert not marks().believe(message)
    assert (message.free, message.mark) == ("", None)


@pytest.mark.parametrize("age", [-60.0, 0.0, LIFE - 1])
def test_a_mark_of_this_hour_is_believed(age: float) -> None:
    """Of a host whose clock is a minute ahead as well."""
    assert marks().believe(back(first_pass(), time=int(NOW) + age))


def test_only_our_own_mark_that_came_too_late_is_counted() -> None:
    counted: list[dict[Figure, int]] = []
    late = back(first_pass(), time=NOW + LIFE)
    assert not marks(count=counted.append).believe(late)
    assert counted == [{("dkim_unsigned_total", ("mark_expired",)): 1}]
    forged = draft(*FIELDS, ("X-Postmeter-Mark", "A" * 200), envelope=FILTER)
    assert not marks(count=counted.append).believe(forged)
    assert not marks(count=counted.append).believe(back(first_pass(), time=NOW - LIFE))
    assert len(counted) == 1


@pytest.mark.parametrize(("released", "believed"), [(0.0, False), (10 * LIFE, True), (9 * LIFE, False)])
def test_the_hour_of_held_mail_begins_when_it_is_let_go(released: float, believed: bool) -> None:
    let_go = {"4First": NOW + released} if released else {}
    message = back(first_pass(), time=NOW + 10 * LIFE + 5)
    assert marks(released=lambda queue_id: let_go.get(queue_id, 0.0)).believe(message) is believed


def test_a_journal_that_cannot_be_read_lets_no_old_mark_pass() -> None:
    def broken(queue_id: str) -> float:
        raise StoreError(Path("journal.db"), "locked")

    assert not marks(released=broken).believe(back(first_pass(), time=NOW + 2 * LIFE))
    assert marks(released=broken).believe(back(first_pass()))


def test_a_mark_of_another_message_is_not_believed() -> None:
    other = draft(("From", ALICE), ("Message-ID", "<2@example.com>"), envelope=FILTER)
    other.fields.append(Field(b"X-Postmeter-Mark", f" {mark_of(first_pass())}".encode()))
    twin = replace(other.message, fields=tuple(other.fields))
    assert not marks().believe(Draft(twin))


def test_a_second_message_id_makes_it_another_message() -> None:
    assert not marks().believe(back(first_pass(), ("Message-ID", "<2@example.com>")))


def test_two_marks_that_hold_are_one_too_many_and_others_do_not_matter() -> None:
    message = first_pass()
    assert not marks().believe(back(message, ("X-Postmeter-Mark", mark_of(message))))
    assert marks().believe(back(message, ("X-Postmeter-Mark", "A" * 200), ("X-Postmeter-Mark", "")))


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"]), max_size=80), max_size=4))
def test_no_forged_mark_is_believed_and_none_raises(forged: list[str]) -> None:
    message = draft(*FIELDS, *(("X-Postmeter-Mark", text) for text in forged), envelope=FILTER)
    assert not marks().believe(message)


def test_marks_that_a_client_sends_go_from_the_last_one_up() -> None:
    forged = [("X-Postmeter-Mark", text) for text in ("one", "two", "three")]
    message = first_pass(*FIELDS, *forged)
    assert message.changes[:3] == [DropField(b"X-Postmeter-Mark", nth) for nth in (3, 2, 1)]
    assert marks().believe(back(message))
    bare = draft(*FIELDS, *forged)
    drop(bare)
    assert [field.name for field in bare.fields] == [b"From", b"Message-ID", b"Subject"]


def test_a_thousand_marks_are_refused_on_the_first_pass_and_not_believed_on_the_second() -> None:
    """The time that they take must not grow with their square, nor with what they are bound to."""
    real = first_pass()
    forged = [("X-Postmeter-Mark", mark_of(real))] * 1000
    client = decided(draft(*FIELDS, *forged))
    reply = marks().step(client)
    assert reply is not None
    assert reply.permanent
    assert client.changes == []
    assert not marks().believe(back(real, *[("X-Postmeter-Mark", "x")] * 100))


def test_mail_without_a_message_id_gets_one_to_be_bound_to() -> None:
    """Postfix would add one behind the filter, to mail from loopback, and no mark would fit it (RFC 6409 8.3)."""
    message = first_pass(("From", ALICE), ("Subject", "hello"))
    assert Field(b"Message-ID", b" <3132333435363738@mx.example.com>") in message.fields
    assert marks().believe(back(message))


@pytest.mark.parametrize(
    ("first", "changed", "reason"),
    [
        ((), {}, ""),
        ((("From", "x@shop.example"), FIELDS[1]), {}, "from_mismatch"),
        ((), {"From": "boss@example.com"}, ""),
        ((), {"From": "alice@shop.example"}, "from_changed"),
        ((("From", "x@shop.example"), FIELDS[1]), {"From": ALICE}, "from_changed"),
        ((FIELDS[1],), {}, "no_from"),
        ((FIELDS[1],), {"From": ALICE}, "from_changed"),
        ((), {"From": "a@example.com, b@example.com"}, "several_from"),
    ],
)
def test_whether_it_may_be_signed_was_said_on_the_first_pass(
    first: tuple[tuple[str, str], ...], changed: dict[str, str], reason: str
) -> None:
    """Behind the filter nobody knows the login: a From domain that it may not use stays unsigned, and so does another
    domain than the one that was looked at."""
    sent = first_pass(*first) if first else first_pass()
    kept = [(f.name.decode(), f.value.decode().strip()) for f in sent.fields if f.name.decode() not in changed]
    message = draft(*kept, *changed.items(), envelope=FILTER)
    assert marks().believe(message)
    decided(message)
    assert marks().why_unsigned(message) == reason
    assert ("from_mismatch_total", ("unsigned",)) not in message.figures


def test_what_must_come_last_waits_for_the_second_pass() -> None:
    step = last_pass_only(lambda message: message.note("sign", "signed"))
    message = first_pass()
    step(message)
    assert [note.step for note in message.notes] == ["identity", "mark"]
    returned = back(message)
    marks().believe(returned)
    step(returned)
    assert [note.step for note in returned.notes] == ["sign"]
