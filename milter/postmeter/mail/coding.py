"""Transfer encodings that keep their place: edits found in the decoded octets, made in the encoded ones.

Knows nothing of what the octets mean. In 7bit, 8bit and binary an edit is made where it stands, unless a line would
pass 998 octets; then the whole becomes quoted-printable. In quoted-printable only the encoded lines that hold an edit
change; base64 is written anew in the line length it had. Whatever decoders could disagree about is not decoded at all
(RFC 2045 section 6). `encode` is for what is written anew as a whole.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple

IDENTITY = frozenset({"7bit", "8bit", "binary"})
MAX_LINE = 998  # RFC 5322 section 2.1.1, without the line end; Postfix breaks longer ones (smtp_line_length_limit)
_ENCODED_LINE = 76  # RFC 2045 sections 6.7 (5), the "=" of a soft line break included, and 6.8
_WHOLE_LINES = 57 << 14  # octets that fill lines of base64
_AHEAD = 4  # octets that are looked for: rarely broken by the end of a line, rarely the wrong ones
_PIECE = 1 << 20  # what is larger is worked on by so much at a time, so that copies do not add up
_MARK = ord("=")
_CUT = frozenset(b"=\n")
_ATOM = re.compile(rb"=..|[^=]+")
_ESCAPE = re.compile(rb"[^ -<>-~]| \Z")  # what quoted-printable may not hold as it is: a space only within a line
_GRAPHIC = bytes({*range(33, 127)} - {*b"="})  # what it may hold as it is wherever that stands
_LITERAL = bytes({*range(32, 127), *b"\t\r\n"} - {*b"="})  # what it mostly may, white space at line ends apart


class Edit(NamedTuple):  # several for each link: made in a third of a dataclass's time
    """`new` takes the place of decoded octets `start` to `end`."""

    start: int
    end: int
    new: bytes


@dataclass(frozen=True, slots=True)
class Coded:
    """Octets as they go on the wire, and the transfer encoding to declare for them."""

    raw: bytes
    encoding: str


@dataclass(frozen=True, slots=True)
class Change:
    """What changes where the encoded octets stand, and the transfer encoding to declare afterwards."""

    edits: tuple[Edit, ...]
    encoding: str


def decode(raw: bytes, encoding: str) -> bytes | None:
    """The decoded octets, or none where the encoding is unknown or not kept strictly."""
    if encoding in IDENTITY:
        return raw
    if encoding == "quoted-printable":
        return _decode_quoted(raw)
    return _decode_base64(raw) if encoding == "base64" else None


def splice(octets: bytes, edits: Sequence[Edit]) -> bytes:
    """The octets with the edits made. Edits are in order and do not overlap."""
    if len(edits) == 1 and edits[0].start == 0 and edits[0].end == len(octets):
        return edits[0].new
    pieces: list[bytes | memoryview] = []
    at = 0
    kept = memoryview(octets) if len(octets) > _PIECE else octets  # what is large is not copied piece by piece too
    for start, end, new in edits:
        pieces += kept[at:start], new
        at = end
    pieces.append(kept[at:])
    return b"".join(pieces)


def change(raw: bytes, decoded: bytes, encoding: str, edits: Sequence[Edit], *, at: int = 0) -> Change | None:
    """The part that stands at `at` with the edits made; none where that cannot be had without another difference."""
    if encoding == "quoted-printable":
        return Change(_edit_quoted(raw, decoded, edits, at), encoding)
    whole = at, at + len(raw)
    if encoding == "base64":
        return Change((Edit(*whole, _encode_base64(splice(decoded, edits), raw)),), encoding)
    changed = splice(decoded, edits)
    if not _passes(changed, edits):
        return Change(tuple([Edit(at + start, at + end, new) for start, end, new in edits]), encoding)
    quoted = binascii.b2a_qp(changed, istext=True)
    return Change((Edit(*whole, quoted),), "quoted-printable") if _decode_quoted(quoted) == changed else None


def encode(octets: bytes) -> Coded:
    """In seven bits and lines of 76: quoted-printable for text, base64 where that is shorter or lines end otherwise."""
    escaped = len(octets.translate(None, _LITERAL))
    if 6 * escaped <= len(octets):  # two more for each, or a third for all
        quoted = _encode_quoted(octets)
        if quoted is not None:
            return Coded(quoted, "quoted-printable")
    whole = BytesIO()
    for start in range(0, len(octets), _WHOLE_LINES):
        text = binascii.b2a_base64(octets[start : start + _WHOLE_LINES], newline=False)
        lines = (text[at : at + _ENCODED_LINE] for at in range(0, len(text), _ENCODED_LINE))
        whole.write(b"\r\n" * bool(start) + b"\r\n".join(lines))
    return Coded(whole.getvalue(), "base64")


def _encode_quoted(octets: bytes) -> bytes | None:
    """None where a line ends otherwise than with CRLF. A piece at a time, each of whole lines: none is like another."""
    lines = octets.count(b"\r\n")
    if octets.count(b"\r") != lines or octets.count(b"\n") != lines:
        return None
    whole, start = BytesIO(), 0
    while start < len(octets):
        end = octets.find(b"\n", start + _PIECE) + 1 or len(octets)
        piece = octets[start:end]
        quoted = binascii.b2a_qp(piece, istext=True)
        quoted = quoted if b"\r\n" in piece else quoted.replace(b"\n", b"\r\n")
        if _decode_quoted(quoted) != piece:
            return None
        whole.write(quoted)
        start = end
    return whole.getvalue()


def _passes(changed: bytes, edits: Sequence[Edit]) -> bool:
    """Whether a line that holds an edit is longer than a line may be."""
    shift = 0
    for edit in edits:
        start = edit.start + shift
        shift += len(edit.new) - (edit.end - edit.start)
        stop = changed.find(b"\n", start)
        stop = len(changed) if stop < 0 else stop - (changed[stop - 1 : stop] == b"\r")
        if stop - (changed.rfind(b"\n", 0, start) + 1) > MAX_LINE:
            return True
    return False


def _decode_quoted(raw: bytes) -> bytes | None:
    """Strict, by arithmetic: binascii leaves out two octets for an escape or `=LF`, three for `=CRLF`.

    Of anything else it leaves out fewer, but for a CR behind "=" that ends no line; so the length tells.
    """
    ends = raw.count(b"=\r\n")
    if raw.count(b"=\r") != ends:
        return None
    decoded = binascii.a2b_qp(raw)
    marks = raw.count(b"=") if len(raw) > _PIECE else len(raw) - len(raw.replace(b"=", b""))  # faster, for a copy
    left_out = 2 * marks + ends
    return decoded if len(decoded) == len(raw) - left_out else None


def _edit_quoted(raw: bytes, decoded: bytes, edits: Sequence[Edit], offset: int) -> tuple[Edit, ...]:
    """Only what stands between the two ends of an edit changes, and soft line breaks keep its lines within 76."""
    line = _Line(b"=\r\n" if b"\r\n" in raw else b"=\n")
    spans: list[tuple[int, int]] = []
    new: list[bytes] = []
    at = decoded_at = 0
    for begin, stop, text in edits:
        start = _encoded_at(raw, at, decoded, decoded_at, begin)
        if moved := line.keep(raw, at, start):
            new[-1] += moved
        at, decoded_at = _encoded_at(raw, start, decoded, begin, stop), stop
        spans.append((start, at))
        new.append(line.write(text) if text else b"")
    if moved := line.keep(raw, at, len(raw)):
        new[-1] += moved
    return tuple([Edit(offset + start, offset + end, text) for (start, end), text in zip(spans, new, strict=True)])


def _encoded_at(raw: bytes, start: int, decoded: bytes, begin: int, end: int) -> int:
    """The first place where decoded[end] is encoded, when decoded[begin] is at `start`.

    Mostly it is where the next octets stand as they are, which what lies between proves by its length when decoded; it
    must not end within an escape, nor with a soft line break, before which the place would be.
    """
    count = end - begin
    at = start + count
    place = raw.find(decoded[end : end + _AHEAD], at, at + count + _ENCODED_LINE)
    sure = place > start and raw[place - 1] not in _CUT and raw[place - 2] != _MARK
    return place if sure and len(binascii.a2b_qp(raw[start:place])) == count else _counted(raw, start, count)


def _counted(raw: bytes, start: int, count: int) -> int:
    """The first place behind `start` before which `count` octets are encoded.

    The least solution of place = start + count + what decoding leaves out before it, approached from below: what is
    left out never shrinks as the place grows, so no solution is passed over. A soft line break counts as a whole from
    its first octet on: no solution lies within it.
    """
    at, seen = start + count, start
    while seen < at:
        left_out = 2 * raw.count(b"=", seen, at) + raw.count(b"=\r\n", seen, at + 2)
        seen, at = at, at + left_out
    return at


def _escape(found: re.Match[bytes]) -> bytes:
    return b"=%02X" % found[0][0]


class _Line:
    """The column in which quoted-printable is being written."""

    __slots__ = ("_break", "_column")

    def __init__(self, soft_break: bytes) -> None:
        self._break = soft_break
        self._column = 0

    def keep(self, raw: bytes, start: int, end: int) -> bytes:
        """Pass encoded text as it stands; a soft line break to put before it where its first line no longer fits."""
        newline = raw.find(b"\n", start, end)
        stop = end if newline < 0 else newline + 1
        first = len(raw[start:stop].rstrip(b"\r\n"))
        ends = newline >= 0 or end == len(raw)
        moves = self._column and first and self._column + first > _ENCODED_LINE - (not ends)
        before = 0 if moves else self._column
        self._column = before + first if newline < 0 else end - raw.rfind(b"\n", start, end) - 1
        return self._break if moves else b""

    def write(self, new: bytes) -> bytes:
        """New text, encoded, in as many lines as it takes; an escape is never cut."""
        if new.translate(None, _GRAPHIC):
            return b"".join(map(self._write, _ATOM.findall(_ESCAPE.sub(_escape, new))))
        return self._write(new)

    def _write(self, atoms: bytes) -> bytes:
        """Text without escapes, which may be cut anywhere, or one escape, which must not be."""
        room = _ENCODED_LINE - 1 - self._column
        lead = b""
        if room <= 0 or (atoms[0] == 61 and room < 3):
            lead, self._column, room = self._break, 0, _ENCODED_LINE - 1
        if len(atoms) <= room:
            self._column += len(atoms)
            return lead + atoms
        rest = range(room, len(atoms), _ENCODED_LINE - 1)
        lines = [atoms[:room], *[atoms[at : at + _ENCODED_LINE - 1] for at in rest]]
        self._column = len(lines[-1])
        return lead + self._break.join(lines)


def _decode_base64(raw: bytes) -> bytes | None:
    """Strict: nothing but the alphabet and line ends, padding at the end only (RFC 4648 section 3.3)."""
    try:
        return binascii.a2b_base64(raw.replace(b"\r\n", b"").replace(b"\n", b""), strict_mode=True)
    except binascii.Error:
        return None


def _encode_base64(octets: bytes, like: bytes) -> bytes:
    """In lines as long as the first one was, and with the line ends that stood before and behind."""
    core = like.strip(b"\r\n")
    lead, trail = like[: like.find(core)], like[like.find(core) + len(core) :]
    line_end = b"\r\n" if b"\r\n" in like else b"\n"
    text = binascii.b2a_base64(octets, newline=False)
    first, several, _ = core.partition(b"\n")
    length = len(first.rstrip(b"\r")) if several else max(1, len(text))  # one line stays one, while it may
    length = length if length <= MAX_LINE else _ENCODED_LINE
    return lead + line_end.join([text[at : at + length] for at in range(0, len(text), length)]) + trail
