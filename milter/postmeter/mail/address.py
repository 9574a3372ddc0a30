"""Addresses: their text for people, their parts, the From field's.

Bytes in, text out; never raises on what a client may send (RFC 5321 4.1.2, RFC 5322 3.4, RFC 6531).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TypeAlias

from postmeter.mail.message import Field


def text(raw: bytes) -> str:
    """An address or header value as text that any log, database or JSON document can hold; foreign bytes as \\xNN."""
    return raw.decode("utf-8", "backslashreplace")


def is_utf_8(raw: bytes) -> bool:
    """Whether libmilter's binding can hand it back to Postfix: it takes text for addresses and fields, no octets."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def bare(raw: bytes) -> bytes:
    """An envelope address without its angle brackets (RFC 5321 4.1.2 Reverse-path)."""
    raw = raw.strip()
    return raw[1:-1] if raw[:1] == b"<" and raw[-1:] == b">" else raw


def domain(address: str) -> str:
    """The part behind the last @, as `ascii_domain` has it; empty when there is none."""
    return ascii_domain(address.rpartition("@")[2].rstrip(".")) if "@" in address else ""


def ascii_domain(domain: str) -> str:
    """A domain as DNS has it: lower case, no final dot, A-labels for U-labels (C23).

    A U-label that is valid is in NFC and lower case (RFC 5891 section 5.3), so its Punycode is its A-label. Others get
    a name that no key bears: no mapping by IDNA2003, which would take faß.example for fass.example.
    """
    name = domain.lower().removesuffix(".")
    if name.isascii():
        return name
    return ".".join(label if label.isascii() else f"xn--{_punycode(label)}" for label in name.split("."))


def _punycode(label: str) -> str:
    return label.encode("punycode", "backslashreplace").decode("ascii", "backslashreplace")


def from_addresses(fields: Iterable[Field]) -> list[str]:
    """The addresses of all From fields, in their order, each as `local@domain`; empty when there is any doubt.

    A signature for another's domain is the classic fault of signers, and programs that show mail disagree on every
    broken From. So what two readers could read differently is read as nothing: an unquoted @ or comma in a name that
    is not the address itself, an unclosed quote, text behind the address, routes, white space, an encoded word or a
    quoted @ within an address, control characters.
    """
    found: list[str] = []
    for field in fields:
        if field.key == b"from":
            addresses = mailboxes(field.value)
            if not addresses:
                return []
            found += addresses
    return found


def mailboxes(value: bytes) -> list[str]:
    """The addresses of a header value (RFC 5322 3.4 address-list, groups opened up); empty when one is in doubt."""
    return list(_known(value) if len(value) <= _SHORT else _read(value))


def _read(value: bytes) -> tuple[str, ...]:
    try:
        elements = list(_elements(_tokens(value)))
        return tuple([_address(element).decode("utf-8") for element in elements if element])
    except _DoubtError:
        return ()
    except UnicodeDecodeError:  # an address is ASCII or UTF-8 (RFC 6532 3.2); a display name may be anything
        return ()


# Several steps ask for the authors of one message, and a sender writes the same From field into thousands: reading it
# takes 15 µs. What is kept of senders' values is half a megabyte at most.
_SHORT = 256  # octets
_known = lru_cache(maxsize=1024)(_read)


class _DoubtError(ValueError):
    """Not an address list, or one that could be read in two ways."""


_Token: TypeAlias = tuple[str, bytes]
"""What it is ("word", "quoted", "literal", "bracket", or a special as itself; "apart" for space and comments), and its
text."""

_TOKEN = re.compile(
    rb"""(?P<apart>[ \t\r\n]+)
    |(?P<quoted>"[^"\\]*(?:\\.[^"\\]*)*")
    |(?P<literal>\[[0-9A-Za-z.:]+\])
    |(?P<bracket>[\[\]])
    |(?P<word>[^\s()<>@,;:"\\\[\]]+)
    |(?P<special>[<>@,;:(])""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT_MARK = re.compile(rb"[()]|\\.?", re.DOTALL)
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")  # some programs end a line at a bare CR
_DOMAIN = re.compile(rb"[^.]+(?:\.[^.]+)*\.?")
_ENCODED = re.compile(rb"=\?[^?]*\?[bq]\?", re.IGNORECASE)  # how one begins: where it ends programs disagree
_APART = ("apart", b"")


def _tokens(value: bytes) -> Iterator[_Token]:
    """The value cut up, each byte looked at once or twice."""
    if _CONTROL.search(value):
        raise _DoubtError
    at = 0
    while at < len(value):
        match = _TOKEN.match(value, at)
        if match is None or match.lastgroup is None:  # an unclosed quote, a stray backslash or closing mark
            raise _DoubtError
        at = match.end()
        if match.group() == b"(":
            at = _comment_end(value, at)
            yield _APART
        elif match.lastgroup == "special":
            yield match.group().decode(), match.group()
        else:
            yield match.lastgroup, match.group()


def _comment_end(value: bytes, at: int) -> int:
    """Behind the parenthesis that closes the one before `at`; comments nest (RFC 5322 3.2.2)."""
    depth = 1
    for mark in _COMMENT_MARK.finditer(value, at):
        depth += {b"(": 1, b")": -1}.get(mark.group(), 0)
        if not depth:
            return mark.end()
    raise _DoubtError


def _elements(tokens: Iterable[_Token]) -> Iterator[list[_Token]]:
    """The mailboxes between commas, those within groups too; an empty one for an empty place in the list."""
    element: list[_Token] = []
    grouped = closed = False
    for token in tokens:
        kind = token[0]
        if kind == ":" and not grouped and not closed:
            _phrase(element, least=1)
            element, grouped = [], True
        elif kind == ";" and grouped:
            yield element
            element, grouped, closed = [], False, True
        elif kind == ",":
            yield element
            element, closed = [], False
        elif closed and kind != "apart":
            raise _DoubtError
        elif kind != "apart" or (element and element[-1][0] != "apart"):
            element.append(token)
    if grouped:
        raise _DoubtError
    yield element


def _address(element: list[_Token]) -> bytes:
    """The address of one mailbox: `name <local@domain>` or `local@domain`."""
    element = element[:-1] if element[-1][0] == "apart" else element
    kinds = [kind for kind, _ in element]
    if "<" not in kinds:
        return _spec(element)
    opened = kinds.index("<")
    if kinds[-1] != ">":
        raise _DoubtError
    name, inner = element[:opened], element[opened + 1 : -1]
    spec = _spec([token for nth, token in enumerate(inner) if token[0] != "apart" or 0 < nth < len(inner) - 1])
    if b"".join([text for _, text in name]).strip().lower() != spec.lower():  # said twice it is in no doubt
        _phrase(name, least=0)
    return spec


def _spec(tokens: list[_Token]) -> bytes:
    """`local@domain` without white space or comments inside, which RFC 5322 4.4 calls obsolete.

    Nor with an encoded word (RFC 2047 section 5): some programs decode it there, and show what it says for the address.
    Nor with a quoted @: some take what is quoted for the address, or what follows the first @ for the domain.
    """
    if len(tokens) != 3:
        raise _DoubtError
    (local_kind, local), (at, _), (domain_kind, domain_text) = tokens
    if at != "@" or local_kind not in ("word", "quoted") or domain_kind not in ("word", "literal"):
        raise _DoubtError
    if domain_kind == "word" and not _DOMAIN.fullmatch(domain_text):
        raise _DoubtError
    spec = local + b"@" + domain_text
    if b"@" in local or _ENCODED.search(spec.replace(b"\\", b"")):
        raise _DoubtError
    return spec


def _phrase(tokens: list[_Token], *, least: int) -> None:
    """A display name: words and quoted strings, and what real mail has besides, dots and brackets."""
    kinds = [kind for kind, _ in tokens if kind != "apart"]
    if len(kinds) < least or not set(kinds) <= {"word", "quoted", "literal", "bracket"}:
        raise _DoubtError
