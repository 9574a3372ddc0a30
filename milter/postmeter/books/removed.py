"""Tells senders of recipients that were removed from their messages: one report a message, by mail.

Reads the journal from a saved position; what is to be told waits in the outbox, and leaves it when the server has taken
the mail. Killed in between, the same report goes once more, under the same Message-ID. A report has the null sender, so
that nothing comes back of it, and a one-time id, so that it is neither charged nor rewritten nor suppressed. Knows
nothing of words (`removals`), nor of why anybody is suppressed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from smtplib import SMTPDataError, SMTPRecipientsRefused
from time import monotonic, time

from postmeter.books import removals
from postmeter.books.backoff import Rests
from postmeter.books.mailing import ID_LIVES, OF_ONE, Mailer
from postmeter.events import Suppressed
from postmeter.runtime.logs import OnceAMinute
from postmeter.store import notices
from postmeter.store.database import StoreError
from postmeter.store.journal import Journal
from postmeter.store.outbox import Outbox

log = logging.getLogger(__name__)
once = OnceAMinute(log)

POSITION = "removed"

_TOPIC = "removed:"
_FAR = 10_000  # events behind the saved position; a restart looks at so many once more
_STEP = 1000  # numbers that one look at the journal passes, where there are so many
_FIRST, _MOST = 10.0, 900.0  # seconds of rest after a failure
_GIVE_UP = 3 * 86_400.0  # seconds; a sender knows by then, or asks


class Removed:
    """`now` and `ticks` are clocks, of the day and monotonic; `token` gives 32 random hexadecimal digits."""

    def __init__(
        self,
        journal: Journal,
        mailer: Mailer,
        *,
        failed: Callable[[str], None],
        token: Callable[[], str],
        chance: Callable[[], float],
        now: Callable[[], float] = time,
        ticks: Callable[[], float] = monotonic,
    ) -> None:
        self._journal, self._outbox, self._mailer = journal, Outbox(journal.database), mailer
        self._failed, self._token, self._now = failed, token, now
        self._seen = self._saved = -1
        self._rests = Rests(first=_FIRST, most=_MOST, chance=chance, ticks=ticks)

    def work(self) -> bool:
        """A slice of the journal, and one report at most; true when there is more."""
        more = self._read()
        return self._tell_next() or more

    def close(self) -> None:
        with suppress(StoreError):
            self._journal.close()

    def _read(self) -> bool:
        if self._seen < 0:
            self._seen = self._saved = min(int(self._journal.position(POSITION) or 0), self._journal.last())
        found, end = self._journal.of_kinds(("suppressed",), after=self._seen)
        told = [(entry.seq, entry.event) for entry in found if isinstance(entry.event, Suppressed)]
        topics = [(_TOPIC + event.reference, seq) for seq, event in told if self._concerns(event)]
        if topics or end - self._saved >= _FAR:
            self._outbox.put(topics, position=(POSITION, end))
            self._saved = end
        passed, self._seen = end - self._seen, end
        return passed >= _STEP

    def _concerns(self, event: Suppressed) -> bool:
        """Of a message that nobody got, or that was refused at RCPT, its sender was told by the refusal."""
        telling = event.reference and not event.observed and not event.quiet
        return bool(telling) and self._now() - event.time < _GIVE_UP

    def _tell_next(self) -> bool:
        if self._rests.rests(""):
            return False
        for topic in self._outbox.topics():
            if topic.startswith(_TOPIC) and not self._rests.rests(topic):
                try:
                    self._tell(topic)
                except Exception:  # boundary: a report that cannot be written must not keep the others waiting
                    self._rests.failed(topic)
                    raise
                return True
        return False

    def _tell(self, topic: str) -> None:
        message = self._journal.submitted(topic.removeprefix(_TOPIC))
        events = [entry.event for entry in self._outbox.waiting(topic)]
        removed = [event for event in events if isinstance(event, Suppressed)]
        if message is None or not removed or "@" not in message.mail_from:
            self._done(topic)
            return
        ident, now = self._token(), self._now()
        try:
            report = removals.report(message, removed, self._mailer, ident=ident, now=now)
        except ValueError as error:  # an address that no field may hold
            log.error("%s: its sender cannot be told of removed recipients: %s", message.queue_id, error)
            self._done(topic)
            return
        notices.issue(self._journal.database, ident, now=now, until=now + ID_LIVES)
        try:
            self._mailer.send(report, to=[message.mail_from], sender="")
        except OSError as error:
            self._postpone(topic, removed[-1].time, error)
        else:
            self._rests.succeeded("")
            self._done(topic)
        notices.revoke(self._journal.database, ident)

    def _postpone(self, topic: str, since: float, error: OSError) -> None:
        """A server that answers no concerns this report; one that does not answer concerns all mail."""
        self._failed("removed")
        personal = isinstance(error, OF_ONE)
        wait = self._rests.failed(topic if personal else "")
        once.log(logging.ERROR, "removed", "a report by %s failed, again in %.0f s: %s", self._mailer.smtp, wait, error)
        if personal and (_final(error) or self._now() - since > _GIVE_UP):
            log.error("given up: a sender is not told of removed recipients: %s", error)
            self._done(topic)

    def _done(self, topic: str) -> None:
        self._outbox.drop(topic)
        self._rests.succeeded(topic)


def _final(error: OSError) -> bool:
    """A 5xx: nobody takes mail for that sender, and a report is returned to nobody (RFC 5321 section 4.5.5)."""
    if isinstance(error, SMTPRecipientsRefused):
        return all(code >= 500 for code, _ in error.recipients.values())
    return isinstance(error, SMTPDataError) and error.smtp_code >= 500


def forget(journal: Journal) -> None:
    """For a configuration that removes nobody."""
    outbox = Outbox(journal.database)
    for topic in outbox.topics():
        if topic.startswith(_TOPIC):
            outbox.drop(topic)
