"""The early refusal of several workers: what each remembers may make it late, and never lets a limit be passed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from postmeter.store import database, ledger, plenty
from postmeter.store.accounts import Charge, Settled
from postmeter.store.settle import Settler

NOW = 1_700_000_000.0
LIMIT = 100


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def workers(path: Path) -> Iterator[tuple[Settler, Settler]]:
    """Two processes know no more of each other than two of these: the file."""
    both = Settler(path), Settler(path)
    for worker in both:
        worker.open()
    yield both
    for worker in both:
        worker.close()


def charge(amount: int = 1, *, limit: int = LIMIT) -> Charge:
    return Charge(key="alice", unit="recipients", window=3600, limit=limit, amount=amount, text="")


def early(worker: Settler, *, limit: int = LIMIT) -> bool:
    """Whether it would refuse at MAIL."""
    return worker.glance((charge(limit=limit),), NOW) is not None


def send(worker: Settler, amount: int = 1, *, limit: int = LIMIT) -> bool:
    """Whether the message is taken at its end."""
    return worker.settle((charge(amount, limit=limit),), None, {}, NOW) == Settled()


def test_a_limit_that_another_worker_filled_is_refused_at_the_end_of_the_message_and_then_at_mail(
    workers: tuple[Settler, Settler],
) -> None:
    one, other = workers
    assert not early(one)
    assert send(other, LIMIT)
    assert not early(one)
    assert not send(one)
    assert early(one)
    assert early(other)


def test_a_limit_that_it_filled_itself_is_refused_at_the_end_once(workers: tuple[Settler, Settler]) -> None:
    one, _ = workers
    assert not early(one)
    assert [send(one) for _ in range(LIMIT + 1)] == [True] * LIMIT + [False]
    assert early(one)


def test_close_to_a_limit_what_another_worker_charged_is_seen_at_mail(workers: tuple[Settler, Settler]) -> None:
    one, other = workers
    assert send(other, LIMIT // 2)
    assert not early(one)
    assert send(other, LIMIT // 2)
    assert early(one)


def test_small_limits_are_looked_up_for_every_message(workers: tuple[Settler, Settler]) -> None:
    one, other = workers
    assert not early(one, limit=5)
    assert send(other, 5, limit=5)
    assert early(one, limit=5)


def test_after_a_minute_the_ledger_is_read_again(
    workers: tuple[Settler, Settler], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plenty, "KEPT", 0.0)
    one, other = workers
    assert not early(one)
    assert send(other, LIMIT)
    assert early(one)


def test_a_reset_and_a_raised_limit_are_seen_at_the_next_mail(workers: tuple[Settler, Settler], path: Path) -> None:
    one, other = workers
    assert send(one, LIMIT)
    assert early(one)
    assert early(other)
    assert not early(one, limit=LIMIT + 1)
    ledger.reset(database.open(path), "sender", "alice")
    assert not early(one)
    assert not early(other)


def test_a_lowered_limit_is_seen_at_the_next_mail(workers: tuple[Settler, Settler]) -> None:
    one, _ = workers
    assert send(one, 20)
    assert not early(one)
    assert early(one, limit=20)
