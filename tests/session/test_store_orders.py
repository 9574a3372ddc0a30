"""Orders about logins: given, lifted, ended, and the same on all hosts in the end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postmeter.store import database, orders
from postmeter.store.database import Database
from postmeter.store.orders import Order, Standing

NOW = 1_700_000_000.0
ALICE = "alice@example.com"
FREEZE = Order(kind="freeze", login=ALICE, since=NOW)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Database]:
    book = database.open(tmp_path / "journal.db")
    yield book
    book.close()


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def test_an_order_stands_until_it_is_lifted_and_can_be_given_again(book: Database) -> None:
    orders.put(book, FREEZE)
    assert orders.read(book, NOW) == [FREEZE]
    assert orders.lift(book, "freeze", ALICE, NOW + 5)
    assert orders.read(book, NOW + 5) == []
    assert not orders.lift(book, "freeze", ALICE, NOW + 6)
    orders.put(book, replace(FREEZE, since=NOW + 7))
    assert [order.since for order in orders.read(book, NOW + 7)] == [NOW + 7]


def test_an_order_ends_at_its_end(book: Database) -> None:
    orders.put(book, Order(kind="limits", login=ALICE, value="9 messages/day", since=NOW, until=NOW + 60))
    assert len(orders.read(book, NOW + 59)) == 1
    assert orders.read(book, NOW + 60) == []


def test_orders_of_two_kinds_about_one_login_do_not_touch_each_other(book: Database) -> None:
    orders.put(book, FREEZE)
    orders.put(book, replace(FREEZE, kind="brake"))
    orders.lift(book, "brake", ALICE, NOW)
    assert orders.read(book, NOW) == [FREEZE]


def test_a_clock_that_was_stepped_back_keeps_nobody_from_lifting(book: Database) -> None:
    orders.put(book, replace(FREEZE, since=NOW + 10**6))
    assert orders.lift(book, "freeze", ALICE, NOW)
    assert orders.read(book, NOW) == orders.read(book, NOW + 10**7) == []
    orders.put(book, FREEZE)
    assert len(orders.read(book, NOW)) == 1


def test_a_login_that_is_no_text_can_be_frozen(book: Database) -> None:
    odd = "al\ud83dice\0"
    orders.put(book, replace(FREEZE, login=odd))
    assert Standing(book, Clock()).frozen(odd)


STEP = st.tuples(st.integers(0, 2), st.sampled_from(["put", "lift", "meet"]), st.integers(-5, 5), st.integers(0, 1))


@given(st.lists(STEP, max_size=25))
@settings(deadline=None, max_examples=25)
def test_hosts_that_meet_agree_on_the_newest_order(steps: list[tuple[int, str, int, int]]) -> None:
    """Three hosts, clocks that go back and forth, in whatever order they meet; the oracle is the last write seen."""
    with ExitStack() as stack:
        hosts = [fresh(stack) for _ in range(3)]
        now = NOW
        for nth, (host, what, step, login) in enumerate(steps):
            now += step
            if what == "put":
                orders.put(hosts[host], Order(kind="freeze", login=f"u{login}", value=str(nth), since=now))
            elif what == "lift":
                orders.lift(hosts[host], "freeze", f"u{login}", now)
            else:
                meet(hosts[host], hosts[(host + 1) % 3])
        newest: dict[str, Order] = {}
        for order in (order for each in hosts for order in orders.all_known(each)):
            old = newest.get(order.login, order)
            newest[order.login] = max(old, order, key=lambda order: (order.since, order.value))
        for _ in range(2):
            for nth in range(3):
                meet(hosts[nth], hosts[(nth + 1) % 3])
        for each in hosts:
            assert {order.login: order for order in orders.all_known(each)} == newest


def fresh(stack: ExitStack) -> Database:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    host = database.open(Path(folder) / "journal.db")
    stack.callback(host.close)
    return host


def meet(one: Database, other: Database) -> None:
    """As two hosts do over what they share."""
    orders.merge(one, orders.all_known(other))
    orders.merge(other, orders.all_known(one))


def test_what_is_known_already_is_no_change(book: Database) -> None:
    orders.put(book, FREEZE)
    assert not orders.merge(book, [FREEZE, replace(FREEZE, since=NOW - 1, value="older")])
    assert orders.merge(book, [replace(FREEZE, since=NOW + 1)])


def test_what_was_lifted_is_forgotten_in_the_end_and_what_stands_is_not(book: Database) -> None:
    orders.put(book, FREEZE)
    orders.put(book, replace(FREEZE, login="bob"))
    orders.lift(book, "freeze", "bob", NOW)
    assert orders.forget(book, NOW + 86_400) == 0
    ages = (NOW + 89 * 86_400, NOW + 91 * 86_400)
    assert [orders.forgotten(order, age) for order in orders.all_known(book) for age in ages] == [False] * 3 + [True]
    assert orders.forget(book, NOW + 91 * 86_400) == 1
    assert orders.all_known(book) == [FREEZE]


def test_a_worker_learns_of_an_order_within_a_second_and_looks_no_more_often(book: Database) -> None:
    clock = Clock()
    standing = Standing(book, clock)
    assert standing.frozen(ALICE) is None
    orders.put(book, FREEZE)
    clock.now += 0.9
    assert standing.frozen(ALICE) is None
    clock.now += 0.1
    assert standing.frozen(ALICE) == FREEZE
    assert (standing.braked(ALICE), standing.limits(ALICE), standing.frozen("bob")) == (None, None, None)


def test_other_limits_end_in_time_although_nobody_can_look(book: Database) -> None:
    clock = Clock()
    orders.put(book, Order(kind="limits", login=ALICE, value="9 messages/day", since=NOW, until=NOW + 60))
    standing = Standing(book, clock)
    assert standing.limits(ALICE) == "9 messages/day"
    book.close()
    os.rename(book.path, f"{book.path}.away")
    book.path.mkdir()
    clock.now += 30
    assert standing.limits(ALICE) == "9 messages/day"
    clock.now += 30
    assert standing.limits(ALICE) is None
