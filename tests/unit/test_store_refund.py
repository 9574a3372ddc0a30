"""What is given back is no longer counted, and nothing else with it: against an oracle that keeps every stamp."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from postmeter.store.refunds import refund
from postmeter.store.window import MOST, Window

SECOND = 1_000_000
HOUR = 3600 * SECOND
steps = st.one_of(st.integers(0, 50), st.integers(0, SECOND), st.integers(0, 1800 * SECOND))
mail = st.lists(st.tuples(steps, st.integers(1, 60), st.booleans()), max_size=200)


def living(stamps: list[tuple[int, int]], now: int) -> int:
    return sum(amount for time, amount in stamps if now - HOUR < time <= now)


@given(mail, st.integers(1, 400), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_no_window_lets_more_than_the_limit_of_what_was_not_given_back_through(
    sent: list[tuple[int, int, bool]], limit: int, chance: object
) -> None:
    """Charged if there is room, some given back later, in any order; never less is counted than what stayed."""
    window, now = Window(HOUR), 10**15
    stayed: list[tuple[int, int]] = []
    owed: list[tuple[int, int]] = []
    for step, amount, back in sent:
        now += step
        if window.room_at(now, amount=amount, limit=limit) == now:
            window = Window.unpack(HOUR, window.charged(now, amount).pack())
            stayed.append((now, amount))
            if back:
                owed.append((now, amount))
        if owed and step % 3 == 0:
            at, due = owed.pop(chance.randrange(len(owed)))  # type: ignore[attr-defined]
            window = Window.unpack(HOUR, window.given_back(now, at, due).pack())
            stayed.remove((at, due))
        assert len(window.times) <= MOST
        assert min(window.amounts, default=1) > 0
        assert living(stayed, now) <= window.used(now)
    assert max((living(stayed, time) for time, _ in stayed), default=0) <= limit


@given(st.lists(st.tuples(st.integers(1, SECOND), st.integers(1, 60), st.booleans()), max_size=MOST))
def test_the_count_is_exact_while_nothing_is_joined(sent: list[tuple[int, int, bool]]) -> None:
    window, now, stamps = Window(HOUR), 10**15, list[tuple[int, int, bool]]()
    for step, amount, back in sent:
        now += step
        window = window.charged(now, amount)
        stamps.append((now, amount, back))
    for at, amount, back in stamps:
        window = window.given_back(now, at, amount) if back else window
    assert window.used(now) == sum(amount for _, amount, back in stamps if not back)
    assert window.used(now + HOUR) == 0


@given(st.integers(1, 3 * MOST), st.integers(0, 3 * MOST))
def test_all_of_it_comes_back_whatever_was_joined(count: int, nth: int) -> None:
    window, begin = Window(HOUR), 10**15
    for number in range(count):
        window = window.charged(begin + number * SECOND, 1 + number % 7)
    nth %= count
    before, now = window.used(begin + count * SECOND), begin + count * SECOND
    assert window.given_back(now, begin + nth * SECOND, 1 + nth % 7).used(now) == before - (1 + nth % 7)


def test_what_has_left_the_window_gives_nothing_back() -> None:
    begin = 10**15
    window = Window(HOUR).charged(begin, 5)
    assert window.given_back(begin + 9, begin + 1, 5) == window
    later = window.charged(begin + HOUR, 7)
    assert later.given_back(begin + HOUR, begin, 5).used(begin + HOUR) == 7


def test_an_account_that_was_emptied_since_gives_nothing_back() -> None:
    begin = 10**15
    emptied = Window(HOUR).charged(begin + HOUR // 2, 7)
    assert emptied.given_back(begin + HOUR // 2, begin, 5) == emptied


def test_two_limits_on_one_account_are_one_charge_and_what_says_nothing_is_none() -> None:
    same = ["sender", "a", "recipients", 3600, 2]
    found = refund("r", {"charged": [same, same, ["domain", "b", "bytes", 60, 9]], "charged_at": 1.5})
    assert found is not None
    assert [(charge.name, charge.unit, charge.amount) for charge in found.charges] == [
        ("sender:a", "recipients", 2),
        ("domain:b", "bytes", 9),
    ]
    for facts in ({}, {"charged": [same]}, {"charged": [], "charged_at": 1.5}, {"charged": [["x"]], "charged_at": 1}):
        assert refund("r", facts) is None
