"""A private redis-server, Debian's, and a cluster of three: on ports of loopback and unix sockets, never as a service.

Started, stopped, killed, made to hang and woken again, as a test wants it. It ends with the thread that started it.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from tests.lab.folder import new_folder
from tests.lab.ports import free_port
from tests.lab.tls import Certificates, make

_BOUND = 20.0  # seconds for a server to answer, or a cluster to agree


def missing() -> str:
    """Why there can be none here; empty when there can."""
    return "" if shutil.which("redis-server") and shutil.which("redis-cli") else "redis-server is not installed"


class Redis:
    """Use as a context manager. With `password` it asks for one, with `tls` its port speaks nothing else.

    `durable` keeps what it was told through a kill. All users of this host may reach the unix socket.
    """

    def __init__(self, *, password: str = "", tls: bool = False, durable: bool = False, cluster: bool = False) -> None:
        self.folder = new_folder("redis")
        self.port, self.socket = free_port(), self.folder / "redis.sock"
        self.password, self.cluster = password, cluster
        self.certificates: Certificates | None = make(self.folder / "tls", host="localhost") if tls else None
        self._config = self.folder / "redis.conf"
        self._config.write_text("".join(f"{line}\n" for line in self._lines(durable)))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Redis:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def unix(self) -> str:
        """As `quota.store` names it."""
        return f"redis+unix://{self.socket}"

    @property
    def inet(self) -> str:
        return f"rediss://localhost:{self.port}/0" if self.certificates else f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        return self._running().pid

    def password_file(self) -> Path:
        path = self.folder / "password"
        path.write_text(f"{self.password}\n")
        return path

    def start(self) -> None:
        """Until it answers."""
        with (self.folder / "redis.log").open("ab") as log:
            command = ["setpriv", "--pdeathsig", "KILL", "redis-server", str(self._config)]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + _BOUND
        while self.cli("PING", check=False) != "PONG":
            assert self._process.poll() is None, (self.folder / "redis.log").read_text()
            assert time.monotonic() < until, "redis-server does not answer"
            time.sleep(0.02)  # a bounded wait for a condition

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """It hangs: the kernel goes on taking connections for it."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def cli(self, *command: str, check: bool = True) -> str:
        """redis-cli(1), by the unix socket."""
        login = ["--no-auth-warning", "-a", self.password] if self.password else []
        done = subprocess.run(
            ["redis-cli", "-s", str(self.socket), *login, *command],
            capture_output=True, text=True, check=False, timeout=_BOUND,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def _end(self, how: signal.Signals) -> None:
        process = self._running()
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)
        process.wait(_BOUND)
        self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "redis-server does not run"
        return self._process

    def _lines(self, durable: bool) -> list[str]:
        lines = [
            "bind 127.0.0.1", f"dir {self.folder}", f"unixsocket {self.socket}", "unixsocketperm 777", 'save ""',
            f"appendonly {'yes' if durable else 'no'}", "appendfsync always",
        ]  # fmt: skip
        if self.certificates:
            pem = self.certificates
            lines += ["port 0", f"tls-port {self.port}", "tls-auth-clients no"]
            lines += [f"tls-cert-file {pem.server}", f"tls-key-file {pem.server}", f"tls-ca-cert-file {pem.authority}"]
        else:
            lines.append(f"port {self.port}")
        if self.password:
            lines += [f"requirepass {self.password}"]
        if self.cluster:
            lines += ["cluster-enabled yes", f"cluster-port {free_port()}", "cluster-node-timeout 2000"]
        return lines


class Cluster:
    """Three masters without replicas, each with a third of the slots. Use as a context manager."""

    def __init__(self) -> None:
        self.nodes: tuple[Redis, ...] = ()
        self._stack = ExitStack()

    def __enter__(self) -> Cluster:
        with ExitStack() as stack:
            self.nodes = tuple(stack.enter_context(Redis(cluster=True)) for _ in range(3))
            self._join()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def owner(self, key: str) -> Redis:
        """The node that has the slot of a key."""
        for node in self.nodes:
            if not node.cli("EXISTS", key).startswith("MOVED"):
                return node
        raise AssertionError(f"nobody has the slot of {key}")

    def other(self, than: Redis) -> Redis:
        return next(node for node in self.nodes if node is not than)

    def begin_move(self, slot: int, source: Redis, target: Redis) -> None:
        """From now on the source sends whoever asks for what it no longer has to the target (ASK)."""
        target.cli("CLUSTER", "SETSLOT", str(slot), "IMPORTING", source.cli("CLUSTER", "MYID"))
        source.cli("CLUSTER", "SETSLOT", str(slot), "MIGRATING", target.cli("CLUSTER", "MYID"))

    def move_keys(self, slot: int, source: Redis, target: Redis) -> None:
        keys = source.cli("CLUSTER", "GETKEYSINSLOT", str(slot), "1000").split()
        if keys:
            source.cli("MIGRATE", "127.0.0.1", str(target.port), "", "0", "5000", "KEYS", *keys)

    def end_move(self, slot: int, source: Redis, target: Redis) -> None:
        """From now on the source sends everybody to the target (MOVED)."""
        for node in (target, source, *self.nodes):
            node.cli("CLUSTER", "SETSLOT", str(slot), "NODE", target.cli("CLUSTER", "MYID"))

    def cut_off(self, alone: Redis, *, heir: Redis) -> None:
        """The node and the others forget each other; its slots become the heir's, empty."""
        name, (first, last) = alone.cli("CLUSTER", "MYID"), _slots(alone)
        others = [node for node in self.nodes if node is not alone]
        for node in others:
            alone.cli("CLUSTER", "FORGET", node.cli("CLUSTER", "MYID"))
            node.cli("CLUSTER", "FORGET", name)
        heir.cli("CLUSTER", "ADDSLOTSRANGE", first, last)
        self._wait_until_whole(others)

    def _join(self) -> None:
        addresses = [f"127.0.0.1:{node.port}" for node in self.nodes]
        create = ["redis-cli", "--cluster", "create", *addresses, "--cluster-yes"]
        done = subprocess.run(create, capture_output=True, text=True, check=False, timeout=2 * _BOUND)
        assert done.returncode == 0, done.stdout + done.stderr
        self._wait_until_whole(self.nodes)

    def _wait_until_whole(self, nodes: Sequence[Redis]) -> None:
        until = time.monotonic() + _BOUND
        while not all("cluster_state:ok" in node.cli("CLUSTER", "INFO") for node in nodes):
            assert time.monotonic() < until, "the cluster does not come together"
            time.sleep(0.05)  # a bounded wait for a condition


def _slots(node: Redis) -> tuple[str, str]:
    """The first and the last; between them all are its own."""
    mine = next(line for line in node.cli("CLUSTER", "NODES").splitlines() if "myself" in line)
    first, _, last = mine.split()[-1].partition("-")
    return first, last
