"""What a sender asks of tracking in fields of his message: understood, obeyed where he may ask, and taken off.

The step before quotas: a test is not charged. Fields of ours go from all mail of ours; those of other services only
where the sender's mail can be tracked at all (`tracking.url`), for otherwise a relay behind us may be whom they are
meant for. Knows no service by name (`services`) and no form of value (`sayings`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from postmeter.config.schema import Tracking
from postmeter.mail import address, fieldtext
from postmeter.mail.draft import MOST_DROPPED, Draft, Step, Wishes
from postmeter.mail.message import Field
from postmeter.mail.reply import Reply
from postmeter.tracking import services
from postmeter.tracking.sayings import ON, Said, narrowest
from postmeter.tracking.services import Switch
from postmeter.tracking.settings import Sections

# What became of a field
OBEYED = "obeyed"
UNUSED = "unused"  # says nothing that could be done or not done here
UNREADABLE = "unreadable"
IGNORED = "ignored"  # cannot be done here, and tracking.foreign_headers: ignore
DISBELIEVED = "disbelieved"  # tracking.switches does not name its sender
KEPT = "kept"  # stays in the message: somebody else's signature covers it
RESULTS = (OBEYED, UNUSED, UNREADABLE, IGNORED, DISBELIEVED, KEPT)

_MOST_TAGS = 20
_MOST_DATA = 2048  # octets of a sender's own data, in every event about the message
_MOST_TOLD = 5
_SIGNATURES = frozenset({b"dkim-signature", b"arc-message-signature"})
_COVERED = re.compile(rb"(?:^|;)h=([^;]*)")  # RFC 6376 section 3.5


@dataclass(frozen=True, slots=True)
class _Asked:
    """One field and what it says."""

    switch: Switch
    said: Said
    problems: tuple[str, ...]
    """Why the message cannot be sent as it is asked for."""

    @property
    def name(self) -> str:
        return self.switch.name.decode("ascii", "replace")


def step(tracking: Tracking) -> Step:
    sections: Sections[Tracking] = Sections(tracking, lambda section: section)

    def obey(draft: Draft) -> Reply | None:
        if draft.free:
            return None
        section = sections.of(draft.from_domain, draft.message.envelope.login)
        found = list(islice(_found(draft.fields, everyones=section.url is not None), MOST_DROPPED + 1))
        if not found:
            return None
        if len(found) > MOST_DROPPED:
            return Reply(550, "5.6.0", f"more than {MOST_DROPPED} fields for services that send mail")
        return _obey(draft, section, found)

    return obey


def _found(fields: Iterable[Field], *, everyones: bool) -> Iterator[tuple[Switch, bytes]]:
    for field in fields:
        known = services.find(field.key) if field.key.startswith(services.PREFIX) else None
        if known is not None and (known.ours or everyones):
            yield known, field.value


def _obey(draft: Draft, section: Tracking, found: Sequence[tuple[Switch, bytes]]) -> Reply | None:
    believed = _counts(section.switches, draft.message.envelope.login)
    asked = [_read(switch, value, draft, believed=believed) for switch, value in found]
    kept = _covered(draft.fields)
    reply = draft.drop_fields(*{one.switch.name for one in asked if one.switch.name.lower() not in kept})
    if reply is not None:
        return reply
    for one in asked:
        what, told = _told(one, believed=believed, kept=one.switch.name.lower() in kept)
        draft.count("switches_total", what)
        draft.note("switches", f"{one.name}: {told}")
    if believed:
        _wish(draft, section, asked)
    return _refusal(section, asked)


def _refusal(section: Tracking, asked: Sequence[_Asked]) -> Reply | None:
    refused = [f"{one.name}{problem}" for one in asked for problem in one.problems]
    if not refused or section.foreign_headers == "ignore":
        return None
    more = f"; and {len(refused) - _MOST_TOLD} more" if len(refused) > _MOST_TOLD else ""
    return Reply(550, "5.6.0", "; ".join(refused[:_MOST_TOLD]) + more)


def _counts(whose: tuple[str, ...] | str, login: str) -> bool:
    if isinstance(whose, str):
        return whose == "all"
    return bool(login) and login.lower() in {one.lower() for one in whose}


def _read(switch: Switch, value: bytes, draft: Draft, *, believed: bool) -> _Asked:
    said = switch.read(fieldtext.text(value))
    return _Asked(switch, said, tuple(_problems(said, draft.message.envelope.rcpt_to, believed=believed)))


def _problems(said: Said, rcpt_to: Sequence[bytes], *, believed: bool) -> Iterator[str]:
    """What is refused, each behind the field's name; of a test as well, which is there to find it out."""
    if said.unreadable and said.foreign:
        yield " cannot be read"
        return
    cannot = "cannot be done here, and without it other mail would be sent"
    for key in said.foreign:
        yield f" ({key}) {cannot}" if key else f" {cannot}"
    if said.to and not _only(said.to, rcpt_to):
        yield f" (to) {cannot}"
    if said.apart and len(rcpt_to) > 1:
        yield f" {cannot}: every recipient would see the others"
    if said.test and not believed:
        yield " does not count for this sender, and without it the message would be sent"


def _only(to: Sequence[str], rcpt_to: Sequence[bytes]) -> bool:
    """Whether it names the one recipient that the message has."""
    named = [one for each in to[:2] for one in address.mailboxes(each.encode("utf-8", "replace"))]
    return len(rcpt_to) == 1 and [one.lower() for one in named] == [address.text(rcpt_to[0]).lower()]


def _wish(draft: Draft, section: Tracking, asked: Sequence[_Asked]) -> None:
    """Ours beat others; of several the one by which least is tracked."""
    ours = [one.said for one in asked if one.switch.ours]
    others = [one.said for one in sorted(asked, key=_rank) if not one.switch.ours]
    clicks = narrowest(said.clicks for said in ours) or narrowest(said.clicks for said in others)
    if clicks == ON:
        clicks = section.links if section.links != "off" else "html"
    tags = tuple(dict.fromkeys(tag for said in (*ours, *others) for tag in said.tags))[:_MOST_TAGS]
    campaigns = [said.campaign for said in (*ours, *others) if said.campaign]
    test = next((one.name for one in asked if one.said.test), "")
    draft.wishes = Wishes(
        clicks=clicks or None,
        opens=_opens(ours) if _opens(ours) is not None else _opens(others),
        campaign=next(iter(campaigns or tags), ""),
        tags=tags,
        test=bool(test),
    )
    if test:
        draft.free, draft.hold = "test", ""
        draft.facts["discarded"] = test
    _keep(draft, [pair for said in (*ours, *others) for pair in said.data])


def _rank(one: _Asked) -> int:
    """Its place in the list of services, so that nothing depends on the order of fields."""
    return _RANKS.get(one.switch.name.lower(), len(_RANKS))


_RANKS = {key: rank for rank, key in enumerate(services.SWITCHES)}


def _opens(sayings: Sequence[Said]) -> bool | None:
    said = [one.opens for one in sayings if one.opens is not None]
    return all(said) if said else None


def _keep(draft: Draft, data: Sequence[tuple[str, str]]) -> None:
    """What every event about the message shall tell."""
    if draft.wishes.campaign:
        draft.facts["campaign"] = draft.wishes.campaign
    if draft.wishes.tags:
        draft.facts["tags"] = list(draft.wishes.tags)
    kept: dict[str, str] = {}
    room = _MOST_DATA
    for name, value in data:
        room -= len(json.dumps({name: value}))
        if room < 0:
            draft.note("switches", f"data of the sender's own over {_MOST_DATA} octets is left out, from {name} on")
            break
        kept[name] = value
    if kept:
        draft.facts["metadata"] = kept


def _covered(fields: Iterable[Field]) -> frozenset[bytes]:
    """The fields, in lower case, that signatures on the message cover: without one of these they fail."""
    lists = [
        names
        for field in fields
        if field.key in _SIGNATURES
        for names in _COVERED.findall(b"".join(field.value.split()).lower())
    ]
    return frozenset(name for names in lists for name in names.split(b":"))


def _told(one: _Asked, *, believed: bool, kept: bool) -> tuple[str, str]:
    """What became of the field, for the figures and for people."""
    said = one.said
    where = "stays, a signature on the message covers it" if kept else "removed"
    if one.problems:
        what, why = IGNORED, one.problems[0].strip()
    elif said.unreadable:
        what, why = UNREADABLE, "cannot be read"
    elif not believed:
        what, why = DISBELIEVED, "does not count for this sender"
    else:
        why = ", ".join(_meanings(said))
        what = OBEYED if why else UNUSED
    return KEPT if kept else what, f"{where}; {why or 'nothing to be done here'}"


def _meanings(said: Said) -> Iterator[str]:
    if said.clicks:
        yield f"clicks {said.clicks}"
    if said.opens is not None:
        yield f"opens {'on' if said.opens else 'off'}"
    if said.campaign:
        yield f"campaign {said.campaign}"
    if said.tags:
        yield f"tags {', '.join(said.tags)}"
    if said.data:
        yield f"the sender's own data: {', '.join(name for name, _ in said.data[:_MOST_TOLD])}"
    if said.test:
        yield "a test, delivered to nobody"
