"""Two hosts, each a private Postfix with a postmeter, that share one Redis: its limits, its orders, its failures."""

from __future__ import annotations

import contextlib
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.e2e.conftest import OpenLab
from tests.lab.client import Client, RefusedError
from tests.lab.lab import ALICE, BOB, Lab, letter
from tests.lab.redis import Redis

pytestmark = pytest.mark.usefixtures("needs_postfix", "needs_redis")

LIMIT, CLIENTS = 150, 8


@pytest.fixture
def redis(needs_redis: None) -> Iterator[Redis]:
    """It keeps through a kill what it was told."""
    with Redis(durable=True) as server:
        yield server


@pytest.fixture
def open_here(needs_postfix: None) -> Iterator[OpenLab]:
    with contextlib.ExitStack() as stack:
        yield stack.enter_context


def hosts(
    open_here: OpenLab, redis: Redis, *, limit: str = f"{LIMIT} recipients/day", down: str = "accept"
) -> list[Lab]:
    """One speaks to Redis by its unix socket, the other by TCP."""
    return [
        open_here(Lab({"quota": {"store": url, "limits": [limit], "on_store_down": down}, "journal": {"host": name}}))
        for name, url in (("one", redis.unix), ("two", redis.inet))
    ]


@dataclass
class Tally:
    """What clients were told, by the first words of the answer."""

    told: Counter[str] = field(default_factory=Counter)
    recipients: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, what: str, recipients: int = 0) -> None:
        with self.lock:
            self.told[what] += 1
            self.recipients += recipients

    def wait(self, what: str, count: int) -> None:
        """Until so many more were told that."""
        want, end = self.told[what] + count, time.monotonic() + 30
        while self.told[what] < want:
            assert time.monotonic() < end, f"nobody is told {what}: {self.told}"
            time.sleep(0.02)  # a bounded wait for a condition


def send(client: Client, tally: Tally, recipients: int) -> bool:
    """One message; false when the session is over."""
    names = [f"r{nth}@example.net" for nth in range(recipients)]
    try:
        client.send(letter(), mail_from=ALICE, rcpt_to=names)
    except RefusedError as refused:
        tally.add(" ".join(str(refused.answer).split()[:2]))
        return refused.answer.code != 421
    tally.add("taken", recipients)
    return True


def until_refused(lab: Lab, tally: Tally, number: int) -> None:
    chance, most = random.Random(number), 3
    with lab.client(ALICE) as client:
        while True:
            count, before = chance.randint(1, most), tally.told["451 4.7.1"]
            assert send(client, tally, count)
            if tally.told["451 4.7.1"] > before:
                if count == 1:
                    return
                most = 1


def until_stopped(lab: Lab, tally: Tally) -> None:
    while not tally.stop.is_set():
        with lab.client(ALICE) as client:
            while not tally.stop.wait(0.01) and send(client, tally, 1):
                pass


@contextlib.contextmanager
def load(labs: list[Lab]) -> Iterator[Tally]:
    tally = Tally()
    clients = [threading.Thread(target=until_stopped, args=(lab, tally)) for lab in labs for _ in range(3)]
    for client in clients:
        client.start()
    try:
        yield tally
    finally:
        tally.stop.set()
        for client in clients:
            client.join(60)
    assert not any(client.is_alive() for client in clients), "a client hangs"


def used(lab: Lab) -> int:
    """What Redis says, by the public command."""
    told: Any = json.loads(lab.postmeter.run("quota", "show", ALICE, "--json").stdout)
    return sum(line["used"] for line in told["accounts"] if line["level"] == "sender")


def recorded(labs: list[Lab]) -> int:
    return sum(len(event["recipients"]) for lab in labs for event in lab.postmeter.events())


def arrived(labs: list[Lab], count: int) -> None:
    """Every message that was taken reaches its sink."""
    end = time.monotonic() + 60
    while sum(len(lab.sink.deliveries) for lab in labs) < count:
        assert time.monotonic() < end, "mail is lost"
        time.sleep(0.1)  # a bounded wait for a condition


def test_together_exactly_the_limit(open_here: OpenLab, redis: Redis) -> None:
    """As long as Redis answers in time, which on a busy machine it may not: what passed without it is on record."""
    labs = hosts(open_here, redis)
    tally = Tally()
    clients = [threading.Thread(target=until_refused, args=(lab, tally, nth)) for lab in labs for nth in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(120)
    without = [event for lab in labs for event in lab.postmeter.events() if "charged" not in event["facts"]]
    assert len(without) < tally.told["taken"] / 2, "hardly any message was charged"
    passed = sum(len(event["recipients"]) for event in without)
    assert LIMIT <= tally.recipients <= LIMIT + passed, "an answer that came too late has charged all the same"
    assert [used(lab) for lab in labs] == [LIMIT, LIMIT]
    assert recorded(labs) == tally.recipients
    assert all(lab.postmeter.events() for lab in labs), "one host sent it all"
    arrived(labs, tally.told["taken"])


def test_where_mail_goes_on_without_redis_nothing_is_lost_and_it_is_told(open_here: OpenLab, redis: Redis) -> None:
    """Killed and made to hang under load, it returns by itself: no client hears anything but 250."""
    labs = hosts(open_here, redis, limit="1000000 recipients/day")
    with load(labs) as tally:
        tally.wait("taken", 30)
        redis.kill()
        tally.wait("taken", 60)
        for lab in labs:
            lab.postmeter.wait_figure(0, "quota_store_up")
            assert lab.postmeter.metrics().figure("quota_store_errors_total") > 0
        redis.start()
        lab_up(labs)
        redis.pause()
        tally.wait("taken", 60)
        redis.resume()
        lab_up(labs)
        tally.wait("taken", 60)
    assert set(tally.told) == {"taken"}
    assert recorded(labs) == tally.recipients
    assert 0 < used(labs[0]) < tally.recipients
    for lab in labs:
        told = lab.postmeter.log().count("quotas are not kept, on_store_down: accept")
        assert 0 < told <= len(lab.postmeter.workers()), "once a minute and worker"
    arrived(labs, tally.told["taken"])


def lab_up(labs: list[Lab]) -> None:
    for lab in labs:
        lab.postmeter.wait_figure(1, "quota_store_up")


def test_where_mail_waits_for_redis_it_is_deferred_until_then(open_here: OpenLab, redis: Redis) -> None:
    labs = hosts(open_here, redis, limit="1000000 recipients/day", down="tempfail")
    with load(labs) as tally:
        tally.wait("taken", 30)
        redis.stop()
        tally.wait("451 4.3.0", 30)
        redis.start()
        tally.wait("taken", 60)
    assert set(tally.told) == {"taken", "451 4.3.0"}
    assert recorded(labs) == tally.recipients
    assert tally.recipients <= used(labs[0]) <= tally.recipients + 6  # those whose answer died with it
    assert sum(lab.postmeter.metrics().figure("quota_store_errors_total") for lab in labs) > 0
    arrived(labs, tally.told["taken"])


def test_a_message_costs_one_round_trip(open_here: OpenLab, redis: Redis) -> None:
    """At MAIL, at RCPT and in the steps nothing is asked; the one script decides and charges."""
    one, _ = hosts(open_here, redis)
    one.deliver(letter())  # the script is there from now on
    redis.cli("CONFIG", "RESETSTAT")
    for _ in range(5):
        one.deliver(letter())
    assert "cmdstat_evalsha:calls=5," in redis.cli("INFO", "commandstats")


def test_a_login_frozen_on_one_host_is_refused_on_the_other_and_a_reset_counts_for_both(
    open_here: OpenLab, redis: Redis
) -> None:
    one, two = hosts(open_here, redis, limit="2 messages/day")
    one.deliver(letter())
    assert re.fullmatch(rf"{ALICE} +messages/day +1 of 2 +50%\n", told_of(two)), "there is room, by any clock"
    two.deliver(letter())
    assert re.fullmatch(rf"{ALICE} +messages/day +2 of 2 +100% +room again at \S+\n", told_of(one))
    with pytest.raises(RefusedError, match="2 of 2 messages"):
        one.deliver(letter())
    assert two.postmeter.run("quota", "reset", ALICE).returncode == 0
    one.deliver(letter())
    assert one.postmeter.run("freeze", BOB).returncode == 0
    two.postmeter.wait_until(lambda: frozen(two))
    assert one.postmeter.run("unfreeze", BOB).returncode == 0
    two.postmeter.wait_until(lambda: not frozen(two))


def told_of(lab: Lab) -> str:
    """Of whoever has used anything of a limit, as people see it."""
    return lab.postmeter.run("quota", "show").stdout.decode()


def frozen(lab: Lab) -> bool:
    try:
        with lab.client(BOB) as client:
            client.envelope(BOB, ["reader@example.net"])
    except RefusedError:
        return True
    return False
