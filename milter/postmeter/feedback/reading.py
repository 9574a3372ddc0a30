"""One message that came back, understood as far as it can be: bounce, delay, complaint, automatic answer, or other.

What is for programs comes first: a complaint, a receipt, a delivery status; then words. Pure: never raises, whatever
the input; linear in it. Knows nothing of who may be believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from postmeter.feedback import arf, automatic, dsn, original, words
from postmeter.feedback.opened import Head, Opened, head, open_
from postmeter.feedback.report import (
    AUTOMATIC,
    BOUNCE,
    COMPLAINT,
    DELAYED,
    OTHER,
    RECEIPT,
    RELAYED,
    Report,
    Returned,
)

__all__ = ["Report", "Returned", "read"]

_STATUS = ("message/delivery-status", "message/global-delivery-status")
_RECEIPT = ("message/disposition-notification", "message/global-disposition-notification")


def read(message: bytes, *, sender: str | None = None) -> Report:
    """What it is and says. A report that a mail system returned inside one of its own is read in its place.

    `sender` is that of its envelope, where it is known: LMTP brings no Return-Path (RFC 5321 section 4.4).
    """
    opened = open_(message)
    if sender is not None:
        opened = replace(opened, head={**opened.head, "return-path": [f"<{sender}>"]})
    returned = opened.original()
    if returned and words.system(opened) and not opened.of(*_STATUS) and _reports(head(returned.octets)):
        opened = open_(returned.octets)
    return _read(opened)


def _reports(about: Head) -> bool:
    """Whether a message is a delivery status itself; a mail system never returns one of those to its sender."""
    kind = _first(about, "content-type").lower()
    return kind.startswith("multipart/report") and "delivery-status" in kind


def _read(opened: Opened) -> Report:
    said, copy = original.split(opened.text())
    about = original.fields(opened, copy)
    return (
        _complaint(opened, about)
        or _receipt(opened, about)
        or _status(opened, said, about)
        or _words(opened, said, about)
        or _report(OTHER, opened, about, why="it tells of no failure and is no complaint")
    )


def _complaint(opened: Opened, about: Head) -> Report | None:
    found = arf.read(opened, about)
    if not found:
        return None
    kind, why = (OTHER, found.problem) if found.problem else (COMPLAINT, "a feedback report of the type abuse")
    return _report(kind, opened, about, why=why, complaint=found)


def _receipt(opened: Opened, about: Head) -> Report | None:
    if opened.of(*_RECEIPT) or opened.report_type == "disposition-notification":
        return _report(RECEIPT, opened, about, why="a receipt (RFC 8098)")
    return None


def _status(opened: Opened, said: str, about: Head) -> Report | None:
    """A delivery status in its part; or its fields among the words, as broken mail and some systems have them."""
    parts = opened.of(*_STATUS)
    if not parts and words.letter(opened):
        return None
    late = words.delayed(opened, said)
    status = dsn.fields("\n\n".join(piece.text() for piece in parts) if parts else opened.text())
    recipients = dsn.recipients(status, words=said, delayed=late)
    if not recipients:
        return None
    kind, why = _outcome(recipients)
    return _report(kind, opened, about, why=why, recipients=recipients, message=status.message)


def _outcome(recipients: Sequence[Returned]) -> tuple[str, str]:
    """The gravest of the actions is what the report is about (RFC 3464 section 2.3.3)."""
    actions = {one.action for one in recipients}
    if "failed" in actions:
        return BOUNCE, "a delivery status with the action failed"
    if "delayed" in actions:
        return DELAYED, "a delivery status with the action delayed"
    return RELAYED, f"a delivery status with the action {min(actions)}"


def _words(opened: Opened, said: str, about: Head) -> Report | None:
    if opened.report_type == "tlsrpt":  # RFC 8460: of sessions, whoever sends it
        return None
    if why := automatic.answers(opened):
        return _report(AUTOMATIC, opened, about, why=why)
    if why := words.tells_of_failure(opened, said):
        late = words.delayed(opened, said)
        if recipients := words.recipients(opened, said, about, late=late):
            return _report(DELAYED if late else BOUNCE, opened, about, why=why, recipients=recipients)
    if why := automatic.marked(opened, said):
        return _report(AUTOMATIC, opened, about, why=why)
    return None


def _report(
    kind: str,
    opened: Opened,
    about: Head,
    *,
    why: str,
    recipients: tuple[Returned, ...] = (),
    message: dsn.Group | None = None,
    complaint: arf.Complaint | None = None,
) -> Report:
    status = message or {}
    abuse = complaint or arf.Complaint()
    return Report(
        kind=kind,
        recipients=recipients,
        message_id=original.message_id(about),
        feedback_type=abuse.kind[:60],
        feedback_id=_first(about, "feedback-id"),
        cfbl_feedback_id="".join((abuse.feedback_id or _first(about, "cfbl-feedback-id")).split()),
        cfbl_address=_first(about, "cfbl-address").partition(";")[0].strip().strip("<>"),
        original_rcpt=abuse.recipients,
        original_from=abuse.sender or dsn.address(_first(about, "return-path")),
        envid=dsn.xtext(status.get("original-envelope-id", abuse.envid))[:200],
        user_agent=abuse.user_agent,
        reporting=dsn.host(status.get("reporting-mta", "")) or abuse.reporting or next(
            (one.reporting for one in recipients), ""),
        source_ip=abuse.source_ip[:60],
        arrival=(status.get("arrival-date") or abuse.arrival)[:100],
        incidents=abuse.incidents,
        subject=opened.first("subject")[:300],
        fields=original.trace(about),
        why=why,
    )  # fmt: skip


def _first(about: Head, name: str) -> str:
    return about.get(name, [""])[0][:998]
