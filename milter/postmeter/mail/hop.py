"""What Postfix's smtp(8) changes on the way out: parts declared 8bit where the next hop takes 7 bits, and long lines.

Reads MIME as Postfix does (mime_state.c, MIME_OPT_DOWNGRADE; smtp_proto.c, smtp_text_out), with its liberties: a label
is its first word, a line that begins like a boundary is one, of several labels each counts. Only tells what would
change; knows nothing of how that is avoided. What is declared decides, not what the octets are (D44).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from postmeter.mail.coding import MAX_LINE
from postmeter.mail.message import Field

MAX_DEPTH = 100  # mime_nesting_limit; smtp(8) returns what is nested deeper
_MOST = 200_000  # fields, and lines that begin with two dashes: a third of a second
_COMMENTS = rb"[\s]*(?:\((?:[^()\\]|\\.)*\)\s*)*"
_LABEL = re.compile(_COMMENTS + rb'([^\s()<>@,;:\\".\[\]]+)')  # header_token.c with the special characters of RFC 822
_TOKEN = rb'([^\s()<>@,;:\\"/\[\]?=]+)'
_KIND = re.compile(_COMMENTS + _TOKEN + _COMMENTS + rb"(?:/" + _COMMENTS + _TOKEN + rb")?")
_BOUNDARY = re.compile(rb';\s*boundary\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s()<>@,;:\\"/\[\]?=]+))', re.IGNORECASE)
_ESCAPED = re.compile(rb"\\(.)")
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:([^\n]*+(?:\n[ \t][^\n]*+)*+)(?:\n|\Z)")
_TYPE, _ENCODING, _MESSAGE = b"content-type", b"content-transfer-encoding", b"message/rfc822"
_MESSAGES = (_MESSAGE, b"message/global")  # the latter is encoded whole where it is declared 8bit or binary
_BLANK = re.compile(rb"\r?(?:\n|\Z)")


class TooMuchError(Exception):
    """Nobody sends such mail, and to read it to its end would take too long."""


def declared(label: bytes) -> str:
    """`8bit` or `binary` where a Content-Transfer-Encoding field says so to Postfix; else nothing."""
    found = _LABEL.match(label)
    word = found[1].lower() if found else b""
    return word.decode("ascii") if word in (b"8bit", b"binary") else ""


def converts(fields: Sequence[Field], body: bytes) -> bool:
    """Whether a hop without 8BITMIME makes Postfix encode or relabel something of this message."""
    top = [one.value for one in fields if one.key == _ENCODING]
    if any(map(declared, top)):
        return True
    kinds = b"".join([one.value for one in fields if one.key == _TYPE]).lower()
    if kinds.find(b"multipart") < 0 and kinds.find(b"message") < 0:
        return False  # as of most mail: what has one part has no labels in its body
    return next(labels(fields, body), None) is not None


def labels(fields: Sequence[Field], body: bytes) -> Iterator[tuple[int, int]]:
    """Where in the body the values of the fields stand that declare 8bit or binary. May raise TooMuchError."""
    reader = _Reader(body)
    kind = reader.kind([one.value for one in fields if one.key == _TYPE], b"text")
    if reader.boundaries or kind in _MESSAGES:
        yield from reader.labels(kind)


def long_line(octets: bytes, start: int = 0, end: int | None = None) -> int:
    """Where the first line of more than 998 octets begins, from the line start `start` to `end`; -1 for none."""
    end = len(octets) if end is None else end
    while end - start > MAX_LINE + 1:
        newline = octets.rfind(b"\n", start, start + MAX_LINE + 2)
        if newline < 0:
            return start
        start = newline + 1
    return start if end - start > MAX_LINE and octets.find(b"\n", start, end) < 0 else -1


@dataclass(slots=True)
class _Reader:
    """Goes from header to header as Postfix does; bodies between them are only searched for boundaries."""

    body: bytes
    boundaries: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Of the multiparts around, outermost first: two dashes and the boundary, and the type of a part without one."""
    seen: int = 0

    def labels(self, kind: bytes) -> Iterator[tuple[int, int]]:
        """Of all headers in the body of a message of that kind."""
        at = 0
        while True:
            default = b"text"
            if kind not in _MESSAGES:
                at, default = self._next_part(at)
            if at < 0:
                return
            types = []  # and nothing else of the header: it may be large
            while one := _FIELD.match(self.body, at):
                at = one.end()
                self._count()
                name = one[1].lower()
                if name == _TYPE:
                    types.append(one[2])
                elif name == _ENCODING and declared(one[2]):
                    yield one.span(2)
            kind = self.kind(types, default)
            if blank := _BLANK.match(self.body, at):
                at = blank.end()
            else:
                kind = b"text"  # no header: smtp(8) takes what follows for the body

    def kind(self, types: Sequence[bytes], default: bytes) -> bytes:
        """What Content-Type fields say that the body is; the boundaries of a multipart are remembered."""
        kind = default
        for value in types:
            if not (found := _KIND.match(value)):
                continue
            kind = found[1].lower() + b"/" + (found[2] or b"").lower()
            if kind.startswith(b"multipart/"):
                inner = _MESSAGE if kind == b"multipart/digest" else b"text"
                for quoted, bare in _BOUNDARY.findall(value):
                    if len(self.boundaries) <= MAX_DEPTH:
                        boundary = _ESCAPED.sub(rb"\1", quoted) if b"\\" in quoted else quoted or bare
                        self.boundaries.append((b"--" + boundary, inner))
        return kind

    def _next_part(self, at: int) -> tuple[int, bytes]:
        """Where the header behind the next delimiter line starts, and its type by default; -1 when none follows."""
        while self.boundaries:
            known = tuple(boundary for boundary, _ in self.boundaries)
            at = self._delimiter(known, at)
            if at < 0:
                break
            while not self.body.startswith(self.boundaries[-1][0], at):
                self.boundaries.pop()
            boundary, kind = self.boundaries[-1]
            line = self.body.find(b"\n", at) + 1 or len(self.body)
            if not self.body.startswith(b"--", at + len(boundary)):
                return line, kind
            self.boundaries.pop()
            at = line
        return -1, b""

    def _count(self) -> None:
        self.seen += 1
        if self.seen > _MOST:
            raise TooMuchError

    def _delimiter(self, known: tuple[bytes, ...], at: int) -> int:
        """The next line at or behind line start `at` that begins like one of the boundaries."""
        self._count()
        if self.body.startswith(known, at):
            return at
        if len(known) == 1:  # as it mostly is: what is long is found in a quarter of the time
            return self.body.find(b"\n" + known[0], at) + 1 or -1
        at = self.body.find(b"\n--", at)
        while at >= 0 and not self.body.startswith(known, at + 1):
            self._count()
            at = self.body.find(b"\n--", at + 1)
        return at + 1 if at >= 0 else -1
