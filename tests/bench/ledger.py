"""What it costs to charge a message with four limits: µs of CPU and of time, from 10 logins to 1,000,000.

    PYTHONPATH=milter:. build/venv/bin/python -m tests.bench.ledger [--only ROW] [--logins 10 1000] [--folder /var/tmp]

All rows do the same work in turn, on the same disk: messages of logins drawn by chance, each of which has sent five
before. A new store is a line in ROWS and a function that measures it. CPU is that of whoever keeps the accounts, system
time with it; time is for all clients together, so that two who do not wait for each other halve it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.context import ForkContext
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from redis import Redis as Client

from postmeter.events import Submitted
from postmeter.mail.draft import Figure
from postmeter.store import database
from postmeter.store.accounts import Charge
from postmeter.store.ledger import Ledger
from postmeter.store.redis_ledger import RedisLedger
from postmeter.store.settle import Settler
from tests.bench import cpu, policyd
from tests.lab.folder import CLONE
from tests.lab.redis import Redis, missing
from tests.lab.stores import Place, place

LIMITS = (("recipients", 86_400), ("recipients", 3600), ("messages", 86_400), ("bytes", 86_400))
SENT = 5
"""Messages that every login has sent before."""

FIGURES: dict[Figure, int] = {
    ("messages_total", ("submission", "accepted")): 1,
    ("recipients_total", ()): 1,
    ("dkim_signatures_total", ("example.com", "rsa-sha256")): 1,
    ("dkim_signatures_total", ("example.com", "ed25519-sha256")): 1,
    ("links_rewritten_total", ()): 25,
}


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds a message, and octets a login on disk or in memory before the first of them."""

    cpu: float
    wall: float
    size: float


@dataclass(frozen=True, slots=True)
class Work:
    """`folder` is empty and one's own."""

    folder: Path
    logins: int
    messages: int

    def drawn(self, seed: object) -> list[int]:
        dice = random.Random(str(seed))
        return [dice.randrange(self.logins) for _ in range(self.messages)]


@dataclass(frozen=True, slots=True)
class Row:
    """`most`: beyond so many logins it is not measured; `missing` says why it cannot be at all."""

    name: str
    about: str
    measure: Callable[[Work], Cost]
    most: int = 10_000_000
    missing: Callable[[], str] = str


def name(login: int) -> str:
    return f"user{login}@example.com"


def charges(login: int) -> list[Charge]:
    return [
        Charge(key=name(login), unit=unit, window=window, limit=2**40, amount=1, text="") for unit, window in LIMITS
    ]


def submitted(source: str, login: int) -> Submitted:
    return Submitted(
        source=f"eom:{source}",
        time=time.time(),
        queue_id=f"4bXyZ{source}",
        reference=f"{random.getrandbits(64):016x}",
        message_id=f"<{source}@example.com>",
        login=name(login),
        sender=name(login),
        service="submission",
        mail_from=name(login),
        from_domain="example.com",
        recipients=("somebody@example.net",),
        size=2000,
    )


def fill(path: Path, logins: int) -> None:
    """One login's row, charged as ever, and the same for all others."""
    ledger, now = Ledger(), time.time()
    for nth in range(SENT):
        ledger.settle(charges(0), now - 500 + nth)
    with closing(database.open(path)) as book:
        with book.transaction() as link:
            ledger.save(link)
            [(idle, state)] = link.execute("SELECT idle, state FROM folios")
        for begin in range(1, logins, 10_000):
            rows = ((f"sender:{name(n)}", idle, state) for n in range(begin, min(begin + 10_000, logins)))
            with book.transaction() as link:
                link.executemany("INSERT INTO folios (name, idle, state) VALUES (?, ?, ?)", rows)


def upsert(work: Work) -> Cost:
    """What SQLite takes for the least that can be done: one counter."""
    with closing(sqlite3.connect(work.folder / "upsert.db", isolation_level=None)) as link:
        link.execute("PRAGMA journal_mode=WAL")
        link.execute("PRAGMA synchronous=NORMAL")
        link.execute("CREATE TABLE counters (name TEXT PRIMARY KEY, used INTEGER NOT NULL) WITHOUT ROWID")
        add = "INSERT INTO counters VALUES (?, 1) ON CONFLICT DO UPDATE SET used = used + 1"
        link.execute("BEGIN")
        link.executemany(add, ((name(login),) for login in range(work.logins)))
        link.execute("COMMIT")
        link.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = (work.folder / "upsert.db").stat().st_size
        logins = [(name(login),) for login in work.drawn("upsert")]
        spent, begin = time.process_time(), time.perf_counter()
        for login in logins:
            link.execute(add, login)
        took = time.perf_counter() - begin
        return _cost(work, time.process_time() - spent, took, size=size)


def ours(*, workers: int, threads: int, events: bool, sync: str = "normal") -> Callable[[Work], Cost]:
    """Processes of some threads each, as the milter's workers; with the message's event and figures or without."""

    def measure(work: Work) -> Cost:
        path = work.folder / "journal.db"
        fill(path, work.logins)
        size = path.stat().st_size
        share = Work(work.folder, work.logins, work.messages // (workers * threads))
        fork = multiprocessing.get_context("fork")
        act = partial(_settle, path, share, threads=threads, events=events, sync=sync)
        spent, took = _together(fork, workers, act)
        return _cost(work, spent, took, size=size)

    return measure


def _settle(path: Path, work: Work, nth: int, start: Barrier, *, threads: int, events: bool, sync: str) -> float:
    return _settled(Settler(path, sync=sync), work, nth, threads, events, start)


def _settled(settler: Any, work: Work, nth: int, threads: int, events: bool, start: Barrier) -> float:
    """In a worker: CPU seconds. What a message brings with it is made before the clock starts."""
    with closing(settler):
        settler.open()
        mail = [_mail(work, f"{nth}-{thread}") for thread in range(threads)]
        clients = [threading.Thread(target=_send, args=(settler, each, events)) for each in mail]
        start.wait()
        before = time.process_time()
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        return time.process_time() - before


def _mail(work: Work, client: str) -> list[tuple[list[Charge], Submitted]]:
    return [(charges(login), submitted(f"{client}-{n}", login)) for n, login in enumerate(work.drawn(client))]


def _send(settler: Any, mail: Sequence[tuple[list[Charge], Submitted]], events: bool) -> None:
    for mine, event in mail:
        settler.settle(mine, event if events else None, FIGURES if events else {}, time.time())


def bare(work: Work) -> Cost:
    """What redis-py takes for the least that can be done: a script that does nothing, on one key."""
    with Redis() as server, closing(Client(unix_socket_path=str(server.socket))) as client:
        script = client.script_load("return 1")
        logins = [name(login) for login in work.drawn("bare")]
        spent, begin = time.process_time() + cpu.seconds([server.pid]), time.perf_counter()
        for login in logins:
            client.evalsha(script, 1, login)
        took = time.perf_counter() - begin
        return _cost(work, time.process_time() + cpu.seconds([server.pid]) - spent, took, size=0)


def redis(*, workers: int, threads: int, events: bool) -> Callable[[Work], Cost]:
    """As `ours`, by a unix socket; CPU is that of the workers and of Redis, size is memory of Redis."""

    def measure(work: Work) -> Cost:
        with Redis() as server:
            where = place(work.folder, server.unix)
            size = _fill_redis(server, where, work.logins)
            share = Work(work.folder, work.logins, work.messages // (workers * threads))
            fork = multiprocessing.get_context("fork")
            before = cpu.seconds([server.pid])
            act = partial(_remote, where, share, threads=threads, events=events)
            spent, took = _together(fork, workers, act)
            return _cost(work, spent + cpu.seconds([server.pid]) - before, took, size=size)

    return measure


def _remote(where: Place, work: Work, nth: int, start: Barrier, *, threads: int, events: bool) -> float:
    if events:
        return _settled(where.accounts(), work, nth, threads, events, start)
    return _settled(_Only(where.ledger()), work, nth, threads, events, start)


class _Only:
    """A charge without a journal, called as one with."""

    def __init__(self, ledger: RedisLedger) -> None:
        self._ledger = ledger
        self.close = ledger.close

    def open(self) -> None:
        pass

    def settle(self, mine: list[Charge], event: object, figures: object, now: float) -> None:
        self._ledger.settle(mine, now)


def _fill_redis(server: Redis, where: Place, logins: int) -> int:
    """One login's key, charged as ever, and the same for all others; how much memory that takes."""

    def memory() -> int:
        return int(server.cli("INFO", "memory").split("used_memory:")[1].split()[0])

    with closing(where.ledger()) as ledger:
        for _ in range(SENT):
            ledger.settle(charges(0), 0)
    empty, key = memory(), f"{{{where.prefix}}}:sender:"
    copy = (
        "for n = ARGV[2], ARGV[3] do redis.call('SET', KEYS[2] .. 'user' .. string.format('%d', n) .. '@example.com', "
        "redis.call('GET', KEYS[1]), 'PX', ARGV[1]) end"
    )
    for begin in range(1, logins, 10_000):
        end = min(begin + 10_000, logins) - 1
        server.cli("EVAL", copy, "2", key + name(0), key, "86000000", str(begin), str(end))
    return memory() - empty


def peer(work: Work) -> Cost:
    """Its CPU alone, not that of the two clients."""
    with policyd.started(work.folder, logins=work.logins, stamps=SENT) as (address, pid):
        size = (work.folder / "policyd.db").stat().st_size
        share = Work(work.folder, work.logins, work.messages // 2)
        fork = multiprocessing.get_context("fork")

        def client(nth: int, start: Barrier) -> float:
            logins = [name(login) for login in share.drawn(nth)]
            start.wait()
            policyd.ask(address, logins)
            return 0.0

        before = cpu.seconds([pid])
        _, took = _together(fork, 2, client)
        return _cost(work, cpu.seconds([pid]) - before, took, size=size)


def _together(fork: ForkContext, workers: int, act: Callable[[int, Barrier], float]) -> tuple[float, float]:
    """Seconds of CPU, as the processes tell them, and seconds that all of it took."""
    start, told = fork.Barrier(workers + 1), fork.SimpleQueue()
    processes = [fork.Process(target=lambda nth=nth: told.put(act(nth, start))) for nth in range(workers)]
    for process in processes:
        process.start()
    start.wait(60)
    begin = time.perf_counter()
    spent = sum(told.get() for _ in processes)
    took = time.perf_counter() - begin
    for process in processes:
        process.join()
    return spent, took


def _cost(work: Work, spent: float, took: float, *, size: int) -> Cost:
    return Cost(spent / work.messages * 1e6, took / work.messages * 1e6, size / work.logins)


ROWS = [
    Row("upsert", "a bare upsert and commit of one counter, sqlite3, WAL", upsert),
    Row("charge", "postmeter, SQLite: four limits, one process", ours(workers=1, threads=1, events=False)),
    Row("charge-2", "the same, two workers of four threads", ours(workers=2, threads=4, events=False)),
    Row("message-2", "the same with the message's event and figures", ours(workers=2, threads=4, events=True)),
    Row(
        "full-2",
        "the same, each commit on the disk (journal.sync: full)",
        ours(workers=2, threads=4, events=True, sync="full"),
    ),
    Row("redis-bare", "redis-py, a script that does nothing, by a unix socket", bare, missing=missing),
    Row("redis", "postmeter, Redis: four limits, alone", redis(workers=1, threads=1, events=False), missing=missing),
    Row("redis-2", "the same, two workers of four threads", redis(workers=2, threads=4, events=False), missing=missing),
    Row("redis-msg-2", "the same with event and figures", redis(workers=2, threads=4, events=True), missing=missing),
    Row("policyd", "policyd-rate-limit, SQLite: four limits, two clients", peer, most=100_000, missing=policyd.missing),
]


def measured(row: Row, logins: int, messages: int, folder: str) -> Cost:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        return row.measure(Work(Path(place), logins, messages))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ledger", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="ROW", choices=[row.name for row in ROWS])
    parser.add_argument("--logins", type=int, nargs="+", default=[10, 1000, 100_000, 1_000_000])
    parser.add_argument("--messages", type=int, default=4000)
    parser.add_argument("--folder", default="/var/tmp")
    parser.add_argument("--json", type=Path, default=CLONE / "build" / "bench-ledger.json")
    options = parser.parse_args(arguments)
    rows = [row for row in ROWS if not options.only or row.name in options.only]
    for row in rows:
        print(f"  {row.name}: {row.about}")
    print(f"{'logins':>9}  {'row':<12}{'CPU µs':>9}{'time µs':>9}{'octets a login':>16}")
    found = []
    for logins in options.logins:
        for row in rows:
            if reason := row.missing():
                print(f"{logins:>9,}  {row.name:<12} {reason}")
            elif logins <= row.most:
                cost = measured(row, logins, options.messages, options.folder)
                found.append({"row": row.name, "logins": logins, **asdict(cost)})
                print(f"{logins:>9,}  {row.name:<12}{cost.cpu:9.0f}{cost.wall:9.0f}{cost.size:16,.0f}", flush=True)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
