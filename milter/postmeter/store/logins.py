"""Which logins the journal knows. A login that was never heard of may be a person's slip, or one that is to come."""

from __future__ import annotations

from postmeter.store.accounts import account_name, storable
from postmeter.store.database import Database

# From each login to the next one in the index: to read every event for them took as many times longer.
_ALL = """
WITH RECURSIVE known(login) AS (
    SELECT min(login) FROM events INDEXED BY events_login WHERE login != ''
    UNION ALL
    SELECT (SELECT min(login) FROM events INDEXED BY events_login WHERE login != '' AND login > known.login)
    FROM known WHERE known.login IS NOT NULL
)
SELECT login FROM known WHERE login IS NOT NULL
"""
_ONE = """
SELECT 1 FROM events INDEXED BY events_login WHERE login = ? AND login != ''
UNION ALL SELECT 1 FROM folios WHERE name = ?
LIMIT 1
"""


def every(database: Database) -> list[str]:
    """As they were typed, so one may be there in several spellings."""
    return [login for (login,) in database.query(_ALL)]


def seen(database: Database, sender: str) -> bool:
    """Whether there is an event of that login, or an account of that sender, who may have no login; in lower case."""
    return bool(database.query(_ONE, (storable(sender), account_name("sender", sender))))
