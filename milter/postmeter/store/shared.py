"""What hosts tell each other by way of the database of all: whom not to write to, and mail that came back elsewhere.

Each host writes down what it learned itself; the others read that in the order of its numbers and make it their own.
Of what is said of one address, scope and reason the newest stands, so one that was lifted is kept as such, without the
address. Knows nothing of SQLite.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from postmeter.store.postgres import Cursor
from postmeter.store.shipped import Registered, message_id_name, text
from postmeter.store.suppression import Suppression

_PIECE = 500  # of what another host says, at once
_PUT = """
    INSERT INTO suppressions (journal, name, number, at, address, scope, reason, until, evidence, count, provider)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""


@dataclass(frozen=True, slots=True)
class Word:
    """What a host says of an address: `said` is None for one that it lifted at that time. `number` is its place.

    `forgotten`: it stands as it did, under a hash that says nothing to others, and the address has to go from here.
    """

    name: str
    number: int
    at: float
    said: Suppression | None = None
    forgotten: bool = False


@dataclass(frozen=True, slots=True)
class Returned:
    """Mail that came back to another host; `name` is that of its file there."""

    name: str
    time: float
    sender: str | None
    recipients: tuple[str, ...]
    message: bytes


def name(address: str, scope: str, reason: str) -> str:
    """Whom it is about, without saying so."""
    said = json.dumps([address, scope, reason], separators=(",", ":")).encode()
    return blake2b(said, digest_size=16).hexdigest()


def tell(cursor: Cursor, journal: Registered, words: Sequence[Word]) -> None:
    """In the place of what this host said of them before. Behind `shipped.advance`: numbers are taken in turn."""
    forgotten = [(word.name,) for word in words if word.forgotten]
    cursor.executemany("DELETE FROM suppressions WHERE name = %s AND address <> ''", forgotten)
    words = [word for word in words if not word.forgotten]
    cursor.execute("UPDATE journals SET said = said + %s WHERE id = %s RETURNING said", (len(words), journal.id))
    [last] = cursor.fetchone() or [0]
    gone = [(journal.id, word.name) for word in words]
    cursor.executemany("DELETE FROM suppressions WHERE journal = %s AND name = %s", gone)
    lifted = [(word.name, word.at) for word in words if word.said is None]
    cursor.executemany("DELETE FROM suppressions WHERE name = %s AND at <= %s AND address <> ''", lifted)
    rows = [_row(journal, word, last - place) for place, word in enumerate(reversed(words))]
    if rows:
        cursor.executemany(_PUT, rows)


def others(cursor: Cursor, journal: Registered) -> list[int]:
    """The journals that speak besides ours."""
    cursor.execute("SELECT id FROM journals WHERE id <> %s ORDER BY id", (journal.id,))
    return [int(number) for (number,) in cursor.fetchall()]


def heard(cursor: Cursor, journal: int, after: int) -> list[Word]:
    """The next that this host says, in its order."""
    sql = "SELECT name, number, at, address, scope, reason, until, evidence, count, provider FROM suppressions "
    cursor.execute(sql + "WHERE journal = %s AND number > %s ORDER BY number LIMIT %s", (journal, after, _PIECE))
    return [_word(*row) for row in cursor.fetchall()]


def lifted(cursor: Cursor, names: Iterable[str]) -> dict[str, float]:
    """When these were last lifted, wherever that was."""
    found: dict[str, float] = {}
    for one in names:
        cursor.execute("SELECT max(at) FROM suppressions WHERE name = %s AND address = ''", (one,))
        [at] = cursor.fetchone() or [None]
        if at is not None:
            found[one] = float(at)
    return found


def forget(cursor: Cursor, before: float) -> None:
    """Addresses are here no longer than elsewhere; every host has heard of them by then."""
    cursor.execute("DELETE FROM suppressions WHERE at < %s", (before,))
    cursor.execute("DELETE FROM returned WHERE time < %s", (before,))


def owner(cursor: Cursor, *, reference: str, message_id: str) -> int | None:
    """The journal that a message is in, by its reference, or else by its Message-ID."""
    if reference:
        cursor.execute("SELECT journal FROM events WHERE reference = %s AND kind = 'submitted'", (reference,))
    else:
        cursor.execute("SELECT journal FROM lookups WHERE name = %s", (message_id_name(message_id),))
    found = {int(number) for (number,) in cursor.fetchall()}
    return found.pop() if len(found) == 1 else None


def hand_over(cursor: Cursor, journal: int, mail: Returned) -> None:
    """To the host whose message it speaks of; twice is once."""
    cursor.execute("DELETE FROM returned WHERE journal = %s AND name = %s", (journal, mail.name))
    cursor.execute(
        "INSERT INTO returned (journal, name, time, sender, recipients, message) VALUES (%s, %s, %s, %s, %s, %s)",
        (journal, mail.name, mail.time, text(mail.sender), text(json.dumps(mail.recipients)), mail.message),
    )


def handed_over(cursor: Cursor, journal: Registered, most: int) -> list[Returned]:
    """The oldest that other hosts have for us."""
    sql = "SELECT name, time, sender, recipients, message FROM returned WHERE journal = %s ORDER BY time, name LIMIT %s"
    cursor.execute(sql, (journal.id, most))
    return [
        Returned(found, float(time), sender, tuple(json.loads(recipients)), bytes(message))
        for found, time, sender, recipients, message in cursor.fetchall()
    ]


def took(cursor: Cursor, journal: Registered, mail: Iterable[Returned]) -> None:
    """We have it on our own disk."""
    rows = [(journal.id, one.name) for one in mail]
    cursor.executemany("DELETE FROM returned WHERE journal = %s AND name = %s", rows)


def _row(journal: Registered, word: Word, number: int) -> tuple[object, ...]:
    one = word.said
    if one is None:
        return journal.id, word.name, number, word.at, "", "", "", None, "", 0, ""
    said = (one.address, one.scope, one.reason, one.until, one.evidence, one.count, one.provider)
    return journal.id, word.name, number, word.at, *map(text, said)


def _word(
    name: str, number: int, at: float, address: str, scope: str, reason: str, until: float | None, *rest: object
) -> Word:
    evidence, count, provider = rest
    if not address:
        return Word(name, int(number), float(at))
    said = Suppression(address, scope, reason, float(at), until, str(evidence), int(str(count)), str(provider))
    return Word(name, int(number), float(at), said)
