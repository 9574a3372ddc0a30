"""Warnings once over all processes; messages on hold: charged when they leave, once, whoever lets them go."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from postmeter.events import Event, Released, Warned
from postmeter.store import database, held
from postmeter.store.accounts import DONE, Charge, Held, Hold
from postmeter.store.database import Database, StoreError
from postmeter.store.journal import Journal
from postmeter.store.settle import Settler
from tests.lab.waiting import wait_for
from tests.session import test_store_settle as suite
from tests.session.test_store_settle import LOGIN, NOW, ONE, charge, hasty, kept, spooled, submitted, total, used


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def settler(path: Path) -> Iterator[Settler]:
    settler = hasty(path)
    yield settler
    settler.close()


@pytest.fixture
def book(settler: Settler, path: Path) -> Iterator[Database]:
    with closing(database.open(path)) as book:
        yield book


def events(path: Path) -> list[Event]:
    with closing(Journal(path, readonly=True)) as journal:
        return [entry.event for entry in journal.events(limit=100_000)]


def warnings(path: Path) -> list[tuple[int, int]]:
    """Percent and use, in the order in which they were recorded."""
    return [(event.percent, event.used) for event in events(path) if isinstance(event, Warned)]


def hold(queue_id: str = "4HELD", *, most: int = 0, charges: tuple[Charge, ...] = (), sender: str = LOGIN) -> Hold:
    return Hold(queue_id=queue_id, sender=sender, login=LOGIN, reason="quota", charges=charges, most=most)


def released(message: Held, action: str = "released") -> Released:
    return Released(
        source=f"released:{message.queue_id}:{message.time:.6f}",
        time=NOW + 60,
        queue_id=message.queue_id,
        login=message.login,
        sender=message.sender,
        action=action,
        by="due",
    )


def test_a_warning_is_recorded_with_the_charge_that_reached_it(settler: Settler, path: Path) -> None:
    for nth in range(4):
        settler.settle((replace(charge(limit=4), warn=(50, 100)),), submitted(f"m{nth}"), ONE, NOW + nth)
    assert warnings(path) == [(50, 2), (100, 4)]
    [first, _] = [event for event in events(path) if isinstance(event, Warned)]
    assert (first.login, first.level, first.key, first.time) == (LOGIN, "sender", LOGIN, NOW + 1)


def test_a_refusal_warns_once_a_window_and_records_nothing_else(settler: Settler, path: Path) -> None:
    tight = replace(charge(limit=10, amount=7), warn=(100,))
    settler.settle((tight,), submitted("a"), ONE, NOW)
    for nth in range(5):
        assert settler.settle((tight,), submitted(f"b{nth}"), ONE, NOW + nth).refused is not None
    assert warnings(path) == [(100, 7)]
    assert (total(path), used(path)) == (1, 7)
    settler.settle((tight,), submitted("c"), ONE, NOW + 3600)
    settler.settle((tight,), submitted("d"), ONE, NOW + 3601)
    assert warnings(path) == [(100, 7), (100, 7)]


def test_what_is_not_enforced_warns_too(settler: Settler, path: Path) -> None:
    settler.settle((replace(charge(limit=2, amount=3), warn=(80, 100), enforce=False),), submitted("a"), ONE, NOW)
    assert warnings(path) == [(80, 3), (100, 3)]


def send(path: Path, name: str, start: Barrier) -> None:
    settler = Settler(path)
    settler.open()
    start.wait()
    for nth in range(50):
        now = time.time()
        settler.settle((replace(charge(limit=100), warn=(50, 100)),), submitted(f"{name}.{nth}", now=now), ONE, now)
    settler.close()


def test_four_processes_warn_once(path: Path) -> None:
    """Two hundred messages against a limit of one hundred: half of them are refused."""
    fork = multiprocessing.get_context("fork")
    start = fork.Barrier(4)
    workers = [fork.Process(target=send, args=(path, f"w{n}", start)) for n in range(4)]
    for process in workers:
        process.start()
    for process in workers:
        process.join(60)
    assert warnings(path) == [(50, 50), (100, 100)]
    assert total(path) == 100


def test_a_message_on_hold_is_recorded_and_not_charged(settler: Settler, path: Path, book: Database) -> None:
    mine = (replace(charge(), warn=(80,)), charge(window=86_400))
    assert settler.settle((), submitted("a"), ONE, NOW, hold=hold(charges=mine)) == DONE
    assert (kept(path), total(path), used(path)) == (["a"], 1, 0)
    expected = Held(queue_id="4HELD", time=NOW, sender=LOGIN, login=LOGIN, reason="quota", charges=mine, recipients=1)
    assert held.waiting(book) == [expected]


def test_no_more_than_the_bound_are_held_of_a_sender(settler: Settler, path: Path, book: Database) -> None:
    for nth in range(2):
        settler.settle((), submitted(f"m{nth}"), ONE, NOW, hold=hold(f"4Q{nth}", most=2))
    settled = settler.settle((), submitted("more"), ONE, NOW, hold=hold("4Q2", most=2))
    assert (settled.full, settled.refused) == (True, None)
    assert settler.settle((), submitted("bob"), ONE, NOW, hold=hold("4Q3", most=2, sender="bob")) == DONE
    assert kept(path) == ["m0", "m1", "bob"]
    assert [message.queue_id for message in held.waiting(book, sender=LOGIN)] == ["4Q0", "4Q1"]


def test_settling_a_held_message_twice_holds_it_once(settler: Settler, path: Path, book: Database) -> None:
    for _ in range(2):
        assert settler.settle((), submitted("a"), ONE, NOW, hold=hold(most=1)) == DONE
    assert (kept(path), len(held.waiting(book))) == (["a"], 1)


def test_a_message_is_held_although_the_journal_cannot_be_written(settler: Settler, path: Path, book: Database) -> None:
    mine = (replace(charge(), warn=(80,)),)
    with suite.held(path):
        assert settler.settle((), submitted("a"), ONE, NOW, hold=hold(charges=mine, most=1)) == DONE
        assert len(spooled(path)) == 1
    wait_for(lambda: not spooled(path))
    [message] = held.waiting(book)
    assert (message.queue_id, message.charges, message.recipients) == ("4HELD", mine, 1)
    assert message.time == NOW, "Postfix's queue id is believed by its time, whenever the journal is well again"
    assert (kept(path), used(path)) == (["a"], 0)
    with suite.held(path):
        assert settler.settle((), submitted("b"), ONE, NOW, hold=hold("4Q", most=1)).full


def test_what_is_released_is_charged_and_goes_once(settler: Settler, path: Path, book: Database) -> None:
    settler.settle((), submitted("a"), ONE, NOW, hold=hold(charges=(charge(amount=3),)))
    [message] = held.waiting(book)
    for _ in range(2):
        assert settler.release(message, released(message), NOW + 60) == DONE
    assert (held.waiting(book), held.going(book)) == ([], [replace(message, going=True)])
    assert (used(path), kept(path)) == (3, ["a", released(message).source])
    assert held.remove(book, message)
    assert (held.going(book), held.remove(book, message)) == ([], False)


def test_what_has_no_room_stays_held_and_is_recorded_by_nobody(settler: Settler, path: Path, book: Database) -> None:
    settler.settle((charge(limit=5, amount=5),), submitted("full"), ONE, NOW)
    settler.settle((), submitted("a"), ONE, NOW, hold=hold(charges=(charge(limit=5),)))
    [message] = held.waiting(book)
    over = settler.release(message, released(message), NOW + 60).refused
    assert over is not None
    assert over.room_at == NOW + 3600
    assert (held.waiting(book), kept(path)) == ([message], ["full", "a"])
    assert settler.release(message, released(message), NOW + 3600) == DONE


@pytest.mark.parametrize("action", ["deleted", "gone"])
def test_what_somebody_deleted_is_not_charged(settler: Settler, path: Path, book: Database, action: str) -> None:
    settler.settle((), submitted("a"), ONE, NOW, hold=hold(charges=(charge(),)))
    [message] = held.waiting(book)
    assert settler.release(message, released(message, action), NOW) == DONE
    assert (held.waiting(book), held.going(book), used(path)) == ([], [], 0)
    assert isinstance(events(path)[-1], Released)


def test_a_queue_id_that_comes_again_is_another_message(settler: Settler, book: Database) -> None:
    """Postfix uses short queue ids again; what we have read of the old one must not touch the new."""
    settler.settle((), submitted("old"), ONE, NOW, hold=hold())
    [old] = held.waiting(book)
    settler.settle((), submitted("new"), ONE, NOW + 5, hold=hold())
    [new] = held.waiting(book)
    assert not held.remove(book, old)
    assert held.waiting(book) == [new]


def test_release_waits_for_a_journal_that_cannot_be_written(settler: Settler, path: Path, book: Database) -> None:
    settler.settle((), submitted("a"), ONE, NOW, hold=hold(charges=(charge(),)))
    [message] = held.waiting(book)
    with suite.held(path), pytest.raises(StoreError):
        settler.release(message, released(message), NOW)
    assert (held.waiting(book), spooled(path), used(path)) == ([message], [], 0)


def let_go(path: Path, messages: list[Held], start: Barrier) -> None:
    settler = Settler(path)
    start.wait()
    for message in messages:
        settler.release(message, released(message), NOW + 60)
    settler.close()


def test_two_who_let_go_the_same_messages_charge_each_once(settler: Settler, path: Path, book: Database) -> None:
    for nth in range(40):
        settler.settle((), submitted(f"m{nth}"), {}, NOW, hold=hold(f"4Q{nth}", charges=(charge(limit=100),)))
    fork = multiprocessing.get_context("fork")
    start = fork.Barrier(2)
    messages = held.waiting(book)
    workers = [fork.Process(target=let_go, args=(path, messages, start)) for _ in range(2)]
    for process in workers:
        process.start()
    for process in workers:
        process.join(60)
    assert (used(path, NOW + 60), len(held.going(book)), held.waiting(book)) == (40, 40, [])
    assert Counter(type(event) for event in events(path))[Released] == 40
