"""A person is erased while the daemons run and mail goes on: no file below the state directory holds the address."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import OpenLab
from tests.lab.lab import BOB, Lab, attach, letter
from tests.lab.postfix import Service
from tests.lab.product import Postmeter

GONE, OTHER = "Erin.Gone@example.net", "other@example.net"
BULK = ("X-Campaign: spring", "Message-ID: <for.erin.gone=example.net@example.com>")


@pytest.fixture(scope="module")
def lab(open_lab: OpenLab) -> Lab:
    """The books read the log; the sink knows nobody of that name; reports to senders go out by port 25."""
    postmeter = Postmeter({"suppression": {"observe": False}, "quota": {"limits": ["100000 recipients/hour"]}})
    port25 = Service(
        name="port25", settings={"smtpd_milters": attach(postmeter.milter), "smtpd_sasl_auth_enable": "no"}
    )
    lab = Lab(postmeter=postmeter, services=[port25])
    postmeter.settings["delivery"] = {"log": str(lab.postfix.log_file)}
    postmeter.settings["notify"] = {"smtp": f"127.0.0.1:{lab.postfix.ports['port25']}", "from": "pm@example.com"}
    lab.sink.answer = lambda rcpt: f"550 5.1.1 <{rcpt.decode()}> no such user" if b"erin" in rcpt.lower() else "250 ok"
    return open_lab(lab)


def codings(address: str) -> Iterator[bytes]:
    """As it may stand in a file, in lower case: itself, in a URL, quoted-printable, in base64 at any offset; or but the
    name, in whatever marks."""
    yield address.partition("@")[0].lower().encode()
    for sign in ("@", "%40", "=40", "=", "\\u0040"):
        yield address.replace("@", sign).lower().encode()
    for form in (address, address.lower()):
        for lead in range(3):
            whole = base64.b64encode(b" " * lead + form.encode())
            yield whole[4 if lead else 0 : -4].lower()


def holding(folder: Path, address: str) -> list[tuple[str, bytes]]:
    found = []
    for path in (one for one in folder.rglob("*") if one.is_file()):
        with contextlib.suppress(FileNotFoundError):
            octets = path.read_bytes().lower()
            found += [(path.name, coding) for coding in codings(address) if coding in octets]
    return found


def rows(lab: Lab, sql: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(f"file:{lab.postmeter.state / 'journal.db'}?mode=ro", uri=True)) as link:
        return [row[0] for row in link.execute(sql)]


def erase(lab: Lab) -> subprocess.CompletedProcess[bytes]:
    return lab.postmeter.run("erase", GONE)


def test_who_is_erased_is_in_no_file_while_mail_goes_on(lab: Lab) -> None:
    """Bounced, suppressed by that, removed, reported to the sender; then erased, and still not written to."""
    for number in (1, 2):
        lab.send(letter(fields=BULK), rcpt_to=[GONE, OTHER])
        lab.postmeter.wait_until(
            lambda number=number: rows(lab, "SELECT count(*) FROM events WHERE kind = 'bounced'") == [number]  # type: ignore[misc]
        )
    lab.postmeter.wait_until(lambda: rows(lab, "SELECT count(*) FROM suppressions") == [1])
    lab.send(letter(fields=BULK), rcpt_to=['"erin.gone"@example.net', OTHER])
    lab.postmeter.wait_until(lambda: rows(lab, "SELECT count(*) FROM events WHERE kind = 'suppressed'") == [1])
    lab.postmeter.wait_until(lambda: rows(lab, "SELECT count(*) FROM outbox") == [0])
    assert holding(lab.postmeter.state, GONE)
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            lab.send(letter(sender=BOB), login=BOB, rcpt_to=[OTHER])

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        until = time.monotonic() + 60.0
        while (done := erase(lab)).returncode:
            assert time.monotonic() < until, done.stderr
            time.sleep(1.0)  # a bounded wait: what is in the queue leaves it
        left = holding(lab.postmeter.state, GONE)
    finally:
        stop.set()
        thread.join()
    assert left == [], done.stdout
    assert re.search(rb"erin.gone@example.net is hash:[0-9a-f]{32} now", done.stdout)
    assert len(rows(lab, "SELECT address FROM suppressions WHERE address LIKE 'hash:%'")) == 1
    lab.send(letter(fields=BULK), rcpt_to=["ERIN.GONE@example.net", OTHER])
    lab.postmeter.wait_until(lambda: rows(lab, "SELECT count(*) FROM events WHERE kind = 'suppressed'") == [2])
    facts = [json.loads(data) for data in rows(lab, "SELECT data FROM events WHERE kind = 'bounced'")]
    assert [one["hard"] for one in facts] == [True, True]
