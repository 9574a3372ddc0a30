"""A restart: the socket outlives the parent, sessions outlive it too, and a stop is still a stop.

systemd is a datagram socket here, which gets what sd_notify(3) says and hands on what it was given to keep. The real
one tries it in packaging/try-restart.sh.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from postmeter.config.schema import InetAddress, Milter, UnixAddress
from postmeter.runtime.kept import Kept, KeptError, Received
from postmeter.runtime.listener import listen
from postmeter.runtime.notify import Notifier
from postmeter.runtime.prefork import GRACE
from postmeter.submission.pipeline import Stage
from tests.lab.child import code_of
from tests.lab.ports import free_port
from tests.lab.waiting import wait_for
from tests.session.conftest import Running
from tests.session.test_conversation import BODY, FIELDS, refuses_connections, send, sign


class Store:
    """What a service manager keeps of one service."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self._inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._inbox.bind(self.address)
        self._inbox.settimeout(10)
        self.held: dict[str, socket.socket] = {}

    def hear(self, word: str) -> None:
        """Until it has been said; what is to be kept or let go on the way is."""
        while word not in self._next():
            pass

    def _next(self) -> list[str]:
        told, descriptors, _, _ = socket.recv_fds(self._inbox, 4096, 4)
        lines = told.decode().split("\n")
        said = dict(line.split("=", 1) for line in lines)
        if "FDSTORE" in said:
            assert not self.held, "FileDescriptorStoreMax=1"
            self.held[said["FDNAME"]] = socket.socket(fileno=descriptors[0])
        if "FDSTOREREMOVE" in said and (held := self.held.pop(said["FDNAME"], None)):
            held.close()
        return lines

    def kept(self) -> Kept:
        """As the next life is given it."""
        return Kept(Notifier(self.address), [Received(held.dup(), name) for name, held in self.held.items()])

    def close(self) -> None:
        for held in self.held.values():
            held.close()
        self._inbox.close()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    made = Store(tmp_path / "systemd")
    monkeypatch.setenv("NOTIFY_SOCKET", made.address)
    yield made
    made.close()


def begin(running: Running, store: Store) -> None:
    running.start(Stage("sign", sign), kept=store.kept(), workers=2, drain=1.0, linger=60.0)
    store.hear("READY=1")


def hand_over(running: Running) -> list[int]:
    """The workers that stay behind."""
    left = running.workers()
    assert running.stop(signal.SIGUSR2) == 0
    return left


def alive(pid: int) -> bool:
    """A worker without a parent is init's to bury, and here nobody may be: a zombie is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("inet", [False, True])
def test_who_connects_between_two_lives_waits_and_is_served(running: Running, store: Store, inet: bool) -> None:
    if inet:
        running.inet = ("127.0.0.1", free_port())
    begin(running, store)
    left = hand_over(running)
    with running.mta() as mta:  # nobody listens in a process; systemd does
        wait_for(lambda: not any(map(alive, left)))
        running.start(Stage("sign", sign), kept=store.kept(), drain=0.3)  # it inherits our end of that connection
        assert mta.negotiate().code == "O"
        mta.connect()
        assert send(mta) == "a"
    assert running.stop() == 0


def test_a_message_in_progress_is_ended_by_the_worker_that_began_it(running: Running, store: Store) -> None:
    begin(running, store)
    mta = running.session()
    mta.mail("alice@example.com", login="alice@example.com")
    left = hand_over(running)
    mta.rcpt("bob@example.net")
    assert mta.message(FIELDS, BODY).inserted("X-Stamp")
    assert send(mta) == "a"  # and so is the next of that session
    wait_for(lambda: sum(map(alive, left)) == 1)
    mta.close()
    wait_for(lambda: not any(map(alive, left)))


def test_a_stop_refuses_at_once_and_takes_the_socket_out_of_the_store(running: Running, store: Store) -> None:
    begin(running, store)
    (held,) = store.held.values()
    assert held.getsockname() == str(running.address)
    os.kill(running.pid, signal.SIGTERM)
    store.hear(f"EXTEND_TIMEOUT_USEC={int((1.0 + 2 * GRACE) * 1_000_000)}")
    assert not store.held
    assert running.wait() == 0
    assert refuses_connections(running)
    assert not running.address.exists()


def test_a_session_open_at_a_reload_outlives_the_drain_but_not_a_stop(running: Running, store: Store) -> None:
    begin(running, store)
    old = running.workers()
    held = running.session()
    os.kill(running.pid, signal.SIGUSR1)
    store.hear("RELOADING=1")
    store.hear("READY=1")
    wait_for(lambda: len(set(old) & set(running.workers())) == 1)
    with pytest.raises(AssertionError):  # longer than the drain of one second
        wait_for(lambda: not set(old) & set(running.workers()), within=1.5)
    assert send(held) == "a"
    assert running.stop() == 0  # within the drain


def test_a_socket_that_somebody_removed_is_there_again(running: Running, store: Store) -> None:
    """As soon as its directory is; sessions that there are go on."""
    running.address = running.folder / "spool" / "milter.sock"
    running.address.parent.mkdir()
    begin(running, store)
    with running.session() as held:
        (old,), workers = store.held, running.workers()
        shutil.rmtree(running.address.parent)
        with pytest.raises(AssertionError):  # a look is made each second
            wait_for(lambda: running.workers() != workers, within=1.5)
        running.address.parent.mkdir()
        store.hear("READY=1")
        with running.session() as mta:
            assert send(mta) == "a"
        assert send(held) == "a"
    assert len(store.held) == 1
    assert old not in store.held
    assert running.stop() == 0
    assert not running.address.exists()


_FAILS = """
import logging, select, sys
from pathlib import Path
from postmeter.config.schema import Milter, UnixAddress
from postmeter.runtime.kept import NOTHING
from postmeter.runtime.listener import listen
from postmeter.runtime.prefork import Generation, Prefork

logging.basicConfig(level=logging.INFO, format="%(message)s")
folder = Path(sys.argv[1])

def serve(post):
    if (folder / "fail").exists():
        with (folder / "fail").open("a") as file:
            file.write("once more\\n")
        raise RuntimeError("no memory just now")
    post.ready()
    while post.control not in select.select([post.listener, post.control], [], [])[0]:
        post.listener.accept()[0].close()

def broken(post):
    raise RuntimeError("never")

place = Milter(listen=UnixAddress(folder / "s"), socket_group=None)
following = Generation(broken, 1, 0.1)
Prefork(listen(place, NOTHING), Generation(serve, 1, 0.1), reload=lambda: following, beat=lambda: None).run()
"""


class Failing:
    """A parent whose workers cannot start while there is a file `fail`, and that has lost its socket then."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.log: list[str] = []
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", _FAILS, str(folder)]
        self.parent = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, bufsize=0)
        self.read_until("1 workers ready")
        (folder / "fail").touch()
        (folder / "s").unlink()
        self.read_until("ended; replacing it")

    def read_until(self, words: str) -> None:
        assert self.parent.stderr is not None
        self.log.append("…")
        while words not in self.log[-1]:
            assert select.select([self.parent.stderr], [], [], 10)[0], self.log
            self.log.append(self.parent.stderr.readline().decode().strip())
            assert self.log[-1], self.log

    def failures(self) -> int:
        return (self._folder / "fail").read_text().count("\n")

    def recover(self) -> None:
        """Somebody can connect again."""
        (self._folder / "fail").unlink()
        self.read_until("1 workers ready")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(self._folder / "s"))
            assert client.recv(1) == b""

    def stop(self) -> None:
        self.parent.terminate()
        _, rest = self.parent.communicate(timeout=10)
        self.log += rest.decode().splitlines()
        assert self.parent.returncode == 0


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[Failing]:
    made = Failing(tmp_path)
    yield made
    if made.parent.poll() is None:
        made.parent.kill()
        made.parent.communicate()


def test_a_worker_for_the_new_socket_that_cannot_start_is_tried_again(failing: Failing) -> None:
    """There is no older socket to fall back to. Nobody has reloaded anything, and the log does not say so."""
    failing.recover()
    failing.stop()
    assert not [line for line in failing.log if "reloaded" in line]
    assert "listening again: 1 new workers, 1 finish their sessions" in failing.log


def test_a_worker_that_fails_again_and_again_is_told_of_once_a_minute(failing: Failing) -> None:
    """And why. It is tried each second."""
    wait_for(lambda: failing.failures() >= 3)
    failing.recover()
    failing.stop()
    assert sum("worker failed" in line for line in failing.log) == 1
    assert sum("ended; replacing it" in line for line in failing.log) == 1


def test_a_reload_that_fails_meanwhile_falls_back_to_the_new_socket(failing: Failing) -> None:
    """And not to workers on the one that has no name any more."""
    failing.parent.send_signal(signal.SIGUSR1)
    failing.read_until("RuntimeError: never")
    failing.read_until("not reloaded, the old configuration goes on")
    failing.recover()
    failing.stop()


def test_another_s_socket_in_the_place_of_ours_is_left_alone(running: Running) -> None:
    running.start(Stage("sign", sign))
    workers = running.workers()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(running.folder / "other"))
        (running.folder / "other").rename(running.address)
        inode = running.address.stat().st_ino
        with pytest.raises(AssertionError):
            wait_for(lambda: running.workers() != workers, within=2.5)
    assert running.stop() == 0
    assert running.address.stat().st_ino == inode


def test_without_anybody_who_keeps_the_socket_nothing_is_handed_over(running: Running) -> None:
    running.start(Stage("sign", sign))
    os.kill(running.pid, signal.SIGUSR2)
    with running.session() as mta:
        assert send(mta) == "a"
    assert running.stop() == 0


def milter(path: Path) -> Milter:
    return Milter(listen=UnixAddress(path), socket_group=None)


def test_a_listener_that_somebody_left_to_us_is_not_taken_for_libmilters(running: Running, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "other"))
        other.listen()
        running.start(Stage("sign", sign))


def test_another_address_gives_the_old_one_up_with_its_path(tmp_path: Path, store: Store) -> None:
    listen(milter(tmp_path / "old"), store.kept()).socket.close()
    store.hear("FDSTORE=1")
    with listen(milter(tmp_path / "new"), store.kept()).socket as bound:
        store.hear("FDSTOREREMOVE=1")
        store.hear("FDSTORE=1")
        assert bound.getsockname() == str(tmp_path / "new")
        assert not (tmp_path / "old").exists()
        assert [held.getsockname() for held in store.held.values()] == [str(tmp_path / "new")]


def test_a_path_that_somebody_removed_is_bound_anew(tmp_path: Path, store: Store) -> None:
    listen(milter(tmp_path / "s"), store.kept()).socket.close()
    store.hear("FDSTORE=1")
    (tmp_path / "s").unlink()
    (tmp_path / "other").touch()  # or else the file system may give the same inode again
    with listen(milter(tmp_path / "s"), store.kept()).socket, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))


def test_the_mode_is_that_of_the_configuration_again(tmp_path: Path, store: Store) -> None:
    listen(milter(tmp_path / "s"), store.kept()).socket.close()
    store.hear("FDSTORE=1")
    open_to_all = Milter(listen=UnixAddress(tmp_path / "s"), socket_group=None, socket_mode=0o666)
    listen(open_to_all, store.kept()).socket.close()
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o666


def test_a_socket_unit_is_served_where_it_listens_and_told_where_it_does_not(tmp_path: Path) -> None:
    """Its path is systemd's: it is neither changed nor removed."""
    with socket.socket(socket.AF_UNIX) as unit:
        unit.bind(str(tmp_path / "s"))
        unit.listen()
        (tmp_path / "s").chmod(0o600)
        kept = Kept(Notifier(""), [Received(unit, "postmeter.socket")])
        with pytest.raises(KeptError, match=rf"postmeter.socket listens at {tmp_path}/s, not at 127.0.0.1 port 8891"):
            listen(Milter(listen=InetAddress("127.0.0.1", 8891)), kept)
        listener = listen(milter(tmp_path / "s"), kept)
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
        listener.forget()
        assert (tmp_path / "s").exists()


def test_a_socket_that_does_not_listen_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unit:
        kept = Kept(Notifier(""), [Received(unit, "postmeter.socket")])
        with pytest.raises(KeptError, match=r"postmeter.socket is no listening stream socket"):
            listen(milter(tmp_path / "s"), kept)


@pytest.mark.parametrize("environ", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_FDS": "x"}])
def test_what_is_meant_for_somebody_else_is_left_alone(tmp_path: Path, environ: dict[str, str]) -> None:
    """And nobody below shall think that it is meant for them."""
    kept = Kept.from_environment(environ)
    assert environ == {}
    assert kept.find(socket.AF_UNIX, str(tmp_path / "s")) is None


def test_descriptors_are_taken_as_systemd_numbers_them(tmp_path: Path) -> None:
    """From 3 on, in a process of that number (sd_listen_fds(3)); one that is no socket is left out."""
    with socket.socket(socket.AF_UNIX) as unit:
        unit.bind(str(tmp_path / "s"))
        unit.listen()

        def take() -> int:
            os.dup2(os.open("/dev/null", os.O_RDONLY), 3)
            os.dup2(unit.fileno(), 4)
            environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "file:unit"}
            found = Kept.from_environment(environ).find(socket.AF_UNIX, str(tmp_path / "s"))
            return 0 if found and found.name == "unit" and not found.socket.get_inheritable() else 1

        assert code_of(take) == 0
