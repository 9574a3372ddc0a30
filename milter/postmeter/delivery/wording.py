"""The words of Postfix's daemons: what a line says behind its tag, as `what` and `values`.

| what | from | values |
|---|---|---|
| client | smtpd | client, orig_queue_id, orig_client, sasl_method, sasl_username, sasl_sender |
| uid | pickup | uid, from, orig_id (the queue id before `postsuper -r`) |
| message_id | cleanup | message_id, with its brackets |
| queued | qmgr | from, size, nrcpt |
| delivery | any | to, orig_to, relay, conn_use, delay, delays, tls, dsn, status, text, stage, queued_as |
| expired | qmgr | from, status (`expired`, `force-expired`) |
| removed | qmgr, postsuper | |
| requeued, held, released | postsuper | |
| notification | bounce | kind (`non-delivery`, `delay`, `delivery status`), notified, new_id |
| reject, milter_reject | smtpd, cleanup, postscreen | stage, client, reply, from, to, helo |
| rejected | cleanup's header_checks and body_checks | the same |
| hold, discard | smtpd, cleanup, and a milter's wish (`by` is `milter`) | the same |
| tls | smtp, lmtp | relay, trust, protocol, cipher |
| warning | any | text, level |

`queued_as` is what the other side said, or local(8) with `forwarded as`: true only of a server that is ours. Every line
that was repeated by rsyslog has `repeated`.
"""

from __future__ import annotations

from collections.abc import Mapping

Said = tuple[str, str, Mapping[str, str]]
"""Queue id, what, values."""

LONGEST = 4096  # characters of a value that are kept: other people's text
_HEX = "0123456789ABCDEF"
_LONG = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"  # postconf(5) enable_long_queue_ids
_NOTHING: Mapping[str, str] = {}


def read(daemon: str, message: str) -> Said:
    """What a daemon of Postfix says in this message."""
    head, _, rest = message.partition(": ")
    if _is_id(head):
        what, values = about(daemon, rest)
        return head, what, values
    if head == "NOQUEUE":
        return "", *about(daemon, rest)
    return "", "other", _NOTHING


def about(daemon: str, rest: str) -> tuple[str, Mapping[str, str]]:
    """What is said of the message whose queue id stood before it."""
    if rest.startswith("to="):
        return _delivery(rest)
    if rest == "removed":
        return "removed", _NOTHING
    return "other", _NOTHING


def _delivery(rest: str) -> tuple[str, Mapping[str, str]]:
    to, at = _address(rest, 3)
    values = {"to": to}
    if rest.startswith(", orig_to=", at):
        values["orig_to"], at = _address(rest, at + 10)
    fields, found, tail = rest[at:].partition(", status=")
    for field in fields.split(", ")[1:]:
        key, _, value = field.partition("=")
        values[key] = value
    if not found:
        return "broken", values
    status, _, text = tail.partition(" (")
    values["status"] = status
    values["text"] = text.removesuffix(")")
    return "delivery", values


def _address(text: str, at: int) -> tuple[str, int]:
    """An address in angle brackets and where the text behind them begins."""
    end = text.find(">", at)
    if end < 0:
        return text[at:], len(text)
    return text[at + 1 : end], end + 1


def _is_id(word: str) -> bool:
    return 6 <= len(word) <= 40 and (not word.strip(_HEX) or ("z" in word and not word.strip(_LONG)))


def dropped(program: str, message: str) -> Mapping[str, str]:
    """Not empty when a log daemon says that it lost lines."""
    if program == "systemd-journald" and message.startswith("Suppressed ") and "postfix" in message:
        return {"count": message.split(" ")[1], "text": message}
    return {}
