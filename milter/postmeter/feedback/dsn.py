"""Delivery status notifications: the part for programs (RFC 3464, RFC 3461 section 6.3, RFC 6533 section 3).

Reads what servers write, not only what they may: types of addresses missing, actions in other words, blank lines in
the wrong place, fields among the words for people. Knows nothing of MIME, nothing of who may be believed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from postmeter.feedback.opened import line
from postmeter.feedback.report import Returned
from postmeter.mail import said
from postmeter.mail.hardness import hard

_MOST = 1000  # recipients of one report; Postfix's default_destination_recipient_limit is 50
_FEW = 50  # of so many recipients the words are searched as well
_FIELD = re.compile(r"[ \t>]*([A-Za-z][A-Za-z0-9-]{1,60})[ \t]*:[ \t]*(.*)")
_FINAL = ("final-recipient", "x-actual-recipient", "original-recipient")
_BEGINS = frozenset({*_FINAL, "action"})
_OURS = frozenset(
    {*_BEGINS, "status", "diagnostic-code", "remote-mta", "reporting-mta", "original-envelope-id", "arrival-date"}
    | {"last-attempt-date", "received-from-mta", "dsn-gateway", "will-retry-until", "final-log-id"}
    | {"x-supplementary-info"}
)
_RUNS = re.compile(r"\n(?:[ \t]*+\n)++")
_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,40}[ \t]*;[ \t]*(?:rfc822;[ \t]*)?", re.IGNORECASE)  # some say it twice
_BRACKETED = re.compile(r"<([^<>\s]{1,320})>")
_WHOLE = re.compile(r"[^@].*@.+")
_NAMED = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")
_XTEXT = re.compile(r"\+(2B|3D)")
_ACTIONS = (
    ("failed", ("fail", "error", "expire", "undeliver", "reject", "bounce")),
    ("delayed", ("delay", "defer", "warn", "retry")),
    ("relayed", ("relay", "transfer")),
    ("expanded", ("expand",)),
    ("delivered", ("deliver", "success", "accept")),
)

Group = dict[str, str]


@dataclass(frozen=True, slots=True)
class Status:
    """The fields of the message, and those of each recipient."""

    message: Group
    groups: list[Group] = field(default_factory=list)


def fields(text: str) -> Status:
    """What a part says, or what stands among words: lines that are no known field are passed over."""
    message: Group = {}
    groups: list[Group] = []
    current: Group = {}
    for name, value in _lines(text):
        if not name:
            current = _closed(current, groups, message) if current else current
        elif name in _BEGINS and name in current:
            current = {**_closed(current, groups, message), name: value}
        else:
            kept = current.get(name)
            current[name] = f"{kept} {value}" if kept and name == "diagnostic-code" else kept or value
        if len(groups) >= _MOST:
            break
    _closed(current, groups, message)
    return Status(message, groups[:_MOST])


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Each known field with its value unfolded; an empty name for a blank line."""
    name = ""
    pieces: list[str] = []
    for raw in _RUNS.sub("\n\n", text).split("\n"):
        found = None if raw[:1] in " \t" and name and pieces else _FIELD.match(raw)
        if found and (known := found[1].lower()) in _OURS:
            if name:
                yield name, line(" ".join(pieces), 2000)
            name, pieces = known, [found[2]]
        elif raw[:1] in (" ", "\t") and name and raw.strip():
            pieces.append(raw) if len(pieces) < 100 else None
        else:
            if name:
                yield name, line(" ".join(pieces), 2000)
            name = ""
            if not raw.strip():
                yield "", ""
    if name:
        yield name, line(" ".join(pieces), 2000)


def _closed(current: Group, groups: list[Group], message: Group) -> Group:
    """Keep what was gathered: as a recipient's, as more of the last recipient, or as the message's."""
    if any(name in current for name in _FINAL):
        if groups and not _names(groups[-1]):
            groups[-1] = {**current, **groups[-1]}
        else:
            groups.append(current)
    elif {"action", "status", "diagnostic-code"} & current.keys():
        if groups and not {"action", "status"} & groups[-1].keys():
            groups[-1] = {**current, **groups[-1]}
        else:
            groups.append(current)
    else:
        for name, value in current.items():
            message.setdefault(name, value)
    return {}


def _names(group: Group) -> bool:
    return any(name in group for name in _FINAL)


def recipients(status: Status, *, words: str = "", delayed: bool = False) -> tuple[Returned, ...]:
    """What is said of each recipient that has an address. `words` are for people, of use where there is one only."""
    groups = [group for group in status.groups if _names(group)]
    reporting = host(status.message.get("reporting-mta", ""))
    few = words if len(groups) <= _FEW else ""
    alone = len(groups) == 1
    returned = (_returned(group, reporting, words=few, alone=alone, delayed=delayed) for group in groups)
    return tuple(one for one in returned if one.recipient and not one.recipient.startswith("@"))


def _returned(group: Group, reporting: str, *, words: str, alone: bool, delayed: bool) -> Returned:
    diagnostic = untyped(group.get("diagnostic-code") or group.get("x-supplementary-info", "").strip(" <>"))
    final = address(group.get("final-recipient", ""))
    original = address(group.get("original-recipient", ""), encoded=True)
    actual = address(group.get("x-actual-recipient", ""))
    final = next((one for one in (final, actual, original) if _WHOLE.fullmatch(one)), final or original)
    stated = said.plain(group.get("status", ""))
    near = said.beside(words, final) or (words if alone else "")
    told = _told(stated, diagnostic or group.get("status", ""), near, words if alone else "")
    return returned(
        final, told, original=original, action=_action(group.get("action", ""), told.stated(), delayed=delayed),
        diagnostic=diagnostic or line(near, 1000), reporting=host(group.get("reporting-mta", "")) or reporting,
        remote=host(group.get("remote-mta", "")), around=said.paragraph(words, final),
    )  # fmt: skip


def returned(
    recipient: str,
    told: said.Said,
    *,
    original: str,
    action: str,
    diagnostic: str,
    reporting: str,
    remote: str = "",
    doubtful: bool = False,
    around: str = "",
) -> Returned:
    """With what follows from what was said: whether the address is at fault. `around` is what people are told of it:
    Postfix says only there which command was answered.

    `doubtful`: nothing shows what the reply was the answer to. Then, as for an answer to DATA, only a stated status is
    of the address: words such as "no such user" stand in replies to others too.
    """
    status = told.stated()
    meant = told.meant if said.vague(status) or not told.status else status
    derived = meant != told.status
    all_said = " ".join(f"{diagnostic} {around}".split())
    at_rcpt = said.about_the_recipient(all_said) and not (derived and (doubtful or said.of_the_data(all_said)))
    final = action == "failed" and status[:1] != "4" and not said.otherwise(diagnostic)
    return Returned(
        recipient=recipient, original=original, action=action, status=status, reply=told.reply, diagnostic=diagnostic,
        reporting=reporting, remote=remote, hard=final and hard(meant, diagnostic, at_rcpt=at_rcpt),
    )  # fmt: skip


def _told(stated: str, diagnostic: str, near: str, words: str) -> said.Said:
    """Status as stated, unless the diagnostic, or the words, state more; reply and meaning from the nearest of them."""
    status, reply, meant = stated, "", ""
    for text in dict.fromkeys((diagnostic, near, words)):
        if text and not (reply and status and not status.endswith(".0")):
            here = said.said(text)
            fitting = here.status if here.status[:1] == reply[:1] or not reply else ""  # else another server's
            status, reply, meant = said.most([status, fitting]), reply or here.reply, meant or here.meant
    return said.Said(status, reply, meant)


def _action(value: str, status: str, *, delayed: bool) -> str:
    word = value.strip().lower()
    for action, beginnings in _ACTIONS:
        if word.startswith(beginnings):
            return action
    if status[:1] == "2":
        return "delivered"
    return "delayed" if delayed else "failed"


def address(value: str, *, encoded: bool = False) -> str:
    """An address without its type, brackets and comments (RFC 3464 section 2.1.2); in Unicode (RFC 6533 section 3).

    Of xtext only the escapes that it must have are undone, +2B and +3D: a server that undid them before leaves
    `name+AB@…`, which is an address as it stands.
    """
    typed = _TYPE.match(value)
    text = value[typed.end() :] if typed else value
    kind = typed[0].partition(";")[0].strip().lower() if typed else ""
    if bracketed := _BRACKETED.search(text):
        text = bracketed[1]
    text = text.strip().strip("<>").strip()
    text = text if text.startswith('"') else text.split(" ", 1)[0]
    if kind.startswith("utf-8"):
        text = _NAMED.sub(_character, text)
    return (xtext(text) if encoded else text)[:320]


def xtext(text: str) -> str:
    """With `+` and `=` in place of their escapes (RFC 3461 section 4)."""
    return _XTEXT.sub(lambda found: chr(int(found[1], 16)), text)


def _character(found: re.Match[str]) -> str:
    code = int(found[1], 16)
    known = 0xA0 <= code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF
    return chr(code) if known or 0x21 <= code < 0x7F else found[0]


def untyped(value: str) -> str:
    """A diagnostic without its type: `smtp; 550 …` (RFC 3464 section 2.3.6)."""
    typed = _TYPE.match(value)
    return value[typed.end() :] if typed else value


def host(value: str) -> str:
    """A server's name without its type (RFC 3464 section 2.2.2)."""
    words = untyped(value).strip().split()
    return words[0][:255] if words else ""
