"""Tells who gives an order about a login that the journal does not know, and which ones are called nearly so.

Refuses nothing: an order may come before the first message. An address or `local` is no login: none is missed there.
"""

from __future__ import annotations

import sys
from difflib import get_close_matches
from ipaddress import ip_network
from typing import TYPE_CHECKING

from postmeter.runtime.logs import one_line

if TYPE_CHECKING:
    from postmeter.store.database import Database

_NO_LOGINS = ("local", "unknown")
_CANDIDATES = 10_000  # a second's work for difflib
_NAMED = 3


def tell(command: str, login: str, book: Database) -> None:
    """On standard error, since the order itself is given."""
    from postmeter.store import logins

    name = login.lower()
    if _is_place(name) or logins.seen(book, name):
        return
    known = {spelled.lower() for spelled in logins.every(book)}
    if name not in known:
        told = f'no login "{one_line(login)}" is in the journal{_guess(name, known)}'
        print(f"postmeter {command}: {told}", file=sys.stderr)


def _is_place(name: str) -> bool:
    try:
        ip_network(name)
    except ValueError:
        return name in _NO_LOGINS
    return True


def _guess(name: str, known: set[str]) -> str:
    """Those of the same name elsewhere, or with no domain; and those of its domain that are spelled nearly so."""
    local, at, domain = name.partition("@")
    elsewhere = sorted(other for other in known if other.partition("@")[0] == local)
    beside = sorted(other.removesuffix(at + domain) for other in known if other.partition("@")[1:] == (at, domain))
    near = [one + at + domain for one in get_close_matches(local, beside[:_CANDIDATES], n=_NAMED)]
    found = [one_line(other) for other in (near + elsewhere)[:_NAMED]]
    return f"; did you mean {' or '.join(found)}?" if found else ""
