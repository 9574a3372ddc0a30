"""One person's address taken out of everything that is kept: a keyed hash stands in its place from then on.

Found in any spelling that mail knows (`spellings`). A login or an address somebody sends from stays where it names the
sender. Knows nothing of who asks, nor of the files of others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from sqlite3 import Connection
from typing import Any, TypeAlias

from postmeter.mail.scope import canonical
from postmeter.store import personal, profiles, suppression, veil
from postmeter.store.database import Database, Row
from postmeter.store.personal import Place
from postmeter.store.retention import write
from postmeter.store.spellings import Spellings

_SLICE = 1000  # rows read at once
_PIECE = 100  # rows of one transaction
_SENDERS = ("sender", "mail_from")
_LOGINS = (
    ("orders", "login"), ("blocks", "value"), ("folios", "name"), ("held", "login"), ("held", "sender"),
    ("profile_logins", "login"), ("bounced_lately", "login"), ("fate_groups", "login"), ("figures", "login"),
    ("told", "topic"),
)  # fmt: skip
"""Where a sender's name stands besides its events."""
_json = json.JSONEncoder(separators=(",", ":")).encode


Pseudonym: TypeAlias = Callable[[bytes], Iterable[bytes]]
"""What stands for an address in hits, under each secret."""


class Person:
    """An address, its spellings, and its pseudonyms."""

    def __init__(self, address: str, key: bytes, pseudonym: Pseudonym) -> None:
        self.address = canonical(address)
        self.hash = veil.hashed(address, key)
        self._pseudonym = pseudonym
        self._spellings = Spellings(self.address, address.lower())
        domain = self.address.rpartition("@")[2]
        self._odd = (f'"@{domain}', f")@{domain}")  # the end of a name in quotes, or with a comment
        self._pseudonyms: set[str] = set()
        for spelling in (address, self.address):
            self.learn(spelling)

    def learn(self, spelling: str) -> bool:
        """A spelling that was met: it has pseudonyms of its own. False when they are known."""
        made = {one.hex() for one in self._pseudonym(spelling.encode("utf-8", "backslashreplace"))}
        new = made - self._pseudonyms
        self._pseudonyms |= made
        return bool(new)

    @property
    def longest(self) -> int:
        """Octets of what `in_octets` looks for."""
        return max(self._spellings.longest, *map(len, self._pseudonyms), 0)

    def in_octets(self, octets: bytes) -> bool:
        """Whether a file that holds them names the person; or another, in whose address this one stands."""
        low = octets.lower()
        return self._spellings.may_be_in_octets(low) or any(one.encode() in low for one in self._pseudonyms)

    def may_be_in(self, text: str) -> bool:
        """False where the person certainly is not: quick."""
        low = text.lower()
        return (
            any(mark in low for mark in self._odd)
            or self._spellings.may_be_in(low)
            or any(one in low for one in self._pseudonyms)
        )

    def named_in(self, value: Any) -> bool:
        return bool(self.without(value) != value)

    def without(self, value: Any) -> Any:
        """The same without the person, however deep."""
        if isinstance(value, str):
            return self.hash if self._is(value) else self._spellings.whole.sub(self.hash, value)
        if isinstance(value, list):
            return [self.without(one) for one in value]
        if isinstance(value, dict):
            return {self.without(name): self.without(one) for name, one in value.items()}
        return value

    def spellings(self, value: Any) -> Iterator[str]:
        """As what the person was met, where that is all of a text."""
        if isinstance(value, str) and (self._is(value) or self._spellings.whole.fullmatch(value)):
            yield value
        elif isinstance(value, list):
            for one in value:
                yield from self.spellings(one)

    def _is(self, text: str) -> bool:
        """Whether that is the address, whatever a client has put around it."""
        return "@" in text and canonical(text) == self.address

    def out_of(self, kind: str, source: str, data: str) -> tuple[str, str]:
        """An event's source and data without the person; with what else hits say of the client, where it was theirs."""
        try:
            found: dict[str, Any] = json.loads(data)
            before = dict(found)
        except (ValueError, TypeError):  # nobody can read it any more; but for the address in it
            return self.without(source), "{}"
        for spelling in self.spellings([*found.get("recipients", [])] if kind == "submitted" else []):
            self.learn(spelling)
        if kind in ("clicked", "opened") and found.get("recipient") in self._pseudonyms:
            found |= {name: treat(found[name], b"") for name, treat in personal.AGED[kind].items() if name in found}
            found["recipient"] = ""
        own = {name: found.pop(name) for name in _SENDERS if canonical(str(found.get(name, ""))) == self.address}
        found = self.without(found) | own
        return self.without(source), _json(found) if found != before else data


def events(database: Database, person: Person) -> int:
    """All of them, in slices; returns how many changed."""
    done = after = 0
    sql = "SELECT seq, source, data FROM events WHERE seq > ? ORDER BY seq LIMIT ?"
    while rows := database.query(sql, (after, _SLICE)):
        after = rows[-1][0]
        found = [seq for seq, source, data in rows if person.may_be_in(data) or person.may_be_in(source)]
        for at in range(0, len(found), _PIECE):
            with database.transaction() as link:
                done += sum(_event(link, seq, person) for seq in found[at : at + _PIECE])
    return done


def rows(database: Database, place: Place, person: Person) -> int:
    """Of another table; where the hash is there already, that row stays and the other goes. Returns how many.

    Of suppressions the later end holds: who is not to be written to must not be for having been erased.
    """
    named, found = _found(database, place, person)
    which = " AND ".join(f"{name} = ?" for name in named)
    change = f"UPDATE OR IGNORE {place.table} SET {', '.join(f'{one} = ?' for one in place.columns)} WHERE {which}"
    for at in range(0, len(found), _PIECE):
        with database.transaction() as link:
            for row in found[at : at + _PIECE]:
                keys, values = row[: len(named)], row[len(named) :]
                if link.execute(change, (*map(person.without, values), *keys)).rowcount:
                    continue
                if place.table == "suppressions":
                    suppression.hide(link, [(person.without(keys[0]), keys[0], keys[1], keys[2])])
                else:
                    link.execute(f"DELETE FROM {place.table} WHERE {which}", keys)
    return len(found)


def count(database: Database, place: Place, person: Person) -> int:
    """How many rows name the person."""
    return len(_found(database, place, person)[1])


def others(database: Database, person: Person) -> int:
    """Rows that hold the same letters and do not mean the person: another's address, or what a sender sent."""
    found = int(sends(database, person))
    for place in personal.PLACES:
        columns = ", ".join(place.columns)
        rows = database.query(f"SELECT {columns} FROM {place.table}")
        found += sum(any(isinstance(text, str) and person.may_be_in(text) for text in row) for row in rows)
    for table, column in _LOGINS:
        found += sum(person.may_be_in(name) for (name,) in database.query(f"SELECT DISTINCT {column} FROM {table}"))
    return found


def contacts(database: Database, person: Person) -> int:
    """Who wrote to the person, as the brake remembers it; returns how many rows went."""
    with database.transaction() as link:
        return profiles.forget(link, [person.address])


def sends(database: Database, person: Person) -> bool:
    """Whether it is a login as well."""
    places = (("events", "login"), *_LOGINS)  # an order, or the sum of a day, may be all that is left of it
    one = "SELECT 1 FROM {} WHERE {} = ? LIMIT 1"
    return any(database.query(one.format(table, column), (person.address,)) for table, column in places)


def fold(database: Database) -> bool:
    """Copy the write-ahead log back and empty it; false when somebody reads what stands in it."""
    return bool(database.query("PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 0)


def compact(database: Database) -> None:
    """Write the file anew, without what page splits have left between its rows. Whoever writes has to wait."""
    database.query("VACUUM")


def _found(database: Database, place: Place, person: Person) -> tuple[list[str], list[Row]]:
    """The names of the key's columns; of each row that names the person the key and what `place` names."""
    info = database.query(f"PRAGMA table_info({place.table})")
    named = [row[1] for row in sorted(info, key=lambda row: row[5]) if row[5]] or ["rowid"]
    columns = ", ".join([*named, *place.columns])
    found = database.query(f"SELECT {columns} FROM {place.table}")
    return named, [row for row in found if any(_in(person, text) for text in row[len(named) :])]


def _in(person: Person, text: Any) -> bool:
    return isinstance(text, str) and person.may_be_in(text) and person.named_in(text)


def _event(link: Connection, seq: int, person: Person) -> int:
    row = link.execute("SELECT kind, source, data FROM events WHERE seq = ?", (seq,)).fetchone()
    if row is None:
        return 0
    kind, *before = row
    source, data = person.out_of(kind, before[0], before[1])
    if [source, data] == before:
        return 0
    write(link, seq, source, data)
    return 1
