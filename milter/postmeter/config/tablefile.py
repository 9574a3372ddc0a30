"""A table of OpenDKIM's as opendkim.conf names it: a file, or a file of patterns (opendkim(8), DATA SETS).

Knows nothing of what stands in it. Tables that are no text file are refused with what to do instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from postmeter.config import values
from postmeter.config.problem import MistakeError, quoted

_EXPORT = "write its rows to a text file, again after each change, and name that file"
_OTHERS = {
    "csl": ("a list in the configuration itself", "write it to a text file, an entry a line, and name that file"),
    "db": ("a Berkeley DB", "name the text file that it was made from, or write one out of `db_dump -p`"),
    "dsn": ("an SQL database", _EXPORT),
    "ldap": ("an LDAP directory", _EXPORT),
    "ldapi": ("an LDAP directory", _EXPORT),
    "ldaps": ("an LDAP directory", _EXPORT),
    "lua": ("a Lua script", _EXPORT.replace("rows", "answers")),
    "mdb": ("an LMDB database", _EXPORT),
    "memcache": ("a memory cache", _EXPORT),
    "erlang": ("an Erlang node", _EXPORT),
    "socket": ("a server's", _EXPORT),
}


@dataclass(frozen=True, slots=True)
class TableFile:
    """`globs`: its keys are patterns in which * stands for anything, and the first line that matches counts."""

    path: Path
    globs: bool = False

    def __str__(self) -> str:
        return f"refile:{self.path}" if self.globs else str(self.path)


def shown(text: str) -> str:
    """A data set as complaints name it: what is no file may have a password in it."""
    kind, colon, _ = text.partition(":")
    return f"{kind}:…" if colon and kind.lower() in set(_OTHERS) - {"csl", "db"} else text


def table_file(text: str) -> TableFile:
    """`/path`, `file:/path` or `refile:/path`."""
    kind, colon, rest = text.partition(":")
    word = kind.lower()
    if colon and "/" not in kind and word in _OTHERS:
        what, fix = _OTHERS[word]
        raise MistakeError(f"{quoted(shown(text))} is {what}, which is not read", fix)
    if colon and word in ("file", "refile"):
        return TableFile(values.path(rest.strip()), globs=word == "refile")
    if text.endswith(".db"):
        what, fix = _OTHERS["db"]
        raise MistakeError(f"{quoted(text)} is {what} by its name, which is not read", fix)
    return TableFile(values.path(text))
