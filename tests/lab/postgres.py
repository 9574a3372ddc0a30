"""A private PostgreSQL, Debian's, on a port of loopback and a unix socket: never as a service.

It runs as `postgres`, for it refuses to be root; where there is no such user, as `nobody`. Started, stopped, killed,
made to hang and woken again, as a test wants it. It ends with the thread that started it, and forgets what it held.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType

from tests.lab.folder import give, new_folder
from tests.lab.ports import free_port
from tests.lab.tls import Certificates, make
from tests.lab.waiting import wait_for

_BOUND = 30.0  # seconds for a server to answer
_PASSWORD = "correct horse"  # of every role
_GONE = frozenset({"", "Z", "X"})  # states of a process in proc(5)
_STILL = _GONE | {"T"}


def missing() -> str:
    """Why there can be none here; empty when there can."""
    return "" if _programs() else "Debian's postgresql is not installed"


def _programs() -> Path | None:
    """Of the newest version: Debian keeps them out of the PATH."""
    found = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    return max(found, key=lambda path: float(path.parent.name), default=None)


class Postgres:
    """Use as a context manager. Its database `postmeter` belongs to a role of that name.

    With `tls` a client of the port must use it; whoever comes by the port gives the password.
    """

    def __init__(self, *, tls: bool = False) -> None:
        programs = _programs()
        assert programs is not None, missing()
        self._programs = programs
        self.folder = new_folder("postgres")
        self.port = free_port()
        self.user = _user()
        self._data = give(self.folder / "data", self.user, mode=0o700)
        self._sockets = give(self.folder / "socket", self.user, mode=0o755)
        self.certificates: Certificates | None = make(self.folder / "tls", host="localhost") if tls else None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Postgres:
        try:
            self._create()
            self.start()
            self.sql(f"CREATE ROLE postmeter LOGIN PASSWORD '{_PASSWORD}'", database="postgres")
            self.sql("CREATE DATABASE postmeter OWNER postmeter", database="postgres")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, *, database: str = "postmeter", role: str = "postmeter") -> str:
        """As `journal.ship_to` names it, by the unix socket."""
        return f"postgresql://{role}@/{database}?host={self._sockets}&port={self.port}"

    @property
    def inet(self) -> str:
        if self.certificates is None:
            return f"postgresql://postmeter@127.0.0.1:{self.port}/postmeter"
        authority = self.certificates.authority
        return f"postgresql://postmeter@localhost:{self.port}/postmeter?sslmode=verify-full&sslrootcert={authority}"

    def password_file(self) -> Path:
        path = self.folder / "password"
        path.write_text(f"{_PASSWORD}\n")
        return path

    def sql(self, text: str, *, database: str = "postmeter", role: str = "") -> list[list[str]]:
        """psql(1), by the unix socket, as the server's own role if no other is named; rows of columns."""
        command = [self._program("psql"), "-X", "-q", "-A", "-t", "-F", "\x1f", "-v", "ON_ERROR_STOP=1"]
        where = ["-h", str(self._sockets), "-p", str(self.port), "-U", role or self.user, "-d", database, "-f", "-"]
        done = subprocess.run([*command, *where], input=text, capture_output=True, text=True, check=False,
                              timeout=_BOUND, env=self._environment())  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [line.split("\x1f") for line in done.stdout.splitlines()]

    def new_database(self, name: str) -> str:
        """An empty one, of the same role; its address."""
        self.sql(f"CREATE DATABASE {name} OWNER postmeter", database="postgres")
        return self.url(database=name)

    def start(self) -> None:
        """Until it answers."""
        options = ["-D", str(self._data), "-p", str(self.port), "-k", str(self._sockets)]
        with (self.folder / "postgres.log").open("ab") as log:
            command = ["setpriv", "--pdeathsig", "KILL", *self._as_user(), self._program("postgres"), *options]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                             cwd="/", start_new_session=True, env=self._environment())  # fmt: skip
        until = time.monotonic() + _BOUND
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "postgres.log").read_text()
            assert time.monotonic() < until, "PostgreSQL does not answer"
            time.sleep(0.05)  # a bounded wait for a condition

    def stop(self) -> None:
        """At once, with the connections that there are ("fast shutdown", manual, 19.5)."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Every process of it: after `kill -9` of the first alone the others would end by themselves, but later.

        The first stands still meanwhile: it would begin again with new ones. Who starts the next one finds nobody left,
        for a process that is on its way out still has the memory that they share.
        """
        process = self._running()
        process.send_signal(signal.SIGSTOP)
        wait_for(lambda: _state(process.pid) in _STILL, within=_BOUND)
        children = self._children()
        for pid in [*children, process.pid]:
            _signal(pid, signal.SIGKILL)
        process.wait(_BOUND)
        wait_for(lambda: all(_state(pid) in _GONE for pid in children), within=_BOUND)
        self._process = None

    def pause(self) -> None:
        """It hangs: the kernel goes on taking connections for it."""
        for pid in [self._running().pid, *self._children()]:
            _signal(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in [self._running().pid, *self._children()]:
            _signal(pid, signal.SIGCONT)

    def _create(self) -> None:
        initdb = [*self._as_user(), self._program("initdb"), "-D", str(self._data), "-U", self.user, "-E", "UTF8"]
        options = ["--locale=C", "--no-sync", "--auth-local=trust", "--auth-host=scram-sha-256"]
        subprocess.run([*initdb, *options], check=True, capture_output=True, cwd="/", env=self._environment())
        lines = ["listen_addresses = '127.0.0.1'", "shared_buffers = 32MB", "max_connections = 40"]
        if self.certificates is not None:
            key = self.folder / "data" / "server.pem"
            shutil.copy(self.certificates.server, key)
            shutil.chown(key, self.user)
            key.chmod(0o600)
            lines += ["ssl = on", "ssl_cert_file = 'server.pem'", "ssl_key_file = 'server.pem'"]
            rules = self._data / "pg_hba.conf"
            rules.write_text("local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n")
        with (self._data / "postgresql.conf").open("a") as config:
            config.writelines(f"{line}\n" for line in lines)

    def _program(self, name: str) -> str:
        return str(self._programs / name)

    def _answers(self) -> bool:
        asked = [self._program("pg_isready"), "-q", "-h", str(self._sockets), "-p", str(self.port), "-d", "postgres"]
        return subprocess.run(asked, check=False, env=self._environment()).returncode == 0

    def _end(self, how: signal.Signals) -> None:
        process = self._running()
        process.send_signal(how)
        process.wait(_BOUND)
        self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "PostgreSQL does not run"
        return self._process

    def _children(self) -> list[int]:
        pid = self._running().pid
        try:
            return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except OSError:  # it has ended by itself
            return []

    def _as_user(self) -> list[str]:
        """setpriv(1) becomes another user; who is one already stays."""
        if os.geteuid() != 0:
            return []
        return ["setpriv", "--reuid", self.user, "--regid", str(pwd.getpwnam(self.user).pw_gid), "--clear-groups"]

    def _environment(self) -> dict[str, str]:
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/"}


def _user() -> str:
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"


def _state(pid: int) -> str:
    """Of a process, as in proc(5); empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _signal(pid: int, how: signal.Signals) -> None:
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        return
