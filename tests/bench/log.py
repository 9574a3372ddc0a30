"""Postfix's log, read: lines a second, beside pflogsumm and Debian's prometheus-postfix-exporter on the same log.

    PYTHONPATH=milter:. build/venv/bin/python -m tests.bench.log [--lines 200000] [--rounds 5]

Each row is a process of its own that reads the whole log from its file; what counts is its processor time, start and
end included, the median of rounds in which the rows take turns. `parse` makes values of every line; `parse, correlate`
also puts them together, with all mail ours, so that each delivery becomes an event: what books does, but for the
journal, and with our record of who it went to in memory. pflogsumm (Perl) ends with its report. The exporter (Go)
begins at the end of a file, so the log is appended to an empty one, and it is done when its counter of removed messages
says so. A peer that is not installed is left out.

The log is made up, of a company's day: mail to one to three recipients, through submission with TLS, some of it
deferred, bounced or refused, between sessions that come to nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from postmeter.delivery import postfixlog, providers
from postmeter.delivery.correlate import Correlator
from postmeter.delivery.ours import Ours
from postmeter.runtime import oldlogs
from tests.lab.folder import CLONE

PEERS = CLONE / "build" / "peers"
NOW = 1_795_348_800.0  # 22 November 2026, noon in UTC
_RELAYS = (
    "gmail-smtp-in.l.google.com[142.250.102.27]:25",
    "example-net.mail.protection.outlook.com[52.101.73.1]:25",
    "mta7.am0.yahoodns.net[98.136.96.91]:25",
    "mx00.emig.gmx.net[212.227.15.9]:25",
    "mx.example.net[2001:db8::25]:25",
)
_LIMIT = 300.0  # seconds that a peer may take


def log(count: int, *, seed: int = 1) -> Iterator[str]:
    """About so many lines, stamps in order."""
    chance = random.Random(seed)
    written = 0
    number = 0
    while written < count:
        number += 1
        stamp = time.strftime("%b %e %H:%M:%S", time.gmtime(NOW - 86_400 + written * 86_400 / count))
        lines = _session(chance, number) if chance.random() < 0.85 else _nothing(chance)
        for tag, text in lines:
            written += 1
            yield f"{stamp} mx postfix/{tag}: {text}\n"


def _session(chance: random.Random, number: int) -> Iterator[tuple[str, str]]:
    queue_id = f"{chance.randrange(16**5):05X}{0x40000 + number:X}"
    client = f"client{chance.randrange(500)}.example.com[192.0.2.{chance.randrange(256)}]"
    smtpd = f"submission/smtpd[{chance.randrange(1000, 1100)}]"
    login = f"user{chance.randrange(300)}@example.com"
    sender = f"{login.partition('@')[0]}@example{chance.randrange(20)}.com"
    to = chance.randint(1, 3)
    yield smtpd, f"connect from {client}"
    yield smtpd, f"{queue_id}: client={client}, sasl_method=PLAIN, sasl_username={login}"
    yield "cleanup[1200]", f"{queue_id}: message-id=<{number}.{queue_id.lower()}@example.com>"
    yield "qmgr[1300]", f"{queue_id}: from=<{sender}>, size={chance.randrange(1000, 90_000)}, nrcpt={to} (queue active)"
    yield smtpd, f"disconnect from {client} ehlo=2 starttls=1 auth=1 mail=1 rcpt={to} data=1 quit=1 commands={to + 7}"
    bounced = False
    for _ in range(to):
        smtp = f"smtp[{chance.randrange(1400, 1450)}]"
        relay = chance.choice(_RELAYS)
        yield (
            smtp,
            f"Trusted TLS connection established to {relay}: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)",
        )
        outcome = _outcome(chance, relay)
        bounced = bounced or "bounced" in outcome
        address = f"reader{chance.randrange(50_000)}@example.net"
        yield smtp, f"{queue_id}: to=<{address}>, relay={relay}, delay=1.4, delays=0.08/0.02/0.85/0.45, {outcome}"
    if bounced:
        notice = f"{chance.randrange(16**5):05X}{0x90000 + number:X}"
        yield "cleanup[1200]", f"{notice}: message-id=<{notice}@mx.example.com>"
        yield "bounce[1500]", f"{queue_id}: sender non-delivery notification: {notice}"
        yield "qmgr[1300]", f"{notice}: from=<>, size=3412, nrcpt=1 (queue active)"
        yield (
            "local[1600]",
            (
                f"{notice}: to=<{sender}>, relay=local, delay=0.03, delays=0.01/0.01/0/0.01, dsn=2.0.0, "
                "status=sent (delivered to mailbox)"
            ),
        )
        yield "qmgr[1300]", f"{notice}: removed"
    yield "qmgr[1300]", f"{queue_id}: removed"


def _outcome(chance: random.Random, relay: str) -> str:
    draw = chance.random()
    host = relay.rpartition(":")[0]
    if draw < 0.03:
        said = f"host {host} said: 550 5.1.1 <x@example.net>: Recipient address rejected: User unknown"
        return f"dsn=5.1.1, status=bounced ({said} (in reply to RCPT TO command))"
    if draw < 0.1:
        said = f"host {host} said: 451 4.7.1 Greylisted, try again later"
        return f"dsn=4.7.1, status=deferred ({said} (in reply to RCPT TO command))"
    return f"dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as {chance.randrange(16**10):010X})"


def _nothing(chance: random.Random) -> Iterator[tuple[str, str]]:
    client = f"unknown[203.0.113.{chance.randrange(256)}]"
    smtpd = f"smtpd[{chance.randrange(1000, 1100)}]"
    yield smtpd, f"connect from {client}"
    if chance.random() < 0.5:
        yield (
            smtpd,
            (
                f"NOQUEUE: reject: RCPT from {client}: 554 5.7.1 Service unavailable; Client host blocked using "
                "zen.example.org; from=<spam@example.org> to=<joe@example.com> proto=ESMTP helo=<example.org>"
            ),
        )
    else:
        yield (
            smtpd,
            (
                f"NOQUEUE: milter-reject: RCPT from {client}: 451 4.7.1 Try again later; from=<spam@example.org> "
                "to=<joe@example.com> proto=ESMTP helo=<example.org>"
            ),
        )
    yield smtpd, f"lost connection after RCPT from {client}"
    yield smtpd, f"disconnect from {client} ehlo=1 mail=1 rcpt=0/1 commands=2/3"


# -- rows -------------------------------------------------------------------------------------------------------------


def parse(path: Path) -> int:
    """Every line as a value; how many are Postfix's."""
    return sum(postfixlog.parse(line.data, now=NOW) is not None for line in oldlogs.read(path))


def correlate(path: Path) -> int:
    """Every line put together; how many events came of it."""
    ours = _mine(path)
    together = Correlator((), lookup=ours, provider=providers.read(None), lifetime=5 * 86_400.0, forget=14 * 86_400.0)
    events = 0
    for number, line in enumerate(oldlogs.read(path)):
        found = postfixlog.parse(line.data, now=NOW)
        if found is not None:
            together.take(found, clock=NOW)
        if number % 2000 == 0:
            events += len(together.told().events)
    return events + len(together.told().events)


def _mine(path: Path) -> Callable[[str, float, float], Ours | None]:
    """Every message that a client sent is ours; notices of Postfix are not."""
    recipients = json.loads(_record(path).read_text())

    def lookup(queue_id: str, since: float, until: float) -> Ours | None:
        if queue_id not in recipients:
            return None
        return Ours(time=until, reference=queue_id, from_domain="example.com", recipients=tuple(recipients[queue_id]))

    return lookup


def _record(path: Path) -> Path:
    return path.with_suffix(".json")


def recipients(path: Path) -> dict[str, list[str]]:
    """Who our own record would say that each message went to."""
    found: dict[str, list[str]] = {}
    for queue_id, address in re.findall(r"smtp\[\d+\]: (\w+): to=<([^>]+)>", path.read_text()):
        found.setdefault(queue_id, []).append(address)
    return found


def _own(row: str) -> Callable[[Path], float]:
    def run(path: Path) -> float:
        return _spent([sys.executable, "-m", "tests.bench.log", "--row", row, str(path)])

    return run


def pflogsumm(path: Path) -> float:
    return _spent(["perl", str(_program("pflogsumm")), str(path)])


def exporter(path: Path) -> float:
    """Its processor time when it has counted every `removed`."""
    removed = sum(b"]: " in line and line.endswith(b": removed\n") and b"/qmgr[" in line for line in path.open("rb"))
    from tests.lab import dns  # not for our own rows, which would pay for it

    port = dns.free_port()
    growing = path.with_name("growing.log")
    growing.write_bytes(b"")
    command = [str(_program("prometheus-postfix-exporter")), f"--web.listen-address=127.0.0.1:{port}"]
    command += [f"--postfix.logfile_path={growing}", "--postfix.showq_path=/nonexistent"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(process, port, 0)
        growing.write_bytes(path.read_bytes())
        _wait(process, port, removed)
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    finally:
        process.terminate()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, removed: int) -> None:
    end = time.monotonic() + _LIMIT
    while _counted(port) < removed:
        if time.monotonic() > end or process.poll() is not None:
            raise RuntimeError("prometheus-postfix-exporter did not read the log")
        time.sleep(0.2)


def _counted(port: int) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return -1
    found = [line.split()[1] for line in lines if line.startswith("postfix_qmgr_messages_removed_total")]
    return int(float(found[0])) if found else -1


def _program(name: str) -> Path | None:
    folder = PEERS / name / "usr"
    places = (folder / "bin" / name, folder / "sbin" / name)
    found = next((place for place in places if place.exists()), None) or shutil.which(name)
    return Path(found) if found else None


def _spent(command: Sequence[str]) -> float:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime


OWN = {"parse": parse, "parse, correlate": correlate}
PEER_ROWS = {"pflogsumm": pflogsumm, "prometheus-postfix-exporter": exporter}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests.bench.log", description="Lines of a log a second.")
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.row:
        OWN[options.row[0]](Path(options.row[1]))
        return 0
    rows = {name: _own(name) for name in OWN} | {name: row for name, row in PEER_ROWS.items() if _program(name)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mail.log"
        with path.open("w") as file:
            file.writelines(log(options.lines))
        _record(path).write_text(json.dumps(recipients(path)))
        count = sum(1 for _ in path.open("rb"))
        print(f"{count:,} lines, {path.stat().st_size:,} octets; CPU time, median of {options.rounds} rounds")
        spent: dict[str, list[float]] = {name: [] for name in rows}
        for _ in range(options.rounds):
            for name, row in rows.items():
                spent[name].append(row(path))
    for name, seconds in spent.items():
        middle = statistics.median(seconds)
        spread = (max(seconds) - min(seconds)) / middle
        print(f"  {name:<28} {count / middle:>10,.0f} lines/s   spread {spread:.0%}")
    for name in PEER_ROWS.keys() - rows.keys():
        print(f"  {name}: not installed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
