"""The least that signing and counting can cost a pymilter: nothing is decided, nothing checked, no link looked for.

`python -m tests.bench.least SOCKET KEY DATABASE`. Two processes, as postmeter has two workers. Each message is kept,
signed with one field and the simplest canonical forms (RFC 6376 3.4), handed back whole when it is long, as one with
links would be, and charged and written down in one transaction of two statements on SQLite: what this row reaches is
the bound for what postmeter can. Sets no limits and survives no bug: it is for the benchmark alone.
"""

from __future__ import annotations

import base64
import hashlib
import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import milter
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from postmeter.submission.server import ACTIONS, NO_REPLY, STEPS
from tests.bench.rows import DOMAIN, SELECTOR

_LONG = 10_000  # octets from which a body is handed back
_BEGIN = f" v=1; a=rsa-sha256; d={DOMAIN}; s={SELECTOR}; h=From; bh="
_TABLES = """
PRAGMA journal_mode = wal;
CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, reference BLOB, queue_id TEXT, sender TEXT, data TEXT);
CREATE INDEX IF NOT EXISTS by_reference ON events (reference);
CREATE TABLE IF NOT EXISTS charges (sender TEXT PRIMARY KEY, messages INTEGER NOT NULL) WITHOUT ROWID;
"""
_CHARGE = "INSERT INTO charges VALUES (?, 1) ON CONFLICT DO UPDATE SET messages = messages + 1"
_WRITE = "INSERT INTO events (reference, queue_id, sender, data) VALUES (?, ?, ?, ?)"
_DATA = "x" * 600  # octets: about what postmeter keeps of a message


class Book:
    """A process's own link to the database, which its threads take turns with."""

    def __init__(self, database: Path) -> None:
        self._lock = Lock()
        self._link = sqlite3.connect(database, timeout=20, isolation_level=None, check_same_thread=False)
        self._link.execute("PRAGMA synchronous = normal")

    def write(self, sender: str, queue_id: str) -> None:
        with self._lock:
            self._link.execute("BEGIN IMMEDIATE")
            self._link.execute(_CHARGE, (sender,))
            self._link.execute(_WRITE, (os.urandom(8), queue_id, sender, _DATA))
            self._link.execute("COMMIT")


class Least:
    """The callbacks, as pymilter's C module calls them; a message's state is a list: sender, From, chunks."""

    book: Book
    """Opened behind the fork, which no link to SQLite may cross."""

    def __init__(self, key: RSAPrivateKey) -> None:
        self._key = key

    def callbacks(self) -> dict[str, Callable[..., int]]:
        heard, asked = (lambda *event: NO_REPLY), (lambda *event: int(milter.CONTINUE))
        return {
            "connect": heard, "envfrom": self.mail, "envrcpt": heard, "header": self.header, "eoh": asked,
            "body": self.body, "eom": self.end, "abort": asked, "close": asked,
        }  # fmt: skip

    def mail(self, ctx: milter.milterContext, *args: bytes) -> int:
        ctx.setpriv([args[0].decode(), b"", []])
        return int(milter.CONTINUE)

    def header(self, ctx: milter.milterContext, name: str, value: bytes) -> int:
        if name == "From":
            ctx.getpriv()[1] = value
        return NO_REPLY

    def body(self, ctx: milter.milterContext, chunk: bytes) -> int:
        ctx.getpriv()[2].append(chunk)
        return NO_REPLY

    def end(self, ctx: milter.milterContext) -> int:
        sender, author, chunks = ctx.getpriv()
        body = b"".join(chunks)
        ctx.addheader("DKIM-Signature", self._signature(author, body), 0)
        if len(body) > _LONG:
            ctx.replacebody(body)
        self.book.write(sender, ctx.getsymval("i") or "")
        return int(milter.ACCEPT)

    def _signature(self, author: bytes, body: bytes) -> str:
        """Simple/simple over From; `author` begins with the white space behind the colon."""
        value = _BEGIN + base64.b64encode(hashlib.sha256(body).digest()).decode() + "; b="
        signed = b"From:" + author + b"\r\nDKIM-Signature:" + value.encode()
        return value + base64.b64encode(self._key.sign(signed, padding.PKCS1v15(), hashes.SHA256())).decode()


def main(place: str, key: str, database: str) -> None:
    os.umask(0)  # Postfix's user connects
    with sqlite3.connect(database) as link:
        link.executescript(_TABLES)
    loaded = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    assert isinstance(loaded, RSAPrivateKey)
    least = Least(loaded)
    for name, callback in least.callbacks().items():
        getattr(milter, f"set_{name}_callback")(callback)
    milter.setconn(f"unix:{place}")
    milter.set_exception_policy(milter.TEMPFAIL)
    milter.register("least", negotiate=_negotiate)
    milter.opensocket(True)
    os.fork()
    least.book = Book(Path(database))
    milter.main()


def _negotiate(ctx: milter.milterContext, options: list[Any]) -> int:
    options[0], options[1], options[2], options[3] = ACTIONS, STEPS & options[1], 0, 0
    return int(milter.CONTINUE)


if __name__ == "__main__":
    main(*sys.argv[1:])
