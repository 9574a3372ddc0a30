"""What becomes of a message when neither the journal nor the emergency spool takes it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from postmeter.config.schema import Quota
from postmeter.mail.draft import Draft
from postmeter.mail.message import Client, Envelope, Field, Message
from postmeter.runtime.logs import OnceAMinute
from postmeter.store.database import StoreError
from postmeter.store.settle import Settler
from postmeter.submission import record
from postmeter.submission.quota import Quotas
from postmeter.submission.record import LOST, Recorder


def draft(mail_from: bytes = b"alice@example.com") -> Draft:
    envelope = Envelope(mail_from, login="alice@example.com", client=Client("c", "192.0.2.1", 9), service="ORIGINATING")
    return Draft(Message(envelope, (Field(b"From", b" alice@example.com"),), b"", "4Q", 0.0, bytes(8)))


@pytest.fixture
def settler(tmp_path: Path) -> Iterator[Settler]:
    """Its journal lies where no file can be, and the emergency spool with it; it is tried again at once."""
    (tmp_path / "file").touch()
    made = Settler(tmp_path / "file" / "journal.db", tick=0.01)
    yield made
    with suppress(StoreError):
        made.close()


def recorder(settler: Settler, *, tolerant: bool = False) -> Recorder:
    return Recorder(settler, Quotas(Quota(), settler), observe=False, tolerant=tolerant)


@pytest.mark.parametrize(
    ("mail_from", "tolerant", "reply"),
    [(b"a@example.com", False, LOST), (b"a@example.com", True, None), (b"", False, None)],
)
def test_what_cannot_be_recorded_is_refused_for_now_but_never_a_bounce(
    settler: Settler, mail_from: bytes, tolerant: bool, reply: object
) -> None:
    assert recorder(settler, tolerant=tolerant).accepted(draft(mail_from)) == reply


def test_a_journal_that_fails_is_told_once_a_minute_and_not_for_each_message(
    settler: Settler, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk must not be filled by telling of it; path and advice stand there once."""
    monkeypatch.setattr(record, "once", OnceAMinute(record.log))
    failing = recorder(settler)
    with caplog.at_level(logging.ERROR, logger=record.__name__):
        for _ in range(5):
            failing.accepted(draft())
    [said] = [entry.getMessage() for entry in caplog.records if entry.name == record.__name__]
    assert said.startswith("4Q: not recorded: ")
    assert said.count("see that file system") == 1
