"""Mail that came back to this host and speaks of a message of another one: handed over by the database of all hosts.

It lies in `spool/returns/away` until the host of its message is found there, and then in the database until that host
has it in its own spool, where it is judged as if it had come there. What no host knows is kept for a person, with the
rest of what is not believed. `why` of what lies there is the message's reference, or its Message-ID. Knows no SQL, and
nothing of what the mail says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import time

from postmeter.events import REFERENCE
from postmeter.feedback.arrivals import Arrival, Arrivals, Envelope
from postmeter.mail.draft import Figure
from postmeter.store import shared
from postmeter.store.journal import Journal
from postmeter.store.postgres import Postgres
from postmeter.store.shared import Returned
from postmeter.store.shipped import Registered

GRACE = 3600.0
"""Seconds that the host of a message may be behind with shipping. For our own tags only: Message-IDs are anybody's."""

_LOOKED = 50  # messages that are looked for in one turn
_TAKEN = 5  # messages fetched in one turn
_COUNTED = "elsewhere"


class Elsewhere:
    """One of the exchanges of `shipping.Shipper`."""

    def __init__(
        self, journal: Journal, *, away: Arrivals, new: Arrivals, kept: Arrivals, now: Callable[[], float] = time
    ) -> None:
        self._journal, self._away, self._new, self._kept, self._now = journal, away, new, kept, now
        self._after = ""

    def __call__(self, postgres: Postgres, ours: Registered) -> bool:
        """One turn each way; true when there is more."""
        self._hand_over(postgres, ours)
        return self._take(postgres, ours)

    def _hand_over(self, postgres: Postgres, ours: Registered) -> None:
        """A turn goes on behind the last one, so that those that wait hold up nobody."""
        names = [name for name in self._away.names() if name > self._after][:_LOOKED]
        self._after = names[-1] if len(names) == _LOOKED else ""
        for name in names:
            arrival = self._away.read(name)
            if arrival is not None:
                self._find(postgres, ours, arrival)

    def _find(self, postgres: Postgres, ours: Registered, arrival: Arrival) -> None:
        sought, envelope = arrival.envelope.why, arrival.envelope
        tagged = REFERENCE.fullmatch(sought) is not None
        with postgres.transaction() as cursor:
            host = shared.owner(cursor, reference=sought if tagged else "", message_id="" if tagged else sought)
            if host is not None and host != ours.id:
                mail = Returned(arrival.name, envelope.time, envelope.sender, envelope.recipients, arrival.raw)
                shared.hand_over(cursor, host, mail)
        if host is None or host == ours.id:
            if tagged and 0 <= self._now() - envelope.time < GRACE:
                return
            self._kept.put(replace(envelope, why="no host knows the message"), arrival.raw, name=arrival.name)
            self._count(arrival.name)
        self._away.drop(arrival.name)

    def _count(self, name: str) -> None:
        """Once: who was killed before he removed it finds it again, perhaps behind others that had not come then."""
        counted = (self._journal.position(_COUNTED) or "").split()
        if name not in counted:
            figures: dict[Figure, int] = {("feedback_total", ("untrusted",)): 1}
            latest = " ".join([*counted, name][-_LOOKED:])
            self._journal.record((), figures=figures, positions={_COUNTED: latest})

    def _take(self, postgres: Postgres, ours: Registered) -> bool:
        """On our own disk first: at worst it comes twice, and what it tells is recorded once."""
        with postgres.transaction() as cursor:
            found = shared.handed_over(cursor, ours, _TAKEN)
            for mail in found:
                envelope = Envelope(time=mail.time, sender=mail.sender, recipients=mail.recipients)
                self._new.put(envelope, mail.message)
            shared.took(cursor, ours, found)
        return len(found) == _TAKEN
