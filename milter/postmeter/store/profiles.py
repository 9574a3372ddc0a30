"""What is usual for a login: recipients by the hour, client networks, whom it has written to, learned from the journal.

Knows nothing of what is unusual. Recipients are kept as eight bytes of a hash under a key of this database: enough to
know one again, of no use beside another database. Times are seconds since the epoch, hours count from there.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from sqlite3 import Connection

from postmeter.store.database import Database
from postmeter.store.lessons import share

HOUR = 3600
POSITION = "baselines"
"""The position in the journal up to which has been learned."""

_AMONG = 2000  # newest events of all, some milliseconds

SLICES = 256
"""In so many parts `sweep` forgets; each is a short transaction."""

_SINCE = "UPDATE profile_house SET since = ?1 WHERE since = 0 OR since > ?1"
_SINCE_NETWORK = "UPDATE profile_house SET networks = ?1 WHERE networks = 0 OR networks > ?1"
_LOGIN = """
    INSERT INTO profile_logins (login, first, last) VALUES (?1, ?2, ?2)
    ON CONFLICT (login) DO UPDATE SET first = min(first, excluded.first), last = max(last, excluded.last) RETURNING id
"""
_NETWORK = """
    INSERT INTO profile_networks VALUES (?1, ?2, ?3, ?3)
    ON CONFLICT DO UPDATE SET first = min(first, excluded.first), last = max(last, excluded.last)
"""
_CONTACT = "INSERT OR IGNORE INTO profile_contacts VALUES (?1, ?2, ?3, ?3)"
_AGAIN = "UPDATE profile_contacts SET last = ?3 WHERE recipient = ?1 AND login = ?2 AND last < ?3"
_HOUR = """
    INSERT INTO profile_hours VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    recipients = recipients + excluded.recipients, strangers = strangers + excluded.strangers
"""
_SAVE = "INSERT INTO positions VALUES (?, ?) ON CONFLICT DO UPDATE SET position = excluded.position"


@dataclass(frozen=True, slots=True)
class Sighting:
    """A message that a login sent: from which client network (empty when unknown), and to whom."""

    login: str
    time: float
    network: str
    recipients: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class House:
    """All logins together: when the first of them was seen, when the first network was, and when all that the journal
    held had last been learned. 0 as long as that never was.
    """

    since: float = 0.0
    networks: float = 0.0
    learned: float = 0.0


@dataclass(frozen=True, slots=True)
class Past:
    """A login's hours with mail: recipients in each, and how many of those it wrote to for the first time.

    `first` is when the login was first seen, 0 when it never was.
    """

    first: float
    hours: dict[int, int]
    strangers: dict[int, int]


class Profiles:
    """For those who ask. Every method may raise `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._key = b""

    def house(self) -> House:
        found = self._database.query("SELECT since, networks, learned FROM profile_house")
        return House(*found[0]) if found else House()

    def past(self, login: str, *, since: float) -> Past:
        """The hours of a login from that time on; hours without mail are left out."""
        sql = """
            SELECT first, hour, recipients, strangers FROM profile_logins
            LEFT JOIN profile_hours ON profile_hours.login = id AND hour >= ? WHERE profile_logins.login = ?
        """
        rows = self._database.query(sql, (int(since // HOUR), _storable(login)))
        hours = [row[1:] for row in rows if row[1] is not None]
        return Past(
            rows[0][0] if rows else 0.0,
            {hour: recipients for hour, recipients, _ in hours},
            {hour: strangers for hour, _, strangers in hours},
        )

    def users(self, network: str, *, login: str, since: float, before: float) -> tuple[bool, int]:
        """Whether that login used that network, and how many logins did; first seen `before`, and again `since`."""
        sql = """
            SELECT coalesce(sum(profile_logins.login = ?), 0), count(*) FROM profile_networks
            JOIN profile_logins ON profile_logins.id = profile_networks.login
            WHERE network = ? AND profile_networks.first < ? AND profile_networks.last >= ?
        """
        ((own, all_of_them),) = self._database.query(sql, (_storable(login), network, before, since))
        return bool(own), int(all_of_them)

    def known(self, recipients: Collection[str], *, login: str, before: float) -> tuple[int, int]:
        """How many of them that login, and how many anybody here, had written to `before`."""
        hashes = json.dumps([self._hash(recipient) for recipient in set(recipients)])
        sql = """
            SELECT count(DISTINCT recipient) FILTER (WHERE profile_logins.login = ?), count(DISTINCT recipient)
            FROM json_each(?) AS asked CROSS JOIN profile_contacts ON recipient = asked.value
            JOIN profile_logins ON profile_logins.id = profile_contacts.login WHERE profile_contacts.first < ?
        """
        ((own, all_of_them),) = self._database.query(sql, (_storable(login), hashes, before))
        return int(own), int(all_of_them)

    def bounced(self, login: str) -> float:
        """The share of hard bounces among its last recipients; 0 while too little is known."""
        found = self._database.query("SELECT fates FROM bounced_lately WHERE login = ?", (_storable(login),))
        return share(found[0][0]) if found else 0.0

    def lately(self, sender: str, *, login: str, since: float, most: int) -> set[str]:
        """Whom a sender wrote to since then, as the journal has it: those of its newest messages, `most` at most.

        `login` as it was spelled. Spelled otherwise, or named by a certificate, it is in no index: it is sought among
        the newest messages of all, or else whoever spells it anew each time would look like somebody who just began.
        """
        sent = "iif(data ->> '$.facts.discarded' IS NULL, data ->> '$.recipients', NULL)"  # a test went to nobody
        by_login = "login = ? AND login != '' AND time >= ? AND kind = 'submitted' ORDER BY time DESC LIMIT ?"
        rows = self._database.query(f"SELECT {sent} FROM events WHERE {by_login}", (_storable(login), since, most))
        newest = "seq >= (SELECT min(seq) FROM (SELECT seq FROM events ORDER BY seq DESC LIMIT ?))"
        others = f"{newest} AND time >= ? AND login != ? AND kind = 'submitted'"
        rows += self._database.query(
            f"SELECT {sent} FROM events WHERE {others} AND data ->> '$.sender' = ? ORDER BY seq DESC LIMIT ?",
            (_AMONG, since, _storable(login), _storable(sender), most),
        )
        return {recipient for (listed,) in rows if listed for recipient in json.loads(listed)}

    def _hash(self, recipient: str) -> int:
        if not self._key:
            ((self._key,),) = self._database.query("SELECT key FROM profile_house")
        return _hashed(recipient, self._key)


def learn(database: Database, sightings: Iterable[Sighting], *, position: int, caught_up: float | None = None) -> None:
    """Add what was seen, and save the position, in one transaction. `caught_up` is now, when nothing more waits."""
    with database.transaction() as link:
        ((key,),) = link.execute("SELECT key FROM profile_house").fetchall()
        for sighting in sightings:
            _learn(link, sighting, key)
        if caught_up is not None:
            link.execute("UPDATE profile_house SET learned = ?", (caught_up,))
        link.execute(_SAVE, (POSITION, str(position)))


def sweep(database: Database, part: int, *, hours_before: float, contacts_before: float) -> None:
    """Forget what is older, in one of SLICES parts: hours and networks, and in their own time contacts and logins."""
    least = (part << 56) - (1 << 63)
    mine = f"IN (SELECT id FROM profile_logins WHERE id % {SLICES} = ?)"
    with database.transaction() as link:
        link.execute(f"DELETE FROM profile_hours WHERE login {mine} AND hour < ?", (part, int(hours_before // HOUR)))
        link.execute("DELETE FROM profile_networks WHERE login % ? = ? AND last < ?", (SLICES, part, hours_before))
        between = "recipient >= ? AND recipient <= ?"
        sql = f"DELETE FROM profile_contacts WHERE {between} AND last < ?"
        link.execute(sql, (least, least + (1 << 56) - 1, contacts_before))
        gone = f"DELETE FROM profile_logins WHERE id % {SLICES} = ? AND last < ?"
        link.execute(gone, (part, contacts_before))


def forget(link: Connection, recipients: Iterable[str]) -> int:
    """As if nobody had written to them; returns how many rows went."""
    ((key,),) = link.execute("SELECT key FROM profile_house").fetchall()
    hashes = [(_hashed(recipient, key),) for recipient in recipients]
    return link.executemany("DELETE FROM profile_contacts WHERE recipient = ?", hashes).rowcount


def _learn(link: Connection, sighting: Sighting, key: bytes) -> None:
    time = sighting.time
    link.execute(_SINCE, (time,))
    ((login,),) = link.execute(_LOGIN, (_storable(sighting.login), time)).fetchall()
    if sighting.network:
        link.execute(_SINCE_NETWORK, (time,))
        link.execute(_NETWORK, (sighting.network, login, time))
    strangers = 0
    for recipient in set(sighting.recipients):
        values = (_hashed(recipient, key), login, time)
        if link.execute(_CONTACT, values).rowcount:
            strangers += 1
        else:
            link.execute(_AGAIN, values)
    link.execute(_HOUR, (login, int(time // HOUR), len(sighting.recipients), strangers))


def _hashed(recipient: str, key: bytes) -> int:
    """An address in lower case: its owner is one person, however it is spelled."""
    digest = blake2b(recipient.lower().encode("utf-8", "backslashreplace"), digest_size=8, key=key)
    return int.from_bytes(digest.digest(), "big", signed=True)


def _storable(text: str) -> str:
    """SQLite takes no half of a surrogate pair."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
