"""Events that the journal gives back otherwise than they were written, or as only a newer version writes them."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from postmeter.store import database, erasing, held, lives, retention, rows, shipped
from postmeter.store.accounts import Charge, Hold
from postmeter.store.finding import Finder
from postmeter.store.journal import Journal
from postmeter.store.lives import Life
from postmeter.store.outbox import Outbox
from postmeter.store.settle import Settler
from tests.session.test_store_database import clicked

SPOILT = ["data = 'x'", "data = '[]'", "data = x'00'", "data = '{}'", "kind = 'wondered'"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with closing(Journal(path, host="mx1")) as journal:
        journal.record(clicked(nth) for nth in range(1, 7))
        yield journal


def spoil(path: Path, what: str, *numbers: int) -> None:
    with closing(sqlite3.connect(path)) as link:
        link.executemany(f"UPDATE events SET {what} WHERE seq = ?", [(number,) for number in numbers])
        link.commit()


@pytest.mark.parametrize("data", ['{"recipient": "bob@example.net', '["bob@example.net"]'])
def test_nobody_stays_in_it_who_is_erased(journal: Journal, path: Path, data: str) -> None:
    spoil(path, f"data = '{data}'", 2)
    bob = erasing.Person("bob@example.net", b"k" * 32, lambda address: [])
    assert erasing.events(journal.database, bob) == 1
    assert journal.database.query("SELECT data FROM events WHERE seq = 2") == [("{}",)]


def test_held_mail_whose_charges_cannot_be_read_waits_for_nobody_and_holds_up_no_other(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It leaves uncharged: nobody knows what it was to be charged."""
    one = Charge(key="a", unit="messages", window=60, limit=1, amount=1, text="1 message/minute")
    with closing(Settler(path)) as settler, closing(database.open(path)) as book:
        for queue_id in ("4A", "4B"):
            hold = Hold(queue_id=queue_id, sender="a", login="a", reason="quota", charges=(one,))
            settler.settle((), None, {}, 1e9, hold=hold)
        for garbage in ("x", "[1]", "{}", '[{"key": 1}]', "[[]]"):
            with book.transaction() as link:
                link.execute("UPDATE held SET charges = ? WHERE queue_id = '4A'", (garbage,))
            assert [(row.queue_id, row.charges) for row in held.waiting(book)] == [("4A", ()), ("4B", (one,))]
    assert "4A: what it was to be charged cannot be read" in caplog.text


def test_a_life_in_the_queue_that_cannot_be_read_is_left_out(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Else nothing would be told of deliveries any more."""
    both = [Life("mx1", "postfix", queue_id, 1e9) for queue_id in ("4A", "4B")]
    with closing(database.open(path)) as book:
        with book.transaction() as link:
            lives.save(link, both, [])
        for garbage in ("x", "[]", "{}", '{"recipients": 1}', '{"recipients": {}, "wonders": 1}'):
            with book.transaction() as link:
                link.execute("UPDATE lives SET data = ? WHERE queue_id = '4A'", (garbage,))
            assert lives.read(book) == both[1:]
    assert "4A: what Postfix's log has told of it cannot be read" in caplog.text


def test_an_event_that_cannot_be_read_is_shipped_as_it_is() -> None:
    """Another host may read it; whoever looks for a message by what it says finds others."""
    assert shipped._names((2, "mx1", "submitted", "eom:1", 1e9, "", "", "", "", "x")) == set()


def sources(entries: list[rows.Entry]) -> list[str]:
    return [entry.event.source for entry in entries]


@pytest.mark.parametrize("what", SPOILT)
def test_an_event_that_cannot_be_read_is_left_out_and_named(
    journal: Journal, path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Else whoever follows the journal would stand before it for ever."""
    spoil(path, what, 2)
    rest = ["hit:file:1", *(f"hit:file:{nth}" for nth in range(3, 7))]
    with caplog.at_level(logging.ERROR):
        assert sources(journal.events()) == rest
    assert [entry.getMessage().partition(", ")[0] for entry in caplog.records] == [
        "event 2 of mx1 cannot be read and is left out"
    ]
    assert sources(journal.of_reference("00112233445566aa")) == rest
    with closing(database.open(path, readonly=True)) as book:
        assert sources(Finder(book).events("00112233445566aa")[0]) == rest
        box = Outbox(journal.database)
        box.put([("topic", nth) for nth in range(1, 7)], position=("box", 6))
        assert sources(box.waiting("topic")) == rest


@pytest.mark.parametrize("bad", [(2,), (1, 2), (2, 3), (4,), (1, 2, 3, 4, 5, 6)])
def test_who_follows_the_journal_meets_each_other_event_once(
    journal: Journal, path: Path, bad: tuple[int, ...]
) -> None:
    spoil(path, "data = 'x'", *bad)
    met: list[str] = []
    after = 0
    for _ in range(10):
        found, after = journal.of_kinds(["clicked"], after=after, limit=2)
        met += sources(found)
    assert met == [f"hit:file:{nth}" for nth in range(1, 7) if nth not in bad]
    assert after == 6


def test_what_a_newer_version_says_besides_is_left_out(journal: Journal, path: Path) -> None:
    """A host that went back to this version, or one beside newer hosts, knows the rest."""
    before = journal.events()
    spoil(path, "data = json_set(data, '$.wonders', 7)", 2, 3)
    assert journal.events() == before


def test_text_that_is_no_utf_8_spoils_no_other(journal: Journal, path: Path) -> None:
    """A bit of a letter turned over by the disk; SQLite has no checksums."""
    spoil(path, "data = cast(replace(data, 'Mozilla', cast(x'4d6f7aff6c6c61' AS text)) AS text)", 2)
    for readonly in (True, False):
        with closing(Journal(path, readonly=readonly)) as other:
            found = other.events()
            assert sources(found) == [f"hit:file:{nth}" for nth in range(1, 7)]
            assert getattr(found[1].event, "agent", "").startswith("Moz\ufffdlla")
    with closing(database.open(path)) as book:
        with pytest.raises(database.StoreError), book.transaction() as link:
            link.execute("SELECT data FROM events").fetchall()
        with book.transaction() as link:
            assert len(link.execute("SELECT data FROM events").fetchall()) == 6, "the next time it is read"


@pytest.mark.parametrize("what", ["data = 'bob@example.net'", "data = '[]'", "data = '{}'"])
def test_retention_passes_it_and_leaves_no_address_in_it(
    journal: Journal, path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    spoil(path, what, 2)
    seen = retention.look(journal.database, after=0, upto=6, most=100)
    retention.hash_addresses(journal.database, seen, position=6)
    assert retention.hashed_up_to(journal.database) == 6
    assert ("event 2, 'clicked', cannot be read" in caplog.text) == (what != "data = '{}'")
    assert journal.database.query("SELECT data FROM events WHERE seq = 2") == [("{}",)]
    retention.delete(journal.database, seen)
    assert journal.last() == 0
