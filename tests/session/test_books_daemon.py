"""The books' loop, page and view of the host: with real signals, a real socket and a real journal."""

from __future__ import annotations

import http.client
import ipaddress
import os
import signal
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from postmeter.books import disk
from postmeter.books.daemon import Chore, Daemon
from postmeter.books.families import Collector, Scope
from postmeter.books.host import Host
from postmeter.books.page import Page
from postmeter.config.schema import InetAddress
from postmeter.mail.draft import Figure
from postmeter.runtime import heartbeat
from postmeter.runtime.notify import Notifier
from postmeter.runtime.signals import RELOAD, STOP, Signals
from postmeter.store.journal import Journal
from tests.lab.waiting import wait_for

LOCAL = InetAddress("127.0.0.1", 0)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _run(*chores: Chore, reload: object = None, failed: list[str] | None = None) -> None:
    with Signals({*STOP, RELOAD}) as signals:
        Daemon(
            chores,
            reload=reload if callable(reload) else lambda: None,
            failed=(failed if failed is not None else []).append,
            notifier=Notifier(""),
        ).run(signals)


def test_a_chore_with_more_to_do_goes_on_at_once() -> None:
    left = list(range(100))

    def work() -> bool:
        left.pop()
        if not left:
            _stop()
        return bool(left)

    _run(Chore("hits", work, 3600.0))
    assert left == []


def test_a_chore_that_fails_ends_neither_the_others_nor_the_daemon() -> None:
    failed: list[str] = []

    def broken() -> None:
        raise RuntimeError("a bug")

    _run(Chore("broken", broken, 3600.0), Chore("sound", _stop, 3600.0), failed=failed)
    assert failed == ["broken"]


def test_a_reload_brings_other_chores_and_a_bad_one_leaves_the_old() -> None:
    offered: list[list[Chore] | None] = [None, [Chore("new", _stop, 3600.0)]]
    done = []

    def old() -> None:
        done.append("old")
        os.kill(os.getpid(), RELOAD)

    _run(Chore("old", old, 0.0), reload=lambda: offered.pop(0))
    assert done == ["old", "old"]


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page(LOCAL)
    yield page
    page.close()


def _get(page: Page, path: str, *, method: str = "GET", accept: str = "") -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=10)
    connection.request(method, path, headers={"Accept": accept})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.getheader("Content-Type", ""), body


def test_the_page_is_text_or_openmetrics_as_asked(page: Page) -> None:
    page.show(Collector(Scope(), totals=lambda: {("recipients_total", ()): 3}, gauges=dict))
    status, kind, body = _get(page, "/metrics")
    assert (status, kind.split(";")[0]) == (200, "text/plain")
    assert b"postmeter_recipients_total 3.0\n" in body
    _, kind, body = _get(page, "/metrics?x=1", accept="application/openmetrics-text; version=1.0.0")
    assert kind.split(";")[0] == "application/openmetrics-text"
    assert body.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    "version",
    ["x", '"1.0.0"', "", "1.0.0.x", "2.0.x", "1.0.0.0\r\n Set-Cookie: x", "1.0.0\xa0", "1..0", "1" * 5000, "1.0.;q=1",
     "1.0. , */*"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["application/openmetrics-text", "text/plain"])
def test_a_version_that_is_none_is_answered_all_the_same(page: Page, kind: str, version: str) -> None:
    """And never repeated: prometheus_client writes it into the answer's header, or fails over it."""
    page.show(Collector(Scope(), totals=dict, gauges=dict))
    status, said, body = _get(page, "/metrics", accept=f"{kind}; version={version}")
    assert (status, said.split(";")[0]) == (200, kind if version == "" else "text/plain")
    assert "\n" not in said
    assert "\xa0" not in said
    assert b"# TYPE postmeter_recipients" in body


def test_a_target_may_name_its_host(page: Page) -> None:
    """RFC 9112 section 3.2.2."""
    page.show(Collector(Scope(), totals=dict, gauges=dict))
    assert _get(page, f"http://127.0.0.1:{page.port}/metrics?x=1")[0] == 200
    assert _get(page, f"HTTP://mail.example.com:{page.port}/metrics", method="HEAD")[0] == 200
    for other in ("http://mail.example.com", "http://mail.example.com?/metrics", "http:///metrics", "ftp://a/metrics"):
        assert _get(page, other)[0] == 404


def test_nothing_else_is_served(page: Page) -> None:
    assert _get(page, "/")[0] == 404
    assert _get(page, "/metrics/../etc/passwd")[0] == 404
    assert _get(page, "/metrics", method="POST")[0] == 501
    status, _, body = _get(page, "/metrics", method="HEAD")
    assert (status, body) == (200, b"")


def test_a_failing_collector_fails_one_request_only(page: Page) -> None:
    class Broken:
        def collect(self) -> list[object]:
            raise RuntimeError("a bug")

    page._registry = CollectorRegistry()
    page._registry._collector_to_names[Broken()] = []  # type: ignore[index]
    with pytest.raises((http.client.HTTPException, OSError)):
        _get(page, "/metrics")
    page.show(Collector(Scope(), totals=dict, gauges=dict))
    assert _get(page, "/metrics")[0] == 200


def test_connections_that_ask_nothing_take_no_more_than_some_threads(page: Page) -> None:
    """Or else whoever reaches the page takes every descriptor of the books."""
    before = threading.active_count()
    idle = [socket.create_connection(("127.0.0.1", page.port), timeout=10) for _ in range(64)]
    assert _get(page, "/metrics")[0] == 200
    wait_for(lambda: threading.active_count() - before <= 51, within=5)
    for link in idle:
        link.close()


def test_it_may_listen_at_an_address_of_one_link() -> None:
    """Such as a bridge's: fe80:: is on each link, and `%eth0` says on which (RFC 4007 section 11)."""
    for line in Path("/proc/net/if_inet6").read_text("ascii").splitlines():
        if line.startswith("fe80"):
            page = Page(InetAddress(f"{ipaddress.IPv6Address(int(line[:32], 16))}%{line.split()[-1]}", 0))
            page.close()


def test_a_port_in_use_is_told_at_once(page: Page) -> None:
    with pytest.raises(OSError, match="in use"):
        Page(InetAddress("127.0.0.1", page.port))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path


def _host(state: Path) -> Host:
    return Host(lambda: Journal(state / "journal.db", readonly=True), state=state, loaded=1000.0)


def test_totals_are_those_of_the_journal_from_any_thread(state: Path) -> None:
    figures: dict[Figure, int] = {("recipients_total", ()): 5}
    Journal(state / "journal.db", host="mx").record((), figures=figures)
    host = _host(state)
    seen: list[object] = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: seen.append(host.totals()))
        thread.start()
        thread.join()
    assert seen == [figures, figures]
    assert host.gauges()["quota_store_up", ()] == 1.0


def test_a_journal_that_is_no_database_is_told_and_not_fatal(state: Path) -> None:
    (state / "journal.db").write_bytes(b"no database at all, but long enough to be looked at" * 100)
    host = _host(state)
    assert host.totals() is None
    assert host.gauges()["quota_store_up", ()] == 0.0


def test_a_locked_journal_can_still_be_read(state: Path) -> None:
    """WAL: readers do not wait for the writer (sqlite.org/wal.html)."""
    Journal(state / "journal.db", host="mx").record((), figures={("recipients_total", ()): 5})
    with sqlite3.connect(state / "journal.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        assert _host(state).totals() == {("recipients_total", ()): 5}


def test_daemons_are_shown_from_their_first_sign_of_life(state: Path) -> None:
    host = _host(state)
    heartbeat.beat(heartbeat.place(state, "web"))
    seen = {labels[0] for name, labels in host.gauges() if name == "daemon_seen_timestamp_seconds"}
    assert seen == {"web"}


def test_a_full_disk_is_warned_of(state: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk.check(state, 1)
    assert caplog.records == []
    disk.check(state, 1 << 60)
    assert "min_free" in caplog.text
