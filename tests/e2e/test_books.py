"""The books and the supervisor as processes: what they survive, how they end, what a wrong configuration does."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.lab.ports import free_port
from tests.lab.product import Postmeter

# The daemons run as nobody, in the group of Postfix: what a private Postfix needs, they need.
pytestmark = pytest.mark.usefixtures("needs_postfix")


@pytest.fixture
def books() -> Iterator[Postmeter]:
    """Alone: it makes the journal that is not there yet."""
    with Postmeter(daemons=("books",)) as postmeter:
        postmeter.wait_figure(1, "quota_store_up")
        yield postmeter


def test_a_stop_is_orderly(books: Postmeter) -> None:
    assert books.stop("books") == 0


def test_a_locked_journal_is_waited_for(books: Postmeter) -> None:
    """Totals can be read while another program holds the lock to write, and a stop is still quick."""
    with sqlite3.connect(books.state / "journal.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        assert books.metrics().figure("quota_store_up") == 1
        assert "postmeter_recipients_total" in books.page()
        assert books.stop("books") == 0


def test_a_journal_that_is_gone_is_told_and_found_again(books: Postmeter) -> None:
    database = books.state / "journal.db"
    aside = books.state / "aside.db"
    database.rename(aside)
    database.mkdir()
    books.wait_figure(0, "quota_store_up")
    assert "postmeter_recipients_total" not in books.page()
    database.rmdir()
    aside.rename(database)
    books.wait_figure(1, "quota_store_up")
    assert "postmeter_recipients_total" in books.page()


def test_a_reload_moves_the_page_and_a_bad_one_changes_nothing(books: Postmeter) -> None:
    old = books.ports["metrics"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        books.settings["metrics"]["listen"] = f"127.0.0.1:{taken.getsockname()[1]}"
        books.write()
        books.reload("books")
        assert books.metrics().figure("quota_store_up") == 1
        books.wait_for("not reloaded, the old configuration goes on: .*metrics.listen", daemon="books")
    books.ports["metrics"] = taken_no_more = int(books.settings["metrics"]["listen"].rpartition(":")[2])
    books.reload("books")
    assert books.metrics().figure("quota_store_up") == 1
    assert taken_no_more != old
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", old)) != 0


LISTENERS = pytest.mark.parametrize(
    ("section", "key", "scheme"), [("metrics", "listen", ""), ("bounces", "lmtp", "inet:")], ids=["page", "lmtp"]
)


def _set(books: Postmeter, section: str, key: str, value: str) -> None:
    """A reload, and its end."""
    books.settings.setdefault(section, {})[key] = value
    books.write()
    books.reload("books")


def _listens(address: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


@LISTENERS
def test_a_reload_moves_a_listener_to_another_address_of_its_port(
    books: Postmeter, section: str, key: str, scheme: str
) -> None:
    """`0.0.0.0:P` cannot be had while `127.0.0.1:P` is listened at, nor the other way round: also by us."""
    port = books.ports["metrics"] if section == "metrics" else free_port()
    _set(books, section, key, f"{scheme}127.0.0.1:{port}")
    for host, elsewhere in (("0.0.0.0", True), ("127.0.0.1", False), ("[::]", True), ("localhost", False)):
        _set(books, section, key, f"{scheme}{host}:{port}")
        assert (_listens("127.0.0.1", port), _listens("127.0.0.2", port)) == (True, elsewhere), books.log("books")
    assert "not reloaded" not in books.log("books")
    assert books.metrics().figure("quota_store_up") == 1


@LISTENERS
def test_a_listener_that_cannot_move_within_its_port_stays(
    books: Postmeter, section: str, key: str, scheme: str
) -> None:
    port = books.ports["metrics"] if section == "metrics" else free_port()
    _set(books, section, key, f"{scheme}127.0.0.1:{port}")
    with socket.create_server(("127.0.0.2", port)):
        _set(books, section, key, f"{scheme}0.0.0.0:{port}")
        books.wait_for(rf"not reloaded, .*{section}.{key}: 0.0.0.0:{port} is in use", daemon="books")
    assert (_listens("127.0.0.1", port), _listens("127.0.0.2", port)) == (True, False)
    assert books.metrics().figure("quota_store_up") == 1


@pytest.mark.parametrize("bad", ["page", "lmtp"])
def test_of_two_listeners_none_moves_where_one_cannot(books: Postmeter, bad: str) -> None:
    old = {"page": books.ports["metrics"], "lmtp": free_port()}
    _set(books, "bounces", "lmtp", f"inet:127.0.0.1:{old['lmtp']}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        new = {"page": free_port(), "lmtp": free_port(), bad: int(taken.getsockname()[1])}
        books.settings["metrics"]["listen"] = f"127.0.0.1:{new['page']}"
        _set(books, "bounces", "lmtp", f"inet:127.0.0.1:{new['lmtp']}")
        books.wait_for(rf"not reloaded, .*127.0.0.1:{new[bad]} is in use", daemon="books")
        del new[bad]
        assert all(_listens("127.0.0.1", port) for port in old.values())
        assert not any(_listens("127.0.0.1", port) for port in new.values())
        assert books.metrics().figure("quota_store_up") == 1


def test_a_port_in_use_is_one_line_and_78(books: Postmeter) -> None:
    second = subprocess.run(
        books.command("books"), env=books._environment(), capture_output=True, text=True, timeout=30, check=False
    )
    assert second.returncode == 78
    (line,) = second.stderr.splitlines()
    assert f"metrics.listen: 127.0.0.1:{books.ports['metrics']} is in use; " in line
    assert line.startswith(f"{books.config}:")


@pytest.fixture
def running() -> Iterator[Postmeter]:
    with Postmeter(daemons=("run",), inet=True) as postmeter:
        yield postmeter


def _child(postmeter: Postmeter, name: str) -> int:
    """The process of a daemon below the supervisor."""
    supervisor = postmeter.processes["run"].pid
    with open(f"/proc/{supervisor}/task/{supervisor}/children") as file:
        for pid in map(int, file.read().split()):
            with open(f"/proc/{pid}/cmdline") as line:
                if name in line.read().split("\0"):
                    return pid
    raise AssertionError(f"no {name} below the supervisor")


def test_run_starts_again_what_died(running: Postmeter) -> None:
    before = _child(running, "books")
    os.kill(before, signal.SIGKILL)
    running.wait_for("books ended by SIGKILL; again in 1.0 s", daemon="run")
    running.wait_for(rf"books\[(?!{before}\])\d+\]: figures at", daemon="run")
    assert running.metrics().figure("quota_store_up") == 1


def test_ctrl_c_ends_run_and_all_below(running: Postmeter) -> None:
    assert running.stop("run", how=signal.SIGINT) == 0
    assert running.pids() == []


def test_nobody_survives_a_killed_supervisor(running: Postmeter) -> None:
    running.kill("run")
    until = time.monotonic() + 20
    while running.pids():
        assert time.monotonic() < until, running.pids()
        time.sleep(0.05)


def test_run_passes_a_reload_on(running: Postmeter) -> None:
    running.reload("run")
    running.wait_for(r"milter\[\d+\]: reloaded", daemon="run")
    running.wait_for(r"books\[\d+\]: reloaded", daemon="run")


def test_run_has_the_tracking_server_where_links_are_tracked() -> None:
    """All three are seen alive on the page, as far as the tracking server's user can write; a reload reaches it too."""
    postmeter = Postmeter({"tracking": {"url": "https://click.example.com"}}, daemons=("run",), inet=True)
    postmeter.secrets()
    with postmeter:
        assert postmeter.page("/healthz", port="web")
        for daemon in ("milter", "web", "books"):
            seen = postmeter.metrics().figure("daemon_seen_timestamp_seconds", daemon=daemon)
            assert abs(seen - time.time()) < 60, daemon
        postmeter.reload("run")
        postmeter.wait_for(r"web\[\d+\]: reloaded: 1 new workers", daemon="run")
        assert postmeter.stop("run") == 0
        assert postmeter.pids() == []


def test_a_child_with_a_wrong_configuration_ends_run() -> None:
    """A port in use shows only when the child binds it; its one line is told, and nobody tries for ever."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        postmeter = Postmeter({"metrics": {"listen": listen}}, daemons=("run",), inet=True)
        with pytest.raises(RuntimeError, match=r"metrics\.listen: 127.0.0.1:\d+ is in use; "), postmeter:
            pass
