"""Transfer encodings that keep their place: edits found in the decoded octets, made in the encoded ones.

Knows nothing of what the octets mean. In 7bit, 8bit and binary an edit is made where it stands, unless a line would
pass 998 octets; then the whole becomes quoted-printable. In quoted-printable only the encoded lines that hold an edit
change; base64 is written anew in the line length it had. Whatever decoders could disagree about is not decoded at all
(RFC 2045 section 6). `encode` is for what is written anew as a whole.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple, TypeAlias

IDENTITY = frozenset({"7bit", "8bit", "binary"})
MAX_LINE = 998  # RFC 5322 section 2.1.1, without the line end; Postfix breaks longer ones (smtp_line_length_limit)
_ENCODED_LINE = 76  # RFC 2045 sections 6.7 (5), the "=" of a soft line break included, and 6.8
_WHOLE_LINES = 57 << 14  # octets that fill lines of base64
_AHEAD = 4  # octets that are looked for: rarely broken by the end of a line, rarely the wrong ones
_PIECE = 1 << 20  # what is larger is worked on by so much at a time, so that copies do not add up
_TAIL = 1 << 12
_TORN = re.compile(rb"[=\r]")
_BREAKS = re.compile(rb"[\r\n]*+")
_MARK = ord("=")
_CUT = frozenset(b"=\n")
_ATOM = re.compile(rb"=..|[^=]+")
_ESCAPE = re.compile(rb"[^ -<>-~]| \Z")  # what quoted-printable may not hold as it is: a space only within a line
_GRAPHIC = bytes({*range(33, 127)} - {*b"="})  # what it may hold as it is wherever that stands
_LITERAL = bytes({*range(32, 127), *b"\t\r\n"} - {*b"="})  # what it mostly may, white space at line ends apart


class Edit(NamedTuple):
    """`new` takes the place of decoded octets `start` to `end`."""

    start: int
    end: int
    new: bytes


Plain: TypeAlias = tuple[int, int, bytes]
"""An edit without names: made in a fifth of the time, and a page has two for each link."""


@dataclass(frozen=True, slots=True)
class Change:
    """What changes where the encoded octets stand, and the transfer encoding to declare afterwards."""

    edits: tuple[Plain, ...]
    encoding: str


def pieces(octets: bytes, start: int, end: int) -> Iterable[bytes]:
    """What stands there: one piece, or where it is large several, so that it is not copied whole.

    They end with a line, or if it is too long for that at least not within a line end or an escape.
    """
    return (octets[start:end],) if end - start <= _PIECE else _cut(octets, start, end)


def _cut(octets: bytes, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        most = min(start + 2 * _PIECE, end)
        stop = octets.find(b"\n", start + _PIECE, most) + 1
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
    return b"".join(_spliced(octets, edits))


def _spliced(octets: bytes, edits: Sequence[Plain]) -> list[bytes | memoryview]:
    done: list[bytes | memoryview] = []
    at = 0
    kept = memoryview(octets) if len(octets) > _PIECE else octets  # what is large is not copied piece by piece too
    for start, end, new in edits:
        done += kept[at:start], new
        at = end
    done.append(kept[at:])
    return done


def change(
    octets: bytes, decoded: bytes, encoding: str, edits: Sequence[Plain], *, start: int = 0, end: int | None = None
) -> Change | None:
    """What stands there with the edits made; none where that cannot be had without another difference."""
    end = len(octets) if end is None else end
    if encoding == "quoted-printable":
        return Change(_edit_quoted(octets, decoded, edits, start, end), encoding)
    if encoding == "base64":
        return Change(((start, end, _encode_base64(_spliced(decoded, edits), octets, start, end)),), encoding)
    if not any(_passes(changed, some) for changed, some in _windows(decoded, edits)):
        return Change(tuple([(start + begin, start + stop, new) for begin, stop, new in edits]), encoding)
    if len(decoded) <= _PIECE:
        changed = splice(decoded, edits)
        quoted = binascii.b2a_qp(changed, istext=True)
        same = _undone(quoted) == changed
    else:
        whole = BytesIO()
        same = _encode_quoted(_blocks(_spliced(decoded, edits), _PIECE), whole)
        quoted = whole.getvalue()
    return Change(((start, end, quoted),), "quoted-printable") if same else None


def encode(octets: bytes, into: BytesIO, *, start: int, end: int, head: Callable[[str], bytes]) -> str:
    """Write what stands there in seven bits and lines of 76, behind the head for the encoding that is told.

    Quoted-printable for text, base64 where that is shorter or lines end otherwise.
    """
    begun = into.tell()
    escaped = sum([len(piece.translate(None, _LITERAL)) for piece in pieces(octets, start, end)])
    if 6 * escaped <= end - start:  # two more for each, or a third for all
        into.write(head("quoted-printable"))
        if _encode_quoted(pieces(octets, start, end), into):
            return "quoted-printable"
        into.seek(begun)
        into.truncate()
    into.write(head("base64"))
    for at in range(start, end, _WHOLE_LINES):
        text = _in_lines(octets[at : min(at + _WHOLE_LINES, end)], _ENCODED_LINE, b"\r\n")
        into.write(b"\r\n" * (at > start) + text)
    return "base64"


def _encode_quoted(octets: Iterable[bytes], into: BytesIO) -> bool:
    """False where a line ends otherwise than with CRLF. Of each piece the last line waits for the next one."""
    known = iter(octets)
    piece = next(known, b"")
    while piece:
        following = next(known, b"")
        quoted = binascii.b2a_qp(piece, istext=True)
        quoted = quoted if b"\r\n" in piece else quoted.replace(b"\n", b"\r\n")
        quoted = quoted[: quoted.rfind(b"\n") + 1] if following else quoted
        done = _undone(quoted)
        if not done or not piece.startswith(done) or not _ends_lines_with_crlf(done):
            return False
        into.write(quoted)
        piece = piece[len(done) :] + following
    return True


def _ends_lines_with_crlf(octets: bytes) -> bool:
    return octets.count(b"\r") == octets.count(b"\n") == octets.count(b"\r\n")


def _windows(octets: bytes, edits: Sequence[Plain]) -> Iterator[tuple[bytes, Sequence[Plain]]]:
    """All lines that hold edits, about a megabyte at a time: as they are to be, and the edits counted from there."""
    if len(octets) <= _PIECE:
        yield splice(octets, edits), edits
        return
    at = 0
    while at < len(edits):
        first, begin, stop = at, octets.rfind(b"\n", 0, edits[at][0]) + 1, -1
        while at < len(edits) and (at == first or edits[at][0] < stop):
            stop = max(stop, octets.find(b"\n", max(edits[at][1], begin + _PIECE)) + 1 or len(octets))
            at += 1
        some = [(start - begin, end - begin, new) for start, end, new in edits[first:at]]
        yield splice(octets[begin:stop], some), some


def _passes(changed: bytes, edits: Sequence[Plain]) -> bool:
    """Whether a line that holds an edit is longer than a line may be."""
    shift = 0
    for begin, end, new in edits:
        start = begin + shift
        shift += len(new) - (end - begin)
        stop = changed.find(b"\n", start)
        stop = len(changed) if stop < 0 else stop - (changed[stop - 1 : stop] == b"\r")
        if stop - (changed.rfind(b"\n", 0, start) + 1) > MAX_LINE:
            return True
    return False


def _decode_quoted(octets: bytes, start: int, end: int) -> bytes | None:
    if end - start <= _PIECE:
        return _undone(octets[start:end])
    whole = BytesIO()
    for piece in pieces(octets, start, end):
        decoded = _undone(piece)
        if decoded is None:
            return None
        whole.write(decoded)
    return whole.getvalue()


def _undone(raw: bytes) -> bytes | None:
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


def _edit_quoted(raw: bytes, decoded: bytes, edits: Sequence[Plain], begin: int, end: int) -> tuple[Plain, ...]:
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
    place = raw.find(decoded[end : end + _AHEAD], at, at + count + _ENCODED_LINE)
    sure = start < place <= limit and count <= _PIECE and raw[place - 1] not in _CUT and raw[place - 2] != _MARK
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
            return column + newline - start > _ENCODED_LINE and _moves(column, raw[start:newline], _ENCODED_LINE)
        kept = raw[start:end]
        moves = _moves(column, kept, _ENCODED_LINE - (end != self._end))
        self._column = len(kept.rstrip(b"\r")) + (0 if moves else column)
        return moves

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
        lines = [atoms[:room]]
        for at in range(room, len(atoms), _ENCODED_LINE - 1):
            lines.append(atoms[at : at + _ENCODED_LINE - 1])
        self._column = len(lines[-1])
        return lead + self._break.join(lines)


def _decode_base64(octets: bytes, start: int, end: int) -> bytes | None:
    """Strict: nothing but the alphabet and line ends, padding at the end only (RFC 4648 section 3.3)."""
    whole, rest = BytesIO(), b""
    try:
        for piece in pieces(octets, start, end):
            text = rest + piece.replace(b"\r\n", b"").replace(b"\n", b"")
            if end - start <= _PIECE:
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


def _encode_base64(octets: Sequence[bytes | memoryview], like: bytes, start: int, end: int) -> bytes:
    """In lines as long as the first one was there, and with the line ends that stood before and behind."""
    first, last = _BREAKS.match(like, start, end).end(), content_end(like, start, end)  # type: ignore[union-attr]
    first = first if first < last else start
    line_end = b"\r\n" if like.find(b"\r\n", start, end) >= 0 else b"\n"
    newline = like.find(b"\n", first, last)
    length = newline - first - (like[newline - 1 : newline] == b"\r")
    if newline < 0:  # one line stays one, while it may
        length = max(1, -(-sum(map(len, octets)) // 3) * 4)
    length = length if length <= MAX_LINE else _ENCODED_LINE
    whole = BytesIO()
    whole.write(like[start:first])
    for number, lines in enumerate(_blocks(octets, 3 * length * (_PIECE // (4 * length) + 1))):
        whole.write(line_end * bool(number) + _in_lines(lines, length, line_end))
    whole.write(like[last:end])
    return whole.getvalue()


def _blocks(octets: Iterable[bytes | memoryview], size: int) -> Iterator[bytes]:
    """All of them in blocks of that size."""
    waiting: list[bytes | memoryview] = []
    held = 0
    for piece in octets:
        at = 0
        while held + len(piece) - at >= size:
            stop = at + size - held
            yield b"".join([*waiting, piece[at:stop]])
            waiting, held, at = [], 0, stop
        waiting.append(piece[at:])
        held += len(piece) - at
    if held:
        yield b"".join(waiting)


def _in_lines(octets: bytes, length: int, line_end: bytes) -> bytes:
    """In base64."""
    text = binascii.b2a_base64(octets, newline=False)
    return line_end.join([text[at : at + length] for at in range(0, len(text), length)])
