"""Quotas: which limits a sender has, what a message is charged, and when one of them leaves no room for it.

The first rule whose conditions all hold decides, or else the limits for everyone. Knows nothing of how charges are kept
(`store`), nor of the words of a refusal (`refusal`). Two kinds of mail are spared: the null sender's is neither
refused nor charged (RFC 5321 4.5.5), and sendmail(1)'s is never deferred: pickup would bring it again for ever (D42).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import translate

from postmeter.config.schema import Limit, Network, Quota, Rule
from postmeter.mail import address
from postmeter.mail.draft import Draft, Figure
from postmeter.mail.message import Envelope
from postmeter.mail.reply import Reply
from postmeter.store.accounts import Accounts, Charge, Overdrawn
from postmeter.store.database import StoreError
from postmeter.submission import refusal
from postmeter.submission.identity import answerable, sender
from postmeter.submission.refusal import SPANS

_STORE_ERROR: Figure = ("quota_store_errors_total", ())

# In front of the last @. Postfix looks inside quotes, drops comments, and takes victim%else.example@here.example to
# else.example (postconf(5): resolve_dequoted_address, allow_percent_hack, swap_bangpath).
_ELSEWHERE = re.compile(r"""[\s@%!"(),:;<>\[\]\\]""")


@dataclass(frozen=True, slots=True)
class Allowance:
    """The limits of a sender, and what happens to more."""

    limits: tuple[Limit, ...]
    over: str


@dataclass(frozen=True, slots=True)
class _Rule:
    """A rule made ready. A condition that is None holds for everybody."""

    login: re.Pattern[str] | None
    service: str | None
    network: Network | None
    from_domain: str | None
    allowance: Allowance

    def holds(self, envelope: Envelope) -> bool:
        """All conditions but that on the From domain, which is not known before the end of the message."""
        if self.login is not None and not self.login.fullmatch(answerable(envelope)):
            return False
        if self.service is not None and self.service != envelope.service:
            return False
        return self.network is None or _within(envelope.client.address, self.network)


class Quotas:
    """Built once a worker; safe to call from any thread."""

    def __init__(self, quota: Quota, settler: Accounts) -> None:
        self._settler = settler
        self._rules = tuple(_ready(rule, quota.over) for rule in quota.rules)
        self._everyone = Allowance(quota.limits, quota.over)
        self._exempt = frozenset(exempt.lower() for exempt in quota.exempt)

    def charges(self, draft: Draft) -> tuple[Charge, ...]:
        """What `settle` has to charge for this message."""
        if draft.free:
            return ()
        return self._charges(draft, self._allowance(draft))

    def check(self, draft: Draft) -> Reply | None:
        """The pipeline's step: refuse a message for which some limit leaves no room. Reads only."""
        if draft.free:
            draft.note("quota", f"not charged: {draft.free}")
            return None
        allowance = self._allowance(draft)
        charges = self._charges(draft, allowance)
        if charges:
            draft.facts["charged"] = [[charge.unit, charge.window, charge.amount] for charge in charges]
        _explain(draft, allowance)
        over = self._over_at_once(draft, allowance) or self._overdrawn(draft, charges)
        if over is None:
            return None
        if allowance.over != "observe":
            return self.refuse(draft, over)
        draft.note("quota", f"over, and only observed: {refusal.sentence(over, draft.message.time)}")
        _count(draft, over)
        return None

    def refuse(self, draft: Draft, overdrawn: Overdrawn) -> Reply:
        """The reply for a message without room; also when `settle` finds, after all, that there is none."""
        _count(draft, overdrawn)
        reject = self._allowance(draft).over == "reject" or draft.message.envelope.client.local
        return refusal.reply(overdrawn, draft.message.time, reject=reject)

    def gate(self, envelope: Envelope, recipient: bytes | None, now: float) -> Reply | None:
        """Early refusal of a sender for whom not even one recipient would fit. Reads only.

        At MAIL alone: a recipient refused later would leave the others in, and a message must be refused whole. With
        exempt recipients nothing is decided here: the message may be for them.
        """
        if recipient is not None or self._exempt or not envelope.mail_from or envelope.client.local:
            return None
        allowance = self._early(envelope)
        if allowance is None or allowance.over == "observe":
            return None
        least = {"messages": 1, "recipients": 1, "bytes": 1}
        try:
            over = self._settler.glance(_charge(sender(envelope), allowance, least), now)
        except StoreError:
            self._settler.add({_STORE_ERROR: 1})
            return None
        if over is None:
            return None
        self._settler.add({_figure(over.charge): 1})
        return refusal.reply(over, now, reject=allowance.over == "reject")

    def of_login(self, name: str) -> tuple[Limit, ...]:
        """The limits that a sender of that name has by name alone: rules that ask for more than a login are left out.

        For people who look; mail is decided by all conditions.
        """
        envelope = Envelope(mail_from=b"?", login=name)
        for rule in self._rules:
            if (rule.service, rule.network, rule.from_domain) == (None, None, None) and rule.holds(envelope):
                return rule.allowance.limits
        return self._everyone.limits

    def _allowance(self, draft: Draft) -> Allowance:
        envelope = draft.message.envelope
        if not envelope.mail_from:
            return Allowance((), "observe")
        own = None if draft.borrowed else draft.from_domain
        for rule in self._rules:
            if rule.from_domain in (None, own) and rule.holds(envelope):
                return rule.allowance
        return self._everyone

    def _early(self, envelope: Envelope) -> Allowance | None:
        """What is certain at MAIL: None where a rule depends on the From domain."""
        for rule in self._rules:
            if rule.holds(envelope):
                return rule.allowance if rule.from_domain is None else None
        return self._everyone

    def _charges(self, draft: Draft, allowance: Allowance) -> tuple[Charge, ...]:
        return _charge(draft.sender, allowance, self._amounts(draft)) if allowance.limits else ()

    def _amounts(self, draft: Draft) -> dict[str, int]:
        """A message whose recipients are all exempt counts nothing, nor do its bytes."""
        recipients = sum(not self._is_exempt(rcpt) for rcpt in draft.message.envelope.rcpt_to)
        if not recipients:
            return {"messages": 0, "recipients": 0, "bytes": 0}
        return {"messages": 1, "recipients": recipients, "bytes": draft.message.size()}

    def _is_exempt(self, recipient: bytes) -> bool:
        if not self._exempt:
            return False
        name = address.text(recipient).lower()
        if name in self._exempt:
            return True
        local = name.rpartition("@")[0]
        return f"@{address.domain(name)}" in self._exempt and not _ELSEWHERE.search(local)

    def _over_at_once(self, draft: Draft, allowance: Allowance) -> Overdrawn | None:
        """The limit for a single message that this one passes."""
        amounts = self._amounts(draft)
        for limit in allowance.limits:
            if not limit.window and amounts[limit.unit] > limit.count:
                return Overdrawn(charge=_one(draft.sender, limit, amounts, enforce=True), used=0, room_at=None)
        return None

    def _overdrawn(self, draft: Draft, charges: Sequence[Charge]) -> Overdrawn | None:
        """What the ledger says. When it cannot be read, `settle` decides, and the journal's failure policy."""
        try:
            return self._settler.check([replace(charge, enforce=True) for charge in charges], draft.message.time)
        except StoreError as error:
            draft.figures[_STORE_ERROR] += 1
            draft.note("quota", f"not checked: {error}")
            return None


def _ready(rule: Rule, over: str) -> _Rule:
    limits = () if isinstance(rule.limits, str) else rule.limits
    return _Rule(
        login=re.compile(translate(rule.login.lower())) if rule.login is not None else None,
        service=rule.service,
        network=rule.network,
        from_domain=rule.from_domain,
        allowance=Allowance(limits, rule.over or over),
    )


def _within(client: str, network: Network) -> bool:
    try:
        return ipaddress.ip_address(client) in network
    except ValueError:
        return False


def _charge(key: str, allowance: Allowance, amounts: dict[str, int]) -> tuple[Charge, ...]:
    """One for each limit with a window; what counts nothing is not charged."""
    enforce = allowance.over != "observe"
    return tuple(
        _one(key, limit, amounts, enforce=enforce)
        for limit in allowance.limits
        if limit.window and amounts[limit.unit]
    )


def _one(key: str, limit: Limit, amounts: dict[str, int], *, enforce: bool) -> Charge:
    return Charge(
        key=key,
        unit=limit.unit,
        window=limit.window,
        limit=limit.count,
        amount=amounts[limit.unit],
        text=limit.text,
        enforce=enforce,
    )


def _explain(draft: Draft, allowance: Allowance) -> None:
    limits = ", ".join(limit.text for limit in allowance.limits) or "none"
    draft.note("quota", f"limits of {draft.sender}: {limits}")


def _figure(charge: Charge) -> Figure:
    return "quota_refusals_total", (SPANS[charge.window], charge.unit)


def _count(draft: Draft, over: Overdrawn) -> None:
    draft.figures[_figure(over.charge)] += 1
