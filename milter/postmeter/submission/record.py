"""What became of a message goes into ledger and journal: one transaction a message, then the verdict stands.

Knows nothing of libmilter or of how limits are chosen. The journal's failure policy lives here (`journal.on_error`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from time import time

from postmeter.mail.draft import Draft, Figure
from postmeter.mail.message import Envelope
from postmeter.mail.reply import Reply
from postmeter.metrics import Stopwatch
from postmeter.runtime.logs import OnceAMinute
from postmeter.store.accounts import Accounts, Charge
from postmeter.store.database import StoreError
from postmeter.submission.identity import sender
from postmeter.submission.pipeline import refiltered, refused, submitted
from postmeter.submission.quota import Quotas

log = logging.getLogger(__name__)
once = OnceAMinute(log)

LOST = Reply(451, "4.3.0", "the journal cannot be written, try again later")
# What is true of a message although nothing was changed in it, or although it was refused.
_ALWAYS = frozenset({"errors_total", "quota_refusals_total", "quota_store_errors_total", "from_mismatch_total"})


class Recorder:
    """One a worker, called from any thread. `tolerant` is `journal.on_error: accept`.

    `spend` uses up what set a notice free; false when that was done already.
    """

    def __init__(
        self,
        settler: Accounts,
        quotas: Quotas,
        *,
        observe: bool,
        tolerant: bool,
        spend: Callable[[Draft], bool] = lambda draft: False,
    ) -> None:
        self._settler = settler
        self._quotas = quotas
        self._observe = observe
        self._tolerant = tolerant
        self._spend = spend
        self._stopwatch = Stopwatch()

    def accepted(self, draft: Draft) -> Reply | None:
        """Charge every limit and record the message; a reply means that it must be refused after all."""
        if draft.free == "notice" and not self._spend(draft):
            draft.free = ""
        figures = self._figures(draft)
        event = submitted(draft) if draft.mark is None else refiltered(draft, draft.mark)
        try:
            settled = self._settler.settle(self._charges(draft), event, figures, time())
        except StoreError as error:
            lost = self._lost(error, draft.message.queue_id)
            return lost if draft.message.envelope.mail_from else None
        if settled.refused is None:
            return None
        reply = self._quotas.refuse(draft, settled.refused)
        self.refused(draft.message.envelope, reply, stage="quota", draft=draft)
        return reply

    def refused(self, envelope: Envelope, reply: Reply, *, stage: str, draft: Draft | None = None) -> None:
        """One event a minute for a sender and reason, counted up; a failure here cannot make a refusal worse."""
        now = time()
        figures = _always(draft) if draft else {}
        figures["messages_total", (envelope.service, "rejected" if reply.permanent else "deferred")] = 1
        whom = draft.sender if draft and draft.mark else sender(envelope)
        event = refused(envelope, reply, sender=whom, reason=stage, time=now)
        try:
            self._settler.settle((), event, figures, now)
        except StoreError as error:
            self._lost(error, sender(envelope))

    def passed(self, service: str) -> None:
        self._settler.add({("messages_total", (service, "passed")): 1})

    def failed(self, where: str) -> None:
        self._settler.add({("errors_total", (where,)): 1})

    def took(self, stage: str, seconds: float) -> None:
        self._stopwatch.observe(stage, seconds)

    def tick(self) -> None:
        """Timings ride along with the next transaction; they cost none of their own."""
        figures = self._stopwatch.take()
        if figures:
            self._settler.add(figures)

    def close(self) -> None:
        try:
            self.tick()
            self._settler.close()
        except StoreError as error:
            log.error("last figures lost: %s", error)

    def _figures(self, draft: Draft) -> dict[Figure, int]:
        """A message that was here before has been counted as taken, with its recipients."""
        figures = _always(draft) if self._observe else dict(draft.figures)
        service, recipients = draft.message.envelope.service, len(draft.message.envelope.rcpt_to)
        if draft.mark is not None:
            return figures | {("messages_total", (service, "refiltered")): 1}
        result = "observed" if self._observe else "accepted"
        return figures | {("messages_total", (service, result)): 1, ("recipients_total", ()): recipients}

    def _charges(self, draft: Draft) -> tuple[Charge, ...]:
        charges = self._quotas.charges(draft)
        return tuple(replace(charge, enforce=False) for charge in charges) if self._observe else charges

    def _lost(self, error: StoreError, subject: str) -> Reply | None:
        """The emergency spool failed as well: refuse for now, or accept what nobody will know of."""
        once.log(logging.ERROR, "journal", "%s: not recorded: %s", subject, error)
        self._settler.add({("errors_total", ("journal",)): 1})
        return None if self._tolerant or self._observe else LOST


def _always(draft: Draft) -> dict[Figure, int]:
    figures: Mapping[Figure, int] = draft.figures
    return {figure: count for figure, count in figures.items() if figure[0] in _ALWAYS}
