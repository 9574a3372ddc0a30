"""What a message that came back says, as values: nothing of it is true before the journal was asked.

Reports are unauthenticated mail. Every text here was written by whoever sent the report: it is bounded in length and
holds no line end and no control character, and that is all that is known of it. Knows nothing of MIME.
"""

from __future__ import annotations

from dataclasses import dataclass, field

BOUNCE = "bounce"
DELAYED = "delayed"
RELAYED = "relayed"
COMPLAINT = "complaint"
AUTOMATIC = "automatic"
RECEIPT = "receipt"
OTHER = "other"
KINDS = (BOUNCE, DELAYED, RELAYED, COMPLAINT, AUTOMATIC, RECEIPT, OTHER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """What a report says of one recipient. Unknown is empty."""

    recipient: str
    """Final-Recipient: the address that the reporting server tried, without its type. Empty where a mail system told of
    a failure and named nobody."""
    original: str = ""
    """Original-Recipient: the address that the sender named (RFC 3461 ORCPT), decoded from xtext."""
    action: str = "failed"
    """`failed`, `delayed`, `delivered`, `relayed` or `expanded` (RFC 3464 section 2.3.3)."""
    status: str = ""
    """Enhanced status code, `5.1.1` (RFC 3463): stated, or what the words mean where none is."""
    reply: str = ""
    """SMTP reply code, `550`."""
    diagnostic: str = ""
    """What the other side said."""
    reporting: str = ""
    """The server that reports."""
    remote: str = ""
    """The server that it spoke with."""
    hard: bool = False
    """Only this may suppress: `mail.hardness.hard`. Never true unless `action` is `failed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A message that came back. `kind` is one of KINDS; a bounce has a recipient whose `action` is `failed`."""

    kind: str
    recipients: tuple[Returned, ...] = ()
    message_id: str = ""
    """Of the message that is reported on, with angle brackets; the last one, which is ours, where it has several."""
    feedback_type: str = ""
    """`abuse`, `not-spam`, `fraud` … (RFC 5965 section 3.1), in lower case; only `abuse` is a complaint."""
    feedback_id: str = ""
    """Feedback-ID of the message that is reported on."""
    cfbl_feedback_id: str = ""
    """CFBL-Feedback-ID of that message or of the report (RFC 9477 section 3.2)."""
    cfbl_address: str = ""
    """CFBL-Address of that message (RFC 9477 section 3.1), without its parameters."""
    original_rcpt: tuple[str, ...] = ()
    """Original-Rcpt-To and Removal-Recipient of a complaint, without any that were blacked out."""
    original_from: str = ""
    """Original-Mail-From of a complaint, or Return-Path of the message: our tagged return path, where it is one."""
    envid: str = ""
    """Original-Envelope-Id, decoded from xtext (RFC 3464 section 2.2.1)."""
    user_agent: str = ""
    reporting: str = ""
    """Reporting-MTA."""
    source_ip: str = ""
    arrival: str = ""
    """Arrival-Date, as it stands."""
    incidents: int = 1
    """Incidents of a complaint (RFC 5965 section 3.2)."""
    subject: str = ""
    """Of the report itself."""
    fields: dict[str, str] = field(default_factory=dict)
    """Of the message that is reported on: those that trace it, by name in lower case (`x-postmeter-…`)."""
    why: str = ""
    """What told the kind, for a person."""
