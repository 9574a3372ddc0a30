"""Accounts in SQLite that cannot be read, as a failing disk or a strange hand leaves them: whom that stops, and who
says so. SQLite has no checksums: a row may say anything.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from postmeter.cli.main import main
from postmeter.config.schema import Limit, Quota
from postmeter.mail.draft import Draft
from postmeter.mail.message import Client, Envelope, Field, Message
from postmeter.runtime.logs import OnceAMinute
from postmeter.store import batch, database, ledger, refunds, settle
from postmeter.store.accounts import Charge, Hold, Settled, StoreDownError
from postmeter.store.batch import Job
from postmeter.store.database import Database
from postmeter.store.journal import Journal
from postmeter.store.settle import Settler
from postmeter.submission import record
from postmeter.submission.quota import Quotas
from postmeter.submission.record import DOWN, Recorder
from postmeter.submission.release import Releaser
from tests.lab.waiting import wait_for
from tests.session.test_store_settle import submitted

NOW = 1_700_000_000.0
ALICE, BOB = "alice@example.com", "bob@example.com"
MENDS = "postmeter quota reset alice@example.com"
GARBAGE = [b"\x09", b"\xff" * 40, "text", 7, 2.5, b"\x01\x00\x05\x00\x10\x0e\x00\x00Xabcd"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def settler(path: Path) -> Iterator[Settler]:
    settler = Settler(path, host="mx1", patience=0.2, tick=0.1)
    settler.open()
    yield settler
    settler.close()


def charge(key: str = ALICE, *, level: str = "sender", enforce: bool = True, limit: int = 10) -> Charge:
    text = f"{limit} recipients/hour"
    return Charge(
        key=key, level=level, unit="recipients", window=3600, limit=limit, amount=1, text=text, enforce=enforce
    )


def spoil(path: Path, name: str = f"sender:{ALICE}", state: object = b"\x09") -> None:
    with closing(sqlite3.connect(path)) as link:
        link.execute("PRAGMA ignore_check_constraints=ON")
        link.execute("INSERT OR REPLACE INTO folios (name, idle, state) VALUES (?, 99999, ?)", (name, state))
        link.commit()


def used(path: Path, key: str) -> int:
    with closing(Journal(path, readonly=True)) as journal:
        return sum(row.used for row in ledger.usage(journal.database, NOW, key=key))


def sources(path: Path) -> list[str]:
    with closing(Journal(path, readonly=True)) as journal:
        return [entry.event.source for entry in journal.events()]


def errors(path: Path) -> int:
    with closing(Journal(path, readonly=True)) as journal:
        return journal.totals().get(("quota_store_errors_total", ()), 0)


@pytest.mark.parametrize("state", GARBAGE)
def test_an_account_that_cannot_be_read_is_the_store_gone_for_its_own_mail_alone(
    settler: Settler, path: Path, state: object
) -> None:
    spoil(path, state=state)
    with pytest.raises(StoreDownError, match=MENDS):
        settler.settle((charge(),), submitted("a"), {}, NOW)
    with pytest.raises(StoreDownError, match=MENDS):
        settler.check((charge(),), NOW)
    with pytest.raises(StoreDownError, match=MENDS):
        settler.glance((charge(),), NOW)
    assert settler.settle((charge(BOB),), submitted("b"), {}, NOW) == Settled()
    assert (sources(path), used(path, BOB)) == (["b"], 1)


def test_those_who_are_committed_together_with_it_are_settled(settler: Settler, path: Path) -> None:
    spoil(path)
    one, other = Job((charge(),), None, {}, NOW), Job((charge(BOB),), None, {}, NOW)
    with database.open(path).transaction() as link:
        assert batch.write(link, [one, other], {}, host="mx1") == {f"sender:{ALICE}"}
    assert isinstance(one.error, StoreDownError)
    assert (other.error, used(path, BOB)) == (None, 1)


def test_where_no_limit_is_enforced_the_message_is_charged_as_far_as_can_be(settler: Settler, path: Path) -> None:
    """As in `mode: observe`; and counted as uncharged."""
    spoil(path)
    both = charge(enforce=False), charge("example.com", level="domain")
    assert settler.settle(both, submitted("a"), {}, NOW) == Settled()
    with closing(Journal(path, readonly=True)) as journal:
        assert [row.used for row in ledger.usage(journal.database, NOW, level="domain", key="example.com")] == [1]
    assert (sources(path), errors(path)) == (["a"], 1)


def test_the_log_names_login_and_command_once_a_minute(
    settler: Settler, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(path)
    spoil(path, "total:")
    with caplog.at_level(logging.ERROR, logger=settle.__name__):
        for nth in range(5):
            settler.settle((charge(enforce=False),), submitted(f"a{nth}"), {}, NOW)
        settler.settle((charge("", level="total", enforce=False),), submitted("b"), {}, NOW)
    assert [entry.getMessage() for entry in caplog.records] == [
        f"what {ALICE} has used cannot be read: {MENDS}",
        "what all mail has used cannot be read: postmeter quota reset all --level total",
    ]


def test_what_waits_in_the_emergency_spool_comes_back_without_that_charge(settler: Settler, path: Path) -> None:
    """It would come again for ever, and all behind it wait."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        settler.settle((charge(),), submitted("a"), {}, NOW)
        settler.settle((charge(BOB),), submitted("b"), {}, NOW + 1)
        other.execute("ROLLBACK")
        spoil(path)
    wait_for(lambda: sources(path) == ["a", "b"])
    assert not list(path.parent.glob("spool/events/*.json"))


def test_a_charge_given_back_to_it_is_let_go(settler: Settler, path: Path) -> None:
    spoil(path)
    with closing(database.open(path)) as book, book.transaction() as link:
        both = refunds.Refund(reference="x", at=NOW, charges=(charge(), charge(BOB)))
        refunds.give(link, [both], NOW)


def draft(queue_id: str) -> Draft:
    client, rcpt_to = Client("c", "192.0.2.1", 9), (b"bob@example.net",)
    envelope = Envelope(ALICE.encode(), rcpt_to=rcpt_to, login=ALICE, client=client, service="ORIGINATING")
    message = Message(envelope, (Field(b"From", b" alice@example.com"),), b"", queue_id, NOW, bytes(8))
    return Draft(message, sender=ALICE)


@pytest.mark.parametrize(("uncharged", "reply"), [(True, None), (False, DOWN)])
def test_on_store_down_decides_about_its_mail_until_a_reset(
    settler: Settler,
    path: Path,
    uncharged: bool,
    reply: object,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each message is recorded and counted; no bug is met, so that `milter.on_bug` has no say."""
    monkeypatch.setattr(record, "once", OnceAMinute(record.log))
    spoil(path)
    quotas = Quotas(Quota(limits=(Limit(1, "messages", 3600, "1 message/hour"),)), settler)
    it = Recorder(settler, quotas, observe=False, tolerant=False, uncharged=uncharged)
    with caplog.at_level(logging.ERROR, logger=record.__name__):
        assert [it.accepted(draft(f"4Q{nth}")) for nth in range(3)] == [reply] * 3
    policy = "accept" if uncharged else "tempfail"
    said = f"quotas are not kept, on_store_down: {policy}: what {ALICE} has used cannot be read: {MENDS}"
    assert [entry.getMessage() for entry in caplog.records if entry.name == record.__name__] == [said]
    with closing(Journal(path, readonly=True)) as journal:
        kinds = {kind for (kind,) in journal.database.query("SELECT kind FROM events")}
    assert (kinds, errors(path)) == ({"refused" if reply else "submitted"}, 3)
    with closing(database.open(path)) as book:
        assert ledger.reset(book, "sender", ALICE) == 1
    assert it.accepted(draft("4Q9")) is None
    assert it.accepted(draft("4QA")) not in (None, DOWN)


class HoldQueue:
    """Where everything that is asked for is on hold."""

    def __init__(self) -> None:
        self.released: list[str] = []

    def look(self) -> list[object]:
        return [Found(queue_id) for queue_id in ("4ALICE", "4BOB")]

    def release(self, queue_ids: Iterator[str]) -> None:
        self.released += queue_ids


class Found:
    queue = "hold"

    def __init__(self, queue_id: str) -> None:
        self.queue_id = queue_id

    def came(self, time: float) -> bool:
        return True


def test_held_mail_of_others_is_let_go_and_its_own_waits(settler: Settler, path: Path) -> None:
    for login, queue_id in ((ALICE, "4ALICE"), (BOB, "4BOB")):
        hold = Hold(queue_id=queue_id, sender=login, login=login, reason="quota", charges=(charge(login),))
        settler.settle((), submitted(queue_id), {}, NOW, hold=hold)
    spoil(path)
    with closing(Database(path, sync="normal", readonly=False)) as book:
        queue = HoldQueue()
        Releaser(book, settler, queue, clock=lambda: NOW).due()  # type: ignore[arg-type]
        assert queue.released == ["4BOB"]
        Releaser(book, settler, queue, clock=lambda: NOW).by_person(ALICE)  # type: ignore[arg-type]
        assert queue.released == ["4BOB", "4ALICE"], "a person may let it go whatever its account says"


@pytest.fixture
def config(path: Path) -> str:
    file = path.with_name("postmeter.yaml")
    file.write_text(
        f"journal: {{path: {path}}}\nquota: {{limits: [10 recipients/hour]}}\ndkim: {{resolvers: [127.0.0.1:9]}}\n"
    )
    return str(file)


@pytest.mark.parametrize("name", [[], [ALICE]])
def test_show_names_it_and_the_rest(
    settler: Settler, path: Path, config: str, name: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    settler.settle((charge(BOB), charge("", level="total")), submitted("b"), {}, time.time())
    spoil(path)
    spoil(path, f"brake:{ALICE}")
    assert main(["quota", "show", *name, "-c", config]) == 1
    said = capsys.readouterr()
    assert MENDS in said.err
    assert f"{MENDS} --level brake" in said.err
    assert "all mail" in said.out
    assert main(["quota", "reset", ALICE, "-c", config]) == 0
    assert main(["quota", "reset", ALICE, "--level", "brake", "-c", config]) == 0
    assert main(["quota", "show", *name, "-c", config]) == 0


@pytest.mark.parametrize("state", GARBAGE)
def test_a_reset_empties_whatever_it_is(settler: Settler, path: Path, config: str, state: object) -> None:
    spoil(path, state=state)
    assert main(["quota", "reset", ALICE, "-c", config]) == 0
    assert settler.settle((charge(),), submitted("a"), {}, NOW) == Settled()


def test_the_doctor_names_it_with_the_command(
    settler: Settler, path: Path, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(path)
    assert main(["doctor", "--json", "-c", config]) == 1
    told = [one for one in json.loads(capsys.readouterr().out)["findings"] if one["about"] == "stores"]
    assert [one["fix"] for one in told] == [MENDS]
    assert ALICE in told[0]["what"]
