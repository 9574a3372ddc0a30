"""What a message asks of the database is found by an index, however much lies in it."""

from __future__ import annotations

import re
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from postmeter.events import Refused, Released
from postmeter.mail.draft import Figure
from postmeter.store import database, held, suppression
from postmeter.store.accounts import Charge, Hold
from postmeter.store.settle import Settler
from postmeter.store.suppression import Lookup, Suppression
from tests.bench.ledger import submitted

NOW = time.time()
ONE = Charge(key="alice", unit="recipients", window=3600, limit=1, amount=1, text="", warn=(50, 100))
CHARGES = (ONE, replace(ONE, level="domain", key="example.com"), replace(ONE, level="total", key=""))
FIGURES: dict[Figure, int] = {("recipients_total", ()): 1}
HOLD = Hold(queue_id="4Q", sender="alice", login="alice", reason="quota", charges=CHARGES, most=2)
REFUSED = Refused(
    source="refused:alice:quota:1", time=NOW, login="alice", sender="alice", service="s", reason="quota", reply="451"
)
RELEASED = Released(
    source="released:4Q:1", time=NOW, queue_id="4Q", login="alice", sender="alice", action="released", by="due"
)
_READS = re.compile(r"(?i)\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b")


def mail(path: Path) -> None:
    """All that may become of a message: taken, settled again, refused, held, released; suppressed recipients."""
    with closing(Settler(path)) as settler, closing(database.open(path)) as book:
        settler.open()
        assert settler.glance(CHARGES, NOW) is None
        for _ in range(2):
            assert settler.settle(CHARGES, submitted("a", 1), FIGURES, NOW).refused is None
        assert settler.check(CHARGES, NOW) is not None
        assert settler.settle(CHARGES, submitted("b", 1), FIGURES, NOW).refused is not None
        settler.settle((), REFUSED, FIGURES, NOW)
        assert not settler.settle((), submitted("c", 1), FIGURES, NOW, hold=HOLD).full
        settler.release(held.waiting(book)[0], RELEASED, NOW + 7200)
        assert settler.knows(RELEASED)
        with book.transaction() as link:
            suppression.add(link, [Suppression("bob@example.net", "everywhere", "manual", NOW)])
        assert Lookup(book, lambda: NOW).find(["bob@example.net"])
        assert len(Lookup(book, lambda: NOW).find(["bob@example.net", "eve@example.net"])) == 1


def test_no_statement_of_a_message_reads_a_table_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that only ask whether a table is empty, and commands that list all, are not asked for a message."""
    said: dict[str, None] = {}
    connect = sqlite3.connect

    def heard(*arguments: Any, **more: Any) -> sqlite3.Connection:
        link: sqlite3.Connection = connect(*arguments, **more)
        link.set_trace_callback(said.setdefault)
        return link

    database.open(tmp_path / "journal.db").close()
    monkeypatch.setattr(sqlite3, "connect", heard)
    mail(tmp_path / "journal.db")
    monkeypatch.undo()
    asked = [sql for sql in said if _READS.match(sql) and not _beside(sql)]
    assert len(asked) > 15
    with closing(connect(tmp_path / "journal.db")) as link:
        plans = {sql: [row[3] for row in link.execute(f"EXPLAIN QUERY PLAN {sql}")] for sql in asked}
    assert {sql: plan for sql, plan in plans.items() if any(map(_reads_all, plan))} == {}


def _reads_all(step: str) -> bool:
    """What was asked for is a table of its own for SQLite."""
    return step.startswith("SCAN") and "json_each" not in step


def _beside(sql: str) -> bool:
    """Asked at the start, once a second, or by this test."""
    return any(word in sql for word in ("migrations", "sqlite_sequence", "EXISTS (SELECT 1", "NOT going", "FROM veil"))
