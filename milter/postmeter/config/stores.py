"""Where quotas are kept besides the journal: the address of a Redis or Valkey, as `quota.store` names it.

Text in, value out; connects to nothing. The forms are those of redis-py (`redis.from_url`), but for passwords, which
stand in a file of their own, and for clusters, of which several nodes may be named.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from postmeter.config import values
from postmeter.config.problem import MistakeError, quoted
from postmeter.config.values import InetAddress, SocketAddress, UnixAddress

_PORT: Final = 6379
_KINDS: Final = ("redis", "rediss", "redis+cluster", "rediss+cluster", "redis+unix")
_FIX: Final = "write sqlite, redis://HOST:6379/0 or redis+unix:///PATH"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisStore:
    """`places` is one address, or for a cluster those of some of its nodes. `user` is empty for the default one."""

    places: tuple[SocketAddress, ...]
    user: str = ""
    database: int = 0
    tls: bool = False
    cluster: bool = False

    def __str__(self) -> str:
        return ", ".join(map(str, self.places))


def store(text: str) -> RedisStore | None:
    """None for sqlite. A password in the text is refused, and not repeated in the complaint."""
    if text == "sqlite":
        return None
    kind = values.scheme(text)
    user, at, rest = text.partition("://")[2].rpartition("@")
    if at and ":" in user:
        fix = "write it into a file of its own and name that in quota.store_password_file"
        raise MistakeError("a password does not stand in this file", fix)
    if kind not in _KINDS or "://" not in text:
        shown = "this" if "@" in text or "?" in text else quoted(text)  # there may be a password in it
        raise MistakeError(f"{shown} is not a store", _FIX)
    rest, asked, more = rest.partition("?")
    if asked and not (kind == "redis+unix" and re.fullmatch(r"db=[0-9]+", more)):
        fix = "leave it out; a password goes into the file that quota.store_password_file names"
        raise MistakeError("what stands behind the ? means nothing here", fix)
    if at and not re.fullmatch(r"[^\s/:@]{1,64}", user):
        raise MistakeError(f"{quoted(user)} is not a user of Redis", "write it like redis://postmeter@HOST:6379/0")
    if kind == "redis+unix":
        return _unix(rest, user, number=more.removeprefix("db=") or "0")
    return _inet(rest, user, tls=kind.startswith("rediss"), cluster=kind.endswith("+cluster"))


def _unix(path: str, user: str, *, number: str) -> RedisStore:
    return RedisStore(places=(UnixAddress(values.path(path)),), user=user, database=_database(number))


def _inet(text: str, user: str, *, tls: bool, cluster: bool) -> RedisStore:
    hosts, _, number = text.partition("/")
    places = tuple(_place(host) for host in hosts.split(","))
    database = _database(number or "0")
    if cluster and database:
        raise MistakeError("a cluster has one database, 0", "leave out the number at the end")
    if len(places) > 1 and not cluster:
        raise MistakeError("several hosts are a cluster", "write redis+cluster://HOST:6379,HOST:6379")
    return RedisStore(places=places, user=user, database=database, tls=tls, cluster=cluster)


def _place(text: str) -> InetAddress:
    """HOST:PORT; without a port it is Redis' own."""
    bare = text.endswith("]") if text.startswith("[") else ":" not in text
    try:
        return values.inet(f"{text}:{_PORT}" if bare else text)
    except MistakeError as mistake:
        raise MistakeError(mistake.what, f"write it like redis://redis.example.com:{_PORT}/0") from None


def _database(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise MistakeError(f"{quoted(text)} is not a database of Redis", "write its number, redis://HOST:6379/0")
    return int(text)
