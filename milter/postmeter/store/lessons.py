"""What fates teach: who is suppressed, which provider is not to be believed, how much of a login's mail bounces.

Bounces of an address in a scope are counted over `suppression.within`, in whatever order they are read: it is
suppressed from the last moment at which there were `suppression.hard` of them. Nothing that arrives later lifts that: a
server that takes mail today may return it tomorrow, and a smarthost takes everything (docs/decisions.md). A provider
where more than `provider_limit` of an hour's recipients bounce hard is at fault itself, or our list is; from then on
its bounces are not counted until an hour has passed since it last was so. Knows nothing of mail that is on its way.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from sqlite3 import Connection

from postmeter.config.schema import Suppression as Settings
from postmeter.events import Mistrusted
from postmeter.store import rows, suppression, totals, veil
from postmeter.store.accounts import storable
from postmeter.store.fates import Transition
from postmeter.store.suppression import BOUNCED, COMPLAINED, EVERYWHERE, Suppression

log = logging.getLogger(__name__)

LEAST = 20
"""Hard bounces within the hour below which a share says nothing of a provider."""

LAST = 100
"""Recipients of a login by which the brake tells how much of its mail bounces."""

_HOUR = 3600.0
_SLOT = 300.0  # seconds that a provider's recipients are counted together for
_SLOTS = int(_HOUR // _SLOT)
_DECIDED = frozenset({"sent", "bounced", "expired"})
_MANY = frozenset({"", "other"})  # no provider, but all the others: what one of them does says nothing of the rest

_COUNT = """
    INSERT INTO provider_bounces VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    recipients = recipients + excluded.recipients, hard = hard + excluded.hard
"""
_LATELY = """
    INSERT INTO bounced_lately VALUES (?, ?, ?)
    ON CONFLICT DO UPDATE SET fates = excluded.fates, last = max(last, excluded.last)
"""


@dataclass(frozen=True, slots=True)
class Rules:
    """`host` is our name in events."""

    settings: Settings
    host: str


def learn(link: Connection, transitions: Sequence[Transition], rules: Rules) -> None:
    """Take in what changed, in the transaction that changed it."""
    decided = [one for one in transitions if one.now in _DECIDED and one.was != one.now]
    _count_providers(link, decided)
    _count_logins(link, decided)
    for one in sorted(decided, key=lambda one: one.time):
        if one.now == "bounced" and one.hard and not _mistrusted(link, one, rules):
            _bounced(link, one, rules.settings)
    complaints = [one for one in transitions if one.complained]
    suppression.lengthen(link, _complained(link, complaints, rules.settings))


def share(fates: str) -> float:
    """The hard bounces among a login's last recipients; 0 while there are too few to say."""
    return fates.count("1") / len(fates) if len(fates) >= LEAST else 0.0


def _scope(one: Transition, settings: Settings) -> str:
    """Empty where mail has no From domain that could be named."""
    if settings.scope == EVERYWHERE:
        return EVERYWHERE
    return storable(f"domain:{one.from_domain}") if one.from_domain else ""


def _bounced(link: Connection, one: Transition, settings: Settings) -> None:
    scope = _scope(one, settings)
    if not scope or not one.recipient:
        return
    said = suppression.line(one.evidence or one.dsn)
    address = storable(one.recipient)
    counted = (address, scope, one.reference, one.time, storable(one.provider), storable(said))
    link.execute("INSERT OR REPLACE INTO hard_bounces VALUES (?, ?, ?, ?, ?, ?)", counted)
    names = veil.known_as(link, address)
    sql = "SELECT time, provider, evidence FROM hard_bounces WHERE address IN (?, ?) AND scope = ? ORDER BY time"
    known = link.execute(sql, (*names, scope)).fetchall()
    found = reached([when for when, _, _ in known], hard=settings.hard, within=settings.within)
    if found is None:
        return
    at, count = found
    when, provider, evidence = known[at]
    until = when + settings.for_
    made = Suppression(address, scope, BOUNCED, when, until, evidence, count, provider)
    suppression.lengthen(link, [made])


def reached(times: Sequence[float], *, hard: int, within: float) -> tuple[int, int] | None:
    """Of moments in their order the last one up to which there were so many within that time, and how many."""
    first = len(times) - 1
    for last in range(len(times) - 1, hard - 2, -1):
        first = min(first, last)
        while first > 0 and times[last] - times[first - 1] <= within:
            first -= 1
        if last - first + 1 >= hard:
            return last, last - first + 1
    return None


def _complained(link: Connection, complaints: Iterable[Transition], settings: Settings) -> Iterator[Suppression]:
    sql = "SELECT count FROM suppressions WHERE address = ? AND scope = ? AND reason = ?"
    for one in complaints:
        scope = _scope(one, settings)
        if not settings.complaint or not scope or not one.recipient:
            continue
        row = link.execute(sql, (storable(one.recipient), scope, COMPLAINED)).fetchone()
        yield Suppression(
            address=one.recipient,
            scope=scope,
            reason=COMPLAINED,
            since=one.time,
            until=one.time + settings.complaint,
            evidence=f"reported by {one.evidence}" if one.evidence else "reported as spam",
            count=1 + (row[0] if row else 0),
            provider=one.provider,
        )


def _count_providers(link: Connection, decided: Iterable[Transition]) -> None:
    """Each recipient once: what was sent and bounced after all is one more hard bounce, and no recipient more."""
    recipients: Counter[tuple[str, int]] = Counter()
    hard: Counter[tuple[str, int]] = Counter()
    for one in decided:
        if one.provider not in _MANY:
            key = storable(one.provider), int(one.time // _SLOT)
            recipients[key] += one.was not in _DECIDED
            hard[key] += one.hard and one.now == "bounced"
    link.executemany(_COUNT, [(*key, count, hard[key]) for key, count in recipients.items()])
    for provider in {provider for provider, _ in recipients}:
        newest = max(slot for each, slot in recipients if each == provider)
        link.execute("DELETE FROM provider_bounces WHERE provider = ? AND slot < ?", (provider, newest - 2 * _SLOTS))


def _mistrusted(link: Connection, one: Transition, rules: Rules) -> bool:
    """Whether this bounce says more about its provider than about the address."""
    if one.provider in _MANY:
        return False
    slot, provider = int(one.time // _SLOT), storable(one.provider)
    sql = "SELECT sum(recipients), sum(hard) FROM provider_bounces WHERE provider = ? AND slot > ? AND slot <= ?"
    ((recipients, hard),) = link.execute(sql, (provider, slot - _SLOTS, slot)).fetchall()
    sql = "SELECT since, until FROM mistrusted WHERE provider = ? AND since <= ? AND until > ?"
    standing = link.execute(sql, (provider, one.time, one.time)).fetchone()
    if (hard or 0) < LEAST or hard <= rules.settings.provider_limit * max(recipients, hard):
        return standing is not None
    since = standing[0] if standing else one.time
    link.execute("INSERT OR REPLACE INTO mistrusted VALUES (?, ?, ?)", (provider, since, one.time + _HOUR))
    if standing is None:
        _tell(link, one, recipients=max(recipients, hard), hard=hard, host=rules.host)
    return True


def _tell(link: Connection, one: Transition, *, recipients: int, hard: int, host: str) -> None:
    """A fact for those who are told by mail or webhook, a figure, and a line in the log."""
    provider = storable(one.provider)
    sql = "SELECT count(*) FROM suppressions WHERE provider = ? AND reason = ? AND since >= ?"
    ((suppressed,),) = link.execute(sql, (provider, BOUNCED, one.time - _HOUR)).fetchall()
    event = Mistrusted(
        source=f"mistrusted:{provider}:{one.time:.6f}",
        time=one.time,
        provider=provider,
        recipients=recipients,
        hard=hard,
        suppressed=suppressed,
        until=one.time + _HOUR,
    )
    row = rows.encode(event, host)
    if not rows.known(link, {rows.source(row)}):
        rows.insert(link, [row])
    totals.add(link, {("provider_mistrusted_total", (provider,)): 1})
    text = "%s: %d of %d recipients within an hour were hard bounces: they suppress nobody for now"
    log.warning(text, provider, hard, recipients)


def _count_logins(link: Connection, decided: Iterable[Transition]) -> None:
    """The newest last; what was sent and came back after all was counted as sent."""
    known: dict[str, tuple[str, float]] = {}
    for one in decided:
        login = storable(one.login.lower())
        if not login:
            continue
        if login not in known:
            row = link.execute("SELECT fates, last FROM bounced_lately WHERE login = ?", (login,)).fetchone()
            known[login] = row or ("", one.time)
        fates, last = known[login]
        known[login] = _lately(fates, one), max(last, one.time)
    link.executemany(_LATELY, [(login, fates, last) for login, (fates, last) in known.items()])


def _lately(fates: str, one: Transition) -> str:
    hard = one.now == "bounced" and one.hard
    if one.was in _DECIDED:
        before, sent, after = fates.rpartition("0") if hard else (fates, "", "")
        return f"{before}1{after}" if sent else fates
    return (fates + ("1" if hard else "0"))[-LAST:]
