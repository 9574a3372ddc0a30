"""Whether a domain's SPF record lets an address send for it, and how many questions that takes (RFC 7208).

DNS comes in as a function. Macros need a message and are not worked out: what holds one does not match here. Knows
nothing of what is done about it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from postmeter.doctor.facts import Answer, Sender

Ask = Callable[[str, str], Answer]

MOST_LOOKUPS = 10  # RFC 7208 section 4.6.4
_MOST_HOSTS = 10  # the same: names of an MX
_RESULTS = {"+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}
_ASKING = frozenset({"include", "a", "mx", "ptr", "exists"})
_KNOWN = _ASKING | {"ip4", "ip6", "all"}


class _StopError(Exception):
    """permerror or temperror, and why."""

    def __init__(self, result: str, why: str) -> None:
        super().__init__(why)
        self.result, self.why = result, why


@dataclass(slots=True)
class _Walk:
    """One evaluation; the count goes over all records that are included."""

    ask: Ask
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    lookups: int = 0

    def records(self, name: str, kind: str) -> tuple[str, ...]:
        answer = self.ask(name, kind)
        if answer.silent:
            raise _StopError("temperror", answer.silent)
        return answer.records

    def count(self) -> None:
        """All are counted that a receiver may have to ask, and no more than that."""
        self.lookups += 1
        if self.lookups > MOST_LOOKUPS:
            raise _StopError("permerror", f"it takes more than {MOST_LOOKUPS} questions to DNS")

    def result(self, domain: str) -> str:
        record = self.record(domain)
        if record is None:
            return "none"
        redirect = ""
        for term in record.split()[1:]:
            name, equals, value = term.partition("=")
            if equals and ":" not in name and "/" not in name:
                redirect = value if name.lower() == "redirect" else redirect
            elif (found := self.term(term, domain)) is not None:
                return found
        if not redirect:
            return "neutral"
        self.count()
        found = self.result(redirect)
        if found == "none":
            raise _StopError("permerror", f"redirect={redirect} leads to no record")
        return found

    def record(self, domain: str) -> str | None:
        texts = self.records(domain, "TXT")
        found = [text for text in texts if text.lower() == "v=spf1" or text.lower().startswith("v=spf1 ")]
        if len(found) > 1:
            raise _StopError("permerror", f"{domain} has {len(found)} SPF records, and only one is allowed")
        return found[0] if found else None

    def term(self, term: str, domain: str) -> str | None:
        """What a mechanism that matches says; None for one that does not."""
        sign, rest = (term[0], term[1:]) if term[0] in _RESULTS else ("+", term)
        head, _, bits = rest.partition("/") if not rest.lower().startswith(("ip4:", "ip6:")) else (rest, "", "")
        kind, _, value = head.partition(":")
        kind = kind.lower()
        if kind not in _KNOWN:
            raise _StopError("permerror", f"{term[:60]!r} is nothing that SPF knows")
        if kind in _ASKING:
            self.count()
        return _RESULTS[sign] if self.matches(kind, value or domain, bits) else None

    def matches(self, kind: str, value: str, bits: str) -> bool:
        if kind == "all":
            return True
        if "%" in value or kind == "ptr":
            return False
        if kind in ("ip4", "ip6"):
            return self.inside(value, term=f"{kind}:{value}")
        if kind == "include":
            return self.included(value)
        if kind == "exists":
            return bool(self.records(value, "A"))
        hosts = [value] if kind == "a" else [mx.split()[-1] for mx in self.records(value, "MX")[:_MOST_HOSTS]]
        return any(self.inside(f"{each}{self.length(bits)}", term=value) for host in hosts for each in self.hosts(host))

    def hosts(self, name: str) -> tuple[str, ...]:
        return self.records(name, "A" if self.address.version == 4 else "AAAA")

    def length(self, bits: str) -> str:
        """`24//64` holds one for each family."""
        four, _, six = bits.partition("//") if not bits.startswith("/") else ("", "", bits[1:])
        wanted = four if self.address.version == 4 else six
        return f"/{wanted}" if wanted else ""

    def included(self, name: str) -> bool:
        found = self.result(name)
        if found == "none":
            raise _StopError("permerror", f"include:{name} leads to no record")
        return found == "pass"

    def inside(self, text: str, *, term: str) -> bool:
        try:
            return self.address in ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise _StopError("permerror", f"{term[:60]!r} is no network") from None


def evaluate(domain: str, address: str, ask: Ask) -> Sender:
    """check_host() of RFC 7208 section 4."""
    walk = _Walk(ask, ipaddress.ip_address(address))
    record = ""
    try:
        record = walk.record(domain) or ""
        return Sender(domain, address, walk.result(domain), walk.lookups, record)
    except _StopError as stop:
        return Sender(domain, address, stop.result, walk.lookups, record, stop.why)
