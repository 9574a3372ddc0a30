"""What of the journal's database is not shipped yet: up to where events went, and which rows changed behind that.

While a database of all hosts is named, triggers put down every shipped row that is changed or deleted later: refusals
that count up, addresses that become hashes, what is erased or too old. Whoever changes them need not know. `claimed` is
saved before anything is sent: a database that has more from us than that got it from another copy of this journal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from sqlite3 import Connection

from postmeter.store.database import Database, Row
from postmeter.store.rows import SELECT

EVENTS = "events"

FIGURES = "figures"
SUPPRESSIONS = "suppressions"

_KEYS: Mapping[str, tuple[str, ...]] = {
    EVENTS: ("seq",),
    FIGURES: ("day", "from_domain", "login", "campaign", "provider", "what"),
    SUPPRESSIONS: ("address", "scope", "reason"),
}
"""What a row is known by."""

_NOW = "(julianday('now') - 2440587.5) * 86400.0"  # seconds since 1970, with their fractions
_MANY = 20_000  # events, counted in some 10 ms
_JUMP = 10**12  # numbers, which only a copy that was put back leaves out (database)
_LIFTING = (SUPPRESSIONS, "DELETE")
_LIFTED = "WHEN old.until IS NULL OR old.until > unixepoch('now')"  # one that ended by itself was not lifted


@dataclass(frozen=True, slots=True)
class State:
    """`instance` names this journal among all; `prior` is what it was called before it was put back from a backup, and
    `began` the last event that it has in common with what was shipped under that name."""

    instance: str
    prior: str
    began: int
    claimed: int
    shipped: int
    whole: bool
    """Everything is to be shipped again: for a while nobody put down what changed."""


@dataclass(frozen=True, slots=True)
class Change:
    """`key` is an event's number, or the values that name a row."""

    id: int
    key: tuple[object, ...]
    time: float = 0.0
    """When it was put down."""

    @property
    def seq(self) -> int:
        """Of an event."""
        return int(str(self.key[0]))


def begin(database: Database, instance: str) -> State:
    """From now on changes are put down. `instance` is for a journal that has no name yet."""
    state = read(database)
    if state is None or not _watched(database):
        with database.transaction() as link:
            if state is None:
                link.execute("INSERT INTO shipping VALUES (?, '', 0, 0, 0, 1)", (instance,))
            link.execute("UPDATE shipping SET whole = 1")
            for statement in _triggers().values():
                link.execute(statement)
        return begin(database, instance)
    return state


def end(database: Database) -> bool:
    """Nothing is shipped any more: nobody has to put down anything. False when it was so already."""
    if not database.query("SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'unshipped_%' LIMIT 1"):
        return False
    with database.transaction() as link:
        for name in _triggers():
            link.execute(f"DROP TRIGGER IF EXISTS {name}")
        link.execute("DELETE FROM unshipped")
    return True


def read(database: Database) -> State | None:
    found = database.query("SELECT instance, prior, began, claimed, shipped, whole FROM shipping")
    if not found:
        return None
    instance, prior, began, claimed, shipped, whole = found[0]
    return State(instance, prior, began, claimed, shipped, bool(whole))


def claim(database: Database, upto: int) -> None:
    with database.transaction() as link:
        link.execute("UPDATE shipping SET claimed = max(claimed, ?)", (upto,))


def acknowledge(database: Database, upto: int, changes: Iterable[Change] = ()) -> None:
    """That is in the database of all hosts for good. What changed once more meanwhile has a number of its own."""
    with database.transaction() as link:
        link.execute("UPDATE shipping SET shipped = ?, claimed = max(claimed, ?)", (upto, upto))
        link.executemany("DELETE FROM unshipped WHERE id = ?", [(change.id,) for change in changes])


def rename(database: Database, instance: str, *, began: int) -> None:
    """This journal was put back to an earlier state: from `began` on it is another, and has to be shipped as such."""
    sql = "UPDATE shipping SET prior = instance, instance = ?, began = ?, claimed = ?, shipped = ?, whole = 1"
    with database.transaction() as link:
        link.execute(sql, (instance, began, began, began))


def begin_anew(database: Database) -> None:
    """The other side begins at nothing: so do we, and every figure is to be shipped once."""
    with database.transaction() as link:
        link.execute("UPDATE shipping SET shipped = 0, whole = 0")
        link.execute("DELETE FROM unshipped")
        for what in (FIGURES, SUPPRESSIONS):
            key = f"json_array({', '.join(_KEYS[what])})"
            link.execute(f"INSERT INTO unshipped (what, key, time) SELECT '{what}', {key}, {_NOW} FROM {what}")


def pending(link: Connection, keys: Iterable[Row]) -> set[Row]:
    """Those of these suppressions that are still to be told."""
    sql = "SELECT 1 FROM unshipped WHERE what = ? AND key = json_array(?, ?, ?)"
    return {key for key in keys if link.execute(sql, (SUPPRESSIONS, *key)).fetchone()}


def heard(link: Connection, keys: Iterable[Row]) -> None:
    """These suppressions changed by what others told: they need not be told."""
    sql = "DELETE FROM unshipped WHERE what = ? AND key = json_array(?, ?, ?)"
    link.executemany(sql, [(SUPPRESSIONS, *key) for key in keys])


def changes(database: Database, what: str, limit: int) -> list[Change]:
    """The oldest first."""
    found = database.query("SELECT id, key, time FROM unshipped WHERE what = ? ORDER BY id LIMIT ?", (what, limit))
    return [Change(number, tuple(json.loads(key)), time) for number, key, time in found]


def lag(database: Database) -> int:
    """Events that are not shipped yet, or not as they are now.

    Counted, for not every number is an event's: so many and more are told by their numbers, unless those jump.
    """
    state = read(database)
    since = state.shipped if state else 0
    [(waiting,)] = database.query("SELECT count(*) FROM (SELECT 1 FROM events WHERE seq > ? LIMIT ?)", (since, _MANY))
    sql = "SELECT (SELECT coalesce(max(seq), 0) FROM events), (SELECT count(*) FROM unshipped WHERE what = ?)"
    [(last, changed)] = database.query(sql, (EVENTS,))
    told = last - since if waiting == _MANY and last - since < _JUMP else waiting
    return int(told) + int(changed)


def reach(database: Database, *, after: int, most: int) -> int:
    """The number of the last of so many events behind `after`, or of all that there are."""
    sql = "SELECT max(seq) FROM (SELECT seq FROM events WHERE seq > ? ORDER BY seq LIMIT ?)"
    [(last,)] = database.query(sql, (after, most))
    return after if last is None else int(last)


def batch(database: Database, *, after: int, upto: int, octets: int) -> tuple[int, list[Row]]:
    """Events behind `after`, as they are now, and where the batch ends: sooner than `upto` where they are large."""
    sql = "SELECT seq, length(data) FROM events WHERE seq > ? AND seq <= ? ORDER BY seq"
    sizes = database.query(sql, (after, upto))
    total = 0
    for number, (_, size) in enumerate(sizes):
        total += size
        if number and total > octets:
            upto = sizes[number - 1][0]
            break
    return upto, database.query(SELECT + "WHERE seq > ? AND seq <= ? ORDER BY seq", (after, upto))


def figures(database: Database, keys: Iterable[tuple[object, ...]]) -> list[Row]:
    """The rows of these keys that are still there, as they are now."""
    columns = _KEYS[FIGURES]
    sql = f"SELECT {', '.join(columns)}, value FROM figures WHERE " + " AND ".join(f"{name} = ?" for name in columns)
    return [row for key in keys for row in database.query(sql, key)]


def events(database: Database, seqs: Sequence[int]) -> list[Row]:
    """Those of them that are still there, as they are now."""
    marks = ", ".join("?" * len(seqs))
    return database.query(f"{SELECT}WHERE seq IN ({marks}) ORDER BY seq", seqs)


def sources(database: Database, seqs: Sequence[int]) -> dict[int, str]:
    """What tells those of them that are there from each other, by their numbers."""
    marks = ", ".join("?" * len(seqs))
    return dict(database.query(f"SELECT seq, source FROM events WHERE seq IN ({marks})", seqs))


def _watched(database: Database) -> bool:
    there = database.query("SELECT name FROM sqlite_master WHERE type = 'trigger'")
    return set(_triggers()) <= {name for (name,) in there}


def _triggers() -> dict[str, str]:
    """Names and statements. A row that changes again is put down anew: what was read of it before is not the last.

    Nothing is lifted before it began, though the clock of whoever learned it is ahead of ours.
    """
    made = {}
    for what, columns in _KEYS.items():
        for on in ("UPDATE", "DELETE") if what == EVENTS else ("INSERT", "UPDATE", "DELETE"):
            name, row = f"unshipped_{what}_{on.lower()}", "old" if on == "DELETE" else "new"
            key = "json_array(" + ", ".join(f"{row}.{column}" for column in columns) + ")"
            when, time = (_LIFTED, f"max({_NOW}, old.since)") if (what, on) == _LIFTING else ("", _NOW)
            made[name] = f"""
                CREATE TRIGGER IF NOT EXISTS {name} AFTER {on} ON {what} {when} BEGIN
                    DELETE FROM unshipped WHERE what = '{what}' AND key = {key};
                    INSERT INTO unshipped (what, key, time) VALUES ('{what}', {key}, {time});
                END
            """
    return made | _renaming()


def _renaming() -> dict[str, str]:
    """An address that becomes a hash is to be forgotten under its old name as well."""
    name, key = f"unshipped_{SUPPRESSIONS}_renamed", "json_array(old.address, old.scope, old.reason)"
    return {
        name: f"""
            CREATE TRIGGER IF NOT EXISTS {name} AFTER UPDATE ON {SUPPRESSIONS} WHEN old.address <> new.address BEGIN
                DELETE FROM unshipped WHERE what = '{SUPPRESSIONS}' AND key = {key};
                INSERT INTO unshipped (what, key, time) VALUES ('{SUPPRESSIONS}', {key}, {_NOW});
            END
        """
    }
