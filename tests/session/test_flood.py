"""A flood of connections: refused at the door, no worker lost, and mail goes again when it is over."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from postmeter.config.schema import Milter, UnixAddress
from postmeter.runtime.listener import Listener, listen
from postmeter.runtime.prefork import Generation, Post, Prefork
from postmeter.submission import door
from postmeter.submission.door import Door
from tests.bench import flood
from tests.lab.waiting import wait_for
from tests.session.conftest import Running


def test_a_flood_ends_at_the_door(running: Running) -> None:
    """200 connections are all that a worker takes; the backlog keeps 1,024 waiting, and the rest is refused.

    Each has begun a packet, so that libmilter waits for its end in a thread; `tests.bench.memory` has silent ones too.
    """
    running.start(max_sessions=50)
    found = flood.flood(running.address, running.workers, 1500, begun=b"\0\0", stays=1.5)
    assert found.refused
    assert found.files <= 200
    assert found.same_workers
    assert found.cpu < 0.9, "accept(2) in vain is a whole CPU"
    assert found.recovered < 10


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Listener]:
    """A listener; and the limit of open files that a door changes is put back."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    made = listen(Milter(listen=UnixAddress(tmp_path / "milter.sock"), socket_group=None))
    yield made
    made.forget()
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.fixture
def dead(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "dead"))
        made.listen()
        yield made


def hold(path: Path) -> socket.socket:
    one = socket.socket(socket.AF_UNIX)
    one.connect(str(path))
    return one


def fill(one: socket.socket) -> list[int]:
    """All descriptors that there may be."""
    files: list[int] = []
    with contextlib.suppress(OSError):
        while True:
            files.append(os.dup(one.fileno()))
    return files


def test_a_full_process_shuts_its_door_and_opens_it_when_a_fifth_has_gone(
    shared: Listener, dead: socket.socket
) -> None:
    fd = shared.socket.dup()
    entrance = Door(fd.fileno(), shared.socket, dead, most=50)
    files = fill(fd)
    assert entrance.look()
    assert not entrance.open
    assert fd.getsockname() == dead.getsockname()
    os.close(os.dup(fd.fileno()))  # there is room for what is no connection
    for one in files[:5]:
        os.close(one)
    assert entrance.look()
    assert not entrance.open
    for one in files[5:]:
        os.close(one)
    assert entrance.look()
    assert entrance.open
    assert fd.getsockname() == shared.socket.getsockname()
    fd.close()


def test_a_session_that_nobody_serves_is_found_by_its_peers_going(
    shared: Listener, dead: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "_SEARCH", 0.0)
    monkeypatch.setattr(door, "FORGOTTEN", 0.05)
    assert shared.path
    fd = shared.socket.dup()
    entrance = Door(fd.fileno(), shared.socket, dead, most=50)
    peer = hold(shared.path)
    served, _ = shared.socket.accept()
    elsewhere, gone = socket.socketpair()
    gone.close()  # not one that came in by our listener
    assert entrance.look()
    time.sleep(0.1)
    assert entrance.look()
    peer.close()
    assert entrance.look(), "a session may be at work while its peer goes"
    time.sleep(0.1)
    assert not entrance.look()
    served.close()
    elsewhere.close()
    assert entrance.look()
    fd.close()


def test_a_worker_that_can_go_on_no_more_is_relieved_while_it_sees_its_sessions_out(tmp_path: Path) -> None:
    """It says so by accepting no more, untold; the parent hires another at once, and tells it to leave."""

    def serve(post: Post) -> None:
        first = not (tmp_path / "first").exists()
        (tmp_path / ("first" if first else "second")).write_text(str(os.getpid()))
        post.ready()
        if first:
            post.left()
            (tmp_path / "told").write_bytes(os.read(post.control, 1))
        signal.pause()

    parent = os.fork()
    if parent == 0:
        os.setpgid(0, 0)
        place = Milter(listen=UnixAddress(tmp_path / "milter.sock"), socket_group=None)
        os._exit(Prefork(listen(place), Generation(serve, 1, 0.1), reload=lambda: None, beat=lambda: None).run())
    try:
        wait_for(lambda: all(path.exists() and path.read_bytes() for path in (tmp_path / "second", tmp_path / "told")))
        first, second = (int((tmp_path / name).read_text()) for name in ("first", "second"))
        os.kill(first, 0)
        assert first != second
        assert (tmp_path / "told").read_bytes() == b"r"
    finally:
        os.kill(parent, signal.SIGTERM)
        for name in ("first", "second"):
            os.kill(int((tmp_path / name).read_text()), signal.SIGKILL)
        os.waitpid(parent, 0)
