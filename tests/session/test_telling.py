"""Notices and webhooks as threads of the books: what a reload changes, what an end waits for, what is tidied up."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from postmeter.books.apart import Apart
from postmeter.cli.keeping import Books
from postmeter.cli.telling import Telling, tidy
from postmeter.config.load import load_with_lines, loads
from postmeter.config.schema import Config
from postmeter.runtime.notify import Notifier
from postmeter.store import accounting
from postmeter.store.accounts import Charge
from postmeter.store.journal import Journal
from tests.lab.redis import Redis
from tests.lab.sink import Sink
from tests.lab.waiting import wait_for
from tests.session.test_notices import warned


def config(folder: Path, port: int, *, to: str = "", hooks: str = "[]") -> Config:
    return loads(
        f"journal: {{path: {folder}/journal.db}}\nnotify: {{smtp: '127.0.0.1:{port}'}}\n"
        f"quota: {{warn_to: [{to}]}}\nwebhooks: {hooks}\n"
    )


def there_is_room(charges: Sequence[Charge], now: float) -> None:
    """What a store says of a charge that fits."""


@pytest.fixture
def telling() -> Iterator[Telling]:
    telling = Telling(failed=lambda chore: None)
    yield telling
    telling.close()


def wait_for_positions(journal: Journal, *names: str) -> None:
    wait_for(lambda: set(journal.positions()) == set(names))


def test_a_reload_tells_others_from_then_on_and_nobody_twice(tmp_path: Path, telling: Telling) -> None:
    journal = Journal(tmp_path / "journal.db")
    with Sink() as sink:
        telling.take(config(tmp_path, sink.port, to="a@example.com"), host="mx", check=there_is_room)
        wait_for_positions(journal, "notices")
        journal.record([warned()])
        sink.wait_for(b"a@example.com")
        wait_for(lambda: bool(journal.database.query("SELECT 1 FROM told")))
        telling.take(config(tmp_path, sink.port, to="b@example.com"), host="mx", check=there_is_room)
        with journal.database.transaction() as link:
            link.execute("DELETE FROM told")  # as if ten minutes had passed
        journal.record([warned("bob@example.com")])
        sink.wait_for(b"b@example.com")
        assert [delivery.rcpt_to for delivery in sink.deliveries] == [(b"a@example.com",), (b"b@example.com",)]


def test_what_nobody_is_told_of_any_more_leaves_no_position(tmp_path: Path, telling: Telling) -> None:
    journal = Journal(tmp_path / "journal.db")
    hooks = "[{url: 'http://127.0.0.1:1/', events: [clicked]}]"
    both = config(tmp_path, 1, to="a@example.com", hooks=hooks)
    telling.take(both, host="mx", check=there_is_room)
    wait_for_positions(journal, "notices", "webhook:http://127.0.0.1:1/")
    tidy(both, journal)
    assert len(journal.positions()) == 2
    telling.close()
    tidy(config(tmp_path, 1), journal)
    assert journal.positions() == {}


def test_an_end_does_not_wait_for_a_server_that_says_nothing(tmp_path: Path, telling: Telling) -> None:
    journal = Journal(tmp_path / "journal.db")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        telling.take(config(tmp_path, silent.getsockname()[1], to="a@example.com"), host="mx", check=there_is_room)
        wait_for_positions(journal, "notices")
        journal.record([warned()])
        link, _ = silent.accept()
        begin = time.monotonic()
        telling.close()
        assert time.monotonic() - begin < 1.5
        link.close()


class Piece:
    """Work that a test holds up; counts how many do it at a time."""

    busy = 0
    most = 0

    def __init__(self, hold: threading.Event) -> None:
        self._hold = hold
        self.began = threading.Event()

    def work(self) -> bool:
        Piece.busy += 1
        Piece.most = max(Piece.most, Piece.busy)
        self.began.set()
        self._hold.wait(10)
        Piece.busy -= 1
        return False

    def close(self) -> None:
        pass


def test_a_successor_begins_when_its_predecessor_has_ended() -> None:
    hold = threading.Event()
    first, second = Piece(hold), Piece(hold)
    old = Apart("old", lambda: first, failed=print)
    assert first.began.wait(10)
    old.stop()
    new = Apart("new", lambda: second, failed=print, after=old)
    assert not second.began.wait(0.1)
    hold.set()
    assert second.began.wait(10)
    new.stop()
    new.join(time.monotonic() + 10)
    assert Piece.most == 1


def test_what_cannot_begin_is_counted_and_tried_again() -> None:
    done, hold = threading.Event(), threading.Event()
    failed: list[str] = []
    hold.set()

    def make() -> Piece:
        if len(failed) < 3:
            raise OSError("not yet")
        done.set()
        return Piece(hold)

    apart = Apart("hook", make, failed=failed.append, every=0.01)
    assert done.wait(10)
    apart.stop()
    apart.join(time.monotonic() + 10)
    assert failed == ["hook"] * 3


@pytest.mark.usefixtures("needs_redis")
def test_a_letter_says_when_there_is_room_where_quotas_are_in_redis(tmp_path: Path) -> None:
    """`books` asks the store that keeps them: the journal's own accounts are empty there."""
    with Redis() as redis, Sink() as sink:
        file = tmp_path / "postmeter.yaml"
        file.write_text(
            f"journal: {{path: {tmp_path}/journal.db}}\nnotify: {{smtp: '127.0.0.1:{sink.port}'}}\n"
            f"metrics: {{listen: null}}\nquota: {{warn_to: [a@example.com], store: '{redis.unix}'}}\n"
        )
        loaded = load_with_lines(file)
        ledger = accounting.redis(loaded.config.quota)
        assert ledger is not None
        ledger.settle([full_account()], time.time())
        books = Books(loaded, file, Notifier(""))
        try:
            journal = Journal(tmp_path / "journal.db")
            wait_for_positions(journal, "notices")
            journal.record([warned(percent=100)])
            assert b"There is room again on " in sink.wait_for(b"a@example.com").data
            journal.close()
        finally:
            books.close()
            ledger.close()


def full_account() -> Charge:
    event = warned(percent=100)
    return Charge(
        key=event.key, unit=event.unit, window=event.window, limit=event.limit, amount=event.limit, text=event.text
    )
