"""Complaints in the Abuse Reporting Format (RFC 5965, RFC 6650, RFC 9477), and what came before it.

A complaint has the type `abuse` and returns the message, or its header; all else that has the format is another report.
Knows nothing of who may be believed: RFC 5965 section 5 says how little that is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from postmeter.feedback.dsn import address
from postmeter.feedback.opened import Head, Opened, head

_ADDRESS = re.compile(r"[^\s<>()\[\],;:@\"]{1,128}@[^\s<>()\[\],;:@\"]{1,255}")
_OLD = re.compile(r"complaint about message from ", re.IGNORECASE)  # Microsoft's JMRP
_MOST = 100


@dataclass(frozen=True, slots=True)
class Complaint:
    """What a feedback report says. `problem` is why it is none; empty where it is one."""

    kind: str = ""
    recipients: tuple[str, ...] = ()
    sender: str = ""
    user_agent: str = ""
    reporting: str = ""
    source_ip: str = ""
    arrival: str = ""
    envid: str = ""
    feedback_id: str = ""
    incidents: int = 1
    problem: str = ""


def read(opened: Opened, original: Head) -> Complaint | None:
    """None where this is not said to be a feedback report at all."""
    report = opened.of("message/feedback-report")
    if not report:
        return _old(opened, original) or _without(opened)
    said = head(report[0].octets)
    kind = _first(said, "feedback-type").lower().partition("(")[0].strip(" \t;")  # a comment may follow (section 3)
    return Complaint(
        kind=kind,
        recipients=_addresses(said, original),
        sender=address(_first(said, "original-mail-from")),
        user_agent=_first(said, "user-agent"),
        reporting=_first(said, "reporting-mta").rpartition(";")[2].strip(),
        source_ip=_first(said, "source-ip"),
        arrival=_first(said, "arrival-date") or _first(said, "received-date"),
        envid=_first(said, "original-envelope-id"),
        feedback_id=_first(said, "cfbl-feedback-id"),
        incidents=_count(_first(said, "incidents")),
        problem=_problem(kind, returned=opened.original() is not None),
    )


def _without(opened: Opened) -> Complaint | None:
    """It says in its header that it is one, and has no part that tells."""
    if opened.report_type == "feedback-report":
        return Complaint(problem="a feedback report without its message/feedback-report part")
    return None


def _old(opened: Opened, original: Head) -> Complaint | None:
    """Microsoft's reports have no part for programs: a subject, a field of theirs, and the message."""
    if not (_OLD.match(opened.first("subject")) and original):
        return None
    recipients = tuple(filter(None, map(address, original.get("x-hmxmroriginalrecipient", []))))
    return Complaint(kind="abuse", recipients=recipients or _addresses({}, original), user_agent="JMRP")


def _problem(kind: str, *, returned: bool) -> str:
    if not kind:
        return "a feedback report without Feedback-Type"
    if kind != "abuse":
        return f"a feedback report of the type {kind[:40]}"
    return "" if returned else "a feedback report that returns no message"


def _addresses(said: Head, original: Head) -> tuple[str, ...]:
    """Whom it went to, without what was blacked out (RFC 6590); X-HmXmrOriginalRecipient is Microsoft's field."""
    named = [*said.get("original-rcpt-to", []), *said.get("removal-recipient", [])]
    named += original.get("x-hmxmroriginalrecipient", [])
    found: dict[str, None] = {}
    for value in named[:_MOST]:
        one = address(value)
        if _ADDRESS.fullmatch(one) and not one.lower().startswith(("redacted@", "xxx")):
            found.setdefault(one)
    return tuple(found)


def _first(said: Head, name: str) -> str:
    return said.get(name, [""])[0][:998]


def _count(value: str) -> int:
    return max(1, int(value)) if value.isascii() and value.isdigit() and len(value) < 7 else 1
