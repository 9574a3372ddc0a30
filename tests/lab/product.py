"""postmeter itself in a lab: a configuration file, its directories, its daemons as users that are not root.

Everything goes through the command line and the configuration, as for an administrator; nothing is imported from the
product. The one liberty: a clone that other users may not read is copied to where they may.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from tests.lab.figures import Metrics
from tests.lab.folder import CLONE, for_everybody, give, group_id, new_folder
from tests.lab.keys import DkimKey, make_key
from tests.lab.ports import free_port
from tests.lab.waiting import wait_for

USER = "nobody"
_BOUND = 30.0  # seconds that a daemon may take to be ready on a busy machine
_MARK = "POSTMETER_LAB"  # an environment variable by which a lab finds every process it started, forked ones too


def python_environment() -> tuple[str, dict[str, str]]:
    """An interpreter and an environment with which any user can run `-m postmeter`."""
    python = os.path.realpath(sys.executable)
    packages = for_everybody(Path(sysconfig.get_path("purelib")))
    path = f"{for_everybody(CLONE / 'milter')}:{packages}"
    return python, {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


class Postmeter:
    """Use as a context manager. `settings` are sections of postmeter.yaml, laid over those that the lab needs.

    `daemons` are the commands to start, each in a process of its own, or ("run",) for all by the supervisor.
    """

    def __init__(
        self,
        settings: Mapping[str, Any] | None = None,
        *,
        daemons: Sequence[str] = ("milter", "books"),
        folder: Path | None = None,
        inet: bool = False,
        user: str = USER,
        web_user: str = "",
    ) -> None:
        self.folder = folder or new_folder("product")
        self.user, self.web_user, self.daemons = user, web_user or user, tuple(daemons)
        self.config = self.folder / "postmeter.yaml"
        self.state = self.folder / "state"
        self.ports = {"milter": free_port(), "web": free_port(), "metrics": free_port()}
        self.milter = f"inet:127.0.0.1:{self.ports['milter']}" if inet else f"unix:{self.folder}/socket/milter.sock"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.settings = merge(self._needed(), dict(settings or {}))
        self.passed: tuple[int, ...] = ()
        """Descriptors that the daemons started from now on inherit."""
        self._notices: dict[str, socket.socket] = {}
        self._make_directories()

    def __enter__(self) -> Postmeter:
        try:
            self.write()
            for daemon in self.daemons:
                self._launch(daemon)
            for daemon in self.daemons:
                self._wait_until_ready(daemon)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # --- its files

    def _needed(self) -> dict[str, Any]:
        """Where things lie, and nothing that touches mail: besides these the configuration is the empty one."""
        return {
            "milter": {"listen": self.milter, "workers": 2, "drain": "10s"},
            "journal": {"path": str(self.state / "journal.db"), "host": "lab"},
            "metrics": {"listen": f"127.0.0.1:{self.ports['metrics']}"},
            "web": {"listen": f"127.0.0.1:{self.ports['web']}"},
        }

    def _make_directories(self) -> None:
        other = self.web_user != self.user
        give(self.folder, "root")
        give(self.folder / "socket", self.user, group="postfix", mode=0o750)
        give(self.folder / "log", "root")
        give(self.folder / "notices", "root")
        for name in (".", "spool", "spool/events", "seen", "web"):
            give(self.state / name, self.user, mode=0o711 if other else 0o750)
        if other:
            # Written by the web user alone; read, and deleted when read, by the books.
            give(self.state / "web", self.user, mode=0o755)
            group = subprocess.check_output(["/usr/bin/id", "-gn", self.user], text=True).strip()
            give(self.state / "spool/hits", self.web_user, group=group, mode=0o2770)
        else:
            give(self.state / "spool/hits", self.user, mode=0o750)

    def write(self) -> None:
        """postmeter.yaml from `settings`; again before a `reload` that shall change something."""
        self.config.write_text(yaml.safe_dump(self.settings, sort_keys=False, allow_unicode=True))

    def key(self, domain: str, selector: str, algorithm: str = "rsa") -> DkimKey:
        """A DKIM key in our folder, and in `dkim.sign` of the settings."""
        made = make_key(self.folder / "keys", domain=domain, selector=selector, algorithm=algorithm, user=self.user)
        dkim = self.settings.setdefault("dkim", {})
        dkim.setdefault("check_every", 0)  # these keys are in no DNS: nobody is to be told so
        entries = dkim.setdefault("sign", [])
        for entry in entries:
            if entry["domain"] == domain:
                entry["keys"].append(made.entry)
                return made
        entries.append({"domain": domain, "keys": [made.entry]})
        return made

    def secrets(self, count: int = 1) -> Path:
        """A file of tracking secrets, and its path in the settings."""
        path = self.folder / "tracking.secrets"
        path.write_text("".join(f"{secrets.token_hex(32)}\n" for _ in range(count)))
        shutil.chown(path, self.user, subprocess.check_output(["/usr/bin/id", "-gn", self.web_user], text=True).strip())
        path.chmod(0o640)
        self.settings.setdefault("tracking", {})["secrets"] = str(path)
        return path

    # --- its life

    def start(self, daemon: str) -> None:
        """One daemon, until it says that it is ready (sd_notify(3)); fails with its log when it ends instead."""
        self._launch(daemon)
        self._wait_until_ready(daemon)

    def _launch(self, daemon: str) -> None:
        self._listen_for(daemon)
        with (self.folder / "log" / f"{daemon}.log").open("ab") as log:
            self.processes[daemon] = subprocess.Popen(
                self.command(daemon), env=self._environment(daemon), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd="/", user=self._user_of(daemon), group=_main_group(self._user_of(daemon)),
                extra_groups=[group_id("postfix")] if daemon != "web" else [], start_new_session=True,
                pass_fds=self.passed,
            )  # fmt: skip

    def _wait_until_ready(self, daemon: str) -> None:
        self._wait_notice(daemon, b"READY=1", _BOUND)
        if daemon == "run":  # the supervisor is ready before what it started is
            self._wait_until_served()

    def command(self, *arguments: str) -> list[str]:
        """A command line of postmeter with our configuration."""
        python, _ = python_environment()
        return [python, "-s", "-P", "-m", "postmeter", *arguments, "-c", str(self.config)]

    def run(
        self, *arguments: str, stdin: bytes = b"", user: str = "", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """One of postmeter's other commands, as the daemons' user or another."""
        user = user or self.user
        return subprocess.run(
            self.command(*arguments), env={**self._environment(), **(env or {})}, input=stdin, capture_output=True,
            check=False, cwd="/", timeout=60, user=user, group=_main_group(user), extra_groups=[],
        )  # fmt: skip

    def stop(self, daemon: str, *, bound: float = 30, how: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, and wait; its exit status, negative for a signal."""
        process = self.processes.pop(daemon)
        process.send_signal(how)
        return process.wait(bound)

    def kill(self, daemon: str) -> None:
        """As a crash or the kernel would: SIGKILL to the process itself. Its workers see its pipe close."""
        self.stop(daemon, how=signal.SIGKILL)

    def reload(self, daemon: str = "milter", *, bound: float = _BOUND) -> None:
        """SIGUSR1, until the daemon says that it is done, whether it took the new configuration or kept the old."""
        self.processes[daemon].send_signal(signal.SIGUSR1)
        self._wait_notice(daemon, b"RELOADING=1", bound)
        self._wait_notice(daemon, b"READY=1", bound)

    def workers(self) -> list[int]:
        """The process ids of the milter's workers."""
        parent = self.processes["milter"].pid
        return [pid for pid in self.pids() if _parent(pid) == parent]

    def pids(self) -> list[int]:
        """Every living process of this lab, whoever its parent is now."""
        mark = f"{_MARK}={self.folder}".encode()
        return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if mark in _environ(path)]

    def close(self) -> None:
        """End everything, in order if it will, by SIGKILL if not, and remove every file."""
        for daemon in list(self.processes):
            self.processes[daemon].terminate()
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.processes.values():
            process.wait(5)
        for notices in self._notices.values():
            notices.close()
        self.processes.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- what it says

    def log(self, daemon: str = "milter") -> str:
        path = self.folder / "log" / f"{daemon}.log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def wait_for(self, pattern: str, *, daemon: str = "milter", bound: float = 20) -> re.Match[str]:
        """The first place in a daemon's log that matches; fails with the log when none does."""
        until = time.monotonic() + bound
        while (found := re.compile(pattern, re.MULTILINE).search(self.log(daemon))) is None:
            if time.monotonic() > until:
                raise AssertionError(f"{daemon} said nothing like {pattern!r} within {bound} s:\n{self.log(daemon)}")
            time.sleep(0.02)
        return found

    def events(self, kind: str = "submitted") -> list[dict[str, Any]]:
        """What the journal has of that kind, oldest first."""
        with contextlib.closing(sqlite3.connect(f"file:{self.state / 'journal.db'}?mode=ro", uri=True)) as link:
            rows = link.execute("SELECT queue_id, login, data FROM events WHERE kind = ? ORDER BY seq", (kind,))
            return [{"queue_id": queue_id, "login": login, **json.loads(data)} for queue_id, login, data in rows]

    def page(self, path: str = "/metrics", *, port: str = "metrics") -> str:
        url = f"http://127.0.0.1:{self.ports[port]}{path}"
        with urllib.request.urlopen(url, timeout=20) as response:
            return str(response.read().decode())

    def metrics(self) -> Metrics:
        return Metrics(self.page())

    def wait_figure(self, value: float, name: str, *, bound: float = 20, **labels: str) -> None:
        """Until that figure, summed over the labels not named, has `value`; fails with the last page."""
        until = time.monotonic() + bound
        while (found := (metrics := self.metrics()).figure(name, **labels)) != value:
            if time.monotonic() > until:
                what = f"{name}{labels or ''} is {found}, not {value}, after {bound} s"
                raise AssertionError(f"{what}: {metrics.of(name)}")
            time.sleep(0.05)

    def wait_until(self, condition: Callable[[], bool], *, bound: float = 20) -> None:
        """Until it is true; for what shows in no log and no figure."""
        wait_for(condition, within=bound, else_=lambda: "\n".join(map(self.log, self.daemons)))

    # --- starting, in detail

    def _environment(self, daemon: str = "") -> dict[str, str]:
        _, env = python_environment()
        mark = {_MARK: str(self.folder)}
        return {**env, **mark, "NOTIFY_SOCKET": str(self._notice_path(daemon))} if daemon else {**env, **mark}

    def _user_of(self, daemon: str) -> str:
        return self.web_user if daemon == "web" else self.user

    def _notice_path(self, daemon: str) -> Path:
        return self.folder / "notices" / daemon

    def _listen_for(self, daemon: str) -> None:
        """Where systemd would listen for the daemon's notices."""
        if daemon in self._notices:
            self._notices.pop(daemon).close()
        path = self._notice_path(daemon)
        path.unlink(missing_ok=True)
        notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notices.bind(str(path))
        path.chmod(0o666)
        self._notices[daemon] = notices

    def _wait_until_served(self) -> None:
        """Until everything that the supervisor starts listens."""
        wanted = ["metrics", *(["web"] if self.settings.get("tracking", {}).get("url") else [])]
        until = time.monotonic() + _BOUND
        while not (self._milter_listens() and all(_listens(self.ports[name]) for name in wanted)):
            code = self.processes["run"].poll()
            if code is not None or time.monotonic() > until:
                raise RuntimeError(f"postmeter run: not all of it listens (status {code}):\n{self.log('run')}")
            time.sleep(0.05)

    def _milter_listens(self) -> bool:
        if self.milter.startswith("inet:"):
            return _listens(self.ports["milter"])
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self.milter.removeprefix("unix:")) == 0

    def hear(self, notices: socket.socket) -> bytes:
        """The next notice of a daemon."""
        return notices.recv(4096)

    def _wait_notice(self, daemon: str, wanted: bytes, bound: float) -> None:
        until = time.monotonic() + bound
        notices = self._notices[daemon]
        notices.settimeout(0.1)
        while True:
            with contextlib.suppress(TimeoutError):
                if wanted in self.hear(notices).split(b"\n"):
                    return
            code = self.processes[daemon].poll()
            if code is not None or time.monotonic() > until:
                what = f"ended with {code}" if code is not None else f"did not say {wanted.decode()} within {bound} s"
                raise RuntimeError(f"postmeter {daemon} {what}:\n{self.log(daemon)}")


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings, those `above` winning; a section that is given is laid over, a list is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _environ(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().split(b"\0")
    except OSError:  # gone, or not ours to read
        return []


def _parent(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[1])


def _main_group(user: str) -> int:
    return int(subprocess.check_output(["/usr/bin/id", "-g", user], text=True))
