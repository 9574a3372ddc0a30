"""A message that came back, opened: its header, what it says to a person, what to a program, and what it returns.

More forgiving than `mail.mime`, as nothing is changed here: what cannot be cut into parts is read as one text (RFC
2045, RFC 6522). Every piece is bounded, so that the work is linear in the message and small. Knows nothing of bounces.
"""

from __future__ import annotations

import binascii
import html
import re
from dataclasses import dataclass

from postmeter.mail import fieldtext, mime
from postmeter.mail.message import Field

_HEADER = 1 << 17  # octets of a header that are read; Postfix's header_size_limit is 102,400
_FIELDS = 2000
_VALUE = 4000  # octets of a field's value that are read
_TEXT = 1 << 16  # octets of one part that are read
STATUS = 1 << 20  # octets of a machine's part: some 2,000 recipients
_PARTS = 50  # a report has three
_FIELD = re.compile(rb"([!-9;-~]{1,100})[ \t]*:((?:[^\n]|\n[ \t])*+)(?:\n|\Z)")
_MBOX = re.compile(rb">?From [^\n]*+(?:\n|\Z)")
"""A line of a mailbox among the fields: saved mail has it, and Yahoo's complaints have it in what they return."""
_BLANK = re.compile(rb"[ \t\r]*\n")
_CHARSETS = re.compile(
    r"utf-?8|iso-8859-\d\d?|iso-2022-(?:jp|kr)|windows-125\d|koi8-[ru]|gb2312|gbk|gb18030|big5|euc-(?:jp|kr)|shift_jis"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_BLOCK = re.compile(r"<(?:br|p|div|tr|td|li|h\d|pre)\b[^<>]{0,500}>|</(?:p|div|tr|li|h\d|pre)>", re.IGNORECASE)
_UNSEEN = re.compile(r"<(style|script|title)\b[^<>]{0,500}>[^<]*+", re.IGNORECASE)
_TAG = re.compile(r"<(?![^<>\s]{1,320}@)[^<>]{0,2000}>")
ORIGINAL = frozenset(
    {"message/rfc822", "message/global", "message/partial", "text/rfc822-headers", "text/rfc822-header"}
    | {"message/rfc822-headers", "message/global-headers", "text/rfc822"}
)
"""Kinds of the part that returns the message or its header (RFC 6522 section 4, RFC 6533 section 5, RFC 9477)."""

Head = dict[str, list[str]]
"""Values by name in lower case, unfolded, without control characters."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part: what kind it is of, its octets decoded and bounded, with LF line ends."""

    kind: str
    octets: bytes
    charset: str = ""

    def text(self) -> str:
        """As a person would read it; of HTML the words."""
        shown = _decoded(self.octets, self.charset)
        return _words(shown) if self.kind == "text/html" else _CONTROL.sub(" ", shown)


@dataclass(frozen=True, slots=True)
class Opened:
    head: Head
    kind: str
    """Content-Type of the whole."""
    report_type: str
    pieces: tuple[Piece, ...]

    def first(self, field: str) -> str:
        return self.head.get(field, [""])[0]

    def of(self, *kinds: str) -> list[Piece]:
        return [piece for piece in self.pieces if piece.kind in kinds]

    def original(self) -> Piece | None:
        """The message that is returned, or its header."""
        return next((piece for piece in self.pieces if piece.kind in ORIGINAL), None)

    def text(self) -> str:
        """What it says to a person: its texts up to the message that is returned; the plain ones where it has both."""
        texts: list[Piece] = []
        for piece in self.pieces:
            if piece.kind in ORIGINAL:
                break
            if piece.kind.startswith("text/"):
                texts.append(piece)
        plain = [shown for piece in texts if piece.kind != "text/html" and (shown := piece.text()).strip()]
        return "\n\n".join(plain or [piece.text() for piece in texts])[:_TEXT]


def open_(message: bytes) -> Opened:
    """The message in pieces; line ends may be CRLF or LF."""
    raw = message.replace(b"\r\n", b"\n").lstrip(b"\n")
    fields, at = _fields(raw)
    content = [one for one in fields if one.key.startswith(b"content-")]
    body = raw[at:]
    leaves = mime.leaves(_once(content), body)
    kind = (leaves[0].enclosing or (leaves[0].kind,))[0] if leaves else ""
    pieces = tuple(_piece(part, body) for part in leaves[:_PARTS])
    return Opened(_head(fields), kind, _report_type(content), pieces)


def head(raw: bytes) -> Head:
    """The header at the start of these octets, as far as it goes."""
    return _head(_fields(raw.replace(b"\r\n", b"\n").lstrip(b"\n"))[0])


def line(text: str, limit: int = _VALUE) -> str:
    """One line without control characters, every run of white space one space."""
    return " ".join(_CONTROL.sub(" ", text[: 4 * limit]).split())[:limit]


def _fields(raw: bytes) -> tuple[list[Field], int]:
    """The fields, and where the body begins: behind the blank line, or at what is no field."""
    fields: list[Field] = []
    at = 0
    while at < min(len(raw), _HEADER):
        found = _FIELD.match(raw, at)
        passed = found or _MBOX.match(raw, at)
        if not passed:
            blank = _BLANK.match(raw, at)
            return fields, blank.end() if blank else at
        if found and len(fields) < _FIELDS:
            fields.append(Field(found[1], found[2][:_VALUE]))
        at = passed.end()
    return fields, at


def _head(fields: list[Field]) -> Head:
    found: Head = {}
    for one in fields:
        name = one.key.decode("ascii")
        found.setdefault(name, []).append(line(fieldtext.text(one.value)))
    return found


def _once(content: list[Field]) -> list[Field]:
    """The first of each name: a second one must not keep a report from being read."""
    first: dict[bytes, Field] = {}
    for one in content:
        first.setdefault(one.key, one)
    return list(first.values())


def _report_type(content: list[Field]) -> str:
    value = next((one.value for one in content if one.key == b"content-type"), b"")
    found = re.search(rb'report-type\s*=\s*"?([A-Za-z-]{1,60})', value, re.IGNORECASE)
    return found[1].decode("ascii").lower() if found else ""


def _piece(part: mime.Part, body: bytes) -> Piece:
    limit = STATUS if part.kind.startswith("message/") else _TEXT
    octets = body[part.body_start : min(part.end, part.body_start + limit)]
    kind = "text/plain" if part.multipart else part.kind
    charset = part.params.get("charset", "").lower()
    return Piece(kind, _undone(octets, part.encoding).replace(b"\r\n", b"\n"), charset)


def _undone(octets: bytes, encoding: str) -> bytes:
    if encoding == "quoted-printable":
        return binascii.a2b_qp(octets)
    if encoding == "base64":
        letters = re.sub(rb"[^A-Za-z0-9+/]", b"", octets)
        return binascii.a2b_base64(letters[: len(letters) // 4 * 4] + _last(letters))
    return octets


def _last(letters: bytes) -> bytes:
    """What is left of base64 behind its last whole four letters, padded."""
    rest = letters[len(letters) // 4 * 4 :]
    return rest + b"=" * (4 - len(rest)) if len(rest) > 1 else b""


def _decoded(octets: bytes, charset: str) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        known = charset if _CHARSETS.fullmatch(charset) else "latin-1"
    try:
        return octets.decode(known, "replace")
    except LookupError:  # iso-8859-12 was never made
        return octets.decode("latin-1")


def _words(page: str) -> str:
    text = _TAG.sub("", _BLOCK.sub("\n", _UNSEEN.sub("", page)))
    try:
        return _CONTROL.sub(" ", html.unescape(text))
    except ValueError:  # a reference with more digits than Python turns into a number
        return _CONTROL.sub(" ", text)
