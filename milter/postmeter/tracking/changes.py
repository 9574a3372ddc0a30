"""The changes of one body: from places in decoded parts to octets of the body, each recorded with what stood there.

Knows nothing of links: it is given places and what to put there. A part that cannot be written without another
difference stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from postmeter.mail import anew
from postmeter.mail.anew import Anew, Back, Placed
from postmeter.mail.coding import Plain
from postmeter.mail.draft import Draft
from postmeter.mail.message import Field, PartChange, Span
from postmeter.mail.mime import Part
from postmeter.tracking import opens, parts
from postmeter.tracking.parts import AMP, HTML, Leaf

LINKS, SWITCHES, TRAP, OPENS, RECODED = "links", "switches", "honeypot", "opens", "recoded"
"""What was done to a part, as the journal and `explain` say it."""

_SHORT = 4096  # octets that the record of a change simply holds
_ENCODING_FIELD = b"Content-Transfer-Encoding"


class Changes:
    """Parts are given in the order of the body."""

    __slots__ = ("_body", "_decoded", "_shift", "clipped", "edits", "made", "recoded")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._decoded = 0
        """Octets of the parts that are changed."""
        self._shift = 0
        self.edits: list[Placed] = []
        self.made: list[PartChange] = []
        self.recoded = ""
        """The message has no parts, and this transfer encoding now."""
        self.clipped: list[tuple[str, bool]] = []
        """Pages that Gmail does not show to their end, and whether they were so before."""

    def make(self, leaf: Leaf, edits: Sequence[Plain], done: Sequence[str], links: int) -> str:
        """Put those octets at those places of the leaf's view; why not, if not."""
        part, view = leaf.part, leaf.view
        if view.width > 1:
            edits = [(view.place(start), view.place(end), view.write(new)) for start, end, new in edits]
        size = len(leaf.decoded) + sum([len(new) - (end - start) for start, end, new in edits])
        if part.kind == AMP and size > opens.LARGEST_AMP:
            return parts.AMP_SIZE
        at, end = part.body_start, part.end
        others, body = self._decoded, self._body
        changed = anew.change(body, leaf.decoded, part.encoding, edits, start=at, end=end, others=others)
        if changed is None:
            return parts.ENCODING
        self._decoded += len(leaf.decoded)
        label = changed.encoding != part.encoding
        if label and not part.enclosing:
            self.recoded = changed.encoding
        edits_here = [*(_label(self._body, part, changed.encoding) if label and part.enclosing else ()), *changed.edits]
        reason = ", ".join([*done, RECODED] if label else done)
        self.made.append(PartChange(part.path, reason, links, self._spans(edits_here)))
        self.edits += edits_here
        if part.kind == HTML and size > opens.CLIPPED:
            self.clipped.append((part.path, len(leaf.decoded) > opens.CLIPPED))
        return ""

    def _spans(self, edits: Sequence[Placed]) -> tuple[Span, ...]:
        """Where they are in the changed body."""
        spans: list[Span] = []
        body, shift = self._body, self._shift
        for start, end, new in edits:
            stop = start + shift + len(new)
            old = body[start:end] if end - start <= _SHORT else _old(body, start, end, new)
            spans.append(Span(start + shift, stop, old))
            shift = stop - end
        self._shift = shift
        return tuple(spans)

    def body(self) -> bytes:
        return anew.splice(self._body, self.edits)


def _old(body: bytes, start: int, end: int, new: bytes | Anew) -> bytes | memoryview | Back:
    """What is there anyway. A view keeps the whole body, which others may need no more."""
    if isinstance(new, Anew) and new.back:
        return new.back
    return memoryview(body)[start:end] if 2 * (end - start) > len(body) else body[start:end]


def _label(body: bytes, part: Part, encoding: str) -> list[Plain]:
    """The change in a part's header that says how it is encoded now."""
    value = b" " + encoding.encode("ascii")
    if part.encoding_span:
        start, end = part.encoding_span
        return [(start, end, value + (b"\r" if body[end - 1 : end] == b"\r" else b""))]
    line_end = b"\r\n" if body[: part.start].endswith(b"\r\n") else b"\n"
    return [(part.start, part.start, _ENCODING_FIELD + b":" + value + line_end)]


def label_message(draft: Draft, encoding: str) -> None:
    """The same for a message that is no multipart."""
    value = b" " + encoding.encode("ascii")
    known = [field.name for field in draft.fields if field.key == _ENCODING_FIELD.lower()]
    if known:
        draft.replace_field(known[0], nth=1, value=value)
    else:
        draft.insert_field(Field(_ENCODING_FIELD, value), at=len(draft.fields) + 1)


def record(draft: Draft, changes: Changes) -> None:
    """What the journal, the figures and `explain` tell of it."""
    number = sum(change.count for change in changes.made)
    if number:
        draft.count("links_rewritten_total", by=number)
        draft.facts["links"] = number
    if any(OPENS in change.reason for change in changes.made):
        draft.facts["opens"] = True
    draft.facts["parts"] = [
        {"path": change.path, "reason": change.reason, "count": change.count} for change in changes.made
    ]
    for change in changes.made:
        draft.note("links", _told(change))
    for path, was in changes.clipped:
        if not was:
            draft.count("html_clipped_total")
            draft.facts["clipped"] = True
        size = f"{'' if was else 'now '}over {opens.CLIPPED:,} octets"
        draft.note("links", f"part {path} is {size}: Gmail cuts it and does not load its end")


def _told(change: PartChange) -> str:
    done = change.reason.split(", ")
    said = [f"{change.count} link{'s' * (change.count != 1)} tracked"] * (LINKS in done)
    said += ["an image tells of opens"] * (OPENS in done)
    said += ["a hidden link tells of robots"] * (TRAP in done)
    said += ["attributes that switch tracking off removed"] * (SWITCHES in done)
    recoded = ", and the part has a transfer encoding now" if RECODED in done else ""
    return f"{', '.join(said)} in part {change.path}{recoded}"
