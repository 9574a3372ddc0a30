"""What a message costs with a journal and a ledger that have grown, and what a commit costs on this disk.

    PYTHONPATH=milter:. build/venv/bin/python -m tests.bench.growth [--events 0 10000000] [--logins 1000000] …

`postmeter milter` with every step on, over the milter protocol and without a Postfix: 8 sessions, each message of a
login drawn by chance. All journals are filled by SQL first; then rounds go from one to the next, and CPU is that of the
workers. Commits are counted in the write-ahead log, calls of fsync by strace where it is. Ten million events take some
5 GB below --folder, and eight minutes; the first journal has no event and no login before. What the kernel does not
keep in memory is read from the disk, which costs more than all else that grows; with --recall it keeps the journal, as
where there is memory for it. Figures go to build/bench-growth.json too.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.bench import cpu, filling, record
from tests.bench.clients import fork, wait
from tests.bench.messages import plain
from tests.bench.record import Figures, Parts, judged
from tests.bench.whole import socket_of, working
from tests.lab.folder import give
from tests.lab.mta import Mta
from tests.lab.product import Postmeter

_CLIENTS = 8
_SAMPLE = 240  # messages whose commits are counted: the write-ahead log must not begin anew meanwhile
_FLAT = 1.15  # differences below that mean nothing on a machine that others use


@dataclass(slots=True)
class Grown:
    """A milter on a journal that is filled; CPU milliseconds a message, a round each."""

    events: int
    logins: int
    ours: Postmeter
    took: float
    octets: int
    rounds: list[float] = field(default_factory=list)


def growth(options: argparse.Namespace) -> Figures:
    """The same messages on all journals in turn."""
    with ExitStack() as stack:
        all_ = [stack.enter_context(_grown(events, options)) for events in options.events]
        for nth in range(options.rounds + 1):
            for one in all_:
                if options.recall:
                    filling.recall(one.ours.state / "journal.db")
                # As many logins to draw from for all of them, whether the ledger knows any or not.
                spent = _round(one.ours, options.messages // (1 if nth else 4), max(1, options.logins))
                if nth:  # the first one warms caches
                    one.rounds.append(spent)
    print(f"{options.messages:,} messages a round, {options.rounds} rounds: CPU ms a message of the workers")
    for one in all_:
        print(
            f"  {one.events:>12,} events, {one.logins:>9,} logins, {one.octets / 1e9:6.2f} GB:  median "
            f"{statistics.median(one.rounds):.3f}, least {min(one.rounds):.3f}, most {max(one.rounds):.3f}"
        )
    first, last = min(all_[0].rounds), min(all_[-1].rounds)
    table = [
        {"events": one.events, "logins": one.logins, "octets": one.octets, "filled_in": one.took, "cpu_ms": one.rounds}
        for one in all_
    ]
    return {
        "grown": table,
        "recalled": options.recall,
        "goals": [judged("times as much CPU with the largest", last / first, _FLAT)],
    }


@contextmanager
def _grown(events: int, options: argparse.Namespace) -> Iterator[Grown]:
    with tempfile.TemporaryDirectory(prefix="postmeter-bench-", dir=options.folder) as folder:
        logins = options.logins if events else 0
        ours = working({"journal": {"sync": "normal"}}, give(Path(folder), "root") / "postmeter", daemons=("milter",))
        journal = ours.state / "journal.db"
        took = filling.fill(journal, events=events, logins=logins)
        filling.hand_over(journal, ours.user)
        size = filling.octets(journal)
        print(f"filled {events:,} events and {logins:,} logins in {took:.0f} s, {size / 1e9:.2f} GB", flush=True)
        with ours:
            yield Grown(events, logins, ours, took, size)


def _round(ours: Postmeter, messages: int, logins: int) -> float:
    before = cpu.each(ours.workers())
    send(socket_of(ours), clients=_CLIENTS, each=messages // _CLIENTS, logins=logins)
    return sum(cpu.since(before)) / (messages // _CLIENTS * _CLIENTS) * 1000


def send(address: Path, *, clients: int, each: int, logins: int) -> None:
    """All clients at once, a process and a connection each."""
    wait([fork(partial(_messages, address, each, logins)) for _ in range(clients)])


def _messages(address: Path, each: int, logins: int) -> None:
    mail = plain()
    fields, body, dice = mail.fields(), mail.body(), random.Random(os.getpid())
    with Mta(address, timeout=60) as mta:
        mta.negotiate()
        mta.connect(address="127.0.0.1")
        for _ in range(each):
            login = f"user{dice.randrange(logins)}@example.com"
            queue_id = f"4B{time.time_ns() // 1000:010X}{os.getpid() % 256:02X}"
            mta.mail(login, login=login)
            mta.rcpt("reader@example.net", queue_id=queue_id)
            verdict = mta.message(fields, body, queue_id=queue_id).verdict
            mta.abort()
            if verdict.code != "a":
                raise RuntimeError(f"{queue_id}: {verdict}")
        mta.quit()


# --- commits


def commits(options: argparse.Namespace) -> Figures:
    """How many messages share one, and what it costs to have them on the disk."""
    bare = {how: _bare(options.folder, how) for how in ("off", "normal", "full")}
    print("a commit of one row on this disk, µs: " + ", ".join(f"{how} {took:.0f}" for how, took in bare.items()))
    table = []
    for sync in ("normal", "full"):
        for sessions in (1, 8):
            table.append(_counted(options, sync, sessions))
            one = table[-1]
            print(
                f"  journal.sync {sync:<7}{sessions} sessions: {one['commits']:.2f} commits and {one['fsyncs']} "
                f"fsyncs a message, {one['cpu_ms']:.3f} ms of CPU, {one['a_second']:,.0f} messages/s"
            )
    shared = table[-1]["commits"]
    return {"bare_us": bare, "commits": table, "goals": [judged("commits a message of 8 sessions", shared, 0.9)]}


def _counted(options: argparse.Namespace, sync: str, sessions: int) -> Figures:
    settings = {"milter": {"workers": 1}, "journal": {"sync": sync}}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="postmeter-bench-", dir=options.folder))
        place = give(Path(folder), "root") / "postmeter"
        ours = stack.enter_context(working(settings, place, daemons=("milter",)))
        journal, address, [worker] = ours.state / "journal.db", socket_of(ours), ours.workers()
        send(address, clients=sessions, each=_SAMPLE // sessions, logins=1000)
        filling.restart_log(journal)
        send(address, clients=sessions, each=_SAMPLE // sessions, logins=1000)
        found = filling.commits(journal)
        with _traced(worker) as calls:
            send(address, clients=sessions, each=_SAMPLE // sessions, logins=1000)
        before, begun = cpu.seconds([worker]), time.perf_counter()
        send(address, clients=sessions, each=options.messages // 4 // sessions, logins=1000)
        took, spent = time.perf_counter() - begun, cpu.seconds([worker]) - before
    sent = options.messages // 4 // sessions * sessions
    syncs = None if calls.count is None else round(calls.count / _SAMPLE, 2)
    return {
        "sync": sync, "sessions": sessions, "commits": found / _SAMPLE, "fsyncs": syncs,
        "cpu_ms": spent / sent * 1000, "a_second": sent / took,
    }  # fmt: skip


@dataclass(slots=True)
class _Calls:
    count: int | None = None


@contextmanager
def _traced(pid: int) -> Iterator[_Calls]:
    """Calls of fsync(2) and fdatasync(2) within; none are told where strace is not, or may not."""
    calls = _Calls()
    strace = shutil.which("strace")
    if strace is None:
        yield calls
        return
    with tempfile.NamedTemporaryFile() as kept:
        command = [strace, "-f", "-qq", "-e", "trace=fsync,fdatasync", "-o", kept.name, "-p", str(pid)]
        tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 5
        while not _is_traced(pid) and tracer.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        yield calls
        ended = tracer.poll()
        tracer.terminate()
        tracer.wait(10)
        if ended is None:
            calls.count = sum(b"sync(" in line for line in Path(kept.name).read_bytes().splitlines())


def _is_traced(pid: int) -> bool:
    return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()


def _bare(folder: str, how: str) -> float:
    """Microseconds of a transaction of one row, the median of many."""
    with ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="postmeter-bench-", dir=folder))
        link = stack.enter_context(closing(sqlite3.connect(Path(place) / "bare.db", isolation_level=None)))
        link.execute("PRAGMA journal_mode=WAL")
        link.execute(f"PRAGMA synchronous={how}")
        link.execute("CREATE TABLE one (n INTEGER PRIMARY KEY, text TEXT)")
        times = []
        for nth in range(1000):
            begun = time.perf_counter()
            link.execute("INSERT INTO one VALUES (?, ?)", (nth, "x" * 500))
            times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e6


PARTS: Parts = {"growth": growth, "commits": commits}


def main(arguments: Sequence[str]) -> int:
    parser = record.parser("growth", __doc__, PARTS)
    parser.add_argument("--events", type=int, nargs="+", default=[0, 1_000_000])
    parser.add_argument("--logins", type=int, default=1_000_000, help="of all journals but the empty one")
    parser.add_argument("--recall", action="store_true", help="read a journal through before each of its rounds")
    parser.add_argument("--messages", type=int, default=4000, help="a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", default="/var/tmp")
    record.measure(parser.parse_args(arguments), PARTS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
