"""A reload in the middle of traffic: nobody is refused, nothing is lost, the new configuration holds afterwards."""

from __future__ import annotations

import threading

import pytest

from tests.e2e.conftest import OpenLab
from tests.lab.client import Client, RefusedError
from tests.lab.lab import ALICE, BOB, Lab, letter
from tests.lab.postfix import LOGINS

CLIENTS, MESSAGES, RELOADS = 6, 20, 4


@pytest.fixture(scope="module")
def lab(open_lab: OpenLab) -> Lab:
    return open_lab(Lab({"milter": {"workers": 2, "drain": "20s"}}))


def test_a_reload_under_load_refuses_nothing_and_loses_nothing(lab: Lab) -> None:
    """Every message is answered 250, arrives once, and is in the figures once."""
    refused: list[str] = []
    threads = [threading.Thread(target=send_many, args=(lab, number, refused)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for _ in range(RELOADS):
        lab.postmeter.reload()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert refused == []
    arrived = [delivery.rcpt_to[0] for delivery in lab.sink.wait(CLIENTS * MESSAGES)]
    assert sorted(arrived) == sorted(recipient(n, m).encode() for n in range(CLIENTS) for m in range(MESSAGES))
    lab.postmeter.wait_figure(CLIENTS * MESSAGES, "messages_total", result="accepted")


def send_many(lab: Lab, number: int, refused: list[str]) -> None:
    """Four messages a session, as a mail program does that has several to send."""
    for first in range(0, MESSAGES, 4):
        with Client(lab.postfix.ports["submission"], login=(ALICE, LOGINS[ALICE])) as client:
            for nth in range(first, first + 4):
                try:
                    client.send(letter(), mail_from=ALICE, rcpt_to=[recipient(number, nth)])
                except (RefusedError, ConnectionError) as error:
                    refused.append(str(error))


def recipient(client: int, nth: int) -> str:
    return f"reload{client}x{nth}@example.net"


def test_the_new_configuration_holds_after_a_reload(lab: Lab) -> None:
    lab.postmeter.settings["quota"] = {"rules": [{"login": BOB, "limits": ["1 message/day"]}]}
    lab.postmeter.write()
    lab.postmeter.reload()
    lab.send(letter(sender=BOB), login=BOB)
    with pytest.raises(RefusedError, match="1 of 1 message"):
        lab.send(letter(sender=BOB), login=BOB)


def test_a_bad_configuration_changes_nothing(lab: Lab) -> None:
    """It is told with file and line; the old one goes on."""
    good = lab.postmeter.settings
    try:
        lab.postmeter.settings = {**good, "quota": {"limits": ["many messages/day"]}}
        lab.postmeter.write()
        lab.postmeter.reload()
        lab.postmeter.wait_for(r"not reloaded.*postmeter\.yaml:\d+: quota\.limits\[0\]")
    finally:
        lab.postmeter.settings = good
        lab.postmeter.write()
    lab.deliver(letter())


@pytest.mark.parametrize("daemon", ["milter", "books"])
def test_a_reload_changes_the_log_too(lab: Lab, daemon: str) -> None:
    good = lab.postmeter.settings
    try:
        lab.postmeter.settings = {**good, "log": {"format": "json"}}
        lab.postmeter.write()
        lab.postmeter.reload(daemon)
        lab.postmeter.wait_for(rf'^\{{.*"daemon": "{daemon}".*reloaded', daemon=daemon)
    finally:
        lab.postmeter.settings = good
        lab.postmeter.write()
        lab.postmeter.reload(daemon)


def test_what_takes_a_restart_is_said_so(lab: Lab) -> None:
    """A mode that stayed as it was, without a word, would be taken for done."""
    good = lab.postmeter.settings
    try:
        lab.postmeter.settings = {**good, "milter": {**good["milter"], "socket_mode": "0666"}}
        lab.postmeter.write()
        lab.postmeter.reload()
        lab.postmeter.wait_for("not reloaded: milter.listen, its mode and group, .* change by a restart only")
    finally:
        lab.postmeter.settings = good
        lab.postmeter.write()
