"""The words of an SPF record: its mechanisms, its redirect, and macros as far as no message is needed for them.

Pure. Knows nothing of DNS and of what a term means for an address. RFC 7208 sections 4.6.1, 5, 6 and 7.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass

RESULTS = {"+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}
ASKING = frozenset({"include", "a", "mx", "ptr", "exists"})
"""Mechanisms that cost a question (section 4.6.4); `redirect` is one more."""

_KNOWN = ASKING | {"ip4", "ip6", "all"}
_NEEDY = frozenset({"include", "exists", "ip4", "ip6"})  # with a value always
_LENGTHS = frozenset({"a", "mx"})  # with two lengths of a network; ip4 and ip6 with one
_LENGTH = "(?:0|[1-9][0-9]{0,2})"
_TERM = re.compile(rf"([+?~-]?)([A-Za-z][\w.-]*)(:?)([^\s]*?)(/{_LENGTH})?(//{_LENGTH})?", re.ASCII)
_MODIFIER = re.compile(r"([A-Za-z][\w.-]*)=(.*)", re.ASCII)
_MACRO = re.compile(r"%(?:\{([a-zA-Z])([0-9]{0,3})([rR]?)([.+,/_=-]*)\}|([%_-])|)")
_PLAIN = {"%": "%", "_": " ", "-": "%20"}
_LETTERS = frozenset("slodiphv")  # c, r and t are for explanations only (section 7.2)
_ANY = dict.fromkeys(_LETTERS, "a")
_END = re.compile(r"(\}|%[%_-])\Z")
_NUMBERS = frozenset("0123456789abcdefABCDEF.:")
_LONGEST = 253  # octets of a name (section 7.3)
_SHOWN = 60


class GrammarError(ValueError):
    """What no receiver takes for SPF; the whole record counts for nothing then."""


@dataclass(frozen=True, slots=True)
class Term:
    """A mechanism. `four` and `six` are lengths of networks, empty where none is given."""

    sign: str
    kind: str
    value: str
    four: str = ""
    six: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    terms: tuple[Term, ...]
    redirect: str = ""


def parse(text: str) -> Record:
    """All of a record, for a mistake anywhere in it spoils it (section 4.6). Raises GrammarError."""
    strange = next((char for char in text if not " " <= char <= "~"), "")
    if strange:
        raise GrammarError(f"{strange!r} stands in it")
    terms: list[Term] = []
    modifiers: dict[str, str] = {}
    for word in filter(None, text.split(" ")[1:]):
        modifier = _MODIFIER.fullmatch(word)
        if modifier is None:
            terms.append(_mechanism(word))
            continue
        name = modifier[1].lower()
        if name in modifiers and name in ("redirect", "exp"):
            raise GrammarError(f"{name}= stands there twice")
        modifiers[name] = modifier[2]
        _looked_through(modifier[2], word, domain=name in ("redirect", "exp"))
    return Record(tuple(terms), modifiers.get("redirect", ""))


def _mechanism(word: str) -> Term:
    found = _TERM.fullmatch(word)
    kind = found[2].lower() if found else ""
    if found is None or kind not in _KNOWN or bool(found[3]) != bool(found[4]):
        raise GrammarError(f"{word[:_SHOWN]!r} is nothing that SPF knows")
    term = Term(found[1] or "+", kind, found[4], (found[5] or "")[1:], (found[6] or "")[2:], word)
    if (kind in _NEEDY and not term.value) or (kind == "all" and term.value):
        raise GrammarError(f"{word[:_SHOWN]!r} lacks its value, or has one too many")
    if (term.four or term.six) and kind not in _LENGTHS | {"ip4", "ip6"}:
        raise GrammarError(f"{word[:_SHOWN]!r} has no networks")
    if kind in ("ip4", "ip6"):
        network(term)
    elif term.value:
        _looked_through(term.value, word, domain=True)
    if kind in _LENGTHS and (int(term.four or 0) > 32 or int(term.six or 0) > 128):  # bits of an address
        raise GrammarError(f"{word[:_SHOWN]!r} is no network")
    return term


def _looked_through(text: str, word: str, *, domain: bool) -> None:
    """Its macros, and whether a `domain` ends in one or in a top label that is one (section 7.1)."""
    expand(text, _ANY)
    label = text.removesuffix(".").rpartition(".")
    letters = label[2].replace("-", "")
    whole = bool(label[1]) and letters.isalnum() and not label[2].startswith("-") and not label[2].endswith("-")
    if domain and not (whole and ("-" in label[2] or not letters.isdigit())) and not _END.search(text):
        raise GrammarError(f"{word[:_SHOWN]!r} names no domain")


def network(term: Term) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Of ip4 and ip6. Raises GrammarError."""
    kind = ipaddress.IPv4Network if term.kind == "ip4" else ipaddress.IPv6Network
    try:
        if term.six or not _NUMBERS.issuperset(term.value):
            raise ValueError
        return kind(f"{term.value}/{term.four}" if term.four else term.value, strict=False)
    except ValueError:
        raise GrammarError(f"{term.text[:_SHOWN]!r} is no network") from None


def expand(text: str, known: Mapping[str, str]) -> str | None:
    """A name with its macros put in (section 7); None where one of them is not `known`, and needs a message.

    `known` is by lower-case letter. Raises GrammarError.
    """
    needed = False

    def put(found: re.Match[str]) -> str:
        nonlocal needed
        if found[5]:
            return _PLAIN[found[5]]
        letter = (found[1] or "").lower()
        if letter not in _LETTERS or (found[2] and int(found[2]) == 0):
            raise GrammarError(f"{text[:_SHOWN]!r} has a macro that is none")
        needed |= letter not in known
        return _transformed(known.get(letter, ""), found)

    name = _MACRO.sub(put, text)
    while len(name) > _LONGEST and "." in name:
        name = name.partition(".")[2]
    return None if needed else name


def _transformed(value: str, found: re.Match[str]) -> str:
    """Cut at the delimiters, turned round, the last so many parts taken (section 7.3)."""
    parts = re.split(f"[{re.escape(found[4] or '.')}]", value)
    if found[3]:
        parts.reverse()
    return ".".join(parts[-int(found[2]) :] if found[2] else parts)
