"""Hits become clicks in the journal, each once, whatever a spool holds and wherever the reader was stopped."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postmeter.books.following import Follower
from postmeter.books.hits import HitReader
from postmeter.books.robotfile import RobotFile
from postmeter.cli.main import main
from postmeter.events import Clicked, Deferred, Event, Opened, Rejudged, Released, Sent, Submitted
from postmeter.mail.draft import Figure
from postmeter.runtime import spool
from postmeter.store import figures
from postmeter.store.journal import Journal
from postmeter.tracking.hits import SPOOL, Hit
from postmeter.tracking.robotlist import DEFAULT

ROBOTS = RobotFile(None).robots
HIT = Hit(
    time=1.5,
    reference=b"referenc",
    link=3,
    recipient=b"",
    target="https://shop.example/",
    host="click.example.com",
    method="GET",
    address="203.0.113.9",
    agent="Mozilla/5.0",
)


def write(directory: Path, *lines: bytes) -> str:
    out = spool.Writer(directory, name=SPOOL, now=time.time)
    out.append(lines)
    out.close()
    return spool.files(directory, SPOOL)[-1].name


def read(directory: Path, journal: Journal, *, privacy: str = "recipients") -> list[Clicked]:
    reader = HitReader(directory, journal, robots=ROBOTS, privacy=privacy, clock=time.time)
    while reader.work():
        pass
    return [entry.event for entry in journal.events(limit=100_000) if isinstance(entry.event, Clicked)]


def test_a_file_that_a_backup_put_back_is_not_counted_again(tmp_path: Path) -> None:
    """It is another file of the same name: what was read of it before is read once more, and known."""
    journal = Journal(tmp_path / "journal.db")
    out = spool.Writer(tmp_path, name=SPOOL, now=time.time)
    out.append([HIT.line(), HIT.line()])
    assert len(read(tmp_path, journal)) == 2
    (path,) = spool.files(tmp_path, SPOOL)
    path.with_name("copy").write_bytes(path.read_bytes() + HIT.line() + b"\n")
    path.with_name("copy").rename(path)
    out.close()
    assert len(read(tmp_path, journal)) == 3
    assert journal.totals() == {("clicks_total", ("unsure",)): 3}
    assert spool.files(tmp_path, SPOOL) == []


def test_a_file_that_the_disk_does_not_give_keeps_no_other_from_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, by an error that whoever calls tells and counts; and read once the disk gives it again."""
    journal = Journal(tmp_path / "journal.db")
    bad = tmp_path / write(tmp_path, HIT.line())
    good = write(tmp_path, replace(HIT, time=2.5).line())
    number, pread, works = bad.stat().st_ino, os.pread, False

    def failing(file: int, *given: int) -> bytes:
        if os.fstat(file).st_ino == number and not works:
            raise OSError(errno.EIO, "Input/output error")
        return pread(file, *given)

    monkeypatch.setattr(os, "pread", failing)
    with pytest.raises(OSError, match=bad.name):
        read(tmp_path, journal)
    assert [entry.event.source for entry in journal.events()] == [f"hit:{good}:0"]
    works = True
    assert [click.source for click in read(tmp_path, journal)] == [f"hit:{good}:0", f"hit:{bad.name}:0"]


def test_a_hit_is_a_click_in_the_journal_and_its_file_is_gone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    name = write(tmp_path, HIT.line())
    assert read(tmp_path, journal) == [
        Clicked(
            source=f"hit:{name}:0",
            time=1.5,
            reference=b"referenc".hex(),
            link=3,
            recipient="",
            target="https://shop.example/",
            host="click.example.com",
            method="GET",
            address="203.0.113.0/24",
            agent="Mozilla/5.0",
            by="unsure",
            reason="no_browser",
            unique=True,
        )
    ]
    assert journal.totals() == {("clicks_total", ("unsure",)): 1}
    assert spool.files(tmp_path, SPOOL) == []
    assert journal.positions("hits:") == {}


def test_a_head_request_is_a_machine_s(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    write(tmp_path, HIT.line().replace(b'"GET"', b'"HEAD"'))
    read(tmp_path, journal)
    assert journal.totals() == {("clicks_total", ("machine",)): 1}


def test_nothing_about_a_person_is_kept_unless_wanted(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    write(tmp_path, HIT.line())
    (clicked,) = read(tmp_path, journal, privacy="totals")
    assert (clicked.address, clicked.agent) == ("", "")


def test_another_reader_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    out = spool.Writer(tmp_path, name=SPOOL, now=time.time)
    out.append([HIT.line()])
    assert len(read(tmp_path, journal)) == 1
    out.append([HIT.line()])
    assert len(read(tmp_path, journal)) == 2
    assert len(read(tmp_path, journal)) == 2
    assert journal.totals() == {("clicks_total", ("unsure",)): 2}


def test_of_thousands_of_files_the_oldest_are_read_first_and_a_bounded_number_at_a_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    for number in range(1000, 1200):
        (tmp_path / f"hits-{number}.jsonl").write_bytes(replace(HIT, time=float(number)).line() + b"\n")
    reader = HitReader(tmp_path, journal, robots=ROBOTS, privacy="recipients", clock=time.time)
    assert reader.work()
    first = [entry.event.time for entry in journal.events(limit=1000) if isinstance(entry.event, Clicked)]
    assert sorted(first) == [float(number) for number in range(1000, 1000 + len(first))]
    assert 0 < len(first) < 100
    while spool.files(tmp_path, "hits"):
        reader.work()
    assert len(read(tmp_path, journal)) == 200
    assert spool.files(tmp_path, "hits") == []


def test_places_of_files_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    journal.record([], positions={"hits:hits-gone.jsonl": "1:2", "log:mail": "3:4"})
    read(tmp_path, journal)
    assert journal.positions() == {"log:mail": "3:4"}


_BROKEN = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"1",
    b"{}",
    b"[" * 5000,
    b"\xff\xfe",
    b"x" * 20_000,
    HIT.line() + b" <torn>",
    HIT.line().replace(b'"link":3', b'"link":-1'),
    HIT.line().replace(b'"link":3', b'"link":true'),
    HIT.line().replace(b'"link":3', b'"link":1e300'),
    HIT.line().replace(b'"time":1.5', b'"time":NaN'),
    HIT.line().replace(b'"time":1.5', b'"time":"now"'),
    HIT.line().replace(b"7265666572656e63", b"7265666572656e6"),
    HIT.line().replace(b"7265666572656e63", b"7265666572656E63"),
    HIT.line().replace(b'"method":"GET"', b'"method":null'),
    HIT.line().replace(b'"kind":"click"', b'"kind":"other"'),
    HIT.line().replace(b'"fields":{}', b'"fields":7'),
    HIT.line().replace(b'"fields":{}', b'"fields":{"Purpose":7}'),
]


@pytest.mark.parametrize("line", _BROKEN)
def test_a_line_that_is_no_hit_is_counted_and_stops_nothing(tmp_path: Path, line: bytes) -> None:
    journal = Journal(tmp_path / "journal.db")
    write(tmp_path, HIT.line(), line, HIT.line())
    assert len(read(tmp_path, journal)) == 2
    assert journal.totals()["errors_total", ("hits",)] >= 1
    assert spool.files(tmp_path, SPOOL) == []


def test_clicks_that_the_server_could_not_keep_are_counted_one_by_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    write(tmp_path, b'{"lost":17}')
    read(tmp_path, journal)
    assert journal.totals() == {("errors_total", ("hits",)): 17}


def test_text_that_no_database_can_hold_is_kept_as_far_as_it_can(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    write(tmp_path, HIT.line().replace(b"Mozilla", b"\\ud800\\u0000"))
    (clicked,) = read(tmp_path, journal)
    assert clicked.agent == "?\x00/5.0"


@settings(max_examples=15, deadline=None)
@given(st.lists(st.recursive(st.none() | st.floats() | st.text(), lambda inner: st.dictionaries(st.text(), inner))))
def test_no_json_stops_the_reader(tmp_path_factory: pytest.TempPathFactory, values: list[object]) -> None:
    directory = tmp_path_factory.mktemp("hits")
    journal = Journal(directory / "journal.db")
    write(directory, *(json.dumps(value).encode() for value in values))
    assert read(directory, journal) == []
    journal.close()


_READS = """
import sys, time
from pathlib import Path
from postmeter.books.hits import HitReader
from postmeter.store.journal import Journal
where = Path(sys.argv[1])
from postmeter.books.robotfile import RobotFile
robots = RobotFile(None).robots
reader = HitReader(where, Journal(where / "journal.db"), robots=robots, privacy="recipients", clock=time.time)
print("started", flush=True)
while True:
    reader.work()
"""


def test_kill_9_of_the_reader_loses_and_doubles_no_click(tmp_path: Path) -> None:
    """Killed again and again while hits come in; events, figures and hits are equal in the end."""
    Journal(tmp_path / "journal.db").close()
    out = spool.Writer(tmp_path, name=SPOOL, now=time.time, limit=100_000)
    written = 0
    for _ in range(4):
        command = [sys.executable, "-c", _READS, str(tmp_path)]
        environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout
            process.stdout.readline()
            for _ in range(200):
                out.append([HIT.line()] * 5)
                written += 5
            process.send_signal(signal.SIGKILL)
    out.close()
    journal = Journal(tmp_path / "journal.db")
    assert len(read(tmp_path, journal)) == written
    assert journal.totals() == {("clicks_total", ("unsure",)): written}
    assert spool.files(tmp_path, SPOOL) == []


CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
FOLLOWED = (("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document"), ("Sec-Fetch-User", "?1"))
START = 1_700_000_000.0


def click(at: float, link: int = 1, **changes: object) -> bytes:
    known = replace(HIT, time=START + at, link=link, agent=CHROME, fields=FOLLOWED, secure=True, address="8.8.4.4")
    return replace(known, **changes).line()  # type: ignore[arg-type]


def message(*, recipients: int = 1, **facts: object) -> Submitted:
    return Submitted(
        source="eom:4bX:1",
        time=START - 3600,
        queue_id="4bX",
        reference=b"referenc".hex(),
        message_id="<1@example.com>",
        login="news@example.com",
        sender="news@example.com",
        service="submission",
        mail_from="news@example.com",
        from_domain="example.com",
        recipients=tuple(f"reader{n}@example.net" for n in range(recipients)),
        size=1000,
        facts=facts,
    )


@dataclass
class Office:
    """A spool, a journal and a reader whose clock is set by hand."""

    folder: Path
    now: float = START

    def __post_init__(self) -> None:
        self.journal = Journal(self.folder / "journal.db")
        self.writers = [spool.Writer(self.folder, name=SPOOL, now=time.time) for _ in range(2)]
        self.reader = self.another()

    def another(self, *, spare: int = 0) -> HitReader:
        return HitReader(
            self.folder, self.journal, robots=ROBOTS, privacy="totals", clock=lambda: self.now, spare=spare
        )

    def events(self, kind: type[Event]) -> list[Any]:
        return [entry.event for entry in self.journal.events(limit=100_000) if isinstance(entry.event, kind)]

    def read(self, at: float) -> None:
        self.now = START + at
        while self.reader.work():
            pass


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def test_a_hit_waits_for_those_that_belong_to_it_in_the_files_of_all_workers(office: Office) -> None:
    """Three links within a second, over two workers: a machine's, each of them, at the first verdict."""
    office.journal.record([message(privacy="recipients", campaign="spring", opens=True)])
    office.writers[0].append([click(0, 1)])
    office.read(1.0)
    assert office.events(Clicked) == []
    office.writers[1].append([click(0.5, 2)])
    office.writers[0].append([click(0.6, 3)])
    office.read(2.1)
    assert [(hit.link, hit.by, hit.reason) for hit in office.events(Clicked)] == [(1, "machine", "many_links")]
    office.read(10.0)
    assert {(hit.link, hit.by) for hit in office.events(Clicked)} == {(1, "machine"), (2, "machine"), (3, "machine")}
    assert {(hit.campaign, hit.from_domain, hit.recipients) for hit in office.events(Clicked)} == {
        ("spring", "example.com", 1)
    }
    assert office.journal.totals()["clicks_total", ("machine",)] == 3
    assert office.events(Rejudged) == []


def test_hits_wait_while_the_last_of_the_disk_is_for_mail(office: Office) -> None:
    office.writers[0].append([click(0, 1)])
    office.reader = office.another(spare=2 * spool.free_bytes(office.folder))
    office.read(at=100)
    assert office.events(Clicked) == []
    office.reader = office.another()
    office.read(at=100)
    assert len(office.events(Clicked)) == 1


def test_what_comes_within_a_minute_is_another_event_and_no_total_goes_down(office: Office) -> None:
    office.journal.record([message(privacy="recipients")])
    office.writers[0].append([click(0, 1)])
    office.read(5.0)
    office.writers[0].append([click(30, 0)])
    office.read(35.0)
    (first, trap), (again,) = office.events(Clicked), office.events(Rejudged)
    assert (first.by, trap.by) == ("human", "machine")
    assert (again.hit, again.what, again.was, again.by, again.reason) == (
        first.source, "click", "human", "machine", "honeypot",
    )  # fmt: skip
    assert office.journal.totals() == {("clicks_total", ("human",)): 1, ("clicks_total", ("machine",)): 1}


def put_off(at: float) -> Deferred:
    return Deferred(
        source=f"log:2:{at}:0",
        time=START + at,
        queue_id="4bX",
        reference=b"referenc".hex(),
        login="news@example.com",
        from_domain="example.com",
        recipient="reader0@example.net",
    )


def delivered(at: float) -> Sent:
    return Sent(
        source=f"log:1:{at}:0",
        time=START + at,
        queue_id="4bX",
        reference=b"referenc".hex(),
        login="news@example.com",
        from_domain="example.com",
        recipient="reader0@example.net",
    )


@pytest.mark.parametrize("log_first", [True, False])
def test_who_follows_a_link_before_the_message_is_delivered_is_no_person(office: Office, *, log_first: bool) -> None:
    """Greylisting kept it for an hour, and its reader's gateway looked at the link as it came. The log may tell of it
    before the click is judged, or after: then the verdict is another one from now on."""
    office.journal.record([message(privacy="recipients")])
    office.writers[0].append([click(0, 1)])
    if log_first:
        office.journal.record([delivered(0.5)])
    office.read(5.0)
    if not log_first:
        assert [hit.by for hit in office.events(Clicked)] == ["human"]
        office.journal.record([delivered(0.5)])
    office.read(6.0)
    office.read(7.0)
    verdicts = [(hit.by, hit.reason) for hit in (*office.events(Clicked), *office.events(Rejudged))]
    expected = ("machine", "before_delivery")
    assert verdicts == ([expected] if log_first else [("human", "browser"), expected])


def test_who_follows_a_link_while_the_message_is_put_off_is_not_known_for_a_person(office: Office) -> None:
    """A gateway looks at a link at each attempt, and lets the message wait."""
    office.journal.record([message(privacy="recipients"), put_off(-0.5)])
    office.writers[0].append([click(0, 1)])
    office.read(5.0)
    office.journal.record([delivered(300.0)])
    office.writers[0].append([click(400, 1)])
    office.read(410.0)
    verdicts = [(hit.by, hit.reason) for hit in office.events(Clicked)]
    assert verdicts == [("unsure", "not_delivered"), ("human", "browser")]


def test_the_first_delivery_to_anybody_is_that_of_a_shared_message(office: Office) -> None:
    office.journal.record([message(recipients=2, privacy="recipients"), delivered(900.0), delivered(-300.0)])
    office.writers[0].append([click(0, 1)])
    office.read(5.0)
    assert [hit.by for hit in office.events(Clicked)] == ["human"]


def test_a_click_counts_as_an_open_where_nobody_has_seen_one(office: Office) -> None:
    office.journal.record([message(privacy="recipients", opens=True)])
    office.writers[0].append([click(0, 1), click(10, 2), click(20, 1)])
    office.read(30.0)
    assert [(hit.link, hit.unique) for hit in office.events(Clicked)] == [(1, True), (2, True), (1, False)]
    (opened,) = office.events(Opened)
    assert (opened.by, opened.reason, opened.unique) == ("human", "click", True)
    assert opened.source == office.events(Clicked)[0].source + ":open"
    assert office.journal.totals()["opens_total", ("human",)] == 1


def test_an_open_that_a_click_has_shown_is_judged_again_with_it(office: Office) -> None:
    """Else a gateway that followed a link stays in the report as a reader."""
    office.journal.record([message(privacy="recipients", opens=True)])
    office.writers[0].append([click(0, 1)])
    office.read(5.0)
    office.journal.record([delivered(0.5)])
    office.read(6.0)
    follower = Follower(office.journal, domains=[])
    while follower.work():
        pass
    told = figures.read(office.journal.database, since=0, until=100_000)[""]
    assert {name: told[name] for name in told if name.startswith(("open", "click"))} == {
        "clicked_machine": 1, "clicks_machine": 1, "opened_machine": 1, "opens_machine": 1
    }  # fmt: skip


def counted(office: Office) -> dict[str, int]:
    """The figures of first opens and clicks."""
    follower = Follower(office.journal, domains=[])
    while follower.work():
        pass
    told = figures.read(office.journal.database, since=0, until=100_000)[""]
    return {name: told[name] for name in told if name.startswith(("opened", "clicked"))}


@pytest.mark.parametrize("restart", [False, True])
def test_a_first_click_that_turned_out_a_machine_s_makes_no_repeat_of_a_person_s(
    office: Office, *, restart: bool
) -> None:
    """The person is counted once, whether he comes with what changed that verdict, or later."""
    office.journal.record([message(privacy="recipients", opens=True)])
    office.writers[0].append([click(0, 1)])
    office.read(5.0)
    later = click(40, 1, address="9.9.9.9")
    office.writers[0].append([click(30, 0), *([] if restart else [later])])
    office.read(45.0)
    if restart:
        office.reader = office.another()
        office.writers[0].append([later])
        office.read(50.0)
    assert [(hit.link, hit.by, hit.unique) for hit in office.events(Clicked)] == [
        (1, "human", True), (0, "machine", True), (1, "human", True)
    ]  # fmt: skip
    assert counted(office) == {"clicked_human": 1, "clicked_machine": 2, "opened_human": 1, "opened_machine": 1}


def test_a_repeat_that_turned_out_a_machine_s_counts_where_no_machine_was_before_it(office: Office) -> None:
    """And a first one becomes a repeat where one was."""
    office.journal.record([message(recipients=2, privacy="recipients")])
    office.writers[0].append([click(0, 1, address="9.9.9.9"), click(3, 1), click(6, 2), click(9, 2, method="HEAD")])
    office.read(12.0)
    office.writers[0].append([click(30, 0)])
    office.read(35.0)
    assert [(hit.link, hit.by, hit.unique) for hit in office.events(Clicked)] == [
        (1, "human", True), (1, "human", False), (2, "human", True), (2, "machine", True), (0, "machine", True)
    ]  # fmt: skip
    assert [hit.unique for hit in office.events(Rejudged)] == [True, False]
    assert counted(office) == {"clicked_human": 1, "clicked_machine": 3}


def test_an_open_that_was_seen_is_not_counted_again_by_a_click_even_after_a_restart(office: Office) -> None:
    image = (("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Dest", "image"))
    office.journal.record([message(privacy="recipients", opens=True)])
    office.writers[0].append([click(0, 0, kind="open", target="", fields=image)])
    office.read(5.0)
    office.reader = office.another()
    office.writers[0].append([click(10, 1), click(20, 0, kind="open", target="", fields=image)])
    office.read(30.0)
    assert [(hit.reason, hit.unique) for hit in office.events(Opened)] == [("browser", True), ("browser", False)]
    assert office.journal.totals()["opens_total", ("human",)] == 2


def test_where_opens_are_not_looked_for_a_click_makes_none(office: Office) -> None:
    office.journal.record([message(privacy="recipients")])
    office.writers[0].append([click(0)])
    office.read(5.0)
    assert office.events(Opened) == []


def test_with_totals_the_journal_holds_nothing_that_leads_from_a_hit_to_its_reader(office: Office) -> None:
    """Counted as ever, and neither repeats nor opens by clicks can be told."""
    office.journal.record([message(privacy="totals", campaign="spring", opens=True)])
    office.writers[0].append([click(0, recipient=b"pseudony", target="https://shop.example/4711")] * 2)
    office.read(5.0)
    office.reader = office.another()
    hits = office.events(Clicked)
    assert len({hit.source for hit in hits}) == 2
    assert {(hit.reference, hit.recipient, hit.address, hit.agent) for hit in hits} == {("", "", "", "")}
    assert {(hit.time % 3600, hit.target, hit.unique) for hit in hits} == {(0, "https://shop.example/", None)}
    assert {hit.campaign for hit in hits} == {"spring"}
    assert office.events(Opened) == []
    assert office.journal.totals() == {("clicks_total", ("human",)): 2}
    assert office.journal.database.query("SELECT count(*) FROM hit_keys") == [(0,)]
    assert spool.files(office.folder, SPOOL)  # while its writer lives
    for writer in office.writers:
        writer.close()
    office.read(6.0)
    assert spool.files(office.folder, SPOOL) == []


def test_a_backlog_of_many_files_is_read_in_bounded_pieces_and_in_order_of_time(office: Office) -> None:
    """More than a piece of each file: nobody is judged before what came at the same time in another file was read."""
    office.journal.record([message(privacy="recipients", recipients=3)])
    for second in range(1500):
        office.writers[second % 2].append([click(second, 1, address=f"8.8.{second % 200}.4")] * 2)
    office.read(5000.0)
    times = [hit.time for hit in office.events(Clicked)]
    assert len(times) == 3000
    assert {hit.by for hit in office.events(Clicked)} == {"human"}
    assert times == sorted(times)


def test_more_in_a_second_than_a_piece_holds_is_read_all_the_same(office: Office) -> None:
    office.writers[0].append([click(0, 1)] * 3000)
    office.read(10.0)
    assert len(office.events(Clicked)) == 3000


def test_a_clock_that_went_back_does_not_hold_hits_up(office: Office) -> None:
    office.writers[0].append([click(900, 1), click(0, 2)])
    office.read(5.0)
    assert len(office.events(Clicked)) == 2


def test_lines_of_another_kind_go_to_who_understands_them_each_once(office: Office) -> None:
    def left(source: str, said: Mapping[str, Any]) -> tuple[Event, Mapping[Figure, int]]:
        released = Released(
            source=source, time=float(said["time"]), queue_id="", login="", sender="", action="released", by="person"
        )
        return released, {("unsubscribes_total", ()): 1}

    others = {"left": left}
    reader = HitReader(
        office.folder, office.journal, robots=ROBOTS, privacy="totals", clock=lambda: office.now, others=others
    )
    office.writers[0].append([b'{"kind":"left","time":1}', click(0), b'{"kind":"left"}', b'{"kind":"left","time":2}'])
    office.now = START + 10
    while reader.work():
        pass
    assert [event.time for event in office.events(Released)] == [1.0, 2.0]
    assert len(office.events(Clicked)) == 1
    totals = office.journal.totals()
    assert (totals["unsubscribes_total", ()], totals["errors_total", ("hits",)]) == (2, 1)


def test_a_list_of_robots_that_changed_is_used_and_a_broken_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "robots"
    text = "date 2026-01-01\nrobot one\nsource https://example.com/\non click\nverdict machine\nagent ~ Chrome/\n"
    path.write_text(text)
    known = RobotFile(path)
    assert not known.look()
    path.write_text(text.replace("2026", "2027"))
    assert known.look()
    assert known.robots.date.year == 2027
    path.write_text("nonsense")
    assert not known.look()
    path.unlink()
    assert not known.look()
    assert known.robots.date.year == 2027


def test_update_robots_takes_a_good_list_that_is_not_older(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, mine, new = tmp_path / "pm.yaml", tmp_path / "mine", tmp_path / "new"
    config.write_text(f"web: {{robots: {mine}}}\n")
    text = DEFAULT.read_text()

    def update(content: str) -> int:
        new.write_text(content)
        return main(["web", "-c", str(config), "--update-robots", str(new)])

    assert update(text) == 0
    assert mine.read_text() == text
    assert update(text + "nonsense\n") == 1
    assert update(text.replace("date 2026", "date 2020")) == 1
    assert "older than the list in use" in capsys.readouterr().err
    assert mine.read_text() == text
    assert update(text.replace("date 2026", "date 2036")) == 0
    config.write_text(f"web: {{robots: {tmp_path}/nowhere/mine}}\n")
    capsys.readouterr()
    assert update(text) == 1
    assert capsys.readouterr().err.startswith(f"postmeter web: {tmp_path}/nowhere/")
    config.write_text("")
    assert update(text) == 78
