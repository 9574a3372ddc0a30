"""Messages that come back, as other servers write them: DSN (RFC 3464), ARF (RFC 5965), vacation (RFC 3834)."""

from __future__ import annotations

from collections.abc import Sequence


def dsn(
    recipient: str, *, to: str, status: str = "5.1.1", action: str = "failed", original: str = "", mark: str = ""
) -> bytes:
    """As Postfix writes one."""
    asked = f"Original-Recipient: rfc822;{original}\r\n" if original else ""
    return (
        "From: MAILER-DAEMON@mx.example.net (Mail Delivery System)\r\n"
        f"Subject: Undelivered Mail Returned to Sender {mark}\r\nTo: {to}\r\nAuto-Submitted: auto-replied\r\n"
        'MIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n'
        "Date: Mon, 02 Nov 2026 10:00:00 +0000\r\nMessage-ID: <20261102.report@mx.example.net>\r\n\r\n"
        "--b\r\nContent-Type: text/plain\r\n\r\nI'm sorry to have to inform you.\r\n\r\n"
        "--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.net\r\n\r\n"
        f"Final-Recipient: rfc822; {recipient}\r\n{asked}Action: {action}\r\nStatus: {status}\r\n"
        "Remote-MTA: dns; inner.example.net\r\n"
        f"Diagnostic-Code: smtp; 550 {status} <{recipient}>: User unknown\r\n\r\n"
        "--b\r\nContent-Type: text/rfc822-headers\r\n\r\nFrom: alice@example.com\r\nSubject: a letter\r\n\r\n--b--\r\n"
    ).encode()


def arf(
    recipient: str = "", *, return_path: str = "", message_id: str = "", feedback_id: str = "", kind: str = "abuse"
) -> bytes:
    asked = f"Original-Rcpt-To: {recipient}\r\n" if recipient else ""
    fields = [
        f"{name}: {value}\r\n"
        for name, value in (
            ("Return-Path", f"<{return_path}>" if return_path else ""),
            ("Message-ID", message_id),
            ("CFBL-Feedback-ID", feedback_id),
        )
        if value
    ]
    return (
        "From: feedback@provider.example\r\nTo: fbl@example.com\r\nSubject: FW: a letter\r\nMIME-Version: 1.0\r\n"
        'Content-Type: multipart/report; report-type=feedback-report; boundary="b"\r\n\r\n'
        "--b\r\nContent-Type: text/plain\r\n\r\nThis is an email abuse report.\r\n\r\n"
        f"--b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: {kind}\r\nVersion: 1\r\n"
        f"User-Agent: SomeGenerator/1.0\r\n{asked}\r\n"
        f"--b\r\nContent-Type: message/rfc822\r\n\r\n{''.join(fields)}From: alice@example.com\r\n"
        "To: reader@example.net\r\nSubject: a letter\r\n\r\nGood morning.\r\n\r\n--b--\r\n"
    ).encode()


def vacation(*, to: str, fields: Sequence[str] = ()) -> bytes:
    header = [
        "From: reader@example.net", f"To: {to}", "Subject: Out of office: a letter", "Auto-Submitted: auto-replied",
        "Date: Mon, 02 Nov 2026 10:00:00 +0000", "Message-ID: <vacation@example.net>", *fields,
    ]  # fmt: skip
    body = "I am away.\r\n.a line with a dot\r\n  spaces \t \r\nGrüße\r\n"
    return ("\r\n".join(header) + "\r\n\r\n" + body).encode()
