"""A slice of the journal becomes fates, figures and totals, and the place up to which it was read is saved.

All of it in one transaction. Knows neither when that is done nor what the totals are called (`books.following`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from sqlite3 import Connection
from typing import TypeAlias

from postmeter.events import Event, Released, Submitted, Suppressed
from postmeter.mail.draft import Figure
from postmeter.store import fates, figures, totals, tracked, veil
from postmeter.store.database import Database
from postmeter.store.fates import Fate, Group, Key, Step, Transition
from postmeter.store.figures import Names, Place

POSITION = "following"
KINDS = ("submitted", "sent", "deferred", "bounced", "expired", "unknown", "untaken", "complained", "suppressed",
         "unsubscribed", "released", *tracked.KINDS)  # fmt: skip
"""Of the events that say something of a recipient."""


@dataclass(frozen=True, slots=True)
class Change:
    """What one event did to one fate."""

    event: Event
    step: Step
    before: Fate
    now: Fate

    @property
    def new(self) -> str:
        """The status that this recipient never had before, as it counts once for each; else empty."""
        return self.step.status if self.step.status in self.now.seen - self.before.seen else ""


Count: TypeAlias = Callable[[Sequence[Event], Sequence[Change]], Mapping[Figure, int]]
"""What these add to the totals."""


Learn: TypeAlias = Callable[[Connection, Sequence[Transition]], None]


def nothing(link: Connection, told: Sequence[Transition]) -> None:
    """Nobody wants to know."""


def follow(
    database: Database,
    events: Sequence[Event],
    *,
    was: int,
    now: int,
    count: Count,
    names: Names,
    learn: Learn = nothing,
) -> list[Transition]:
    """Take these in, if the place is still where it `was`; what changed. After a failure forget `names`.

    `learn` is told what changed in the same transaction.
    """
    with database.transaction() as link:
        if not _move(link, was, now):
            return []
        before, after, changes = _fold(link, events)
        fates.name(link, (event for event in events if isinstance(event, Submitted)))
        fates.save(link, after)
        places = figures.moved(before, after)
        places.update(_suppressed(events))
        places.update(tracked.places(link, events))
        figures.add(link, places, names)
        totals.add(link, count(events, changes))
        told = [made for one in changes if (made := fates.transition(one.before, one.now, one.step))]
        learn(link, told)
        return told


def _fold(link: Connection, events: Sequence[Event]) -> tuple[list[Fate], list[Fate], list[Change]]:
    """The fates that change, as they were and as they are, and each single change."""
    told = [(event, key, step) for event in events for key, step in _steps(link, event, events)]
    known = fates.load(link, dict.fromkeys(key for _, key, _ in told))
    veiled = _veiled(link, {key for _, key, step in told if not step.submitted and key not in known})
    known |= {fate.key: fate for fate in veiled.values()}
    now = dict(known)
    changes = []
    for event, asked, step in told:
        key = veiled[asked].key if asked in veiled else asked
        before = now.get(key) or Fate(*key)
        now[key] = fates.after(before, step)
        changes.append(Change(event, step, before, now[key]))
    changed = [key for key, fate in now.items() if fate != known.get(key)]
    return [known[key] for key in changed if key in known], [now[key] for key in changed], changes


def _veiled(link: Connection, keys: Collection[Key]) -> dict[Key, Fate]:
    """Of recipients whose addresses have been forgotten meanwhile, by how they are asked for."""
    secret = veil.key(link) if keys else b""
    names = {key: (key[0], veil.hashed(key[1], secret)) for key in keys}
    found = fates.load(link, names.values())
    return {key: found[name] for key, name in names.items() if name in found}


def _steps(link: Connection, event: Event, events: Iterable[Event]) -> Iterable[tuple[Key, Step]]:
    """Of one of these. The fates of a message that is among them are not written yet."""
    if not isinstance(event, Released):
        return fates.steps(event)
    step = fates.withdrawn(event)
    if step is None or (reference := _of_queue_id(link, event)) is None:
        return []
    found = link.execute("SELECT reference, recipient FROM fates WHERE reference = ?", (reference,))
    new = (key for one in events if isinstance(one, Submitted) and one.reference == reference
           for key, _ in fates.steps(one))  # fmt: skip
    return [(key, step) for key in dict.fromkeys([*new, *found])]


def _of_queue_id(link: Connection, event: Released) -> str | None:
    """The last message that had this queue id then: they are used again."""
    sql = """
        SELECT reference FROM events
        WHERE queue_id = ? AND queue_id != '' AND kind IN ('submitted', 'refiltered') AND time <= ?
        ORDER BY time DESC LIMIT 1
    """
    row = link.execute(sql, (event.queue_id, event.time)).fetchone()
    return row[0] if row else None


def _suppressed(events: Iterable[Event]) -> Counter[Place]:
    """Those who are no recipient of a message: it was only looked on, or they were refused before there was one."""
    return Counter(
        Place(
            figures.day(event.time),
            Group(event.from_domain, event.login, event.campaign),
            "",
            "would_suppress" if event.observed else "suppressed",
        )
        for event in events
        if isinstance(event, Suppressed) and (event.observed or not event.reference)
    )


def _move(link: Connection, was: int, now: int) -> bool:
    """Save the place; false when somebody else has moved it meanwhile."""
    row = link.execute("SELECT position FROM positions WHERE name = ?", (POSITION,)).fetchone()
    if int(row[0] if row else 0) != was:
        return False
    save = "INSERT INTO positions VALUES (?, ?) ON CONFLICT DO UPDATE SET position = excluded.position"
    link.execute(save, (POSITION, str(now)))
    return True
