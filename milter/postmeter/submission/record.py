"""What became of a message goes into ledger and journal: one transaction a message, then the verdict stands.

Knows nothing of libmilter or of how limits are chosen. The journal's failure policy lives here (`journal.on_error`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from time import time

from postmeter.events import Braked, Event, Suppressed
from postmeter.mail.draft import Draft, Figure
from postmeter.mail.message import Envelope
from postmeter.mail.reply import Reply
from postmeter.metrics import Stopwatch
from postmeter.runtime.logs import OnceAMinute
from postmeter.store.accounts import Accounts, Charge, Hold, Overdrawn, Settled, StoreDownError
from postmeter.store.database import StoreError
from postmeter.submission import refusal, standing
from postmeter.submission.brake import Watch
from postmeter.submission.identity import sender
from postmeter.submission.network import network
from postmeter.submission.pipeline import refiltered, refused, submitted
from postmeter.submission.quota import Quotas

log = logging.getLogger(__name__)
once = OnceAMinute(log)

DOWN = Reply(451, "4.3.0", "your quota cannot be looked up just now, try again later")
LOST = Reply(451, "4.3.0", "the journal cannot be written, try again later")
# What is true of a message although nothing was changed in it, or although it was refused.
_ALWAYS = frozenset({"errors_total", "quota_refusals_total", "quota_store_errors_total", "from_mismatch_total"})


class Recorder:
    """One a worker, called from any thread. `tolerant` is `journal.on_error: accept`, `uncharged` the same of
    `quota.on_store_down`.

    `spend` uses up what set a notice free; false when that was done already. At most `hold_at_most` messages of
    a sender are held at one time. `brake` stops a login that `watch` found to be stolen.
    """

    def __init__(
        self,
        settler: Accounts,
        quotas: Quotas,
        *,
        observe: bool,
        tolerant: bool,
        uncharged: bool = True,
        hold_at_most: int = 0,
        spend: Callable[[Draft], bool] = lambda draft: False,
        watch: Watch | None = None,
        brake: Callable[[Braked], None] = lambda braked: None,
        prefix: Sequence[int] = (24, 56),
    ) -> None:
        self._settler = settler
        self._quotas = quotas
        self._observe = observe
        self._tolerant = tolerant
        self._uncharged = uncharged
        self._hold_at_most = hold_at_most
        self._spend = spend
        self._watch = watch
        self._brake = brake
        self._prefix = prefix
        self._told = ""
        self._stopwatch = Stopwatch()
        self.took = self._stopwatch.observe

    def accepted(self, draft: Draft) -> Reply | None:
        """Charge every limit and record the message; a reply means that it must be refused after all."""
        if draft.free == "notice" and not self._spend(draft):
            draft.free = ""
        try:
            return self._take(draft)
        except StoreDownError as error:
            return self._without_quotas(draft, error)
        except StoreError as error:
            draft.hold = ""  # what is on no record would be held for ever
            return self._unrecorded(draft, error)

    def refused(self, envelope: Envelope, reply: Reply, *, stage: str, draft: Draft | None = None) -> None:
        """One event a minute for a sender and reason, counted up; a failure here cannot make a refusal worse."""
        now = time()
        figures = _always(draft) if draft else {}
        figures["messages_total", (envelope.service, "rejected" if reply.permanent else "deferred")] = 1
        whom = draft.sender if draft and draft.mark else sender(envelope)
        event = refused(envelope, reply, sender=whom, reason=stage, time=now)
        besides = draft.besides if draft and stage == "suppression" else ()
        try:
            self._settler.settle((), event, figures, now, besides=besides)
        except StoreError as error:
            self._settler.add(figures)
            self._lost(error, sender(envelope))

    def passed(self, service: str) -> None:
        self._settler.add({("messages_total", (service, "passed")): 1})

    def failed(self, where: str) -> None:
        self._settler.add({("errors_total", (where,)): 1})

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

    def _take(self, draft: Draft) -> Reply | None:
        """`draft.hold` tells from here on what is so: a step may have held what there is room for by now."""
        charges = self._charges(draft)
        if draft.hold == "brake" and not self._observe:
            return self._hold(draft, charges, None)
        draft.hold = ""
        settled, braked = self._watched(draft, charges)
        if braked is not None and not braked.observed:
            return self._stop(draft, charges, braked)
        if settled.observed is not None:
            self._quotas.observed(draft, settled.observed)
        over = settled.refused
        if over is None:
            return None
        if self._quotas.over(draft, over) == "hold":
            draft.hold = "brake" if over.charge.level == "brake" else "quota"
            return self._hold(draft, charges, over)
        return self._refuse(draft, over)

    def _watched(self, draft: Draft, charges: Sequence[Charge]) -> tuple[Settled, Braked | None]:
        """Settled under the brake's eyes; the login that it would stop is told of once an hour."""
        if self._watch is None:
            return self._settle(draft, charges), None
        settled, braked = self._watch.settle(draft, charges, partial(self._settle, draft), time())
        if braked is not None:
            if braked.source != self._told:
                self._told, how = braked.source, "would stop it" if braked.observed else "stops it"
                log.warning("%s: the brake %s: %s", braked.login, how, braked.evidence)
            self._settler.settle((), braked, {}, braked.time)
        return settled, braked

    def _stop(self, draft: Draft, charges: Sequence[Charge], braked: Braked) -> Reply | None:
        """From this message on the login is stopped; what comes next meets the order (`standing`)."""
        self._brake(braked)
        if braked.action == "hold":
            draft.hold = "brake"
            return self._hold(draft, charges, None)
        reply = standing.stopped(draft.message.envelope, draft.sender)
        self.refused(draft.message.envelope, reply, stage="brake", draft=draft)
        return reply

    def _settle(self, draft: Draft, charges: Sequence[Charge], hold: Hold | None = None) -> Settled:
        now = time()
        if "charged" in draft.facts:
            draft.facts["charged_at"] = now
        if draft.mark is None:
            event: Event = submitted(draft, network=network(draft.message.envelope.client, self._prefix))
        else:
            event = refiltered(draft, draft.mark)
        return self._settler.settle(charges, event, self._figures(draft), now, hold=hold, besides=draft.besides)

    def _hold(self, draft: Draft, charges: Sequence[Charge], over: Overdrawn | None) -> Reply | None:
        """What it is charged is owed until it leaves; but for the brake's, which has had its say then."""
        queue_id, why = draft.message.queue_id, refusal.sentence(over, time()) if over else "stopped by the brake"
        hold = Hold(
            queue_id=queue_id,
            sender=draft.sender,
            login=draft.message.envelope.login,
            reason=draft.hold,
            charges=tuple(charge for charge in charges if charge.level != "brake"),
            most=self._hold_at_most,
        )
        draft.facts["held"] = draft.hold
        if "charged" in draft.facts:
            draft.facts["owed"] = draft.facts.pop("charged")
        draft.facts.pop("charged_at", None)
        if self._hold_at_most and not self._settle(draft, (), hold).full:
            log.info("%s: to the hold queue: %s", queue_id, why)
            return None
        draft.hold = ""
        del draft.facts["held"]
        return self._refuse(draft, over)

    def _refuse(self, draft: Draft, over: Overdrawn | None) -> Reply:
        """Without `over` it is the brake's mail, of which no more may be held."""
        reply = self._quotas.refuse(draft, over) if over else standing.too_many(draft, self._hold_at_most)
        self.refused(draft.message.envelope, reply, stage="quota" if over else "brake", draft=draft)
        return reply

    def _figures(self, draft: Draft) -> dict[Figure, int]:
        """A message that was here before has been counted as taken, with its recipients."""
        figures = _always(draft) if self._observe else dict(draft.figures)
        service, recipients = draft.message.envelope.service, len(draft.message.envelope.rcpt_to)
        if draft.mark is not None:
            figures["messages_total", (service, "refiltered")] = 1
            return figures
        if draft.wishes.test and not self._observe:  # what was done to it reaches nobody
            return _always(draft) | {("messages_total", (service, "discarded")): 1}
        result = "observed" if self._observe else "held" if draft.hold else "accepted"
        figures["messages_total", (service, result)] = 1
        figures["recipients_total", ()] = recipients
        return figures

    def _charges(self, draft: Draft) -> tuple[Charge, ...]:
        charges = self._quotas.charges(draft)
        return tuple(replace(charge, enforce=False) for charge in charges) if self._observe else charges

    def _without_quotas(self, draft: Draft, error: StoreDownError) -> Reply | None:
        """The store of the quotas is gone: nothing was charged. The journal may be well, and has its own policy."""
        policy = "accept" if self._uncharged else "tempfail"
        once.log(logging.ERROR, "store", "quotas are not kept, on_store_down: %s: %s", policy, error)
        draft.count("quota_store_errors_total")
        draft.facts.pop("charged", None)
        draft.facts.pop("charged_at", None)
        draft.hold = ""
        if not self._uncharged and not self._observe and draft.message.envelope.mail_from:
            self.refused(draft.message.envelope, DOWN, stage="store", draft=draft)
            return DOWN
        try:
            self._settle(draft, ())
        except StoreError as lost:
            return self._unrecorded(draft, lost)
        return None

    def _unrecorded(self, draft: Draft, error: StoreError) -> Reply | None:
        """No event tells of it, but its figures wait in memory until the journal is back."""
        envelope = draft.message.envelope
        lost = self._lost(error, draft.message.queue_id, besides=draft.besides)
        if lost is None or not envelope.mail_from:
            self._settler.add(self._figures(draft))
            return None
        self._settler.add(_always(draft) | {("messages_total", (envelope.service, "deferred")): 1})
        return lost

    def _lost(self, error: StoreError, subject: str, *, besides: Sequence[Event] = ()) -> Reply | None:
        """The emergency spool failed as well: refuse for now, or accept what nobody will know of.

        A message that lost recipients is not accepted so: its sender would never be told.
        """
        once.log(logging.ERROR, "journal", "%s: not recorded: %s", subject, error)
        self._settler.add({("errors_total", ("journal",)): 1})
        removed = any(isinstance(one, Suppressed) and not one.observed for one in besides)
        return None if (self._tolerant and not removed) or self._observe else LOST


def _always(draft: Draft) -> dict[Figure, int]:
    return {figure: count for figure, count in draft.figures.items() if figure[0] in _ALWAYS}
