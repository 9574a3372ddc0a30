"""How many bounces a second are taken, and how many are in the journal: a storm of them, over LMTP.

    PYTHONPATH=milter:. build/venv/bin/python -m tests.bench.returns [--bounces 2000] [--clients 10]

`postmeter books` as a process. Each bounce is of another recipient, and all of one message with as many of them, which
is the worst case: that message's record is the longest. What Postfix takes is told by the listener's replies, and each
of those comes after an fsync. The last line compares the journal with what was sent.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import shutil
import smtplib
import sqlite3
import sys
import threading
import time
from pathlib import Path

from postmeter.events import Submitted
from postmeter.store.journal import Journal
from postmeter.tag import Tagger, tagged
from postmeter.token import parse_secrets
from tests.lab.ports import free_port
from tests.lab.product import Postmeter
from tests.lab.reports import dsn

ALICE = "alice@example.com"


def storm(*, bounces: int, clients: int) -> tuple[float, float, int]:
    """Seconds until all were taken, seconds until all were recorded, and how many are in the journal."""
    postmeter = Postmeter(daemons=("books",))
    port = free_port()
    secret = postmeter.folder / "bounces.secrets"
    secret.write_text(f"{secrets.token_hex(32)}\n")
    shutil.chown(secret, postmeter.user)
    secret.chmod(0o600)
    postmeter.settings["bounces"] = {
        "domains": {"example.com": "bounces@example.com"}, "secrets": str(secret), "lmtp": f"inet:127.0.0.1:{port}",
    }  # fmt: skip
    recipients = tuple(f"r{number}@example.net" for number in range(bounces))
    with postmeter:
        reference = secrets.token_bytes(8)
        _submit(postmeter.state / "journal.db", reference, recipients)
        to = tagged("bounces@example.com", Tagger(parse_secrets(secret.read_text())).tag(reference), delimiter="+")
        start = time.perf_counter()
        _send(port, [(to, dsn(name, to=to)) for name in recipients], clients)
        taken = time.perf_counter() - start
        while (recorded := _recorded(postmeter.state)) < bounces and time.perf_counter() - start < 600:
            time.sleep(0.05)
        return taken, time.perf_counter() - start, recorded


def _submit(path: Path, reference: bytes, recipients: tuple[str, ...]) -> None:
    journal = Journal(path, host="lab")
    message = Submitted(
        source="eom:1", time=time.time(), queue_id="1", reference=reference.hex(), message_id="<1@example.com>",
        login=ALICE, sender=ALICE, service="ORIGINATING", mail_from=ALICE, from_domain="example.com",
        recipients=recipients, size=1,
    )  # fmt: skip
    journal.record([message])
    journal.close()


def _send(port: int, reports: list[tuple[str, bytes]], clients: int) -> None:
    def send(mine: list[tuple[str, bytes]]) -> None:
        with smtplib.LMTP("127.0.0.1", port, timeout=60) as client:
            for to, raw in mine:
                client.sendmail("", [to], raw)

    threads = [threading.Thread(target=send, args=(reports[number::clients],)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _recorded(state: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{state / 'journal.db'}?mode=ro", uri=True)) as link:
        return int(link.execute("SELECT count(*) FROM events WHERE kind = 'bounced'").fetchone()[0])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.returns", description=__doc__)
    parser.add_argument("--bounces", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=10)
    options = parser.parse_args(arguments)
    taken, recorded, found = storm(bounces=options.bounces, clients=options.clients)
    print(f"{options.bounces} bounces by {options.clients} clients, all of one message")
    print(f"taken     {taken:6.1f} s   {options.bounces / taken:7.0f} a second")
    print(f"recorded  {recorded:6.1f} s   {options.bounces / recorded:7.0f} a second")
    print(f"in the journal: {found}{'' if found == options.bounces else '   WRONG'}")
    return 0 if found == options.bounces else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
