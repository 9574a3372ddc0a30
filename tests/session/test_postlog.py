"""Postfix's log into the journal: whatever happens to reader or file, each word once, and charges settled."""

from __future__ import annotations

import gzip
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from postmeter.books.awaiting import Awaiting
from postmeter.books.logsource import File, OldFiles
from postmeter.books.postlog import PostLog, Rules
from postmeter.cli.delivering import Delivering
from postmeter.cli.main import main
from postmeter.config.schema import Config
from postmeter.events import Bounced, Deferred, Event, Expired, Sent, Submitted, Unknown, Untaken, kind
from postmeter.store import ledger, refunds
from postmeter.store.accounts import Charge
from postmeter.store.database import StoreError
from postmeter.store.journal import Journal
from postmeter.store.lives import Awaited
from postmeter.store.settle import Settler

BEGIN = 1_700_000_000.0
HOUR = 3600.0
CHARGE = Charge(key="alice", unit="recipients", window=86_400, limit=10_000, amount=3, text="10000 recipients/day")


@dataclass
class Room:
    """A journal, a log that a test writes, and a reader that can be thrown away; `time` is everybody's clock."""

    folder: Path
    time: float = BEGIN
    late: bool = False
    local: bool = False
    """Stamps are of the old form, which says neither year nor zone."""
    made: int = 0
    readers: list[PostLog] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log = self.folder / "mail.log"
        self.journal = Journal(self.folder / "journal.db")
        self.settler = Settler(self.folder / "journal.db")
        self.restart()

    def restart(self) -> None:
        """A new process, as it were."""
        for reader in self.readers:
            reader.close()
        rules = Rules(
            provider=lambda said: "other", lifetime=5 * 24 * HOUR, forget=14 * 24 * HOUR, give=refunds.give,
            late=lambda: self.late,
        )  # fmt: skip
        self.readers = [
            PostLog(
                self.journal,
                lambda name, place: File(self.log, place, names=["postfix"]),
                rules,
                clock=lambda: self.time,
            )
        ]

    def read(self) -> None:
        while self.readers[0].work():
            pass

    def write(self, *messages: str, daemon: str = "smtp") -> None:
        with self.log.open("a") as out:
            for message in messages:
                self.time += 3
                out.write(f"{self.stamp()} mail postfix/{daemon}[7]: {message}\n")

    def stamp(self) -> str:
        if not self.local:
            return datetime.fromtimestamp(self.time, UTC).isoformat()
        return time.strftime("%b %d %H:%M:%S", time.localtime(self.time))

    def submit(self, queue_id: str, *recipients: str, service: str = "submission", charged: bool = True) -> Submitted:
        self.made += 1
        facts = {"charged": [["sender", "alice", "recipients", 86_400, 3]], "charged_at": self.time} if charged else {}
        event = Submitted(
            source=f"eom:{queue_id}:{self.time:.6f}", time=self.time, queue_id=queue_id,
            reference=f"{self.made:016x}", message_id="<m@example.com>", login="alice", sender="alice",
            service=service, mail_from="alice@example.com", from_domain="example.com",
            recipients=recipients or ("bob@example.net",), size=4, facts=dict(facts),
        )  # fmt: skip
        self.settler.settle([CHARGE] if charged else [], event, {}, self.time)
        return event

    def take(self, queue_id: str, *recipients: str, service: str = "submission") -> Submitted:
        self.write(f"{queue_id}: client=c[192.0.2.1]", daemon="submission/smtpd")
        self.write(f"{queue_id}: message-id=<m@example.com>", daemon="cleanup")
        event = self.submit(queue_id, *recipients, service=service)
        self.write(f"{queue_id}: from=<alice@example.com>, size=4, nrcpt=1 (queue active)", daemon="qmgr")
        return event

    def events(self) -> list[Event]:
        found = [entry.event for entry in self.journal.events(limit=100_000)]
        return [event for event in found if not isinstance(event, Submitted)]

    def used(self) -> int:
        return sum(each.used for each in ledger.usage(self.journal.database, self.time, key="alice"))


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    made.write("A00000: removed", daemon="qmgr")
    made.read()
    made.time += 1
    yield made
    made.readers[0].close()
    made.settler.close()
    made.journal.close()


def to(queue_id: str, who: str, status: str = "sent", delay: int = 1) -> str:
    said = f"relay=mx.example.net[192.0.2.25]:25, delay={delay}, delays=0/0/0/{delay}, dsn=2.0.0"
    return f"{queue_id}: to=<{who}>, {said}, status={status} (250 ok)"


# --- killed at random


_READS = """
import sys, time
from pathlib import Path
from postmeter.books.logsource import File
from postmeter.books.postlog import PostLog, Rules
from postmeter.store import refunds
from postmeter.store.journal import Journal
folder = Path(sys.argv[1])
rules = Rules(provider=lambda said: "other", lifetime=432000.0, forget=1209600.0, give=refunds.give)
make = lambda name, place: File(folder / "mail.log", place, names=["postfix"])
reader = PostLog(Journal(folder / "journal.db"), make, rules, clock=lambda: 1_700_006_000.0)
print("reads", flush=True)
while True:
    reader.work() or time.sleep(0.001)
"""


def test_where_the_log_is_read_is_said_once_although_the_journal_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The chore begins anew each second."""

    def failing(*given: object, **more: object) -> int:
        raise StoreError(tmp_path / "journal.db", "disk I/O error")

    config = replace(Config(), delivery=replace(Config().delivery, log=tmp_path / "mail.log"))
    with closing(Journal(tmp_path / "journal.db")) as journal, closing(Delivering()) as delivering:
        chore = delivering.chores(config, lambda: journal, lambda: None)[0]
        with caplog.at_level(logging.INFO):
            chore.work()
            monkeypatch.setattr(journal, "position", failing)
            delivering.chores(config, lambda: journal, lambda: None)
            for _ in range(3):
                with pytest.raises(StoreError):
                    chore.work()
            monkeypatch.undo()
            chore.work()
    assert sum("is read from" in line for line in caplog.messages) == 1


def test_kill_9_while_the_log_grows_and_rotates_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Killed again and again while mail goes out; what the journal says in the end is what the log said."""
    room, chance = Room(tmp_path), random.Random(7)
    expected: Counter[tuple[str, str]] = Counter()
    for turn in range(5):
        command = [sys.executable, "-c", _READS, str(tmp_path)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout
            process.stdout.readline()
            for number in range(40):
                _one_message(room, turn * 100 + number, chance, expected)
                if chance.random() < 0.06:
                    _rotate(room.log)
                time.sleep(chance.random() * 0.004)
            process.send_signal(signal.SIGKILL)
    room.time = 1_700_006_000.0
    room.restart()
    room.read()
    found = Counter((event.reference, kind(event)) for event in room.events() if isinstance(event, Sent | Deferred))
    assert found == expected
    assert [event for event in room.events() if isinstance(event, Unknown | Untaken | Bounced | Expired)] == []
    assert room.journal.totals().get(("log_gaps_total", ()), 0) == 0


def _one_message(room: Room, number: int, chance: random.Random, expected: Counter[tuple[str, str]]) -> None:
    queue_id, who = f"{0xA00000 + number % 30:X}", f"r{number}@example.net"
    message = room.take(queue_id, who)
    for delay in range(chance.randrange(3)):
        room.write(to(queue_id, who, "deferred", delay + 1))
        expected[message.reference, "deferred"] += 1
    room.write(to(queue_id, who, "sent", 9), f"{queue_id}: removed", daemon="smtp")
    expected[message.reference, "sent"] += 1


def _rotate(log: Path) -> None:
    """As logrotate with `create`, `compress` and `delaycompress`."""
    for number in range(60, 1, -1):
        if (old := log.with_name(f"mail.log.{number}.gz")).exists():
            old.rename(log.with_name(f"mail.log.{number + 1}.gz"))
    if (old := log.with_name("mail.log.1")).exists():
        packed = log.with_name("mail.log.2.gz")
        packed.write_bytes(gzip.compress(old.read_bytes()))
        os.utime(packed, (old.stat().st_mtime,) * 2)
        old.unlink()
    log.rename(old)
    log.touch()


# --- charges


def test_a_message_that_a_later_milter_refused_costs_nothing(room: Room) -> None:
    room.write("A00001: client=c[192.0.2.1]", daemon="smtpd")
    message = room.submit("A00001")
    assert room.used() == 3
    room.write("A00001: milter-reject: END-OF-MESSAGE from c[192.0.2.1]: 5.7.1 no; from=<a@b.c>", daemon="cleanup")
    room.read()
    assert [(kind(event), event.reference) for event in room.events() if isinstance(event, Untaken)] == [
        ("untaken", message.reference)
    ]
    assert room.used() == 0
    room.restart()
    room.read()
    assert room.used() == 0


@pytest.fixture
def summer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    """A quarter before 02:00, in the night in which clocks go back at 03:00; stamps are of the old form."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    made = Room(tmp_path, time=datetime(2026, 10, 24, 23, 45, tzinfo=UTC).timestamp(), local=True)
    made.write("A00000: removed", daemon="qmgr")
    made.read()
    made.time += 1
    yield made
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("once", [False, True])
def test_mail_of_the_hour_that_comes_twice_is_found_though_it_is_read_later(summer: Room, once: bool) -> None:
    """The books were away: what was sent in that hour is neither given back nor unknown."""
    taken = []
    for number in range(10):
        event = summer.take(f"A{number:05}")
        taken.append(event.time)
        summer.write(to(f"A{number:05}", "bob@example.net"))
        summer.write(f"A{number:05}: removed", daemon="qmgr")
        summer.time += 800
    summer.time += 3 * HOUR
    if once:
        assert read_once(summer) == 10
    else:
        summer.restart()
        summer.read()
        summer.take("B00001")
        summer.read()
        summer.time += HOUR
        summer.read()
    sent = [event.time for event in summer.events() if isinstance(event, Sent)]
    assert [when - begun for when, begun in zip(sent, taken, strict=True)] == [6.0] * 10
    assert not [event for event in summer.events() if isinstance(event, Untaken | Unknown)]


def test_a_quiet_host_tells_the_second_time_of_an_hour_by_having_read_through_the_first(summer: Room) -> None:
    """At 02:50 there was nothing more; 02:10 is later."""
    summer.time += 65 * 60
    summer.read()
    summer.time += 20 * 60
    taken = summer.take("A00001")
    summer.write(to("A00001", "bob@example.net"))
    summer.time += 5 * 60
    summer.read()
    [sent] = [event for event in summer.events() if isinstance(event, Sent)]
    assert sent.time - taken.time == 6.0


def read_once(room: Room) -> int:
    """As `postmeter books --once`."""
    source = OldFiles([room.log], names=["postfix"], now=room.time)
    rules = Rules(
        provider=lambda said: "other", lifetime=5 * 24 * HOUR, forget=14 * 24 * HOUR, give=refunds.give, awaits=False
    )
    reader = PostLog(room.journal, lambda name, place: source, rules, clock=lambda: room.time)
    while reader.work():
        pass
    return reader.recorded


def test_a_message_that_the_log_never_shows_costs_nothing_a_quarter_of_an_hour_later(room: Room) -> None:
    lost = room.submit("A00001")
    room.read()
    room.take("A00002")
    room.time += 800
    room.read()
    assert room.used() == 6
    room.restart()
    room.time += 200
    room.read()
    [event] = [event for event in room.events() if isinstance(event, Untaken)]
    assert event.reference == lost.reference
    assert room.used() == 3
    room.time += HOUR
    room.restart()
    room.read()
    assert room.used() == 3


def test_silence_means_nothing_as_long_as_no_later_message_of_that_service_shows(room: Room) -> None:
    """The log may be another one than that service writes to."""
    room.submit("A00001", service="other")
    room.read()
    room.take("A00002")
    room.time += HOUR
    room.read()
    assert [event for event in room.events() if isinstance(event, Untaken)] == []
    assert room.used() == 6


def test_silence_means_nothing_of_a_message_that_waits_before_the_queue(room: Room) -> None:
    """With more mail than qmgr_message_active_limit some waits in `incoming`, of which no line tells."""
    room.write("A00001: client=c[192.0.2.1]", daemon="submission/smtpd")
    room.write("A00001: message-id=<w@example.com>", daemon="cleanup")
    room.submit("A00001")
    room.take("A00002")
    room.time += HOUR
    room.read()
    room.restart()
    room.read()
    assert room.used() == 6
    room.write("A00001: from=<alice@example.com>, size=4, nrcpt=1 (queue active)", to("A00001", "bob@example.net"))
    room.time += 3 * HOUR
    room.read()
    assert [kind(event) for event in room.events()] == ["sent"]
    assert room.used() == 6


def test_a_message_that_postfix_began_and_lost_costs_nothing_hours_later(room: Room) -> None:
    """cleanup(8) died."""
    room.write("A00001: client=c[192.0.2.1]", daemon="submission/smtpd")
    room.write("A00001: message-id=<w@example.com>", daemon="cleanup")
    room.submit("A00001")
    room.take("A00002")
    room.time += 3 * HOUR
    room.read()
    room.read()
    assert [kind(event) for event in room.events()] == ["untaken"]
    assert room.used() == 3


def test_a_clock_that_was_ahead_makes_nobody_unknown_and_gives_nothing_back(room: Room) -> None:
    true = room.time
    room.time += 1000 * 24 * HOUR
    room.take("A00001")
    room.submit("A00002")
    room.read()
    room.time = true
    sent = room.take("A00003")
    room.read()
    room.restart()
    room.write(to("A00003", "bob@example.net"), "A00003: removed")
    lost = room.submit("A00004")
    room.read()
    room.take("A00005")
    room.time += HOUR
    room.read()
    told = [(kind(event), event.reference) for event in room.events() if isinstance(event, Sent | Unknown | Untaken)]
    assert told == [("sent", sent.reference), ("untaken", lost.reference)]


def test_a_recipient_who_was_named_twice_is_told_once(room: Room) -> None:
    """An old message of whom all is known is never taken for one whose beginning was not seen."""
    room.take("A00001", "bob@example.net", "Bob@Example.NET")
    room.write(to("A00001", "bob@example.net"), "A00001: removed")
    room.read()
    room.time += 24 * HOUR
    room.write(to("A00001", "bob@example.net", "bounced", 77))
    room.read()
    assert [kind(event) for event in room.events()] == ["sent"]


def test_silence_means_nothing_across_a_gap_and_is_told_as_unknown_in_the_end(room: Room) -> None:
    room.submit("A00001")
    room.read()
    with room.log.open("a") as out:
        stamp = datetime.fromtimestamp(room.time + 5, UTC).isoformat()
        out.write(f"{stamp} mail systemd-journald[1]: Suppressed 812 messages from postfix@-.service\n")
    room.time += 10
    room.take("A00002")
    room.time += HOUR
    room.read()
    assert room.journal.totals()["log_gaps_total", ()] == 1
    assert [event for event in room.events() if isinstance(event, Untaken)] == []
    room.time += 6 * 24 * HOUR
    room.restart()
    room.read()
    assert {event.queue_id for event in room.events() if isinstance(event, Unknown)} == {"A00001", "A00002"}


def test_what_is_given_up_after_a_long_time_without_us_comes_some_at_a_time() -> None:
    """Each is an event of one transaction, for which mail waits."""
    lost = [Awaited(f"{number:016x}", BEGIN + number, "submission", watched=False) for number in range(1200)]
    awaiting = Awaiting(lost, since=BEGIN, heard={})
    sizes = []
    for _ in range(4):
        given = list(awaiting.given_up(BEGIN + 30 * 24 * HOUR, lifetime=6 * 24 * HOUR))
        sizes.append(len(given))
        for reference in given:
            awaiting.forget(reference)
    assert sizes == [500, 500, 200, 0]


def test_where_no_log_is_nothing_is_expected_of_it(tmp_path: Path) -> None:
    """Else a host whose log cannot be read would call every recipient unknown, a week later."""
    room = Room(tmp_path)
    room.read()
    room.submit("A00001")
    room.time += 30 * 24 * HOUR
    room.read()
    assert room.events() == []


def test_a_record_that_came_out_of_the_emergency_spool_late_is_joined_and_never_given_back(room: Room) -> None:
    room.late = True
    room.write("A00001: client=c[192.0.2.1]", daemon="smtpd")
    room.write("A00001: message-id=<m@example.com>", daemon="cleanup")
    at = room.time
    room.write("A00001: from=<alice@example.com>, size=4, nrcpt=1 (queue active)", daemon="qmgr")
    room.write(to("A00001", "bob@example.net"), "A00001: removed")
    room.read()
    room.restart()
    now, room.time = room.time, at
    message = room.submit("A00001")
    room.time = now + 300
    room.read()
    assert [event.reference for event in room.events() if isinstance(event, Sent)] == [message.reference]
    room.take("A00002")
    room.time += HOUR
    room.read()
    assert room.used() == 6


# --- figures, other sources


def test_lines_of_postfix_in_a_form_that_nobody_reads_are_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And mail of other programs is not."""
    log = tmp_path / "mail.log"
    source = File(log, "", names=("postfix",))
    heads = {"Nov 22 12:00:00 mx dovecot": False, "Sun 2026-11-22 12:00:00 UTC mx postfix/smtp": True}
    for head, told in heads.items():
        with log.open("a") as file:
            file.write(f"{head}[1]: 0F5383D: removed\x1b\n")
        assert source.read(0.0, 0.0).lines == (None,)
        source.accept()
        said = [record.getMessage() for record in caplog.records if "another form" in record.getMessage()]
        assert bool(said) is told
        assert all("0F5383D: removed\\x1b" in each for each in said)
    source.close()


def test_what_waits_in_the_queue_is_shown(room: Room) -> None:
    room.take("A00001", "a@example.net", "b@example.net")
    room.write(to("A00001", "a@example.net", "deferred"))
    room.time += 100
    room.read()
    room.time += 10
    room.read()
    assert room.readers[0].figures["queue_recipients", ("deferred", "other")] == 1
    assert room.readers[0].figures["queue_recipients", ("active", "other")] == 1
    assert 110 < room.readers[0].figures["queue_oldest_seconds", ("deferred", "other")] < 130
    assert room.readers[0].figures["log_lag_bytes", ()] == 0


def test_a_bounce_that_a_report_told_of_first_is_not_told_again(room: Room) -> None:
    message = room.take("A00001", "bob@example.net")
    known = Bounced(
        source="dsn:1:0", time=room.time, queue_id="", reference=message.reference, login="", from_domain="",
        recipient="Bob@Example.Net", by="dsn",
    )  # fmt: skip
    room.journal.record([known])
    room.write(to("A00001", "bob@example.net", "bounced"))
    room.read()
    assert [event.source for event in room.events() if isinstance(event, Bounced)] == ["dsn:1:0"]


@pytest.mark.parametrize("ends", ["A00001: removed", "A00009: removed"])
def test_nobody_is_unknown_of_whom_an_old_log_has_told(room: Room, ends: str) -> None:
    """Neither at the end of a message whose lines were lost here, nor days later where that end was lost as well."""
    room.take("A00001", "a@example.net", "B@Example.NET", "c@example.net")
    room.read()
    old = room.folder / "mail.log.1"
    lost = (to("A00001", "a@example.net"), to("A00001", "b@example.net", "bounced"))
    live = room.log.rename(room.folder / "aside")
    room.write(*lost)
    room.log.rename(old)
    live.rename(room.log)
    rules = Rules(provider=lambda said: "other", lifetime=HOUR, forget=HOUR, give=refunds.give, awaits=False)
    with closing(
        PostLog(room.journal, lambda *_: OldFiles([old], names=["postfix"], now=room.time), rules,
                clock=lambda: room.time)
    ) as once:  # fmt: skip
        while once.work():
            pass
    room.write(ends)
    room.read()
    room.time += 7 * 24 * HOUR
    for _ in range(2):
        room.restart()
        room.read()
    told = [event for event in room.events() if isinstance(event, Sent | Bounced | Unknown)]
    assert [(kind(event), event.recipient) for event in told] == [
        ("sent", "a@example.net"), ("bounced", "B@Example.NET"), ("unknown", "c@example.net")
    ]  # fmt: skip


def test_reading_a_log_again_from_elsewhere_changes_nothing(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    """Once from the live log, once from its compressed copy, with stamps of the old form, and twice."""
    room.take("A00001", "a@example.net", "b@example.net")
    room.write(to("A00001", "a@example.net", "deferred"), to("A00001", "a@example.net", delay=70), "A00001: removed")
    room.read()
    known = room.events()
    assert [kind(event) for event in known] == ["deferred", "sent", "unknown"]
    old = room.folder / "mail.log.2.gz"
    lines = [line.partition(b" ") for line in room.log.read_bytes().splitlines()]
    stamps = [
        time.strftime("%b %e %H:%M:%S", time.localtime(datetime.fromisoformat(s.decode()).timestamp()))
        for s, _, _ in lines
    ]
    old.write_bytes(
        gzip.compress(b"".join(f"{s} ".encode() + rest + b"\n" for s, (_, _, rest) in zip(stamps, lines, strict=True)))
    )
    rules = Rules(provider=lambda said: "other", lifetime=HOUR, forget=HOUR, give=refunds.give, awaits=False)
    for _ in range(2):
        reader = PostLog(
            room.journal,
            lambda name, place: OldFiles([old], names=["postfix"], now=room.time),
            rules,
            clock=lambda: room.time,
        )
        while reader.work():
            pass
        assert reader.recorded == 0
    assert room.events() == known


def test_old_logs_are_read_in_their_order_into_an_empty_journal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    room = Room(tmp_path)
    room.take("A00001", "a@example.net", "b@example.net")
    (tmp_path / "older.gz").write_bytes(gzip.compress(room.log.read_bytes()))
    room.log.unlink()
    room.write(to("A00001", "a@example.net"), to("A00001", "b@example.net", "bounced"), "A00001: removed")
    config = tmp_path / "postmeter.yaml"
    config.write_text(f"journal: {{path: {tmp_path / 'journal.db'}}}\n")
    command = ["books", "-c", str(config), "--once", str(room.log), str(tmp_path / "older.gz")]
    assert main(command) == 0
    assert capsys.readouterr().out == "6 lines, 6 of them Postfix's: 2 events about mail of ours that were not known\n"
    assert main(command) == 0
    assert "0 events" in capsys.readouterr().out
    assert [kind(event) for event in room.events()] == ["sent", "bounced"]
    assert main([*command, str(tmp_path / "none.log")]) == 1


def test_a_charge_in_another_store_is_noted_with_the_event_and_struck_off_when_given_back(tmp_path: Path) -> None:
    charges = (Charge(key="a", unit="messages", window=60, limit=0, amount=1, text=""),)
    with closing(Journal(tmp_path / "journal.db")) as journal:
        with journal.database.transaction() as link:
            refunds.note(link, [refunds.Refund(reference="r1", at=1.5, charges=charges)] * 2, 0.0)
        [found] = refunds.waiting(journal.database)
        assert (found.reference, found.at, [charge.name for charge in found.charges]) == ("r1", 1.5, ["sender:a"])
        refunds.strike(journal.database, "r1")
        assert refunds.waiting(journal.database) == []
