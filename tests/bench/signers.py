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
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from tests.bench import cpu, peers, wire
from tests.bench.messages import Mail, newsletter, plain
from tests.bench.rows import DOMAIN, FLOOR, ROWS, SELECTOR, Row, Started
from tests.lab.folder import give
from tests.lab.product import Postmeter

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
        if reason := peers.missing(row.name):
            print(f"{row.name}: {reason}", file=sys.stderr)
    found = measure([row for row in rows if not peers.missing(row.name)], options.rounds)
    print("\n".join(table(found)))
    return 0


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


@contextmanager
def _postmeter(folder: Path) -> Iterator[Started]:
    postmeter = Postmeter({"milter": {"workers": 2}}, daemons=("milter",), folder=give(folder / "postmeter", "root"))
    postmeter.key(DOMAIN, SELECTOR)
    with postmeter:
        milter = postmeter.processes["milter"].pid
        yield Started(address=postmeter.milter, pids=lambda: list(cpu.tree(milter)), postmeter=postmeter)


SIGNERS = [
    next(row for row in ROWS if row.name == FLOOR),
    Row("postmeter", "postmeter with keys and nothing else", _postmeter),
    Row("opendkim", "Debian's OpenDKIM", peers.unix(peers.opendkim)),
    Row("rspamd", "Debian's rspamd, module dkim_signing only", peers.unix(peers.rspamd)),
    Row("dkimpy-milter", "Debian's dkimpy-milter", peers.unix(peers.dkimpy)),
]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
