"""Hits become clicks in the journal, each once, whatever a spool holds and wherever the reader was stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postmeter.books.hits import HitReader
from postmeter.books.robotfile import RobotFile
from postmeter.events import Clicked
from postmeter.runtime import spool
from postmeter.store.journal import Journal
from postmeter.tracking.hits import SPOOL, Hit

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
