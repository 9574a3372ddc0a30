"""Two hosts, each a private Postfix with a postmeter, that ship to one PostgreSQL, which is not always there."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from postmeter.store.shipped import text
from tests.lab.client import RefusedError
from tests.lab.lab import ALICE, Lab, letter
from tests.lab.postgres import Postgres

pytestmark = pytest.mark.usefixtures("needs_postfix", "needs_postgres")

COLUMNS = "seq, host, kind, source, time, reference, queue_id, login, from_domain, data"
AWAY = float(os.environ.get("POSTMETER_AWAY", "6"))
"""Seconds without PostgreSQL: twice the longest time that a writer is ever waited for, or as long as one wants."""

_PAUSE = 0.0 if AWAY < 60 else 0.1  # of a client between two messages: an hour's mail is to be compared in the end


@pytest.fixture(scope="module")
def postgres(needs_postgres: None) -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture(scope="module")
def labs(needs_postfix: None, postgres: Postgres) -> Iterator[list[Lab]]:
    """One reaches PostgreSQL by its unix socket, the other by TCP and with a password."""
    password = postgres.password_file()
    with contextlib.ExitStack() as stack:
        one = Lab({"journal": {"host": "one", "ship_to": postgres.url()}})
        two = Lab({"journal": {"host": "two", "ship_to": postgres.inet}})
        own = two.postmeter.folder / "postgres.password"
        own.write_text(password.read_text())
        own.chmod(0o640)
        shutil.chown(own, two.postmeter.user)
        two.postmeter.settings["journal"]["ship_password_file"] = str(own)
        yield [stack.enter_context(lab) for lab in (one, two)]


def mine(lab: Lab) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(f"file:{lab.postmeter.state / 'journal.db'}?mode=ro", uri=True)) as link:
        return [tuple(map(text, row)) for row in link.execute(f"SELECT {COLUMNS} FROM events ORDER BY seq")]


def theirs(postgres: Postgres, host: str) -> list[tuple[Any, ...]]:
    sql = f"SELECT json_build_array({COLUMNS}) FROM events WHERE host = '{host}' ORDER BY seq"
    return [tuple(json.loads(line)) for [line] in postgres.sql(sql)]


def shipped(labs: list[Lab]) -> None:
    for lab in labs:
        lab.postmeter.wait_figure(0, "ship_lag_events", bound=60 + AWAY)


def send_until(lab: Lab, stop: threading.Event, taken: list[str], slow: list[float]) -> None:
    with lab.client(ALICE) as client:
        while not stop.is_set():
            begun = time.monotonic()
            try:
                client.send(letter(), mail_from=ALICE, rcpt_to=[f"r{len(taken)}@example.net"])
            except RefusedError as refused:
                taken.append(f"refused {refused}")
            else:
                taken.append("taken")
            slow.append(time.monotonic() - begun)
            stop.wait(_PAUSE)


def test_mail_flows_while_postgresql_is_away_and_all_is_shipped_once_in_the_end(
    labs: list[Lab], postgres: Postgres
) -> None:
    """It is stopped, killed and made to hang, and the books are killed, under load on both hosts."""
    chance, stop = random.Random(9), threading.Event()
    told: list[list[str]] = [[], []]
    slow: list[float] = []
    clients = [
        threading.Thread(target=send_until, args=(lab, stop, taken, slow))
        for lab, taken in zip(labs, told, strict=True)
    ]
    for client in clients:
        client.start()
    try:
        for lab in labs:
            lab.postmeter.wait_until(lambda lab=lab: bool(theirs(postgres, _host(lab))))  # type: ignore[misc]
        before = [len(taken) for taken in told]
        postgres.stop()
        until = time.monotonic() + AWAY
        while time.monotonic() < until:
            lab = chance.choice(labs)
            lab.postmeter.kill("books")
            lab.postmeter.start("books")
            time.sleep(AWAY * chance.uniform(0.03, 0.13))  # at any moment
        assert all(len(taken) > count + 10 for taken, count in zip(told, before, strict=True)), "mail waited"
        assert all(lab.postmeter.metrics().figure("ship_lag_events") > 0 for lab in labs)
        postgres.start()
        shipped(labs)
        postgres.kill()
        labs[0].postmeter.kill("books")
        postgres.start()
        labs[0].postmeter.start("books")
    finally:
        stop.set()
        for client in clients:
            client.join(60)
    assert {word for taken in told for word in taken} == {"taken"}
    assert max(slow) < 5, "somebody waited for a database that is not on the road of mail"
    shipped(labs)
    for lab, taken in zip(labs, told, strict=True):
        assert len(lab.postmeter.events()) == len(taken)
        assert theirs(postgres, _host(lab)) == mine(lab)
    assert "wait in the journal" in labs[0].postmeter.log("books") + labs[1].postmeter.log("books")
    assert postgres.sql("SELECT count(*) FROM journals") == [["2"]]


def test_report_and_trace_speak_for_all_hosts(labs: list[Lab], postgres: Postgres) -> None:
    for lab in labs:
        lab.deliver(letter())
    whole = sum(len(event["recipients"]) for lab in labs for event in lab.postmeter.events())
    other = labs[1].postmeter.events()[-1]["queue_id"]

    def reported(lab: Lab, *more: str) -> int:
        found = json.loads(lab.postmeter.run("report", "--format", "json", *more).stdout)
        return int(found["total"]["accepted"])

    labs[0].postmeter.wait_until(lambda: reported(labs[0]) == reported(labs[1]) == whole, bound=60)
    assert reported(labs[0], "--here") + reported(labs[1], "--here") == whole
    assert b"taken by" in labs[0].postmeter.run("trace", other).stdout
    assert labs[0].postmeter.run("trace", other, "--here").returncode == 1
    postgres.stop()
    try:
        failed = labs[0].postmeter.run("trace", other)
        assert failed.returncode == 1
        assert b"--here tells of this host alone" in failed.stderr
    finally:
        postgres.start()


def test_whom_one_host_suppresses_the_other_does_too(labs: list[Lab]) -> None:
    one, two = (lab.postmeter for lab in labs)

    def listed(lab: Any) -> bool:
        return b"eve@example.net" in lab.run("suppress", "list").stdout

    done = one.run("suppress", "add", "eve@example.net", "--scope", "everywhere")
    assert done.returncode == 0, done.stderr
    two.wait_until(lambda: listed(two))
    done = two.run("suppress", "remove", "eve@example.net")
    assert done.returncode == 0, done.stderr
    one.wait_until(lambda: not listed(one))


def _host(lab: Lab) -> str:
    return str(lab.postmeter.settings["journal"]["host"])
