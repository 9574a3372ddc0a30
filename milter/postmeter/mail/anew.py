"""Octets in a transfer encoding, written anew as a whole: base64 as it was, or what can no longer stay as it is.

Knows nothing of what the octets mean. Quoted-printable for text, base64 where that is shorter (RFC 2045 section 6). Of
what is large only so much is worked on at a time, and it is written where it shall stand and nowhere else: held beside
the body that it is put into, it would be there twice.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import NamedTuple, Protocol, TypeAlias

from postmeter.mail import coding
from postmeter.mail.coding import ENCODED_LINE, MAX_LINE, PIECE, Plain

QUOTED, BASE64 = "quoted-printable", "base64"
_LINES = 3 << 10  # octets for each column of 4,096 lines of base64
_BREAKS = re.compile(rb"[\r\n]*+")
_LITERAL = bytes({*range(32, 127), *b"\t\r\n"} - {*b"="})  # what quoted-printable mostly may hold as it is


class Sink(Protocol):
    """Takes octets in their order."""

    def write(self, octets: bytes, /) -> object: ...


_Write: TypeAlias = Callable[[Sink], bool]
"""False where that cannot be had without another difference."""
Back: TypeAlias = Callable[[bytes], bytes]
"""What was there, made of what was written in its place."""


@dataclass(frozen=True, slots=True)
class Anew:
    """So many octets, that are there only when they are written."""

    size: int
    write: _Write
    back: Back | None
    """None where they do not tell all of what stood there."""

    def __len__(self) -> int:
        return self.size


Placed: TypeAlias = tuple[int, int, bytes | Anew]
"""An edit where the encoded octets stand."""


@dataclass(frozen=True, slots=True)
class Change:
    """What changes where the encoded octets stand, and the transfer encoding to declare afterwards."""

    edits: tuple[Placed, ...]
    encoding: str


@dataclass(slots=True)
class _Count:
    """How much would be written."""

    size: int = 0

    def write(self, octets: bytes, /) -> None:
        self.size += len(octets)


@dataclass(slots=True)
class _Compare:
    """Whether what would be written stands there already, and up to where."""

    octets: bytes
    at: int
    same: bool = True

    def write(self, octets: bytes, /) -> None:
        self.same = self.same and self.octets.startswith(octets, self.at)
        self.at += len(octets)


class _Lines(NamedTuple):
    """How base64 is broken: what stands before it and behind, the length of a line (0: there is one), how they end."""

    before: bytes
    behind: bytes
    length: int
    line_end: bytes


def change(
    octets: bytes,
    decoded: bytes,
    encoding: str,
    edits: Sequence[Plain],
    *,
    start: int = 0,
    end: int | None = None,
    others: int = 0,
) -> Change | None:
    """What stands there with the edits made; none where that cannot be had without another difference.

    In 7bit, 8bit and binary the whole is encoded where a line with an edit would pass 998 octets. `others` is what was
    decoded of other parts: where they are large together they are not held either.
    """
    end = len(octets) if end is None else end
    if encoding == QUOTED:
        return Change(coding.edit_quoted(octets, decoded, edits, start, end), encoding)
    large = len(decoded) + others > PIECE
    lines = _lines(octets, start, end) if encoding == BASE64 else None
    if lines:
        write = partial(_base64_again, octets, start, end, edits, lines, None if large else decoded)
    elif coding.fits(decoded, edits):
        return Change(tuple([(start + begin, start + stop, new) for begin, stop, new in edits]), encoding)
    else:
        edited = coding.spliced(memoryview(octets)[start:end] if large else decoded, edits)
        encoding = _shortest(_blocks(edited, PIECE), len(decoded))
        if encoding == BASE64 and not _ends_lines_with_crlf(decoded):
            return None
        write = partial(_encoded, encoding, edited, b"\r\n" if end == len(octets) else b"")
    if not large:
        placed = _now(write, start, end)
    else:
        told = lines is None or _tells(octets, decoded, lines, start, end)
        back = partial(_before, encoding, _undoing(decoded, edits), lines) if told else None
        placed = _later(write, start, end, back)
    return Change((placed,), encoding) if placed else None


def _now(write: _Write, start: int, end: int) -> Placed | None:
    into = BytesIO()
    return (start, end, into.getvalue()) if write(into) else None


def _later(write: _Write, start: int, end: int, back: Back | None) -> Placed | None:
    count = _Count()
    return (start, end, Anew(count.size, write, back)) if write(count) else None


def _undoing(decoded: bytes, edits: Sequence[Plain]) -> list[Plain]:
    """The edits that take those back."""
    back: list[Plain] = []
    shift = 0
    for start, end, new in edits:
        stop = start + shift + len(new)
        back.append((start + shift, stop, decoded[start:end]))
        shift = stop - end
    return back


def _before(encoding: str, edits: Sequence[Plain], lines: _Lines | None, octets: bytes) -> bytes:
    """What those octets, written in that encoding, are when decoded, edited, and if there are any put into lines."""
    edited, whole = coding.spliced(coding.decode(octets, encoding) or b"", edits), BytesIO()
    if lines:
        _write_lines(edited, lines, whole)
    return whole.getvalue() if lines else b"".join(edited)


def splice(octets: bytes, edits: Sequence[Placed]) -> bytes:
    """The octets with the edits made. Edits are in order and do not overlap."""
    if len(octets) <= PIECE or not any(isinstance(new, Anew) for _, _, new in edits):
        return coding.splice(octets, edits)  # type: ignore[arg-type]
    whole, kept, at = BytesIO(), memoryview(octets), 0
    for start, end, new in edits:
        whole.write(kept[at:start])
        if isinstance(new, Anew):
            new.write(whole)
        else:
            whole.write(new)
        at = end
    whole.write(kept[at:])
    return whole.getvalue()


def encode(
    octets: bytes, into: BytesIO, *, start: int, end: int, head: Callable[[str], bytes], text: bool = True
) -> str:
    """Write what stands there in seven bits and lines of 76, behind the head for the encoding that is told.

    Base64 also for what is no `text`, and where lines end otherwise than with CRLF.
    """
    begun = into.tell()
    if text and _shortest(coding.pieces(octets, start, end), end - start) == QUOTED:
        into.write(head(QUOTED))
        if _write_quoted(coding.pieces(octets, start, end), into):
            return QUOTED
        into.seek(begun)
        into.truncate()
    into.write(head(BASE64))
    size = _LINES * ENCODED_LINE
    _write_base64((octets[at : min(at + size, end)] for at in range(start, end, size)), into)
    return BASE64


def _shortest(octets: Iterable[bytes], size: int) -> str:
    escaped = sum([len(piece.translate(None, _LITERAL)) for piece in octets])
    return QUOTED if 6 * escaped <= size else BASE64  # two more for each, or a third for all


def _encoded(encoding: str, octets: Sequence[bytes | memoryview], line_end: bytes, into: Sink) -> bool:
    if encoding == QUOTED:
        return _write_quoted(_blocks(octets, PIECE), into)
    _write_base64(_blocks(octets, _LINES * ENCODED_LINE), into)
    into.write(line_end)
    return True


def _write_quoted(octets: Iterable[bytes], into: Sink) -> bool:
    """False where a line ends otherwise than with CRLF. Of each piece the last line waits for the next one."""
    known = iter(octets)
    piece = next(known, b"")
    while piece:
        following = next(known, b"")
        quoted = binascii.b2a_qp(piece, istext=True)
        quoted = quoted if b"\r\n" in piece else quoted.replace(b"\n", b"\r\n")
        quoted = quoted[: quoted.rfind(b"\n") + 1] if following else quoted
        done = coding.undone(quoted)
        if not done or not piece.startswith(done) or not _ends_lines_with_crlf(done):
            return False
        into.write(quoted)
        piece = piece[len(done) :] + following
    return True


def _ends_lines_with_crlf(octets: bytes) -> bool:
    return octets.count(b"\r") == octets.count(b"\n") == octets.count(b"\r\n")


def _lines(raw: bytes, start: int, end: int) -> _Lines:
    """Of the base64 that stands there, as the first of them is."""
    first, last = _BREAKS.match(raw, start, end).end(), coding.content_end(raw, start, end)  # type: ignore[union-attr]
    first = first if first < last else start
    line_end = b"\r\n" if raw.find(b"\r\n", start, end) >= 0 else b"\n"
    newline = raw.find(b"\n", first, last)
    length = newline - first - (raw[newline - 1 : newline] == b"\r") if newline >= 0 else 0
    return _Lines(raw[start:first], raw[last:end], length, line_end)


def _tells(raw: bytes, decoded: bytes, lines: _Lines, start: int, end: int) -> bool:
    """Whether what is decoded makes what stands there, once it is in such lines."""
    compare = _Compare(raw, start)
    _write_lines([decoded], lines, compare)
    return compare.same and compare.at == end


def _base64_again(
    raw: bytes, start: int, end: int, edits: Sequence[Plain], lines: _Lines, decoded: bytes | None, into: Sink
) -> bool:
    decoded = coding.decode(raw, BASE64, start=start, end=end) if decoded is None else decoded
    if decoded is None:
        return False
    _write_lines(coding.spliced(decoded, edits), lines, into)
    return True


def _write_lines(octets: Sequence[bytes | memoryview], lines: _Lines, into: Sink) -> None:
    length = lines.length or max(1, -(-sum(map(len, octets)) // 3) * 4)  # one line stays one, while it may
    length = length if length <= MAX_LINE else ENCODED_LINE
    into.write(lines.before)
    _write_base64(_blocks(octets, _LINES * length), into, length=length, line_end=lines.line_end)
    into.write(lines.behind)


def _write_base64(
    octets: Iterable[bytes], into: Sink, *, length: int = ENCODED_LINE, line_end: bytes = b"\r\n"
) -> None:
    """Blocks of whole lines, but for the last one."""
    for number, block in enumerate(octets):
        text = binascii.b2a_base64(block, newline=False)
        lines = line_end.join([text[at : at + length] for at in range(0, len(text), length)])
        into.write(line_end * bool(number) + lines)


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
