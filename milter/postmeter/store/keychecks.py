"""What DNS last said about each DKIM key, and since when it has shown those that are to sign next.

Knows nothing of DNS or of records. A change and the event that tells of it are written in one transaction: nobody is
told twice, or not at all, because somebody was killed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from sqlite3 import Connection

from postmeter.events import Event
from postmeter.store import rows
from postmeter.store.database import Database, Row

_SAVE = """
    INSERT INTO key_checks VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    ok = excluded.ok, what = excluded.what, since = excluded.since, checked = excluded.checked,
    looked = excluded.looked, signs = excluded.signs
"""
_COLUMNS = "domain, selector, ok, what, since, checked, looked, signs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """`ok` as it last was known, `what` about it; `since` then, `checked` when DNS last told, `looked` when asked."""

    domain: str
    selector: str
    ok: bool | None
    what: str
    since: float
    checked: float
    looked: float
    signs: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Everybody has shown that very record from `since` to `last`."""

    domain: str
    selector: str
    record: str
    since: float
    last: float


def save(database: Database, checks: Iterable[Check], *, events: Iterable[Event] = (), host: str) -> None:
    encoded = [rows.encode(event, host) for event in events]
    with database.transaction() as link:
        link.executemany(_SAVE, [_row(check) for check in checks])
        _record(link, encoded)


def record(database: Database, events: Iterable[Event], *, host: str) -> None:
    """Events of a rotation; those that the journal has already change nothing."""
    save(database, (), events=events, host=host)


def of_domains(database: Database, domains: Sequence[str]) -> dict[tuple[str, str], Check]:
    marks = ", ".join("?" * len(domains))
    found = database.query(f"SELECT {_COLUMNS} FROM key_checks WHERE domain IN ({marks})", domains)
    return {(row[0], row[1]): _check(row) for row in found}


def forget(database: Database, keys: Iterable[tuple[str, str]]) -> None:
    """Keys, by domain and selector, that are not there any more."""
    gone = list(keys)
    if gone:
        with database.transaction() as link:
            link.executemany("DELETE FROM key_checks WHERE domain = ? AND selector = ?", gone)


def forget_others(database: Database, domains: Iterable[str]) -> None:
    """Domains that are not configured any more."""
    gone = {domain for (domain,) in database.query("SELECT DISTINCT domain FROM key_checks")} - set(domains)
    if gone:
        with database.transaction() as link:
            link.executemany("DELETE FROM key_checks WHERE domain = ?", [(domain,) for domain in gone])


def signing(database: Database, domains: Sequence[str]) -> dict[tuple[str, str], bool]:
    """Whether DNS shows the keys that these domains sign with, as far as anybody could tell."""
    checks = of_domains(database, domains)
    return {key: check.ok for key, check in checks.items() if check.signs and check.ok is not None}


def others(database: Database, domains: Sequence[str]) -> bool | None:
    """Whether DNS shows the keys of all other domains; None where there are none."""
    other = f"domain NOT IN ({', '.join('?' * len(domains))}) LIMIT 1"
    if database.query(f"SELECT 1 FROM key_checks WHERE ok = 0 AND signs AND {other}", domains):
        return False
    return True if database.query(f"SELECT 1 FROM key_checks WHERE ok = 1 AND signs AND {other}", domains) else None


def oldest(database: Database) -> float | None:
    """When DNS last told of the key of which it has told nothing for longest; None without keys."""
    [(found,)] = database.query("SELECT min(checked) FROM key_checks WHERE signs")
    return None if found is None else float(found)


def seen(database: Database, domain: str, selector: str) -> Seen | None:
    sql = "SELECT domain, selector, record, since, last FROM key_sightings WHERE domain = ? AND selector = ?"
    found = database.query(sql, (domain, selector))
    if not found:
        return None
    domain, selector, record, since, last = found[0]
    return Seen(domain=domain, selector=selector, record=record, since=since, last=last)


def sight(database: Database, sighting: Seen) -> None:
    with database.transaction() as link:
        values = (sighting.domain, sighting.selector, sighting.record, sighting.since, sighting.last)
        link.execute("INSERT OR REPLACE INTO key_sightings VALUES (?, ?, ?, ?, ?)", values)


def unsee(database: Database, domain: str, selector: str) -> None:
    if seen(database, domain, selector) is not None:
        with database.transaction() as link:
            link.execute("DELETE FROM key_sightings WHERE domain = ? AND selector = ?", (domain, selector))


def _record(link: Connection, encoded: Sequence[Row]) -> None:
    known = rows.known(link, {rows.source(row) for row in encoded})
    rows.insert(link, [row for row in encoded if rows.source(row) not in known])


def _row(check: Check) -> tuple[object, ...]:
    ok = None if check.ok is None else int(check.ok)
    names = (check.domain, check.selector, ok, check.what)
    return (*names, check.since, check.checked, check.looked, int(check.signs))


def _check(row: Row) -> Check:
    domain, selector, ok, what, since, checked, looked, signs = row
    return Check(
        domain=domain,
        selector=selector,
        ok=None if ok is None else bool(ok),
        what=what,
        since=since,
        checked=checked,
        looked=looked,
        signs=bool(signs),
    )
