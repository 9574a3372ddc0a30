"""Other signers to measure beside ours: OpenDKIM, rspamd, dkimpy-milter, and a policy server for quotas.

Debian's packages of them, unpacked under build/peers by `install.sh bench` and never installed (OpenDKIM is, for the
tests); each runs with an RSA-2048 key, relaxed/relaxed, on a unix socket or a port of loopback, and nothing else that
it could do. Knows nothing of what they are asked.
"""

from __future__ import annotations

import gzip
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench import cpu, policyd
from tests.bench.rows import DOMAIN, SELECTOR, Row, Started, Starting, wait_for
from tests.lab import redis
from tests.lab.folder import CLONE
from tests.lab.keys import DkimKey, make_key
from tests.lab.ports import free_port
from tests.lab.redis import Redis

UNPACKED = CLONE / "build" / "peers"
OPENDKIM = Path("/usr/sbin/opendkim")
_MEMORY = Path("/dev/shm")
_NOT_UNPACKED = "not unpacked: sh tests/lab/install.sh bench"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a milter listens: a unix socket in its folder, or a port of loopback."""

    folder: Path
    port: int = 0

    @property
    def postfix(self) -> str:
        return f"inet:127.0.0.1:{self.port}" if self.port else f"unix:{self.folder}/socket"

    @property
    def sendmail(self) -> str:
        """As OpenDKIM and dkimpy-milter write it."""
        return f"inet:{self.port}@127.0.0.1" if self.port else f"local:{self.folder}/socket"

    @property
    def rspamd(self) -> str:
        return f"127.0.0.1:{self.port}" if self.port else f"{self.folder}/socket mode=0666"

    def wait(self, process: subprocess.Popen[bytes]) -> None:
        """Until somebody listens."""
        if not self.port:
            wait_for(self.folder / "socket", process)
        until = time.monotonic() + 20
        while not self._listens():
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{process.args!r} does not listen: {(self.folder / 'output').read_text()}")
            time.sleep(0.02)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_INET if self.port else socket.AF_UNIX) as probe:
            return probe.connect_ex(("127.0.0.1", self.port) if self.port else f"{self.folder}/socket") == 0


def unix(start: Callable[[Place], AbstractContextManager[Started]]) -> Starting:
    return lambda folder: start(Place(folder))


def inet(start: Callable[[Place], AbstractContextManager[Started]]) -> Starting:
    return lambda folder: start(Place(folder, free_port()))


def missing(name: str) -> str:
    """Why a peer cannot be measured here; empty when it can, and for what is no peer."""
    program = name.removesuffix("-inet")
    lacks = {
        "opendkim": "" if OPENDKIM.exists() else "not installed",
        "opendkim+policyd": policyd.missing() if OPENDKIM.exists() else "opendkim is not installed",
        "rspamd": redis.missing() if (UNPACKED / "rspamd").is_dir() else _NOT_UNPACKED,
        "dkimpy-milter": "" if (UNPACKED / "dkimpy-milter").is_dir() else _NOT_UNPACKED,
    }
    return lacks.get(program, "")


def version(package: str) -> str:
    """Of a Debian package here, installed or unpacked; empty when it is neither."""
    changes = f"usr/share/doc/{package}/changelog.Debian.gz"
    for tree in (UNPACKED / package, Path("/")):
        if (tree / changes).exists():
            with gzip.open(tree / changes, "rt", errors="replace") as lines:
                return lines.readline().partition("(")[2].partition(")")[0]
    return ""


def _key(place: Place) -> DkimKey:
    return make_key(place.folder / "keys", domain=DOMAIN, selector=SELECTOR, user="root")


@contextmanager
def opendkim(place: Place) -> Iterator[Started]:
    key = _key(place)
    settings = {
        "Mode": "s", "Domain": key.domain, "Selector": key.selector, "KeyFile": key.file,
        "Canonicalization": "relaxed/relaxed", "InternalHosts": "0.0.0.0/0", "RequireSafeKeys": "no",
        "Socket": place.sendmail, "MaximumHeaders": 0, "UMask": "000", "Syslog": "no",
    }  # fmt: skip
    with _running([str(OPENDKIM), "-f", "-x", _write(place, settings)], place, key) as started:
        yield started


@contextmanager
def dkimpy(place: Place) -> Iterator[Started]:
    key = _key(place)
    settings = {
        "Syslog": "no", "Mode": "s", "Domain": key.domain, "KeyFile": key.file, "Selector": key.selector,
        "Canonicalization": "relaxed/relaxed", "Socket": place.sendmail, "PidFile": place.folder / "pid",
        "UserID": "root", "UMask": "000", "InternalHosts": "127.0.0.1",
    }  # fmt: skip
    places = [UNPACKED / name / "usr/lib/python3/dist-packages" for name in ("dkimpy-milter", "python3-authres")]
    command = [sys.executable, "-m", "dkimpy_milter", _write(place, settings)]
    with _running(command, place, key, {"PYTHONPATH": ":".join(map(str, places))}) as started:
        yield started


@contextmanager
def opendkim_and_policyd(place: Place) -> Iterator[Started]:
    """Its quota is asked at RCPT, as its README says; two limits, as ours.

    Its book is in memory where it can be: on a disk it waits for an fsync(2) a message, which ours does not, and would
    be measured by the disk alone.
    """
    with ExitStack() as stack:
        signer = stack.enter_context(opendkim(place))
        memory = _MEMORY if os.access(_MEMORY, os.W_OK) else place.folder
        beside = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="postmeter-bench-", dir=memory)))
        beside.chmod(0o755)  # Postfix's user asks
        asked = policyd.started(beside, logins=0, stamps=0, windows=(86_400, 3600))
        address, pid = stack.enter_context(asked)
        yield replace(
            signer, pids=lambda: [*signer.pids(), *cpu.tree(pid)], policy=f"unix:{address}",
            counted=lambda: _stamps(beside / policyd.BOOK), forget=lambda: _no_stamps(beside / policyd.BOOK),
        )  # fmt: skip


def _stamps(book: Path) -> int:
    with closing(sqlite3.connect(book, timeout=20)) as link:
        return int(link.execute("SELECT count(*) FROM mail_count").fetchone()[0])


def _no_stamps(book: Path) -> None:
    with closing(sqlite3.connect(book, timeout=20)) as link, link:
        link.execute("DELETE FROM mail_count")


# --- rspamd

_RSPAMD = """
options {{
  filters = "dkim"; local_addrs = ["127.0.0.0/8"]; dns {{ nameserver = ["127.0.0.1:9"]; }}
  pidfile = "{0}/pid"; rundir = "{0}"; tempdir = "{0}"; cache_file = "{0}/cache"; hs_cache_dir = "{0}";
  url_tld = "{0}/tld"; max_message = 100M;
}}
logging {{ type = "file"; filename = "{0}/log"; level = "error"; }}
worker "rspamd_proxy" {{
  bind_socket = "{1}"; milter = yes; count = 2; timeout = 120s;
  upstream "local" {{ default = yes; self_scan = yes; }}
}}
actions {{ reject = 1000; }}
dkim_signing {{
  sign_local = true; sign_authenticated = true; allow_username_mismatch = true; use_domain = "header"; use_esld = false;
  allow_hdrfrom_mismatch = true;
  domain {{ {2} {{ selectors [ {{ path = "{3}"; selector = "{4}"; }} ] }} }}
}}
modules {{ path = "{5}/plugins/dkim_signing.lua"; }}
"""

# Two limits, as ours. A bucket's name comes from its size, and what it lost is one message a day.
_RATELIMIT = """
redis {{ servers = "{0}"; }}
ratelimit {{ rates {{ ip {{ bucket = [
  {{ burst = 100000; rate = "1 / 1d"; }}, {{ burst = 50000; rate = "1 / 1d"; skip_recipients = true; }}
] }} }} }}
modules {{ path = "{1}/plugins/ratelimit.lua"; }}
"""


@contextmanager
def rspamd(place: Place, more: str = "") -> Iterator[Started]:
    """`more` is added to its configuration."""
    tree, key, folder = UNPACKED / "rspamd", _key(place), place.folder
    share = tree / "usr/share/rspamd"
    (folder / "tld").write_text("com\n")
    text = _RSPAMD.format(folder, place.rspamd, key.domain, key.file, key.selector, share)
    (folder / "conf").write_text(text + more)
    folders = {"SHAREDIR": share, "LUALIBDIR": share / "lualib", "PLUGINSDIR": share / "plugins", "DBDIR": folder}
    options = [f"--var={name}={path}" for name, path in {**folders, "RUNDIR": folder}.items()]
    command = [str(tree / "usr/bin/rspamd"), "-f", "-i", "-c", str(folder / "conf"), *options]
    with _running(command, place, key, {"LD_LIBRARY_PATH": str(tree / "usr/lib/rspamd")}) as started:
        yield started


@contextmanager
def rspamd_with_limits(place: Place) -> Iterator[Started]:
    """With its module ratelimit, and the Redis that it needs: whose time is its own."""
    with Redis() as store, rspamd(place, _RATELIMIT.format(store.socket, UNPACKED / "rspamd/usr/share/rspamd")) as mine:
        yield replace(mine, pids=lambda: [*mine.pids(), store.pid], counted=lambda: _in_buckets(store))


def _in_buckets(store: Redis) -> int:
    """Messages that the fuller of its buckets has; both have all."""
    names = store.cli("KEYS", "RL*").split()
    return max((round(float(store.cli("HGET", name, "b"))) for name in names), default=0)


# --- what all have


def _write(place: Place, settings: Mapping[str, object]) -> str:
    file = place.folder / "conf"
    file.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    return str(file)


@contextmanager
def _running(command: list[str], place: Place, key: DkimKey, env: Mapping[str, str] | None = None) -> Iterator[Started]:
    with (place.folder / "output").open("wb") as output:
        process = subprocess.Popen(
            command, cwd=place.folder, env={"PATH": os.defpath, **(env or {})}, stdin=subprocess.DEVNULL, stdout=output,
            stderr=output, start_new_session=True,
        )  # fmt: skip
    with ExitStack() as stack:
        stack.callback(_end, process)
        place.wait(process)
        yield Started(address=place.postfix, pids=lambda: list(cpu.tree(process.pid)), key=key)


def _end(process: subprocess.Popen[bytes]) -> None:
    for pid in list(cpu.tree(process.pid)):
        os.kill(pid, 9)
    process.wait()


PEERS: list[Row] = [
    Row("opendkim", "OpenDKIM", unix(opendkim), signs=True),
    Row("opendkim+policyd", "OpenDKIM, policyd-rate-limit on SQLite in memory", unix(opendkim_and_policyd), signs=True),
    Row("rspamd", "rspamd, modules dkim_signing and ratelimit only, on Redis", unix(rspamd_with_limits), signs=True),
    Row("dkimpy-milter", "dkimpy-milter", unix(dkimpy), signs=True, share=0.25),
]

INET: list[Row] = [
    Row("opendkim-inet", "OpenDKIM on a port", inet(opendkim), signs=True, share=0.25),
    Row("rspamd-inet", "rspamd as above on a port", inet(rspamd_with_limits), signs=True, share=0.25),
    Row("dkimpy-milter-inet", "dkimpy-milter on a port", inet(dkimpy), signs=True, share=0.25),
]
