"""Notices and webhooks of the real daemons: mail of our own through a Postfix whose milter we are."""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.lab import verify
from tests.lab.keys import DkimKey, records
from tests.lab.lab import ALICE, Lab, attach, letter
from tests.lab.postfix import Service
from tests.lab.product import Postmeter

ADMIN = "admin@example.net"
FIELD = b"X-Postmeter-Notice"


class Signing(Lab):
    """A lab that remembers its keys."""

    keys: list[DkimKey]


@pytest.fixture
def lab(needs_postfix: None) -> Iterator[Signing]:
    """Port 25 has the milter too, and takes mail from loopback without a login: our own comes in there."""
    settings = {
        "milter": {"workers": 4},
        "quota": {"limits": ["20 recipients/hour"], "warn_to": [ADMIN]},
        "tracking": {"url": "https://click.example.com", "mail": "all", "links": "html"},
        "notify": {"from": "postmaster@example.com"},
    }
    postmeter = Postmeter(settings)
    postmeter.secrets()
    keys = [postmeter.key("example.com", "r")]
    port25 = Service(name="port25", settings={
        "smtpd_milters": attach(postmeter.milter), "smtpd_sasl_auth_enable": "no",
    })  # fmt: skip
    lab = Signing(postmeter=postmeter, services=[port25])
    lab.keys = keys
    postmeter.settings["notify"]["smtp"] = f"127.0.0.1:{lab.postfix.ports['port25']}"
    with lab:
        yield lab


def query(lab: Lab, sql: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(f"file:{lab.postmeter.state / 'journal.db'}?mode=ro", uri=True)) as link:
        return link.execute(sql).fetchall()


def told_up_to(lab: Lab) -> int:
    return int((query(lab, "SELECT position FROM positions WHERE name = 'notices'") or [("0",)])[0][0])


def test_a_limit_that_four_workers_fill_is_one_mail_that_is_signed_and_not_charged(
    lab: Signing, needs_verifiers: None
) -> None:
    lab.postmeter.wait_until(lambda: bool(query(lab, "SELECT 1 FROM positions WHERE name = 'notices'")))
    crowd = [threading.Thread(target=lab.send, args=(letter(),)) for _ in range(20)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    notice = lab.sink.wait_for(ADMIN.encode())
    assert f"{ALICE} has used".encode() in notice.body
    assert b"of 20 recipients in the last hour" in notice.body
    assert b"There is still room." in notice.body or b"There is room again on" in notice.body
    assert notice.values(b"Auto-Submitted") == [b"auto-generated"]
    assert notice.values(FIELD) == []
    for verdict in verify.verify_all([notice.data], records(*lab.keys)):
        assert verdict.accepted, verdict

    percents = [event["percent"] for event in lab.postmeter.events("warned")]
    assert sorted(percents) == [80, 100], "once each over all workers"
    last = query(lab, "SELECT max(seq) FROM events WHERE kind = 'warned'")[0][0]
    lab.postmeter.wait_until(lambda: told_up_to(lab) >= last)
    assert [delivery for delivery in lab.sink.deliveries if delivery.holds(ADMIN.encode())] == [notice]

    [own] = [event for event in lab.postmeter.events() if "notice" in event["facts"]]
    assert "charged" not in own["facts"]
    assert query(lab, "SELECT * FROM notice_ids") == []
    assert lab.postmeter.log("books").count("error") == 0


@pytest.mark.parametrize("service", ["port25", "submission"])
def test_a_forged_notice_is_charged_like_any_mail_and_its_field_is_gone(lab: Lab, service: str) -> None:
    forged = letter(fields=["X-Postmeter-Notice: " + "ab" * 16, "x-postmeter-notice: " + "cd" * 16])
    login = ALICE if service == "submission" else ""
    arrived = lab.deliver(forged, service=service, login=login, mail_from=ALICE)
    assert arrived.values(FIELD) == []
    [event] = lab.postmeter.events()
    assert event["facts"]["charged"]
    assert "notice" not in event["facts"]


def test_mail_that_is_not_ours_stays_as_it_is(lab: Lab) -> None:
    foreign = letter(sender="someone@example.org", fields=["X-Postmeter-Notice: " + "ab" * 16])
    arrived = lab.deliver(foreign, service="port25", login="", mail_from="someone@example.org")
    assert arrived.values(FIELD) == [b"ab" * 16]
    assert lab.postmeter.events() == []


class Receiver(ThreadingHTTPServer):
    """Keeps the events of all calls."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Posted)
        self.events: list[dict[str, Any]] = []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class Posted(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.server.events += json.loads(self.rfile.read(int(self.headers["Content-Length"])))["events"]
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.shutdown()
    server.server_close()


def test_a_webhook_that_hangs_holds_up_nobody_and_no_stop(needs_postfix: None, receiver: Receiver) -> None:
    """One url takes connections and never answers: the other gets its events, a reload and a stop are quick."""
    good = {"url": f"http://127.0.0.1:{receiver.server_address[1]}/", "events": ["submitted", "refused"]}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = {"url": f"http://127.0.0.1:{silent.getsockname()[1]}/", "events": ["submitted"]}
        with Lab({"webhooks": [hanging, good]}) as lab:
            hooks = "SELECT count(*) FROM positions WHERE name LIKE 'webhook:%'"
            lab.postmeter.wait_until(lambda: query(lab, hooks) == [(2,)])
            lab.deliver(letter())
            lab.postmeter.wait_until(lambda: len(receiver.events) == 1)
            silent.accept()  # it has called there by now, or is about to
            lab.postmeter.reload("books", bound=2)
            lab.deliver(letter())
            lab.postmeter.wait_until(lambda: len(receiver.events) == 2)
            begin = time.monotonic()
            assert lab.postmeter.stop("books") == 0
            assert time.monotonic() - begin < 2
    assert [event["event"] for event in receiver.events] == ["submitted"] * 2
