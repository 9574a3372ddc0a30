"""Bounces in words: for people, by the mail systems that never learned RFC 3464, or before it was written.

No pattern a system: a bounce comes from a mail system, or has its subject; it says that something was not delivered;
and it names addresses where one names what one speaks of, at the start of a line, behind RCPT TO, in the sentence that
tells the failure. What is said of an address stands behind it, or on the lines with it. Pure, linear.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from postmeter.feedback import phrases
from postmeter.feedback.dsn import returned
from postmeter.feedback.opened import Head, Opened, line
from postmeter.feedback.report import Returned
from postmeter.mail import said
from postmeter.mail.hardness import HARD
from postmeter.mail.scope import canonical

_FAR = 1 << 15  # characters of the words that are read
_MOST = 200  # addresses that are weighed
_BLOCK = 1500
_LOCAL = r"[\w!#$%&'*+/=?^`{|}~.-]"
_ADDRESS = re.compile(rf"(?<!{_LOCAL})({_LOCAL}{{1,128}}+)@((?:\[[\d.]{{7,15}}\])|[\w.-]{{1,255}}+)")
_NOBODY = re.compile(r"(?:post|host|web)master@|mailer-daemon@|abuse@|no-?reply@", re.IGNORECASE)
_ROW = re.compile(r"[\s>*|\"'<\[(-]{0,20}(?:[45]\d\d[ -]\s?<?)?$")
_AFTER = re.compile(r"[\"'>\])]{0,3}(?:\s*$|\s*(?:[:;,(\[<-]|\.\.\.)|\s+on \w|\s+(?:\w{1,8}\s)?\d{1,4}[./年-]|\s{2,})")
"""Behind an address that stands for itself: nothing more, a sign, or a date."""
_REASON = re.compile(
    r"\b[45]\d\d\b|\d\.\d\.\d|unknown|fail|error|invalid|not |full|exceed|reject|denied|unable", re.IGNORECASE
)
_RCPT = re.compile(r"\brcpt\b|rcpt_to|does not like recipient", re.IGNORECASE)
_X400 = re.compile(r"(?:smtp|rfc822)=", re.IGNORECASE)  # an attribute of an X.400 address, as old Exchange shows it
_TO = re.compile(r"^[ \t]{0,8}To:([^\n]{1,400})$", re.MULTILINE)
_FROM = re.compile(r"\(expanded from:? <?([^\s<>()]{3,320})>?\)", re.IGNORECASE)
_MARKS = " \t\n<>()[]\"':;,.|*"  # around an address of which nothing is said
_TOLD_BY = re.compile(r"<[\w.-]{1,255}\s#5\.\d{1,3}\.\d{1,3}[\s>]")
"""In whatever tongue old Exchange speaks: `<mx.example.net #5.1.1>`."""
_BREAK = re.compile(r"\n[ \t]*(?:[-=*_#]{5,}|[-=*]{2,} )")


@dataclass(frozen=True, slots=True)
class Named:
    """An address, how much it looks like the one that is spoken of, and where it stands."""

    address: str
    weight: int
    at: int
    end: int


def tells_of_failure(opened: Opened, words: str) -> str:
    """What shows that this is a bounce, or a notice of delay; empty where too little does."""
    subject = bool(phrases.SUBJECT.search(opened.first("subject")[:300]))
    failed = bool(phrases.FAILED.search(words[:_FAR]))
    if "x-failed-recipients" in opened.head:
        return "it has the field X-Failed-Recipients"
    if letter(opened):
        return ""
    answers, wrote = _answers(opened), _wrote(opened)
    late = phrases.DELAYED.search(opened.first("subject")[:300]) is not None
    if system(opened) and (failed or subject or late):
        return "a mail system says that something was not delivered"
    if _refuses(opened, words, alone=not (answers or wrote)):
        return "a mail system returns a message, or states why it does not take one"
    if (subject or late) and failed and not (answers and opened.first("return-path")):
        return "its subject and words say that something was not delivered"
    return ""


def letter(opened: Opened) -> bool:
    """Whether a person answers or passes something on, whatever he quotes: postmasters write letters too."""
    if opened.report_type or not _wrote(opened):
        return False
    subject = opened.first("subject")
    if phrases.FORWARDED.match(subject):
        return not system(opened)
    return _answers(opened) and phrases.REPLY.match(subject) is not None


def _answers(opened: Opened) -> bool:
    return bool({"in-reply-to", "references"} & opened.head.keys())


def _wrote(opened: Opened) -> bool:
    """Whether it has a sender, whom a bounce has not (RFC 5321 section 4.5.5)."""
    return opened.first("return-path") not in ("", "<>")


def _refuses(opened: Opened, words: str, *, alone: bool) -> bool:
    """In whatever language: of a daemon, or by a mail system that answers nobody and states code and status."""
    if phrases.DAEMON.search(opened.first("from")[:300]):
        told = said.said(words)
        return opened.original() is not None or "5" in (told.status[:1], told.reply[:1]) or told.meant in HARD
    if not (alone and system(opened)):
        return False
    if _TOLD_BY.search(words[:_FAR]):
        return True
    told = said.said(words)
    return told.status[:1] == told.reply[:1] == "5"


def delayed(opened: Opened, words: str) -> bool:
    """Whether it says that delivery goes on."""
    if phrases.DELAYED.search(opened.first("subject")[:300]):
        return True
    near = words[:_FAR]
    return bool(phrases.DELAYED.search(near)) and not phrases.FINAL.search(near)


def recipients(opened: Opened, words: str, original: Head, *, late: bool) -> tuple[Returned, ...]:
    """Whom it speaks of, and what it says of each. A mail system that names nobody speaks of one without an address."""
    near = words[:_FAR]
    chosen = _chosen(opened, near, original)
    if not chosen and system(opened) and _somebody(near):
        chosen = [_nowhere("")]
    starts = sorted({one.at for one in chosen if one.at >= 0})
    reporting = _reporting(opened, near)
    found: dict[str, Returned] = {}
    for one in chosen:
        key = canonical(one.address)
        if key not in found:
            found[key] = _returned(one, near, opened, starts, alone=len(chosen) == 1, late=late, reporting=reporting)
    return _unexpanded(found)


def _somebody(words: str) -> bool:
    """Whether somebody did not get it, though nobody is named."""
    told = said.said(words)
    return bool(phrases.FAILED.search(words)) or "5" in (told.status[:1], told.reply[:1])


def _unexpanded(found: dict[str, Returned]) -> tuple[Returned, ...]:
    """Without addresses that another recipient was expanded from."""
    sources = {canonical(one.original) for one in found.values() if one.original}
    return tuple(one for key, one in found.items() if key not in sources)


def system(opened: Opened) -> bool:
    """Whether it comes from a mail system: by its type, by its address or by having none.

    The null return path is that of vacations too (RFC 3834 section 3.3): it counts with the subject of a bounce, or
    with the message that came back.
    """
    sender = opened.first("from") or opened.first("sender")
    if phrases.SYSTEM.search(sender[:300]) or opened.report_type == "delivery-status":
        return True
    if not sender and "from" in opened.head:
        return True
    if not phrases.SYSTEM.search(opened.first("return-path")[:300]):
        return False
    return opened.original() is not None or bool(phrases.SUBJECT.search(opened.first("subject")[:300]))


def _chosen(opened: Opened, words: str, original: Head) -> list[Named]:
    """The addresses that are spoken of: by a field, by their places, else the one that the original went to."""
    named = _named(words, _own(opened, original))
    if fields := _failed(opened):
        places = {canonical(one.address): one for one in reversed(named)}
        return [places.get(canonical(each), _nowhere(each)) for each in fields]
    strong = [one for one in named if one.weight >= 4]
    if not strong and named:
        most = max(one.weight for one in named)
        strong = [one for one in named if one.weight == most and most > 0]
    summary = _TO.search(words)
    return strong or _sent_to(original) or (_sent_to({"to": [summary[1]]}) if summary else [])


def _nowhere(address: str) -> Named:
    """An address that the words do not hold."""
    return Named(address, 0, -1, -1)


def _failed(opened: Opened) -> list[str]:
    """Exim's field, Google's too."""
    values = ", ".join(opened.head.get("x-failed-recipients", []))
    return list(dict.fromkeys(found[0] for found in _ADDRESS.finditer(values[:8000])))[:_MOST]


def _sent_to(original: Head) -> list[Named]:
    """The one that the original was for, where it says so and names no other."""
    for name in ("x-envelope-to", "x-original-to", "delivered-to", "to"):
        values = original.get(name, [])
        found = list(dict.fromkeys(match[0] for value in values for match in _ADDRESS.finditer(value[:2000])))
        if found:
            return [_nowhere(found[0])] if len(found) == 1 and "cc" not in original else []
    return []


def _own(opened: Opened, original: Head) -> set[str]:
    """Addresses of the sender and of the mail system: spoken of last."""
    values = [*opened.head.get("to", []), *opened.head.get("from", []), *opened.head.get("return-path", [])]
    values += [*original.get("from", []), *original.get("return-path", []), *original.get("sender", [])]
    return {canonical(found[0]) for value in values for found in _ADDRESS.finditer(value[:2000])}


def _named(words: str, own: set[str]) -> list[Named]:
    found: list[Named] = []
    for match in _ADDRESS.finditer(words):
        if len(found) >= _MOST:
            break
        address = _X400.sub("", match[0].strip("'`|*.")).rstrip(".-")
        if "@" in address and "." in address.rpartition("@")[2]:
            weight = _weight(words, match, address, own)
            found.append(Named(address, weight, match.start(), match.end()))
    return found


def _weight(words: str, match: re.Match[str], address: str, own: set[str]) -> int:
    """How much the place of an address says that it is the one that failed."""
    before, after, previous = _around(words, match)
    weight = 4 if _X400.match(match[0]) else 0
    if _ROW.match(before) and (_AFTER.match(after) or _REASON.search(after)):
        weight += 4
    if phrases.SPOKEN_OF.search(before or f"{previous} "):
        weight += 3
    if _REASON.search(before[-80:]) or _REASON.search(after[:120]):
        weight += 1
    if phrases.FAILED.search(f"{previous} {before}"[-300:]):
        weight += 2
    if phrases.ASIDE.search(before or previous):
        weight -= 5
    if _NOBODY.match(address):
        weight -= 4
    return weight - 4 if canonical(address) in own else weight


def _around(words: str, match: re.Match[str]) -> tuple[str, str, str]:
    """What stands before and behind an address in its line, and the line above; of each no more than matters."""
    begin = words.rfind("\n", 0, match.start()) + 1
    stop = words.find("\n", match.end(), match.end() + 300)
    above = words[max(0, begin - 200) : begin].rstrip(" \t\n").rpartition("\n")[2]
    follows = begin >= 2 and words[begin - 2] != "\n"
    after = words[match.end() : stop if stop >= 0 else match.end() + 300]
    return words[max(begin, match.start() - 200) : match.start()], after, above if follows else ""


def _returned(
    one: Named, words: str, opened: Opened, starts: list[int], *, alone: bool, late: bool, reporting: str
) -> Returned:
    block = _block(one, words, starts)
    near = said.beside(words, one.address)
    told, text = _told(block, near, words if alone or not block else "")
    if not told and not block[len(one.address) :].strip(_MARKS):
        told, text = _told(words, opened.first("subject"))  # of nobody but all of them
    if late:
        told = said.Said(f"4{told.stated()[1:] or '.0.0'}", told.reply, told.meant)
    elif not told.stated():
        told = said.Said("5.0.0")
    expanded = _FROM.search(words, one.end, one.end + 400) if one.at >= 0 else None
    return returned(
        one.address, told, original=expanded[1] if expanded else "", action="delayed" if late else "failed",
        diagnostic=line(text or block, 1000), reporting=reporting,
        doubtful=bool(told.reply) and not _RCPT.search(words),
    )  # fmt: skip


def _block(one: Named, words: str, starts: list[int]) -> str:
    """What stands behind an address: up to the next one, to a rule, not too far."""
    if one.at < 0:
        return ""
    following = next((start for start in starts if start > one.at), len(words))
    block = words[one.at : min(following, one.at + _BLOCK)]
    rule = _BREAK.search(block)
    return block[: rule.start()] if rule else block


def _told(*texts: str) -> tuple[said.Said, str]:
    """From the text nearest to the address that states something, else means it; another one's number is added."""
    reply, best, text = "", said.Said(), ""
    for each in texts:
        if reply and not said.vague(best.status):
            break
        here = said.said(each) if each else said.Said()
        reply = reply or here.reply
        if here and (not best or (said.vague(best.status) and not (best.meant and said.vague(here.status)))):
            best, text = here, each
    return said.Said(best.status, best.reply or reply, best.meant), text


_AT_HOST = re.compile(
    r"(?:program at(?: host)?|mail agent \S{1,20} at|message from|server at"
    r"|generated by(?: host)?)\s+([\w-]{1,63}(?:\.[\w-]{1,63}){1,8})",
    re.IGNORECASE,
)


def _reporting(opened: Opened, words: str) -> str:
    """The server that says so: by its own words, else the domain of its address."""
    if found := _AT_HOST.search(words[:2000]):
        return found[1].lower()
    sender = _ADDRESS.search(opened.first("from")[:300])
    return sender[2].lower().rstrip(".") if sender else ""
