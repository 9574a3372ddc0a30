"""What it costs to know what became of the mail: events followed a second, octets a recipient, time of a report.

    PYTHONPATH=milter:. build/venv/bin/python -m tests.bench.fates [--events 1000000 10000000] [--folder /var/tmp]

Mail of a month: 200 logins, each with a From domain and two campaigns, six providers; of each recipient it is told
that it was submitted and what became of it, so two events each. A report is of the last 7 days by domain, login and
provider, as the timer sends it; beside it the same days counted from the events themselves.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from postmeter.books.following import Follower
from postmeter.events import Bounced, Deferred, Event, Sent, Submitted
from postmeter.report import page
from postmeter.report.gather import Report, gather
from postmeter.store import figures, rows
from postmeter.store.database import Database
from postmeter.store.finding import Finder
from postmeter.store.journal import Journal
from tests.lab.folder import CLONE

DAYS = 30
LAST = 20_779  # the day that ends the month
_SLICE = 20_000
_PROVIDERS = ("google", "microsoft", "yahoo", "apple", "gmx", "other")
_OUTCOMES = ((Sent, 94), (Deferred, 3), (Bounced, 3))


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds of a report, of its page, of the same from the events, and of finding a message."""

    events: int
    followed_a_second: float
    longest_transaction_ms: float
    octets_a_recipient: float
    octets_of_events: float
    figures: int
    report_ms: float
    page_ms: float
    from_events_ms: float
    trace_ms: float


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    costs = []
    for count in options.events:
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="postmeter-bench-") as folder:
            costs.append(measure(Path(folder) / "journal.db", count))
        print(_row(costs[-1]), flush=True)
    if len(costs) > 1:
        longer, more = costs[-1].report_ms / costs[0].report_ms, costs[-1].events / costs[0].events
        print(f"report: {longer:.2f} times as long for {more:.0f} times as many events")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps([asdict(cost) for cost in costs], indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.fates", description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=[30_000, 300_000])
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"))
    parser.add_argument("--json", type=Path, default=CLONE / "build" / "bench-fates.json")
    return parser


def measure(path: Path, count: int) -> Cost:
    journal = Journal(path, host="mx1.example.com")
    for slice_ in _slices(count):
        with journal.database.transaction() as link:
            rows.insert(link, [rows.encode(event, "mx1.example.com") for event in slice_])
    before = _octets(journal.database)
    took, longest = _follow(journal)
    after = _octets(journal.database)
    finder = Finder(journal.database)
    cost = Cost(
        events=count,
        followed_a_second=count / took,
        longest_transaction_ms=longest,
        octets_a_recipient=(after - before) / (count / 2),
        octets_of_events=before / (count / 2),
        figures=int(journal.database.query("SELECT count(*) FROM figures")[0][0]),
        report_ms=_best(partial(_report, journal.database)),
        page_ms=_best(lambda: page.page(_report(journal.database))),
        from_events_ms=_best(partial(_from_events, journal.database), times=1),
        trace_ms=_best(lambda: [finder.events(one) for one in finder.references("p77@h77.example.net", most=20)]),
    )
    journal.close()
    return cost


def _follow(journal: Journal) -> tuple[float, float]:
    """Seconds for all, and milliseconds of the longest transaction."""
    follower, longest, begun = (
        Follower(journal, domains=[f"d{n}.example.com" for n in range(5)]),
        0.0,
        time.perf_counter(),
    )
    more = True
    while more:
        one = time.perf_counter()
        more = follower.work()
        longest = max(longest, time.perf_counter() - one)
    return time.perf_counter() - begun, longest * 1000


def _report(database: Database) -> Report:
    read = partial(figures.breakdowns, database)
    by = ("domain", "login", "provider")
    return gather(read, since=LAST - 6, until=LAST + 1, by=by, now=0.0, host="mx1.example.com")


def _from_events(database: Database) -> object:
    sql = "SELECT from_domain, login, kind, count(*) FROM events WHERE time >= ? GROUP BY 1, 2, 3"
    return database.query(sql, ((LAST - 6) * figures.DAY,))


def _best(work: Callable[[], object], *, times: int = 5) -> float:
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return min(taken) * 1000


def _octets(database: Database) -> int:
    sql = """
        SELECT (page_count - freelist_count) * page_size
        FROM pragma_page_count, pragma_freelist_count, pragma_page_size
    """
    return int(database.query(sql)[0][0])


def _slices(count: int) -> Iterator[list[Event]]:
    chance, events = random.Random(6), []
    for number in range(count // 2):
        events += _pair(number, count // 2, chance)
        if len(events) >= _SLICE:
            yield events
            events = []
    yield events


def _pair(number: int, whole: int, chance: random.Random) -> list[Event]:
    """In the order of time, as a log tells them."""
    when = (LAST + 1 - DAYS + DAYS * number / whole) * figures.DAY
    login, reference = chance.randrange(200), f"{chance.getrandbits(64):016x}"
    recipient = f"p{chance.randrange(whole)}@h{chance.randrange(100)}.example.net"
    domain, campaign = f"d{login % 5}.example.com", f"campaign {login} {number * 2 // whole}"
    common: dict[str, Any] = {
        "queue_id": f"{number:X}",
        "reference": reference,
        "login": f"login{login}",
        "from_domain": domain,
    }
    outcome: Any
    [outcome] = chance.choices([kind for kind, _ in _OUTCOMES], [weight for _, weight in _OUTCOMES])
    submitted = Submitted(
        source=f"eom:{number:X}:{when:.6f}", time=when, message_id=f"<{reference}.{number}@{domain}>",
        sender=f"login{login}", service="submission",
        mail_from=f"login{login}@{domain}", recipients=(recipient,), size=20_000,
        facts={"bulk": True, "campaign": campaign, "privacy": "recipients"}, **common,
    )  # fmt: skip
    told = outcome(
        source=f"log:1:{number}:0", time=when + 2, recipient=recipient, campaign=campaign, dsn="2.0.0",
        relay="mx1.example.net[192.0.2.1]:25", provider=chance.choice(_PROVIDERS), delay=2.0,
        text="250 2.0.0 OK 1700000000 a1-20020a0cf8 - gsmtp", delays=(0.1, 0.0, 0.4, 1.5), tls="TLSv1.3", **common,
    )  # fmt: skip
    return [submitted, told]


def _row(cost: Cost) -> str:
    parts = (
        f"{cost.events:>10,} events: {cost.followed_a_second:,.0f} followed/s",
        f"at most {cost.longest_transaction_ms:.0f} ms at once",
        f"{cost.octets_a_recipient:.0f} octets a recipient beside {cost.octets_of_events:.0f} of events",
        f"{cost.figures:,} figures",
        f"report {cost.report_ms:.0f} ms, with page {cost.page_ms:.0f} ms, from events {cost.from_events_ms:,.0f} ms",
        f"trace {cost.trace_ms:.1f} ms",
    )
    return "; ".join(parts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
