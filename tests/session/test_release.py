"""Letting held mail go, on a real store, with a queue that can be killed at any step."""

from __future__ import annotations

import json
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.cli.main import main
from postmeter.cli.release import alone
from postmeter.events import Released, Submitted
from postmeter.runtime.mailqueue import Queued
from postmeter.store import database, held, ledger, orders
from postmeter.store.accounts import Charge, Held, Hold, Settled, StoreDownError
from postmeter.store.database import Database
from postmeter.store.journal import Journal
from postmeter.store.orders import Order
from postmeter.store.settle import Settler
from postmeter.submission.release import LATE, Outcome, Releaser, under

NOW = 1_800_000_000.0


class Killed(BaseException):
    """Stands for SIGKILL: no boundary of ours may catch it."""


class Queue:
    """The hold queue in memory. `dies` counts down calls; at 0 the process is killed, before the call or after it."""

    def __init__(self) -> None:
        self.held: dict[str, float] = {}
        self.out: list[str] = []
        self.dies, self.after = -1, False

    def look(self) -> list[Queued]:
        return [Queued(queue_id=name, queue="hold", arrived=float(int(at))) for name, at in self.held.items()]

    def release(self, ids: Iterable[str]) -> None:
        self._act(list(ids), self.out)

    def delete(self, ids: Iterable[str]) -> None:
        self._act(list(ids), [])

    def _act(self, ids: list[str], goes: list[str]) -> None:
        self.dies -= 1
        if self.dies == 0 and not self.after:
            raise Killed
        for name in ids:
            if self.held.pop(name, None) is not None:
                goes.append(name)
        if self.dies == 0:
            raise Killed


class House:
    """A store and a queue; every message weighs its number of recipients against five a day."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.db"
        self.queue = Queue()
        self.count = 0
        database.open(self.path).close()

    def hold(self, sender: str, recipients: int, *, reason: str = "quota", age: float = 0.0) -> str:
        self.count += 1
        name, at = f"4Q{self.count:09d}", NOW - age + self.count / 1000
        event = Submitted(
            source=f"eom:{name}:{at}", time=at, queue_id=name, reference="", message_id="", login=sender, sender=sender,
            service="s", mail_from=sender, from_domain="", recipients=("r@example.net",) * recipients, size=1,
        )  # fmt: skip
        charge = Charge(key=sender, unit="recipients", window=86_400, limit=5, amount=recipients, text="5/day")
        settler = Settler(self.path)
        settled = settler.settle(
            (), event, {}, at, hold=Hold(queue_id=name, sender=sender, login=sender, reason=reason, charges=(charge,))
        )
        settler.close()
        assert not settled.full
        self.queue.held[name] = at
        return name

    def run(
        self, person: str = "", *, delete: bool = False, now: float = NOW, store: type[Settler] = Settler,
        clock: Callable[[], float] | None = None,
    ) -> Outcome:  # fmt: skip
        book, settler = database.open(self.path), store(self.path)
        releaser = Releaser(book, settler, self.queue, clock=clock or (lambda: now))
        try:
            return releaser.by_person(person, delete=delete) if person else releaser.due()
        finally:
            settler.close()
            book.close()

    def book(self) -> Database:
        return database.open(self.path, readonly=True)

    def used(self, sender: str, now: float = NOW) -> int:
        return sum(usage.used for usage in ledger.usage(self.book(), now + 1, level="sender", key=sender))

    def events(self) -> list[Released]:
        return [entry.event for entry in Journal(self.path).events() if isinstance(entry.event, Released)]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@given(
    mail=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5)), min_size=1, max_size=12),
    kills=st.lists(st.tuples(st.integers(1, 2), st.booleans()), max_size=3),
)
def test_whenever_it_is_killed_nothing_is_lost_and_nothing_charged_twice(
    mail: list[tuple[str, int]], kills: list[tuple[int, bool]]
) -> None:
    """Against a plain reading of the rule: of each sender from the oldest on what fits into five."""
    with TemporaryDirectory() as folder:
        house = House(Path(folder))
        names = [house.hold(sender, recipients) for sender, recipients in mail]
        for dies, after in kills:
            house.queue.dies, house.queue.after = dies, after
            with suppress(Killed):
                house.run()
        house.queue.dies = -1
        house.run()
        room, blocked, expected = Counter(dict.fromkeys("abc", 5)), set(), []
        for name, (sender, recipients) in zip(names, mail, strict=True):
            if recipients > room[sender]:
                blocked.add(sender)
            if sender not in blocked:
                room[sender] -= recipients
                expected.append(name)
        assert sorted(house.queue.out) == expected
        assert set(house.queue.held) == set(names) - set(expected)
        assert {row.queue_id for row in held.waiting(house.book())} == set(house.queue.held)
        assert not held.going(house.book())
        assert {sender: house.used(sender) for sender in "abc"} == {sender: 5 - room[sender] for sender in "abc"}
        assert sorted(event.queue_id for event in house.events()) == expected


def test_a_person_deletes_what_the_brake_holds_and_pays_nothing(house: House) -> None:
    house.hold("a", 3, reason="brake")
    other = house.hold("b", 3, reason="brake")
    assert not house.run().any()
    assert house.run("a", delete=True) == Outcome(deleted=1)
    assert (list(house.queue.held), house.queue.out, house.used("a")) == ([other], [], 0)
    assert house.run("b") == Outcome(released=1)
    assert (house.used("b"), [event.action for event in house.events()]) == (3, ["deleted", "released"])


def test_a_queue_id_that_came_again_is_not_touched(house: House) -> None:
    """Short ids are used again: another message of that id on hold is not ours to let go, or to delete."""
    name = house.hold("a", 1, age=86_400)
    house.queue.held[name] = NOW
    assert house.run() == Outcome(gone=1)
    assert list(house.queue.held) == [name]


@pytest.mark.parametrize("after", [False, True])
def test_what_a_killed_run_has_charged_may_be_deleted_and_leaves_no_row(house: House, *, after: bool) -> None:
    """Its release is on record already; where it was let go, too, nothing is left to be deleted."""
    house.hold("a", 3)
    house.queue.dies, house.queue.after = 2, after  # the first call is for what another run left
    with suppress(Killed):
        house.run()
    house.queue.dies = -1
    assert [row.sender for row in held.going(house.book())] == ["a"]
    assert house.run("a", delete=True) == Outcome(deleted=0 if after else 1)
    assert (held.going(house.book()), held.waiting(house.book()), house.queue.held) == ([], [], {})
    assert (house.used("a"), [event.action for event in house.events()]) == (3, ["released"])


@pytest.mark.parametrize(("queue", "later"), [("active", 0.0), ("deferred", 0.0), ("hold", 60.0)])
def test_what_the_queue_shows_elsewhere_is_gone_at_once(
    house: House, monkeypatch: pytest.MonkeyPatch, queue: str, later: float
) -> None:
    """Somebody else let it go; or its queue id came again on another message, which is none of ours to touch."""
    name = house.hold("alice", 1)
    shown = Queued(queue_id=name, queue=queue, arrived=float(int(house.queue.held[name])) + later)
    monkeypatch.setattr(house.queue, "look", lambda: [shown])
    assert house.run(now=NOW + 1) == Outcome(gone=1)
    assert [event.action for event in house.events()] == ["gone"]
    assert (house.used("alice"), house.queue.out) == (0, [])


def test_what_may_still_be_on_its_way_into_the_queue_is_waited_for(house: House) -> None:
    name = house.hold("a", 1)
    at = house.queue.held.pop(name)
    assert not house.run().any()
    house.queue.held[name] = at
    assert house.run() == Outcome(released=1)
    house.queue.held.pop(house.hold("a", 1, age=LATE + 1))
    assert house.run() == Outcome(gone=1)


def test_other_limits_by_order_hold_for_what_is_held_already(house: House) -> None:
    """Who is given more room by a person does not wait for the old limit; it is charged as ever."""
    for _ in range(3):
        house.hold("a", 5)
    assert house.run() == Outcome(released=1, wait=2)
    book = database.open(house.path)
    orders.put(book, Order(kind="limits", login="a", value="10 recipients/day", since=NOW))
    assert house.run() == Outcome(released=1, wait=1)
    orders.put(book, Order(kind="limits", login="a", value="unlimited", since=NOW))
    book.close()
    assert house.run() == Outcome(released=1)
    assert house.used("a") == 15


@pytest.mark.parametrize(("order", "more"), [("10 recipients/day", {"limit": 10}), ("unlimited", {"enforce": False})])
def test_an_order_about_a_sender_lifts_no_other_level(order: str, more: dict[str, object]) -> None:
    own = Charge(key="a", unit="recipients", window=86_400, limit=5, amount=1, text="5 recipients/day")
    others = tuple(replace(own, key="", level=level, limit=9) for level in ("domain", "network", "total"))
    first, *rest = under((own, *others), order)
    assert replace(first, text=own.text) == replace(own, **more)  # type: ignore[arg-type]
    assert tuple(rest) == others


def test_what_was_charged_leaves_although_the_store_fails_at_the_next(house: House) -> None:
    """A Redis that goes away: the message that could not be charged stays held."""

    class Failing(Settler):
        def release(self, message: Held, event: Released, now: float) -> Settled:
            if message.sender == "b":
                raise StoreDownError("gone")
            return super().release(message, event, now)

    first, second = house.hold("a", 1), house.hold("b", 1)
    for _ in range(2):
        with pytest.raises(StoreDownError):
            house.run(store=Failing)
        assert (house.queue.out, list(house.queue.held)) == ([first], [second])
    assert house.run() == Outcome(released=1)
    assert (house.used("a"), house.used("b")) == (1, 1)


@pytest.mark.parametrize("kind", ["freeze", "brake"])
def test_of_a_login_that_was_stopped_since_nothing_leaves_by_itself(house: House, kind: orders.Kind) -> None:
    """What a thief could not send for the quota must not leave minutes later, with or without a run that was killed."""
    started, name = house.hold("a", 1), house.hold("a", 1)
    house.queue.dies = 1
    with suppress(Killed):
        house.run()
    other = house.hold("b", 1)
    book = database.open(house.path)
    orders.put(book, Order(kind=kind, login="a", since=NOW))
    assert house.run() == Outcome(released=1)
    assert (house.queue.out, list(house.queue.held)) == ([other], [started, name])
    orders.lift(book, kind, "a", NOW)
    book.close()
    assert house.run() == Outcome(released=2)
    assert house.used("a") == 2


def test_each_is_charged_when_it_goes_however_long_the_run_takes(house: House) -> None:
    """A charge dated back by more than a minute would date back what was charged meanwhile."""
    for _ in range(3):
        house.hold("a", 1)
    ticks = count(int(NOW), 1000)
    house.run(clock=lambda: float(next(ticks)))
    assert all(event.time > NOW + 1000 * number for number, event in enumerate(house.events()))
    last = house.events()[-1].time
    assert house.used("a", now=last + 86_400 - 500) == 1


def test_a_message_that_took_hours_to_arrive_is_let_go_like_any_other(house: House) -> None:
    """Postfix tells when it began; as long as it is there nobody else can have got its queue id."""
    name = house.hold("a", 1)
    house.queue.held[name] -= 6 * 3600
    assert house.run() == Outcome(released=1)
    assert house.queue.out == [name]


def test_two_runs_at_once_wait_for_each_other(house: House) -> None:
    """Whoever asks Redis and the journal at the same time as another would charge a message twice."""
    order: list[str] = []
    begun = threading.Event()

    def second() -> None:
        begun.set()
        with alone(house.path):
            order.append("second")

    with alone(house.path):
        other = threading.Thread(target=second)
        other.start()
        begun.wait()
        other.join(0.2)
        order.append("first")
    other.join(10)
    assert order == ["first", "second"]


def test_what_got_the_queue_id_of_a_frozen_logins_mail_later_is_not_listed(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The list goes to `postsuper -d -`, and short ids are used again."""
    mine, again, others = house.hold("a", 1), house.hold("a", 1), house.hold("b", 1)
    arrived = {mine: NOW, again: NOW + 3600, others: NOW}
    told = [
        json.dumps({"queue_name": "deferred", "queue_id": name, "arrival_time": at}) for name, at in arrived.items()
    ]
    program, says = tmp_path / "postqueue", tmp_path / "says"
    says.write_text("\n".join(told) + "\n")
    program.write_text(f"#!/bin/sh\nexec cat {says}\n")
    program.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    config = tmp_path / "postmeter.yaml"
    config.write_text(f"journal: {{path: {house.path}}}\n")
    assert main(["-c", str(config), "freeze", "a", "--queue"]) == 0
    assert capsys.readouterr().out.splitlines() == [mine]
