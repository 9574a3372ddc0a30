"""`mode: observe` on a real Postfix: the journal says what would have been, the mail shows nothing of it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import Any

import pytest

from tests.e2e.conftest import OpenLab
from tests.lab.lab import BOB, Lab, letter
from tests.lab.product import Postmeter

NEWS = letter(
    '<a href="https://shop.example/">shop</a>\r\n', html=True, fields=["List-Unsubscribe: <mailto:leave@example.com>"]
)


@pytest.fixture(scope="module")
def lab(open_lab: OpenLab) -> Lab:
    postmeter = Postmeter(
        {
            "mode": "observe",
            "quota": {
                "limits": ["2 messages/day"],
                "rules": [{"login": BOB, "limits": ["1 message/day"], "over": "hold"}],
            },
            "tracking": {"url": "https://click.example.com"},
        }
    )
    postmeter.key("example.com", "pm")
    postmeter.secrets()
    return open_lab(Lab(postmeter=postmeter))


def events(lab: Lab) -> list[dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(lab.postmeter.state / "journal.db")) as link:
        rows = link.execute("SELECT data FROM events WHERE kind = 'submitted' ORDER BY seq").fetchall()
    return [json.loads(data)["facts"] for (data,) in rows]


def test_what_would_have_been_is_journalled_and_nothing_is_done(lab: Lab) -> None:
    """Two are within the limit, the third would have been refused; all arrive as through Postfix alone."""
    for _ in range(3):
        assert lab.deliver(NEWS).as_sent == lab.deliver_bare(NEWS).as_sent
    first, _, third = (facts["observed"] for facts in events(lab))
    assert first["verdict"] == "accept"
    assert first["signatures"] == ["example.com/pm/rsa-sha256"]
    assert first["links"] == 1
    assert third["verdict"].startswith("451 4.7.1 alice@example.com: 2 of 2 messages in the last day")


def test_figures_count_what_was_done_and_not_what_would_have_been(lab: Lab) -> None:
    lab.postmeter.wait_figure(3, "messages_total", result="observed")
    metrics = lab.postmeter.metrics()
    assert metrics.figure("dkim_signatures_total") == 0
    assert metrics.figure("links_rewritten_total") == 0
    assert metrics.figure("messages_total", result="deferred") == 0


def test_what_would_have_been_held_arrives_and_is_charged(lab: Lab) -> None:
    """It is said to be charged, for it is: outside of what would have been."""
    before = len(events(lab))
    for _ in range(2):
        lab.deliver(letter(sender=BOB), login=BOB)
    told = events(lab)[before:]
    assert [facts["observed"]["verdict"] for facts in told] == ["accept", "hold: quota"]
    assert [facts["charged"] for facts in told] == [[["sender", BOB, "messages", 86_400, 1]]] * 2
    assert b"2 of 1 " in lab.postmeter.run("quota", "show", BOB).stdout
    assert not lab.postfix.queued()
