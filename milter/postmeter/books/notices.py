"""Who is told by mail of what happened: of quotas administrators and senders, of brakes and keys administrators.

Reads the journal from a saved position. What is to be told waits in the outbox under a topic, and a topic has at most
one mail in its time: the first goes at once, what comes meanwhile goes together. An event leaves the outbox when the
server has taken the mail; killed in between, the same mail goes once more. Knows nothing of words or of SMTP.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic, time

from postmeter.books import keyletters, letters, removals
from postmeter.books.backoff import Rests
from postmeter.books.letters import Letter, Room
from postmeter.books.mailing import ID_LIVES, OF_ONE, Mailer
from postmeter.config.schema import Quota
from postmeter.events import Braked, Event, KeyChanged, Mistrusted, Warned
from postmeter.runtime.logs import OnceAMinute
from postmeter.store import notices
from postmeter.store.database import StoreError
from postmeter.store.journal import Journal
from postmeter.store.outbox import Outbox
from postmeter.store.rows import Entry

log = logging.getLogger(__name__)
once = OnceAMinute(log)

POSITION = "notices"

_WARNINGS, _SENDER, _BRAKE, _KEYS, _DOUBTS = "warnings", "sender:", "brake:", "keys", "mistrusted"
# Seconds between two mails of a topic
_GAPS = {_WARNINGS: 600.0, _SENDER: 600.0, _BRAKE: 3600.0, _KEYS: 600.0, _DOUBTS: 600.0}
_KINDS = ("warned", "braked", "keychanged", "mistrusted")
_FAR = 10_000  # events behind the saved position; a restart looks at so many once more
_STEP = 1000  # numbers that one look at the journal passes, where there are so many
_FIRST, _MOST = 10.0, 900.0  # seconds of rest after a failure
_GIVE_UP = 3 * 86_400.0  # seconds; nobody wants to know then

# An address that can only be that mailbox's: no quotes, no routes (%, !), nothing that a server reads in another way.
_MAILBOX = re.compile(r"[A-Za-z0-9#$&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", re.ASCII)


class Notices:
    """`now` and `ticks` are clocks, of the day and monotonic; `token` gives 32 random hexadecimal digits."""

    def __init__(
        self,
        journal: Journal,
        quota: Quota,
        mailer: Mailer,
        *,
        room: Room,
        failed: Callable[[str], None],
        token: Callable[[], str],
        chance: Callable[[], float],
        now: Callable[[], float] = time,
        ticks: Callable[[], float] = monotonic,
    ) -> None:
        self._journal, self._outbox = journal, Outbox(journal.database)
        self._quota, self._mailer, self._room = quota, mailer, room
        self._failed, self._token, self._now = failed, token, now
        self._seen = self._saved = -1
        self._rests = Rests(first=_FIRST, most=_MOST, chance=chance, ticks=ticks)
        self._taken: dict[str, tuple[int, float]] = {}  # mail that was sent and not yet noted as sent

    def work(self) -> bool:
        """A slice of the journal, and one mail at most; true when there is more."""
        self._note()
        more = self._read()
        return self._tell_next() or more

    def close(self) -> None:
        with suppress(StoreError):
            self._note()
        self._journal.close()

    def _read(self) -> bool:
        if self._seen < 0:
            self._seen = self._saved = self._start()
        found, end = self._journal.of_kinds(_KINDS, after=self._seen)
        topics = [(topic, entry.seq) for entry in found for topic in self._topics(entry.event)]
        if topics or end - self._saved >= _FAR:
            self._outbox.put(topics, position=(POSITION, end))
            self._saved = end
        passed, self._seen = end - self._seen, end
        return passed >= _STEP

    def _start(self) -> int:
        """Behind the last event on first use: what is old by then is not told. Never behind a journal put back."""
        saved, last = self._journal.position(POSITION), self._journal.last()
        if saved:
            return min(int(saved), last)
        self._outbox.put((), position=(POSITION, last))
        return last

    def _topics(self, event: Event) -> list[str]:
        topics = []
        if isinstance(event, Warned) and self._quota.warn_to:
            topics.append(_WARNINGS)
        if isinstance(event, Warned) and self._quota.warn_sender and event.level == "sender":
            sender = event.login or event.key
            topics += [_SENDER + sender] if _MAILBOX.fullmatch(sender) else []
        if isinstance(event, Braked) and self._quota.warn_to:
            topics.append(_BRAKE + event.login)
        if isinstance(event, KeyChanged) and self._quota.warn_to and event.change in keyletters.TOLD:
            topics.append(_KEYS)
        if isinstance(event, Mistrusted) and self._quota.warn_to:
            topics.append(_DOUBTS)
        return topics

    def _tell_next(self) -> bool:
        """The topic that waits longest, of those whose time has come."""
        now = self._now()
        if self._rests.rests(""):
            return False
        for topic, last in self._outbox.topics().items():
            if _kind(topic) not in _GAPS:
                continue  # somebody else's to tell
            if not 0 <= now - last < _GAPS[_kind(topic)] and not self._rests.rests(topic):
                try:
                    self._tell(topic, now)
                except Exception:  # boundary: a letter that cannot be written must not keep the others waiting
                    self._rests.failed(topic)
                    raise
                return True
        return False

    def _tell(self, topic: str, now: float) -> None:
        entries = self._outbox.waiting(topic)
        to = self._addressees(topic)
        letter = self._write(topic, [entry.event for entry in entries]) if to else None
        if letter is None:  # asked for by another configuration, or no longer in the journal
            self._outbox.drop(topic)
            return
        ident = self._token()
        about = f"{topic} {[entry.seq for entry in entries]}"
        message = self._mailer.compose(letter, to=to, ident=ident, about=about, now=now)
        notices.issue(self._journal.database, ident, now=now, until=now + ID_LIVES)
        try:
            refused = self._mailer.send(message, to=to)
        except OSError as error:
            self._postpone(topic, entries, error)
        else:
            self._taken[topic] = entries[-1].seq, now
            self._rests.succeeded("", topic)
            self._note()
            if refused:
                log.warning("a notice was not taken for %s, but for others", ", ".join(refused))
        notices.revoke(self._journal.database, ident)

    def _addressees(self, topic: str) -> Sequence[str]:
        if _kind(topic) != _SENDER:
            return self._quota.warn_to
        return [topic.removeprefix(_SENDER)] if self._quota.warn_sender else []

    def _write(self, topic: str, events: Sequence[Event]) -> Letter | None:
        host = self._mailer.host
        warnings = [event for event in events if isinstance(event, Warned)]
        brakes = [event for event in events if isinstance(event, Braked)]
        keys = [event for event in events if isinstance(event, KeyChanged)]
        doubts = [event for event in events if isinstance(event, Mistrusted)]
        if doubts:
            return removals.doubts(doubts, host=host)
        if keys:
            return keyletters.news(keys, host=host)
        if brakes:
            return letters.alarm(brakes, host=host)
        if not warnings:
            return None
        write = letters.digest if topic == _WARNINGS else letters.personal
        return write(warnings, host=host, room=self._room)

    def _note(self) -> None:
        """Of mail that was taken: it is not sent again, even where the journal cannot be written for a while."""
        for topic, (upto, when) in list(self._taken.items()):
            self._outbox.told(topic, upto=upto, now=when, forget=when - max(_GAPS.values()))
            del self._taken[topic]

    def _postpone(self, topic: str, entries: Sequence[Entry], error: OSError) -> None:
        """A server that answers no concerns this mail; one that does not answer concerns all mail."""
        self._failed("notices")
        personal = isinstance(error, OF_ONE)
        wait = self._rests.failed(topic if personal else "")
        place = self._mailer.smtp
        once.log(logging.ERROR, _kind(topic), "a notice by %s failed, again in %.0f s: %s", place, wait, error)
        if personal and self._now() - entries[-1].event.time > _GIVE_UP:
            log.error("given up: a notice of %d events", len(entries))
            self._outbox.drop(topic)
            self._rests.succeeded(topic)


def _kind(topic: str) -> str:
    return topic.partition(":")[0] + ":" if ":" in topic else topic


def forget(journal: Journal) -> None:
    """For a configuration that wants no notices: should they be wanted again, they begin with what is new then."""
    outbox = Outbox(journal.database)
    for topic in outbox.topics():
        if _kind(topic) in _GAPS:
            outbox.drop(topic)
    if journal.position(POSITION):
        journal.forget_positions([POSITION])
