"""What may no longer be followed: messages, logins and hosts whose links are blocked, kept in the journal's database.

Knows nothing of links, tokens or the tracking server; `messages` says what a block of a login comes to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from postmeter.store.database import Database

Kind: TypeAlias = Literal["message", "login", "host"]


@dataclass(frozen=True, slots=True)
class Block:
    """`value` is a reference of 16 hexadecimal digits, a login, or a host name; `since` seconds since the epoch."""

    kind: Kind
    value: str
    since: float


class Blocks:
    """Every method may raise `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, kind: Kind, value: str, *, now: float) -> bool:
        """False when it was blocked already."""
        with self._database.transaction() as link:
            done = link.execute("INSERT OR IGNORE INTO blocks VALUES (?, ?, ?)", (kind, value, now))
            return done.rowcount > 0

    def remove(self, kind: Kind, value: str) -> bool:
        """False when it was not blocked."""
        with self._database.transaction() as link:
            return link.execute("DELETE FROM blocks WHERE kind = ? AND value = ?", (kind, value)).rowcount > 0

    def all(self) -> list[Block]:
        """Oldest first."""
        return [Block(*row) for row in self._database.query("SELECT * FROM blocks ORDER BY since, kind, value")]

    def last_event(self) -> int:
        """The number of the newest event: what came later is what `messages` is asked for next."""
        ((seq,),) = self._database.query("SELECT coalesce(max(seq), 0) FROM events")
        return int(seq)

    def messages(self, login: str, *, after: int = 0) -> list[str]:
        """References of that login's messages among the events behind `after`."""
        where = "WHERE login = ? AND login != '' AND seq > ? AND reference != ''"
        index = "" if after else "INDEXED BY events_login"
        sql = f"SELECT DISTINCT reference FROM events {index} {where}"
        return [reference for (reference,) in self._database.query(sql, (login, after))]

    def references(self, word: str) -> list[str]:
        """The messages that a reference, a queue ID or a Message-ID names."""
        sql = "SELECT DISTINCT reference FROM events WHERE {} = ? AND kind = 'submitted' AND reference != ''"
        for column in ("reference", "queue_id", "data ->> '$.message_id'"):
            found = self._database.query(sql.format(column), (word,))
            if found:
                return [reference for (reference,) in found]
        return []
