"""policyd-rate-limit 1.0.1, Debian's package unpacked under build/peers: a policy server that counts in SQLite.

Its limits count messages in windows of some lengths, for it knows no other unit; each is a query over all stamps of the
login, and the message one more row. Who has no login is counted by address. It is asked over its own socket (Postfix's
SMTPD_POLICY_README): its protocol is in its figures, as ours is in those of `tests.bench`.
"""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from tests.bench.rows import wait_for
from tests.lab.folder import CLONE

PLACE = CLONE / "build" / "peers" / "policyd-rate-limit"
BOOK = "policyd.db"
WINDOWS = (86_400, 3600, 600, 604_800)


def missing() -> str:
    """Why it cannot be measured; empty when it can."""
    return "" if PLACE.is_dir() else "not unpacked: sh tests/lab/install.sh bench"


@contextmanager
def started(folder: Path, *, logins: int, stamps: int, windows: Sequence[int] = WINDOWS) -> Iterator[tuple[Path, int]]:
    """Its socket and its process id. Every login has sent `stamps` messages already."""
    address, book = folder / "policy", folder / BOOK
    settings = {
        "debug": False,
        "user": "root",
        "group": "root",
        "pidfile": str(folder / "policyd.pid"),
        "sqlite_config": {"database": str(book)},
        "backend": 0,
        "SOCKET": str(address),
        "limits": [[1_000_000_000, window] for window in windows],
        "limit_by_sasl": True,
        "limit_by_ip": True,
        "limited_networks": ["127.0.0.0/8"],
    }
    file = folder / "policyd.yaml"
    file.write_text(json.dumps(settings))  # JSON is YAML too
    command = [sys.executable, str(PLACE / "usr/bin/policyd-rate-limit"), "--file", str(file)]
    process = subprocess.Popen(
        command, env={"PYTHONPATH": str(PLACE / "usr/lib/python3/dist-packages")}, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(address, process)
        _fill(book, logins=logins, stamps=stamps)
        yield address, process.pid
    finally:
        process.kill()
        process.wait()


def ask(address: Path, logins: list[str]) -> None:
    """One client: a request after the other on one connection; the answer has to be that the message may pass."""
    with closing(socket.socket(socket.AF_UNIX)) as link:
        link.connect(str(address))
        for login in logins:
            link.sendall(f"request=smtpd_access_policy\nprotocol_state=RCPT\nsasl_username={login}\n\n".encode())
            answer = link.recv(1024)
            if answer != b"action=dunno\n\n":
                raise RuntimeError(f"policyd-rate-limit says {answer!r}")


def _fill(book: Path, *, logins: int, stamps: int) -> None:
    now = int(time.time())
    rows = ((f"user{login}@example.com", now - 500 + nth) for login in range(logins) for nth in range(stamps))
    with closing(sqlite3.connect(book)) as link, link:
        link.executemany("INSERT INTO mail_count VALUES (?, ?)", rows)
