"""The levels of quotas on a real Postfix: whose limit it was, and files of logins that change while mail flows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.lab.client import RefusedError
from tests.lab.lab import ALICE, BOB, Lab, letter
from tests.lab.product import Postmeter

FROM = {ALICE: ["example.com", "shop.example"]}


def refusal(lab: Lab, login: str, *, author: str = "") -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        lab.send(letter(sender=author or login), login=login)
    return caught.value


def test_a_from_domain_and_the_server_have_limits_besides_the_senders(needs_postfix: None) -> None:
    """One is known at the end of a message, the other at MAIL; neither says whose mail used it up."""
    domains = {"rules": [{"from_domain": "*.example", "limits": ["1 message/day"], "over": "reject"}]}
    quota = {"limits": ["9 messages/day"], "domains": domains, "total": {"limits": ["3 messages/day"]}}
    with Lab({"quota": quota, "senders": {"from": FROM}}) as lab:
        lab.deliver(letter(sender="anne@shop.example"))
        refused = refusal(lab, ALICE, author="anne@shop.example")
        assert (refused.step, refused.answer.code) == ("end of DATA", 550)
        assert "shop.example (From domain): 1 of 1 message in the last day" in refused.answer.text
        lab.deliver(letter())
        lab.deliver(letter())
        refused = refusal(lab, BOB)
        assert (refused.step, refused.answer.code) == ("MAIL", 451)
        assert "this server: 3 of 3 messages in the last day" in refused.answer.text
        assert ALICE not in refused.answer.text
        charged = [event["facts"]["charged"] for event in lab.postmeter.events()]
        assert charged[-1] == [
            ["sender", ALICE, "messages", 86_400, 1],
            ["total", "", "messages", 86_400, 1],
        ]


def test_a_limit_that_only_observes_is_counted_and_refuses_nothing(needs_postfix: None) -> None:
    quota = {"networks": {"limits": ["1 message/day"]}, "over": "observe"}
    with Lab({"quota": quota}) as lab:
        for _ in range(3):
            lab.deliver(letter())
        lab.postmeter.wait_figure(2, "quota_refusals_total", window="day", unit="messages")
        assert "over, and only observed: 127.0.0.0/24 (network): 1 of 1 message in the last day" in lab.postmeter.log()


def names(path: Path, *logins: str) -> None:
    """A list of logins, put in place whole, and not written just now."""
    new = path.with_name("new")
    new.write_text("".join(f"{login}\n" for login in ("# careful with these", *logins)))
    os.utime(new, (0, 0))
    new.replace(path)


def test_a_file_of_logins_takes_effect_while_mail_flows(needs_postfix: None) -> None:
    postmeter = Postmeter()
    listed = postmeter.folder / "careful"
    names(listed, "somebody@else.example")
    rule = {"logins_file": str(listed), "limits": ["1 message/day"], "over": "reject"}
    postmeter.settings["quota"] = {"rules": [rule]}
    with Lab(postmeter=postmeter) as lab:

        def taken() -> bool:
            try:
                lab.send(letter())
            except RefusedError:
                return False
            return True

        assert taken()
        assert taken()
        names(listed, "alice@*")
        postmeter.wait_until(lambda: not taken())
        assert "550 5.7.1" in str(refusal(lab, ALICE))
        names(listed, "*@else.example")
        postmeter.wait_until(taken)
