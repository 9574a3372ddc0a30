"""Ships the journal to the database of all hosts: events in their order and each once, then what changed of them.

Where this journal stands is kept over there, in the transaction of what it ships; nothing is taken for shipped before
that was committed, and a lost answer is cleared up by asking. While the database is away nobody waits for it: the
journal has it all. Knows no SQL.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from time import monotonic, time
from typing import TypeAlias

from postmeter.books import sharing
from postmeter.books.backoff import Backoff
from postmeter.runtime.logs import OnceAMinute
from postmeter.store import postgres_schema, shared, shipped, unshipped
from postmeter.store.accounts import StoreDownError
from postmeter.store.database import StoreError
from postmeter.store.journal import Journal
from postmeter.store.postgres import Cursor, Postgres
from postmeter.store.shipped import MovedError, NameTakenError, Registered
from postmeter.store.unshipped import EVENTS, FIGURES, SUPPRESSIONS, Change, State

log = logging.getLogger(__name__)
once = OnceAMinute(log)

EVERY = 1.0
"""Seconds between two looks, when there was nothing to ship."""

_EVENTS = 1000  # in one transaction
_CHANGES = 500
_OCTETS = 4 << 20  # of events in one transaction, when it is more than one
_FIRST, _MOST = 1.0, 30.0  # seconds of rest after a failure
_ASK = 2.0  # seconds between two looks at what other hosts say
_SIGN = 60.0  # seconds between two signs of life when there is nothing to ship
_FORGET = 3600.0  # seconds between two looks at what ended journals have left


Exchange: TypeAlias = Callable[[Postgres, Registered], bool]
"""Something else to be done over there, now and then; true when there is more."""


@dataclass(frozen=True, slots=True)
class _Changed:
    """What changed behind the place that was reached."""

    events: Sequence[Change]
    figures: Sequence[Change]
    suppressions: Sequence[Change]

    def __bool__(self) -> bool:
        return bool(self.events or self.figures or self.suppressions)

    @property
    def full(self) -> bool:
        return _CHANGES in (len(self.events), len(self.figures), len(self.suppressions))

    def all(self) -> list[Change]:
        return [*self.events, *self.figures, *self.suppressions]


class Shipper:
    """`instance` names a journal that has no name yet. `now` and `ticks` are clocks, of the day and monotonic.

    `keep` is for how long events of a journal that was lost, and addresses, are kept over there, in seconds.
    """

    def __init__(
        self,
        journal: Journal,
        postgres: Postgres,
        *,
        host: str,
        keep: float,
        instance: Callable[[], str],
        chance: Callable[[], float],
        now: Callable[[], float] = time,
        ticks: Callable[[], float] = monotonic,
        besides: Sequence[Exchange] = (),
    ) -> None:
        self._journal, self._postgres, self._host, self._keep = journal, postgres, host, keep
        self._instance, self._now, self._ticks = instance, now, ticks
        self._rest = Backoff(first=_FIRST, most=_MOST, chance=chance)
        self._joined: Registered | None = None
        self._signed = self._forgot = self._asked = float("-inf")
        self._besides = (lambda postgres, joined: sharing.hear(journal, postgres, joined), *besides)
        self._away: float | None = None

    def work(self) -> bool:
        """One batch, and when it is time what other hosts say, however much is to be shipped; true when there is
        more."""
        if self._rest.rests(self._ticks()):
            return False
        try:
            shipped, heard = self._ship(self._joined or self._join()), self._exchange()
            self._forget_old()
        except NameTakenError as error:
            self._failed(logging.ERROR, "nothing is shipped: %s", error)
            return False
        except MovedError:
            self._joined = None
            return False
        except StoreDownError as error:
            self._failed(logging.WARNING, "events wait in the journal: %s", error)
            return False
        self._succeeded()
        return shipped or heard

    def close(self) -> None:
        self._postgres.close()
        with suppress(StoreError):
            self._journal.close()

    def _join(self) -> Registered:
        """Find our place over there, and whether it is the one that we left."""
        database = self._journal.database
        state = unshipped.begin(database, self._instance())
        for name in postgres_schema.bring_up_to_date(self._postgres, self._now()):
            log.info("PostgreSQL: made %s", name)
        with self._postgres.transaction() as cursor:
            journal = shipped.join(
                cursor, instance=state.instance, prior=state.prior, began=state.began, host=self._host, now=self._now()
            )
        if journal.seq > state.claimed and self._put_back(journal, state):
            return self._join()
        if state.whole or journal.seq < state.shipped:
            if not state.whole:
                log.warning("the database of all hosts was put back, or is new: everything is shipped again")
            with self._postgres.transaction() as cursor:
                journal = shipped.begin_anew(cursor, journal, self._now())
            unshipped.begin_anew(database)
        self._joined = journal
        return journal

    def _put_back(self, journal: Registered, state: State) -> bool:
        """More was shipped than we know of. False when that is all in this journal as well: then nothing is lost."""
        common = self._common(journal, state.claimed)
        if common == journal.seq:
            unshipped.claim(self._journal.database, common)
            return False
        log.error(
            "this journal is not the one that was shipped as %s: events behind %d, up to %d, are others. It was put "
            "back from a backup, or runs twice. It goes on; what was lost here stays in the database",
            journal.host, common, journal.seq,
        )  # fmt: skip
        unshipped.rename(self._journal.database, self._instance(), began=common)
        return True

    def _common(self, journal: Registered, after: int) -> int:
        """The last number up to which we have what was shipped. Numbers may jump, so the events are gone through."""
        while theirs := self._shipped(journal, after):
            ours = unshipped.sources(self._journal.database, list(theirs))
            for seq, source in theirs.items():
                if seq not in ours or shipped.text(ours[seq]) != source:
                    return after
                after = seq
        return min(journal.seq, self._journal.last())

    def _shipped(self, journal: Registered, after: int) -> dict[int, str]:
        with self._postgres.transaction() as cursor:
            return shipped.sources(cursor, journal, after, _EVENTS)

    def _ship(self, journal: Registered) -> bool:
        database = self._journal.database
        upto = unshipped.reach(database, after=journal.seq, most=_EVENTS)
        changed = self._changed()
        if upto == journal.seq and not changed:
            return self._look_in(journal)
        unshipped.claim(database, upto)
        upto, events = unshipped.batch(database, after=journal.seq, upto=upto, octets=_OCTETS)
        changed = replace(changed, events=[change for change in changed.events if change.seq <= upto])
        with self._postgres.transaction() as cursor:
            reached = shipped.advance(cursor, journal, upto, self._now())
            if upto > journal.seq:
                shipped.replace_range(cursor, journal, journal.seq, upto, events)
            self._correct(cursor, journal, changed)
        self._joined, self._signed = reached, self._ticks()
        unshipped.acknowledge(database, upto, changed.all())
        return self._journal.last() > upto or changed.full

    def _changed(self) -> _Changed:
        found = (unshipped.changes(self._journal.database, what, _CHANGES) for what in (EVENTS, FIGURES, SUPPRESSIONS))
        return _Changed(*found)

    def _correct(self, cursor: Cursor, journal: Registered, changed: _Changed) -> None:
        """Read after what changed was noted: who changes it once more notes it once more."""
        database = self._journal.database
        if seqs := [change.seq for change in changed.events]:
            shipped.replace(cursor, journal, seqs, unshipped.events(database, seqs))
        if keys := [change.key for change in changed.figures]:
            shipped.replace_figures(cursor, journal, keys, unshipped.figures(database, keys))
        if words := sharing.words(database, changed.suppressions):
            shared.tell(cursor, journal, words)

    def _exchange(self) -> bool:
        """What else is to be done over there, when it is time for that."""
        if self._joined is None or self._ticks() - self._asked < _ASK:
            return False
        more = [work(self._postgres, self._joined) for work in self._besides]
        if not any(more):
            self._asked = self._ticks()
        return any(more)

    def _look_in(self, journal: Registered) -> bool:
        """Show that we live, and see whether the place is still ours."""
        now = self._ticks()
        if now - self._signed >= _SIGN:
            with self._postgres.transaction() as cursor:
                shipped.advance(cursor, journal, journal.seq, self._now())
            self._signed = now
        return False

    def _forget_old(self) -> None:
        if self._ticks() - self._forgot >= _FORGET:
            with self._postgres.transaction() as cursor:
                shipped.forget(cursor, self._host, self._now() - self._keep)
                shared.forget(cursor, self._now() - self._keep)
            self._forgot = self._ticks()

    def _failed(self, level: int, text: str, error: Exception) -> None:
        self._joined = None
        self._rest.failed(self._ticks())
        if self._away is None:
            self._away = self._ticks()
        once.log(level, "shipping", text, error)

    def _succeeded(self) -> None:
        self._rest.succeeded()
        if self._away is not None:
            log.warning("events are shipped again, after %.0f s", self._ticks() - self._away)
            self._away = None
