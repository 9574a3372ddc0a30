"""The database and the journal: made, opened by others, brought up to date, read in slices."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from postmeter.events import Clicked
from postmeter.mail.draft import Figure
from postmeter.store import copying, database, ledger
from postmeter.store.accounts import Charge
from postmeter.store.database import Database, StoreError
from postmeter.store.journal import Journal
from postmeter.store.migrations import MIGRATIONS
from postmeter.store.settle import Settler
from postmeter.store.turn import Turn
from tests.lab.child import code_of
from tests.lab.folder import new_folder
from tests.lab.waiting import wait_for

NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with closing(Journal(path, host="mx1")) as journal:
        yield journal


def clicked(nth: int) -> Clicked:
    return Clicked(
        source=f"hit:file:{nth}",
        time=float(nth),
        reference="00112233445566aa",
        link=nth,
        recipient="",
        target="https://example.com/",
        host="click.example.com",
        method="GET",
        address="192.0.2.1",
        agent="Mozilla\ud83d",
    )


def test_the_journal_is_made_readable_for_its_group_and_nobody_else(journal: Journal, path: Path) -> None:
    journal.record([clicked(1)])
    names = ["journal.db", "journal.db-shm", "journal.db-wal", "journal.db.lock"]
    assert sorted(entry.name for entry in path.parent.iterdir()) == names
    assert {stat.S_IMODE((path.parent / name).stat().st_mode) for name in names} == {0o640}


def test_what_root_makes_belongs_to_whom_the_directory_belongs_to(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes files for others")
    os.chown(path.parent, NOBODY, NOBODY)
    with closing(Journal(path)) as journal:
        journal.record([clicked(1)])
        assert {entry.stat().st_uid for entry in path.parent.iterdir()} == {NOBODY}


@pytest.mark.parametrize("name", ["journal.db", "journal.db.lock"])
def test_no_link_leads_to_a_file_made_elsewhere(path: Path, name: str) -> None:
    """The daemons' user owns the directory; commands of root make what is missing there."""
    elsewhere = path.with_name("elsewhere")
    path.with_name(name).symlink_to(elsewhere)
    with pytest.raises(StoreError):
        database.open(path)
    assert not elsewhere.exists()


def test_positions_events_and_figures_are_recorded_together_or_not_at_all(journal: Journal) -> None:
    figures: dict[Figure, int] = {("errors_total", ("hits",)): 2}
    assert journal.record([clicked(1), clicked(2)], figures=figures, positions={"hits": "9"}) == 2
    assert journal.record([clicked(2), clicked(3)], positions={"hits": "12", "log": "1"}) == 1
    with pytest.raises(sqlite3.ProgrammingError):
        journal.record([clicked(4)], positions={"hits": object()})  # type: ignore[dict-item]
    assert (journal.position("hits"), journal.position("none")) == ("12", "")
    assert journal.positions("h") == {"hits": "12"}
    assert [entry.seq for entry in journal.events()] == [1, 2, 3]
    assert journal.totals() == {**figures, ("clicks_total", ("unsure",)): 3}


def test_events_are_read_in_slices_in_the_order_they_were_recorded(journal: Journal) -> None:
    journal.record(clicked(nth) for nth in range(10))
    first = journal.events(limit=4)
    rest = journal.events(after=first[-1].seq, limit=100)
    found = [entry.event for entry in first + rest]
    assert [event.link for event in found if isinstance(event, Clicked)] == list(range(10))
    assert journal.of_reference("00112233445566aa") == first + rest


def test_sequence_numbers_are_never_used_again(journal: Journal) -> None:
    journal.record([clicked(1)])
    with journal.database.transaction() as link:
        link.execute("DELETE FROM events")
    journal.record([clicked(2)])
    assert [entry.seq for entry in journal.events()] == [2]


def test_a_copy_of_a_journal_without_events_gives_no_number_again_either(journal: Journal, path: Path) -> None:
    """Who was told of an event by a webhook takes another of that number for the same."""
    copying.copy(journal.database, path.with_name("copy"))
    journal.record([clicked(1)])
    with closing(Journal(path.with_name("copy"))) as copy:
        copy.record([clicked(2)])
        assert copy.last() > 10**15
    with closing(Journal(path.with_name("copy"))) as copy:
        copy.record([clicked(3)])
        assert [entry.seq for entry in copy.events()] == [copy.last() - 1, copy.last()]


def fail_halfway(journal: Journal) -> None:
    with journal.database.transaction() as link:
        link.execute("INSERT INTO positions VALUES ('a', 'b')")
        raise ValueError("ours")


def test_a_transaction_that_fails_leaves_nothing_and_the_database_usable(journal: Journal) -> None:
    with pytest.raises(ValueError, match="ours"):
        fail_halfway(journal)
    assert journal.position("a") == ""
    journal.record([], positions={"a": "c"})
    assert journal.position("a") == "c"


def test_lookups_use_an_index(journal: Journal) -> None:
    for column in ("reference", "queue_id", "login"):
        sql = f"EXPLAIN QUERY PLAN SELECT * FROM events WHERE {column} = 'x' AND {column} != ''"
        (plan,) = journal.database.query(sql)
        assert f"events_{column}" in plan[3]


def test_a_migration_is_made_once_and_a_failing_one_leaves_the_old_schema(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Journal(path).close()
    monkeypatch.setattr(database, "MIGRATIONS", [*MIGRATIONS, ("bad", "CREATE TABLE new (a); CREATE nonsense")])
    with pytest.raises(StoreError, match="nonsense"):
        database.open(path)
    monkeypatch.undo()
    with closing(Journal(path)) as journal:
        made = {name for (name,) in journal.database.query("SELECT name FROM migrations")}
        assert made == {name for name, _ in MIGRATIONS}
        assert not journal.database.query("SELECT 1 FROM sqlite_master WHERE name = 'new'")


def test_processes_that_start_together_all_find_the_schema(path: Path) -> None:
    code = "import sys, pathlib; from postmeter.store import database; database.open(pathlib.Path(sys.argv[1]))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    starts = [subprocess.Popen([sys.executable, "-c", code, str(path)], env=environment) for _ in range(4)]
    assert [start.wait(30) for start in starts] == [0, 0, 0, 0]


def test_a_reader_without_leave_to_write_reads_while_daemons_run_and_when_none_does(
    request: pytest.FixtureRequest,
) -> None:
    """Not in a folder of pytest's, which another pytest closes to all but us whenever it begins."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    path = new_folder("journal") / "journal.db"
    request.addfinalizer(lambda: shutil.rmtree(path.parent))
    running = Journal(path)
    running.record([clicked(1)])
    for name in ("", "-wal", "-shm"):
        os.chown(f"{path}{name}", 0, NOBODY)
    assert read_as_nobody(path) == 1
    running.close()
    assert not path.with_name("journal.db-wal").exists()
    assert read_as_nobody(path) == 1


def read_as_nobody(path: Path) -> int:
    """How many events another user sees who may only read."""

    def read() -> int:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        with closing(Journal(path, readonly=True)) as journal:
            return len(journal.events())

    return code_of(read)


def test_a_journal_that_was_moved_away_is_made_anew(journal: Journal, path: Path) -> None:
    journal.record([clicked(1)])
    with closing(Journal(path, readonly=True)) as reader:
        assert reader.last() == 1
        for name in ("", "-wal", "-shm"):
            os.rename(f"{path}{name}", f"{path}.old{name}")
        journal.record([clicked(2), clicked(3)])
        with closing(Journal(path, readonly=True)) as other:
            assert [entry.event.source for entry in other.events()] == ["hit:file:2", "hit:file:3"]
        moved = time.monotonic()
        while reader.last() != 2:
            assert time.monotonic() < moved + 1, "who only reads notices it a tenth of a second later"


class Overtaken(Database):
    """What others write while it copies the log back is left over: as if behind the place of a reader."""

    reader: sqlite3.Connection

    def _copy_back(self) -> int:
        pages = super()._copy_back()
        self.reader.rollback()
        return pages


def write(database: Database, times: int) -> None:
    for _ in range(times):
        with database.transaction() as link:
            link.execute("INSERT OR REPLACE INTO positions VALUES ('x', '1')")


@pytest.mark.parametrize(("transactions", "anew"), [(100, False), (4000, True)])
def test_a_log_grown_long_begins_anew_although_others_write_while_it_is_copied_back(
    journal: Journal, path: Path, transactions: int, anew: bool
) -> None:
    """Else it would grow until a writer has to copy it back, and all others wait for that."""
    write(journal.database, transactions)
    with closing(Overtaken(path, sync="normal", readonly=False)) as books, closing(sqlite3.connect(path)) as reader:
        books.reader = reader
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM positions").fetchall()
        write(journal.database, 1)
        books.checkpoint()
        write(journal.database, 1)
        [(_, pages, _)] = journal.database.query("PRAGMA wal_checkpoint(PASSIVE)")
    assert (int(str(pages)) < 50) == anew


def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"none/journal\.db"):
        Journal(tmp_path / "none" / "journal.db")


def test_a_file_that_no_daemon_has_written_to_is_told_what_makes_a_journal_of_it(tmp_path: Path) -> None:
    """As a disk that is full, or touch(1), leaves one."""
    (tmp_path / "journal.db").touch()
    with pytest.raises(StoreError, match=r"no such table: migrations; it is empty, .* start the daemons"):
        database.open(tmp_path / "journal.db", readonly=True)
    Journal(tmp_path / "journal.db").close()
    database.open(tmp_path / "journal.db", readonly=True).close()


@pytest.mark.parametrize("readonly", [True, False])
@pytest.mark.parametrize("kind", ["fifo", "directory", "socket", "device"])
def test_what_is_no_regular_file_is_named_at_once(tmp_path: Path, kind: str, readonly: bool) -> None:
    """Who opens a FIFO waits for somebody at its other end, without end."""
    path = tmp_path / "journal.db"
    make_odd(path, kind)
    done = run_apart(
        "import sys, pathlib; from postmeter.store import database\n"
        f"try: database.open(pathlib.Path(sys.argv[1]), readonly={readonly})\n"
        "except database.StoreError as error: print(error)",
        path,
    )
    assert done == f"{path}: it is no regular file; name a file that may be made there in journal.path\n"


def make_odd(path: Path, kind: str) -> None:
    if kind == "socket":
        with closing(socket.socket(socket.AF_UNIX)) as unix:
            unix.bind(str(path))
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")


def run_apart(code: str, path: Path) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(path)]
    return subprocess.run(command, env=environment, timeout=30, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("readonly", [True, False])
@pytest.mark.parametrize(
    "schema",
    [
        "CREATE TABLE mail (a)",
        "CREATE TABLE migrations (id INTEGER, migration TEXT, batch INTEGER); CREATE TABLE events (a)",
        "CREATE TABLE migrations (name TEXT, time REAL); INSERT INTO migrations VALUES ('0001_initial', 0)",
        "CREATE VIEW migrations AS SELECT 1 AS name",
    ],
)
def test_another_programs_database_is_refused_and_left_as_it_is(path: Path, schema: str, readonly: bool) -> None:
    with closing(sqlite3.connect(path)) as theirs:
        theirs.executescript(schema)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"another program's database; give the journal a file of its own"):
        database.open(path, readonly=readonly)
    assert path.read_bytes() == before
    assert not path.with_name("journal.db-wal").exists()


def test_another_programs_database_in_use_is_refused_and_left_as_it_is(path: Path) -> None:
    with closing(sqlite3.connect(path)) as theirs:
        theirs.executescript("PRAGMA journal_mode=WAL; CREATE TABLE mail (a); INSERT INTO mail VALUES (1)")
        before = [path.with_name(path.name + ending).read_bytes() for ending in ("", "-wal")]
        with pytest.raises(StoreError, match="another program's database"):
            database.open(path)
        assert [path.with_name(path.name + ending).read_bytes() for ending in ("", "-wal")] == before
        assert theirs.execute("SELECT * FROM mail").fetchall() == [(1,)]


def test_accounts_that_are_long_empty_are_swept_and_others_stay(path: Path) -> None:
    def charge(key: str) -> Charge:
        return Charge(key=key, unit="messages", window=3600, limit=9, amount=1, text="")

    with closing(Settler(path)) as settler:
        settler.settle((charge("192.0.2.1"),), None, {}, 1e9)
        settler.settle((charge("192.0.2.2"),), None, {}, 1e9 + 86_400)
    with closing(Journal(path)) as journal:
        assert ledger.sweep(journal.database, 1e9 + 3600 + 86_399) == 0
        assert ledger.sweep(journal.database, 1e9 + 3600 + 2 * 86_400) == 1
        assert [row.key for row in ledger.usage(journal.database, 1e9 + 86_400)] == ["192.0.2.2"]


def is_waited_for(path: Path) -> bool:
    """As proc(5) has it: a line with an arrow for each who waits for a lock."""
    inode = f":{path.stat().st_ino} "
    return any(" -> " in line and inode in line for line in Path("/proc/locks").read_text().splitlines())


def test_the_turn_goes_on_at_once_to_who_waits(tmp_path: Path) -> None:
    ours, theirs = (Turn(os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)) for _ in range(2))
    assert theirs.take(1)
    waits: list[float] = []

    def wait() -> None:
        assert ours.take(10)
        waits.append(time.monotonic())
        ours.give()

    thread = threading.Thread(target=wait)
    thread.start()
    wait_for(lambda: is_waited_for(tmp_path / "lock"))
    given = time.monotonic()
    theirs.give()
    thread.join()
    assert waits[0] - given < 0.1
    ours.close()
    theirs.close()


def test_a_turn_that_is_over_in_a_moment_is_taken_without_the_waiting_thread(tmp_path: Path) -> None:
    naps: list[float] = []
    threads = set(threading.enumerate())

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            theirs.give()

    theirs = Turn(os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT))
    ours = Turn(os.open(tmp_path / "lock", os.O_RDWR), nap=nap)
    assert theirs.take(1)
    assert ours.take(10)
    assert (len(naps), sum(naps) < 0.001) == (3, True)
    assert set(threading.enumerate()) <= threads
    ours.close()
    theirs.close()


def test_who_knocks_in_vain_stands_in_line(tmp_path: Path) -> None:
    theirs = Turn(os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT))
    naps: list[float] = []
    ours = Turn(os.open(tmp_path / "lock", os.O_RDWR), nap=naps.append)
    assert theirs.take(1)
    thread = threading.Thread(target=ours.take, args=(10,))
    thread.start()
    wait_for(lambda: is_waited_for(tmp_path / "lock"))
    theirs.give()
    thread.join()
    assert 0 < sum(naps) < 0.002
    assert not theirs.take(0.05)
    ours.close()
    theirs.close()


def test_nobody_naps_on_when_their_patience_is_over(tmp_path: Path) -> None:
    """A nap may last: the processor is somebody else's then."""
    theirs = Turn(os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT))
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        time.sleep(0.06)

    ours = Turn(os.open(tmp_path / "lock", os.O_RDWR), nap=nap)
    assert theirs.take(1)
    assert not ours.take(0.05)
    assert len(naps) == 1
    ours.close()
    theirs.close()


def test_a_turn_given_back_for_who_gave_up_is_not_taken_from_who_asks_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The waiting thread locks the same file: what is taken before it gives that back would be given back with it."""
    theirs, ours = (Turn(os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)) for _ in range(2))
    giving, taken = threading.Event(), threading.Event()

    def give() -> None:
        giving.set()
        taken.wait(0.2)
        Turn.give(ours)

    assert theirs.take(1)
    assert not ours.take(0.05)
    monkeypatch.setattr(ours, "give", give)
    theirs.give()
    assert giving.wait(10)
    assert ours.take(10)
    taken.set()
    wait_for(lambda: not ours._blocked)
    assert not theirs.take(0.3)
    Turn.give(ours)
    ours.close()
    theirs.close()


def test_a_host_without_threads_for_a_moment_has_no_turn_for_a_moment(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a failure of the store, for which there is the emergency spool, and not one for ever."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with closing(database.open(path)) as book:
        theirs = Turn(os.open(path.with_name("journal.db.lock"), os.O_RDWR))
        assert theirs.take(1)
        with monkeypatch.context() as without:
            without.setattr(threading.Thread, "start", start)
            with pytest.raises(StoreError, match=r"new thread; .*tasks"):
                write(book, 1)
        theirs.give()
        write(book, 1)
        theirs.close()


def test_who_gave_up_waiting_does_not_get_the_turn_later(tmp_path: Path) -> None:
    first, second = (Turn(os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)) for _ in range(2))
    assert first.take(1)
    assert not second.take(0.05)
    first.give()
    assert first.take(1)
    first.give()
    assert second.take(1)
    first.close()
    second.close()
