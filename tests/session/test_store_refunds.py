"""Both stores give back the same, once, and never what another message was charged."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from postmeter.events import Submitted
from postmeter.store import database, refunds
from postmeter.store.accounts import Charge
from postmeter.store.refunds import Refund
from tests.lab.redis import Redis
from tests.lab.stores import Place, opened, place

NOW = 1_700_000_000.0
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def redis(needs_redis: None) -> Iterator[Redis]:
    with Redis() as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return place(tmp_path, request.getfixturevalue("redis").unix) if request.param == "redis" else place(tmp_path)


def charges(amount: int) -> list[Charge]:
    return [
        Charge(key="alice", unit="recipients", window=3600, limit=10**9, amount=amount, text=""),
        Charge(key="alice", unit="messages", window=60, limit=10**9, amount=1, text=""),
        Charge(key="example.com", unit="recipients", window=3600, limit=10**9, amount=amount, text="", level="domain"),
    ]


def submit(accounts: object, amount: int, now: float) -> Refund:
    """As a worker does it; what its record says that it was charged."""
    due = charges(amount)
    facts = {"charged": [[c.level, c.key, c.unit, c.window, c.amount] for c in due], "charged_at": now}
    number = next(_numbers)
    event = Submitted(
        source=f"eom:{number}", time=now, queue_id="A", reference=f"{number:016x}", message_id="", login="alice",
        sender="alice", service="submission", mail_from="a@example.com", from_domain="example.com",
        recipients=("b@example.net",), size=1, facts=dict(facts),
    )  # fmt: skip
    accounts.settle(due, event, {}, now)  # type: ignore[attr-defined]
    found = refunds.refund(event.reference, event.facts)
    assert found is not None
    return found


def give(where: Place, back: Refund, now: float) -> None:
    if where.redis is not None:
        remote = where.ledger(caller_clock=True)
        remote.refund(back.charges, back.at, now, reference=back.reference)
        remote.close()
        return
    book = database.open(where.path)
    with book.transaction() as link:
        refunds.give(link, [back], now)
    book.close()


def used(where: Place, now: float) -> dict[tuple[str, str, int], int]:
    found = [*where.usage(now, key="alice"), *where.usage(now, level="domain", key="example.com")]
    return {(each.level, each.unit, each.window): each.used for each in found}


def test_every_level_gets_back_what_it_was_charged_whatever_else_was(where: Place) -> None:
    """Against every stamp: below sixty charges all is exact."""
    chance, now = random.Random(3), NOW
    kept: list[int] = []
    due: list[tuple[int, Refund]] = []
    with opened(where, caller_clock=True) as accounts:
        for _ in range(50):
            now += chance.random()
            amount = chance.randrange(1, 50)
            made = submit(accounts, amount, now)
            if chance.random() < 0.4:
                due.append((amount, made))
            else:
                kept.append(amount)
        chance.shuffle(due)
        for _, back in due:
            give(where, back, now)
    assert used(where, now) == {
        ("sender", "recipients", 3600): sum(kept),
        ("sender", "messages", 60): len(kept),
        ("domain", "recipients", 3600): sum(kept),
    }


def test_an_account_that_has_forgotten_gives_nothing_back(where: Place) -> None:
    with opened(where, caller_clock=True) as accounts:
        old = submit(accounts, 5, NOW)
        submit(accounts, 7, NOW + 4000)
        give(where, old, NOW + 4000)
    assert used(where, NOW + 4000)["sender", "recipients", 3600] == 7


def test_redis_gives_back_once_however_often_it_is_asked(tmp_path: Path, redis: Redis) -> None:
    """The answer may have been lost on its way: who asks again must not be given twice."""
    where = place(tmp_path, redis.unix)
    with opened(where, caller_clock=True) as accounts:
        first = submit(accounts, 5, NOW)
        submit(accounts, 7, NOW)
        for _ in range(3):
            give(where, first, NOW + 1)
    assert used(where, NOW + 1)["sender", "recipients", 3600] == 7
