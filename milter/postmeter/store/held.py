"""Messages of ours in Postfix's hold queue, and what each will be charged when it leaves.

Knows nothing of the queue itself. The rows are this host's alone, and written in the transaction that records what
becomes of a message, so that nobody who is killed can have it charged twice, or let go without.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from sqlite3 import Connection

from postmeter.store.accounts import Charge, Held, Hold, charge_of, storable
from postmeter.store.database import Database, Row

log = logging.getLogger(__name__)

_SELECT = "SELECT queue_id, time, sender, login, reason, charges, recipients, going FROM held WHERE "
_COUNT = "SELECT count(*) FROM held WHERE sender = ?"
_INSERT = "INSERT OR REPLACE INTO held VALUES (?, ?, ?, ?, ?, ?, ?, 0)"


def waiting(database: Database, *, sender: str | None = None) -> list[Held]:
    """Those that nobody has let go yet, oldest first; all, or one sender's."""
    sql = _SELECT + "NOT going AND (?1 IS NULL OR sender = ?1) ORDER BY time, queue_id"
    return [_held(row) for row in database.query(sql, (None if sender is None else storable(sender),))]


def going(database: Database) -> list[Held]:
    """Those charged for which nobody has said yet that Postfix let them go: to be let go again, not charged again."""
    return [_held(row) for row in database.query(_SELECT + "going ORDER BY time, queue_id")]


def remove(database: Database, message: Held) -> bool:
    """Postfix has let it go; false when it was removed before."""
    with database.transaction() as link:
        return _remove(link, message)


def add(link: Connection, hold: Hold, *, time: float, recipients: int) -> None:
    """A queue id that comes again means that the old message left without us."""
    charges = json.dumps([asdict(charge) for charge in hold.charges])
    names = (storable(hold.queue_id), time, storable(hold.sender), storable(hold.login), hold.reason)
    link.execute(_INSERT, (*names, charges, recipients))


def count(link: Connection, sender: str) -> int:
    """How many of a sender wait, with those that are going."""
    (found,) = link.execute(_COUNT, (storable(sender),)).fetchone()
    return int(found)


def look(database: Database, sender: str) -> int:
    """As `count`, without a transaction."""
    [(found,)] = database.query(_COUNT, (storable(sender),))
    return int(found)


def everything(database: Database) -> int:
    """How many wait, of all senders, with those that are going."""
    [(found,)] = database.query("SELECT count(*) FROM held")
    return int(found)


def leaves(link: Connection, message: Held, *, goes: bool) -> None:
    """It is let go, or else is no longer there."""
    if goes:
        link.execute("UPDATE held SET going = 1 WHERE queue_id = ? AND time = ?", _key(message))
    else:
        _remove(link, message)


def _remove(link: Connection, message: Held) -> bool:
    return link.execute("DELETE FROM held WHERE queue_id = ? AND time = ?", _key(message)).rowcount > 0


def _key(message: Held) -> tuple[object, ...]:
    return storable(message.queue_id), message.time


def _charges(queue_id: str, text: str) -> tuple[Charge, ...]:
    """None where they cannot be read: else it would be held for ever, and with it whatever else is."""
    try:
        return tuple(charge_of(plain) for plain in json.loads(text))
    except (ValueError, TypeError, AttributeError) as error:
        log.error("%s: what it was to be charged cannot be read, it leaves uncharged: %r", queue_id, error)
        return ()


def _held(row: Row) -> Held:
    queue_id, time, sender, login, reason, charges, recipients, gone = row
    return Held(
        queue_id=queue_id,
        time=time,
        sender=sender,
        login=login,
        reason=reason,
        charges=_charges(queue_id, charges),
        recipients=recipients,
        going=bool(gone),
    )
