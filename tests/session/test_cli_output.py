"""What commands print goes to a pipe whose reader has left, to a full disk, or nowhere: real processes, real pipes."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from postmeter.books.returns import KEPT, place
from postmeter.cli import main as program
from postmeter.cli.main import main
from postmeter.feedback.arrivals import Arrivals, Envelope
from postmeter.store import database

SOURCE = Path(program.__file__).parents[2]
ALICE = "alice@example.com"


def test_a_reader_that_has_seen_enough_is_no_failure() -> None:
    script = (
        "from postmeter.cli import main as program\n"
        "from postmeter.cli.command import Command, no_arguments\n"
        "def run(args):\n"
        "    for number in range(100_000): print(number)\n"
        "    return 0\n"
        "program.COMMANDS = [('try', '')]\n"
        "program.load = lambda word: Command('try', 'x', 'x', no_arguments, run)\n"
        "raise SystemExit(program.main(['try']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=SOURCE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


def _as_shell(line: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", "-c", f'exec "$0" -m postmeter {line}', sys.executable]
    return subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=False, timeout=30)


_READERS = ("report", "trace ABC", "quota show", "suppress list", "quota reset alice", "backup {folder}/copies")


@pytest.mark.parametrize(("line", "code"), [*((line, 1) for line in _READERS), ("milter", 78), ("books", 78)])
def test_a_journal_that_is_a_fifo_is_told_at_once(line: str, code: int, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    os.mkfifo(path)
    done = _with_journal(line, path)
    assert (done.returncode, done.stdout) == (code, "")
    assert f"{path}: it is no regular file; name" in done.stderr or f"{path} is not a file; name" in done.stderr


@pytest.mark.parametrize("line", [*_READERS, "milter"])
def test_another_programs_database_is_no_journal_and_stays_as_it_is(line: str, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path)) as theirs:
        theirs.execute("CREATE TABLE mail (a)")
    before = path.read_bytes()
    done = _with_journal(line, path)
    assert done.returncode == 1
    told = f"{path}: it is another program's database; give the journal a file of its own in journal.path"
    assert told in done.stderr
    assert path.read_bytes() == before


@pytest.mark.parametrize("foreign", [True, False])
def test_the_doctor_tells_of_what_is_no_journal(tmp_path: Path, foreign: bool) -> None:
    path = tmp_path / "journal.db"
    if foreign:
        with closing(sqlite3.connect(path)) as theirs:
            theirs.execute("CREATE TABLE mail (a)")
    else:
        os.mkfifo(path)
    done = _with_journal("doctor", path)
    assert done.returncode == 1
    assert ("another program's database" if foreign else "it is no regular file") in done.stdout


def _with_journal(line: str, path: Path) -> subprocess.CompletedProcess[str]:
    config = path.with_name("postmeter.yaml")
    nowhere = "metrics: {listen: null}\nmilter: {listen: inet:127.0.0.1:1}\ndkim: {resolvers: [127.0.0.1:9]}\n"
    config.write_text(f"journal: {{path: {path}}}\n{nowhere}")
    return _as_shell(f"{line.format(folder=path.parent)} -c {config}")


@pytest.mark.parametrize("line", ["--help >/dev/full", "check-config -c {empty} >/dev/full"])
def test_a_full_disk_is_told_in_a_line(line: str, tmp_path: Path) -> None:
    done = _as_shell(line.format(empty=_empty(tmp_path)))
    assert (done.returncode, done.stderr) == (1, "postmeter: No space left on device\n")


def test_a_milter_says_that_a_newer_one_was_at_work_with_its_journal(tmp_path: Path) -> None:
    """And goes on: here until it finds its socket's place taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"milter: {{listen: 'inet:127.0.0.1:{taken.getsockname()[1]}'}}"
        (tmp_path / "c.yaml").write_text(f"journal: {{path: {tmp_path}/journal.db}}\n{listen}\n")
        assert "newer version" not in _as_shell(f"milter -c {tmp_path}/c.yaml").stderr
        with database.open(tmp_path / "journal.db").transaction() as link:
            link.execute("INSERT INTO migrations VALUES ('2031-01 wonders', 0)")
        done = _as_shell(f"milter -c {tmp_path}/c.yaml")
    assert "a newer version has been at work with it (2031-01 wonders)" in done.stderr
    assert (done.returncode, "is in use" in done.stderr) == (78, True)


def test_nobody_needs_to_listen(tmp_path: Path) -> None:
    done = _as_shell(f"check-config -c {_empty(tmp_path)} >&-")
    assert (done.returncode, done.stderr) == (0, "")


def _empty(folder: Path) -> Path:
    """A configuration with nothing wrong in it."""
    path = folder / "postmeter.yaml"
    path.write_text(f"milter: {{listen: 'inet:127.0.0.1:8891'}}\njournal: {{path: {folder}/journal.db}}\n")
    return path


@pytest.mark.parametrize("line", ["quota show --all --json", "report", "suppress list", "links list", "feedback list"])
def test_a_reader_of_a_list_may_have_seen_enough(line: str, tmp_path: Path) -> None:
    """As `head` has: neither an error nor a word."""
    reader, writer = os.pipe()
    os.close(reader)
    config = tmp_path / "postmeter.yaml"
    config.write_text(f"journal: {{path: {tmp_path}/journal.db}}\n")
    database.open(tmp_path / "journal.db").close()
    assert main(["-c", str(config), "links", "block", "--login", ALICE]) == 0
    assert main(["-c", str(config), "suppress", "add", ALICE]) == 0
    Arrivals(place(tmp_path, KEPT)).put(Envelope(time=0), b"Subject: x\r\n\r\n")
    command = [sys.executable, "-u", "-m", "postmeter", *line.split(), "-c", str(config)]
    done = subprocess.run(command, cwd=SOURCE, stdout=writer, stderr=subprocess.PIPE, check=False, timeout=30)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
