"""A message with its changes made, as Postfix would deliver it; the same changes as calls on libmilter are `session`'s.

Pure; refuses to know why anything changed. Positions as in Postfix's cleanup_milter.c (D12).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from postmeter.mail.message import (
    Change,
    DropField,
    Field,
    InsertField,
    Message,
    ReplaceBody,
    ReplaceField,
    Span,
)


def apply(message: Message, changes: Iterable[Change]) -> bytes:
    """Header, empty line and body as they would leave, CRLF between lines."""
    fields, body = list(message.fields), message.body
    for change in ordered(changes):
        match change:
            case ReplaceBody(replaced):
                body = replaced
            case ReplaceField(name, nth, value):
                fields[position(fields, name, nth)] = Field(name, value)
            case DropField(name, nth):
                del fields[position(fields, name, nth)]
            case InsertField(at, field):
                fields.insert(at, field)
    return b"".join(field.wire() for field in fields) + b"\r\n" + body


def ordered(changes: Iterable[Change]) -> list[Change]:
    """The order in which changes reach Postfix: body, edits from the highest instance down (D13), insertions last (D7).

    Only the last of several bodies counts. Insertions keep the order in which they were made.
    """
    known = list(changes)
    if len(known) < 2:
        return known  # most messages get a signature and nothing else
    bodies = [change for change in known if isinstance(change, ReplaceBody)]
    edits = [change for change in known if isinstance(change, (ReplaceField, DropField))]
    inserts = [change for change in known if isinstance(change, InsertField)]
    rest = [c for c in known if not isinstance(c, (ReplaceBody, ReplaceField, DropField, InsertField))]
    return [*bodies[-1:], *rest, *sorted(edits, key=lambda edit: edit.nth, reverse=True), *inserts]


def undo(change: ReplaceBody) -> bytes:
    """The body before the change, from its record alone."""
    pieces: list[bytes | memoryview] = []
    at = 0
    for span in sorted((span for part in change.parts for span in part.spans), key=lambda span: span.start):
        pieces += change.body[at : span.start], before(change.body, span)
        at = span.end
    return b"".join([*pieces, change.body[at:]])


def before(body: bytes, span: Span) -> bytes | memoryview:
    """What stood there."""
    return span.old(body[span.start : span.end]) if callable(span.old) else span.old


def position(fields: Sequence[Field], name: bytes, nth: int) -> int:
    """Index of the `nth` field of that name, counted from 1."""
    hits = [index for index, field in enumerate(fields) if field.key == name.lower()]
    return hits[nth - 1]
