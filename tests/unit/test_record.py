"""What becomes of a message when neither the journal nor the emergency spool takes it, or the quotas' store is gone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from postmeter.config.schema import InetAddress, Limit, Quota, RedisStore
from postmeter.events import Refused, Suppressed
from postmeter.mail.draft import Draft
from postmeter.mail.message import Client, Envelope, Field, Message
from postmeter.runtime.logs import OnceAMinute
from postmeter.store.database import StoreError
from postmeter.store.journal import Journal
from postmeter.store.redis_ledger import RedisLedger
from postmeter.store.redis_server import RedisServer
from postmeter.store.redis_settle import RemoteSettler
from postmeter.store.settle import Settler
from postmeter.submission import record
from postmeter.submission.quota import Quotas
from postmeter.submission.record import DOWN, LOST, Recorder
from postmeter.token import Mark


def draft(mail_from: bytes = b"alice@example.com", *, queue_id: str = "4Q") -> Draft:
    client, rcpt_to = Client("c", "192.0.2.1", 9), (b"bob@example.net",)
    envelope = Envelope(mail_from, rcpt_to=rcpt_to, login="alice@example.com", client=client, service="ORIGINATING")
    return Draft(Message(envelope, (Field(b"From", b" alice@example.com"),), b"", queue_id, 0.0, bytes(8)))


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


@pytest.mark.parametrize(
    ("mail_from", "tolerant", "result"),
    [(b"a@example.com", False, "deferred"), (b"a@example.com", True, "accepted"), (b"", False, "accepted")],
)
def test_what_cannot_be_recorded_is_counted_once_the_journal_is_back(
    settler: Settler, tmp_path: Path, mail_from: bytes, tolerant: bool, result: str
) -> None:
    """By what the client was told; so is what was refused for another reason meanwhile."""
    it = recorder(settler, tolerant=tolerant)
    it.accepted(draft(mail_from))
    it.refused(draft().message.envelope, DOWN, stage="store")
    (tmp_path / "file").unlink()
    (tmp_path / "file").mkdir()
    settler.close()
    with closing(Journal(tmp_path / "file" / "journal.db", readonly=True)) as journal:
        totals = journal.totals()
    counted = {labels[1]: value for (name, labels), value in totals.items() if name == "messages_total"}
    assert counted == ({"deferred": 2} if result == "deferred" else {"deferred": 1, "accepted": 1})
    assert totals.get(("recipients_total", ()), 0) == (result == "accepted")
    assert totals["errors_total", ("journal",)] == 2


@pytest.mark.parametrize(("observed", "reply"), [(False, LOST), (True, None)])
def test_a_recipient_is_not_removed_where_nobody_would_ever_know(
    settler: Settler, observed: bool, reply: object
) -> None:
    """`journal.on_error: accept` takes mail without a record, but not from somebody to whom no report can go either."""
    one = draft()
    one.besides.append(
        Suppressed(
            source="suppressed:0:bob@example.net", time=0.0, queue_id="4Q", reference="0", login="", from_domain="",
            recipient="bob@example.net", reason="bounced", scope="everywhere", observed=observed,
        )
    )  # fmt: skip
    assert recorder(settler, tolerant=True).accepted(one) == reply


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


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[RemoteSettler]:
    """Quotas in a Redis where none listens; the journal is well."""
    server = RedisServer(RedisStore(places=(InetAddress("127.0.0.1", 1),)))
    made = RemoteSettler(RedisLedger(server, "postmeter"), Settler(tmp_path / "journal.db"))
    yield made
    made.close()


ONE = Quota(limits=(Limit(1, "messages", 3600, "1 message/hour"),))


@pytest.mark.parametrize(
    ("mail_from", "uncharged", "observe", "reply"),
    [
        (b"a@example.com", True, False, None),
        (b"a@example.com", False, False, DOWN),
        (b"a@example.com", False, True, None),
        (b"", False, False, None),
    ],
)
def test_while_the_quotas_store_is_gone_its_policy_decides_and_the_journal_tells(
    remote: RemoteSettler, tmp_path: Path, mail_from: bytes, uncharged: bool, observe: bool, reply: object
) -> None:
    it = Recorder(remote, Quotas(ONE, remote), observe=observe, tolerant=False, uncharged=uncharged)
    for number in range(3):
        assert it.accepted(draft(mail_from, queue_id=f"4Q{number}")) == reply
    with closing(Journal(tmp_path / "journal.db", readonly=True)) as journal:
        errors = journal.totals().get(("quota_store_errors_total", ()), 0)
        kinds = {kind for (kind,) in journal.database.query("SELECT kind FROM events")}
    assert errors == (3 if mail_from else 0)
    assert kinds == {"refused" if reply else "submitted"}


def test_where_the_journal_is_gone_with_the_quotas_store_mail_is_counted_all_the_same(
    settler: Settler, tmp_path: Path
) -> None:
    remote = RemoteSettler(RedisLedger(RedisServer(RedisStore(places=(InetAddress("127.0.0.1", 1),))), "p"), settler)
    it = Recorder(remote, Quotas(ONE, remote), observe=False, tolerant=True)
    assert it.accepted(draft()) is None
    (tmp_path / "file").unlink()
    (tmp_path / "file").mkdir()
    remote.close()
    with closing(Journal(tmp_path / "file" / "journal.db", readonly=True)) as journal:
        totals = journal.totals()
    assert totals["messages_total", ("ORIGINATING", "accepted")] == 1
    assert totals["quota_store_errors_total", ()] == 1


def test_a_store_that_is_gone_is_told_once_a_minute(
    remote: RemoteSettler, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "once", OnceAMinute(record.log))
    it = Recorder(remote, Quotas(ONE, remote), observe=False, tolerant=False)
    with caplog.at_level(logging.ERROR, logger=record.__name__):
        for _ in range(5):
            it.accepted(draft())
    [said] = [entry.getMessage() for entry in caplog.records if entry.name == record.__name__]
    assert said.startswith("quotas are not kept, on_store_down: accept: 127.0.0.1:1: ")


def test_what_sets_a_notice_free_frees_one_message(tmp_path: Path) -> None:
    """Whoever comes second with the same id, at the same moment perhaps, is charged and refused like other mail."""
    limited = Quota(limits=(Limit(1, "messages", 86_400, "1 message/day"),))
    with closing(Settler(tmp_path / "journal.db")) as settler:
        settler.open()
        answers = iter([True, False, False, True])
        spending = Recorder(
            settler, Quotas(limited, settler), observe=False, tolerant=False, spend=lambda draft: next(answers)
        )
        replies = []
        for nth in range(4):
            notice = draft(queue_id=f"4N{nth}")
            notice.sender, notice.free = "alice@example.com", "notice"
            replies.append(spending.accepted(notice))
            if nth == 0:
                assert "charged" not in notice.facts
    assert [reply is None for reply in replies] == [True, True, False, True]


def test_a_refusal_names_whom_quotas_count_and_of_mail_that_came_back_who_sent_it_first(tmp_path: Path) -> None:
    """On the content filter's service the envelope tells of the filter."""
    came_back, early = draft(queue_id="4B"), draft(queue_id="4E")
    came_back.sender = "first@example.com"
    came_back.mark = Mark(
        reference=bytes(8), time=0, signable=True, domain=bytes(16), queue_id="4A", login="first@example.com",
        sender="first@example.com",
    )  # fmt: skip
    with closing(Settler(tmp_path / "journal.db")) as settler:
        settler.open()
        for one in (came_back, early):
            recorder(settler).refused(one.message.envelope, LOST, stage="quota", draft=one)
    with closing(Journal(tmp_path / "journal.db", readonly=True)) as journal:
        told = [entry.event.sender for entry in journal.events() if isinstance(entry.event, Refused)]
    assert told == ["first@example.com", "alice@example.com"]
