"""What hosts tell each other about suppressions, by way of a real PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from postmeter.store import erasing, suppression, unshipped, veil
from postmeter.store.erasing import Person
from postmeter.store.personal import PLACES
from postmeter.store.suppression import BOUNCED, MANUAL, Choice, Suppression
from tests.lab.postgres import Postgres as Server
from tests.lab.waiting import wait_for
from tests.session.test_shipping import NOW, Host, ask, copied, taken

pytestmark = pytest.mark.usefixtures("needs_postgres")

BOB, SCOPE = "bob@example.net", "domain:example.com"
SOON = 4_000_000_000.0


@pytest.fixture(scope="module")
def server(needs_postgres: None) -> Iterator[Server]:
    with Server() as server:
        yield server


_numbers = iter(range(1000))


@pytest.fixture
def hosts(tmp_path: Path, server: Server) -> Iterator[list[Host]]:
    with _hosts(tmp_path, server) as hosts:
        yield hosts


@contextmanager
def _hosts(folder: Path, server: Server) -> Iterator[list[Host]]:
    """Closed in the end: a server has a hundred connections at most."""
    number = next(_numbers)
    url = server.new_database(f"sharing{number}")
    (folder / str(number)).mkdir()
    hosts = [Host(folder / str(number), url, name) for name in ("one", "two", "three")]
    try:
        yield hosts
    finally:
        for host in hosts:
            host.close()


def suppressed(since: float, address: str = BOB, *, until: float | None = SOON, reason: str = BOUNCED) -> Suppression:
    return Suppression(address, SCOPE, reason, since, until, f"550 at {since}", 2, "other")


def put(host: Host, *those: Suppression) -> None:
    with host.journal.database.transaction() as link:
        suppression.lengthen(link, those)


def lift(host: Host, address: str = BOB) -> None:
    with host.journal.database.transaction() as link:
        suppression.remove(link, Choice(addresses=(address,)))


def tick() -> None:
    """Until SQLite's clock, which has milliseconds, tells another time."""
    begun = time.time()
    wait_for(lambda: time.time() > begun + 0.002)


def known(host: Host) -> list[Suppression]:
    return list(suppression.select(host.journal.database, Choice()))


def meet(hosts: list[Host]) -> None:
    for _ in range(2):
        for host in hosts:
            host.ship()


def test_what_one_host_learns_all_know_and_one_tells(hosts: list[Host]) -> None:
    put(hosts[0], suppressed(NOW), suppressed(NOW, "eve@example.net", until=None, reason=MANUAL))
    meet(hosts)
    assert known(hosts[1]) == known(hosts[2]) == known(hosts[0])
    assert len(known(hosts[0])) == 2
    assert len(ask(hosts[0].url, "SELECT name FROM suppressions")) == 2, "it was told once"
    assert all(host.journal.database.query("SELECT * FROM unshipped") == [] for host in hosts)


def test_what_is_lifted_anywhere_is_lifted_everywhere_and_no_address_stays(hosts: list[Host]) -> None:
    put(hosts[0], suppressed(NOW))
    put(hosts[1], suppressed(NOW + 5))
    meet(hosts)
    assert [one.since for one in known(hosts[2])] == [NOW + 5]
    lift(hosts[2])
    meet(hosts)
    assert [known(host) for host in hosts] == [[], [], []]
    assert ask(hosts[0].url, "SELECT 1 FROM suppressions WHERE address <> ''") == []


def test_what_a_host_says_whose_clock_is_ahead_can_be_lifted_by_the_others(hosts: list[Host]) -> None:
    put(hosts[0], suppressed(time.time() + 3600.0))
    meet(hosts)
    assert len(known(hosts[1])) == 1
    lift(hosts[1])
    meet(hosts)
    assert [known(host) for host in hosts] == [[], [], []]
    assert ask(hosts[0].url, "SELECT 1 FROM suppressions WHERE address <> ''") == []


def test_what_was_told_before_it_was_lifted_does_not_come_back_with_a_host_that_was_away(hosts: list[Host]) -> None:
    one, two, three = hosts
    put(one, suppressed(NOW))
    meet([one, two])
    lift(two)
    meet([one, two])
    meet(hosts)
    assert known(three) == []
    put(one, suppressed(time.time()))
    meet(hosts)
    assert len(known(two)) == len(known(three)) == 1, "it can be learned again"


def test_what_ended_by_itself_is_not_lifted_elsewhere(hosts: list[Host]) -> None:
    one, two, _ = hosts
    put(one, suppressed(NOW, until=1.0))
    meet([one, two])
    put(two, suppressed(NOW + 5))
    with one.journal.database.transaction() as link:
        assert suppression.sweep(link, NOW + 400 * 86_400, within=0.0, most=10) == 1
    meet([one, two])
    assert len(known(one)) == len(known(two)) == 1


def test_an_address_that_became_a_hash_is_not_told_and_not_lifted(hosts: list[Host]) -> None:
    one, two, _ = hosts
    put(one, suppressed(NOW))
    meet([one, two])
    with one.journal.database.transaction() as link:
        hashed = veil.hashed(BOB, veil.key(link))
        link.execute("UPDATE OR REPLACE suppressions SET address = ?", (hashed,))
    meet([one, two])
    assert [item.address for item in known(one)] == [hashed]
    assert [item.address for item in known(two)] == [BOB]
    assert ask(one.url, "SELECT 1 FROM suppressions WHERE address <> ''") == []


def test_a_host_that_was_put_back_hears_and_is_heard(hosts: list[Host]) -> None:
    one, two, _ = hosts
    put(one, suppressed(NOW))
    meet([one, two])
    assert unshipped.end(one.journal.database)
    one.restart()
    put(one, suppressed(NOW, "eve@example.net"))
    meet([one, two])
    assert {item.address for item in known(two)} == {BOB, "eve@example.net"}
    assert known(one) == known(two)


def test_a_host_that_is_never_done_with_shipping_hears_the_others(hosts: list[Host]) -> None:
    one, two, _ = hosts
    put(one, suppressed(NOW))
    one.ship()
    two.journal.record([taken() for _ in range(1500)])
    assert two.shipper.work(), "there was nothing left to ship"
    assert known(two) == known(one)


@pytest.mark.parametrize("empty", [True, False])
def test_hosts_hear_each_other_by_a_database_that_was_put_back(
    hosts: list[Host], server: Server, *, empty: bool
) -> None:
    """What is told after that has numbers that were heard before, as it seems."""
    one, two, _ = hosts
    put(one, suppressed(NOW, "first@example.net"))
    meet([one, two])
    for host in (one, two):
        host.shipper.close()
    name = f"sharing{next(_numbers)}"
    older = server.new_database(name) if empty else copied(server, one.url, name)
    put(one, *(suppressed(NOW, f"{number}@example.net") for number in range(20)))
    put(two, suppressed(NOW, "two@example.net"))
    for host in (one, two):
        host.ship(taken())
    meet([one, two])
    assert len(known(one)) == len(known(two)) == 22
    for host in (two, one):  # who joins first gets another number than it had
        host.url = older
        host.close()
        host.restart()
        host.ship()
    put(one, suppressed(NOW, "new@example.net"))
    put(two, suppressed(NOW, "other@example.net"))
    meet([one, two])
    assert known(one) == known(two)
    assert len(known(one)) == 24


STEP = st.tuples(st.integers(0, 2), st.sampled_from(["put", "lift", "meet"]), st.sampled_from([BOB, "eve@example.net"]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10)
@given(st.lists(STEP, max_size=15))
@example([(0, "put", BOB), (1, "put", BOB), (0, "lift", BOB)])
def test_in_the_end_all_hosts_say_the_same(tmp_path: Path, server: Server, steps: list[tuple[int, str, str]]) -> None:
    """Whoever was away meanwhile: of all that was said of an address the last word stands. All have shipped once: what
    was lifted before that nobody wrote down."""
    with _hosts(tmp_path, server) as hosts:
        meet(hosts)
        last: dict[str, bool] = {}
        for number, what, address in steps:
            host = hosts[number]
            tick()
            if what == "put":
                put(host, suppressed(time.time(), address))
            elif what == "lift" and any(one.address == address for one in known(host)):
                lift(host, address)
            else:
                host.ship()
                continue
            last[address] = what == "put"
        for _ in range(2):
            meet(hosts)
        assert known(hosts[0]) == known(hosts[1]) == known(hosts[2])
        assert {one.address for one in known(hosts[0])} == {address for address, stands in last.items() if stands}


def test_who_is_erased_is_nowhere_once_the_database_was_told(hosts: list[Host]) -> None:
    """Here, in what was still to be told, and over there; the suppression goes on by its hash."""
    one, two, _ = hosts
    put(one, suppressed(NOW))
    one.ship(taken(BOB, facts={"to": BOB}))
    key = veil.read_key(one.journal.database)
    person = Person(BOB, key, lambda spelling: ())
    waiting = next(place for place in PLACES if place.table == "unshipped")
    erasing.events(one.journal.database, person)
    for place in PLACES:
        if place.lasting and place.table != "events":
            erasing.rows(one.journal.database, place, person)
    assert erasing.count(one.journal.database, waiting, person) == 1
    one.ship()
    assert erasing.count(one.journal.database, waiting, person) == 0
    assert [item.address for item in known(one)] == [person.hash]
    for table, column in (("events", "data"), ("lookups", "name"), ("suppressions", "address")):
        assert ask(one.url, f"SELECT 1 FROM {table} WHERE {column} LIKE '%%bob@%%'") == [], table
    meet([one, two])
    assert known(two) == []
