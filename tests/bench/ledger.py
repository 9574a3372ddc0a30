"""What it costs to settle a message with four limits: µs of CPU and wall time, from 10 logins to 100,000.

    python -m tests.bench.ledger [--logins 10 1000 100000] [--messages 4000] [--folder /var/tmp]

The database lies on a real disk unless told otherwise. Each message is checked and settled with its event and its
figures, as the milter does; a third row does it in two processes with four threads each, where wall time is per message
of all together.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

from postmeter.events import Submitted
from postmeter.mail.draft import Figure
from postmeter.store import database, ledger
from postmeter.store.accounts import Charge
from postmeter.store.journal import Journal
from postmeter.store.settle import Settler

LIMITS = (("recipients", 86_400), ("recipients", 3600), ("messages", 86_400), ("bytes", 86_400))
FIGURES: dict[Figure, int] = {
    ("messages_total", ("submission", "accepted")): 1,
    ("recipients_total", ()): 1,
    ("dkim_signatures_total", ("example.com", "rsa-sha256")): 1,
    ("dkim_signatures_total", ("example.com", "ed25519-sha256")): 1,
    ("links_rewritten_total", ()): 25,
}


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds a message."""

    cpu: float
    wall: float


def charges(login: int) -> list[Charge]:
    return [
        Charge(key=f"user{login}@example.com", unit=unit, window=window, limit=2**40, amount=1, text="")
        for unit, window in LIMITS
    ]


def submitted(name: str, login: int, now: float) -> Submitted:
    sender = f"user{login}@example.com"
    return Submitted(
        source=f"eom:{name}",
        time=now,
        queue_id=f"4bXyZ{name}",
        reference=f"{random.getrandbits(64):016x}",
        message_id=f"<{name}@example.com>",
        login=sender,
        sender=sender,
        service="submission",
        mail_from=sender,
        from_domain="example.com",
        recipients=("somebody@example.net",),
        size=2000,
    )


def fill(path: Path, logins: int) -> None:
    """Everybody has sent something already, at the same pace: 20 charges in each window."""
    now = time.time()
    book = database.open(path)
    for begin in range(0, logins, 1000):
        everything = [charge for login in range(begin, min(begin + 1000, logins)) for charge in charges(login)]
        with book.transaction() as link:
            page = ledger.load(link, ())
            for nth in range(20):
                page.settle(everything, now - 3000 + nth * 100)
            page.save(link)
    book.close()


def send(settler: Settler, name: str, *, messages: int, logins: int) -> None:
    dice = random.Random(name)
    for nth in range(messages):
        now, login = time.time(), dice.randrange(logins)
        mine = charges(login)
        settler.check(mine, now)
        settler.settle(mine, submitted(f"{name}-{nth}", login, now), FIGURES, now)


def alone(path: Path, *, messages: int, logins: int) -> Cost:
    settler = Settler(path)
    settler.open()
    send(settler, f"warm{time.time()}", messages=200, logins=logins)
    cpu, wall = time.process_time(), time.perf_counter()
    send(settler, f"alone{time.time()}", messages=messages, logins=logins)
    cost = Cost((time.process_time() - cpu) / messages * 1e6, (time.perf_counter() - wall) / messages * 1e6)
    settler.close()
    return cost


def together(path: Path, *, messages: int, logins: int) -> Cost:
    """Two processes of four threads, as two workers serving eight clients."""
    fork = multiprocessing.get_context("fork")
    start = fork.Barrier(3)
    workers = [fork.Process(target=work, args=(path, start, f"w{n}", messages // 8, logins)) for n in range(2)]
    for worker in workers:
        worker.start()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start.wait()
    begin = time.perf_counter()
    for worker in workers:
        worker.join()
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(cpu / messages * 1e6, wall / messages * 1e6)


def work(path: Path, start: Barrier, name: str, messages: int, logins: int) -> None:
    settler = Settler(path)
    settler.open()
    start.wait()
    names = [f"{name}-{n}-{time.time()}" for n in range(4)]
    options = {"messages": messages, "logins": logins}
    threads = [threading.Thread(target=send, args=(settler, each), kwargs=options) for each in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    settler.close()


def row(logins: int, messages: int, folder: str) -> str:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / "journal.db"
        fill(path, logins)
        size = path.stat().st_size
        one = alone(path, messages=messages, logins=logins)
        many = together(path, messages=messages, logins=logins)
        journal = Journal(path, readonly=True)
        rows = journal.database.query("SELECT count(*) FROM events")[0][0]
        journal.close()
    costs = f"{one.cpu:9.0f} {one.wall:9.0f} {many.cpu:9.0f} {many.wall:9.0f}"
    return f"{logins:>9,} {costs} {size / logins:11,.0f} {rows:>9,}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--logins", type=int, nargs="+", default=[10, 1000, 100_000])
    parser.add_argument("--messages", type=int, default=4000)
    parser.add_argument("--folder", default="/var/tmp")
    args = parser.parse_args(arguments)
    print("µs a message: four limits, one event, five figures; sync normal")
    print(f"{'':9} {'one thread':>19} {'2 x 4 threads':>19} {'bytes':>11} {'journal':>9}")
    print(f"{'logins':>9} {'CPU':>9} {'wall':>9} {'CPU':>9} {'wall':>9} {'a login':>11} {'rows':>9}")
    for logins in args.logins:
        print(row(logins, args.messages, args.folder), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
