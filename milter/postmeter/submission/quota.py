"""Quotas: what a message is charged at every level, and what becomes of one for which some limit leaves no room.

Knows nothing of rules (`levels`), of how charges are kept (`store`), nor of the words of a refusal (`refusal`). Two
kinds of mail are spared: the null sender's is neither refused nor charged (RFC 5321 4.5.5), and mail for whose reply no
client waits is never deferred: pickup would bring it again for ever (D42).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from time import time

from postmeter.config.amounts import limits
from postmeter.config.problem import MistakeError
from postmeter.config.schema import Limit, Quota
from postmeter.mail import address
from postmeter.mail.draft import Draft, Figure
from postmeter.mail.message import Envelope
from postmeter.mail.reply import Reply
from postmeter.runtime.logs import OnceAMinute
from postmeter.store.accounts import Accounts, Charge, Overdrawn
from postmeter.store.database import StoreError
from postmeter.submission import refusal
from postmeter.submission.identity import sender
from postmeter.submission.levels import Allowance, Decision, Levels
from postmeter.submission.refusal import SPANS

log = logging.getLogger(__name__)
once = OnceAMinute(log)

Override = Callable[[str], "str | None"]
"""The limits that a person ordered for a sender for a while, as on a command line; None without an order."""

_STORE_ERROR: Figure = ("quota_store_errors_total", ())
_LEAST = {"messages": 1, "recipients": 1, "bytes": 1}
_NOTHING = {"messages": 0, "recipients": 0, "bytes": 0}

# In front of the last @. Postfix looks inside quotes, drops comments, and takes victim%else.example@here.example to
# else.example (postconf(5): resolve_dequoted_address, allow_percent_hack, swap_bangpath).
_ELSEWHERE = re.compile(r"""[\s@%!"(),:;<>\[\]\\]""")


@dataclass(frozen=True, slots=True)
class Tally:
    """What the levels say about a message, made once: the step and `settle` must mean the same."""

    decisions: tuple[Decision, ...]
    amounts: Mapping[str, int]
    charges: tuple[Charge, ...]


class Quotas:
    """Built once a worker; safe to call from any thread."""

    def __init__(
        self,
        quota: Quota,
        accounts: Accounts,
        *,
        levels: Levels | None = None,
        override: Override = lambda name: None,
        look: bool = True,
        observe: bool = False,
        clock: Callable[[], float] = time,
    ) -> None:
        """`look`: the step asks the store; without, `settle` alone decides. `observe` is `mode: observe`."""
        self._accounts = accounts
        self._levels = levels or Levels(quota)
        self._override = override
        self._look = look
        self._observe = observe
        self._clock = clock
        self._braked = quota.brake.action
        self._exempt = frozenset(exempt.lower() for exempt in quota.exempt)
        self._warn = () if observe else tuple(sorted({round(share * 100) for share in quota.warn_at}))

    def charges(self, draft: Draft) -> tuple[Charge, ...]:
        """What `settle` has to charge for this message; the journal will say so."""
        charges = self._tally(draft).charges
        if charges:
            draft.facts["charged"] = [[c.level, c.key, c.unit, c.window, c.amount] for c in charges]
        return tuple(replace(charge, enforce=False) for charge in charges) if self._observe else charges

    def check(self, draft: Draft) -> Reply | None:
        """The pipeline's step: refuse a message for which some limit can leave no room, now or ever. Reads only."""
        if draft.free:
            draft.note("quota", f"not charged: {draft.free}")
            return None
        tally = self._tally(draft)
        if self._look:
            draft.note("quota", "; ".join(map(str, tally.decisions)) or "not charged: the null sender")
        over = self._too_large(draft, tally)
        if over is None and self._look:
            over = self._overdrawn(draft, tally.charges)
        if over is None:
            return None
        if self.over(draft, over) == "hold":
            draft.hold = draft.hold or "quota"
            draft.note("quota", f"to Postfix's hold queue: {refusal.sentence(over, draft.message.time)}")
            return None
        return self.refuse(draft, over)

    def over(self, draft: Draft, overdrawn: Overdrawn) -> str:
        """What becomes of a message without room: defer, reject or hold. What can never fit waits for nothing."""
        if overdrawn.room_at is None:
            return "reject"
        action = self._action(draft, overdrawn.charge.level)
        return "reject" if action == "defer" and not _waits(draft.message.envelope) else action

    def refuse(self, draft: Draft, overdrawn: Overdrawn) -> Reply:
        """The reply for a message without room, in the step or at `settle`; what cannot be held is deferred."""
        _count(draft, _figure(overdrawn.charge))
        reject = self.over(draft, overdrawn) == "reject" or not _waits(draft.message.envelope)
        return refusal.reply(overdrawn, draft.message.time, reject=reject)

    def observed(self, draft: Draft, overdrawn: Overdrawn) -> None:
        """A limit that is not enforced was passed (`Settled.observed`). Where the step looks, it has counted that.

        The brake tells what it found by itself.
        """
        if not self._look and overdrawn.charge.level != "brake":
            self._accounts.add({_figure(overdrawn.charge): 1})
            log.info("%s: %s", draft.message.queue_id, _watched(overdrawn, draft.message.time))

    def gate(self, envelope: Envelope, recipient: bytes | None, now: float) -> Reply | None:
        """Early refusal of a sender for whom not even one recipient would fit, as far as is certain at MAIL.

        At MAIL alone: a recipient refused later would leave the others in, and a message must be refused whole. With
        exempt recipients nothing is decided here: the message may be for them.
        """
        if recipient is not None or self._exempt or not envelope.mail_from or not _waits(envelope):
            return None
        name = sender(envelope)
        decisions = self._decide(envelope, sender=name, domain=None, now=now)
        try:
            least = _kept_least if len(name) <= _USUAL else _least
            over = self._accounts.glance(least(decisions, self._warn), now)
        except StoreError:
            self._accounts.add({_STORE_ERROR: 1})
            return None
        if over is None:
            return None
        self._accounts.add({_figure(over.charge): 1})
        return refusal.reply(over, now, reject=_of(decisions, over.charge.level).over == "reject")

    def limits_of(self, level: str, key: str) -> tuple[Limit, ...]:
        """The limits that a key of a level has by name alone: rules that ask for more are left out.

        For people who look; mail is decided by all conditions.
        """
        found = Decision(level, key, self._levels.by_name(level, key, self._clock()))
        order = self._override(key) if level == "sender" else None
        return (found if order is None else _ordered(found, order)).allowance.limits

    def _tally(self, draft: Draft) -> Tally:
        if draft.free or not draft.message.envelope.mail_from:
            return Tally((), _NOTHING, ())
        if not isinstance(draft.tally, Tally):
            draft.tally = tally = self._count(draft)
            return tally
        return draft.tally

    def _count(self, draft: Draft) -> Tally:
        domain = "" if draft.borrowed else draft.from_domain
        envelope, now = draft.message.envelope, draft.message.time
        decisions = self._decide(envelope, sender=draft.sender, domain=domain, now=now)
        amounts = self._amounts(draft)
        return Tally(decisions, amounts, _charges(decisions, amounts, self._warn))

    def _decide(self, envelope: Envelope, *, sender: str, domain: str | None, now: float) -> tuple[Decision, ...]:
        """An order of a person's stands in place of the sender's limits; what happens to more stays as it is."""
        decisions = self._levels.of(envelope, sender=sender, domain=domain, now=now)
        order = self._override(sender)
        if order is None:
            return decisions
        return tuple(_ordered(one, order) if one.level == "sender" else one for one in decisions)

    def _action(self, draft: Draft, level: str) -> str:
        return self._braked if level == "brake" else _of(self._tally(draft).decisions, level).over

    def _amounts(self, draft: Draft) -> Mapping[str, int]:
        """A message whose recipients are all exempt counts nothing, nor do its bytes."""
        rcpt_to = draft.message.envelope.rcpt_to
        recipients = len(rcpt_to)
        if self._exempt:
            recipients = sum(not self._is_exempt(rcpt) for rcpt in rcpt_to)
        return {"messages": 1, "recipients": recipients, "bytes": draft.size} if recipients else _NOTHING

    def _is_exempt(self, recipient: bytes) -> bool:
        name = address.text(recipient).lower()
        local, domain = name.rpartition("@")[0], f"@{address.domain(name)}"
        return local + domain in self._exempt or (domain in self._exempt and not _ELSEWHERE.search(local))

    def _too_large(self, draft: Draft, tally: Tally) -> Overdrawn | None:
        """The first limit that this message alone passes."""
        for decision in tally.decisions:
            for limit in decision.allowance.limits:
                if tally.amounts[limit.unit] <= limit.count:
                    continue
                over = Overdrawn(charge=_charge(decision, limit, tally.amounts, ()), used=0, room_at=None)
                if over.charge.enforce:
                    return over
                if not limit.window:
                    _watch(draft, over)
        return None

    def _overdrawn(self, draft: Draft, charges: Sequence[Charge]) -> Overdrawn | None:
        """What the store says. When it cannot be read, `settle` decides, and the journal's failure policy."""
        now = draft.message.time
        try:
            over = self._accounts.check([charge for charge in charges if charge.enforce], now)
            watched = [replace(charge, enforce=True) for charge in charges if not charge.enforce]
            seen = self._accounts.check(watched, now)
        except StoreError as error:
            _count(draft, _STORE_ERROR)
            draft.note("quota", f"not checked: {error}")
            return None
        if seen is not None:
            _watch(draft, seen)
        return over


def _waits(envelope: Envelope) -> bool:
    """Whether a client hears our reply; without one a deferral would come again every minute."""
    return envelope.waits and not envelope.client.local


def _of(decisions: Sequence[Decision], level: str) -> Allowance:
    return next(decision.allowance for decision in decisions if decision.level == level)


def _ordered(decision: Decision, order: str) -> Decision:
    limits = _limits(order)
    if limits is None:
        return decision
    return replace(decision, allowance=Allowance(limits, decision.allowance.over, "by order"))


@lru_cache(maxsize=1024)
def _limits(order: str) -> tuple[Limit, ...] | None:
    """Read once; what makes no sense, a later version's perhaps, orders nothing."""
    try:
        return limits(order)
    except MistakeError as error:
        once.log(logging.ERROR, "order", "an order for limits is left out: %s", error)
        return None


def _least(decisions: Sequence[Decision], warn: tuple[int, ...]) -> tuple[Charge, ...]:
    """What any message is charged at least where it would be refused for it."""
    return _charges([one for one in decisions if one.allowance.over in ("defer", "reject")], _LEAST, warn)


_USUAL = 500  # characters of a name: nobody fills what is kept with longer ones
_kept_least = lru_cache(maxsize=1024)(_least)


def _charges(decisions: Sequence[Decision], amounts: Mapping[str, int], warn: tuple[int, ...]) -> tuple[Charge, ...]:
    """One for each limit with a window; what counts nothing is not charged."""
    return tuple(
        [
            _charge(decision, limit, amounts, warn)
            for decision in decisions
            for limit in decision.allowance.limits
            if limit.window and amounts[limit.unit]
        ]
    )


def _charge(decision: Decision, limit: Limit, amounts: Mapping[str, int], warn: tuple[int, ...]) -> Charge:
    return Charge(
        key=decision.key,
        unit=limit.unit,
        window=limit.window,
        limit=limit.count,
        amount=amounts[limit.unit],
        text=limit.text,
        level=decision.level,
        enforce=decision.allowance.over != "observe",
        warn=warn,
    )


def _watch(draft: Draft, over: Overdrawn) -> None:
    _count(draft, _figure(over.charge))
    draft.note("quota", _watched(over, draft.message.time))


def _watched(over: Overdrawn, now: float) -> str:
    return f"over, and only observed: {refusal.sentence(over, now)}"


def _count(draft: Draft, figure: Figure) -> None:
    metric, labels = figure
    draft.count(metric, *labels)


def _figure(charge: Charge) -> Figure:
    return "quota_refusals_total", (SPANS[charge.window], charge.unit)
