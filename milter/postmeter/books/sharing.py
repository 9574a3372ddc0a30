"""What this host has to tell the others about suppressions, and takes over from them.

What was learned or ordered here is told in the transaction of what is shipped; what others said is made ours together
with how far they were heard. What was taken over is told to nobody. Knows no SQL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from postmeter.store import shared, suppression, unshipped, veil
from postmeter.store.database import Database
from postmeter.store.journal import Journal
from postmeter.store.postgres import Postgres
from postmeter.store.shared import Word
from postmeter.store.shipped import Registered
from postmeter.store.suppression import Choice, Suppression
from postmeter.store.unshipped import Change

_HEARD = "suppressions heard:"
"""Of positions, with the journal behind it."""

_SAVE = "INSERT INTO positions VALUES (?, ?) ON CONFLICT DO UPDATE SET position = excluded.position"
_NEVER = float("-inf")


def words(database: Database, changes: Sequence[Change]) -> list[Word]:
    """What is to be said of those that changed. One that is known by its hash only is nobody to others."""
    told: dict[str, Word] = {}
    for change in changes:
        address, scope, reason = map(str, change.key)
        if not veil.is_hashed(address):
            name = shared.name(address, scope, reason)
            found = _find(database, address, scope, reason)
            if found is None or not veil.is_hashed(found.address):
                told[name] = Word(name, 0, found.since if found else change.time, found)
            else:
                told[name] = Word(name, 0, change.time, forgotten=True)
    return list(told.values())


def hear(journal: Journal, postgres: Postgres, ours: Registered) -> bool:
    """One piece of what each other host says; true when there is more."""
    more = False
    with postgres.transaction() as cursor:
        for other in shared.others(cursor, ours):
            position = f"{_HEARD}{other}"
            said = shared.heard(cursor, other, int(journal.position(position) or 0))
            if said:
                gone = shared.lifted(cursor, [word.name for word in said if word.said])
                _take_over(journal, said, gone, position)
                more = True
    return more


def _take_over(journal: Journal, said: Sequence[Word], gone: Mapping[str, float], position: str) -> None:
    """`gone`: when some of them were lifted, by whomever; what is older than that is not so any more."""
    new = [word.said for word in said if word.said and word.at > gone.get(word.name, _NEVER)]
    ended = {word.name: word.at for word in said if word.said is None}
    known = suppression.select(journal.database, Choice()) if ended else ()
    lifted = [one for one in known if one.since <= ended.get(shared.name(*_key(one)), _NEVER)]
    keys = [_key(one) for one in (*new, *lifted)]
    with journal.database.transaction() as link:
        ours = unshipped.pending(link, keys)
        suppression.lengthen(link, new)
        for one in lifted:
            suppression.remove(link, Choice(addresses=(one.address,), scope=one.scope, reason=one.reason))
        unshipped.heard(link, [key for key in keys if key not in ours])
        link.execute(_SAVE, (position, str(said[-1].number)))


def _key(one: Suppression) -> tuple[str, str, str]:
    return one.address, one.scope, one.reason


def _find(database: Database, address: str, scope: str, reason: str) -> Suppression | None:
    """As it stands there, or else by its hash."""
    choice = Choice(addresses=(address,), scope=scope, reason=reason)
    found = {one.address == address: one for one in suppression.select(database, choice)}
    return found.get(True) or found.get(False)
