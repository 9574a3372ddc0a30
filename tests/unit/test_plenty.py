"""What may be remembered of an account's room, and for how long: never enough to refuse by, never of a small limit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postmeter.store import plenty
from postmeter.store.accounts import Charge
from postmeter.store.plenty import KEPT, Plenty

HOURLY = Charge(key="alice", unit="recipients", window=3600, limit=1000, amount=1, text="")
DAILY = replace(HOURLY, window=86_400)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(clock: Clock) -> Plenty:
    return Plenty(clock)


def test_nothing_is_believed_of_an_account_that_nobody_looked_at(memory: Plenty) -> None:
    memory.keep([(HOURLY, 0)])
    assert memory.of([HOURLY])
    assert not memory.of([replace(HOURLY, key="bob")])
    assert not memory.of([HOURLY, DAILY])


@pytest.mark.parametrize(
    ("limit", "used", "believed"),
    [(1000, 499, True), (1000, 500, False), (60, 9, True), (60, 10, False), (50, 0, False)],
)
def test_half_of_the_limit_must_be_free_and_fifty_of_it(memory: Plenty, limit: int, used: int, believed: bool) -> None:
    one = replace(HOURLY, limit=limit)
    memory.keep([(one, used)])
    assert memory.of([one]) is believed


def test_a_lowered_limit_is_heeded_at_once(memory: Plenty) -> None:
    memory.keep([(HOURLY, 300)])
    assert not memory.of([replace(HOURLY, limit=400)])


def test_it_is_believed_for_a_minute(memory: Plenty, clock: Clock) -> None:
    memory.keep([(HOURLY, 0)])
    clock.now += KEPT - 0.1
    assert memory.of([HOURLY])
    clock.now += 0.1
    assert not memory.of([HOURLY])


def test_one_account_without_room_is_forgotten_with_all_that_were_charged_with_it(memory: Plenty) -> None:
    memory.keep([(HOURLY, 0), (DAILY, 0)])
    memory.forget([HOURLY, DAILY, replace(HOURLY, key="bob")])
    assert not memory.of([DAILY])


def test_what_is_remembered_is_bounded(memory: Plenty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plenty, "_MOST", 3)
    for nth in range(20):
        memory.keep([(replace(HOURLY, key=f"u{nth}"), 0)])
        assert len(memory._seen) <= 4
    assert memory.of([replace(HOURLY, key="u19")])
