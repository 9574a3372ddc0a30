"""A stolen account on a real Postfix: stopped after a few messages, alone, told of once, and let go by a person."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import pytest

from postmeter.events import Submitted
from postmeter.store.journal import Journal
from tests.lab.client import Answer, RefusedError
from tests.lab.lab import ALICE, BOB, Lab, letter
from tests.lab.product import Postmeter

HERE = "127.0.0.0/24"  # where the lab's clients come from
DAY = 86_400.0


def past(postmeter: Postmeter, *, network: str = HERE) -> None:
    """A month in which alice and bob wrote to the same ten people, in the journal before the brake is switched on."""
    journal = Journal(postmeter.state / "journal.db", host="lab")
    now = time.time()
    journal.record(
        Submitted(
            source=f"eom:{login}:{day}", time=now - day * DAY, queue_id=f"P{day}", reference="", message_id="",
            login=login, sender=login, service="submission", mail_from=login, from_domain="example.com",
            recipients=(f"friend{day % 10}@example.net",), size=500, network=network,
        )
        for day in range(31, 0, -1) for login in (ALICE, BOB)
    )  # fmt: skip
    journal.close()


@contextmanager
def opened(brake: Mapping[str, Any], *, network: str = HERE) -> Iterator[Lab]:
    """A lab whose books have learned."""
    postmeter = Postmeter({"quota": {"brake": brake}, "senders": {"from": {"*": "any"}}})
    past(postmeter, network=network)
    with Lab(postmeter=postmeter) as lab:
        postmeter.wait_until(lambda: _learned(postmeter))
        yield lab


def _learned(postmeter: Postmeter) -> bool:
    with closing(sqlite3.connect(f"file:{postmeter.state}/journal.db?mode=ro", uri=True)) as link:
        return bool(link.execute("SELECT learned FROM profile_house").fetchone()[0])


def steal(lab: Lab, count: int = 30, *, to: str = "stranger", login: str = ALICE) -> tuple[int, list[Answer]]:
    """How many messages were taken, and what the others were told; a connection each, so that all workers have some."""
    taken, told = 0, []
    for nth in range(count):
        try:
            lab.send(letter(sender=login), login=login, rcpt_to=[f"{to}{nth}@example.net"])
            taken += 1
        except RefusedError as refused:
            told.append(refused.answer)
    return taken, told


@pytest.fixture
def lab(needs_postfix: None) -> Iterator[Lab]:
    with opened({"mode": "on"}) as lab:
        yield lab


def test_a_stolen_account_is_stopped_alone_told_of_once_and_let_go(lab: Lab) -> None:
    """19 get out; the thief learns nothing of why, bob sends on; released by a person, alice's mail flows again."""
    taken, told = steal(lab)
    assert taken == 19
    assert {(answer.code, answer.status) for answer in told} == {(451, "4.7.1")}
    assert {answer.text for answer in told} == {
        f"4.7.1 {ALICE} sends unlike ever before and waits for the administrator"
    }
    lab.deliver(letter(sender=BOB), login=BOB)
    [event] = lab.postmeter.events("braked")
    assert (event["login"], event["signs"], event["observed"]) == (ALICE, ["strangers"], False)
    assert "100% of the hour's recipients this login never wrote to before" in event["evidence"]
    lab.postmeter.wait_figure(1, "brake_logins")
    done = lab.as_root("quota", "release", ALICE)
    assert done.returncode == 0, done
    lab.postmeter.wait_until(lambda: steal(lab, 1, to="first") == (1, []))
    assert steal(lab, 25, to="another") == (25, [])
    assert len(lab.postmeter.events("braked")) == 1


def test_many_letters_to_known_people_from_a_known_place_are_no_theft(lab: Lab) -> None:
    lab.send(letter(), rcpt_to=[f"friend{nth}@example.net" for nth in range(10)])
    lab.send(letter(), rcpt_to=[f"friend{nth}@example.net" for nth in range(10)])
    lab.send(letter(), rcpt_to=[f"friend{nth}@example.net" for nth in range(10)])
    assert lab.postmeter.events("braked") == []


def test_known_people_from_a_network_never_seen_are(needs_postfix: None) -> None:
    with opened({"mode": "on"}, network="192.0.2.0/24") as lab:
        lab.send(letter(), rcpt_to=[f"friend{nth}@example.net" for nth in range(10)])
        with pytest.raises(RefusedError) as caught:
            lab.send(letter(), rcpt_to=[f"friend{nth}@example.net" for nth in range(10)])
        assert (caught.value.step, caught.value.answer.code) == ("end of DATA", 451)
        [event] = lab.postmeter.events("braked")
        assert event["signs"] == ["network"]
        assert f"from {HERE}" in event["evidence"]


def test_observing_stops_nothing_and_tells_once(needs_postfix: None) -> None:
    with opened({"mode": "observe"}) as lab:
        assert steal(lab, 60) == (60, [])
        events = lab.postmeter.events("braked")
        assert {event["observed"] for event in events} == {True}
        assert 1 <= len(events) <= 2, "once an hour, and an hour may have ended just now"


def test_held_mail_waits_for_a_person(needs_postfix: None) -> None:
    """`action: hold`: the thief's client is told that all is well; nothing beyond the first 19 leaves."""
    with opened({"mode": "on", "action": "hold"}) as lab:
        assert steal(lab, 25) == (25, [])
        lab.postfix.wait_for(r"(?s)(milter-hold.*){6}")
        lab.postmeter.wait_until(lambda: len(lab.postfix.queued()) == 6)
        assert len(lab.postmeter.events("braked")) == 1
