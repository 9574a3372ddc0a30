"""Values with parameters, as in Content-Type and Content-Disposition: a token, then `; name=value`.

Knows nothing of what they mean. Reads quoted strings, comments and folded lines (RFC 2045 section 5.1), continued and
encoded parameters (RFC 2231 sections 3 and 4). What two readers could understand differently is not read at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

_LEXEME = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*"|[;()]|\\.|[^;()"\\]++|["\\]', re.DOTALL)
_TOKEN = re.compile(r"[!#$%&'*+.^_`{|}~0-9A-Za-z/-]+")
_BARE = re.compile(r'[^\s"]*')
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_SECTION = re.compile(r"([^*]+)(?:\*([0-9]{1,3}))?(\*)?")  # RFC 2231: name*0*, name*1, name*
_DECISIVE = frozenset({"boundary", "charset"})


@dataclass(frozen=True, slots=True)
class Value:
    """`token` in lower case; parameters by name in lower case, each octet of their values one character (latin-1)."""

    token: str
    params: dict[str, str] = field(default_factory=dict)


def read(raw: bytes) -> Value | None:
    """The value, or none where it cannot be read without guessing."""
    segments = _segments(raw.decode("latin-1").replace("\r", "").replace("\n", ""))
    if segments is None:
        return None
    token = segments[0].strip()
    params = _params(segments[1:])
    return Value(token.lower(), params) if params is not None and _TOKEN.fullmatch(token) else None


def _segments(text: str) -> list[str] | None:
    """What stands between the semicolons, without comments; none where a quote or a comment does not end."""
    if not ("(" in text or '"' in text or "\\" in text):
        return text.split(";")
    segments = [""]
    depth = 0
    for found in _LEXEME.finditer(text):
        piece = found[0]
        if piece in "()":
            depth += 1 if piece == "(" else -1
        elif piece in '"\\' or depth < 0:
            return None
        elif piece == ";" and not depth:
            segments.append("")
        elif not depth:
            segments[-1] += piece
    return None if depth else segments


def _params(segments: list[str]) -> dict[str, str] | None:
    whole: dict[str, str] = {}
    pieces: dict[str, dict[int, str]] = {}
    for segment in segments:
        name, equals, value = segment.partition("=")
        text = _unquoted(value.strip())
        section = _SECTION.fullmatch(name.strip().lower())
        if not equals or not section:
            continue
        if text is None or _kept(whole, pieces, section, text) is None:
            return None
    for name, sections in pieces.items():
        if name in _DECISIVE and (name in whole or list(sections) != list(range(len(sections)))):
            return None
        whole.setdefault(name, "".join(sections[number] for number in sorted(sections)))
    return whole


def _kept(whole: dict[str, str], pieces: dict[str, dict[int, str]], section: re.Match[str], text: str) -> str | None:
    """Keep one parameter, or one section of it; none where it was there before with another value."""
    name, number, encoded = section[1], int(section[2] or 0), section[3]
    if not section[2] and not encoded:
        return text if whole.setdefault(name, text) == text or name not in _DECISIVE else None
    if encoded:
        text = unquote_to_bytes(text if number else text.rpartition("'")[2]).decode("latin-1")
    return text if pieces.setdefault(name, {}).setdefault(number, text) == text or name not in _DECISIVE else None


def _unquoted(value: str) -> str | None:
    quoted = _QUOTED.fullmatch(value)
    if quoted:
        return _ESCAPED.sub(r"\1", quoted[1])
    return value if _BARE.fullmatch(value) else None
