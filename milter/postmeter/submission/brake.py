"""The brake for stolen accounts: how much of a login is usual in such an hour, and what besides makes it suspicious.

Pure, but for `Watch`, the worker's part, which reads what was learned (`store.profiles`). More than usual alone is
a newsletter; so a second sign is asked for before anybody is stopped (docs/decisions.md says why each number is what
it is). Knows nothing of orders, replies and holding (`standing`), nor of how mail is learned from (`books.baselines`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from statistics import mean, median
from typing import Protocol, TypeAlias

from postmeter.config.schema import Brake
from postmeter.events import Braked
from postmeter.mail import address
from postmeter.mail.draft import Draft
from postmeter.runtime.logs import OnceAMinute
from postmeter.store.accounts import Charge, Overdrawn, Settled
from postmeter.store.database import StoreError
from postmeter.store.profiles import HOUR, House, Past, Profiles
from postmeter.submission.network import network

log = logging.getLogger(__name__)
once = OnceAMinute(log)

Settle: TypeAlias = Callable[[Sequence[Charge]], Settled]
"""Settles one message with those charges."""

DAY = 24 * HOUR
WEEK = 7 * DAY

RIPE = DAY
"""So long a network must have been in use before it is no longer new: else a thief's first message would make it so."""

SHARED = 3
"""A network of so many logins is the house's: an office, a webmail server, a VPN."""

MAJORITY = 0.5
"""The share of strangers must pass the login's usual share by more: a shop's mail is to strangers always."""

FEW_HOURS = 5
"""A login with mail in fewer hours of `learn`, or not known for a week, is measured by what the whole house knows."""

GROWTH = 1.1
"""Looked at and found harmless, a login is looked at again after a tenth more, not at each message."""

REPRIEVE = DAY
"""So long after a person released it a login is left alone; until then its network is ripe and its mail known."""

_NEWEST = 200  # messages of the hour whose recipients are looked at …
_MOST = 1000  # … and of those recipients so many: some milliseconds
_HOUSE = 60.0  # seconds between two looks whether anything has been learned
_NEVER = 1 << 62
_KEPT = 10_000  # logins that a worker keeps what is usual of


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is known at the moment in which a login sends more than usual. Shares are of 1; `usually` is of `learn`.

    `ours` says whether anybody here is known on that network, or wrote to those recipients, whoever sends.
    """

    network: str = ""
    network_known: bool = True
    network_ours: bool = True
    strangers: float = 0.0
    strangers_ours: float = 0.0
    usually: float = 0.0
    young: bool = False
    bounced: float = 0.0


def usual(past: Past, *, now: float, house: House, settings: Brake) -> int:
    """Recipients in the hour that ends now beyond which a login sends more than it does at such a time of the week.

    The hour before and the hour after are looked at too: clocks go forward and back, and an hour ends in the next one.
    """
    since = max(house.since, past.first) if past.first else now
    hour, weeks = int(now // HOUR), int(settings.learn // WEEK)
    most = 0.0
    for near in (hour - 1, hour, hour + 1):
        earlier = [near - week * 168 for week in range(1, weeks + 1)]
        most = max(most, _ceiling([past.hours.get(at, 0) for at in earlier if at >= since // HOUR], settings))
    return max(settings.least - 1, int(most))


def _ceiling(samples: Sequence[int], settings: Brake) -> float:
    if not samples:
        return 0.0
    middle = median(samples)
    return middle + settings.deviations * median(abs(sample - middle) for sample in samples)


def usually(past: Past, now: float) -> float:
    """The share of strangers in an hour, on average: one hour of thousands weighs no more than any other."""
    known = _seasoned(past, now)
    return mean(past.strangers[hour] / max(past.hours[hour], 1) for hour in known) if known else 0.0


def young(past: Past, now: float) -> bool:
    """Too little is known of that login to tell by it what is strange."""
    return not past.first or past.first > now - WEEK or len(past.hours) < FEW_HOURS


def _seasoned(past: Past, now: float) -> list[int]:
    """Hours of more than a week ago, once there are two: a patient thief could else make his own ways the account's."""
    return [hour for hour in past.hours if past.first > now - 2 * WEEK or hour < (now - WEEK) // HOUR]


def signs(look: Look, settings: Brake) -> tuple[str, ...]:
    """What speaks for a thief, of the signs that are asked for.

    All is new to a login that is new itself: it is asked whether the house knows, and a network that nobody knows, a
    first day at home, is a sign only beside strangers.
    """
    strangers = look.strangers_ours if look.young else look.strangers
    found = {
        "network": not (look.network_ours if look.young else look.network_known),
        "bounces": look.bounced >= settings.bounced,
        "strangers": strangers - (0.0 if look.young else look.usually) > MAJORITY,
    }
    wanted = tuple(sign for sign in settings.signs if found[sign])
    return () if look.young and wanted == ("network",) and "strangers" in settings.signs else wanted


@dataclass(frozen=True, slots=True)
class _Measure:
    """What a login is measured by during one hour."""

    hour: int
    usual: int
    young: bool
    usually: float


class Released(Protocol):
    """When a person last ended the brake on a login, or 0; as known a moment ago, or looked up `at_once`."""

    def __call__(self, login: str, *, at_once: bool = False) -> float: ...


class Watch:
    """One a worker, called from any thread."""

    def __init__(self, settings: Brake, profiles: Profiles, *, prefix: Sequence[int], released: Released) -> None:
        self._settings, self._profiles = settings, profiles
        self._prefix, self._released = prefix, released
        self._except = tuple(pattern.lower() for pattern in settings.except_)
        self._house, self._asked_at = House(), float("-inf")
        self._measures: dict[str, _Measure] = {}
        self._cleared: dict[tuple[str, str], tuple[float, int]] = {}

    def settle(
        self, draft: Draft, charges: Sequence[Charge], settle: Settle, now: float
    ) -> tuple[Settled, Braked | None]:
        """Settle with the login's hour besides; once more without its limit for who may go on nevertheless.

        Braked, unless only observed, nothing is charged or recorded.
        """
        charge = self.charge(draft, now)
        if charge is None:
            return settle(charges), None
        settled = settle((*charges, charge))
        if settled.refused is None or settled.refused.charge.level != charge.level:
            return settled, None
        braked = self.suspect(draft, settled.refused, now)
        if braked is None or braked.observed:
            settled = settle((*charges, replace(charge, limit=_NEVER, enforce=False)))
        return settled, braked

    def charge(self, draft: Draft, now: float) -> Charge | None:
        """What the login's hour is charged; None for mail that is not watched, or as long as too little is known."""
        name = draft.message.envelope.name
        if not name or not draft.message.envelope.mail_from or draft.free or self._spared(name, now):
            return None
        try:
            if not self._ready(now):
                return None
            limit = self._measure(name, now).usual
        except StoreError as error:
            once.log(logging.ERROR, "brake", "nobody is watched just now: %s", error)
            return None
        until, cleared = self._cleared.get((name, self._network(draft)), (0.0, 0))
        limit = max(limit, cleared if until > now else 0)
        amount = len(draft.message.envelope.rcpt_to)
        text = f"{limit} recipients/hour"
        return Charge(key=name, unit="recipients", window=HOUR, limit=limit, amount=amount, text=text, level="brake")

    def suspect(self, draft: Draft, over: Overdrawn, now: float) -> Braked | None:
        """Who sends more than usual and shows a second sign; None for who may go on: it is looked at again later."""
        name, recipients = draft.message.envelope.name, over.used + over.charge.amount
        if self._reprieved(name, now, at_once=True):
            return None
        try:
            measure = self._measure(name, now)
            look = self._look(draft, measure, now)
        except StoreError as error:
            once.log(logging.ERROR, "brake", "nobody is watched just now: %s", error)
            return None
        found = signs(look, self._settings)
        watched = self._settings.mode != "on"
        if not found or watched:
            self._clear(name, look.network, now, most=_NEVER if found else int(recipients * GROWTH))
        if not found:
            return None
        return Braked(
            source=f"braked:{name}:{int(now // HOUR)}",
            time=now,
            login=name,
            observed=watched,
            action=self._settings.action,
            recipients=recipients,
            usual=measure.usual,
            signs=found,
            evidence=evidence(look, found),
        )

    def _spared(self, name: str, now: float) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._except) or self._reprieved(name, now)

    def _reprieved(self, name: str, now: float, *, at_once: bool = False) -> bool:
        """A host whose clock is years ahead spares nobody for years."""
        return abs(now - self._released(name, at_once=at_once)) < REPRIEVE

    def _ready(self, now: float) -> bool:
        """Whether there is a week to compare with, and the books have come after all mail within a day."""
        if not self._asked_at <= now < self._asked_at + _HOUSE:
            self._house, self._asked_at = self._profiles.house(), now
        house = self._house
        return 0 < house.since <= now - WEEK and house.learned >= now - DAY

    def _measure(self, name: str, now: float) -> _Measure:
        hour = int(now // HOUR)
        kept = self._measures.get(name)
        if kept is not None and kept.hour == hour:
            return kept
        past = self._profiles.past(name, since=now - self._settings.learn)
        measure = _Measure(
            hour,
            usual(past, now=now, house=self._house, settings=self._settings),
            young(past, now),
            usually(past, now),
        )
        if len(self._measures) >= _KEPT:
            self._measures.clear()
        self._measures[name] = measure
        return measure

    def _look(self, draft: Draft, measure: _Measure, now: float) -> Look:
        envelope, place = draft.message.envelope, self._network(draft)
        name = envelope.name
        since = now - self._settings.learn
        own, users = self._profiles.users(place, login=name, since=since, before=now - RIPE)
        nothing = not place or not 0 < self._house.networks <= now - WEEK
        written = {address.text(recipient) for recipient in envelope.rcpt_to}
        written |= self._profiles.lately(name, login=envelope.login, since=now - HOUR, most=_NEWEST)
        asked = list(written)[:_MOST]
        known, ours = self._profiles.known(asked, login=name, before=now - HOUR)
        return Look(
            network=place,
            network_known=nothing or own or users >= SHARED,
            network_ours=nothing or users > 0,
            strangers=1 - known / len(asked),
            strangers_ours=1 - ours / len(asked),
            usually=measure.usually,
            young=measure.young,
            bounced=self._profiles.bounced(name),
        )

    def _network(self, draft: Draft) -> str:
        return network(draft.message.envelope.client, self._prefix)

    def _clear(self, name: str, place: str, now: float, *, most: int) -> None:
        if len(self._cleared) >= _KEPT:
            self._cleared.clear()
        self._cleared[name, place] = (now + HOUR, most)


def evidence(look: Look, found: Sequence[str]) -> str:
    """The signs in words, for the administrator."""
    who = "anybody here" if look.young else "this login"
    strangers = look.strangers_ours if look.young else look.strangers
    usually = "" if look.young else f", usually {look.usually:.0%}"
    words = {
        "network": f"from {look.network}, where {who} was never seen before",
        "bounces": f"{look.bounced:.0%} of its last recipients do not exist",
        "strangers": f"{strangers:.0%} of the hour's recipients {who} never wrote to before{usually}",
    }
    return "; ".join(words[sign] for sign in found)
