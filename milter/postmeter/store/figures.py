"""Figures by day: how many recipients met which fate, and how often messages were opened and followed.

Added up as the journal is followed, so that a report over a week reads as much however much was sent. A recipient
counts on the day (UTC) on which the message was submitted, whenever its fate is told; so of one day's recipients each
is in one place, and what moves is taken away there. `accepted` is the sum of WHERE_THEY_ARE. Senders choose From
domains and campaigns: of each so many a day are told apart, the rest is one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from sqlite3 import Connection

from postmeter.store.database import Database, Row
from postmeter.store.fates import Fate, Group

DAY = 86_400
OTHERS = "(others)"
"""What is beyond the so many that are told apart; no domain's name, and hardly a campaign's."""

MOST = 1000
"""From domains, and campaigns, of a day."""

WHERE_THEY_ARE = ("waiting", "deferred", "delivered", "hard", "soft", "expired", "unknown")
"""Of an accepted recipient exactly one is true."""

DECIDED = ("delivered", "hard", "soft", "expired")
"""Those where nothing more is awaited: what the rates are shares of."""

_WHERE = {
    "accepted": "waiting",
    "deferred": "deferred",
    "sent": "delivered",
    "expired": "expired",
    "unknown": "unknown",
}
COLUMNS = {"domain": "from_domain", "login": "login", "campaign": "campaign", "provider": "provider", "day": "day"}
BY = tuple(COLUMNS)
"""What figures can be broken down by."""

_ADD = """
    INSERT INTO figures (day, from_domain, login, campaign, provider, what, value) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET value = value + excluded.value
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is counted."""

    day: int
    group: Group
    provider: str
    what: str


def day(time: float) -> int:
    """Days since 1970, by UTC."""
    return int(time // DAY)


def counted(fate: Fate) -> Iterable[Place]:
    """Everywhere one recipient counts."""
    when, group = day(fate.time), Group(fate.group.from_domain, fate.group.login, fate.group.campaign)
    return [Place(when, group, fate.provider, what) for what in _of(fate)]


def _of(fate: Fate) -> Iterable[str]:
    if fate.status in ("untaken", "suppressed"):
        yield fate.status
    elif fate.status:
        yield "accepted"
        yield _WHERE.get(fate.status) or ("hard" if fate.hard else "soft")
        if "deferred" in fate.seen:
            yield "delayed"
    if fate.complained:
        yield "complained"
    if fate.unsubscribed:
        yield "unsubscribed"


def moved(before: Iterable[Fate], now: Iterable[Fate]) -> Counter[Place]:
    """What is to be added where, and taken away where, for fates that changed."""
    places = Counter(place for fate in now for place in counted(fate))
    places.subtract(place for fate in before for place in counted(fate))
    return places


class Names:
    """Tells which From domains and campaigns of a day are counted by name. To be made anew when a transaction fails."""

    def __init__(self, *, most: int = MOST) -> None:
        self._most = most
        self._known: dict[tuple[str, int], set[str]] = {}

    def told(self, link: Connection, column: str, when: int, name: str) -> str:
        """Whoever was told by name once is for that day, and whoever was not never is: so a move finds both ends."""
        known = self._of(link, column, when)
        if name not in known:
            if len(known) >= self._most:
                return OTHERS
            known.add(name)
        return name

    def _of(self, link: Connection, column: str, when: int) -> set[str]:
        if (column, when) not in self._known:
            if len(self._known) >= 64:  # days, twice: what is read now is of a week
                self._known.clear()
            found = link.execute(f"SELECT DISTINCT {column} FROM figures WHERE day = ?", (when,))
            self._known[column, when] = {name for (name,) in found} - {OTHERS}
        return self._known[column, when]


def add(link: Connection, places: Mapping[Place, int], names: Names) -> None:
    rows: Counter[tuple[object, ...]] = Counter()
    for place, value in places.items():
        if value:
            from_domain = names.told(link, "from_domain", place.day, place.group.from_domain)
            campaign = names.told(link, "campaign", place.day, place.group.campaign)
            rows[place.day, from_domain, place.group.login, campaign, place.provider, place.what] += value
    link.executemany(_ADD, [(*key, value) for key, value in rows.items() if value])


def read(
    database: Database, *, since: int, until: int, by: str = "", only: Collection[str] = ()
) -> dict[str, Counter[str]]:
    """The figures of the days from `since` to before `until`, by what BY names; else all as one, under no name."""
    column = COLUMNS[by] if by else "''"
    marks = f"AND what IN ({', '.join('?' * len(only))})" if only else ""
    sql = f"""
        SELECT {column}, what, sum(value) FROM figures WHERE day >= ? AND day < ? {marks}
        GROUP BY 1, 2 HAVING sum(value) != 0 ORDER BY 1, 2
    """
    found: dict[str, Counter[str]] = {}
    for name, what, value in database.query(sql, (since, until, *only)):
        found.setdefault(_one(by, str(name)), Counter())[what] += int(value)
    return found


def breakdowns(database: Database, *, since: int, until: int, by: Sequence[str]) -> dict[str, dict[str, Counter[str]]]:
    """As `read`, by each of these, all of one moment: they add up to the same while mail flows."""
    return sorted_out(database.query(breaking_down(by, mark="?"), (since, until) * len(by)))


def breaking_down(by: Sequence[str], *, mark: str) -> str:
    """One SELECT for them; MARK is where a value stands, first and last day for each."""
    return " UNION ALL ".join(
        f"""
        SELECT '{one}', CAST({COLUMNS[one] if one else "''"} AS TEXT), what, sum(value) FROM figures
        WHERE day >= {mark} AND day < {mark} GROUP BY 2, 3 HAVING sum(value) <> 0
        """
        for one in by
    )


def sorted_out(rows: Iterable[Row]) -> dict[str, dict[str, Counter[str]]]:
    """What that SELECT found."""
    found: dict[str, dict[str, Counter[str]]] = {}
    for by, name, what, value in sorted(set(rows)):  # what was asked for twice is there twice
        found.setdefault(by, {}).setdefault(_one(by, name), Counter())[what] += int(value)
    return found


def _one(by: str, name: str) -> str:
    """A login is one in any spelling, as for quotas; it is put down as it was typed."""
    return name.lower() if by == "login" else name
