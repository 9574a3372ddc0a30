"""The address of a database of all hosts, as `journal.ship_to` names it. Text in, text out; connects to nothing.

The forms are those of libpq (PostgreSQL's manual, 34.1.1.2), but for passwords, which stand in a file of their own.
"""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from postmeter.config import values
from postmeter.config.problem import MistakeError, quoted

_FIX: Final = "write it like postgresql://postmeter@db.example.com/name"
_SECRETS: Final = frozenset({"password", "sslpassword"})
VERIFIED: Final = frozenset({"verify-ca", "verify-full"})
"""Values of `sslmode` with which nobody else can pretend to be the server."""


def address(text: str) -> str:
    """The address itself. A password in it is refused, and not repeated in the complaint."""
    if values.scheme(text) not in ("postgresql", "postgres") or "://" not in text or any(map(str.isspace, text)):
        shown = "this" if "@" in text or "?" in text else quoted(text)  # there may be a password in it
        raise MistakeError(f"{shown} is not a PostgreSQL address", _FIX)
    try:
        where = urlsplit(text)
        asked = parse_qs(where.query, keep_blank_values=True, strict_parsing=bool(where.query))
    except ValueError:
        raise MistakeError("this is not a PostgreSQL address", _FIX) from None
    if ":" in where.netloc.rpartition("@")[0] or _SECRETS & asked.keys():
        fix = "write it into a file of its own and name that in journal.ship_password_file"
        raise MistakeError("a password does not stand in this file", fix)
    return text


def leaves_this_host(text: str) -> bool:
    """Whether the way to the database is a network's: neither a unix socket nor loopback."""
    where = urlsplit(text)
    asked = parse_qs(where.query)
    named = asked.get("host") or asked.get("hostaddr") or [unquote(where.netloc.rpartition("@")[2])]
    return any(not _here(host) for name in named for host in name.split(","))


def ssl_mode(text: str) -> str:
    """What is asked of TLS; `prefer` is libpq's own choice."""
    return parse_qs(urlsplit(text).query).get("sslmode", ["prefer"])[-1]


def _here(place: str) -> bool:
    host = place.partition("]")[0].removeprefix("[") if place.startswith("[") else place.rpartition(":")[0] or place
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("", "localhost") or host.startswith(("/", "@"))
