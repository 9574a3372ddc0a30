"""What is old is forgotten in small pieces, once everybody has read it; what people decided and figures stay."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import pytest

from postmeter.books.following import Follower
from postmeter.books.retention import Ages, Retention
from postmeter.cli import ageing
from postmeter.config.schema import Config
from postmeter.config.schema import Journal as Journals
from postmeter.events import Bounced, Event, Sent, Submitted, Unsubscribed
from postmeter.store import database, fates, retention, suppression, unshipped, veil
from postmeter.store.journal import Journal
from postmeter.store.suppression import Choice, Suppression
from tests.lab.product import Postmeter

DAY = 86_400.0
NOW = 1_800_000_000.0
AGES = Ages(events=400 * DAY, addresses=60 * DAY)


def message(number: int, *, days: float, recipients: tuple[str, ...] = ("Bob@Example.com",)) -> list[Event]:
    when = NOW - days * DAY
    about: dict[str, Any] = {"queue_id": f"Q{number}", "reference": f"{number:016x}"}
    about |= {"login": "alice", "from_domain": "example.com"}
    taken = Submitted(
        source=f"eom:Q{number}:{when}", time=when, message_id=f"<{number}@example.com>", sender="alice",
        service="submission", mail_from="alice@example.com", recipients=recipients, size=1, **about,
    )  # fmt: skip
    sent = (
        Sent(source=f"log:{number}:{each}", time=when + each, recipient=one, text=f"250 <{one}> ok", **about)
        for each, one in enumerate(recipients, 1)
    )
    return [taken, *sent]


def journal(tmp_path: Path, *events: Event) -> Journal:
    made = Journal(tmp_path / "journal.db", host="h")
    made.record(events)
    follow(made)
    return made


def follow(made: Journal) -> None:
    follower = Follower(made, domains=("example.com",))
    while follower.work():
        pass


def forget(made: Journal, *, upto: int | None = None, ages: Ages = AGES) -> None:
    """A whole pass, whatever time it takes."""
    chore = Retention(
        made.database, ages, read=lambda: made.last() if upto is None else upto, now=lambda: NOW, ticks=lambda: 1.0
    )
    chore.work()


def text(made: Journal) -> str:
    return repr([made.database.query(f"SELECT * FROM {table}") for table in ("events", "fates", "suppressions")])


def test_after_its_time_an_address_is_a_hash_everywhere_and_its_fate_is_found_by_it(tmp_path: Path) -> None:
    made = journal(tmp_path, *message(1, days=61), *message(2, days=59))
    forget(made)
    bob = veil.hashed("bob@example.com", veil.read_key(made.database))
    [old, sent, young, _] = [entry.event for entry in made.events()]
    assert isinstance(old, Submitted)
    assert isinstance(sent, Sent)
    assert isinstance(young, Submitted)
    assert (old.recipients, sent.recipient, sent.text) == ((bob,), bob, "")
    assert young.recipients == ("Bob@Example.com",)
    assert [fate.status for fate in fates.of_recipient(made.database, bob, most=9)] == ["sent"]
    assert [fate.status for fate in fates.of_recipient(made.database, "bob@example.com", most=9)] == ["sent"]


def test_what_comes_late_finds_the_hashed_recipient_again(tmp_path: Path) -> None:
    made = journal(tmp_path, *message(1, days=61))
    forget(made)
    first = made.submitted(f"{1:016x}")
    assert first is not None
    known = veil.named("BOB@example.com", first.recipients, veil.read_key(made.database))
    made.record(
        [Bounced(source="dsn:1", time=NOW, queue_id="", reference=first.reference, login="alice",
                 from_domain="example.com", recipient=known, hard=True)]
    )  # fmt: skip
    follow(made)
    assert [fate.status for fate in fates.of_reference(made.database, first.reference)] == ["bounced"]


def test_what_comes_late_does_not_bring_a_forgotten_address_back(tmp_path: Path) -> None:
    """Servers repeat the address in what they say, and an alias is one too."""
    made = journal(tmp_path, *message(1, days=61))
    forget(made)
    [first, *_] = (entry.event for entry in made.events())
    assert isinstance(first, Submitted)
    about: dict[str, Any] = {"queue_id": "", "reference": first.reference, "login": "alice", "from_domain": "e.example"}
    made.record(
        [Bounced(source="dsn:1", time=NOW, recipient=first.recipients[0], final="bob@example.com", hard=True,
                 text="550 5.1.1 <bob@example.com> unknown", dsn="5.1.1", **about)]
    )  # fmt: skip
    assert "bob@example.com" not in text(made)
    follow(made)
    assert [fate.status for fate in fates.of_reference(made.database, first.reference)] == ["bounced"]


def test_a_suppression_goes_on_by_its_hash(tmp_path: Path) -> None:
    event = Unsubscribed(
        source="unsubscribed:1", time=NOW - 61 * DAY, reference=f"{1:016x}", recipient="bob@example.com",
        scope="from:alice@example.com", from_domain="example.com", host="click.example.com",
    )  # fmt: skip
    made = journal(tmp_path, event)
    forget(made)
    assert "bob@example.com" not in text(made)
    with made.database.transaction() as link:
        forms = veil.known_as(link, "Bob@Example.com")
    assert made.database.query("SELECT scope FROM suppressions WHERE address IN (?, ?)", forms) == [
        ("from:alice@example.com",)
    ]


def test_a_suppression_for_ever_stays_so_when_a_later_one_becomes_a_hash(tmp_path: Path) -> None:
    made = journal(tmp_path)
    with made.database.transaction() as link:
        hashed = veil.hashed("bob@example.com", veil.key(link))
        old = Suppression(hashed, "everywhere", "complained", NOW - 90 * DAY, None)
        suppression.lengthen(
            link, [old, replace(old, address="bob@example.com", since=NOW - 61 * DAY, until=NOW + DAY)]
        )
    forget(made)
    assert [(one.address, one.until) for one in suppression.select(made.database, Choice())] == [(hashed, None)]


def test_old_events_go_with_their_fates_and_figures_stay(tmp_path: Path) -> None:
    made = journal(tmp_path, *message(1, days=401), *message(2, days=1))
    figures, totals = made.database.query("SELECT * FROM figures"), made.totals()
    forget(made)
    assert {entry.event.reference for entry in made.events() if isinstance(entry.event, Submitted)} == {f"{2:016x}"}
    assert fates.of_reference(made.database, f"{1:016x}") == []
    assert fates.references(made.database, "<1@example.com>") == []
    assert fates.references(made.database, "<2@example.com>") == [f"{2:016x}"]
    assert (made.database.query("SELECT * FROM figures"), made.totals()) == (figures, totals)


def test_numbers_are_not_given_again_when_everything_is_gone(tmp_path: Path) -> None:
    made = journal(tmp_path, *message(1, days=401))
    last = made.last()
    forget(made)
    assert made.events() == []
    made.record(message(2, days=0)[:1])
    assert made.last() == last + 1


def test_what_somebody_has_yet_to_read_stays_as_it_is(tmp_path: Path) -> None:
    made = journal(tmp_path, *message(1, days=500), *message(2, days=500))
    before = made.events(after=2)
    forget(made, upto=2)
    assert made.events() == before


def test_an_old_log_read_today_does_not_make_young_events_old(tmp_path: Path) -> None:
    """Events of an old log come behind young ones; each goes by its own time, and the young ones stay."""
    made = journal(tmp_path, *message(1, days=1), *message(2, days=401), *message(3, days=61), *message(4, days=1))
    forget(made)
    events = [entry.event for entry in made.events() if isinstance(entry.event, Submitted)]
    assert [veil.is_hashed(event.recipients[0]) for event in events] == [False, True, False]


def test_a_message_of_thousands_is_forgotten_in_short_transactions(tmp_path: Path) -> None:
    """Mail waits for whoever writes: none holds the turn for a tenth of a second."""
    many = tuple(f"r{number}@example.com" for number in range(5000))
    made = journal(tmp_path, *message(1, days=401, recipients=many), *message(2, days=61, recipients=many))
    longest = 0.0
    real = made.database.transaction

    @contextmanager
    def timed() -> Iterator[Connection]:
        nonlocal longest
        with real() as link:
            begun = time.thread_time()
            yield link
            longest = max(longest, time.thread_time() - begun)

    made.database.transaction = timed  # type: ignore[method-assign]
    forget(made)
    assert not [fate for fate in fates.of_reference(made.database, f"{2:016x}") if not veil.is_hashed(fate.recipient)]
    assert fates.of_reference(made.database, f"{1:016x}") == []
    assert longest < 0.1


CHILD = """
import sys
from pathlib import Path
from tests.session.test_retention import NOW, AGES
from postmeter.books.retention import Retention
from postmeter.store.journal import Journal
made = Journal(Path(sys.argv[1]), host="h")
print("up", flush=True)
ticks = iter(range(10**9))
Retention(made.database, AGES, read=made.last, now=lambda: NOW, ticks=lambda: 1.0).work()
print("done", flush=True)
"""


def test_killed_anywhere_it_goes_on_where_it_was(tmp_path: Path) -> None:
    """kill -9 again and again: in the end the same as of one that nobody killed."""
    events = [event for number in range(1500) for event in message(number, days=500 - number * 0.3)]
    for folder in ("killed", "whole"):
        (tmp_path / folder).mkdir()
    killed, whole = (journal(tmp_path / folder, *events) for folder in ("killed", "whole"))
    with killed.database.transaction() as link:
        link.execute("UPDATE veil SET key = ?", (veil.read_key(whole.database),))
    forget(whole)
    for delay in (0.0, 0.005, 0.01, 0.02, 0.04, 0.08, 60.0):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path / "killed" / "journal.db")],
            stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "milter:."},
        )  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        try:
            child.wait(delay)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
    for table in ("events", "fates", "figures", "message_ids"):
        assert killed.database.query(f"SELECT * FROM {table}") == whole.database.query(f"SELECT * FROM {table}")
    assert retention.hashed_up_to(killed.database) == retention.hashed_up_to(whole.database) > 0
    assert killed.database.query("PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("days", [401, 61])
def test_a_second_pass_does_nothing(tmp_path: Path, days: float) -> None:
    made = journal(tmp_path, *message(1, days=days), *message(2, days=1))
    forget(made)
    before, version = text(made), made.database.query("PRAGMA data_version")
    forget(made)
    assert (text(made), made.database.query("PRAGMA data_version")) == (before, version)
    assert database.open(tmp_path / "journal.db").query("SELECT count(*) FROM veil") == [(1,)]


def test_who_counts_ships_and_learns_comes_first(tmp_path: Path) -> None:
    """An event is nobody's to forget before the slowest of those who need it has read it."""
    made = journal(tmp_path, *message(1, days=61))
    config = Config(journal=Journals(path=tmp_path / "journal.db"))
    assert ageing.read(config, made) == made.last()
    braked = replace(config, quota=replace(config.quota, brake=replace(config.quota.brake, mode="on")))
    assert ageing.read(braked, made) == 0
    shipping = replace(config, journal=replace(config.journal, ship_to="postgresql://db.example.com/postmeter"))
    assert ageing.read(shipping, made) == 0
    unshipped.begin(made.database, "me")
    unshipped.acknowledge(made.database, 1)
    assert ageing.read(shipping, made) == 1


def test_books_forgets(tmp_path: Path) -> None:
    """The daemon itself, from its start, with figures of what it forgets."""
    with Postmeter(daemons=()) as place:
        old = time.time() - 61 * DAY
        events = [replace(event, time=old) for event in message(1, days=0)]
        made = Journal(place.state / "journal.db", host="lab")
        made.record(events)
        for path in place.state.glob("journal.db*"):
            shutil.chown(path, place.user)
        place.start("books")
        place.wait_until(lambda: veil.is_hashed(place.events("sent")[0]["recipient"]))
        assert [veil.is_hashed(one) for one in place.events()[0]["recipients"]] == [True]
        key = veil.read_key(made.database)
        bob = veil.hashed("bob@example.com", key)
        place.wait_until(lambda: bool(fates.of_recipient(made.database, bob, most=1)))
        assert fates.of_recipient(made.database, "bob@example.com", most=1) == []
        assert place.stop("books") == 0
