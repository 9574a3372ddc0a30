"""`postmeter explain` says beforehand what a real Postfix then delivers."""

from __future__ import annotations

import json
import re

import pytest

from tests.e2e.conftest import OpenLab
from tests.lab.lab import ALICE, Lab, letter
from tests.lab.product import Postmeter

NEWS = letter(
    '<p><a href="https://shop.example/?a=1&amp;b=2">offers</a> <a href="mailto:x@y.example">write</a></p>\r\n',
    html=True,
    fields=["List-Unsubscribe: <mailto:leave@example.com>"],
)
CHANGING = re.compile(r"/c/[A-Za-z0-9_-]+|\b(?:bh?|t)=[^;]*|(?<=^\+ )[A-Za-z0-9+/=]{20,}$", re.MULTILINE)


@pytest.fixture(scope="module")
def lab(open_lab: OpenLab) -> Lab:
    postmeter = Postmeter(
        {"quota": {"limits": ["1000 messages/day", "3 recipients/message"]}, "tracking": {"url": "https://c.example"}}
    )
    postmeter.key("example.com", "pm")
    postmeter.secrets()
    return open_lab(Lab(postmeter=postmeter))


def explain(lab: Lab, message: bytes, *arguments: str) -> tuple[int, str]:
    done = lab.postmeter.run("explain", "-", "--login", ALICE, *arguments, stdin=message)
    assert not done.stderr, done.stderr.decode()
    return done.returncode, done.stdout.decode()


def used(lab: Lab) -> list[object]:
    return [row["used"] for row in json.loads(lab.postmeter.run("quota", "show", "--json").stdout)["accounts"]]


def steady(diff: str) -> str:
    """A diff without what differs from one message to the next: tokens, time and signature."""
    return CHANGING.sub("…", diff)


def test_its_diff_is_what_the_sink_gets(lab: Lab) -> None:
    """The same lines go and come, but for tokens and signature, which are made anew for each message."""
    told = json.loads(explain(lab, NEWS, "--rcpt", "reader@example.net", "--diff", "--json")[1])
    assert told["verdict"] == "accept"
    arrived = lab.deliver(NEWS)
    received = re.compile(rb"(?m)^Received:.*\r\n(?:[ \t].*\r\n)*")
    after = received.sub(b"", arrived.data, count=1).decode().replace("\r\n", "\n").splitlines()
    added = [line[1:] for line in told["diff"].splitlines()[2:] if line.startswith("+")]
    before = NEWS.decode().replace("\r\n", "\n").splitlines()
    new = [line for line in after if line not in before]
    assert [steady(f"+{line}") for line in new] == [steady(f"+{line}") for line in added]
    assert len([line for line in added if "/c/" in line]) == 1


def test_it_changes_nothing(lab: Lab) -> None:
    """No charge, no event, no figure."""
    before = used(lab)
    figures = str(lab.postmeter.metrics().figure("messages_total"))
    for _ in range(3):
        explain(lab, NEWS, "--rcpt", "reader@example.net")
    assert used(lab) == before
    assert str(lab.postmeter.metrics().figure("messages_total")) == figures


def test_a_refusal_is_told_with_its_reply_and_exit_code(lab: Lab) -> None:
    four = [word for nth in range(4) for word in ("--rcpt", f"r{nth}@example.net")]
    code, text = explain(lab, NEWS, *four)
    assert code == 1
    assert "Refused: 550 5.5.3" in text


def test_mail_that_is_not_ours_is_said_to_pass(lab: Lab) -> None:
    done = lab.postmeter.run("explain", "-", "--client", "192.0.2.1", "--rcpt", "r@example.net", stdin=NEWS)
    assert done.returncode == 0
    assert "not ours" in done.stdout.decode()


def test_people_are_told_why(lab: Lab) -> None:
    text = explain(lab, NEWS, "--rcpt", "reader@example.net")[1]
    assert "1 link tracked in part 1" in text
    assert "signed by example.com/pm/rsa-sha256" in text
    assert text.rstrip().endswith("Accepted.")
