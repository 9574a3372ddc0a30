"""What a signature costs beside OpenDKIM, rspamd and dkimpy-milter: over the milter protocol, without a Postfix.

`python -m tests.bench.signers`. All make one RSA-2048 signature, relaxed/relaxed, and nothing else: rspamd has only its
module dkim_signing, postmeter only keys (it keeps its journal, as always). The floor is what no signer goes below: one
RSA operation of OpenSSL and one SHA-256 pass over the body, without a protocol. Peers are Debian packages; what is not
installed is unpacked under build/peers (`sh tests/lab/install.sh bench`), and no service is ever started.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from tests.bench import cpu, wire
from tests.bench.messages import Mail, newsletter, plain
from tests.bench.rows import FLOOR, ROWS, Row, Started, wait_for
from tests.lab.folder import CLONE, give
from tests.lab.keys import DkimKey, make_key
from tests.lab.opendkim import PROGRAM, OpenDkim
from tests.lab.product import Postmeter

DOMAIN, SELECTOR = "example.com", "bench"
PEERS = CLONE / "build" / "peers"
_LEAST = "floor"
_CLIENTS = 4
_LARGE = 10_000_000


def large() -> Mail:
    """Ten megabytes, an attachment in base64."""
    head = plain().raw.partition(b"\r\n\r\n")[0] + b"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    data = random.Random(10).randbytes(_LARGE * 57 // 78)
    return Mail("10 MB", head + base64.encodebytes(data).replace(b"\n", b"\r\n"), 0)


def mails() -> list[tuple[Mail, int]]:
    """Each message, and how many in a round."""
    return [(plain(), 800), (newsletter(), 400), (large(), 8)]


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU milliseconds a message of one signer and one kind of message, a round each."""

    row: str
    mail: str
    rounds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.signers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    names = ", ".join(each.name for each in SIGNERS)
    parser.add_argument("--only", action="append", metavar="SIGNER", help=f"of: {names}")
    options = parser.parse_args(arguments)
    rows = [row for row in SIGNERS if not options.only or row.name in options.only]
    for row in rows:
        if reason := missing(row.name):
            print(f"{row.name}: {reason}", file=sys.stderr)
    found = measure([row for row in rows if not missing(row.name)], options.rounds)
    print("\n".join(table(found)))
    return 0


def missing(name: str) -> str:
    """Why a signer cannot be measured here; empty when it can."""
    if name == "opendkim":
        return "" if PROGRAM.exists() else "not installed"
    if name in ("rspamd", "dkimpy-milter"):
        return "" if (PEERS / name).is_dir() else "not unpacked: sh tests/lab/install.sh bench"
    return ""


def measure(rows: Sequence[Row], rounds: int) -> list[Spent]:
    """In turn, so that what disturbs one disturbs all."""
    load = mails()
    names = [_LEAST, *(row.name for row in rows)]
    found = {(name, mail.name): Spent(name, mail.name) for name in names for mail, _ in load}
    with ExitStack() as stack:
        running = [(row.name, _start(row, stack)) for row in rows]
        for _ in range(rounds):
            for mail, count in load:
                found[_LEAST, mail.name].rounds.append(floor(mail, count))
                for name, started in running:
                    found[name, mail.name].rounds.append(spend(started, mail, count, signs=name != FLOOR))
    return list(found.values())


def _start(row: Row, stack: ExitStack) -> Started:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="postmeter-bench-", dir="/var/tmp"))
    return stack.enter_context(row.start(give(Path(folder), "root")))


def spend(started: Started, mail: Mail, count: int, *, signs: bool) -> float:
    address = Path(started.address.removeprefix("unix:"))
    clients = min(_CLIENTS, count)
    wire.run(address, mail, clients=clients, each=1, signs=signs)
    before = cpu.seconds(started.pids())
    sent = wire.run(address, mail, clients=clients, each=count // clients, signs=signs)
    return (cpu.seconds(started.pids()) - before) / sent * 1000


_KEY = rsa.generate_private_key(65537, 2048)


def floor(mail: Mail, count: int) -> float:
    body, pkcs, sha256 = mail.body(), padding.PKCS1v15(), SHA256()
    start = time.process_time()
    for _ in range(count):
        hashlib.sha256(body).digest()
        _KEY.sign(b"x" * 1000, pkcs, sha256)
    return (time.process_time() - start) / count * 1000


def table(found: Sequence[Spent]) -> list[str]:
    names = list(dict.fromkeys(each.mail for each in found))
    by = {(each.row, each.mail): each for each in found}
    lines = ["CPU ms a message, and times the floor" + "".join(f"{name:>20}" for name in names)]
    for row in dict.fromkeys(each.row for each in found):
        medians = [(by[row, name].median, by[_LEAST, name].median) for name in names]
        lines.append(f"{row:<37}" + "".join(f"{spent:>12.2f}{spent / least:>7.1f}x" for spent, least in medians))
    return lines


# --- the signers


def _key(folder: Path) -> DkimKey:
    return make_key(folder / "keys", domain=DOMAIN, selector=SELECTOR, user="root")


@contextmanager
def _postmeter(folder: Path) -> Iterator[Started]:
    postmeter = Postmeter({"milter": {"workers": 2}}, daemons=("milter",), folder=give(folder / "postmeter", "root"))
    postmeter.key(DOMAIN, SELECTOR)
    with postmeter:
        milter = postmeter.processes["milter"].pid
        yield Started(postmeter.milter, lambda: list(cpu.tree(milter)), postmeter)


@contextmanager
def _opendkim(folder: Path) -> Iterator[Started]:
    with OpenDkim(folder, _key(folder), form="relaxed/relaxed", judge=False) as opendkim:
        assert opendkim.process is not None
        pid = opendkim.process.pid
        yield Started(f"unix:{opendkim.address}", lambda: list(cpu.tree(pid)))


_RSPAMD = """
options {{
  filters = "dkim"; local_addrs = ["127.0.0.0/8"]; dns {{ nameserver = ["127.0.0.1:9"]; }}
  pidfile = "{0}/pid"; rundir = "{0}"; tempdir = "{0}"; cache_file = "{0}/cache"; hs_cache_dir = "{0}";
  url_tld = "{0}/tld"; max_message = 100M;
}}
logging {{ type = "file"; filename = "{0}/log"; level = "error"; }}
worker "rspamd_proxy" {{
  bind_socket = "{0}/socket mode=0666"; milter = yes; count = 2; timeout = 120s;
  upstream "local" {{ default = yes; self_scan = yes; }}
}}
actions {{ reject = 1000; }}
dkim_signing {{
  sign_local = true; sign_authenticated = true; allow_username_mismatch = true; use_domain = "header"; use_esld = false;
  allow_hdrfrom_mismatch = true;
  domain {{ {1} {{ selectors [ {{ path = "{2}"; selector = "{3}"; }} ] }} }}
}}
modules {{ path = "{4}/plugins/dkim_signing.lua"; }}
"""


@contextmanager
def _rspamd(folder: Path) -> Iterator[Started]:
    place, key = PEERS / "rspamd", _key(folder)
    share = place / "usr/share/rspamd"
    (folder / "tld").write_text("com\n")
    (folder / "conf").write_text(_RSPAMD.format(folder, key.domain, key.file, key.selector, share))
    folders = {"SHAREDIR": share, "LUALIBDIR": share / "lualib", "PLUGINSDIR": share / "plugins", "DBDIR": folder}
    options = [f"--var={name}={path}" for name, path in {**folders, "RUNDIR": folder}.items()]
    command = [str(place / "usr/bin/rspamd"), "-f", "-i", "-c", str(folder / "conf"), *options]
    with _running(command, folder, {"LD_LIBRARY_PATH": str(place / "usr/lib/rspamd")}) as started:
        yield started


@contextmanager
def _dkimpy(folder: Path) -> Iterator[Started]:
    key = _key(folder)
    settings = {
        "Syslog": "no", "Mode": "s", "Domain": key.domain, "KeyFile": key.file, "Selector": key.selector,
        "Canonicalization": "relaxed/relaxed", "Socket": f"local:{folder}/socket", "PidFile": folder / "pid",
        "UserID": "root", "UMask": "000", "InternalHosts": "127.0.0.1",
    }  # fmt: skip
    (folder / "conf").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    places = [PEERS / name / "usr/lib/python3/dist-packages" for name in ("dkimpy-milter", "python3-authres")]
    command = [sys.executable, "-m", "dkimpy_milter", str(folder / "conf")]
    with _running(command, folder, {"PYTHONPATH": ":".join(map(str, places))}) as started:
        yield started


@contextmanager
def _running(command: list[str], folder: Path, env: dict[str, str]) -> Iterator[Started]:
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env={"PATH": os.defpath, **env}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        wait_for(folder / "socket", process)
        yield Started(f"unix:{folder}/socket", lambda: list(cpu.tree(process.pid)))
    finally:
        for pid in list(cpu.tree(process.pid)):
            os.kill(pid, 9)
        process.wait()


SIGNERS = [
    next(row for row in ROWS if row.name == FLOOR),
    Row("postmeter", "postmeter with keys and nothing else", _postmeter),
    Row("opendkim", "Debian's OpenDKIM", _opendkim),
    Row("rspamd", "Debian's rspamd, module dkim_signing only", _rspamd),
    Row("dkimpy-milter", "Debian's dkimpy-milter", _dkimpy),
]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
