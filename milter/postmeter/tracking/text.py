"""URLs in plain text, as readers' programs make links of them, and only where all of them would see the same one.

Pure, and knows nothing of what is tracked. Quoted lines and signatures are left to those who wrote them. RFC 3986
appendix C (angle brackets, `URL:`), RFC 3676 (format=flowed: a space in front of a line is stuffing, one at its end
joins it with the next one, and with DelSp is not there at all).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from postmeter.mail.coding import MAX_LINE

_SIGNATURE = re.compile(rb"^-- \r?$", re.MULTILINE)  # RFC 3676 section 4.3
_QUOTE = re.compile(rb"[ \t]*>")
_URL = re.compile(rb"(?i:https?)://[^\x00-\x20\x7f<>\"]+")
_WITHIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+./@_%-")
_WRAPS = frozenset(b"*~|`'")
_TRAILING = frozenset(b".,;:!?'")
_OPENING = {ord(")"): b"(", ord("]"): b"["}
_LAST = re.compile(rb"[A-Za-z0-9/=&#%+@$)]\Z")
_NO_END = b"-_"  # Thunderbird leaves off the one, GitHub's definition (github.github.com/gfm, section 6.9) the other
_BEHIND = rb".,:;!?'\"*~|()\[\]>{}\\`"  # behind a tracked URL the tracking server takes none of it for a part
_GOES_ON = re.compile(rb"[\">][" + _BEHIND + rb"]*+[^\s<" + _BEHIND + rb"]")  # by GitHub's definition; others end there
_RUN = re.compile(rb"[^\s<]*")
_REFERENCE = re.compile(rb"&[A-Za-z0-9]+\Z")  # to a character, with ";" behind it: GitHub's definition leaves it off
_BRACKET = re.compile(rb"[()]")
_LONGEST = 2000  # none that long is tracked
_CONTEXT = 200  # what is said of a URL stands near it


class Found(NamedTuple):
    """A URL, text[start:end]; `clear` where every reader sees this one."""

    start: int
    end: int
    clear: bool
    around: bytes
    """What its line says besides, or the line before where it stands alone."""
    line: int
    """Where its line starts."""
    room: int
    """Octets that the line may grow by."""


def urls(text: bytes, *, delsp: bool = False) -> Iterator[Found]:
    """The URLs of a text of ASCII and octets above it. `delsp`: the text is flowed, and spaces before breaks go."""
    signature = _SIGNATURE.search(text)
    end = signature.start() if signature else len(text)
    at = 0
    while (at := text.find(b"://", at, end)) >= 0:
        start = text.rfind(b"\n", 0, at) + 1
        stop = text.find(b"\n", at, end)
        stop = end if stop < 0 else stop
        line = text[start:stop].removesuffix(b"\r")
        if not _QUOTE.match(line):
            yield from _in_line(text, line, start, delsp=delsp)
        at = stop


def closed(url: bytes) -> bytes:
    """The same URL (RFC 3986 section 6.2.2.2) with an end that no program takes for punctuation."""
    return url[:-1] + b"%%%02X" % url[-1] if url[-1] in _NO_END else url


def _in_line(text: bytes, line: bytes, at: int, *, delsp: bool) -> Iterator[Found]:
    reach = _begun(text, line, at) if delsp else 0  # so far programs may take what went before for one URL
    for found in _URL.finditer(line):
        start, end = found.span()
        angled = line[max(0, start - 5) : start].upper().endswith((b"<", b"<URL:"))
        closed = angled and line[end : end + 1] == b">"
        goes_on = delsp and len(line) == end + 1 and line.endswith(b" ")
        clear = end - start <= _LONGEST and angled == closed and not goes_on
        if clear:
            if start >= reach and not closed and _GOES_ON.match(line, end):
                reach = _RUN.match(line, end).end()  # type: ignore[union-attr]  # it matches nothing, too
            end = end if closed else _end(line, start, end)
            clear = start >= reach and _agreed(line, start, end)
        around = line[max(0, start - _CONTEXT) : start].lstrip() + line[end : end + _CONTEXT]
        if not line[max(0, start - _CONTEXT) : start].strip(b" <*-"):
            around = text[max(0, at - _CONTEXT) : at].rstrip().rpartition(b"\n")[2] + around
        yield Found(at + start, at + end, clear, around, at, MAX_LINE - len(line))


def _begun(text: bytes, line: bytes, at: int) -> int:
    """How far the line that starts there goes on with what the one before it ends in, where DelSp takes the space."""
    before = text[text.rfind(b"\n", 0, max(0, at - 1)) + 1 : at].rstrip(b"\r\n")
    if not before.endswith(b" ") or before.endswith(b"  ") or _QUOTE.match(before):
        return 0
    return _RUN.match(line, line.startswith(b" ")).end()  # type: ignore[union-attr]  # it matches nothing, too


def _end(line: bytes, start: int, end: int) -> int:
    """Without the punctuation of the sentence, and without a bracket that was open before."""
    unpaired: dict[int, int] = {}
    while end > start:
        last = line[end - 1]
        if last in _OPENING:
            if last not in unpaired:
                opened = line.count(_OPENING[last], start, end)
                unpaired[last] = line.count(line[end - 1 : end], start, end) - opened
            if unpaired[last] <= 0:
                break
            unpaired[last] -= 1
        elif last not in _TRAILING:
            break
        end -= 1
    return end


def _agreed(line: bytes, start: int, end: int) -> bool:
    """Whether programs agree on where the URL begins and ends."""
    before = line[start - 1] if start else ord(" ")
    wrapped = before in _WRAPS and line[end : end + 1] in (b"", b" ", line[start - 1 : start])
    url = line[start:end]
    if line[end : end + 1] == b";" and _REFERENCE.search(url):
        return False
    sure = before not in _WITHIN and not wrapped and url.isascii()
    return sure and _LAST.search(url) is not None and _paired(url)


def _paired(url: bytes) -> bool:
    """Whether each of its brackets has another one: some programs end a URL at one that has none."""
    depth = 0
    for bracket in _BRACKET.findall(url):
        depth += 1 if bracket == b"(" else -1
        if depth < 0:
            return False
    return depth == 0
