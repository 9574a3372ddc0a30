"""What a worker carries: octets held, and turns at working on them."""

from __future__ import annotations

import threading

import pytest

from postmeter.submission import load
from postmeter.submission.load import Load, Share
from tests.lab.waiting import wait_for


def carried(*, max_memory: int) -> Load:
    return Load(max_sessions=10, max_memory=max_memory)


def test_what_is_worked_on_counts_three_and_a_half_times() -> None:
    carry = carried(max_memory=100)
    assert carry.hold(20)
    assert carry.begin(20)
    assert carry.hold(30)
    assert not carry.hold(1)
    carry.end(20)
    assert carry.hold(50)


def test_one_message_is_worked_on_however_little_room_there_is() -> None:
    carry = carried(max_memory=100)
    assert carry.hold(100)
    assert carry.begin(100)


def test_those_without_room_work_one_after_another_in_the_order_of_their_coming() -> None:
    carry = carried(max_memory=100)
    assert all(carry.hold(25) for _ in range(4))
    assert carry.begin(25)
    done: list[int] = []

    def work(nth: int) -> None:
        assert carry.begin(25)
        done.append(nth)
        assert carry.working == 62, "alone"
        carry.release(5)
        carry.end(25)

    waiting = [threading.Thread(target=work, args=(nth,)) for nth in range(3)]
    for count, thread in enumerate(waiting, 1):
        thread.start()
        wait_for(lambda count=count: len(carry._turns) == count)  # type: ignore[misc]
    assert not done
    carry.end(25)
    for thread in waiting:
        thread.join(5)
    assert done == [0, 1, 2]
    assert carry.working == 0


def test_room_that_others_give_back_lets_the_next_begin() -> None:
    carry = carried(max_memory=100)
    assert carry.hold(20)
    assert carry.hold(20)
    assert carry.hold(20)
    assert carry.begin(10)
    thread = threading.Thread(target=carry.begin, args=(20,))
    thread.start()
    wait_for(lambda: bool(carry._turns))
    carry.release(40)
    thread.join(5)
    assert carry.working == 75


def test_a_share_gives_back_what_it_took_and_keeps_what_it_must() -> None:
    carry = carried(max_memory=100_000)
    share = Share(carry)
    assert share.grow(10)
    share.room -= 10
    share.kept += 10
    assert (carry.octets, share.used) == (share.held, 10)
    assert share.room > 0, "for what follows"
    assert share.grow(50_000)
    share.room -= 50_000
    share.shrink()
    assert (carry.octets, share.used) == (10, 10)
    share.kept = 0
    share.shrink()
    assert carry.octets == 0


def test_a_share_takes_the_last_octet_and_none_when_there_is_no_room() -> None:
    carry = carried(max_memory=100_000)
    share = Share(carry)
    assert not share.grow(100_001)
    assert carry.octets == 0
    assert share.grow(100_000)
    assert carry.octets == share.held == 100_000


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_PATIENCE", 0.01)
    carry = carried(max_memory=100)
    assert carry.begin(50)
    assert not carry.begin(1)
    carry.end(50)
    assert carry.begin(1)
