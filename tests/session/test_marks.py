"""What mail with marks on it is answered, over the wire: ours is taken, of a stranger's nothing but the marks goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postmeter.config.schema import Senders
from postmeter.events import Released
from postmeter.store.database import Database
from postmeter.store.journal import Journal, last_release
from postmeter.submission.identity import Identity
from postmeter.submission.mark import Marks
from postmeter.submission.pipeline import Stage
from postmeter.token import Mark, Marker, domain_digest
from tests.lab.mta import Answer, Mta
from tests.session.conftest import Running

SENDERS = Senders(refiltered=("REFILTERED",))
MARKER = Marker([bytes(32)])
MARKS = Marks(MARKER, may_sign=Identity(SENDERS, lambda domain: True).why_unsigned, host="mx.example.com")
FIELDS = [("From", b" alice@example.com"), ("Message-ID", b" <1@example.com>")]
FORGED = [("X-Postmeter-Mark", b" one"), ("x-postmeter-mark", b" two")]
BODY = b"hello\r\n"


def our_mark(message_id: bytes = b"<1@example.com>") -> tuple[str, bytes]:
    mark = Mark(
        reference=b"12345678",
        time=int(time.time()),
        signable=True,
        domain=domain_digest("example.com"),
        queue_id="4First",
        login="alice@example.com",
        sender="alice@example.com",
    )
    return "X-Postmeter-Mark", b" " + MARKER.mark(mark, message_id=message_id).encode()


@pytest.fixture
def filtered(running: Running) -> Running:
    return running.start(Stage("mark", MARKS.step), senders=SENDERS, marks=MARKS, max_memory=1_000_000)


def opened(mta: Mta) -> None:
    assert mta.mail("someone@example.net").code == "c"
    mta.rcpt("bob@example.net")


def dropped(changes: list[Answer]) -> list[bytes]:
    return [change.data for change in changes]


@pytest.mark.parametrize("service", ["smtpd", "REFILTERED"])
def test_strangers_mail_loses_its_marks_and_nothing_else(filtered: Running, service: str) -> None:
    """From the highest index down (D13); its body is kept nowhere, however long."""
    with filtered.session(service=service, address="192.0.2.9") as mta:
        opened(mta)
        taken = mta.message([*FIELDS, *FORGED], b"x" * 998 if service == "REFILTERED" else b"x" * 3_000_000)
        assert taken.verdict.code == "a"
        assert dropped(taken.changes) == [b"\0\0\0\2X-Postmeter-Mark\0\0", b"\0\0\0\1X-Postmeter-Mark\0\0"]
        assert filtered.told() == ("passed", service)


@pytest.mark.parametrize("service", ["smtpd", "REFILTERED"])
def test_strangers_mail_without_a_mark_is_let_go_before_its_body(filtered: Running, service: str) -> None:
    with filtered.session(service=service, address="127.0.0.1") as mta:
        opened(mta)
        mta.header("From", b" mallory@example.org")
        assert mta.step("N", b"").code == "a"
        assert filtered.told() == ("passed", service)


def test_strangers_mail_takes_no_memory_by_its_recipients_either(filtered: Running) -> None:
    """So it is never put off, and nothing of ours for it."""
    with filtered.session(service="smtpd", address="192.0.2.9") as mta:
        opened(mta)
        for _ in range(20_000):
            mta.rcpt("bob@example.net")
        taken = mta.message([*FIELDS, FORGED[0]], BODY)
        assert taken.verdict.code == "a"
        assert dropped(taken.changes) == [b"\0\0\0\1X-Postmeter-Mark\0\0"]
        assert filtered.told() == ("passed", "smtpd")


def test_mail_in_transit_loses_its_marks_too(filtered: Running) -> None:
    """From a trusted network, but only passing through."""
    received = ("Received", b" from mx by host with ESMTP id 4X; now")
    with filtered.session(service="smtpd", address="127.0.0.1") as mta:
        opened(mta)
        taken = mta.message([received, *FIELDS, our_mark()], BODY)
    assert dropped(taken.changes) == [b"\0\0\0\1X-Postmeter-Mark\0\0"]
    assert filtered.told() == ("passed", "smtpd")


def test_a_bounce_that_memory_has_no_room_for_loses_its_marks_too(filtered: Running) -> None:
    """It is never refused, and no mark that somebody got hold of may reach the filter."""
    with filtered.session() as mta:
        mta.mail("", login="alice@example.com")
        mta.rcpt("bob@example.net")
        taken = mta.message([*FIELDS, our_mark()], b"x" * 2_000_000)
        assert taken.verdict.code == "a"
        assert dropped(taken.changes) == [b"\0\0\0\1X-Postmeter-Mark\0\0"]


def test_what_comes_back_with_a_mark_of_ours_is_taken_without_it(filtered: Running) -> None:
    with filtered.session(service="REFILTERED", address="127.0.0.1") as mta:
        opened(mta)
        taken = mta.message([our_mark(), *FIELDS, FORGED[0]], BODY)
        assert dropped(taken.changes) == [b"\0\0\0\2X-Postmeter-Mark\0\0", b"\0\0\0\1X-Postmeter-Mark\0\0"]
    kind, message, *_ = filtered.told()
    assert (kind, message.body) == ("accepted", BODY)


def test_the_mark_of_one_message_is_no_good_for_another(filtered: Running) -> None:
    with filtered.session(service="REFILTERED", address="127.0.0.1") as mta:
        opened(mta)
        taken = mta.message([our_mark(b"<2@example.com>"), *FIELDS], BODY)
    assert dropped(taken.changes) == [b"\0\0\0\1X-Postmeter-Mark\0\0"]
    assert filtered.told() == ("passed", "REFILTERED")


def test_a_mark_is_believed_on_the_filters_service_only(filtered: Running) -> None:
    """On another one it is a client's, and a new one takes its place."""
    with filtered.session() as mta:
        mta.mail("alice@example.com", login="alice@example.com")
        mta.rcpt("bob@example.net")
        taken = mta.message([our_mark(), *FIELDS], BODY)
    assert [change.code for change in taken.changes] == ["m", "i"]
    assert filtered.told()[0] == "accepted"


def test_several_messages_of_a_session_share_no_mark(filtered: Running) -> None:
    with filtered.session(service="REFILTERED", address="127.0.0.1") as mta:
        opened(mta)
        assert mta.message([our_mark(), *FIELDS], BODY).verdict.code == "a"
        mta.abort()
        opened(mta)
        assert mta.message(FIELDS, BODY).verdict.code == "a"
    assert [filtered.told()[0] for _ in range(2)] == ["accepted", "passed"]


def test_who_observes_takes_nothing_off_and_lets_the_filters_mail_go_at_once(running: Running) -> None:
    running.start(senders=SENDERS, marks=MARKS, observe=True)
    with running.session(service="REFILTERED", address="127.0.0.1") as mta:
        assert mta.actions == 0
        assert mta.mail("someone@example.net").code == "a"
        assert running.told() == ("passed", "REFILTERED")


@pytest.mark.parametrize("settings", [{"senders": SENDERS, "marks": MARKS, "observe": True}, {}])
def test_mail_in_transit_keeps_its_marks_where_we_only_observe_or_make_none(
    running: Running, settings: dict[str, Any]
) -> None:
    """It is let go at the end of its header, like all other mail that passes through."""
    running.start(**settings)
    with running.session(service="smtpd", address="127.0.0.1") as mta:
        opened(mta)
        for name, value in (("Received", b" from mx by host with ESMTP id 4X; now"), *FIELDS, our_mark()):
            mta.header(name, value)
        assert mta.step("N", b"").code == "a"
    assert running.told() == ("passed", "smtpd")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal.db")
    yield made
    made.close()


def release(queue_id: str, action: str, time: float) -> Released:
    return Released(
        source=f"released:{queue_id}:{time}",
        time=time,
        queue_id=queue_id,
        login="alice@example.com",
        sender="alice@example.com",
        action=action,
        by="due",
    )


def test_the_journal_tells_when_held_mail_was_let_go(journal: Journal, tmp_path: Path) -> None:
    """What somebody else let go, or deleted, was not charged: that begins no new hour."""
    journal.record([release("4A", "released", 50.0), release("4A", "gone", 70.0), release("4B", "deleted", 60.0)])
    reader = Database(tmp_path / "journal.db", sync="normal", readonly=True)
    assert [last_release(reader, queue_id) for queue_id in ("4A", "4B", "4C")] == [50.0, 0.0, 0.0]
    reader.close()
