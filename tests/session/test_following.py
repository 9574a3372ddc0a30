"""Who follows the journal may be killed at any moment: nothing is lost and nothing counted twice."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from functools import partial
from itertools import cycle
from pathlib import Path

from postmeter.books.following import Follower
from postmeter.events import Bounced, Event, Sent, Submitted
from postmeter.report.gather import gather
from postmeter.store import figures
from postmeter.store.fates import Group
from postmeter.store.following import POSITION
from postmeter.store.journal import Journal
from tests.lab.folder import CLONE

MESSAGES = 3000
FOLLOW = """
import sys
from pathlib import Path
from postmeter.books.following import Follower
from postmeter.store.journal import Journal
follower = Follower(Journal(Path(sys.argv[1])), domains=["example.com"])
while follower.work():
    pass
"""


def events() -> list[Event]:
    """Every tenth message bounces after it was sent."""
    found: list[Event] = []
    for number in range(MESSAGES):
        reference, to, when = f"{number:016x}", f"p{number}@example.net", 1.7e9 + number
        found.append(
            Submitted(
                source=f"eom:{number}",
                time=when,
                queue_id=f"Q{number}",
                reference=reference,
                message_id=f"<{number}@x>",
                login="ann",
                sender="ann",
                service="smtpd",
                mail_from="ann@example.com",
                from_domain="example.com",
                recipients=(to,),
                size=1,
            )
        )
        for kind in (Sent, Bounced) if number % 10 == 0 else (Sent,):
            found.append(
                kind(
                    source=f"log:{kind.__name__}:{number}",
                    time=when + 1,
                    queue_id=f"Q{number}",
                    reference=reference,
                    login="ann",
                    from_domain="example.com",
                    recipient=to,
                    provider="google",
                )
            )
    return found


def place(journal: Journal) -> int:
    return int(journal.position(POSITION) or 0)


def test_a_follower_that_is_killed_again_and_again_counts_everything_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = Journal(path)
    journal.record(events())
    environment = {**os.environ, "PYTHONPATH": str(CLONE / "milter")}
    for _ in range(4):
        before = place(journal)
        child = subprocess.Popen([sys.executable, "-c", FOLLOW, str(path)], env=environment)
        until = time.monotonic() + 30
        while place(journal) == before and child.poll() is None:
            assert time.monotonic() < until
        child.kill()
        child.wait()
    assert place(journal) > 0
    follower = Follower(journal, domains=["example.com"])
    while follower.work():
        pass
    bounced = MESSAGES // 10
    assert figures.read(journal.database, since=0, until=10**6) == {
        "": Counter(accepted=MESSAGES, delivered=MESSAGES - bounced, soft=bounced)
    }
    totals = journal.totals()
    assert totals["deliveries_total", ("sent", "example.com", "google")] == MESSAGES
    assert totals["bounces_total", ("soft", "google")] == bounced
    assert totals["delivery_delay_seconds", ("count",)] == MESSAGES


def test_whoever_catches_up_lets_others_write_between_two_slices(tmp_path: Path) -> None:
    """A lock that is given back and taken again at once wakes nobody: messages waited for seconds."""
    journal = Journal(tmp_path / "journal.db")
    journal.record(events())
    rests: list[float] = []
    follower = Follower(journal, domains=["example.com"], rest=rests.append)
    slices = 0
    while follower.work():
        slices += 1
    assert slices > 20
    assert len(rests) == slices
    assert min(rests) > 0
    journal.close()


def test_who_follows_copies_the_log_back_long_before_a_message_has_to(tmp_path: Path) -> None:
    """A reader that takes the database for all there is sees what lies in the file itself."""
    path, recorded = tmp_path / "journal.db", 0
    with closing(Journal(path)) as journal:
        follower = Follower(journal, domains=["example.com"])
        some = events()
        while recorded < 600:  # a few at a time, as a server does that is not behind
            journal.record(some[recorded : recorded + 20])
            recorded += 20
            while follower.work():
                pass
        with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as file:
            [(copied,)] = file.execute("SELECT count(*) FROM events")
    assert recorded - 250 <= copied <= recorded


def test_a_report_made_while_figures_move_adds_up(tmp_path: Path) -> None:
    """All of it is of one moment."""
    journal, other = Journal(tmp_path / "journal.db"), Journal(tmp_path / "journal.db")
    stop = threading.Event()

    def move() -> None:
        names, places = figures.Names(), cycle(range(50))
        while not stop.is_set():
            group = Group("example.com", f"login{next(places)}", f"campaign{next(places)}")
            with other.database.transaction() as link:
                figures.add(link, {figures.Place(20_000, group, "google", "accepted"): 1}, names)

    thread = threading.Thread(target=move)
    thread.start()
    try:
        for _ in range(200):
            read = partial(figures.breakdowns, journal.database)
            report = gather(read, since=20_000, until=20_001, by=figures.BY, now=0.0, host="mx1")
            told = {by: sum(part.counts["accepted"] for part in parts) for by, parts in report.parts.items()}
            assert set(told.values()) == {report.total.get("accepted", 0)}
    finally:
        stop.set()
        thread.join()
