"""Everything at once, and everything killed at random: journal, metrics and report say what the sink did, exactly.

A recipient's name says what the next hop makes of it. With POSTMETER_ALL=1 there are 10,000 of them.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import re
import secrets
import shutil
import signal
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from tests.e2e.conftest import OpenLab
from tests.lab.client import RefusedError
from tests.lab.lab import Lab, letter
from tests.lab.ports import free_port
from tests.lab.product import Postmeter
from tests.lab.reports import arf, dsn
from tests.lab.sink import Delivery

RECIPIENTS = 10_000 if os.environ.get("POSTMETER_ALL") == "1" else 300
SENDERS = 6
KINDS = ("ok", "ok", "ok", "later", "gone", "full", "back", "spam", "read", "read")
PAGE = '<p>News. <a href="https://shop.example/?a=1">look</a></p>\r\n'
LINK = re.compile(rb'href="https://click\.example\.com(/c/[^"]+)"')


@dataclass
class World:
    """The next hop: what it answered for whom."""

    refused: dict[str, str] = field(default_factory=dict)
    put_off: set[str] = field(default_factory=set)

    def answer(self, recipient: bytes) -> str:
        name = recipient.decode()
        kind = name.partition("-")[0]
        if kind == "later" and name not in self.put_off:
            self.put_off.add(name)
            return "450 4.2.0 come again"
        if kind in ("gone", "full"):
            self.refused[name] = kind
            return "550 5.1.1 no such user" if kind == "gone" else "552 5.2.2 mailbox full"
        return "250 2.1.5 ok"


@pytest.fixture(scope="module")
def lab(open_lab: OpenLab) -> Lab:
    port = free_port()
    postmeter = Postmeter(
        {
            "quota": {"limits": ["100000 recipients/day"]},
            "tracking": {"url": "https://click.example.com", "privacy": "recipients"},
        },
        daemons=("milter", "web", "books"),
    )
    postmeter.key("example.com", "pm")
    postmeter.secrets()
    secret = postmeter.folder / "bounces.secrets"
    secret.write_text(f"{secrets.token_hex(32)}\n")
    shutil.chown(secret, postmeter.user)
    secret.chmod(0o600)
    lmtp = f"inet:127.0.0.1:{port}"
    postmeter.settings["bounces"] = {
        "domains": {"example.com": "bounces@example.com"}, "secrets": str(secret), "lmtp": lmtp,
        "cfbl_address": "fbl@example.com",
    }  # fmt: skip
    maps = f"inline:{{ {{ bounces@example.com = lmtp:{lmtp} }}, {{ fbl@example.com = lmtp:{lmtp} }} }}"
    lab = Lab(postmeter=postmeter, postfix={"recipient_delimiter": "+", "transport_maps": maps})
    postmeter.settings["delivery"] = {"log": str(lab.postfix.log_file)}
    return open_lab(lab)


@dataclass
class Tally:
    clicked: int = 0
    doubtful: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def test_journal_metrics_and_report_say_what_the_sink_did(lab: Lab) -> None:
    world, tally = World(), Tally()
    lab.sink.answer = world.answer
    with killing(lab) as killed:
        together([partial(send, lab, number) for number in range(SENDERS)])
        come_back(lab, tally)
    assert set(killed) == {"books", "web", "worker"}
    settle(lab)
    delivered = Counter(rcpt.decode() for one in lab.sink.deliveries for rcpt in one.rcpt_to)
    assert set(delivered.values()) == {1}
    the_journal_agrees(lab, world, set(delivered))
    agree(lab, lambda: the_metrics_agree(lab, world, set(delivered)))
    agree(lab, lambda: the_report_agrees(lab, world, set(delivered), tally))


# --- what happens


def send(lab: Lab, number: int) -> None:
    """Newsletters to one to four people; what is refused for now goes to other people, so that nobody gets two."""
    chance, names = random.Random(number), itertools.count()
    left = RECIPIENTS // SENDERS
    while left > 0:
        count = min(left, chance.choice([1, 1, 1, 2, 4]))
        kinds = [chance.choice(KINDS)] if count == 1 else [chance.choice(["ok", "gone", "full", "later"])] * count
        to = [f"{kind}-{number}-{next(names)}@example.net" for kind in kinds]
        message = letter(PAGE, html=True, fields=["X-Postmeter-Campaign: spring"])
        with contextlib.suppress(RefusedError, OSError):
            lab.send(message, rcpt_to=to)
            left -= count


def come_back(lab: Lab, tally: Tally) -> None:
    """What people and their servers do once they have the message, while everything goes on being killed."""
    done: set[int] = set()
    until = time.monotonic() + 300
    while lab.postfix.queued() or len(done) < len(lab.sink.deliveries):
        assert time.monotonic() < until, "the queue does not empty"
        for number, delivery in enumerate(list(lab.sink.deliveries)):
            if number not in done:
                done.add(number)
                react(lab, delivery, tally)
        lab.postfix.run("postqueue", "-f")


def react(lab: Lab, delivery: Delivery, tally: Tally) -> None:
    recipient, sender = delivery.rcpt_to[0].decode(), delivery.mail_from.decode()
    kind = recipient.partition("-")[0]
    if kind == "back":
        lab.send(dsn(recipient, to=sender), login="", service="transit", mail_from="", rcpt_to=[sender])
    elif kind == "spam":
        raw = arf(recipient, return_path=sender)
        lab.send(raw, login="", service="transit", mail_from="", rcpt_to=["fbl@example.com"])
    elif kind == "read":
        found = LINK.search(delivery.body.replace(b"=\r\n", b"").replace(b"=3D", b"="))
        assert found, delivery.body
        click(lab, found[1].decode(), tally)


def click(lab: Lab, path: str, tally: Tally) -> None:
    """Until the tracking server has answered; an answer that was lost may have been a click all the same."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        connection = http.client.HTTPConnection("127.0.0.1", lab.postmeter.ports["web"], timeout=20)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.connect()
            tally.doubtful += 1
            connection.request("GET", urllib.parse.urlsplit(path).path, headers={"Host": "click.example.com"})
            if connection.getresponse().status == 302:
                tally.clicked, tally.doubtful = tally.clicked + 1, tally.doubtful - 1
                return
    raise AssertionError("no link leads anywhere")


@contextlib.contextmanager
def killing(lab: Lab) -> Iterator[Counter[str]]:
    """`kill -9` of books, web or a worker of the milter every now and then, until the block ends."""
    stop, killed = threading.Event(), Counter[str]()
    chance = random.Random(11)

    def kill() -> None:
        names = itertools.cycle(["worker", "books", "worker", "web"])
        while not stop.wait(chance.uniform(0.2, 0.8)) or len(killed) < 3:
            name = next(names)
            if name == "worker":
                if workers := lab.postmeter.workers():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(chance.choice(workers), signal.SIGKILL)
            else:
                lab.postmeter.kill(name)
                lab.postmeter.start(name)
            killed[name] += 1

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


def together(jobs: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
        assert not thread.is_alive(), "a sender hangs"


def settle(lab: Lab) -> None:
    """Until nobody waits for anything any more."""
    until = time.monotonic() + 120
    while lab.postfix.queued():
        assert time.monotonic() < until, "the queue does not empty"
        lab.postfix.run("postqueue", "-f")
        time.sleep(0.2)
    agree(lab, lambda: nobody_waits(report(lab)))


def nobody_waits(total: dict[str, Any]) -> None:
    assert total["accepted"] > 0
    assert [total.get(name, 0) for name in ("waiting", "deferred")] == [0, 0]


def agree(lab: Lab, look: Callable[[], None], *, bound: float = 60) -> None:
    """The books may still be reading; what they say in the end counts."""
    until = time.monotonic() + bound
    while True:
        try:
            return look()
        except AssertionError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


# --- what is said about it


def the_journal_agrees(lab: Lab, world: World, delivered: set[str]) -> None:
    untaken = {name for event in lab.postmeter.events("untaken") for name in event["recipients"]}
    accepted = [name for event in lab.postmeter.events() for name in event["recipients"]]
    assert len(accepted) == len(set(accepted))
    assert set(accepted) - untaken == delivered | set(world.refused)
    assert not untaken & delivered
    for kind, expected in (
        ("sent", delivered),
        ("deferred", world.put_off),
        ("bounced", set(world.refused) | of(delivered, "back")),
        ("complained", of(delivered, "spam")),
    ):
        agree(lab, partial(the_events_are, lab, kind, expected))
    hard = {event["recipient"] for event in lab.postmeter.events("bounced") if event["hard"]}
    assert hard == of(world.refused, "gone") | of(delivered, "back")
    assert lab.postmeter.events("unknown") == []


def the_events_are(lab: Lab, kind: str, expected: set[str]) -> None:
    told = [event["recipient"] for event in lab.postmeter.events(kind)]
    assert set(told) == expected, kind
    assert kind == "deferred" or len(told) == len(expected), kind


def the_metrics_agree(lab: Lab, world: World, delivered: set[str]) -> None:
    page = lab.postmeter.metrics()
    back = of(delivered, "back")
    assert page.figure("deliveries_total", status="sent") == len(delivered)
    assert page.figure("deliveries_total", status="bounced") == len(world.refused) + len(back)
    assert page.figure("bounces_total", type="hard") == len(of(world.refused, "gone") | back)
    assert page.figure("bounces_total", type="soft") == len(of(world.refused, "full"))
    assert page.figure("complaints_total") == len(of(delivered, "spam"))


def the_report_agrees(lab: Lab, world: World, delivered: set[str], tally: Tally) -> None:
    total, back = report(lab), of(delivered, "back")
    people = len(of(delivered, "read"))
    hits = total["clicks"]
    assert total["accepted"] == len(delivered) + len(world.refused)
    assert total["delivered"] == len(delivered) - len(back)
    assert total["hard"] == len(of(world.refused, "gone") | back)
    assert total["soft"] == len(of(world.refused, "full"))
    assert total["complained"] == len(of(delivered, "spam"))
    assert sum(total.get(f"clicked_{by}", 0) for by in ("human", "machine", "unsure")) == people == tally.clicked
    assert tally.clicked <= hits <= tally.clicked + tally.doubtful


def of(names: Any, kind: str) -> set[str]:
    return {name for name in names if name.startswith(f"{kind}-")}


def report(lab: Lab) -> dict[str, Any]:
    done = lab.postmeter.run("report", "--since", "2d", "--format", "json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["total"]
    return found
