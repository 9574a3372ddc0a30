"""What a store of quotas promises, asked of each: SQLite, and the real Redis by unix socket, TLS, and as a cluster."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import random
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postmeter.events import Released, Submitted
from postmeter.store import database, held
from postmeter.store.accounts import Accounts, Charge, Hold, Overdrawn, Settled
from tests.lab.redis import Cluster, Redis
from tests.lab.stores import Place, opened, place

NOW = 1_700_000_000.0
HOUR, DAY = 3600, 86_400
KINDS = ("sqlite", "unix", "tls", "cluster")

_numbers = itertools.count(1)
same_store = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture(scope="module")
def redis(needs_redis: None) -> Iterator[Redis]:
    with Redis() as server:
        yield server


@pytest.fixture(scope="module")
def tls(needs_redis: None) -> Iterator[Redis]:
    with Redis(password="sesame", tls=True) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(needs_redis: None) -> Iterator[Cluster]:
    with Cluster() as nodes:
        yield nodes


@pytest.fixture(params=KINDS)
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty store of each kind."""
    kind: str = request.param
    if kind == "unix":
        return place(tmp_path, request.getfixturevalue("redis").unix)
    if kind == "tls":
        server: Redis = request.getfixturevalue("tls")
        assert server.certificates
        return place(tmp_path, server.inet, password_file=server.password_file(), ca=server.certificates.authority)
    if kind == "cluster":
        return place(tmp_path, request.getfixturevalue("cluster").url)
    return place(tmp_path)


@pytest.fixture
def accounts(where: Place) -> Iterator[Accounts]:
    """With the test's own clock."""
    with opened(where, caller_clock=True) as found:
        yield found


def charge(key: str = "alice", *, limit: int = 10, amount: int = 1, window: int = HOUR, **more: Any) -> Charge:
    return Charge(
        key=key, unit=more.pop("unit", "recipients"), window=window, limit=limit, amount=amount, text="text", **more
    )


def about(when: float) -> Any:
    """A time, to the microsecond that stores keep."""
    return pytest.approx(when, rel=0, abs=2e-6)


def submitted(now: float = NOW, *, login: str = "alice") -> Submitted:
    number = next(_numbers)
    return Submitted(
        source=f"eom:Q{number}:{now:.6f}", time=now, queue_id=f"Q{number}", reference="0123456789abcdef",
        message_id="<m@example.com>", login=login, sender=login, service="submission", mail_from=login,
        from_domain="example.com", recipients=("bob@example.net",), size=2000,
    )  # fmt: skip


def send(accounts: Accounts, *charges: Charge, now: float = NOW) -> Settled:
    return accounts.settle(charges, submitted(now), {}, now)


def used(where: Place, key: str, now: float = NOW, *, level: str = "sender") -> dict[tuple[str, int], int]:
    return {(usage.unit, usage.window): usage.used for usage in where.usage(now, level=level, key=key)}


def events(where: Place, kind: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(where.path)) as link:
        rows = link.execute("SELECT data FROM events WHERE kind = ? ORDER BY seq", (kind,)).fetchall()
    return [json.loads(data) for (data,) in rows]


# --- one message


def test_a_charge_is_kept_and_its_message_recorded(where: Place, accounts: Accounts) -> None:
    assert send(accounts, charge(amount=3)) == Settled()
    assert used(where, "alice") == {("recipients", HOUR): 3}
    assert len(events(where, "submitted")) == 1


def test_all_levels_are_charged_or_none_is(where: Place, accounts: Accounts) -> None:
    levels = [
        charge("alice", limit=10),
        charge("example.com", level="domain", limit=2, unit="messages", window=DAY),
        charge("192.0.2.0/24", level="network", limit=10, unit="bytes"),
        charge("", level="total", limit=10, window=60),
    ]
    assert [send(accounts, *levels).refused is None for _ in range(3)] == [True, True, False]
    assert send(accounts, *levels).refused == Overdrawn(charge=levels[1], used=2, room_at=about(NOW + DAY))
    for each in levels:
        assert list(used(where, each.key, level=each.level).values()) == [2]
    assert len(events(where, "submitted")) == 2


def test_a_login_is_no_domain_and_no_network(where: Place, accounts: Accounts) -> None:
    for level in ("sender", "domain", "network"):
        assert send(accounts, charge("x", level=level, limit=1)) == Settled()


def test_of_several_limits_without_room_the_one_that_frees_last_is_told(accounts: Accounts) -> None:
    both = [charge(limit=1), charge(limit=1, window=DAY), charge(limit=5, unit="messages")]
    send(accounts, *both)
    refused = send(accounts, *both, now=NOW + 1).refused
    assert refused == Overdrawn(charge=both[1], used=1, room_at=about(NOW + DAY))


def test_what_can_never_fit_is_told_as_such(where: Place, accounts: Accounts) -> None:
    never = charge(limit=5, amount=6)
    assert send(accounts, never).refused == Overdrawn(charge=never, used=0, room_at=None)
    assert used(where, "alice") == {}


def test_two_limits_on_one_account_charge_it_once(where: Place, accounts: Accounts) -> None:
    assert send(accounts, charge(limit=10, amount=4), charge(limit=9, amount=4)) == Settled()
    assert used(where, "alice") == {("recipients", HOUR): 4}


def test_accounts_that_a_message_does_not_charge_keep_what_they_hold(where: Place, accounts: Accounts) -> None:
    """Another service's rule has other limits for the same sender, perhaps."""
    send(accounts, charge(limit=1), charge(limit=1, window=DAY))
    for later in (60, HOUR // 2 + 1, HOUR - 1):
        send(accounts, charge(window=60), now=NOW + later)
        assert used(where, "alice", NOW + later) == {
            ("recipients", 60): 1,
            ("recipients", HOUR): 1,
            ("recipients", DAY): 1,
        }
    for later in (HOUR + 60, DAY // 2 + 1, DAY - 1):
        send(accounts, charge(window=60), now=NOW + later)
        assert used(where, "alice", NOW + later) == {("recipients", 60): 1, ("recipients", DAY): 1}


def test_what_is_not_enforced_is_charged_beyond_its_limit_and_told(where: Place, accounts: Accounts) -> None:
    loose = charge(limit=2, amount=2, enforce=False)
    assert send(accounts, loose) == Settled()
    assert send(accounts, loose).observed == Overdrawn(charge=loose, used=2, room_at=about(NOW + HOUR))
    assert used(where, "alice") == {("recipients", HOUR): 4}
    assert send(accounts, replace(loose, enforce=True)).refused


def test_an_amount_of_nothing_is_neither_charged_nor_refused(where: Place, accounts: Accounts) -> None:
    send(accounts, charge(limit=1))
    assert send(accounts, charge(limit=1, amount=0)) == Settled()
    assert used(where, "alice") == {("recipients", HOUR): 1}


def test_numbers_up_to_two_to_the_53_are_exact(where: Place, accounts: Accounts) -> None:
    most = 2**53
    assert send(accounts, charge(limit=most, amount=most - 1, unit="bytes")) == Settled()
    assert send(accounts, charge(limit=most, amount=2, unit="bytes")).refused
    assert send(accounts, charge(limit=most, amount=1, unit="bytes")) == Settled()
    assert used(where, "alice") == {("bytes", HOUR): most}


@pytest.mark.parametrize("key", ["", "b\0b", "жук@example.com", "lone \udcff half", "a:b", "x" * 300])
def test_any_text_may_be_a_key(where: Place, accounts: Accounts, key: str) -> None:
    send(accounts, charge(key, limit=1))
    assert send(accounts, charge(key, limit=1)).refused
    assert used(where, key) == {("recipients", HOUR): 1}


def test_a_look_changes_nothing_and_tells_what_settle_would(where: Place, accounts: Accounts) -> None:
    assert accounts.check([charge(limit=1)], NOW) is None
    assert used(where, "alice") == {}
    send(accounts, charge(limit=1))
    told = accounts.check([charge(limit=1)], NOW + 1)
    assert told == send(accounts, charge(limit=1), now=NOW + 1).refused
    assert told is not None


def test_after_a_refusal_a_glance_knows_that_the_account_is_full(accounts: Accounts) -> None:
    assert accounts.glance([charge(limit=1)], NOW) is None
    send(accounts, charge(limit=1))
    send(accounts, charge(limit=1))
    over = accounts.glance([charge(limit=1)], NOW)
    assert over is not None
    assert (over.used, over.room_at) == (1, about(NOW + HOUR))
    assert accounts.glance([charge("bob", limit=1)], NOW) is None


def test_a_glance_does_not_refuse_what_is_smaller_than_what_had_no_room(accounts: Accounts) -> None:
    send(accounts, charge(limit=10, amount=8))
    assert send(accounts, charge(limit=10, amount=5)).refused
    assert accounts.glance([charge(limit=10, amount=1)], NOW) is None


def test_a_glance_tells_when_one_more_fits_and_not_when_what_was_refused_does(accounts: Accounts) -> None:
    send(accounts, charge(amount=2))
    send(accounts, charge(amount=8), now=NOW + 600)
    refused = send(accounts, charge(amount=5), now=NOW + 601).refused
    assert refused is not None
    assert refused.room_at == about(NOW + 600 + HOUR)
    over = accounts.glance([charge()], NOW + 601)
    assert over is not None
    assert (over.used, over.room_at) == (10, about(NOW + HOUR))


# --- windows


@dataclass
class Oracle:
    """Every stamp of every account, for ever."""

    stamps: dict[tuple[object, ...], list[tuple[float, int]]] = field(default_factory=dict)

    def used(self, charge: Charge, now: float) -> int:
        stamps = self.stamps.get(charge.account, [])
        return sum(amount for time, amount in stamps if now - charge.window < time <= now)

    def fits(self, charges: Sequence[Charge], now: float) -> bool:
        return all(self.used(charge, now) + charge.amount <= charge.limit for charge in charges)

    def charge(self, charges: Sequence[Charge], now: float) -> None:
        for each in charges:
            self.stamps.setdefault(each.account, []).append((now, each.amount))

    def most(self, charge: Charge) -> int:
        """The fullest of all windows; it is full at some stamp."""
        return max((self.used(charge, time) for time, _ in self.stamps.get(charge.account, [])), default=0)


mail = st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 8), st.booleans()), max_size=50)


@given(mail, st.integers(1, 40), st.integers(1, 80))
@same_store
def test_few_charges_are_decided_exactly_as_by_an_oracle_that_keeps_every_stamp(
    accounts: Accounts, messages: list[tuple[int, int, bool]], hourly: int, daily: int
) -> None:
    key, oracle, now = f"o{next(_numbers)}", Oracle(), NOW
    for step, amount, other in messages:
        now += step
        wanted = [charge(key, limit=hourly, amount=amount), charge(key, limit=daily, amount=amount, window=DAY)]
        wanted += [charge(key, level="domain", limit=20, amount=1, unit="messages")] if other else []
        refused = send(accounts, *wanted, now=now).refused
        assert (refused is None) == oracle.fits(wanted, now)
        if refused is None:
            oracle.charge(wanted, now)
        elif refused.room_at is not None:
            assert accounts.check([refused.charge], refused.room_at + 1e-5) is None
            assert accounts.check([refused.charge], refused.room_at - 1e-5) is not None


@given(st.integers(1, 300), st.lists(st.tuples(st.integers(0, 200), st.integers(1, 20)), min_size=60, max_size=150))
@settings(same_store, max_examples=10)
def test_no_window_lets_more_than_the_limit_through(
    accounts: Accounts, limit: int, messages: list[tuple[int, int]]
) -> None:
    key, oracle, now = f"w{next(_numbers)}", Oracle(), NOW
    for step, amount in messages:
        now += step
        one = charge(key, limit=limit, amount=amount)
        if send(accounts, one, now=now).refused is None:
            oracle.charge([one], now)
    assert oracle.most(charge(key, limit=limit)) <= limit


@given(st.integers(1, 20), st.lists(st.tuples(st.integers(-2 * HOUR, 2 * HOUR), st.integers(1, 5)), max_size=40))
@settings(same_store, max_examples=10)
def test_a_clock_that_is_stepped_frees_nothing_too_early(
    accounts: Accounts, limit: int, messages: list[tuple[int, int]]
) -> None:
    key, oracle, wall, real = f"c{next(_numbers)}", Oracle(), NOW, 0.0
    for step, amount in messages:
        wall += step
        real += max(step, 0)
        one = charge(key, limit=limit, amount=amount)
        if send(accounts, one, now=wall).refused is None:
            oracle.charge([one], real)
    assert oracle.most(charge(key, limit=limit)) <= limit


def test_a_clock_that_was_years_ahead_locks_nobody_out_for_longer_than_one_window(accounts: Accounts) -> None:
    send(accounts, charge(limit=1), now=NOW + 1000 * DAY)
    assert send(accounts, charge(limit=1), now=NOW).refused
    assert send(accounts, charge(limit=1), now=NOW + HOUR - 1).refused
    assert send(accounts, charge(limit=1), now=NOW + HOUR + 1).refused is None


@pytest.mark.parametrize("messages", [40, 64, 200])
def test_a_steady_pace_of_95_percent_is_never_refused(accounts: Accounts, messages: int) -> None:
    gap = HOUR * 100 / (messages * 95)
    for nth in range(messages + messages // 2):
        assert send(accounts, charge(limit=messages), now=NOW + nth * gap + 1e-5 * nth) == Settled()


def test_what_is_kept_outlives_the_process(where: Place) -> None:
    for expected in (True, False):
        with opened(where, caller_clock=True) as accounts:
            assert (send(accounts, charge(limit=1)).refused is None) == expected


# --- warnings


def warned(where: Place) -> list[tuple[str, str, int, int, int]]:
    return [(one["level"], one["key"], one["percent"], one["used"], one["limit"]) for one in events(where, "warned")]


def test_a_threshold_is_told_once_when_it_is_reached(where: Place, accounts: Accounts) -> None:
    one = charge(limit=10, warn=(80, 100))
    for _ in range(7):
        send(accounts, one)
    assert warned(where) == []
    for _ in range(5):
        send(accounts, one)
    assert warned(where) == [("sender", "alice", 80, 8, 10), ("sender", "alice", 100, 10, 10)]


def test_after_a_window_a_threshold_is_told_again(where: Place, accounts: Accounts) -> None:
    one = charge(limit=10, amount=9, warn=(80,))
    for now in (NOW, NOW + HOUR - 1, NOW + HOUR + 1):
        send(accounts, one, now=now)
    assert len(warned(where)) == 2


def test_a_threshold_that_is_passed_up_and_down_within_a_window_is_told_once(where: Place, accounts: Accounts) -> None:
    """8 leave, and 8 come again, less than a window after somebody was told."""
    send(accounts, charge(limit=10, amount=7, warn=(80,)), now=NOW)
    send(accounts, charge(limit=10, amount=1, warn=(80,)), now=NOW + 1800)
    send(accounts, charge(limit=10, amount=7, warn=(80,)), now=NOW + HOUR + 1)
    assert len(warned(where)) == 1


def test_a_refusal_counts_as_the_whole_limit(where: Place, accounts: Accounts) -> None:
    send(accounts, charge(limit=10, amount=7, warn=(100,)))
    for _ in range(2):
        assert send(accounts, charge(limit=10, amount=7, warn=(100,))).refused
    assert warned(where) == [("sender", "alice", 100, 7, 10)]
    assert used(where, "alice") == {("recipients", HOUR): 7}


def test_a_limit_that_was_lowered_below_what_is_used_is_told_of_before_a_glance_refuses(
    where: Place, accounts: Accounts
) -> None:
    """Else all its mail would be refused at MAIL, where nobody is told, and its limit was never reached from below."""
    send(accounts, charge(amount=8, warn=(80, 100)))
    lowered = charge(limit=5, warn=(80, 100))
    assert accounts.glance([lowered], NOW + 1) is None
    assert send(accounts, lowered, now=NOW + 1).refused
    assert [(event["limit"], event["percent"]) for event in events(where, "warned")] == [(10, 80), (5, 100)]
    over = accounts.glance([lowered], NOW + 1)
    assert over is not None
    assert (over.used, over.room_at) == (8, about(NOW + HOUR))


def test_what_never_fits_warns_nobody(where: Place, accounts: Accounts) -> None:
    assert send(accounts, charge(limit=10, amount=11, warn=(80, 100))).refused
    assert warned(where) == []


# --- the hold queue


def test_what_is_held_is_charged_when_it_goes_and_only_once(where: Place, accounts: Accounts) -> None:
    one = charge(limit=1)
    hold = Hold(queue_id="Q1", sender="alice", login="alice", reason="quota", charges=(one,), most=5)
    assert accounts.settle((), submitted(), {}, NOW, hold=hold) == Settled()
    assert used(where, "alice") == {}
    with closing(database.open(where.path)) as book:
        (message,) = held.waiting(book)
    released = Released(
        source=f"released:Q1:{message.time:.6f}", time=NOW, queue_id="Q1", login="alice", sender="alice",
        action="released", by="due",
    )  # fmt: skip
    send(accounts, one)
    assert accounts.release(message, released, NOW + 1).refused
    for _ in range(2):
        assert accounts.release(message, released, NOW + HOUR + 1).refused is None
    assert used(where, "alice", NOW + HOUR + 1) == {("recipients", HOUR): 1}
    assert len(events(where, "released")) == 1


# --- many at once


def test_four_processes_of_sixteen_clients_let_exactly_the_limit_through(where: Place) -> None:
    """By the store's own clock: each client sends until not even one recipient is taken."""
    with opened(where):
        pass
    fork = multiprocessing.get_context("fork")
    start, taken = fork.Barrier(4), fork.Queue()
    workers = [fork.Process(target=crowd, args=(where, start, taken, number)) for number in range(4)]
    for worker in workers:
        worker.start()
    counts = [taken.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(30)
    assert sum(counts) == 1000
    assert used(where, "crowd", time.time()) == {("recipients", DAY): 1000}
    assert sum(len(event["recipients"]) for event in events(where, "submitted")) == 1000


def crowd(where: Place, start: Barrier, taken: Any, number: int) -> None:
    accounts = where.accounts()
    accounts.open()
    counts: list[int] = []
    clients = [threading.Thread(target=client, args=(accounts, f"{number}-{nth}", counts)) for nth in range(16)]
    start.wait(30)
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    accounts.close()
    taken.put(sum(counts))


def client(accounts: Accounts, name: str, counts: list[int]) -> None:
    chance, most, nth = random.Random(name), 5, 0
    while True:
        nth += 1
        amount, now = chance.randint(1, most), time.time()
        event = replace(submitted(now), source=f"eom:{name}-{nth}", recipients=("b@example.net",) * amount)
        one = charge("crowd", limit=1000, amount=amount, window=DAY)
        if accounts.settle((one,), event, {}, now).refused is None:
            counts.append(amount)
        elif amount == 1:
            return
        else:
            most = 1
