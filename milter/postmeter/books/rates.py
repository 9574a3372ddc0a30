"""Bounce and complaint rates by From domain, and the busiest logins, as gauges: a week by days, from the figures.

Amazon SES puts an account under review at 5% bounces or 0.1% complaints and may stop it at 10% and 0.5%
(docs.aws.amazon.com/ses/latest/dg/reputationdashboardmessages.html); it counts hard bounces only, and so do we. Knows
nothing of who is alerted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from time import time

from postmeter.books.families import OTHER, Gauges
from postmeter.mail.draft import Figure
from postmeter.store import figures
from postmeter.store.database import Database

DAYS = 7

_AGAIN = 60.0  # seconds for which what was read is good
_STATUSES = {
    "accepted": "accepted", "delivered": "sent", "deferred": "deferred", "hard": "bounced_hard",
    "soft": "bounced_soft", "expired": "expired", "unknown": "unknown", "complained": "complained",
}  # fmt: skip


class Rates:
    """`domains` are told by name, all others as one; so are the `logins` busiest logins."""

    def __init__(self, *, domains: Collection[str], logins: int, clock: Callable[[], float] = time) -> None:
        self._domains, self._logins, self._clock = frozenset(domains), logins, clock
        self._read: dict[Figure, float] = {}
        self._until = 0.0

    def __call__(self, database: Database) -> Gauges:
        now = self._clock()
        if not 0 <= self._until - now <= _AGAIN:
            self._read = dict(self._look(database, figures.day(now) + 1))
            self._until = now + _AGAIN
        return self._read

    def _look(self, database: Database, until: int) -> Iterator[tuple[Figure, float]]:
        told: dict[str, Counter[str]] = {}
        only = (*figures.DECIDED, "complained")
        for domain, counts in figures.read(database, since=until - DAYS, until=until, by="domain", only=only).items():
            told.setdefault(domain if domain in self._domains else OTHER, Counter()).update(counts)
        for domain, counts in told.items():
            decided = sum(counts[what] for what in figures.DECIDED)
            yield ("rated_recipients", (domain,)), float(decided)
            yield ("bounce_rate", (domain,)), counts["hard"] / decided if decided else 0.0
            yield (
                ("complaint_rate", (domain,)),
                counts["complained"] / counts["delivered"] if counts["delivered"] else 0.0,
            )
        if self._logins:
            yield from self._busiest(database, until)

    def _busiest(self, database: Database, until: int) -> Iterator[tuple[Figure, float]]:
        found = figures.read(database, since=until - DAYS, until=until, by="login", only=tuple(_STATUSES))
        found.pop("", None)
        for login in sorted(found, key=lambda login: (-found[login]["accepted"], login))[: self._logins]:
            for what, status in _STATUSES.items():
                yield ("login_recipients", (login, status)), float(found[login][what])
