"""A year of a small company's mail, made up: office hours, holidays, trips, newsletters, invoices, a shop, new people.

Nothing of it is measured; each number is chosen to be on the lively side of what such companies do, so that false
alarms come out rather too many. All chance comes from one seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

HOUR, DAY = 3600.0, 86_400.0
START = 1_736_121_600.0  # Monday, 6 January 2025, 00:00 UTC
SUMMER = (83, 293)  # days of the year in which clocks are an hour ahead

OFFICE, WEBMAIL = "192.0.2.7", "10.0.0.5"
HOLIDAYS = frozenset({0, 101, 104, 114, 144, 155, 269, 352, 353, 354, 355, 358, 359, 360})


@dataclass(frozen=True, slots=True)
class Mail:
    time: float
    login: str
    client: str
    recipients: tuple[str, ...]


@dataclass(slots=True)
class Person:
    """`away` are days without mail; `places` days on a trip with the addresses used there."""

    login: str
    chance: random.Random
    since: int = 0
    pace: float = 12.0
    curious: float = 0.07
    webmail: bool = False
    away: set[int] = field(default_factory=set)
    places: dict[int, list[str]] = field(default_factory=dict)
    contacts: list[str] = field(default_factory=list)

    def client(self, day: int, nth: int) -> str:
        if day in self.places:
            return self.chance.choice(self.places[day])
        number = sum(self.login.encode())
        draw = self.chance.random()
        if self.webmail and draw < 0.4:
            return WEBMAIL
        if draw < 0.65:
            return OFFICE
        if draw < 0.9:  # at home, where the provider gives out another address every two months
            return f"84.{number % 200}.{(day + nth) // 60}.9"
        return f"80.187.{self.chance.randrange(12)}.4"  # a mobile network

    def recipients(self, count: int) -> tuple[str, ...]:
        return tuple(self._recipient() for _ in range(count))

    def _recipient(self) -> str:
        if self.chance.random() < self.curious or len(self.contacts) < 3:
            self.contacts.append(f"c{self.chance.getrandbits(48):x}@example.net")
            return self.contacts[-1]
        return self.contacts[int(len(self.contacts) * self.chance.random() ** 2)]

    def known(self, count: int) -> tuple[str, ...]:
        return tuple(self.chance.sample(self.contacts, min(count, len(self.contacts))))


class Company:
    """`mail` gives everything in the order of time; `days` of it."""

    def __init__(self, seed: int, *, people: int = 33, days: int = 365, list_size: int = 800) -> None:
        self.chance = random.Random(seed)
        self.days, self._list = days, list_size
        self.colleagues = [f"p{nth}@example.com" for nth in range(people)]
        self.people = [self._person(nth, login) for nth, login in enumerate(self.colleagues)]
        self._lists = {name: self._addresses(list_size) for name in ("weekly", "monthly", "invoices")}

    def mail(self) -> Iterator[Mail]:
        for day in range(self.days):
            yield from sorted(self._day(day), key=lambda mail: mail.time)

    def list_of(self, name: str) -> list[str]:
        """Who gets the mail of that sender as of now."""
        return self._lists[name]

    def is_work(self, day: int) -> bool:
        return day % 7 < 5 and day not in HOLIDAYS

    def at(self, day: int, hour: float) -> float:
        """That local hour as seconds since the epoch."""
        return START + day * DAY + (hour - (2 if SUMMER[0] <= day < SUMMER[1] else 1)) * HOUR

    def _person(self, nth: int, login: str) -> Person:
        chance = random.Random(self.chance.random())
        person = Person(login, chance, pace=chance.uniform(4, 22), webmail=nth % 4 == 0)
        person.contacts = [*self.colleagues, *(f"k{nth}.{one}@example.org" for one in range(80))]
        if nth % 8 == 3:  # new this year, on a Monday, with nobody in the address book but colleagues
            person.since = 7 * chance.randrange(3, max(4, self.days // 8))
            person.contacts = list(self.colleagues)
        if nth % 11 == 5:
            person.pace = 0.15  # hardly ever writes
        if nth % 9 == 4:
            person.curious = 0.5  # sales
        if nth % 16 == 6:  # two months of leave, then back
            first = chance.randrange(60, max(61, self.days - 80))
            person.away |= set(range(first, first + 60))
        for _ in range(3):
            first = chance.randrange(7, self.days)
            person.away |= set(range(first, first + chance.randrange(5, 15)))
        for trip in range(3):
            first = chance.randrange(7, self.days)
            hotels = [f"{chance.randrange(100, 220)}.{chance.randrange(250)}.{trip}.77" for _ in range(2)]
            person.places |= dict.fromkeys(range(first, first + chance.randrange(2, 8)), hotels)
        return person

    def _day(self, day: int) -> Iterator[Mail]:
        for person in self.people:
            if day >= person.since and day not in person.away:
                yield from self._personal(person, day)
        yield from self._machines(day)

    def _personal(self, person: Person, day: int) -> Iterator[Mail]:
        chance, work = person.chance, self.is_work(day)
        count = int(chance.gauss(person.pace, person.pace / 2)) if work else int(chance.random() < 0.1)
        count = max(count, int(chance.random() < person.pace % 1))
        for nth in range(count):
            hour = chance.triangular(8, 18.5, 10.5) if work else chance.uniform(9, 22)
            size = chance.choices((1, 2, chance.randrange(3, 6), chance.randrange(6, 15)), (70, 15, 12, 3))[0]
            yield Mail(self.at(day, hour), person.login, person.client(day, nth), person.recipients(size))
        if work and chance.random() < 0.03:  # to everybody on a project, or in the house
            size = chance.randrange(18, 60)
            names = person.known(size) if chance.random() < 0.6 else tuple(self.colleagues[:size])
            yield Mail(self.at(day, chance.uniform(9, 17)), person.login, person.client(day, 0), names)
        if person.curious > 0.4 and work and chance.random() < 0.02:  # a fair: new people, one by one
            hour = chance.uniform(9, 15)
            for nth in range(chance.randrange(15, 45)):
                to = (f"fair{chance.getrandbits(48):x}@example.net",)
                yield Mail(self.at(day, hour + nth / 30), person.login, person.client(day, 0), to)
        if day == 346 and chance.random() < 0.4:  # the Christmas card
            yield Mail(self.at(day, 11), person.login, OFFICE, person.known(120))

    def _machines(self, day: int) -> Iterator[Mail]:
        work = self.is_work(day)
        if day % 7 == 1:
            yield from self._bulk("weekly", day, hour=10, grow=0.02)
        if day % 30 == 3:
            yield from self._bulk("monthly", day, hour=15, grow=0.05)
        if day % 30 == 0:
            yield from self._bulk("invoices", day, hour=14, grow=0.03)
        season = 4 if 320 <= day <= 350 else 1
        for _ in range(int(self.chance.gauss(40, 8) * season)):
            to = f"o{self.chance.getrandbits(48):x}@example.net" if self.chance.random() < 0.85 else self._old("weekly")
            yield Mail(self.at(day, self.chance.triangular(0, 24, 20)), "shop@example.com", OFFICE, (to,))
        for _ in range(int(self.chance.gauss(60, 15)) if work else 5):  # a mailbox of several, who answer strangers
            new = self.chance.random() < 0.6
            to = f"q{self.chance.getrandbits(48):x}@example.net" if new else self._old("invoices")
            client = self.chance.choice((OFFICE, OFFICE, WEBMAIL, f"84.{self.chance.randrange(3)}.0.9"))
            yield Mail(self.at(day, self.chance.triangular(8, 18, 11)), "info@example.com", client, (to,))

    def _bulk(self, name: str, day: int, *, hour: float, grow: float) -> Iterator[Mail]:
        """One message a recipient, within 40 minutes; some have come to the list since."""
        known = self._lists[name]
        known += self._addresses(int(len(known) * grow))
        start = self.at(day, hour + self.chance.uniform(0, 0.8))
        for nth, to in enumerate(known):
            yield Mail(start + nth * 2400 / len(known), f"{name}@example.com", OFFICE, (to,))

    def _old(self, name: str) -> str:
        return self.chance.choice(self._lists[name])

    def _addresses(self, count: int) -> list[str]:
        return [f"l{self.chance.getrandbits(48):x}@example.net" for _ in range(count)]
