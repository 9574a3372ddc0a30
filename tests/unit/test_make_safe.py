"""The step before signing: which messages it looks at, what it does to the header, what it says of what it leaves."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from postmeter.config.schema import Dkim, HeaderRule
from postmeter.mail.apply import apply
from postmeter.mail.draft import Draft
from postmeter.mail.message import Envelope, Field, InsertField, Message
from postmeter.metrics import METRICS
from postmeter.submission import headers, safe

FROM = Field(b"From", b" Alice <alice@example.com>")
EIGHT = Field(b"Content-Transfer-Encoding", b" 8bit")
VERSION = Field(b"MIME-Version", b" 1.0")
TEXT = "grüße, and a good deal of plain text\r\n".encode()


def run(
    fields: Sequence[Field], body: bytes = b"x\r\n", *, args: tuple[bytes, ...] = (), dkim: Dkim | None = None,
    signed: bool = True, size_limit: int = 1 << 62,
) -> Draft:  # fmt: skip
    envelope = Envelope(b"alice@example.com", args, (b"bob@example.net",))
    draft = Draft(Message(envelope, (FROM, *fields), body, "4Q", 0.0, b"12345678"))
    made = safe.step(dkim or Dkim(), will_sign=lambda draft: signed, size_limit=size_limit)
    assert made(draft) is None
    wire = b"".join(one.wire() for one in draft.fields) + b"\r\n" + draft.body
    assert apply(draft.message, draft.changes) == wire
    return draft


def fragile(draft: Draft) -> list[str]:
    return [labels[0] for (name, labels), _ in draft.figures.items() if name == "dkim_fragile_total"]


def test_the_record_names_part_and_reason() -> None:
    draft = run([VERSION, EIGHT], TEXT)
    assert draft.facts["parts"] == [{"path": "1", "reason": "8bit: quoted-printable", "count": 1}]
    assert Field(b"Content-Transfer-Encoding", b" quoted-printable") in draft.fields
    [note] = draft.notes
    assert note.text.startswith("part 1 is quoted-printable now: it was declared 8bit")


def test_what_the_links_step_recorded_is_kept() -> None:
    draft = Draft(Message(Envelope(b"a@example.com"), (FROM, EIGHT), TEXT, "4Q", 0.0, b"12345678"))
    draft.facts["parts"] = [{"path": "1", "reason": "links", "count": 2}]
    safe.step(Dkim(), will_sign=lambda draft: True, size_limit=1 << 62)(draft)
    assert [part["reason"] for part in draft.facts["parts"]] == ["links", "8bit: quoted-printable"]  # type: ignore[attr-defined]


def test_what_needs_nothing_leaves_untouched() -> None:
    draft = run([VERSION, Field(b"Subject", b" " + b"x" * 980)], TEXT)  # 8-bit text that nobody declared
    assert (draft.changes, draft.notes, draft.facts) == ([], [], {})


def test_what_will_not_be_signed_is_not_looked_at() -> None:
    assert run([EIGHT], TEXT, signed=False).changes == []


def test_a_label_that_was_not_there_is_put_below_with_mime_version() -> None:
    draft = run([], b"word " * 300)
    assert [change.field for change in draft.changes if isinstance(change, InsertField)] == [
        Field(b"Content-Transfer-Encoding", b" quoted-printable"),
        VERSION,
    ]
    assert draft.fields[-1] == VERSION


def test_a_true_7bit_label_costs_the_label_only() -> None:
    draft = run([EIGHT], b"plain\r\n")
    assert draft.body is draft.message.body
    assert draft.fields == [FROM, Field(b"Content-Transfer-Encoding", b" 7bit")]


def test_mail_that_needs_smtputf8_keeps_its_8_bits() -> None:
    """It never gets to a 7-bit hop; but lines are broken at every hop."""
    fields = [EIGHT, Field(b"Subject", " für".encode())]
    assert run(fields, TEXT, args=(b"SMTPUTF8",)).changes == []
    assert run(fields, TEXT * 30, args=(b"SIZE=9",)).changes
    assert run([EIGHT], TEXT, args=(b"SMTPUTF8",)).changes  # asked for, and not needed
    assert run(fields, TEXT.replace(b"\r\n", b" ") * 30, args=(b"smtputf8",)).changes


def test_no_message_outgrows_postfix() -> None:
    draft = run([EIGHT], TEXT * 1000, size_limit=45_000)
    assert fragile(draft) == ["size_limit"]
    assert draft.changes == []
    assert run([EIGHT], TEXT * 1000, size_limit=60_000).changes


LONG = b"word " * 300


@pytest.mark.parametrize("name", [b"Subject", b"References", b"List-Unsubscribe"])
def test_long_lines_of_signed_fields_are_folded(name: bytes) -> None:
    draft = run([Field(name, b" first"), Field(name, b" " + LONG)])
    assert draft.fields[1] == Field(name, b" first")
    assert max(map(len, draft.fields[2].wire().split(b"\r\n"))) <= 998
    assert draft.fields[2].value.replace(b"\n", b"") == b" " + LONG


@pytest.mark.parametrize(("name", "reasons"), [(b"Subject", [safe.HEADER]), (b"References", [])])
def test_a_field_that_is_no_utf_8_cannot_be_folded(name: bytes, reasons: list[str]) -> None:
    """libmilter's binding has no way to hand it back, and refusing the message would refuse it for ever."""
    draft = run([Field(name, b" K\xf6ln " + LONG)])
    assert draft.changes == []
    assert fragile(draft) == reasons


def test_fields_that_are_not_signed_stay_as_they_are() -> None:
    assert run([Field(b"X-Spam", b" " + LONG), Field(b"Received", b" " + LONG)]).changes == []


@pytest.mark.parametrize(("name", "names"), [(b"References", ["references"]), (b"Date", ["date"])])
def test_what_cannot_be_folded_is_left_out_of_the_signature(name: bytes, names: list[str]) -> None:
    field = Field(name, b" " + b"x" * 2000)
    draft = run([field])
    assert draft.changes == []
    assert fragile(draft) == []
    assert "left out of the signature" in draft.notes[0].text
    kept = headers.without_long(draft.fields, headers.DEFAULT)
    assert [rule.name for rule in headers.DEFAULT if rule not in kept] == names


@pytest.mark.parametrize(
    ("name", "dkim"),
    [(b"Subject", Dkim()), (b"From", Dkim(headers=(HeaderRule("from", ""),)))],
)
def test_what_must_be_signed_is_signed_and_said_to_be_fragile(name: bytes, dkim: Dkim) -> None:
    draft = run([Field(name, b" " + b"x" * 2000)], dkim=dkim)
    assert fragile(draft) == ["header"]
    assert draft.facts == {"fragile": "header"}
    assert headers.without_long(draft.fields, headers.rules(dkim)) == list(headers.rules(dkim))


def test_ten_thousand_long_fields_are_not_worth_the_time() -> None:
    """Each took a look through the whole header: 16 seconds."""
    draft = run([Field(b"To", b" " + LONG)] * 10_000)
    assert (draft.changes, fragile(draft)) == ([], ["header"])


def test_the_figures_know_all_reasons() -> None:
    [meaning] = [meaning for meaning in METRICS if meaning.name == "dkim_fragile_total"]
    assert meaning.known == {"reason": safe.REASONS}
