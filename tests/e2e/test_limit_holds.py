"""Sixteen clients against one limit in four workers: exactly the limit, and never more whatever is killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.e2e.conftest import OpenLab
from tests.lab.client import Client, RefusedError
from tests.lab.lab import ALICE, Lab, letter
from tests.lab.sink import Delivery

CLIENTS, LIMIT = 16, 300
OVER = re.compile(rf"{re.escape(ALICE)}: \d+ of {LIMIT} recipients in the last day")


@dataclass
class Tally:
    """What the clients were told, all together."""

    accepted: int = 0
    doubtful: int = 0
    """Messages whose end was answered neither 250 nor by a refusal of ours: their worker was gone."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, *, accepted: int = 0, doubtful: int = 0) -> None:
        with self.lock:
            self.accepted += accepted
            self.doubtful += doubtful


@pytest.fixture
def lab(open_lab_once: OpenLab) -> Lab:
    return open_lab_once(
        Lab({"milter": {"workers": 4, "drain": "5s"}, "quota": {"limits": [f"{LIMIT} recipients/day"]}})
    )


@pytest.fixture
def open_lab_once(needs_postfix: None) -> Iterator[OpenLab]:
    with contextlib.ExitStack() as stack:
        yield stack.enter_context


def test_without_faults_exactly_the_limit_is_accepted(lab: Lab) -> None:
    tally = Tally()
    crowd(lab, tally)
    assert tally.accepted == LIMIT
    assert tally.doubtful == 0
    assert used(lab) == LIMIT
    assert sum(len(event["recipients"]) for event in journal(lab).values()) == LIMIT


def test_with_workers_killed_at_random_never_more_and_the_books_agree(lab: Lab) -> None:
    """Ledger equals journal, every message at the sink is in the journal, which is ahead by at most those in flight."""
    stop = threading.Event()
    killed: list[int] = []
    tally = Tally()
    killer = threading.Thread(target=kill_at_random, args=(lab, stop, killed, tally))
    killer.start()
    try:
        crowd(lab, tally)
    finally:
        stop.set()
        killer.join()
    assert len(killed) >= 5
    events = journal(lab)
    recorded = sum(len(event["recipients"]) for event in events.values())
    assert tally.accepted <= LIMIT
    assert recorded <= LIMIT
    assert used(lab) == recorded
    arrived = {queue_id(delivery) for delivery in settle_down(lab)}
    assert arrived <= set(events)
    assert len(events) - len(arrived) <= tally.doubtful


def crowd(lab: Lab, tally: Tally) -> None:
    """All clients at once, each until not even one recipient is taken any more."""
    clients = [threading.Thread(target=send_until_refused, args=(lab, tally, number)) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(120)
        assert not client.is_alive(), "a client hangs"


def send_until_refused(lab: Lab, tally: Tally, number: int) -> None:
    chance = random.Random(number)
    most, sent, until = 3, 0, time.monotonic() + 90
    while time.monotonic() < until:
        # A worker that dies at the client's connection makes Postfix answer 454 to the login already (D6).
        with contextlib.suppress(RefusedError, ConnectionError, OSError), lab.client(ALICE) as client:
            for _ in range(5):
                sent += 1
                count = chance.randint(1, most)
                verdict = send_one(client, tally, [f"c{number}m{sent}r{nth}@example.net" for nth in range(count)])
                if verdict == "over" and count == 1:
                    return
                if verdict == "over":
                    most = 1
                elif verdict == "broken":
                    break
    raise AssertionError("the limit was never reached")


def send_one(client: Client, tally: Tally, recipients: list[str]) -> str:
    """One message: taken, over the limit, or broken by a fault, after which the session is of no use (D6)."""
    try:
        client.send(letter(), mail_from=ALICE, rcpt_to=recipients)
    except RefusedError as refused:
        if OVER.search(refused.answer.text):
            return "over"
        tally.add(doubtful=refused.step == "end of DATA")
        return "broken"
    except (ConnectionError, OSError):
        tally.add(doubtful=1)
        return "broken"
    tally.add(accepted=len(recipients))
    return "taken"


def kill_at_random(lab: Lab, stop: threading.Event, killed: list[int], tally: Tally) -> None:
    """One worker whenever some more recipients were taken: however fast they are, most die before the limit."""
    chance = random.Random(7)
    due = 10
    while not stop.wait(chance.uniform(0.01, 0.05)):
        if tally.accepted < due:
            continue
        due = tally.accepted + chance.randint(10, 30)
        workers = lab.postmeter.workers()
        if workers:
            with contextlib.suppress(ProcessLookupError):
                killed.append(chance.choice(workers))
                os.kill(killed[-1], chance.choice([signal.SIGKILL, signal.SIGTERM]))


def journal(lab: Lab) -> dict[str, dict[str, list[str]]]:
    """Every accepted message by its queue id."""
    with contextlib.closing(sqlite3.connect(lab.postmeter.state / "journal.db")) as link:
        rows = link.execute("SELECT queue_id, data FROM events WHERE kind = 'submitted'").fetchall()
    assert max(Counter(queue_id for queue_id, _ in rows).values()) == 1
    return {queue_id: json.loads(data) for queue_id, data in rows}


def used(lab: Lab) -> int:
    """What the ledger says, by the public command."""
    told = json.loads(lab.postmeter.run("quota", "show", ALICE, "--json").stdout)
    text = json.dumps(told)
    found = re.search(r"\"used\": (\d+)", text)
    assert found, told
    return int(found[1])


def settle_down(lab: Lab) -> list[Delivery]:
    """The sink's messages once Postfix's queue is empty."""
    until = time.monotonic() + 60
    while lab.postfix.queued():
        assert time.monotonic() < until, "the queue does not empty"
        time.sleep(0.1)
    return list(lab.sink.deliveries)


def queue_id(delivery: Delivery) -> str:
    found = re.search(rb"\bid (\w+)", delivery.values(b"received")[0])
    assert found
    return found[1].decode()
