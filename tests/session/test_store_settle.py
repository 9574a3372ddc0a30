"""Settling: all or nothing, once, over threads and processes, and through failures of the disk."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from postmeter.events import Refused, Submitted
from postmeter.mail.draft import Figure
from postmeter.store import batch, ledger, rows
from postmeter.store.accounts import Charge, Settled
from postmeter.store.batch import Job
from postmeter.store.database import Database, StoreError
from postmeter.store.emergency import Spool
from postmeter.store.journal import Journal
from postmeter.store.settle import Settler
from tests.lab.child import code_of
from tests.lab.waiting import wait_for

NOW = 1_700_000_000.0
LOGIN = "alice@example.com"
DONE = Settled()
ONE: dict[Figure, int] = {("recipients_total", ()): 1}


def charge(*, limit: int = 10, amount: int = 1, window: int = 3600, unit: str = "recipients") -> Charge:
    return Charge(key=LOGIN, unit=unit, window=window, limit=limit, amount=amount, text=f"{limit} {unit}/hour")


def submitted(source: str, *, now: float = NOW) -> Submitted:
    return Submitted(
        source=source,
        time=now,
        queue_id="4QUEUE",
        reference="0123456789abcdef",
        message_id="<m@example.com>",
        login=LOGIN,
        sender=LOGIN,
        service="submission",
        mail_from=LOGIN,
        from_domain="example.com",
        recipients=("bob@example.net",),
        size=2000,
        facts={"links": 2, "signatures": ["example.com/pm/rsa-sha256"]},
    )


def refused(minute: int = 1) -> Refused:
    source = f"refused:{LOGIN}:quota:{minute}"
    return Refused(
        source=source, time=NOW, login=LOGIN, sender=LOGIN, service="s", reason="quota", reply="451", recipients=2
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def settler(path: Path) -> Iterator[Settler]:
    settler = hasty(path)
    yield settler
    settler.close()


def hasty(path: Path) -> Settler:
    """Gives up and tries again sooner than a milter does."""
    settler = Settler(path, host="mx1", patience=0.2, tick=0.1)
    settler.open()
    return settler


def used(path: Path, now: float = NOW) -> int:
    with closing(Journal(path, readonly=True)) as journal:
        return sum(row.used for row in ledger.usage(journal.database, now, key=LOGIN))


def kept(path: Path) -> list[str]:
    """The sources in the journal, in order."""
    with closing(Journal(path, readonly=True)) as journal:
        return [entry.event.source for entry in journal.events(limit=100_000)]


def total(path: Path) -> int:
    with closing(Journal(path, readonly=True)) as journal:
        return journal.totals().get(("recipients_total", ()), 0)


def spooled(path: Path) -> list[Path]:
    return sorted(path.parent.glob("spool/events/*.json"))


def test_a_charge_without_room_charges_nothing_and_records_nothing(settler: Settler, path: Path) -> None:
    day = charge(limit=1000, window=86400)
    assert settler.settle((charge(limit=1), day), submitted("a"), ONE, NOW) == DONE
    over = settler.settle((charge(limit=1), day), submitted("b"), ONE, NOW + 60).refused
    assert over is not None
    assert (over.charge.window, over.used, over.room_at) == (3600, 1, NOW + 3600)
    assert (kept(path), total(path), used(path, NOW + 60)) == (["a"], 1, 2)


def test_of_several_limits_the_one_that_frees_last_is_told(settler: Settler) -> None:
    limits = (charge(limit=1), charge(limit=1, window=86400), charge(limit=1, window=60))
    settler.settle(limits, submitted("a"), {}, NOW)
    over = settler.check(limits, NOW + 1)
    assert over is not None
    assert (over.charge.window, over.room_at) == (86400, NOW + 86400)


def test_what_never_fits_is_told_before_what_fits_later(settler: Settler) -> None:
    settler.settle((charge(limit=5, amount=5),), submitted("a"), {}, NOW)
    over = settler.check((charge(limit=5, amount=1), charge(limit=3, amount=4, window=60)), NOW)
    assert over is not None
    assert over.room_at is None


def test_settling_a_message_twice_records_and_charges_it_once(settler: Settler, path: Path) -> None:
    for _ in range(2):
        assert settler.settle((charge(limit=1),), submitted("a"), ONE, NOW) == DONE
    assert (kept(path), total(path), used(path)) == (["a"], 1, 1)


def test_a_message_that_has_no_room_leaves_no_trace_and_may_come_again(settler: Settler, path: Path) -> None:
    settler.settle((charge(limit=1),), submitted("a"), ONE, NOW)
    for later in (1, 3600):
        outcome = settler.settle((charge(limit=1),), submitted("b"), ONE, NOW + later)
        assert (outcome.refused is None) == (later == 3600)
        assert (len(kept(path)), total(path)) == ((2, 2) if later == 3600 else (1, 1))
    assert settler.settle((charge(limit=1),), submitted("a"), ONE, NOW + 3601) == DONE, "it was settled long ago"
    assert (kept(path), total(path)) == (["a", "b"], 2)


def test_messages_that_are_committed_together_know_each_other(settler: Settler, path: Path) -> None:
    """The same one twice, and two for which there is room for one."""
    sources = ["a", "a", "b", "b", "c"]
    jobs = [Job((charge(limit=2),), rows.encode(submitted(source), "mx1"), ONE, NOW) for source in sources]
    with closing(Journal(path)) as journal, journal.database.transaction() as link:
        batch.write(link, jobs, {}, host="mx1")
    assert [job.outcome.refused is None for job in jobs] == [True, True, True, True, False]
    assert (kept(path), total(path), used(path)) == (["a", "b"], 2, 2)


@pytest.mark.parametrize("count", [1, 29, 30, 31, 100])
def test_any_number_of_figures_is_added_up(settler: Settler, path: Path, count: int) -> None:
    figures: dict[Figure, int] = {("callback_seconds_sum", (f"stage {nth}",)): nth for nth in range(count)}
    for _ in range(2):
        settler.settle((), None, figures, NOW)
    with closing(Journal(path, readonly=True)) as journal:
        assert journal.totals() == {figure: 2 * value for figure, value in figures.items() if value}


def test_refusals_of_a_minute_are_one_event_with_a_count(settler: Settler, path: Path) -> None:
    for _ in range(3):
        settler.settle((), refused(), {}, NOW)
    settler.settle((), refused(minute=2), {}, NOW)
    with closing(Journal(path, readonly=True)) as journal:
        events = [entry.event for entry in journal.events()]
    assert [(e.count, e.recipients) for e in events if isinstance(e, Refused)] == [(3, 6), (1, 2)]


def test_an_event_comes_back_from_the_journal_as_it_went_in(settler: Settler, path: Path) -> None:
    settler.settle((), submitted("a"), {}, NOW)
    with closing(Journal(path, readonly=True)) as journal:
        (entry,) = journal.of_queue_id("4QUEUE")
        assert journal.of_reference("0123456789abcdef") == [entry]
    assert (entry.event, entry.host, entry.seq) == (submitted("a"), "mx1", 1)


def test_what_is_only_observed_is_charged_over_the_limit(settler: Settler, path: Path) -> None:
    over = Charge(key=LOGIN, unit="recipients", window=3600, limit=1, amount=5, text="1 recipient/hour", enforce=False)
    settled = settler.settle((over,), submitted("a"), {}, NOW)
    assert settled.refused is None
    assert settled.observed is not None
    assert (settled.observed.used, settled.observed.charge) == (0, over)
    assert used(path) == 5


def test_figures_alone_reach_the_totals_within_two_seconds(settler: Settler, path: Path) -> None:
    settler.add(ONE)
    wait_for(lambda: total(path) == 1, within=3)


def test_what_anybody_committed_is_given_to_the_disk_soon(
    settler: Settler, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself Linux does so after half a minute; a power cut is to take the last second only."""
    log, sync = path.with_name("journal.db-wal"), os.fdatasync
    given: list[int] = []

    def watched(file: int) -> None:
        size = os.fstat(file).st_size if os.path.samestat(os.fstat(file), log.stat()) else 0
        sync(file)
        given.append(size)

    monkeypatch.setattr(os, "fdatasync", watched)
    with closing(Settler(path, tick=0.05, syncs=True)) as books:
        books.add({})
        for nth in range(3):
            settler.settle((), submitted(f"m{nth}"), ONE, NOW)
            wait_for(lambda: log.stat().st_size in given)


def test_the_log_is_given_again_as_long_as_its_time_may_hide_a_change(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's clock stands still for up to 10 ms; and what is old and was given is left alone."""
    given: list[int] = []
    monkeypatch.setattr(os, "fdatasync", given.append)
    log, now = path.with_name("journal.db-wal"), time.time_ns()
    with closing(Database(path, sync="normal", readonly=False)) as book, book.transaction():
        for changed, times in ((now + 60 * 10**9, 3), (now - 10**9, 1)):
            os.utime(log, ns=(changed, changed))
            given.clear()
            for _ in range(3):
                book.sync_log()
            assert len(given) == times


def test_a_log_that_the_disk_did_not_take_is_given_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []

    def failing(file: int) -> None:
        given.append(file)
        if len(given) == 1:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", failing)
    log, old = path.with_name("journal.db-wal"), time.time_ns() - 10**9
    with closing(Database(path, sync="normal", readonly=False)) as book, book.transaction():
        os.utime(log, ns=(old, old))
        with pytest.raises(OSError, match="Input/output"):
            book.sync_log()
        for _ in range(2):
            book.sync_log()
    assert len(given) == 2


def test_figures_are_written_when_the_settler_closes(path: Path) -> None:
    settler = Settler(path)
    settler.open()
    settler.add(ONE)
    settler.close()
    assert total(path) == 1


def test_a_clock_that_was_far_ahead_does_not_lock_the_sender_out(settler: Settler) -> None:
    """`check` cannot put the account right and so leaves the decision to `settle`, which does."""
    settler.settle((charge(limit=1),), submitted("a"), {}, NOW + 10**8)
    assert settler.check((charge(limit=1),), NOW) is None
    over = settler.settle((charge(limit=1),), submitted("b"), {}, NOW).refused
    assert over is not None
    assert over.room_at == NOW + 3600
    assert settler.settle((charge(limit=1),), submitted("c"), {}, NOW + 3600) == DONE


def test_threads_of_the_store_take_no_signal_meant_for_the_daemon(settler: Settler, path: Path) -> None:
    with held(path):
        settler.settle((charge(),), submitted("a"), ONE, NOW)
    names = {thread.name: thread.native_id for thread in threading.enumerate()}
    status = Path(f"/proc/self/task/{names['settle']}/status").read_text()
    blocked = int(next(line for line in status.splitlines() if line.startswith("SigBlk")).split()[1], 16)
    assert blocked & 1 << (signal.SIGTERM - 1)
    assert blocked & 1 << (signal.SIGUSR1 - 1)


def test_a_settler_refuses_to_be_carried_over_a_fork(settler: Settler) -> None:
    def check() -> int:
        with pytest.raises(RuntimeError, match="open it again after a fork"):
            settler.check((charge(),), NOW)
        return 7

    assert code_of(check) == 7


def client(settler: Settler, name: str, limit: int, accepted: list[str]) -> None:
    """Sends until refused."""
    for nth in range(10_000):
        now = time.time()
        source = f"{name}.{nth}"
        if settler.settle((charge(limit=limit),), submitted(source, now=now), ONE, now).refused is not None:
            return
        accepted.append(source)


def worker(path: Path, name: str, limit: int, start: Barrier) -> None:
    """Sixteen clients in one process, as many as one milter worker may serve at a time."""
    settler = Settler(path)
    start.wait()
    threads = [threading.Thread(target=client, args=(settler, f"{name}.{n}", limit, [])) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    settler.close()


def test_four_processes_of_sixteen_threads_let_exactly_the_limit_through(path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    start = fork.Barrier(4)
    workers = [fork.Process(target=worker, args=(path, f"w{n}", 1000, start)) for n in range(4)]
    for process in workers:
        process.start()
    for process in workers:
        process.join(60)
    assert [process.exitcode for process in workers] == [0, 0, 0, 0]
    assert (used(path, time.time()), len(kept(path)), total(path)) == (1000, 1000, 1000)


def test_processes_killed_at_random_leave_ledger_journal_and_totals_equal(path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    dice = random.Random(4)
    generations = 60 if os.environ.get("POSTMETER_ALL") else 5
    limit = 150 * generations  # about half of them run into it
    for generation in range(generations):
        start = fork.Barrier(3)
        workers = [fork.Process(target=worker, args=(path, f"g{generation}w{n}", limit, start)) for n in range(2)]
        for process in workers:
            process.start()
        start.wait()
        time.sleep(dice.uniform(0.0, 0.12))
        for process in workers:
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
        with closing(Settler(path)) as settler:
            settler.open()  # nobody who was killed keeps the turn
        count = used(path, time.time())
        assert count <= limit
        assert (len(kept(path)), total(path)) == (count, count)
    assert kept(path)


def settle_what_is_named(path: Path, names: Connection) -> None:
    with closing(hasty(path)) as settler:
        while name := names.recv():
            settler.settle((charge(limit=1000),), submitted(name), ONE, NOW)
            names.send(None)


@pytest.mark.parametrize("endings", [("", "-wal", "-shm"), ("",)], ids=["with its log", "alone"])
def test_processes_whose_journal_was_moved_away_go_on_together_in_one(path: Path, endings: tuple[str, ...]) -> None:
    """What is left beside it is of no use to another: a journal in use was damaged so, and stayed unusable."""
    fork = multiprocessing.get_context("fork")
    pipes = [fork.Pipe() for _ in range(2)]
    workers = [fork.Process(target=settle_what_is_named, args=(path, there)) for _, there in pipes]
    for process in workers:
        process.start()
    for nth in range(20):
        if nth == 10:
            for ending in endings:
                os.rename(f"{path}{ending}", f"{path}.old{ending}")
        here, _ = pipes[nth % 2]
        here.send(f"m{nth}")
        here.recv()
    for (here, _), process in zip(pipes, workers, strict=True):
        here.send("")
        process.join(20)
    assert [process.exitcode for process in workers] == [0, 0]
    assert (kept(path), spooled(path)) == ([f"m{nth}" for nth in range(10, 20)], [])


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Somebody with sqlite3(1) forgets a transaction."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def test_a_held_database_sends_events_to_the_spool_and_they_return_once(settler: Settler, path: Path) -> None:
    with held(path):
        begun = time.monotonic()
        assert settler.settle((charge(),), submitted("a"), ONE, NOW) == DONE
        assert settler.settle((), refused(), ONE, NOW) == DONE
        assert time.monotonic() - begun < 3
        assert len(spooled(path)) == 2
    wait_for(lambda: not spooled(path))
    assert settler.settle((charge(),), submitted("a"), ONE, NOW) == DONE
    assert (sorted(kept(path)), used(path), total(path)) == (["a", refused().source], 1, 2)


def test_a_turn_that_never_comes_sends_events_to_the_spool(settler: Settler, path: Path) -> None:
    """A process of ours that was stopped (SIGSTOP) keeps its turn, and must not keep ours as well."""
    holder = subprocess.Popen(["flock", f"{path}.lock", "cat"], stdin=subprocess.PIPE)
    wait_for(lambda: subprocess.run(["flock", "-n", f"{path}.lock", "true"]).returncode == 1)
    try:
        assert settler.settle((charge(),), submitted("a"), ONE, NOW) == DONE
        assert len(spooled(path)) == 1
    finally:
        holder.communicate()
    wait_for(lambda: not spooled(path))
    assert (kept(path), used(path)) == (["a"], 1)


def test_a_limit_that_can_still_be_read_holds_while_nothing_can_be_written(settler: Settler, path: Path) -> None:
    settler.settle((charge(limit=1),), submitted("a"), ONE, NOW)
    with held(path):
        assert settler.settle((charge(limit=1),), submitted("b"), ONE, NOW).refused is not None
    assert not spooled(path)


def test_a_file_taken_but_not_removed_when_its_process_died_is_not_counted_again(path: Path) -> None:
    settler = hasty(path)
    with held(path):
        settler.settle((), refused(), ONE, NOW)
    (file,) = spooled(path)
    content = file.read_bytes()
    wait_for(lambda: not spooled(path))
    settler.close()
    file.write_bytes(content)
    again = hasty(path)
    wait_for(lambda: not spooled(path))
    again.close()
    assert total(path) == 1


def test_an_event_that_comes_back_late_does_not_free_what_was_charged_since(settler: Settler, path: Path) -> None:
    now = time.time()
    settler.settle((charge(limit=2),), submitted("a"), ONE, now)
    with held(path):
        settler.settle((charge(limit=2),), submitted("b"), ONE, now - 300)
    wait_for(lambda: not spooled(path))
    assert settler.check((charge(limit=2),), now + 3599) is not None
    over = settler.check((charge(limit=2, amount=2),), now + 1)
    assert over is not None
    assert over.room_at is not None
    assert over.room_at >= now + 3600


def test_a_login_that_is_no_text_is_settled_all_the_same(settler: Settler, path: Path) -> None:
    odd = replace(submitted("odd"), login="al\ud83dice\0", queue_id="é")
    assert settler.settle((replace(charge(), key="al\ud83dice\0"),), odd, ONE, NOW) == DONE
    assert kept(path) == ["odd"]
    assert settler.check((replace(charge(limit=1), key="al\ud83dice\0"),), NOW) is not None


def test_a_damaged_file_in_the_spool_does_not_stop_the_others(settler: Settler, path: Path) -> None:
    with held(path):
        settler.settle((charge(),), submitted("a"), ONE, NOW)
        spooled(path)[0].with_name("0-1-2.json").write_bytes(b'{"row":')
    wait_for(lambda: not spooled(path))
    assert kept(path) == ["a"]


@pytest.mark.parametrize(
    "row",
    [
        "none",
        ["h", "submitted", "s", 1.0],
        ["h", "submitted", "s", 1.0, "", "", "", "", "{}", "one more"],
        ["h", "submitted", "s", "yesterday", "", "", "", "", "{}"],
        ["h", "submitted", "s", 1.0, "", "", None, "", "{}"],
        ["h", "submitted", "s", 1.0, "", ["a"], "", "", "{}"],
        ["h", "submitted", "s", 1.0, "", "", "\ud83d", "", "{}"],
    ],
)
@pytest.mark.parametrize("place", ["row", "besides"])
def test_what_is_no_row_of_the_journal_does_not_stop_the_others_in_the_spool(
    settler: Settler, path: Path, row: object, place: str
) -> None:
    with held(path):
        settler.settle((charge(),), submitted("a"), ONE, NOW)
        said = json.loads(spooled(path)[0].read_bytes())
        said |= {place: row if place == "row" else [row]}
        spooled(path)[0].with_name("0-1-2.json").write_text(json.dumps(said))
    wait_for(lambda: not spooled(path))
    assert kept(path) == ["a"]


def test_a_file_in_the_spool_that_the_disk_does_not_give_stops_no_other_and_can_be_mended(
    settler: Settler, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with held(path):
        for nth, name in enumerate(("bad", "good")):
            settler.settle((), submitted(name), ONE, NOW + nth)
        bad = spooled(path)[0]
        mended = bad.read_bytes()
        bad.unlink()
        bad.symlink_to("/proc/self/mem")  # EIO, proc(5)
    wait_for(lambda: not spooled(path))
    assert (kept(path), [record.levelname for record in caplog.records if bad.stem in record.message]) == (
        ["good"],
        ["ERROR"],
    )
    aside = bad.with_suffix(".unreadable")
    aside.unlink()
    bad.write_bytes(mended)
    wait_for(lambda: not spooled(path))
    assert kept(path) == ["good", "bad"]


def test_what_another_process_took_is_not_read_while_that_removes_it(settler: Settler, path: Path) -> None:
    """A name that was listed, and has no file by now; a failure there would hold up whoever waits for the journal."""
    settler.open()
    spool = Spool(path.parent / "elsewhere", durable=False)
    for nth in range(2):
        spool.put(Job((), None, ONE, NOW + nth))
    with closing(Database(path, sync="normal", readonly=False)) as book:
        with book.transaction() as link:
            (first, second), _ = spool.take(link, NOW)
        first.unlink()
        first.symlink_to("removed")
        with book.transaction() as link:
            assert spool.take(link, NOW) == ([first, second], [])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]).returncode != 0:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as raw:
        while True:
            raw.write(bytes(4096))


def settle_many(settler: Settler, taken: list[str], now: float) -> None:
    for nth in range(1000):
        assert settler.settle((charge(limit=10**6),), submitted(f"m{nth}"), ONE, now) == DONE
        taken.append(f"m{nth}")


def test_a_full_disk_is_a_store_error_and_nothing_is_lost_when_there_is_room_again(small_disk: Path) -> None:
    path = small_disk / "journal.db"
    settler, now = hasty(path), time.time()
    settler.settle((charge(limit=10**6),), submitted("first"), ONE, now)
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"):
        fill(filler)
    taken = ["first"]
    with pytest.raises(StoreError, match="emergency spool"):
        settle_many(settler, taken, now)
    filler.unlink()
    wait_for(lambda: not spooled(path))
    settler.close()
    assert sorted(kept(path)) == sorted(taken)
    assert (used(path, now), total(path)) == (len(taken), len(taken))


FULL_FILE = """
import resource, signal, sys, time
from pathlib import Path
from tests.session.test_store_settle import DONE, ONE, Settler, charge, submitted
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
settler = Settler(Path(sys.argv[1]))
settler.open()
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
for nth in range(100):
    assert settler.settle((charge(limit=10**6),), submitted(f"m{nth}"), ONE, time.time()) == DONE
settler.close()
"""


def test_a_journal_that_may_not_grow_is_helped_out_by_the_spool(path: Path) -> None:
    command = [sys.executable, "-c", FULL_FILE, str(path), str(400 * 1024)]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    assert 0 < len(spooled(path)) < 100
    with closing(hasty(path)):
        wait_for(lambda: not spooled(path))
    assert (used(path, time.time()), total(path)) == (100, 100)
    assert sorted(kept(path)) == sorted(f"m{nth}" for nth in range(100))


def test_a_damaged_journal_is_named_with_what_to_do(path: Path) -> None:
    path.write_bytes(b"no database at all" * 1000)
    with pytest.raises(StoreError, match=r"journal\.db: file is not a database; .*move it away"):
        Settler(path).open()


def test_a_full_spool_is_a_store_error(settler: Settler, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settler._spool, "_most", 1)
    with held(path):
        settler.settle((charge(),), submitted("a"), ONE, NOW)
        with pytest.raises(StoreError, match="full"):
            settler.settle((charge(),), submitted("b"), ONE, NOW)


def test_a_thread_keeps_no_connection_of_its_own(settler: Settler) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for nth in range(20):
        thread = threading.Thread(target=settler.settle, args=((charge(limit=99),), submitted(f"t{nth}"), ONE, NOW))
        thread.start()
        thread.join()
    settler.check((charge(),), NOW)
    assert len(os.listdir("/proc/self/fd")) <= before + 3  # the reader: database, -wal, -shm


def test_what_a_killed_process_began_to_spool_is_forgotten(settler: Settler, path: Path) -> None:
    """Only when it is old: a fresh draft may be somebody's at this moment."""
    folder = path.parent / "spool" / "events"
    with held(path):
        settler.settle((), submitted("kept"), ONE, NOW)
        for name, age in (("old.tmp", 7200), ("fresh.tmp", 0)):
            (folder / name).write_text("{")
            os.utime(folder / name, (time.time() - age, time.time() - age))
    wait_for(lambda: not (folder / "old.tmp").exists())
    wait_for(lambda: not spooled(path))
    assert (folder / "fresh.tmp").exists()
