"""Opens and clicks as figures: each counts with its message where privacy lets it name one, else by itself.

With `privacy: recipients`, and for messages of several recipients, a hit names its message: it counts on that one's
day, with its login. Else it counts on its own day, with the From domain and campaign that it bears and no login.
`opens_human` and its like count every hit, `opened_human` the first of its kind; `opens_untold` those of which nobody
can tell whether they are repeats. What is judged anew later moves.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from sqlite3 import Connection

from postmeter.events import Clicked, Event, Opened, Rejudged
from postmeter.store import fates, figures
from postmeter.store.fates import Group
from postmeter.store.figures import Place

KINDS = ("opened", "clicked", "rejudged")

_HITS, _FIRST = {"open": "opens", "click": "clicks"}, {"open": "opened", "click": "clicked"}


def places(link: Connection, events: Iterable[Event]) -> Counter[Place]:
    """What these hits add where."""
    found: Counter[Place] = Counter()
    for event in events:
        if isinstance(event, Rejudged):
            before = _unique(link, event)
            now = before if event.unique is None else event.unique
            found.update(_hit(link, event, event.what, event.by, now))
            found.subtract(_hit(link, event, event.what, event.was, before))
        elif isinstance(event, Opened | Clicked):
            what = "open" if isinstance(event, Opened) else "click"
            found.update(_hit(link, event, what, event.by, event.unique))
            if event.unique is None:
                found[_place(link, event, f"{_HITS[what]}_untold")] += 1
    return found


def _hit(link: Connection, event: Opened | Clicked | Rejudged, what: str, by: str, unique: bool | None) -> list[Place]:
    names = [f"{_HITS[what]}_{by}", *([f"{_FIRST[what]}_{by}"] if unique else [])] if what in _HITS else []
    return [_place(link, event, name) for name in names]


def _place(link: Connection, event: Opened | Clicked | Rejudged, what: str) -> Place:
    message = fates.message(link, event.reference)
    if message is None:
        return Place(figures.day(event.time), Group(event.from_domain, "", event.campaign), "", what)
    when, group = message
    return Place(figures.day(when), Group(group.from_domain, group.login, group.campaign), "", what)


def _unique(link: Connection, event: Rejudged) -> bool | None:
    """What the verdict before this one said of it, which the journal holds as long as hits are."""
    for source in (f"judged:{event.hit}:{event.was}", event.hit):
        row = link.execute("SELECT data FROM events WHERE source = ?", (source,)).fetchone()
        found = json.loads(row[0]).get("unique") if row else None
        if isinstance(found, bool):
            return found
    return None
