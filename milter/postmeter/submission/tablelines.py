"""Lines of OpenDKIM's text tables, and its patterns: what a `file:` and a `refile:` say.

Knows nothing of what keys and values mean. After opendkim(8), DATA SETS; where that is silent, after what Debian's
opendkim 2.11 does, which the tests ask.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from postmeter.submission.keyfiles import KeyProblem, unreadable

_SPACE = b" \t\v\f\r"  # what isspace(3) means in the C locale
_LIVE = frozenset("^$[](){}|?\\")  # of POSIX's extended regular expressions, the rest is escaped (dkimf_mkregexp)
_UNLIKE = re.compile(r"\\|\[[:.=]|\(\?")  # what POSIX and Python understand differently


@dataclass(frozen=True, slots=True)
class Line:
    """`number` counts from 1; `value` is all behind the first white space, and empty where there is nothing."""

    number: int
    key: str
    value: str


def read(path: Path, *, globs: bool) -> list[Line]:
    """The lines that say something; those of a `refile:` that begin with white space do not. Raises KeyProblem."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    return list(_lines(data, globs))


def _lines(data: bytes, globs: bool) -> Iterator[Line]:
    for number, raw in enumerate(data.split(b"\n"), 1):
        said = raw.partition(b"#")[0]
        if globs and said[:1] in (b" ", b"\t", b"\v", b"\f", b"\r"):
            continue
        parts = said.strip(_SPACE).split(None, 1)
        if parts:
            key, value = parts if len(parts) == 2 else (parts[0], b"")
            yield Line(number, key.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape"))


def indented(path: Path) -> Iterator[int]:
    """Lines of a `refile:` that look as if they said something, and do not: OpenDKIM passes over them in silence."""
    for number, raw in enumerate(path.read_bytes().split(b"\n"), 1):
        if raw[:1].isspace() and raw.partition(b"#")[0].strip():
            yield number


class Globs:
    """Patterns in the order of their file. Finds those that match without trying them all, whatever their number.

    A pattern can only match what ends as it does. So each lies under the domain it ends in or, where only the end of
    one is fixed (`*@*.example.com`), under the part of that from its first dot on; the rest is tried every time.
    """

    def __init__(self, lines: Iterable[Line], *, path: Path) -> None:
        self._exact: dict[str, list[Line]] = {}
        self._ends: dict[str, list[Line]] = {}
        for line in lines:
            if is_exact(line.key):
                self._exact.setdefault(line.key, []).append(line)
            else:
                _check(line, path)
                self._ends.setdefault(_end(line.key), []).append(line)

    def matches(self, subject: str) -> Sequence[Line]:
        """In the order of the file."""
        found = list(self._exact.get(subject, ()))
        found += [line for line in self.near(subject) if _regex(line.key).search(subject)]
        return sorted(found, key=lambda line: line.number)

    def near(self, subject: str) -> Iterator[Line]:
        """Patterns with * whose end could be the subject's."""
        for end in dict.fromkeys(ends(subject)):  # a domain of one dot ends as it is
            yield from self._ends.get(end, ())


def ends(subject: str) -> Iterator[str]:
    """`example.com`, `.com` and the empty one for x@example.com."""
    domain = subject.rpartition("@")[2]
    yield domain
    yield from dotted(domain)
    yield ""


def dotted(domain: str) -> Iterator[str]:
    """`.example.com` and `.com` for sub.example.com."""
    at = domain.find(".")
    while at >= 0:
        yield domain[at:]
        at = domain.find(".", at + 1)


def is_exact(pattern: str) -> bool:
    return "*" not in pattern and _LIVE.isdisjoint(pattern)


def reaches(pattern: str, domain: str) -> bool:
    """Whether a pattern could match some address of a domain."""
    if not _LIVE.isdisjoint(pattern):
        return _regex(pattern).search(f"postmaster@{domain}") is not None
    before, at, host = pattern.rpartition("@")
    if at:
        return bool(before) and _regex(host).search(domain) is not None
    # Some * has to stand for the @ too. With the last one, all before it can be matched by the local part.
    return "*" in pattern and _regex(pattern[pattern.rindex("*") :]).search(domain) is not None


def _check(line: Line, path: Path) -> None:
    if _LIVE.isdisjoint(line.key):
        return
    fix = "write only * for what may be anything"
    if _UNLIKE.search(line.key):
        raise KeyProblem(path, f"line {line.number}: the pattern {line.key!r} is not understood", fix)
    try:
        _regex(line.key)
    except re.error as error:
        raise KeyProblem(path, f"line {line.number}: the pattern {line.key!r} is broken: {error}", fix) from None


def _end(pattern: str) -> str:
    if not _LIVE.isdisjoint(pattern):
        return ""
    tail = pattern.rpartition("*")[2]
    if "@" in tail:
        return tail.rpartition("@")[2]
    return tail[tail.index(".") :] if "." in tail else ""


@lru_cache(maxsize=10_000)
def _regex(pattern: str) -> re.Pattern[str]:
    """`*`, `+` and `.` are as in a glob; other marks keep the meaning that a regular expression gives them."""
    text = pattern.replace("+", r"\+").replace(".", r"\.").replace("*", ".*")
    return re.compile(f"^{text}$", re.DOTALL)
