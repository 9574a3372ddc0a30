"""A message made such that no hop on its road has to change it: 7-bit parts, short lines (RFC 6376 section 5.3).

Parts declared 8bit or binary, and those with a line over 998 octets, get a transfer encoding, or the label 7bit where
that is the truth; what is in them stays the same. Knows nothing of keys or signatures of ours. Whatever somebody else
has signed or encrypted is not touched, nor what cannot be read without guessing; then nothing is, since one part that
breaks breaks all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO

from postmeter.mail import anew, coding, hop, mime
from postmeter.mail.coding import MAX_LINE, Edit
from postmeter.mail.message import Field, PartChange
from postmeter.mail.mime import Part
from postmeter.mail.reading import crlf

ALREADY_SIGNED = "already_signed"  # somebody else's DKIM or ARC signature, of the message or of one attached
SIGNED = "signed"  # within multipart/signed
ENCRYPTED = "encrypted"  # within multipart/encrypted
SMIME = "smime"  # application/pkcs7-mime
PGP = "pgp"  # inline
ENCODING = "encoding"  # unknown, or not kept strictly
STRUCTURE = "structure"  # MIME that Postfix reads in another way, or a line where no encoding can be

LONG_LINE = "long_line"
"""Why a part was changed that declares nothing of 8 bits; else the reason is what it declares."""

ENCODING_FIELD = b"Content-Transfer-Encoding"
_FOREIGN = frozenset({b"dkim-signature", b"arc-message-signature"})
_FOREIGN_INSIDE = re.compile(rb"^(?:dkim-signature|arc-message-signature)[ \t]*:", re.IGNORECASE | re.MULTILINE)
_VERSION = re.compile(rb"^mime-version[ \t]*:", re.IGNORECASE | re.MULTILINE)
_SEALED = {"multipart/signed": SIGNED, "multipart/encrypted": ENCRYPTED}
_AT_ONCE, _LONGEST = 1 << 20, 32  # octets looked through, with as many more as a name among _SEALED has at most
_SMIME = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime"})
_COMPOSITE = ("multipart/", "message/")  # never encoded themselves (RFC 2045 section 6.4)
_GLOBAL = "message/global"  # but this one (RFC 6532 section 3.7), in base64: else smtp(8) sees the labels within
_AS_GLOBAL = (Field(b"Content-Type", b" message/global"),)
_PGP = b"-----BEGIN PGP "  # RFC 9580 section 6.2


@dataclass(frozen=True, slots=True)
class Safe:
    """`label` is the message's own new Content-Transfer-Encoding, if any; with a `problem` nothing was changed."""

    body: bytes
    parts: tuple[PartChange, ...] = ()
    label: str = ""
    problem: str = ""


class _ProblemError(Exception):
    """Why the message has to stay as it is."""


def recode(fields: Sequence[Field], body: bytes, *, eight_bit: bool = True) -> Safe:
    """The body with all that smtp(8) would change encoded; `eight_bit` is whether labels make it convert."""
    try:
        if hop.long_line(body) < 0 and not (eight_bit and hop.converts(fields, body)):
            return Safe(body)
        if any(one.key in _FOREIGN for one in fields):
            return Safe(body, problem=ALREADY_SIGNED)
        work = _Work(body, eight_bit)
        for part in mime.entities(fields, body):
            work.look_at(part)
        done = work.done()
        if hop.long_line(done) < 0 and not (eight_bit and hop.converts(labelled(fields, work.label), done)):
            return Safe(done, tuple(work.changes), work.label)
        return _relabel(fields, body, STRUCTURE)
    except _ProblemError as problem:
        return _relabel(fields, body, str(problem))
    except hop.TooMuchError:
        return Safe(body, problem=STRUCTURE)


def labelled(fields: Sequence[Field], label: str) -> list[Field]:
    """The header with that transfer encoding where it names one; with 7bit only where that takes nothing away."""
    value = b" " + label.encode("ascii")
    return [
        Field(one.name, value)
        if label and one.key == ENCODING_FIELD.lower() and (label != "7bit" or hop.declared(one.value))
        else one
        for one in fields
    ]


def _relabel(fields: Sequence[Field], body: bytes, problem: str) -> Safe:
    """What can be read in several ways, but holds nothing that takes eight bits: then 7bit is right in each of them."""
    sealed = problem == STRUCTURE and (_names_seal(body) or _FOREIGN_INSIDE.search(body))
    if problem != STRUCTURE or sealed or not _seven_bit(body, 0, len(body)):
        return Safe(body, problem=problem)
    label = "7bit" if any(one.key == ENCODING_FIELD.lower() and hop.declared(one.value) for one in fields) else ""
    edits = [Edit(start, end, _value(body, end, "7bit")) for start, end in hop.labels(fields, body)]
    change = PartChange("0", "8bit: 7bit", len(edits) + bool(label))
    return Safe(coding.splice(body, edits), (change,), label)


def _names_seal(body: bytes) -> bool:
    lower = (body[at : at + _AT_ONCE + _LONGEST].lower() for at in range(0, len(body), _AT_ONCE))
    return any(kind.encode() in piece for piece in lower for kind in _SEALED)


def fold(value: bytes, room: int) -> bytes | None:
    """A field's value in lines of at most 998 octets, the first of at most `room`; none where no white space allows it.

    A line end before white space changes nothing that a reader sees (RFC 5322 section 2.2.3).
    """
    done: list[bytes] = []
    for line in value.split(b"\n"):
        while len(line) > room:
            at = max(line.rfind(b" ", 1, room + 1), line.rfind(b"\t", 1, room + 1))
            if at < 0 or not line[:at].strip() or not line[at:].strip():
                return None
            done.append(line[:at])
            line, room = line[at:], MAX_LINE
        done.append(line)
        room = MAX_LINE
    return b"\n".join(done)


@dataclass(slots=True)
class _Work:
    """The new body as far as it goes, and the regions that nobody may touch.

    It is written straight on: as an edit, what is encoded would be there twice.
    """

    body: bytes
    eight_bit: bool
    changes: list[PartChange] = field(default_factory=list)
    label: str = ""
    _new: BytesIO = field(default_factory=BytesIO)
    _at: int = 0
    """So much of the old body is in the new one."""
    _sealed: tuple[int, str] = (0, "")
    """Where the region that may not be touched ends, and why."""

    def look_at(self, part: Part) -> None:
        header = self.body[part.start : part.body_start]
        composite = _composite(part)
        label = hop.declared(part.encoding.encode("latin-1")) if self.eight_bit else ""
        too_long = not composite and hop.long_line(self.body, part.body_start, part.end) >= 0
        within = part.kind == _GLOBAL and self._declares(part)
        if label or within or too_long or hop.long_line(header) >= 0:
            if reason := self._keeps_off(part, header):
                raise _ProblemError(reason)
            leaf = (label or within or too_long) and not composite
            new = self._encode(part, header, label) if leaf else self._label(part, header, "7bit" if label else "")
            why = label or ("8bit" if within else LONG_LINE)
            self.changes.append(PartChange(part.path, f"{why}: {new or 'folded'}", 1))
        self._seal(part)

    def _declares(self, part: Part) -> bool:
        """Whether a message attached as one part has labels that make smtp(8) convert it."""
        return self.eight_bit and hop.converts(_AS_GLOBAL, self.body[part.body_start : part.end])

    def _keeps_off(self, part: Part, header: bytes) -> str:
        """Why the part may not be touched, or nothing."""
        end, reason = self._sealed
        if part.start < end:
            return reason
        if part.enclosing[-1:] == ("message/rfc822",) and _FOREIGN_INSIDE.search(header):
            return ALREADY_SIGNED
        if _composite(part) or _seven_bit(self.body, part.body_start, part.end):
            return ""
        if part.kind in _SMIME:
            return SMIME
        return STRUCTURE if part.broken else PGP if self.body.find(_PGP, part.body_start, part.end) >= 0 else ""

    def _seal(self, part: Part) -> None:
        reason = _SEALED.get(part.kind, "")
        if part.enclosing[-1:] == ("message/rfc822",):
            header = self.body[part.start : part.body_start]
            reason = ALREADY_SIGNED if _FOREIGN_INSIDE.search(header) else reason
        if reason and part.end > self._sealed[0]:
            self._sealed = part.end, reason

    def _encode(self, part: Part, header: bytes, label: str) -> str:
        plain = bool(label) or part.encoding in coding.IDENTITY
        octets, start, end = self._octets(part, plain=plain)
        if plain and _seven_bit(octets, start, end):
            return self._label(part, header, "7bit")
        self._keep(part.start)
        head = partial(_head, part=part, header=header)
        text = part.kind != _GLOBAL
        encoding = anew.encode(octets, self._new, start=start, end=end, head=head, text=text)
        if part.end == len(self.body) and encoding == "base64":
            self._new.write(b"\r\n")
        self._at = part.end
        return self._known(part, encoding)

    def _label(self, part: Part, header: bytes, label: str) -> str:
        """The part stays as it is, but for its header."""
        self._keep(part.start)
        self._new.write(_head(label, part=part, header=header))
        self._at = part.body_start
        return self._known(part, label)

    def _known(self, part: Part, label: str) -> str:
        self.label = self.label if part.enclosing else label
        return label

    def _octets(self, part: Part, *, plain: bool) -> tuple[bytes, int, int]:
        """What is in the part: where it stands if that is how it goes on the wire, else a copy."""
        body, start, end = self.body, part.body_start, part.end
        if not plain:
            octets = coding.decode(body, part.encoding, start=start, end=end)
            if octets is None:
                raise _ProblemError(ENCODING)
        elif body.count(b"\n", start, end) == body.count(b"\r\n", start, end):
            return body, start, end
        else:
            whole = BytesIO()
            for piece in coding.pieces(body, start, end):
                whole.write(crlf(piece))  # at a bare LF too Postfix ends a line (D36)
            octets = whole.getvalue()
        return octets, 0, len(octets)

    def _keep(self, end: int) -> None:
        self._new.write(memoryview(self.body)[self._at : end])
        self._at = end

    def done(self) -> bytes:
        """The new body."""
        if not self._at:
            return self.body
        self._keep(len(self.body))
        return self._new.getvalue()


def _composite(part: Part) -> bool:
    return part.kind.startswith(_COMPOSITE) and part.kind != _GLOBAL


def _head(label: str, *, part: Part, header: bytes) -> bytes:
    """The part's header; that of a message without parts is not in its body."""
    return _folded(_relabelled(part, header, label)) if label and part.enclosing else _folded(header)


def _seven_bit(octets: bytes, start: int, end: int) -> bool:
    """RFC 2045 section 2.7, but for bare LF."""
    return all(map(_plain, coding.pieces(octets, start, end))) and hop.long_line(octets, start, end) < 0


def _plain(octets: bytes) -> bool:
    return octets.isascii() and b"\0" not in octets and b"\r" not in octets.replace(b"\r\n", b"")


def _relabelled(part: Part, header: bytes, label: str) -> bytes:
    """The part's header with that transfer encoding; above it, where it names none."""
    if part.encoding_span:
        start, end = (at - part.start for at in part.encoding_span)
        return header[:start] + _value(header, end, label) + header[end:]
    version = b"MIME-Version: 1.0\r\n"
    needed = part.enclosing[-1:] == ("message/rfc822",) and not _VERSION.search(header)
    return (version if needed else b"") + ENCODING_FIELD + b": " + label.encode("ascii") + b"\r\n" + header


def _value(octets: bytes, end: int, label: str) -> bytes:
    """A value in place of the one that ends there: with its CR, where it had one."""
    return b" " + label.encode("ascii") + (b"\r" if octets[end - 1 : end] == b"\r" else b"")


def _folded(header: bytes) -> bytes:
    return b"\r\n".join(_short(line) for line in header.split(b"\r\n")) if hop.long_line(header) >= 0 else header


def _short(line: bytes) -> bytes:
    folded = fold(line, MAX_LINE)
    if folded is None:
        raise _ProblemError(STRUCTURE)
    return folded.replace(b"\n", b"\r\n")
