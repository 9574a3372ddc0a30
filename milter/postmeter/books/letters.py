"""What people are told by mail about quotas and the brake: who, what was counted, of how much, what helps.

Pure: events in, subject and text out. Knows nothing of when or how a letter goes. Logins are what clients say they are:
none of them reaches a letter but on one line, printable, cut, and quoted where it stands in a command.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from postmeter.events import Braked, Warned
from postmeter.submission.refusal import SPANS, number

_LONGEST = 150  # characters of a name
_MOST = 50  # accounts in one letter; the others are counted
_SIGNS = {
    "network": "a network that it never used",
    "bounces": "much of its mail bounces",
    "strangers": "recipients that it never wrote to",
}

Room: TypeAlias = Callable[[Warned], float | None]
"""When the account has room for one more: 0 when it has, None when nobody can tell."""


@dataclass(frozen=True, slots=True)
class Letter:
    """`subject` is one line. `html` says what `text` does, for who would rather look at it."""

    subject: str
    text: str
    html: str = ""


def digest(warnings: Sequence[Warned], *, host: str, room: Room) -> Letter:
    """For the administrator: each account once, as it was last heard of."""
    latest = _latest(warnings)
    first = latest[0]
    subject = f"{len(latest)} quota warnings" if len(latest) > 1 else f"{_whose(first)} reached {first.percent}%"
    told = [_block(event, room) for event in latest[:_MOST]]
    if len(latest) > _MOST:
        told.append(f"And {len(latest) - _MOST} more: postmeter quota show\n")
    return Letter(f"postmeter on {host}: {subject}", "\n".join([*told, _what_helps(latest)]))


def personal(warnings: Sequence[Warned], *, host: str, room: Room) -> Letter:
    """For the sender."""
    latest = _latest(warnings)
    told = [f"You have used {_used(event)}.\n{_reached(event, 'your')}\n{_room(event, room)}\n" for event in latest]
    subject = f"You have used {latest[-1].percent}% of what you may send"
    end = f"""\
What you send when nothing is left may be refused, or may wait, until there is
room again; room comes back by itself as time goes by.

If it was not you who sent so much, somebody else may know your password:
change it, and tell whoever runs this mail server.

This is about mail sent as {_printable(latest[-1].login or latest[-1].key)} through {host}.
"""
    return Letter(subject, "\n".join([*told, end]))


def alarm(brakes: Sequence[Braked], *, host: str) -> Letter:
    """For the administrator, about one login."""
    last = brakes[-1]
    login = _printable(last.login)
    what = "would be stopped" if last.observed else "is stopped"
    subject = f"postmeter on {host}: {login} {what}, {last.recipients} recipients in an hour"
    told = [
        f"On {_clock(event.time)}: {event.recipients} recipients in an hour, where up to {event.usual} are usual.\n"
        f"What else is unusual: {_signs(event)}.\n{_evidence(event)}"
        for event in brakes[-_MOST:]
    ]
    return Letter(subject, "\n".join([f"{login} sends as it never did.\n", *told, _what_now(last)]))


def _signs(event: Braked) -> str:
    return ", ".join(_SIGNS.get(sign, sign) for sign in event.signs) or "nothing"


def _evidence(event: Braked) -> str:
    return "".join(f"{_printable(line, longest=500)}\n" for line in event.evidence.splitlines()[:20])


def _latest(warnings: Sequence[Warned]) -> list[Warned]:
    """An account that reached 80% and then 100% is one thing to tell."""
    return list({(event.level, event.key, event.unit, event.window): event for event in warnings}.values())


def _block(event: Warned, room: Room) -> str:
    said = f"{_whose(event)} has used {_used(event)}.\n{_reached(event, 'its')}\n{_room(event, room)}\n"
    if event.level != "sender" and event.login:
        said += f"The last to send was {_printable(event.login)}.\n"
    return said


def _whose(event: Warned) -> str:
    key = _printable(event.key)
    named = {
        "domain": f"From domain {key}" if key else "Mail without a From domain of its own",
        "network": f"Network {key}",
        "total": "All mail together",
    }
    return named.get(event.level, key)


def _used(event: Warned) -> str:
    unit = "" if event.unit == "bytes" else f" {event.unit}"
    used, limit = number(event.used, event.unit), number(event.limit, event.unit)
    missed = ", and a message found no room" if event.percent >= 100 and event.used < event.limit else ""
    return f"{used} of {limit}{unit} in the last {SPANS.get(event.window, f'{event.window} seconds')}{missed}"


def _reached(event: Warned, possessive: str) -> str:
    return f"That is {event.percent}% or more of {possessive} limit, {event.text}, on {_clock(event.time)}."


def _room(event: Warned, room: Room) -> str:
    when = room(event)
    if when is None:
        return "Room comes back as what was sent grows older than that."
    return f"There is room again on {_clock(when)}." if when else "There is still room."


def _what_helps(warnings: Sequence[Warned]) -> str:
    """The command with the name in it where there is but one."""
    logins = {event.key if event.level == "sender" else event.login for event in warnings} - {""}
    login = _argument(logins.pop()) if len(logins) == 1 else "LOGIN"
    return f"""\
What helps, if anything has to be done; room comes back by itself:

  postmeter quota show {login}
      what it has used, of how much
  postmeter quota set {login} LIMITS --until WHEN
      other limits, for a time
  postmeter freeze {login}
      nothing more from it, if somebody else is sending in its name
"""


def _what_now(event: Braked) -> str:
    login = _argument(event.login)
    done = {
        "hold": "Its mail is kept in Postfix's hold queue until you let it go or delete it.",
        "defer": "Its mail is refused for now (451), and comes again by itself, until you release it.",
    }.get(event.action, "")
    if event.observed:
        done = "Nothing was done: quota.brake.mode is observe."
    return f"""\
{done}

If that is its owner's mail:

  postmeter quota release {login}

If somebody else knows the password, change it first of all, and then:

  postmeter freeze {login} --queue
      nothing more from it; lists what is queued already
  postmeter links block --login {login}
      its tracked links answer 410
  postmeter quota release {login} --delete
      deletes what is held
"""


def _argument(name: str) -> str:
    return shlex.quote(_printable(name))


def _printable(text: str, *, longest: int = _LONGEST) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:longest])


def _clock(when: float) -> str:
    return f"{datetime.fromtimestamp(when, UTC):%Y-%m-%d at %H:%M:%S} UTC"
