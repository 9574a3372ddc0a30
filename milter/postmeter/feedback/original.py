"""The message that is reported on, as far as the report returns it: what tells which of ours it was.

From the part that holds it or its header (RFC 6522 section 4), or from the words behind "this is a copy". Knows nothing
of tokens and of the journal: whether it is ours is not known here.
"""

from __future__ import annotations

import re

from postmeter.feedback.opened import Head, Opened, head

_FAR = 1 << 16  # characters in which a copy among the words is looked for
_FIELD_LINE = re.compile(
    r"^[ \t>|]{0,12}(?:Received|Return-Path|Message-ID|DKIM-Signature|MIME-Version|X-Envelope-From|X-Originating-IP|"
    r"Authentication-Results|X-Mailer|Delivered-To|DomainKey-Signature|ARC-Seal)[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)
_ANNOUNCED = re.compile(
    r"^(?:[^\n\w]{0,80}(?:a |the )?copy of (?:the|your) (?:\w{1,20} )?(?:message|mail)|[^\n]{0,120}\b(?:"
    r"(?:is|are) (?:a|the) copy of|(?:original|returned|unsent|undelivered|your) (?:message|e?mail)"
    r"(?: header| text| body)?s? (?:follow|as follow|as received|is (?:following|included|attached|below))"
    r"|(?:header|text) of the original message|message (?:headers?|text|body) (?:follow|suppressed|removed)"
    r"|(?:original|returned) mail (?:follows|info)|original message ?[-*=|]{2})"
    r"|[^\n\w]{0,80}[-*=|#_]{2} ?(?:start of )?(?:original|returned|unsent|undelivered|failed"
    r"|bounced) (?:message|mail))"
    r"[^\n]*+$",
    re.IGNORECASE | re.MULTILINE,
)
_ANY_LINE = re.compile(
    r"^[ \t>|]{0,12}(?:From|To|Subject|Date|Message-ID|Received|Return-Path)[ \t]*:", re.IGNORECASE | re.MULTILINE
)
_ID = re.compile(r"<[^<>\s]{1,900}>|[^<>\s]{1,900}")
_TRACE = re.compile(r"from|to|cc|subject|date|return-path|sender|list-id|x-postmeter-[a-z0-9-]{1,60}")


def split(text: str) -> tuple[str, str]:
    """The words of a report, and the copy of a message behind them, where there is one."""
    near = text[:_FAR]
    found = [match for match in (_ANNOUNCED.search(near), _FIELD_LINE.search(near)) if match]
    first = min(found, key=lambda match: match.start(), default=None)
    if first is None or not near[: first.start()].strip():
        return text, ""
    copy = near[first.start() :] if first.re is _FIELD_LINE else near[first.end() :]
    return near[: first.start()], copy


def fields(opened: Opened, copy: str) -> Head:
    """The header of the message that is reported on: that of its part, else what a copy begins with."""
    piece = opened.original()
    found = head(piece.octets) if piece else {}
    if found or not (begun := _ANY_LINE.search(copy)):
        return found
    lines = (one.lstrip(">| ") if one[:1] in ">|" else one for one in copy[begun.start() :].lstrip().split("\n"))
    return head("\n".join(lines).encode("utf-8", "replace"))


def message_id(original: Head) -> str:
    """The last one: whoever passes mail on puts his own before it (complaints hold several)."""
    for value in reversed(original.get("message-id", [])):
        found = _ID.search(value)
        if found:
            return found[0] if found[0].startswith("<") else f"<{found[0]}>"
    return ""


def trace(original: Head) -> dict[str, str]:
    """The fields that help a person, or us, to tell which message it was."""
    return {name: values[0][:998] for name, values in original.items() if _TRACE.fullmatch(name)}
