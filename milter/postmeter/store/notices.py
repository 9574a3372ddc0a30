"""One-time ids of our own mail: by one of them a worker knows a notice of `books` when it comes in by our own Postfix.

An id is good for one message and a short while, and for nobody else: 128 random bits that are gone once used. Knows
nothing of mail.
"""

from __future__ import annotations

from postmeter.store.database import Database


def issue(database: Database, ident: str, *, now: float, until: float) -> None:
    """Before the mail is sent. Those whose time is over are forgotten."""
    with database.transaction() as link:
        link.execute("DELETE FROM notice_ids WHERE until <= ?", (now,))
        link.execute("INSERT INTO notice_ids VALUES (?, ?)", (ident, until))


def knows(database: Database, ident: str, *, now: float) -> bool:
    """Reads only."""
    return bool(database.query("SELECT 1 FROM notice_ids WHERE id = ? AND until > ?", (ident, now)))


def consume(database: Database, ident: str, *, now: float) -> bool:
    """True for one asker only: the id is gone then."""
    with database.transaction() as link:
        return link.execute("DELETE FROM notice_ids WHERE id = ? AND until > ?", (ident, now)).rowcount > 0


def revoke(database: Database, ident: str) -> None:
    """For mail that has been handed over, and may have gone another way than by our workers."""
    with database.transaction() as link:
        link.execute("DELETE FROM notice_ids WHERE id = ?", (ident,))
