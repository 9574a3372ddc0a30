"""What it costs to ship: events a second into a private PostgreSQL on this machine, and CPU of ours an event.

    PYTHONPATH=milter:. build/venv/bin/python -m tests.bench.shipping [--events 50000] [--rounds 3]

Of three events one is a message with three recipients, two tell of deliveries. A round is a new host that ships all it
has; then each row of a tenth changes, as addresses do that become hashes, and is shipped again.
"""

from __future__ import annotations

import argparse
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg

from postmeter.books.shipping import Shipper
from postmeter.events import Event, Sent, Submitted
from postmeter.store.journal import Journal
from postmeter.store.postgres import Postgres
from tests.lab import postgres

_MADE = 500  # events recorded at once


def events(count: int) -> Iterator[Event]:
    now = time.time()
    for number in range(count):
        reference, queue_id = f"{number // 3:016x}", f"4XbZ{number // 3:08X}"
        recipients = tuple(f"reader{number}-{nth}@example.net" for nth in range(3))
        if number % 3 == 0:
            yield Submitted(
                source=f"eom:{queue_id}:{now:.6f}", time=now, queue_id=queue_id, reference=reference,
                message_id=f"<{reference}@example.com>", login="newsletter@example.com",
                sender="newsletter@example.com", service="ORIGINATING", mail_from="newsletter@example.com",
                from_domain="example.com", recipients=recipients, size=30_000,
                facts={"campaign": "spring", "bulk": True},
            )  # fmt: skip
        else:
            yield Sent(
                source=f"log:8:{number}:1", time=now, queue_id=queue_id, reference=reference,
                login="newsletter@example.com", from_domain="example.com", recipient=recipients[0], campaign="spring",
                relay="mx.example.net[192.0.2.1]:25", provider="other", dsn="2.0.0", text="250 2.0.0 Ok: queued",
                delay=1.2, delays=(0.1, 0.0, 0.5, 0.6), tls="TLSv1.3",
            )  # fmt: skip


def timed(work: Callable[[], bool]) -> tuple[float, float]:
    """Seconds, and those of our CPU, until there is no more to do."""
    begun, spent = time.perf_counter(), time.process_time()
    while work():
        pass
    return time.perf_counter() - begun, time.process_time() - spent


def host(folder: Path, name: str, url: str, count: int) -> tuple[Journal, Shipper]:
    journal = Journal(folder / f"{name}.db", host=name)
    made = list(events(count))
    for at in range(0, count, _MADE):
        journal.record(made[at : at + _MADE])
    shipper = Shipper(
        Journal(folder / f"{name}.db", host=name), Postgres(url), host=name, keep=1e9,
        instance=lambda: secrets.token_hex(16), chance=lambda: 0.5,
    )  # fmt: skip
    return journal, shipper


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(arguments)
    if why := postgres.missing():
        print(f"shipping: {why}", file=sys.stderr)
        return 1
    first, again, cpu = [], [], []
    with postgres.Postgres() as server, tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        for number in range(args.rounds):
            journal, shipper = host(Path(folder), f"host{number}", server.url(), args.events)
            shipper.work()  # makes the tables and finds its place
            seconds, spent = timed(shipper.work)
            first.append((args.events - 1000) / seconds)
            cpu.append(spent / (args.events - 1000) * 1e6)
            with journal.database.transaction() as link:
                link.execute("UPDATE events SET login = '' WHERE seq % 10 = 0")
            again.append(args.events / 10 / timed(shipper.work)[0])
    how = f"psycopg {psycopg.__version__} ({psycopg.pq.__impl__})"
    print(f"shipped with {how}, {args.rounds} rounds of {args.events} events:")
    print(f"  {statistics.median(first):,.0f} events a second, {statistics.median(cpu):.0f} µs of our CPU each")
    print(f"  {statistics.median(again):,.0f} changed events a second")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
