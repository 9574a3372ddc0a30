"""An address as a keyed hash: enough to know it again, of no use to whoever has not this database.

`hash:` and 32 hexadecimal digits, which is no address: a colon stands in none unquoted (RFC 5321 section 4.1.2).
BLAKE2b (RFC 7693) under a key that the database made for itself, once. An address is one person's in upper and lower
case alike (`mail.scope`).
Knows nothing of when an address is to be hashed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from sqlite3 import Connection

from postmeter.mail.scope import canonical
from postmeter.store.database import Database

PREFIX = "hash:"

_FORM = re.compile(r"hash:[0-9a-f]{32}")
_KEY = "SELECT key FROM veil"


def key(link: Connection) -> bytes:
    """The key, for who has a connection."""
    ((found,),) = link.execute(_KEY).fetchall()
    return bytes(found)


def read_key(database: Database) -> bytes:
    """The key, for who has the database. StoreError when it cannot be read."""
    ((found,),) = database.query(_KEY)
    return bytes(found)


def hashed(address: str, key: bytes) -> str:
    """The address's hash; a hash stays as it is, and nobody stays nobody."""
    if not address or is_hashed(address):
        return address
    name = canonical(address).encode("utf-8", "backslashreplace")
    return PREFIX + blake2b(name, key=key, digest_size=16, person=b"postmeter veil").hexdigest()


def is_hashed(text: str) -> bool:
    return _FORM.fullmatch(text) is not None


def forms(address: str, key: bytes) -> tuple[str, str]:
    """What an address may stand as: in its one spelling, and hashed."""
    return canonical(address), hashed(address, key)


def known_as(link: Connection, address: str) -> tuple[str, str]:
    """The same, for who has a connection: `WHERE recipient IN (?, ?)`."""
    return forms(address, key(link))


def named(address: str, names: Iterable[str], key: bytes) -> str:
    """How one of these names that address, spelled otherwise or hashed; empty where none does.

    Who records what became of a recipient calls it as its message does: so both stay together when it is hashed.
    """
    plain, veiled = forms(address, key)
    return next((name for name in names if name == veiled or canonical(name) == plain), "")
