"""A private Postfix: its own configuration, queue, data, log and logins; ports on loopback that were free.

It runs from Debian's installed package or from the tree that install.sh unpacked, never uses /etc/postfix or
/var/spool/postfix, and several run side by side. Needs root: master(8) does. Follows postconf(5), master(5),
MULTI_INSTANCE_README and MILTER_README of Postfix 3.7; knows nothing of postmeter.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from tests.lab import tls
from tests.lab.folder import CLONE, for_everybody, give, group_id, new_folder
from tests.lab.ports import free_port
from tests.lab.settings import MAIN_CF, MASTER_CF, QUEUES

HOST = "mail.example.com"
LOGINS = {"alice@example.com": "wonderland", "bob@example.org": "builder"}
_STOP = 10.0  # seconds master(8) gets to end its daemons before they are killed
_UNPACKED = CLONE / "build" / "postfix"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One smtpd(8) of master.cf; `settings` are its -o options. Its port is chosen when Postfix starts."""

    name: str
    settings: Mapping[str, str] = field(default_factory=dict)
    chroot: bool = False


def transit(**settings: str) -> Service:
    """Like port 25: takes mail from anybody on loopback; no milter unless `smtpd_milters` says so."""
    return Service(name="transit", settings={"smtpd_sasl_auth_enable": "no", **settings})


def submission(milter: str, **settings: str) -> Service:
    """Like port 587: logins, STARTTLS, the milter, and a name by which the milter knows the service."""
    own = {"smtpd_milters": milter, "milter_macro_daemon_name": "ORIGINATING", "smtpd_tls_security_level": "may"}
    return Service(name="submission", settings={**own, **settings})


class Postfix:
    """Use as a context manager. `sink` is where all mail goes, as a transport: smtp:[127.0.0.1]:PORT or lmtp:inet:…"""

    def __init__(
        self,
        *services: Service,
        sink: str,
        settings: Mapping[str, str] | None = None,
        master: Sequence[str] = (),
        folder: Path | None = None,
    ) -> None:
        self.folder = folder or new_folder("postfix")
        self.services = services
        self.ports = {service.name: free_port() for service in services}
        self.tree = find_tree()
        self.certificates = tls.make(self.folder / "tls", host=HOST)
        self._sink = sink
        self._settings = dict(settings or {})
        self._master = list(master)
        self.config = self.folder / "config"
        self.queue = self.folder / "queue"
        self.log_file = self.folder / "log" / "mail.log"

    def __enter__(self) -> Postfix:
        try:
            self.write()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # --- its life

    def start(self) -> None:
        """Ends when master(8) listens on all its ports."""
        done = self.run("../lib/postfix/sbin/master", "-w")
        if done.returncode != 0:
            raise RuntimeError(f"master -w: {done.stderr.decode()}\n{self.log()}")

    def reload(self) -> None:
        """Ends when master(8) has begun to read it all anew: postfix(1) only sends it a signal."""
        said = len(self.log())
        self.run("postfix", "reload")
        self.wait_for(r"master\[\d+\]: reload -- version", after=said)

    def stop(self) -> None:
        """master(8) and all its daemons end; what does not end within the bound is killed, and waited for.

        A daemon that is only dying still has its port, and takes what the next master(8) wants to log.
        """
        pid = self.master_pid()
        if pid is None:
            return
        os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + _STOP
        while _alive(pid) and time.monotonic() < until:
            time.sleep(0.02)
        _kill_group(pid)
        until = time.monotonic() + _STOP
        while _any_of(pid):
            if time.monotonic() > until:
                raise RuntimeError(f"daemons of {self.folder} live on {_STOP} s after they were killed")
            time.sleep(0.02)

    def close(self) -> None:
        """Stop, and remove every file."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def master_pid(self) -> int | None:
        """The process id of our master(8), which is also that of its process group; none when it does not run."""
        try:
            pid = int((self.queue / "pid" / "master.pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if _alive(pid) else None

    # --- its log

    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace") if self.log_file.exists() else ""

    def wait_for(self, pattern: str, *, bound: float = 20, after: int = 0) -> re.Match[str]:
        """The first place in the log behind `after` characters that matches; fails with the log when none does."""
        until = time.monotonic() + bound
        while (found := re.compile(pattern, re.MULTILINE).search(self.log(), after)) is None:
            if time.monotonic() > until:
                raise AssertionError(f"nothing in Postfix's log matched {pattern!r} within {bound} s:\n{self.log()}")
            time.sleep(0.02)
        return found

    def queued(self) -> list[str]:
        """The queue ids of what lies in the queue, without maildrop."""
        done = self.run("postqueue", "-j")
        return re.findall(r'"queue_id": "(\w+)"', done.stdout.decode())

    # --- its commands

    def sendmail(self, message: bytes, *arguments: str, user: str = "nobody") -> subprocess.CompletedProcess[bytes]:
        """sendmail(1) as `user`. In group postdrop, as by the set-gid bit of postdrop, which an unpacked tree lacks."""
        return self.run("sendmail", *arguments, user=user, group=group_id("postdrop"), stdin=message)

    def run(
        self, name: str, *arguments: str, user: str | None = None, group: int | None = None, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """One of Postfix's commands with our configuration."""
        return subprocess.run(
            [str(self.tree / "usr/sbin" / name), *arguments],
            env={"MAIL_CONFIG": str(self.config), **self.environment()}, input=stdin, capture_output=True, check=False,
            timeout=60, cwd="/", user=user, group=group, extra_groups=[] if user else None,
        )  # fmt: skip

    def environment(self) -> dict[str, str]:
        """With which its commands are found by name, and find their libraries."""
        return {"PATH": f"{self.tree / 'usr/sbin'}:/usr/sbin:/usr/bin:/sbin:/bin", **self._library_path()}

    def _library_path(self) -> dict[str, str]:
        return {} if self.tree == Path("/") else {"LD_LIBRARY_PATH": str(self.tree / "usr/lib/postfix")}

    # --- its files

    def write(self) -> None:
        """All files. Again before a `reload`, when `services` or settings were changed."""
        self.folder.chmod(0o755)
        give(self.config, "root")
        give(self.queue, "root")
        give(self.folder / "data", "postfix", mode=0o700)
        give(self.log_file.parent, "root")
        self.log_file.touch(0o644)  # postlogd(8) would make it for root alone, and the books read it
        self._make_queue()
        for name, text in (("main.cf", _lines(self.main_cf())), ("master.cf", self.master_cf())):
            (self.config / name).write_text(text)
            # Postfix reads a file again and again until it is two seconds old (load_file.c).
            os.utime(self.config / name, (time.time() - 60, time.time() - 60))
        self._write_logins()

    def main_cf(self) -> dict[str, str]:
        usr = self.tree / "usr"
        library_path = "".join(f" {name}={value}" for name, value in self._library_path().items())
        return {
            "compatibility_level": "3.6",
            "myhostname": HOST,
            "queue_directory": str(self.queue),
            "data_directory": str(self.folder / "data"),
            "maillog_file": str(self.log_file),
            "maillog_file_prefixes": str(self.folder),
            "meta_directory": str(self.config),
            "command_directory": str(usr / "sbin"),
            "daemon_directory": str(usr / "lib/postfix/sbin"),
            "shlib_directory": str(usr / "lib/postfix"),
            "sendmail_path": str(usr / "sbin/sendmail"),
            "import_environment": f"MAIL_CONFIG MAIL_LOGTAG TZ LANG=C{library_path}",
            "export_environment": f"TZ MAIL_CONFIG LANG=C{library_path}",
            "cyrus_sasl_config_path": str(self.config / "sasl"),
            "smtpd_tls_cert_file": str(self.certificates.server),
            "smtpd_tls_key_file": str(self.certificates.server),
            "smtpd_tls_CAfile": str(self.certificates.authority),
            "default_transport": self._sink,
            **MAIN_CF,
            **self._settings,
        }

    def master_cf(self) -> str:
        lines = [_smtpd_line(service, self.ports[service.name]) for service in self.services]
        return "\n".join([*lines, MASTER_CF, *self._master, ""])

    def _make_queue(self) -> None:
        """The directories that post-install creates in a new queue (postfix-files of the Debian package)."""
        for name in QUEUES:
            give(self.queue / name, "postfix", mode=0o700)
        give(self.queue / "maildrop", "postfix", group="postdrop", mode=0o730)
        give(self.queue / "public", "postfix", group="postdrop", mode=0o710)
        give(self.queue / "pid", "root")

    def _write_logins(self) -> None:
        """The sasldb2 that smtpd(8) asks by Cyrus' auxprop plugin; readable by Postfix's user alone.

        Debian's Postfix looks for smtpd.conf in the folder `sasl` beside main.cf, whatever cyrus_sasl_config_path says.
        """
        database = give(self.folder / "sasl", "postfix", mode=0o700) / "sasldb2"
        (give(self.config / "sasl", "root") / "smtpd.conf").write_text(
            f"pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN\nsasldb_path: {database}\n"
        )
        for login, password in LOGINS.items():
            user, _, realm = login.partition("@")
            command = ["/usr/sbin/saslpasswd2", "-c", "-p", "-f", str(database), "-u", realm, user]
            subprocess.run(command, input=password.encode(), check=True, capture_output=True, timeout=30)
        shutil.chown(database, "postfix", "postfix")
        if any(service.chroot for service in self.services):  # opened at login, so from within the queue directory
            inside = self.queue / database.relative_to("/")
            inside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(database, inside)
            shutil.chown(inside, "postfix", "postfix")


def missing() -> str:
    """Why no private Postfix can run here; empty when it can."""
    if os.geteuid() != 0:
        return "only root can start a private Postfix"
    if not Path("/usr/sbin/saslpasswd2").exists():
        return "Debian's sasl2-bin is not installed"
    if not Path("/usr/sbin/postfix").exists() and not (_UNPACKED / "usr/sbin/postfix").exists():
        return "Postfix is neither installed nor unpacked under build/postfix"
    return ""


def find_tree() -> Path:
    """The root of Postfix's files: the system's, or the unpacked tree at a place that Postfix's user may read."""
    return for_everybody(_UNPACKED) if (_UNPACKED / "usr/sbin/postfix").exists() else Path("/")


def _smtpd_line(service: Service, port: int) -> str:
    options = "".join(f"\n  -o {{ {name} = {value} }}" for name, value in service.settings.items())
    own_name = f"\n  -o syslog_name=postfix/{service.name}"
    return f"127.0.0.1:{port} inet n - {'y' if service.chroot else 'n'} - - smtpd{own_name}{options}"


def _lines(settings: Mapping[str, str]) -> str:
    return "".join(f"{name} = {value}\n" for name, value in settings.items())


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in _text(f"/proc/{pid}/status")


def _text(file: str) -> str:
    try:
        return Path(file).read_text()
    except OSError:
        return ""


def _any_of(group: int) -> bool:
    """Whether a process of this group still runs; one that has ended and is not waited for yet does not."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    stats = (_text(f"/proc/{pid}/stat").rpartition(") ")[2].split() for pid in os.listdir("/proc") if pid.isdigit())
    return any(stat[2] == str(group) and stat[0] not in "ZX" for stat in stats if stat)


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
