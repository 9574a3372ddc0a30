"""Transfer encodings that keep their place: edits found in the decoded octets, made in the encoded ones.

Knows nothing of what the octets mean. In 7bit, 8bit and binary an edit is made where it stands, in quoted-printable
only the encoded lines that hold an edit change. Whatever decoders could disagree about is not decoded at all (RFC 2045
section 6). What has to be written anew as a whole is `anew`'s.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from typing import NamedTuple, TypeAlias

IDENTITY = frozenset({"7bit", "8bit", "binary"})
MAX_LINE = 998  # RFC 5322 section 2.1.1, without the line end; Postfix breaks longer ones (smtp_line_length_limit)
ENCODED_LINE = 76  # RFC 2045 sections 6.7 (5), the "=" of a soft line break included, and 6.8
_AHEAD = 4  # octets that are looked for: rarely broken by the end of a line, rarely the wrong ones
PIECE = 1 << 20  # what is larger is worked on by so much at a time, so that copies do not add up
_TAIL = 1 << 12
_TORN = re.compile(rb"[=\r]")
_MARK = ord("=")
_CUT = frozenset(b"=\n")
_ATOM = re.compile(rb"=..|[^=]+")
_ESCAPE = re.compile(rb"[^ -<>-~]| \Z")  # what quoted-printable may not hold as it is: a space only within a line
_GRAPHIC = bytes({*range(33, 127)} - {*b"="})  # what it may hold as it is wherever that stands


class Edit(NamedTuple):
    """`new` takes the place of decoded octets `start` to `end`."""

    start: int
    end: int
    new: bytes


Plain: TypeAlias = tuple[int, int, bytes]
"""An edit without names: made in a fifth of the time, and a page has two for each link."""


def pieces(octets: bytes, start: int, end: int) -> Iterable[bytes]:
    """What stands there: one piece, or where it is large several, so that it is not copied whole.

    They end with a line, or if it is too long for that at least not within a line end or an escape.
    """
    return (octets[start:end],) if end - start <= PIECE else _cut(octets, start, end)


def _cut(octets: bytes, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        most = min(start + 2 * PIECE, end)
        stop = octets.find(b"\n", start + PIECE, most) + 1
        if not stop:
            torn = _TORN.search(octets, most - 2, most) if most < end else None
            stop = torn.start() if torn else most
        yield octets[start:stop]
        start = stop


def content_end(octets: bytes, start: int, end: int) -> int:
    """Where what stands there ends without its last line ends."""
    while end > start:
        tail = max(start, end - _TAIL)
        if kept := octets[tail:end].rstrip(b"\r\n"):
            return tail + len(kept)
        end = tail
    return end


def decode(octets: bytes, encoding: str, *, start: int = 0, end: int | None = None) -> bytes | None:
    """What stands there, decoded; none where the encoding is unknown or not kept strictly."""
    if encoding in IDENTITY:
        return octets[start:end]
    end = len(octets) if end is None else end
    if encoding == "quoted-printable":
        return _decode_quoted(octets, start, end)
    return _decode_base64(octets, start, end) if encoding == "base64" else None


def splice(octets: bytes, edits: Sequence[Plain]) -> bytes:
    """The octets with the edits made. Edits are in order and do not overlap."""
    if len(edits) == 1 and edits[0][:2] == (0, len(octets)):
        return edits[0][2]
    return b"".join(spliced(octets, edits))


def spliced(octets: bytes | memoryview, edits: Sequence[Plain]) -> list[bytes | memoryview]:
    """The same in pieces."""
    done: list[bytes | memoryview] = []
    at = 0
    kept = memoryview(octets) if len(octets) > PIECE else octets  # what is large is not copied piece by piece too
    for start, end, new in edits:
        done += kept[at:start], new
        at = end
    done.append(kept[at:])
    return done


def fits(octets: bytes, edits: Sequence[Plain]) -> bool:
    """Whether no line that holds an edit would be longer than a line may be; what edits put in ends none."""
    return all(length <= MAX_LINE for length in _lengths(octets, edits))


def _lengths(octets: bytes, edits: Sequence[Plain]) -> Iterator[int]:
    """Of the lines that hold edits, once these are made."""
    begin, stop, grown, returned = 0, -1, 0, False
    for start, end, new in edits:
        if start > stop:
            yield stop - begin + grown - returned
            begin, grown = octets.rfind(b"\n", 0, start) + 1, 0
        grown += len(new) - (end - start)
        if end >= stop:
            newline = octets.find(b"\n", end)
            stop = newline if newline >= 0 else len(octets)
            returned = newline > end and octets.startswith(b"\r", newline - 1)
    yield stop - begin + grown - returned


def _decode_quoted(octets: bytes, start: int, end: int) -> bytes | None:
    if end - start <= PIECE:
        return undone(octets[start:end])
    whole = BytesIO()
    for piece in pieces(octets, start, end):
        decoded = undone(piece)
        if decoded is None:
            return None
        whole.write(decoded)
    return whole.getvalue()


def undone(raw: bytes) -> bytes | None:
    """Strict, by arithmetic: binascii leaves out two octets for an escape or `=LF`, three for `=CRLF`.

    Of anything else it leaves out fewer, but for a CR behind "=" that ends no line; so the length tells.
    """
    ends = raw.count(b"=\r\n")
    if raw.count(b"=\r") != ends:
        return None
    decoded = binascii.a2b_qp(raw)
    marks = raw.count(b"=") if len(raw) > PIECE else len(raw) - len(raw.replace(b"=", b""))  # faster, for a copy
    left_out = 2 * marks + ends
    return decoded if len(decoded) == len(raw) - left_out else None


def edit_quoted(raw: bytes, decoded: bytes, edits: Sequence[Plain], begin: int, end: int) -> tuple[Plain, ...]:
    """Only what stands between the two ends of an edit changes, and soft line breaks keep its lines within 76."""
    soft_break = b"=\r\n" if raw.find(b"\r\n", begin, end) >= 0 else b"=\n"
    line = _Line(soft_break, end)
    starts: list[int] = []
    stops: list[int] = []
    new: list[bytes] = []
    at, decoded_at = begin, 0
    for first, last, text in edits:
        start = _encoded_at(raw, at, end, decoded, decoded_at, first)
        if line.keep(raw, at, start):
            new[-1] += soft_break
        at, decoded_at = _encoded_at(raw, start, end, decoded, first, last), last
        starts.append(start)
        stops.append(at)
        new.append(line.write(text) if text else b"")
    if line.keep(raw, at, end):
        new[-1] += soft_break
    return tuple(zip(starts, stops, new, strict=True))


def _encoded_at(raw: bytes, start: int, limit: int, decoded: bytes, begin: int, end: int) -> int:
    """The first place up to `limit` where decoded[end] is encoded, when decoded[begin] is at `start`.

    Mostly it is where the next octets stand as they are, which what lies between proves by its length when decoded; it
    must not end within an escape, nor with a soft line break, before which the place would be.
    """
    count = end - begin
    at = start + count
    place = raw.find(decoded[end : end + _AHEAD], at, at + count + ENCODED_LINE)
    sure = start < place <= limit and count <= PIECE and raw[place - 1] not in _CUT and raw[place - 2] != _MARK
    return place if sure and len(binascii.a2b_qp(raw[start:place])) == count else _counted(raw, start, limit, count)


def _counted(raw: bytes, start: int, limit: int, count: int) -> int:
    """The first place behind `start` before which `count` octets are encoded.

    The least solution of place = start + count + what decoding leaves out before it, approached from below: what is
    left out never shrinks as the place grows, so no solution is passed over. A soft line break counts as a whole from
    its first octet on: no solution lies within it.
    """
    at, seen = start + count, start
    while seen < at:
        left_out = 2 * raw.count(b"=", seen, at) + raw.count(b"=\r\n", seen, min(at + 2, limit))
        seen, at = at, at + left_out
    return at


def _escape(found: re.Match[bytes]) -> bytes:
    return b"=%02X" % found[0][0]


def _moves(column: int, line: bytes, most: int) -> bool:
    """Whether what stands on a line, which is to go on in that column, has to go to the next one."""
    length = len(line.rstrip(b"\r"))
    return 0 < length > most - column < most


class _Line:
    """The column in which quoted-printable is being written."""

    __slots__ = ("_break", "_column", "_end")

    def __init__(self, soft_break: bytes, end: int) -> None:
        self._break = soft_break
        self._end = end
        self._column = 0

    def keep(self, raw: bytes, start: int, end: int) -> bool:
        """Pass encoded text as it stands; whether a soft line break has to be put before it, so that it fits."""
        column = self._column
        newline = raw.find(b"\n", start, end)
        if newline >= 0:
            self._column = end - raw.rfind(b"\n", newline, end) - 1
            return column + newline - start > ENCODED_LINE and _moves(column, raw[start:newline], ENCODED_LINE)
        kept = raw[start:end]
        moves = _moves(column, kept, ENCODED_LINE - (end != self._end))
        self._column = len(kept.rstrip(b"\r")) + (0 if moves else column)
        return moves

    def write(self, new: bytes) -> bytes:
        """New text, encoded, in as many lines as it takes; an escape is never cut."""
        if new.translate(None, _GRAPHIC):
            return b"".join(map(self._write, _ATOM.findall(_ESCAPE.sub(_escape, new))))
        return self._write(new)

    def _write(self, atoms: bytes) -> bytes:
        """Text without escapes, which may be cut anywhere, or one escape, which must not be."""
        room = ENCODED_LINE - 1 - self._column
        lead = b""
        if room <= 0 or (atoms[0] == 61 and room < 3):
            lead, self._column, room = self._break, 0, ENCODED_LINE - 1
        if len(atoms) <= room:
            self._column += len(atoms)
            return lead + atoms
        lines = [atoms[:room]]
        for at in range(room, len(atoms), ENCODED_LINE - 1):
            lines.append(atoms[at : at + ENCODED_LINE - 1])
        self._column = len(lines[-1])
        return lead + self._break.join(lines)


def _decode_base64(octets: bytes, start: int, end: int) -> bytes | None:
    """Strict: nothing but the alphabet and line ends, padding at the end only (RFC 4648 section 3.3)."""
    whole, rest = BytesIO(), b""
    try:
        for piece in pieces(octets, start, end):
            text = rest + piece.replace(b"\r\n", b"").replace(b"\n", b"")
            if end - start <= PIECE:
                return binascii.a2b_base64(text, strict_mode=True)
            full = max(0, len(text) - 1) & ~3  # what may be padded is left for the end
            if text.find(b"=", 0, full) >= 0:
                return None
            whole.write(binascii.a2b_base64(text[:full], strict_mode=True))
            rest = text[full:]
        whole.write(binascii.a2b_base64(rest, strict_mode=True))
    except binascii.Error:
        return None
    return whole.getvalue()
