"""Who is removed from which message: scopes, bulk mail, the bypass, and what must never be touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from postmeter.config.schema import Suppression as Settings
from postmeter.events import Suppressed
from postmeter.mail.draft import Draft
from postmeter.mail.message import Client, DropRecipient, Envelope, Field, Message
from postmeter.store import suppression, veil
from postmeter.store.database import Database
from postmeter.store.suppression import EVERYWHERE, Lookup, Suppression
from postmeter.submission.suppress import NAME, Suppress

NOW = 1_800_000_000.0
DAY = 86_400.0
BOB, CAROL = b"bob@example.net", b"carol@example.net"


class Bench:
    """A journal with suppressions, and the step that asks it."""

    def __init__(self, path: Path) -> None:
        self.writer = Database(path, sync="normal", readonly=False)
        self.reader = Database(path, sync="normal", readonly=True)
        self.bulk = True
        self.recorded: list[Suppressed] = []
        self.add()

    def add(self, *made: Suppression) -> None:
        with self.writer.transaction() as link:
            suppression.replace(link, made)

    def step(self, *, observe: bool = False, **settings: Any) -> Suppress:
        return Suppress(
            Settings(**settings),
            Lookup(self.reader, lambda: NOW),
            bulk=lambda draft: self.bulk,
            observe=observe,
            record=self.recorded.append,
        )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "journal.db")
    yield made
    made.reader.close()
    made.writer.close()


def one(
    scope: str = EVERYWHERE, reason: str = "bounced", *, address: str = "bob@example.net", **more: Any
) -> Suppression:
    return Suppression(address, scope, reason, NOW - DAY, **more)


def draft(
    *fields: tuple[bytes, bytes],
    mail_from: bytes = b"news@example.com",
    rcpt_to: tuple[bytes, ...] = (BOB, CAROL),
    login: str = "alice@example.com",
    free: str = "",
) -> Draft:
    author = Field(b"From", b" news@example.com")
    envelope = Envelope(mail_from, rcpt_to=rcpt_to, login=login, client=Client(port=1))
    message = Message(envelope, (author, *(Field(*field) for field in fields)), b"", "4XyZ", NOW, bytes(8))
    return Draft(message, sender=login, from_domain="example.com", free=free)


def left(made: Draft) -> tuple[bytes, ...]:
    return made.message.envelope.rcpt_to


def test_who_is_suppressed_leaves_the_message(bench: Bench) -> None:
    bench.add(one(evidence="550 5.1.1 unknown", until=NOW + DAY))
    made = draft()
    assert bench.step().step(made) is None
    assert left(made) == (CAROL,)
    assert made.changes == [DropRecipient(BOB)]
    [told] = made.besides
    assert isinstance(told, Suppressed)
    assert told.source == "suppressed:0000000000000000:bob@example.net"
    assert (told.reason, told.evidence, told.until, told.observed) == ("bounced", "550 5.1.1 unknown", NOW + DAY, False)


def test_when_nobody_is_left_the_client_reads_why(bench: Bench) -> None:
    bench.add(one(evidence="550 5.1.1 unknown"), one(address="carol@example.net", reason="complained"))
    made = draft()
    reply = bench.step().step(made)
    assert reply is not None
    assert (reply.code, reply.status) == (550, "5.7.1")
    assert "bob@example.net is suppressed here since 2027-01-14, its mail came back: 550 5.1.1 unknown" in reply.line()
    assert "and 1 more" in reply.line()
    assert len(made.besides) == 2


APPLIES: list[tuple[str, str, bool, str, bool]] = [
    (EVERYWHERE, "bounced", True, "bulk", True),
    (EVERYWHERE, "bounced", False, "bulk", False),
    (EVERYWHERE, "bounced", False, "all", True),
    ("domain:example.com", "bounced", True, "bulk", True),
    ("domain:example.com", "complained", False, "all", True),
    ("domain:example.org", "bounced", True, "all", False),
    ("domain:com", "bounced", True, "all", False),
    ("from:news@example.com", "unsubscribed", True, "bulk", True),
    ("from:news@example.com", "unsubscribed", False, "all", False),
    ("from:other@example.com", "unsubscribed", True, "all", False),
    (EVERYWHERE, "unsubscribed", False, "all", False),
    ("domain:example.com", "unsubscribed", False, "all", False),
    ("domain:example.com", "unsubscribed", True, "bulk", True),
    ("from:news@example.com", "manual", False, "all", False),
    ("list:example.com/weekly", "unsubscribed", True, "all", False),
]


@pytest.mark.parametrize(("scope", "reason", "bulk", "mail", "applies"), APPLIES)
def test_a_scope_reaches_as_far_as_it_says(
    bench: Bench, scope: str, reason: str, bulk: bool, mail: str, applies: bool
) -> None:
    """An unsubscribe is for bulk mail alone, whatever `suppression.mail` is: never for a password reset."""
    bench.add(one(scope, reason))
    bench.bulk = bulk
    made = draft()
    assert bench.step(mail=mail).step(made) is None
    assert (left(made) == (CAROL,)) is applies


def test_a_list_is_left_by_its_name(bench: Bench) -> None:
    bench.add(one("list:example.com/weekly.example.com", "unsubscribed"))
    made, other = draft((b"List-Id", b" Weekly <weekly.example.com>")), draft((b"List-Id", b" <daily.example.com>"))
    bench.step().step(made)
    bench.step().step(other)
    assert left(made) == (CAROL,)
    assert left(other) == (BOB, CAROL)


@pytest.mark.parametrize(
    "made",
    [
        lambda: draft(mail_from=b""),
        lambda: draft(free="notice"),
        lambda: draft(free="marked"),
        lambda: draft(free="test"),
    ],
)
def test_some_mail_is_never_touched(bench: Bench, made: Callable[[], Draft]) -> None:
    """A null sender's, our own notices, what was here before, and a test that nobody gets."""
    bench.add(one())
    message = made()
    assert bench.step(mail="all").step(message) is None
    assert left(message) == (BOB, CAROL)
    assert message.besides == []


@pytest.mark.parametrize(
    ("login", "said", "bypasses"),
    [
        ("alice@example.com", b" yes", True),
        ("ALICE@example.com", b" true", True),
        ("alice@example.com", b" no", False),
        ("alice@example.com", b" perhaps", False),
        ("mallory@example.com", b" yes", False),
        ("", b" yes", False),
    ],
)
def test_the_bypass_counts_for_those_who_may_and_goes_from_all_mail(
    bench: Bench, login: str, said: bytes, bypasses: bool
) -> None:
    bench.add(one())
    made = draft((NAME, said), login=login)
    assert bench.step(bypass=("alice@example.com",)).step(made) is None
    assert (left(made) == (BOB, CAROL)) is bypasses
    assert [field.name for field in made.fields] == [b"From"]


@pytest.mark.parametrize(
    "made", [lambda: draft((NAME, b" yes"), mail_from=b""), lambda: draft((NAME, b" yes"), free="marked")]
)
def test_the_bypass_goes_from_mail_that_is_spared_too(bench: Bench, made: Callable[[], Draft]) -> None:
    message = made()
    assert bench.step().step(message) is None
    assert [field.name for field in message.fields] == [b"From"]


def test_two_fields_that_ask_for_a_bypass_ask_for_none(bench: Bench) -> None:
    bench.add(one())
    made = draft((NAME, b" yes"), (NAME, b" no"))
    bench.step(bypass=("alice@example.com",)).step(made)
    assert left(made) == (CAROL,)


def test_observing_removes_nobody_and_refuses_nothing(bench: Bench) -> None:
    bench.add(one(), one(address="carol@example.net"))
    made = draft()
    step = bench.step(observe=True, mail="all")
    assert step.step(made) is None
    assert left(made) == (BOB, CAROL)
    assert made.changes == []
    assert [event.observed for event in made.besides if isinstance(event, Suppressed)] == [True, True]
    assert step.gates is False
    assert step.gate(made.message.envelope, BOB) is None


@pytest.mark.parametrize(
    ("login", "scope", "reason", "mail", "refused"),
    [
        ("bob@example.org", EVERYWHERE, "bounced", "all", True),
        ("bob@example.org", EVERYWHERE, "manual", "all", True),
        ("bob@example.org", EVERYWHERE, "unsubscribed", "all", False),
        ("bob@example.org", "domain:example.com", "bounced", "all", False),
        ("alice@example.com", EVERYWHERE, "bounced", "all", False),
        ("", EVERYWHERE, "bounced", "all", False),
        ("bob@example.org", EVERYWHERE, "bounced", "bulk", False),
    ],
)
def test_at_rcpt_only_what_is_certain_is_refused(
    bench: Bench, login: str, scope: str, reason: str, mail: str, refused: bool
) -> None:
    bench.add(one(scope, reason))
    step = bench.step(mail=mail, bypass=("Alice@example.com",))
    reply = step.gate(Envelope(b"x@example.com", login=login), BOB)
    assert (reply is not None) is refused
    assert len(bench.recorded) == refused
    assert step.gate(Envelope(b"x@example.com", login=login), CAROL) is None
    assert step.gate(Envelope(b"x@example.com", login=login), None) is None


def test_what_has_ended_or_lies_years_ahead_holds_nobody_up(bench: Bench) -> None:
    bench.add(one(until=NOW), replace(one(scope="domain:example.com"), since=NOW + 3650 * DAY))
    made = draft()
    assert bench.step().step(made) is None
    assert left(made) == (BOB, CAROL)


def test_an_address_counts_in_any_spelling_and_by_its_hash(bench: Bench) -> None:
    key = veil.read_key(bench.writer)
    bench.add(one(address=veil.hashed("bob@example.net", key)), one(address="CAROL@Example.net"))
    made = draft(rcpt_to=(b"BOB@EXAMPLE.NET", b"carol@example.net", b"dora@example.net"))
    bench.step().step(made)
    assert left(made) == (b"dora@example.net",)


def test_the_weightiest_reason_is_told(bench: Bench) -> None:
    bench.add(one(), one("domain:example.com", "complained"), one("from:news@example.com", "unsubscribed"))
    made = draft()
    bench.step().step(made)
    assert [event.reason for event in made.besides if isinstance(event, Suppressed)] == ["complained"]


def test_a_recipient_that_cannot_be_named_to_postfix_stays(bench: Bench) -> None:
    bench.add(one(address="b\\xff@example.net"))
    made = draft(rcpt_to=(b"b\xff@example.net", CAROL))
    assert bench.step().step(made) is None
    assert left(made) == (b"b\xff@example.net", CAROL)


def test_a_journal_that_cannot_be_read_suppresses_nobody(bench: Bench, tmp_path: Path) -> None:
    bench.add(one())
    lost = Database(tmp_path / "not" / "there.db", sync="normal", readonly=True)
    step = Suppress(Settings(), Lookup(lost, lambda: NOW), bulk=lambda draft: True, observe=False)
    made = draft()
    assert step.step(made) is None
    assert left(made) == (BOB, CAROL)
    assert made.figures == {("errors_total", ("suppression",)): 1}


def test_notify_and_envid_are_remembered_for_the_report(bench: Bench) -> None:
    """RFC 3461: no report for who asked for none, and the name that the client gave the message."""
    bench.add(one())
    made = draft()
    envelope = replace(made.message.envelope, quiet=frozenset({BOB}), args=(b"SIZE=1", b"ENVID=a+2Bb"))
    made.message = replace(made.message, envelope=envelope)
    bench.step().step(made)
    [told] = made.besides
    assert isinstance(told, Suppressed)
    assert (told.quiet, told.envid) == (True, "a+b")


def test_more_fields_than_can_be_taken_off_are_refused(bench: Bench) -> None:
    reply = bench.step().step(draft(*[(b"X-Postmeter-Bypass-Suppression", b" yes")] * 101))
    assert reply is not None
    assert reply.permanent
