"""The words of Postfix's daemons: what a line says behind its tag, as `what` and `values`.

| what | written by | values |
|---|---|---|
| client | smtpd | client, orig_queue_id, orig_client, sasl_method, sasl_username, sasl_sender |
| uid | pickup | uid, from, orig_id: the queue id before `postsuper -r` |
| message_id | cleanup | message_id, with its brackets |
| queued | qmgr | from, size, nrcpt |
| delivery | any | to, orig_to, relay, conn_use, delay, delays, tls, dsn, status, text, stage, queued_as |
| expired | qmgr | from, status: `expired` or `force-expired` |
| removed | qmgr, postsuper | |
| requeued, held, released | postsuper | |
| notification | bounce | notified: `sender` or `postmaster`; kind: `non-delivery`, `delay`, `delivery status`; new_id |
| reject, milter_reject | smtpd, cleanup, postscreen | stage, client, reply, from, to, proto, helo |
| rejected | cleanup, by header_checks and body_checks | the same |
| hold, discard | smtpd, cleanup | the same, and by: `milter` or `table` |
| tls | smtp, lmtp | relay, trust, protocol, cipher |
| warning | any, of a message | level, text |
| broken | any | cut or damaged: what could be read |
| other | any | |

`stage` of a delivery is the command that was answered with `text` (`RCPT TO`, `end of DATA`). `queued_as` is the queue
id that the other side gave it, or local(8) for an alias: true of our own servers, a mere claim of others. A line that
rsyslog says came again has `repeated`, how often.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

Values: TypeAlias = Mapping[str, str]

LONGEST = 4096  # characters kept of what the other side said
_HEX = "0123456789ABCDEF"
_LONG = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"  # postconf(5) enable_long_queue_ids: no vowels
_NOTHING: Final[Values] = MappingProxyType({})
_ACTIONS = {
    "reject": "reject",
    "proxy-reject": "reject",
    "milter-reject": "milter_reject",
    "hold": "hold",
    "milter-hold": "hold",
    "discard": "discard",
    "milter-discard": "discard",
    "milter-header-reject": "rejected",  # postconf(5), milter_header_checks
    "milter-header-hold": "hold",
    "milter-header-discard": "discard",
}
_SUPER = {"requeued": "requeued", "placed on hold": "held", "released from hold": "released", "expired": "other"}
_LEVELS = ("warning", "error", "fatal", "panic")


def read(daemon: str, message: str) -> tuple[str, str, Values]:
    """Queue id, what, and values of what a daemon of Postfix says."""
    head, found, rest = message.partition(": ")
    if not found:
        return _bare(daemon, message)
    if _is_id(head):
        return (head, *_about(daemon, rest))
    if head == "NOQUEUE":
        return ("", *_about(daemon, rest))
    if head in _LEVELS:
        queue_id, found, text = rest.partition(": ")
        return (queue_id, "warning", {"level": head, "text": text[:LONGEST]}) if _is_id(queue_id) else _other()
    if head == "proxy-reject":
        return ("", *_about(daemon, message))
    return _repeated(daemon, head, rest) if head.startswith("message repeated ") else _bare(daemon, message)


def _repeated(daemon: str, head: str, rest: str) -> tuple[str, str, Values]:
    said = rest.removeprefix("[").removesuffix("]").lstrip()
    queue_id, what, values = read(daemon, said) if not said.startswith("message repeated ") else _other()
    return queue_id, what, {**values, "repeated": _number(head.split(" ")[2])}


def _bare(daemon: str, message: str) -> tuple[str, str, Values]:
    """A message that begins with no queue id."""
    if daemon in {"smtp", "lmtp"}:
        trust, found, rest = message.partition(" TLS connection ")
        if found:
            return "", "tls", _tls(trust, rest)
    head = message.removesuffix(":")
    if not message or _is_id(head):
        return head, "broken", _NOTHING
    return _other()


def _other() -> tuple[str, str, Values]:
    return "", "other", _NOTHING


def _about(daemon: str, rest: str) -> tuple[str, Values]:
    """What is said of the message whose queue id stood before it."""
    if rest.startswith("to="):
        return _delivery(rest)
    if rest == "removed":
        return "removed", _NOTHING
    if rest.startswith("client="):
        return _client(rest)
    if rest.startswith("message-id="):
        return _message_id(rest[11:])
    if rest.startswith("from="):
        return _from(rest)
    if rest.startswith("uid="):
        return _uid(rest)
    action, found, said = rest.partition(": ")
    if found and action in _ACTIONS:
        return _refusal(daemon, action, said)
    return _rarely(daemon, rest)


def _rarely(daemon: str, rest: str) -> tuple[str, Values]:
    if not rest:
        return "broken", _NOTHING
    level, found, text = rest.partition(": ")
    if found and level in _LEVELS:
        return "warning", {"level": level, "text": text[:LONGEST]}
    if daemon == "postsuper":
        return _SUPER.get(rest, "other"), _NOTHING
    if daemon == "bounce":
        whom, found, new_id = rest.partition(" notification: ")
        notified, _, kind = whom.partition(" ")
        if found and _is_id(new_id):
            return "notification", {"notified": notified, "kind": kind, "new_id": new_id}
    return "other", _NOTHING


def _delivery(rest: str) -> tuple[str, Values]:
    values = {}
    values["to"], at = _address(rest, 3)
    if rest.startswith(", orig_to=", at):
        values["orig_to"], at = _address(rest, at + 10)
    fields, found, tail = rest[at:].partition(", status=")
    for field in fields.split(", ")[1:]:
        key, _, value = field.partition("=")
        values[key] = value
    status, said, text = tail.partition(" (")
    # In a line that was cut, and another ran into it, words stand where none are.
    ran_into = " " in status or fields.count(" ") != fields.count(", ") or ": to=" in values.get("orig_to", "")
    if not found or not said or ran_into:
        return "broken", values
    values["status"] = status
    # What the other side said ends in any bracket; the last one is Postfix's.
    text = text[:LONGEST] if len(text) > LONGEST else text.removesuffix(")")
    values["text"] = text
    if text.endswith("command)") and (begin := text.rfind("(in reply to ")) >= 0:
        values["stage"] = text[begin + 13 : -9]
    if " as " in text:
        _queued_as(text, values)
    return "delivery", values


def _queued_as(text: str, values: dict[str, str]) -> None:
    for words in ("queued as ", "forwarded as "):
        _, found, name = text.rpartition(words)
        if found and _is_id(name := name.partition(" ")[0].rstrip(").")):
            values["queued_as"] = name


def _client(rest: str) -> tuple[str, Values]:
    values: dict[str, str] = {}
    for field in rest.split(", "):
        key, _, value = field.partition("=")
        values.setdefault(key, value)
    return ("client" if values["client"] else "broken"), values


def _message_id(text: str) -> tuple[str, Values]:
    return ("broken" if text.startswith("<") and ">" not in text else "message_id"), {"message_id": text}


def _from(rest: str) -> tuple[str, Values]:
    values = {}
    values["from"], at = _address(rest, 5)
    first, *fields = rest[at:].split(", ")
    for field in fields:
        key, found, value = field.partition("=")
        if found:
            values.setdefault(key, value)
    if rest.startswith(", status=", at) and "expired" in values["status"]:
        return "expired", values
    if first or list(values)[1:3] != ["size", "nrcpt"] or not values["size"].isdigit():  # cut, as in `_delivery`
        return "broken", values
    values["nrcpt"] = values["nrcpt"].partition(" ")[0]
    return "queued", values


def _uid(rest: str) -> tuple[str, Values]:
    uid, found, tail = rest[4:].partition(" from=")
    values = {"uid": uid}
    if not found:
        return "broken", values
    values["from"], at = _address(tail, 0)
    _, found, orig_id = tail[at:].partition(" orig_id=")
    if found:
        values["orig_id"] = orig_id
    return "uid", values


def _refusal(daemon: str, action: str, said: str) -> tuple[str, Values]:
    what = "rejected" if daemon == "cleanup" and action == "reject" else _ACTIONS[action]
    said, envelope, reply = _envelope(said)
    values = dict(envelope)
    if said.startswith(("header ", "body ")):
        values["stage"], _, values["text"] = said.partition(" ")
        values["reply"] = reply
    else:
        where, _, answer = said.partition(": ")
        values["stage"], _, values["client"] = where.partition(" from ")
        values["reply"] = answer
    if what in ("hold", "discard"):
        values["by"] = "milter" if action.startswith("milter-") else "table"
    return what, values


def _envelope(said: str) -> tuple[str, dict[str, str], str]:
    """What was said, whose message it is about, and what follows: `…; from=<> to=<> proto=SMTP helo=<>: …`."""
    begin = max(said.rfind("; from=<"), -1)
    for mark in ("; to=<", "; proto="):
        begin = said.rfind(mark) if begin < 0 else begin
    if begin < 0:
        return said.removesuffix(";"), {}, ""
    values = {}
    at = begin + 2
    for key in ("from=", "to=", "proto=", "helo="):
        if said.startswith(key, at):
            value, at = _address(said, at + len(key), " ")
            values[key[:-1]] = value.removesuffix(",")  # postscreen's
            at += said.startswith(",", at)
            at += said.startswith(" ", at)
    return said[:begin], values, said[at:].removeprefix(":").strip()


def _tls(trust: str, rest: str) -> Values:
    where, _, how = rest.partition(": ")
    protocol, _, cipher = how.partition(" with cipher ")
    words = where.split(" ")
    relay = words[2] if len(words) > 2 else ""
    return {"trust": trust, "relay": relay, "protocol": protocol, "cipher": cipher.partition(" ")[0]}


def _address(text: str, at: int, until: str = ", ") -> tuple[str, int]:
    """An address, and where the text behind it begins. Old versions write some without brackets.

    A sender may choose one that looks like the rest of a line: `<"a>, relay=b"@example.com>`. Quoted text ends where
    its quotes do (postconf(5) info_log_address_format).
    """
    if not text.startswith("<", at):
        end = text.find(until, at)
        end = len(text) if end < 0 else end
        return text[at:end], end
    end = text.find(">", at)
    if text.startswith('"', at + 1):
        quoted = _quoted(text, at + 2)
        if text.startswith(("@", ">"), quoted):
            end = text.find(">", quoted)
    if end < 0:
        return text[at + 1 :], len(text)
    return text[at + 1 : end], end + 1


def _quoted(text: str, at: int) -> int:
    """Where a quoted string ends, behind its quote; the end of the text if it does not."""
    while at < len(text) and text[at] != '"':
        at += 2 if text[at] == "\\" else 1
    return min(at + 1, len(text))


def _is_id(word: str) -> bool:
    # Five or six digits of microseconds and an inode's, or longer than 10 with a `z` between.
    return 6 <= len(word) <= 40 and (not word.strip(_HEX) or ("z" in word and not word.strip(_LONG)))


def dropped(program: str, message: str) -> Values:
    """`count` and `text`, where a log daemon says that it lost lines that may be Postfix's; else nothing.

    systemd-journald names the unit, rsyslog's imuxsock the process, its imjournal nothing.
    """
    if program == "systemd-journald":
        words = message.split(" ", 2)
        if words[0] == "Suppressed" and len(words) > 2 and "postfix" in words[2]:
            return {"count": _number(words[1]), "text": message[:LONGEST]}
    elif program == "rsyslogd" and message.startswith(("imuxsock", "imjournal")) and "rate-limiting" in message:
        if "begin to drop" in message:
            return {"count": "0", "text": message[:LONGEST]}
        counts = [word for word in message.split(" ") if _number(word) != "0"]
        return {"count": counts[0] if counts else "0", "text": message[:LONGEST]}
    return _NOTHING


def _number(word: str) -> str:
    return word if word.isascii() and word.isdigit() and len(word) < 19 else "0"
