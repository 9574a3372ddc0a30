"""Restarts in the middle of traffic: nobody is refused, nothing is lost, nothing leaves unmetered.

The same under a real systemd, with the package: packaging/try-restart.sh.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.conftest import OpenLab
from tests.lab.client import Client, RefusedError
from tests.lab.keeping import Keeping
from tests.lab.lab import ALICE, Lab, attach, letter
from tests.lab.postfix import submission
from tests.lab.product import Postmeter

RESTARTS, FEW = 2, 4  # messages in a session


@pytest.fixture(scope="module")
def lab(open_lab: OpenLab) -> Lab:
    postmeter = Keeping({"milter": {"workers": 2}})
    trusted = submission(attach(postmeter.milter), smtpd_sasl_auth_enable="no")
    return open_lab(Lab(postmeter=postmeter, services=[replace(trusted, name="trusted")]))


def keeper(lab: Lab) -> Keeping:
    assert isinstance(lab.postmeter, Keeping)
    return lab.postmeter


class Traffic:
    """Clients that send without a pause until they are told to stop."""

    def __init__(self, lab: Lab, clients: int) -> None:
        self._lab = lab
        self._over = threading.Event()
        self.sent: list[bytes] = []
        self.refused: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _run(self, number: int) -> None:
        nth = 0
        while not self._over.is_set():
            with self._lab.client() as client:
                for _ in range(FEW):
                    nth += 1
                    self.send(client, f"restart{number}x{nth}@example.net")

    def send(self, client: Client, recipient: str) -> None:
        try:
            client.send(letter(), mail_from=ALICE, rcpt_to=[recipient])
        except (RefusedError, ConnectionError) as error:
            self.refused.append(f"{recipient}: {error}")
        else:
            self.sent.append(recipient.encode())


def test_restarts_under_load_refuse_nothing_and_lose_nothing(lab: Lab) -> None:
    """Sessions of some messages, one that idles through all restarts, and one in the middle of its message."""
    traffic = Traffic(lab, 3)
    with lab.client() as idle, lab.client() as slow:
        traffic.send(idle, "before@example.net")
        slow.command(b"MAIL FROM:<alice@example.com>")
        slow.command(b"RCPT TO:<slow@example.net>")
        for _ in range(RESTARTS):
            keeper(lab).restart()
        assert slow.command(b"DATA").code == 354
        assert slow.command(letter().rstrip(b"\r\n") + b"\r\n.").code == 250
        traffic.sent.append(b"slow@example.net")
        traffic.send(idle, "after@example.net")
    traffic.stop()
    assert traffic.refused == []
    arrived = Counter(delivery.rcpt_to[0] for delivery in lab.sink.wait(len(traffic.sent)))
    assert arrived == Counter(traffic.sent)
    written = Counter(recipient.encode() for event in lab.postmeter.events() for recipient in event["recipients"])
    assert written == arrived
    assert "milter-reject" not in lab.postfix.log()


def test_smtp_source_meets_no_refusal_when_the_parent_is_killed(lab: Lab) -> None:
    """Its socket is kept all the same, and its workers end what they began: a crash of the parent is a restart."""
    before = len(lab.postmeter.events())
    service = f"127.0.0.1:{lab.postfix.ports['trusted']}"
    command = ["smtp-source", "-s", "3", "-m", "60", "-f", ALICE, "-t", "load@example.net", service]
    with ThreadPoolExecutor() as pool:
        sources = [pool.submit(lab.postfix.run, *command) for _ in range(3)]
        keeper(lab).restart(how=signal.SIGKILL)
    assert [(source.result().returncode, source.result().stderr) for source in sources] == [(0, b"")] * 3
    assert len(lab.postmeter.events()) == before + 180


class Copied(Postmeter):
    """Runs from a copy of the program, which may go away under it as an upgrade replaces it."""

    @property
    def program(self) -> Path:
        return self.folder / "program"

    def _environment(self, daemon: str = "") -> dict[str, str]:
        environment = super()._environment(daemon)
        first, _, others = environment["PYTHONPATH"].partition(":")
        if not self.program.exists():
            shutil.copytree(first, self.program)
        return {**environment, "PYTHONPATH": f"{self.program}:{others}"}


@pytest.fixture(scope="module")
def replaced(open_lab: OpenLab) -> Lab:
    tracking = {"url": "https://links.example.com", "opens": True, "unsubscribe": True}
    postmeter = Copied({"milter": {"workers": 2}, "tracking": tracking}, daemons=("milter",))
    postmeter.secrets()
    postmeter.key("example.com", "s1")
    return open_lab(Lab(postmeter=postmeter))


def test_workers_read_nothing_of_the_program_once_they_are_asked_for(replaced: Lab) -> None:
    """Between the new files and the restart an upgrade leaves the old program running without its files."""
    product = replaced.postmeter
    assert isinstance(product, Copied)
    shutil.rmtree(product.program)
    product.program.mkdir()
    fields = ["X-Campaign: spring", "List-Id: Weekly offers <weekly.example.com>"]
    page = letter('<p><a href="https://shop.example/">offers</a></p>\r\n', html=True, fields=fields)
    first = set(product.workers())
    for pid in (0, *first):  # as they were forked, and then such as are forked now
        if pid:
            os.kill(pid, signal.SIGKILL)
            product.wait_until(lambda old=pid: len({*product.workers()} - {old}) == 2)  # type: ignore[misc]
        for _ in range(4):
            delivered = replaced.deliver(page)
            assert delivered.holds(b"DKIM-Signature: ")
            assert delivered.holds(b"List-Unsubscribe-Post: ")
            assert delivered.data.count(b"https://links.example.com/") >= 3  # a link, an open, an unsubscribe
    assert not first & set(product.workers())
    assert "rror" not in product.log()
