"""A journal that fails while mail comes in: workers old and new go on, and nothing that was accepted is forgotten."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.lab.mta import Mta
from tests.lab.product import Postmeter

pytestmark = pytest.mark.usefixtures("needs_postfix")

ALICE = "alice@example.com"


@pytest.fixture
def postmeter() -> Iterator[Postmeter]:
    milter = {"workers": 1, "drain": "1s", "socket_mode": "0666"}
    postmeter = Postmeter({"milter": milter, "quota": {"limits": ["9 messages/day"]}})
    yield postmeter
    postmeter.close()


@contextmanager
def held(postmeter: Postmeter) -> Iterator[None]:
    """Another program begins to write and does not end."""
    with closing(sqlite3.connect(postmeter.state / "journal.db", isolation_level=None)) as link:
        link.execute("BEGIN IMMEDIATE")
        yield
        link.execute("ROLLBACK")


def send(postmeter: Postmeter, queue_id: str) -> str:
    """The verdict's code for one message."""
    with Mta(Path(postmeter.milter.removeprefix("unix:")), timeout=25) as mta:
        mta.negotiate()
        mta.connect()
        mta.mail(ALICE, login=ALICE)
        mta.rcpt("bob@example.net")
        return mta.message([("From", ALICE.encode())], b"hello\r\n", queue_id=queue_id).verdict.code


def test_a_worker_that_begins_while_the_journal_is_held_serves_like_the_others(postmeter: Postmeter) -> None:
    """After the death of a worker, and after a reload: what waits in the emergency spool is charged and counted."""
    with postmeter:
        with held(postmeter):
            os.kill(postmeter.workers()[0], signal.SIGKILL)
            assert send(postmeter, "killed") == "a"
            postmeter.reload()
            assert send(postmeter, "reloaded") == "a"
        postmeter.wait_figure(2, "messages_total", result="accepted")
        assert {event["queue_id"] for event in postmeter.events()} == {"killed", "reloaded"}


def test_a_journal_that_is_none_keeps_the_milter_from_starting_in_one_clear_line(postmeter: Postmeter) -> None:
    postmeter.write()
    journal = postmeter.state / "journal.db"
    journal.write_text("no database" * 1000)
    journal.chmod(0o666)
    done = postmeter.run("milter")
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    said = f"not started: {journal}: file is not a database; it is no SQLite database: move it away\n"
    assert done.stderr.decode().endswith(said)
