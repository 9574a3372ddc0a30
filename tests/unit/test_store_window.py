"""The sliding window against an oracle that keeps every stamp."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from postmeter.store.window import MOST, SKEW, SPAN, Window

SECOND = 1_000_000
LENGTHS = [SECOND, 60 * SECOND, 3600 * SECOND, 86_400 * SECOND, 30 * 86_400 * SECOND]


@dataclass
class Oracle:
    """Every stamp, for ever, on a clock that does not step back: it stands still where the other one does."""

    length: int
    stamps: list[tuple[int, int]] = field(default_factory=list)

    def used(self, now: int, *, longer: int = 0) -> int:
        return sum(amount for time, amount in self.stamps if now - self.length - longer < time <= now)

    def most(self) -> int:
        """The fullest of all windows; it is full at some stamp."""
        return max((self.used(time) for time, _ in self.stamps), default=0)


def charge(window: Window, now: int, amount: int, limit: int) -> Window | None:
    """As the ledger does it, over a restart each time."""
    if window.room_at(now, amount=amount, limit=limit) != now:
        return None
    return Window.unpack(window.length, window.charged(now, amount).pack())


steps = st.one_of(st.integers(0, 50), st.integers(0, SECOND), st.integers(0, 90_000 * SECOND))
amounts = st.one_of(st.just(1), st.integers(1, 60))


@given(st.sampled_from(LENGTHS), st.integers(1, 400), st.lists(st.tuples(steps, amounts), max_size=300))
@settings(deadline=None)
def test_no_window_ever_lets_more_than_the_limit_through(length: int, limit: int, mail: list[tuple[int, int]]) -> None:
    window, oracle, now = Window(length), Oracle(length), 10**15
    for step, amount in mail:
        now += step * length // (86_400 * SECOND)
        if (new := charge(window, now, amount, limit)) is not None:
            window = new
            oracle.stamps.append((now, amount))
        assert len(window.times) <= MOST
        assert window.used(now) >= oracle.used(now)
    assert oracle.most() <= limit


def busy(seed: int, length: int) -> Iterator[tuple[int, int]]:
    """When each of some hundred messages comes, and how much it is: bursts, pauses and all between, over some windows.

    Far more than are kept one by one: what lists of chance hardly ever have.
    """
    chance = Random(seed)
    gaps = [
        int(chance.expovariate(pace) * length)
        for pace in (chance.choice((10, 40, 70, 200, 1000, 10**6)) for _ in range(8))
        for _ in range(chance.randrange(10, 80))
    ]
    return ((10**15 + time, chance.choice((1, 1, 1, 3, 50))) for time in accumulate(gaps))


seeds = st.integers(0, 2**32)


@given(st.sampled_from(LENGTHS), seeds, st.integers(50, 1500))
@settings(deadline=None)
def test_no_window_lets_more_than_the_limit_through_where_charges_are_joined(
    length: int, seed: int, limit: int
) -> None:
    window, oracle = Window(length), Oracle(length)
    for now, amount in busy(seed, length):
        if (new := charge(window, now, amount, limit)) is not None:
            window = new
            oracle.stamps.append((now, amount))
        assert len(window.times) <= MOST
    assert oracle.most() <= limit


def count_rightly(length: int, mail: Iterable[tuple[int, int]]) -> None:
    """Never less than what passed in the window, nor more than in a thirtieth more."""
    window, oracle = Window(length), Oracle(length)
    for now, amount in mail:
        window = Window.unpack(length, window.charged(now, amount).pack())
        oracle.stamps.append((now, amount))
        assert oracle.used(now) <= window.used(now) <= oracle.used(now, longer=length // SPAN + 1)


@given(st.sampled_from(LENGTHS), seeds)
@settings(deadline=None)
def test_what_is_counted_passed_within_a_thirtieth_more_than_the_window(length: int, seed: int) -> None:
    """So nobody waits for longer, however his mail was joined."""
    count_rightly(length, busy(seed, length))


@pytest.mark.parametrize("burst", range(0, 30, 5))
def test_a_burst_before_does_not_have_distant_charges_joined(burst: int) -> None:
    """A quarter of all pairs is joined at once, and by then they may lie further apart than any may be joined."""
    evenly = range(0, 4 * SECOND, SECOND // (MOST + 1 - burst))
    count_rightly(SECOND, [(10**15 + time, 1) for time in sorted([*range(burst), *evenly])])


@pytest.mark.parametrize("length", LENGTHS)
def test_a_charge_counts_until_its_window_is_over_and_no_longer(length: int) -> None:
    window = Window(length).charged(10**15, 3)
    assert window.used(10**15 + length - 1) == 3
    assert window.used(10**15 + length) == 0


back_and_forth = st.integers(-3 * 3600 * SECOND, 3 * 3600 * SECOND)


@given(st.integers(1, 50), st.lists(st.tuples(st.one_of(steps, back_and_forth), amounts), max_size=200))
@settings(deadline=None)
@example(5, [(0, 5), (-SKEW // 2, 1), (3600 * SECOND, 1)])
def test_a_clock_stepped_back_frees_nothing(limit: int, mail: list[tuple[int, int]]) -> None:
    window, oracle, wall, real = Window(3600 * SECOND), Oracle(3600 * SECOND), 10**15, 0
    for step, amount in mail:
        wall += step
        real += max(step, 0)
        if (new := charge(window, wall, amount, limit)) is not None:
            window = new
            oracle.stamps.append((real, amount))
    assert oracle.most() <= limit


@given(st.integers(1, 400), st.integers(1, 10**6))
def test_a_clock_that_was_years_ahead_locks_nobody_out_for_longer_than_one_window(limit: int, years: int) -> None:
    window, now = Window(3600 * SECOND).charged(10**15 + years * 10**13, limit), 10**15
    assert window.ahead(now)
    assert window.room_at(now, amount=limit, limit=limit) == now + window.length
    assert window.settled(now).room_at(now + window.length, amount=limit, limit=limit) == now + window.length


@given(st.integers(1, MOST), st.lists(st.integers(0, 5000 * SECOND), max_size=200))
def test_few_charges_are_counted_exactly(limit: int, gaps: list[int]) -> None:
    window, oracle, now = Window(3600 * SECOND), Oracle(3600 * SECOND), 10**15
    for gap in gaps:
        now += gap
        new = charge(window, now, 1, limit)
        assert (new is not None) == (oracle.used(now) < limit)
        if new is not None:
            window = new
            oracle.stamps.append((now, 1))


@given(st.lists(st.tuples(st.integers(0, 100 * SECOND), amounts), max_size=150), st.integers(1, 400))
@settings(deadline=None)
def test_room_is_there_at_the_time_told_and_not_before(mail: list[tuple[int, int]], amount: int) -> None:
    window, now, limit = Window(3600 * SECOND), 10**15, 400
    for step, size in mail:
        now += step
        window = charge(window, now, size, limit) or window
    at = window.room_at(now, amount=amount, limit=limit)
    assert at is not None
    assert window.room_at(at, amount=amount, limit=limit) == at
    if at > now:
        assert window.room_at(at - 1, amount=amount, limit=limit) == at


def test_what_is_more_than_the_limit_never_fits() -> None:
    assert Window(SECOND).room_at(0, amount=11, limit=10) is None
    assert Window(SECOND).room_at(0, amount=10, limit=10) == 0


def test_a_burst_frees_its_room_close_to_when_it_was_sent_although_entries_were_joined() -> None:
    """1,000 charges within a minute, then one an hour: the minute must not be smeared over half an hour."""
    day = 86_400 * SECOND
    window = Window(day)
    for nth in range(1000):
        window = window.charged(10**15 + nth * 60_000, 1)
    later = 10**15 + 3600 * SECOND
    freed = window.room_at(later, amount=1, limit=1000)
    assert freed is not None
    assert freed - (10**15 + day) <= 10 * SECOND


@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(1, 2**40)), max_size=MOST))
def test_the_packed_state_is_read_back_as_it_was(entries: list[tuple[int, int]]) -> None:
    window, now = Window(3600 * SECOND), 10**15
    for gap, amount in entries:
        now += gap
        window = window.charged(now, amount)
    assert Window.unpack(window.length, window.pack()) == window


@pytest.mark.parametrize("state", [b"", b"Z", b"I" + bytes(11), b"Q" + bytes(12)])
def test_what_pack_never_made_is_refused(state: bytes) -> None:
    with pytest.raises(ValueError, match="window"):
        Window.unpack(SECOND, state)
