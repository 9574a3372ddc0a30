"""Whose mail is it, who answers for it, and which From may it bear.

Decides from the envelope as early as it can and from the header where it must; refuses to know quotas, keys (it is told
for which domains we hold one) and libmilter. Mail that merely passes through this host is never ours, whatever it
claims: a content filter or fetchmail re-injecting forged mail from 127.0.0.1 must not get our signature.
Received fields: RFC 5321 section 4.4, protocol names RFC 3848 and RFC 6531 section 4.3.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from enum import Enum
from functools import lru_cache

from postmeter.config.schema import Senders
from postmeter.mail import address
from postmeter.mail.draft import Draft
from postmeter.mail.message import Client, Envelope, Field
from postmeter.mail.reply import Reply
from postmeter.submission.logins import Names

HoldsKey = Callable[[str], bool]
HasId = Callable[[Sequence[Field]], bool]
"""Whether mail bears an id that we gave our own mail (`notice`)."""

# Comments are searched too: a HELO name with a stray parenthesis must not hide the clause. At worst mail passes as is.
_RELAYED = re.compile(rb"\bwith\b[^;]{0,200}?[SL]MTP", re.IGNORECASE)

_LONGEST = 253  # octets of a name in DNS (RFC 1035 section 2.3.4); senders may write longer ones


class Whose(Enum):
    """`UNDECIDED`: ours if the header says that it was submitted here, for a domain of ours.

    `RETURNED`: ours if it bears a mark that holds, whatever else speaks for it (`mark`).
    """

    OURS = "ours"
    FOREIGN = "foreign"
    UNDECIDED = "undecided"
    RETURNED = "returned"


class Identity:
    """The `senders` section at work, for one generation of workers."""

    def __init__(self, senders: Senders, holds_key: HoldsKey, has_id: HasId = lambda fields: False) -> None:
        self._senders = senders
        self._holds_key = holds_key
        self._has_id = has_id
        self._lists = [(Names([glob]), allowed) for glob, allowed in senders.from_.items()]
        self._kept = lru_cache(maxsize=4096)(self._allows)  # asked three times a message, of each list in turn
        self._named = {domain for allowed in senders.from_.values() if allowed != "any" for domain in allowed}

    def by_envelope(self, envelope: Envelope) -> Whose:
        """What MAIL tells already; OURS and FOREIGN are final."""
        senders = self._senders
        if envelope.service in senders.refiltered:
            return Whose.RETURNED
        known = (
            (senders.authenticated and envelope.login)
            or (senders.certificates and envelope.client.certificate)
            or envelope.service in senders.daemon_names
        )
        if known:
            return Whose.OURS
        return Whose.UNDECIDED if self._in_networks(envelope.client) else Whose.FOREIGN

    def by_header(self, fields: Sequence[Field]) -> str:
        """Why mail from a trusted network is not ours after all; empty when it is: submitted here, a domain of ours."""
        if any(relayed(field.value) for field in fields if field.key == b"received"):
            return "relayed"
        return "" if self._is_ours(from_domain(fields)) or self._has_id(fields) else "foreign_domain"

    def step(self, draft: Draft) -> Reply | None:
        """First of the steps: who is charged for the message, and in whose name it goes out."""
        draft.sender = sender(draft.message.envelope) if draft.mark is None else draft.mark.sender
        draft.from_domain = from_domain(draft.fields)
        draft.note("identity", f"sender {draft.sender}, From domain {draft.from_domain or 'none or several'}")
        return None

    def check_from(self, draft: Draft) -> Reply | None:
        """Second: a login that puts on a domain it may not use is counted, gains no quota, is refused where asked."""
        action = self._senders.from_mismatch
        if draft.from_domain and draft.mark is None and not self._may_use(draft):
            name = draft.message.envelope.name
            draft.borrowed = action != "report"
            draft.count("from_mismatch_total", action)
            draft.note("from", f"{name} may not use From addresses of {draft.from_domain}: {action}")
            if action == "reject" and draft.message.envelope.mail_from:
                return Reply(550, "5.7.1", f"{name} may not send as {draft.from_domain}")
        return None

    def why_unsigned(self, draft: Draft) -> str:
        """Why this message must leave unsigned, as `dkim_unsigned_total` counts it; empty when it may be signed."""
        if not draft.from_domain:
            return _why_no_domain(draft.fields)
        if self._senders.from_mismatch != "report" and not self._may_use(draft):
            return "from_mismatch"
        return ""

    def _in_networks(self, client: Client) -> bool:
        try:
            ip = ipaddress.ip_address(client.address)
        except ValueError:
            return False
        return any(ip in network for network in self._senders.networks)

    def _is_ours(self, domain: str) -> bool:
        return bool(domain) and (self._holds_key(domain) or domain in self._named)

    def _may_use(self, draft: Draft) -> bool:
        """Whether the login's own domain or its list covers the From domain; who has no name is trusted by place."""
        name, domain = draft.message.envelope.name, draft.from_domain
        if not name:
            return True
        return self._kept(name, domain) if len(domain) <= _LONGEST else self._allows(name, domain)

    def _allows(self, name: str, from_domain: str) -> bool:
        lists = [allowed for names, allowed in self._lists if names.hold(name)]
        if any(allowed == "any" for allowed in lists):
            return True
        own = address.domain(name)
        if "@" not in name and not lists:  # `joe@` has no domain either, and is not who the list of `joe` is for
            return True
        return from_domain == own or any(from_domain in allowed for allowed in lists)


def sender(envelope: Envelope) -> str:
    """Whom quotas count: login, certificate's name, client address (an IPv6 one by its /64), or `local`."""
    if envelope.name:
        return envelope.name
    return "local" if envelope.client.local else _place(envelope.client.address)


@lru_cache(maxsize=1024)  # three steps ask for each message, and an application server sends from one address
def _place(client: str) -> str:
    try:
        ip = ipaddress.ip_address(client)
    except ValueError:
        return "unknown"
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((ip, 64), strict=False))


def from_domain(fields: Sequence[Field]) -> str:
    """Domain of the only address of the only From field, as DNS has it; empty otherwise (RFC 6376, RFC 7489 6.6.1)."""
    froms = [field.value for field in fields if field.key == b"from"]
    if len(froms) != 1:
        return ""
    return _known_domain(froms[0]) if len(froms[0]) <= _SHORT else _domain(froms[0])


def _domain(value: bytes) -> str:
    found = address.mailboxes(value)
    return address.domain(found[0]) if len(found) == 1 else ""


_SHORT = 256  # octets: senders cannot fill what is kept with longer ones
_known_domain = lru_cache(maxsize=1024)(_domain)


def _why_no_domain(fields: Sequence[Field]) -> str:
    """Which rule of `from_domain` failed."""
    count = sum(field.key == b"from" for field in fields)
    if count == 1:
        return "several_from" if len(address.from_addresses(fields)) > 1 else "unclear_from"
    return "several_from" if count else "no_from"


def relayed(received: bytes) -> bool:
    """Whether a Received field says that an SMTP or LMTP server took the message: then it was not written here."""
    return _RELAYED.search(received) is not None
