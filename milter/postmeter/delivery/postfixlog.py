"""Read a line of Postfix's log: who wrote it, which message it is about, and what it says.

Knows one line at a time: nothing of the message that other lines tell of, of files, journals or of mail that is ours. A
log is foreign text. Senders choose addresses, the other side chooses replies, and disks and daemons cut lines: whatever
comes in, no exception goes out, and the time it takes grows with the line's length only.

Formats: postlog(1), the log lines of bounce(8), cleanup(8), pickup(8), qmgr(8), smtp(8), smtpd(8), postsuper(1); stamps
of RFC 3164 section 4.1.2 and RFC 3339; RFC 5424; `tls=` of Postfix 3.11; rsyslog's `message repeated`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from math import inf
from typing import NamedTuple, TypeAlias

from postmeter.delivery import stamps, wording, wrapped

NAMES = ("postfix",)
_TAG = 400  # characters of a host and a tag: RFC 1035 gives a host 253
_PRIORITY = re.compile(
    r"\A(?:<[a-z0-9.]{3,16}> ([^ ]+)|([^ ]+) [a-z0-9]{1,8}\.(?:debug|info|notice|warn|err|crit|alert|emerg))(?= )"
)
"""Before the host by FreeBSD's `syslogd -v`, behind it by BusyBox."""
_NEW_FORM = re.compile(r"\A1 ([^ ]+) ([^ ]+) ([^ ]+) ([^ ]+) [^ ]+ (?:-|(?:\[(?:[^]\\]|\\.)*\])+) \ufeff? ?")
"""RFC 5424 section 6: version, stamp, host, program, process, an id that Postfix has none of, data in brackets."""


class Line(NamedTuple):
    """What one line says, without control characters or surrogates. A tuple: a dataclass is made in 1.75 the time."""

    time: float
    host: str
    instance: str
    """The syslog_name: `postfix`, `postfix-out`; empty where no Postfix wrote it (`suppressed`)."""
    service: str
    """`submission` of `postfix/submission/smtpd`, else empty."""
    daemon: str
    pid: int
    queue_id: str
    """Empty for NOQUEUE and for lines about no message."""
    what: str
    """See `wording`; `suppressed` where a log daemon dropped lines; `broken`, cut or damaged; else `other`."""
    values: Mapping[str, str]

    @property
    def key(self) -> tuple[str, str, str]:
        """By which the lines about one message are known."""
        return self.host, self.instance, self.queue_id


def parse(line: bytes, *, now: float, names: Collection[str] = NAMES, since: float = inf) -> Line | None:
    """A line of a log file, read at `now` or before; None when it is neither Postfix's nor tells of dropped lines.

    `since` is when the lines before it were written, as far as that is known.
    """
    if b"\0" in line:  # before the hole that a crash leaves, or copytruncate, stands what was cut
        whole = line.strip(b"\0\r\n\t ").rpartition(b"\0")[2]
        if (behind := parse(whole, now=now, names=names, since=since)) is not None:
            return behind
    text = _text(line)
    found = _common(text, now, names, since)
    if found is not None or not any(map(text.__contains__, names)):
        return found
    plain = wrapped.common(text)
    return _common(_text(plain.encode("utf-8", "backslashreplace")), now, names, since) if plain else None


def _common(text: str, now: float, names: Collection[str], since: float) -> Line | None:
    if text[:1] == "<":  # the priority, where a daemon was told to write it
        text = text[1:].partition(">")[2]
    if text[:2] == "1 ":
        text = _NEW_FORM.sub(r"\1 \2 \3[\4]: ", text)
    time, rest = stamps.split(text, now, since)
    if time is None:
        return None
    head, separator, message = rest.partition(": ")
    host, name, pid, who = _writer((head if separator else head.removesuffix(":"))[:_TAG], tuple(names))
    if who is None:
        return _lost(time, host, name, pid, message)
    instance, service, daemon = who
    return Line(time, host, instance, service, daemon, pid, *wording.read(daemon, message))


def entry(
    time: float, host: str, identifier: str, pid: int, message: str | bytes, names: Collection[str] = NAMES
) -> Line | None:
    """An entry of the journal, with the same answers."""
    raw = message.encode("utf-8", "backslashreplace") if isinstance(message, str) else message
    who = _who(identifier, tuple(names))
    if who is None:
        return _lost(time, host, identifier, pid, _text(raw))
    instance, service, daemon = who
    return Line(time, host, instance, service, daemon, pid, *wording.read(daemon, _text(raw)))


def _text(line: bytes) -> str:
    text = line.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return _ended(text) if text.endswith(_ENDS) else text
    # copytruncate leaves a hole where a daemon does not append: NULs, then its next line
    return _ended(text.strip("\0\r\n\t ")).translate(_CONTROLS)


def _ended(text: str) -> str:
    end = len(text)
    while text.endswith(_ENDS, 0, end):
        end -= 4
    return text[:end]


_ENDS = ("#012", "#015", "#011")  # how rsyslog writes a line's end that came with the line

_CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029), "?")


_Who: TypeAlias = tuple[str, str, str]
"""Instance, service and daemon."""


def _lost(time: float, host: str, name: str, pid: int, message: str) -> Line | None:
    lost = wording.dropped(name, message)
    return Line(time, host, "", "", name, pid, "", "suppressed", lost) if lost else None


@lru_cache(maxsize=1024)
def _writer(head: str, names: tuple[str, ...]) -> tuple[str, str, int, _Who | None]:
    """Host, syslog tag, process and who that is, of `mx postfix/smtp[77]`: a process writes many lines."""
    host, _, tag = _PRIORITY.sub(r"\1\2", head).partition(" ")
    name, _, number = tag.removesuffix("]").partition("[")
    pid = int(number) if number.isascii() and number.isdigit() and len(number) < 10 else 0
    return host, name, pid, _who(name, names)


@lru_cache(maxsize=256)
def _who(name: str, names: tuple[str, ...]) -> _Who | None:
    """By a syslog tag, the longest instance name first."""
    for instance in sorted(names, key=len, reverse=True):
        if name.startswith(f"{instance}/"):
            service, _, daemon = name[len(instance) + 1 :].rpartition("/")
            return instance, service, daemon
    return None
