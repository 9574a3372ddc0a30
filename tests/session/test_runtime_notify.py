"""Notices to systemd, read back from a real datagram socket; and files that say when a daemon was last seen."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from postmeter.runtime import heartbeat
from postmeter.runtime.notify import Notifier, watchdog_interval
from postmeter.runtime.signals import RELOAD, Signals


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def test_each_notice_is_what_sd_notify_expects(systemd: socket.socket) -> None:
    notifier = Notifier(systemd.getsockname(), monotonic=lambda: 12.5)
    notifier.ready("4 workers\nFDSTORE=1")
    notifier.reloading()
    notifier.stopping()
    notifier.status("draining")
    notifier.watchdog()
    notifier.extend(60)
    assert [systemd.recv(1000).decode() for _ in range(6)] == [
        "READY=1\nSTATUS=4 workers FDSTORE=1",
        "RELOADING=1\nMONOTONIC_USEC=12500000",
        "STOPPING=1",
        "STATUS=draining",
        "WATCHDOG=1",
        "EXTEND_TIMEOUT_USEC=60000000",
    ]


def test_an_abstract_address_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0postmeter-test-{os.getpid()}")
        sock.setblocking(False)
        Notifier.from_environment({"NOTIFY_SOCKET": f"@postmeter-test-{os.getpid()}"}).ready()
        assert sock.recv(100) == b"READY=1"


_PARENT = """
import os, socket, time
from postmeter.runtime.listener import Listener
from postmeter.runtime.prefork import Generation, Prefork

def serve(post):
    post.ready()
    os.read(post.control, 1)

generation = Generation(serve, 1, 1.0)
Prefork(Listener(socket.socket()), generation, reload=lambda: generation, beat=lambda: None).run()
"""


def said_by_a_parent(systemd: socket.socket, more: dict[str, str]) -> list[bytes]:
    """From its start to its end, a second of service in between."""
    environment = {"NOTIFY_SOCKET": systemd.getsockname(), "PYTHONPATH": os.pathsep.join(sys.path), **more}
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], env=environment)
    systemd.settimeout(10)
    told = [systemd.recv(1000)]
    while not told[-1].startswith(b"READY=1"):
        told.append(systemd.recv(1000))
    if more:
        told.append(systemd.recv(1000))
    parent.terminate()
    assert parent.wait(10) == 0
    systemd.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            told.append(systemd.recv(1000))
    return told


def test_a_parent_of_workers_feeds_the_watchdog_that_is_set(systemd: socket.socket) -> None:
    """And says nothing of it where none is: what else it says is read by others in its order."""
    plain = said_by_a_parent(systemd, {})
    assert plain == [b"READY=1\nSTATUS=1 workers", b"STOPPING=1"]
    watched = said_by_a_parent(systemd, {"WATCHDOG_USEC": "3000000"})
    assert watched[watched.index(plain[0]) + 1] == b"WATCHDOG=1"
    assert [notice for notice in watched if notice != b"WATCHDOG=1"] == plain


@pytest.mark.parametrize("address", ["", "/nonexistent/notify", "relative"])
def test_nobody_to_tell_is_no_failure(address: str) -> None:
    Notifier(address).ready("ok")


def test_the_watchdog_is_fed_twice_as_often_as_asked() -> None:
    assert watchdog_interval({"WATCHDOG_USEC": "30000000"}, 7) == 15.0
    assert watchdog_interval({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 7) == 15.0
    assert watchdog_interval({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, 7) is None
    assert watchdog_interval({}, 7) is None


def test_a_signal_sent_between_two_waits_is_not_lost() -> None:
    with Signals({RELOAD}) as signals:
        os.kill(os.getpid(), RELOAD)
        assert signals.wait(5.0) is RELOAD
        assert signals.wait(0.0) is None


def test_a_child_that_releases_dies_of_the_signal_again() -> None:
    with Signals({signal.SIGTERM}) as signals:
        pid = os.fork()
        if pid == 0:
            signals.release()
            signal.pause()
            os._exit(1)
        os.kill(pid, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM


def test_a_beat_is_seen_and_silence_is_none(tmp_path: Path) -> None:
    path = heartbeat.place(tmp_path, "milter")
    assert heartbeat.last_beat(path) is None
    heartbeat.beat(path)
    os.utime(path, (1.0, 1.0))
    heartbeat.beat(path)
    seen = heartbeat.last_beat(path)
    assert seen is not None
    assert abs(seen - time.time()) < 60


def test_a_beat_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "seen").write_text("a file where a folder should be")
    heartbeat.beat(heartbeat.place(tmp_path, "milter"))
