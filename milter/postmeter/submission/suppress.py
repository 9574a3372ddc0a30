"""Suppression: recipients that are not written to again, refused at RCPT or removed at the end of the message.

At RCPT a refusal makes a mail program give up the whole message, and nobody knows yet what the message is: so only
`everywhere` is refused there, only for logins that may never bypass, and only where suppression is for all mail. All
else is decided at the end: the recipient goes, the others get the message, the sender is told (`books.removed`); when
nobody is left the message is refused. Mail of sendmail(1) is decided there alone: cleanup(8) takes a refusal at RCPT
for an error of the configuration (D8). The null sender's mail and our own notices are never touched.

Knows nothing of how anybody comes to be suppressed (`store.lessons`), nor of what bulk mail is: it is told.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from time import gmtime, strftime, time

from postmeter.config.schema import Suppression as Settings
from postmeter.events import Suppressed
from postmeter.mail import address
from postmeter.mail.draft import Draft
from postmeter.mail.message import Envelope
from postmeter.mail.reply import Reply
from postmeter.mail.scope import scope
from postmeter.runtime.logs import OnceAMinute
from postmeter.store.database import StoreError
from postmeter.store.suppression import EVERYWHERE, REASONS, Lookup, Suppression

log = logging.getLogger(__name__)
once = OnceAMinute(log)

NAME = b"X-Postmeter-Bypass-Suppression"
STATUS = "5.7.1"
"""RFC 3463 section 3.8: not authorized, a rule of ours. Not 5.1.1: whether the address is there nobody asked today, and
who reads our reports must not take it for dead."""

_KEY = NAME.lower()
_YES = frozenset({b"yes", b"true", b"on", b"1"})
_WHY = {
    "bounced": "its mail came back",
    "complained": "it reported mail as spam",
    "unsubscribed": "it unsubscribed",
    "manual": "the administrator says so",
}
_ENVID = re.compile(r"(?i)ENVID=([!-~]{1,100})")  # RFC 3461 section 4.4
_HEX = re.compile(r"\+([0-9A-F]{2})")


class Suppress:
    """One a worker, called from any thread. `bulk` tells bulk mail; `observe` changes nothing and tells all.

    `record` keeps what a gate refused: there is no message yet that it could be recorded with.
    """

    def __init__(
        self,
        settings: Settings,
        lookup: Lookup,
        *,
        bulk: Callable[[Draft], bool],
        observe: bool,
        record: Callable[[Suppressed], None] = lambda event: None,
    ) -> None:
        self._lookup, self._bulk, self._observe, self._record = lookup, bulk, observe, record
        self._all = settings.mail == "all"
        self._may_bypass = frozenset(login.lower() for login in settings.bypass)

    @property
    def gates(self) -> bool:
        """Whether anything can be decided at RCPT: else nobody should wait for it there."""
        return self._all and not self._observe

    def gate(self, envelope: Envelope, recipient: bytes | None) -> Reply | None:
        """At RCPT: a recipient who must not be written to by anybody, as far as is certain there."""
        login = envelope.login.lower()
        if recipient is None or not self.gates or not login or login in self._may_bypass:
            return None
        name = address.text(recipient)
        found = [one for one in self._find([name]).get(name, ()) if one.scope == EVERYWHERE and not one.narrow]
        if not found:
            return None
        one = _weightiest(found)
        self._record(_early(envelope, name, one, time()))
        return Reply(550, STATUS, sentence(name, one))

    def step(self, draft: Draft) -> Reply | None:
        """Remove who is suppressed for this message. The field that asks to let it be goes from all mail of ours."""
        asks = _KEY in draft.message.keys
        asked = [field.value for field in draft.fields if field.key == _KEY] if asks else []
        refused = draft.drop_fields(NAME) if asked else None
        if refused is not None or draft.free or not draft.message.envelope.mail_from:
            return refused
        if asked and self._bypasses(draft, asked):
            draft.note("suppression", "left out, as the sender asks, who may")
            draft.facts["bypass"] = True
            return None
        bulk = self._bulk(draft)
        return self._decide(draft, bulk=bulk) if bulk or self._all else None

    def _bypasses(self, draft: Draft, asked: Sequence[bytes]) -> bool:
        if draft.message.envelope.login.lower() not in self._may_bypass or not draft.message.envelope.login:
            draft.note("suppression", f"{NAME.decode()}: removed; does not count for this sender")
            return False
        return len(asked) == 1 and asked[0].strip().lower() in _YES

    def _decide(self, draft: Draft, *, bulk: bool) -> Reply | None:
        envelope = draft.message.envelope
        names = {rcpt: address.text(rcpt) for rcpt in envelope.rcpt_to if address.is_utf_8(rcpt)}
        hits = self._find(list(dict.fromkeys(names.values())), draft)
        if not hits:
            return None
        scopes = {EVERYWHERE, f"domain:{draft.from_domain}", scope(draft.message.fields) if bulk else ""}
        found: dict[bytes, Suppression] = {}
        for rcpt, name in names.items():
            holding = [one for one in hits.get(name, ()) if one.scope in scopes and (bulk or not one.narrow)]
            if holding:
                found[rcpt] = _weightiest(holding)
        for rcpt, one in found.items():
            self._tell(draft, rcpt, one)
        if not found or self._observe:
            return None
        draft.drop_recipients(found)
        if draft.message.envelope.rcpt_to:
            return None
        return _nobody(names, found)

    def _tell(self, draft: Draft, rcpt: bytes, one: Suppression) -> None:
        message, name = draft.message, address.text(rcpt)
        draft.note("suppression", f"{'would remove' if self._observe else 'removed'}: {sentence(name, one)}")
        envid = next((match[1] for arg in message.envelope.args if (match := _ENVID.fullmatch(address.text(arg)))), "")
        draft.besides.append(
            Suppressed(
                source=f"suppressed:{message.reference.hex()}:{name}",
                time=message.time,
                queue_id=message.queue_id,
                reference=message.reference.hex(),
                login=message.envelope.login,
                from_domain=draft.from_domain,
                recipient=name,
                reason=one.reason,
                scope=one.scope,
                campaign=draft.wishes.campaign,
                observed=self._observe,
                evidence=one.evidence,
                since=one.since,
                until=one.until,
                quiet=rcpt in message.envelope.quiet,
                envid=_HEX.sub(lambda match: chr(int(match[1], 16)), envid),
            )
        )

    def _find(self, names: Sequence[str], draft: Draft | None = None) -> dict[str, list[Suppression]]:
        """A journal that cannot be read suppresses nobody: mail goes on, as it does without quotas."""
        try:
            return self._lookup.find(names)
        except StoreError as error:
            once.log(logging.ERROR, "suppression", "nobody is suppressed just now: %s", error)
            if draft is not None:
                draft.count("errors_total", "suppression")
                draft.note("suppression", f"not looked up: {error}")
            return {}


def sentence(name: str, one: Suppression) -> str:
    """Who, why, since when, how long."""
    since = strftime("%Y-%m-%d", gmtime(max(0.0, one.since)))
    until = f" until {strftime('%Y-%m-%d', gmtime(one.until))}" if one.until is not None else ""
    said = f": {one.evidence}" if one.evidence else ""
    return f"{name} is suppressed here since {since}{until}, {_WHY.get(one.reason, one.reason)}{said}"


def _nobody(names: dict[bytes, str], found: dict[bytes, Suppression]) -> Reply:
    rcpt, one = next(iter(found.items()))
    more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
    return Reply(550, STATUS, f"no recipient is left: {sentence(names[rcpt], one)[:250]}{more}")


def _early(envelope: Envelope, name: str, one: Suppression, now: float) -> Suppressed:
    """Of one refused before there was a message: one event a minute for a login and a recipient."""
    return Suppressed(
        source=f"suppressed:{envelope.login.lower()}:{name}:{int(now // 60)}",
        time=now,
        queue_id="",
        reference="",
        login=envelope.login,
        from_domain="",
        recipient=name,
        reason=one.reason,
        scope=one.scope,
        evidence=one.evidence,
        since=one.since,
        until=one.until,
    )


def _weightiest(found: Sequence[Suppression]) -> Suppression:
    return min(found, key=lambda one: (REASONS.index(one.reason) if one.reason in REASONS else 0, -one.since))
