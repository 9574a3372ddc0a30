"""A message's story in plain words: taken, held, sent, deferred so many times, bounced, opened by a machine.

Made of the journal's events, each a sentence; attempts that came to the same are one. Texts of other servers and names
that clients chose are in it: whatever prints it has to keep them on one line. Knows nothing of how messages are found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from postmeter.events import (
    Bounced,
    Clicked,
    Complained,
    Deferred,
    Delivery,
    Event,
    Expired,
    Opened,
    Refiltered,
    Rejudged,
    Released,
    Sent,
    Submitted,
    Suppressed,
    Unknown,
    Unsubscribed,
    Untaken,
    as_json,
)
from postmeter.mail.scope import canonical, shown
from postmeter.store.fates import Fate
from postmeter.store.rows import Entry

MOST = 20  # messages of one answer
MOST_EVENTS = 5000  # of a message
_SHOWN = 10  # recipients named in one sentence
_STATUSES = {"": "a test that nobody gets", "accepted": "not yet tried", "untaken": "not taken by Postfix"}
_BY = {"human": "a person", "machine": "a machine", "unsure": "a person or a machine"}


class Source(Protocol):
    """As `store.finding.Finder`."""

    def references(self, text: str, *, most: int) -> list[str]: ...
    def forms(self, address: str) -> tuple[str, ...]: ...
    def fates(self, reference: str) -> list[Fate]: ...
    def events(self, reference: str, *, wanted: Callable[[Event], bool], most: int) -> tuple[list[Entry], bool]: ...


@dataclass(frozen=True, slots=True)
class Line:
    """`until` is the last of several times at which it happened."""

    time: float
    text: str
    until: float = 0.0
    times: int = 1


@dataclass(frozen=True, slots=True)
class Story:
    """One message. `fates` are those of the recipients that were asked for, or of all; `more`: that is not all."""

    reference: str
    message: Submitted | None
    fates: Sequence[Fate]
    lines: Sequence[Line]
    entries: Sequence[Entry]
    more: bool = False


def trace(source: Source, text: str, *, most: int = MOST) -> list[Story]:
    """Of an address its messages are told as far as it concerns that address."""
    whom = frozenset(source.forms(text))
    return [_story(source, reference, whom) for reference in source.references(text, most=most)]


def _story(source: Source, reference: str, whom: frozenset[str]) -> Story:
    fates = source.fates(reference)
    theirs = [fate for fate in fates if fate.recipient in whom]  # none of what only looks like an address
    names = whom | {fate.recipient for fate in theirs}
    entries, more = source.events(
        reference, wanted=lambda event: not theirs or _concerns(event, names), most=MOST_EVENTS
    )
    entries = sorted(entries, key=lambda entry: not isinstance(entry.event, Submitted))  # a quick log is ahead of it
    message = next((entry.event for entry in entries if isinstance(entry.event, Submitted)), None)
    return Story(reference, message, theirs or fates, told(entry.event for entry in entries), entries, more)


def _concerns(event: Event, names: frozenset[str]) -> bool:
    """What names no recipient of the message concerns all of them; hits name a pseudonym at most."""
    if isinstance(event, Delivery | Unknown | Complained | Suppressed | Unsubscribed):
        return canonical(event.recipient) in names or event.recipient in names
    return True


def told(events: Iterable[Event]) -> list[Line]:
    """A line for each event; deferrals of a recipient become one until something else becomes of it."""
    lines: list[Line] = []
    waiting: dict[str, int] = {}
    for event in events:
        whom = canonical(event.recipient) if isinstance(event, Delivery) else ""
        if isinstance(event, Deferred) and whom in waiting:
            lines[waiting[whom]] = _again(lines[waiting[whom]], event)
            continue
        waiting.pop(whom, None)
        if isinstance(event, Deferred):
            waiting[whom] = len(lines)
        lines += [Line(event.time, text) for text in _sentences(event)]
    return lines


def _again(line: Line, event: Deferred) -> Line:
    text = f"deferred {line.times + 1} times for {_whom(event)}; the last time{_answer(event)}"
    return replace(line, text=text, until=max(line.until, event.time), times=line.times + 1)


def _sentences(event: Event) -> Iterator[str]:
    writer = _WRITERS.get(type(event))
    if writer is not None:
        yield from writer(event)


def _submitted(event: Submitted) -> Iterator[str]:
    whose = f"login {event.login}" if event.login else f"{event.sender or 'nobody'}, without a login"
    yield f"taken by {event.service} from {whose}, for {_names(event.recipients)}"
    held = event.facts.get("held")
    if held:
        yield "put on hold: " + ("a quota had no room" if held == "quota" else "the brake stopped its sender")
    if event.facts.get("discarded"):
        yield f"a test ({event.facts['discarded']}): nobody gets it"
    seen = event.facts.get("observed")
    if isinstance(seen, dict):
        yield f"left as it was (mode: observe); else {_else(seen)}"


def _else(seen: dict[str, object]) -> str:
    """What `mode: observe` wrote down."""
    if (verdict := seen.get("verdict", "accept")) not in ("accept", "hold"):
        return f"refused: {verdict}"
    made = seen.get("signatures")
    signed = f"signed as {', '.join(map(str, made))}" if isinstance(made, list) and made else "not signed"
    links = f", {seen['links']} links tracked" if seen.get("links") else ""
    return f"{'put on hold' if verdict == 'hold' else 'taken'}, {signed}{links}"


def _refiltered(event: Refiltered) -> Iterator[str]:
    yield f"back from the content filter as {event.queue_id}, for {_names(event.recipients)}"


def _released(event: Released) -> Iterator[str]:
    by = "by itself, there was room" if event.by == "due" else "by a person"
    yield {
        "released": f"let out of the hold queue, {by}",
        "deleted": "deleted from the hold queue by a person",
        "gone": "left the hold queue without us",
    }.get(event.action, event.action)


def _sent(event: Sent) -> Iterator[str]:
    yield f"sent to {_whom(event)}, {_after(event.delay)} after it came in{_answer(event)}"


def _deferred(event: Deferred) -> Iterator[str]:
    yield f"deferred for {_whom(event)}{_answer(event)}"


def _bounced(event: Bounced) -> Iterator[str]:
    kind = "hard: the address is at fault" if event.hard else "soft: the address is not at fault"
    how = "came back from" if event.by == "dsn" else "bounced for"
    yield f"{how} {_whom(event)} ({kind}){_answer(event)}"


def _expired(event: Expired) -> Iterator[str]:
    yield f"given up by Postfix for {_whom(event)}{_answer(event)}"


def _unknown(event: Unknown) -> Iterator[str]:
    yield f"what became of it for {event.recipient} cannot be known: {event.why or 'the log does not tell'}"


def _untaken(event: Untaken) -> Iterator[str]:
    yield f"not taken by Postfix after all, and not charged: {event.why or 'the log does not show it'}"


def _complained(event: Complained) -> Iterator[str]:
    yield f"{event.recipient} called it spam{_as_told_by(event.reporter)}"


def _suppressed(event: Suppressed) -> Iterator[str]:
    done = "would not have been written to" if event.observed else "was not written to"
    yield f"{event.recipient} {done}: suppressed ({event.reason})"


def _unsubscribed(event: Unsubscribed) -> Iterator[str]:
    yield f"{event.recipient} unsubscribed from {shown(event.scope)}"


def _opened(event: Opened) -> Iterator[str]:
    yield f"opened{_hit(event)}"


def _clicked(event: Clicked) -> Iterator[str]:
    yield f"link {event.link} to {event.target or 'nowhere'} followed{_hit(event)}"


def _hit(event: Opened | Clicked) -> str:
    again = " again" if event.unique is False else ""
    return f"{again} by {_BY.get(event.by, event.by)} ({event.reason})" if event.reason else f"{again} by {event.by}"


def _rejudged(event: Rejudged) -> Iterator[str]:
    what = "open" if event.what == "open" else "click"
    yield f"that {what} was by {_BY.get(event.by, event.by)} after all ({event.reason})"


_WRITERS: dict[type, Callable[[Any], Iterator[str]]] = {
    Submitted: _submitted,
    Refiltered: _refiltered,
    Released: _released,
    Sent: _sent,
    Deferred: _deferred,
    Bounced: _bounced,
    Expired: _expired,
    Unknown: _unknown,
    Untaken: _untaken,
    Complained: _complained,
    Suppressed: _suppressed,
    Unsubscribed: _unsubscribed,
    Opened: _opened,
    Clicked: _clicked,
    Rejudged: _rejudged,
}


def _names(recipients: Sequence[str]) -> str:
    rest = f" and {len(recipients) - _SHOWN} more" if len(recipients) > _SHOWN else ""
    return ", ".join(recipients[:_SHOWN]) + rest if recipients else "nobody"


def _whom(event: Delivery) -> str:
    final = f" (as {event.final})" if event.final and canonical(event.final) != canonical(event.recipient) else ""
    relay = f" by {event.relay}" if event.relay and event.relay != "none" else ""
    return f"{event.recipient}{final}{relay}"


def _answer(event: Delivery) -> str:
    said = " ".join(part for part in (event.dsn, event.text) if part)
    return f": {said}" if said else ""


def _as_told_by(reporter: str) -> str:
    return f", as {reporter} reports" if reporter else ""


def _after(seconds: float) -> str:
    for size, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.1f} s"


def outcome(fate: Fate) -> str:
    """Where a recipient is now, in words."""
    status = _STATUSES.get(fate.status, fate.status)
    kind = (" hard" if fate.hard else " soft") if fate.status == "bounced" else ""
    more = [
        *([fate.provider] if fate.provider else []),
        *(["complained"] if fate.complained else []),
        *(["unsubscribed"] if fate.unsubscribed else []),
    ]
    return f"{status}{kind}{' (' + ', '.join(more) + ')' if more else ''}"


def as_object(story: Story) -> dict[str, object]:
    """For JSON."""
    message = story.message
    return {
        "reference": story.reference,
        "message_id": message.message_id if message else None,
        "login": message.login if message else None,
        "sender": message.sender if message else None,
        "recipients": [
            {
                "recipient": fate.recipient,
                "status": fate.status,
                "hard": fate.hard,
                "provider": fate.provider,
                "complained": fate.complained,
                "unsubscribed": fate.unsubscribed,
            }
            for fate in story.fates
        ],
        "events": [{"host": entry.host, "seq": entry.seq, **as_json(entry.event)} for entry in story.entries],
        "more": story.more,
    }
