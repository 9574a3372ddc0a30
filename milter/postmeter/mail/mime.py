"""The parts of a message and where their bytes lie: a scanner that keeps offsets and never builds a message anew.

Knows nothing of what a part says: it decodes nothing and changes nothing. A multipart is cut at its boundary lines
(RFC 2046 section 5.1.1), an outer boundary before an inner one; CRLF and bare LF are both line ends. What cannot be
read without guessing is marked `broken`, so that whoever wants to change a part can hold back. The work is linear in
the input, whatever the input: a depth and a number of parts bound it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from postmeter.mail.message import Field
from postmeter.mail.parameters import Value, read

MAX_DEPTH = 20  # Postfix gives up at mime_nesting_limit (100); real mail stays below 10
MAX_PARTS = 1000
_MAX_HEADER = 65536  # Postfix itself cuts header lines at 60,000 (KLUDGE_HEADER_LIMIT)
_MAX_BOUNDARY = 998  # RFC 2046 says 70, RFC 5322 section 2.1.1 bounds the line
_KEPT, _SHORT = 256, 200  # headers of parts that are remembered, octets of each at most: most mail has the same few

_FIELD = re.compile(rb"([!-9;-~]+):([^\n]*+(?:\n[ \t][^\n]*+)*)(?:\n|\Z)")  # RFC 5322 section 2.2; " :" divides readers
_BLANK = re.compile(rb"\r?\n")
_TAIL = re.compile(rb"(--)?[ \t]*+(?:\r?\n|(\r)|\Z)")  # RFC 2046: transport padding behind a delimiter

_TYPE = b"content-type"
_ENCODING = b"content-transfer-encoding"
_DISPOSITION = b"content-disposition"
_PLAIN = frozenset({"7bit", "8bit", "binary"})
_OURS = frozenset({_TYPE, _ENCODING, _DISPOSITION})
_TEXT = Value("text/plain")  # RFC 2045 section 5.2
_NONE = Value("")
_DIGEST = Value("message/rfc822")  # RFC 2046 section 5.1.5

_Raw: TypeAlias = dict[bytes, tuple[bytes, tuple[int, int] | None]]
"""The fields that matter, by name in lower case: value, and where in the header it stands."""


class Part(NamedTuple):  # made in a third of a dataclass's time
    """A leaf: all that is not a multipart cut into its own parts. Among `entities` those multiparts too.

    `start` is the first octet of its header in the body, `body_start` that behind its blank line, `end` that behind its
    last octet (the line end before a delimiter belongs to the delimiter). The one part of a message that is no
    multipart starts with the body, and its fields are those of the message.
    """

    path: str
    kind: str
    params: dict[str, str]
    encoding: str
    disposition: str
    """That of a multipart around it where that is an attachment as a whole (RFC 2183 section 2.10)."""
    named: bool
    """Has a file name: more of an attachment than of a text to read."""
    start: int
    body_start: int
    end: int
    encoding_span: tuple[int, int] | None
    """The value of its Content-Transfer-Encoding field in the body; none where it has no such field there."""
    enclosing: tuple[str, ...]
    """Types of the multiparts around it, outermost first."""
    broken: bool
    """Its header cannot be read without guessing, or it is a multipart that could not be cut."""

    @property
    def multipart(self) -> bool:
        return self.kind.startswith("multipart/")


class _Head(NamedTuple):
    """What a header says of the body behind it; its places count from where it starts."""

    content: Value = _TEXT
    encoding: str = "7bit"
    disposition: Value = _NONE
    encoding_span: tuple[int, int] | None = None
    broken: bool = False
    size: int = 0

    @property
    def multipart(self) -> bool:
        return self.content.token.startswith("multipart/")

    def below(self, inner: _Head) -> _Head:
        """The header of one of its parts. One that names no encoding has, to some readers, that of the multipart."""
        if self.encoding in _PLAIN or inner.encoding_span:
            return inner
        return inner._replace(encoding=self.encoding) if inner.multipart else inner._replace(broken=True)

    def boundary(self) -> bytes:
        """The boundary of a multipart; an encoding, which RFC 2045 section 6.4 forbids it, is ignored as readers do."""
        if not self.multipart:
            return b""
        boundary = self.content.params.get("boundary", "").rstrip(" ").encode("latin-1", "replace")
        return boundary if len(boundary) <= _MAX_BOUNDARY else b""


def leaves(fields: Sequence[Field], body: bytes) -> tuple[Part, ...]:
    """The leaf parts of a message in the order of the body."""
    return _walk(fields, body, whole=False)


def entities(fields: Sequence[Field], body: bytes) -> tuple[Part, ...]:
    """Every part, multiparts before what is in them, attached messages before their own parts.

    `path` and `enclosing` count an attached message like a multipart of one part, and the outermost multipart is 0. A
    multipart that was cut is not `broken`. An attached message that is encoded, against RFC 2046 section 5.2.1, is not
    looked into.
    """
    return _walk(fields, body, whole=True)


def _walk(fields: Sequence[Field], body: bytes, *, whole: bool) -> tuple[Part, ...]:
    raw: _Raw = {}
    twice = False
    for one in fields:
        key = one.key
        if key in _OURS:
            twice = twice or key in raw
            raw.setdefault(key, (one.value, None))
    walk = _Walk(body, whole)
    walk.descend(_head(raw, _TEXT, broken=twice), "", 0, len(body), ())
    return tuple(walk.found)


@dataclass(slots=True)
class _Walk:
    body: bytes
    whole: bool
    found: list[Part] = field(default_factory=list)

    def descend(
        self, head: _Head, path: str, start: int, end: int, enclosing: tuple[str, ...], around: str = ""
    ) -> None:
        disposition = around if around not in ("", "inline") else head.disposition.token
        boundary = b"" if head.broken or len(enclosing) >= MAX_DEPTH else head.boundary()
        spans = self._cut(boundary, start + head.size, end) if boundary else []
        kind = head.content.token
        cut = bool(spans) and len(self.found) + len(spans) <= MAX_PARTS
        if self.whole or not cut:
            part = _leaf(head, path or "1", start, end, enclosing, disposition)
            self.found.append(part._replace(path=path or "0", broken=False) if cut else part)
        if not cut:
            if self.whole and kind == "message/rfc822" and not part.broken:
                self._attached(part)
            return
        digest = kind == "multipart/digest"
        for number, (begin, stop) in enumerate(spans, 1):
            inner = head.below(_part_head(self.body, begin, stop, digest=digest))
            below = f"{path}.{number}" if path else str(number)
            self.descend(inner, below, begin, stop, (*enclosing, kind), disposition)

    def _attached(self, part: Part) -> None:
        """What is in an attached message, unless it lies too deep or is encoded."""
        if len(part.enclosing) < MAX_DEPTH and len(self.found) < MAX_PARTS and part.encoding in _PLAIN:
            inner = _part_head(self.body, part.body_start, part.end)
            self.descend(inner, f"{part.path}.1", part.body_start, part.end, (*part.enclosing, part.kind))

    def _cut(self, boundary: bytes, start: int, end: int) -> list[tuple[int, int]]:
        """The spans between delimiter lines. Without a close delimiter the last part goes on to the end.

        None where a lone CR stands at a delimiter: for some readers it ends a line.
        """
        spans: list[tuple[int, int]] = []
        begin = -1
        for at, after, closing in _delimiters(self.body, b"--" + boundary, start, end):
            if after < 0:
                return []
            if begin >= 0:
                spans.append((begin, max(begin, _before(self.body, at))))
            begin = after
            if closing or len(spans) > MAX_PARTS:
                return spans
        return [*spans, (begin, end)] if begin >= 0 else spans


def _delimiters(body: bytes, dashed: bytes, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Each delimiter line: where it starts, where the next line starts (-1: in doubt), whether it is the last one."""
    at = body.find(dashed, start, end)
    while at >= 0:
        if at == start or body[at - 1] in b"\r\n":
            tail = _TAIL.match(body, at + len(dashed), end)
            if tail:
                doubt = tail[2] or body[at - 1 : at] == b"\r"
                yield at, -1 if doubt else tail.end(), tail[1] is not None
        at = body.find(dashed, at + len(dashed), end)


def _before(body: bytes, at: int) -> int:
    """Where the text before a delimiter line ends: the line end in front of it is the delimiter's own."""
    return at - 2 if body[at - 2 : at] == b"\r\n" else at - 1


def _part_head(body: bytes, start: int, end: int, *, digest: bool = False) -> _Head:
    """The header of a part of a multipart or a digest."""
    stop = body.find(b"\r\n\r\n", start, min(end, start + _SHORT))
    if stop < 0:
        return _read_head(body, start, end, digest)
    return _remembered(body[start : stop + 4], digest)


@lru_cache(maxsize=_KEPT)
def _remembered(header: bytes, digest: bool) -> _Head:
    return _read_head(header, 0, len(header), digest)


def _read_head(body: bytes, start: int, end: int, digest: bool) -> _Head:
    """Its fields up to the blank line."""
    default = _DIGEST if digest else _TEXT
    raw: _Raw = {}
    at, limit, broken = start, min(end, start + _MAX_HEADER), False
    while at < limit and not (blank := _BLANK.match(body, at, limit)):
        found = _FIELD.match(body, at, limit)
        if not found or (found.end() == limit < end):
            return _head(raw, default, broken=True, size=at - start)
        key = found[1].lower()
        if key in _OURS:
            broken = broken or key in raw
            raw.setdefault(key, (found[2], (found.start(2) - start, found.end(2) - start)))
        at = found.end()
    return _head(raw, default, broken=broken, size=(blank.end() if at < limit and blank else at) - start)


def _head(raw: _Raw, default: Value, *, broken: bool, size: int = 0) -> _Head:
    content = _value(raw[_TYPE][0]) if _TYPE in raw else default
    disposition = _value(raw[_DISPOSITION][0]) if _DISPOSITION in raw else _NONE
    encoding, span = raw.get(_ENCODING, (b"7bit", None))
    return _Head(
        content or _TEXT,
        encoding.strip().lower().decode("latin-1"),  # with a comment, as few read it, none that we know
        disposition or _NONE,
        span,
        broken or content is None or disposition is None,
        size,
    )


_read = lru_cache(maxsize=_KEPT)(read)


def _value(raw: bytes) -> Value | None:
    """Most mail has one of a few values, but for boundaries."""
    return _read(raw) if len(raw) <= _SHORT and raw.find(b"boundary") < 0 else read(raw)


def _leaf(
    head: _Head, path: str, start: int, end: int, enclosing: tuple[str, ...], disposition: str
) -> Part:
    kind = head.content.token
    span = head.encoding_span
    return Part(
        path=path,
        kind=kind,
        params=head.content.params,
        encoding=head.encoding,
        disposition=disposition,
        named="name" in head.content.params or "filename" in head.disposition.params,
        start=start,
        body_start=start + head.size,
        end=end,
        encoding_span=(start + span[0], start + span[1]) if span else None,
        enclosing=enclosing,
        broken=head.broken or kind.startswith("multipart/"),
    )
