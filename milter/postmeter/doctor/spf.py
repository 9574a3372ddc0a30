"""Whether a domain's SPF record lets an address send for it, and how many questions that takes (RFC 7208).

DNS comes in as a function. What depends on the message, a macro with its local part for example, is not guessed: the
result is `depends` where it could be another one. Knows nothing of what is done about it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from postmeter.doctor import spfterms
from postmeter.doctor.facts import Answer, Sender
from postmeter.doctor.spfterms import ASKING, RESULTS, GrammarError, Term

Ask = Callable[[str, str], Answer]

MOST_LOOKUPS = 10  # RFC 7208 section 4.6.4
_MOST_VOIDS = 2  # the same: questions with an empty answer
_MOST_HOSTS = 10  # the same: names of an MX, and of an address
_NAMES = "name networks (ip4:, ip6:) in place of include:, a and mx"


class _StopError(Exception):
    """permerror or temperror, why, and what mends it."""

    def __init__(self, result: str, why: str, fix: str = "") -> None:
        super().__init__(why)
        self.result, self.why, self.fix = result, why, fix


@dataclass(slots=True)
class _Walk:
    """One evaluation; the counts go over all records that are included. `doubts`: sign and text of what depends."""

    ask: Ask
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    sender: str
    helo: str
    lookups: int = 0
    voids: int = 0
    doubts: list[tuple[str, str]] = field(default_factory=list)

    def records(self, name: str, kind: str, *, term: str = "") -> tuple[str, ...]:
        """Empty answers are counted where a `term` asks."""
        answer = self.ask(name, kind)
        if answer.silent:
            raise _StopError("temperror", answer.silent)
        if term and not answer.records:
            self.voids += 1
            if self.voids > _MOST_VOIDS:
                why = f"more than {_MOST_VOIDS} questions find nothing, the last one for {kind} of {name}"
                raise _StopError("permerror", why, f"take {term!r} and other names that are not there out")
        return answer.records

    def count(self) -> None:
        """All are counted that a receiver may have to ask, and no more than that."""
        self.lookups += 1
        if self.lookups > MOST_LOOKUPS:
            raise _StopError("permerror", f"it takes more than {MOST_LOOKUPS} questions to DNS", _NAMES)

    def result(self, domain: str) -> str:
        text = self.record(domain)
        if text is None:
            return "none"
        try:
            record = spfterms.parse(text)
            for term in record.terms:
                if self.matches(term, domain):
                    return RESULTS[term.sign]
        except GrammarError as error:
            fix = f"mend that word of the record at {domain}"
            raise _StopError("permerror", f"{error} (at {domain})", fix) from None
        return self.redirected(record.redirect, domain) if record.redirect else "neutral"

    def redirected(self, name: str, domain: str) -> str:
        self.count()
        target = spfterms.expand(name, self.known(domain))
        if target is None:
            self.doubts.append(("", f"redirect={name}"))
            return "neutral"
        found = self.result(target)
        if found == "none":
            fix = f"publish a record at {target}, or take redirect={name} out"
            raise _StopError("permerror", f"redirect={name} leads to no record", fix)
        return found

    def record(self, domain: str) -> str | None:
        found = [text for text in self.records(domain, "TXT") if f"{text.lower()} ".startswith("v=spf1 ")]
        if len(found) > 1:
            why = f"{domain} has {len(found)} SPF records, and only one is allowed"
            raise _StopError("permerror", why, f"put them together into one record at {domain}")
        return found[0] if found else None

    def known(self, domain: str) -> Mapping[str, str]:
        """Macros whose value no message changes; `p` is slow, doubtful, and not to be used (section 7.2)."""
        four = self.address.version == 4
        text = str(self.address) if four else ".".join(self.address.exploded.replace(":", ""))
        found = {"d": domain, "o": self.sender, "i": text, "v": "in-addr" if four else "ip6"}
        return {**found, "h": self.helo} if self.helo else found

    def matches(self, term: Term, domain: str) -> bool:
        """False also for what depends on the message, and then it is among the doubts."""
        if term.kind in ASKING:
            self.count()
        if term.kind == "all":
            return True
        if term.kind in ("ip4", "ip6"):
            return self.address in spfterms.network(term)
        name = spfterms.expand(term.value, self.known(domain)) if term.value else domain
        if name is None:
            self.doubts.append((term.sign, term.text))
            return False
        return self.answered(term, name)

    def answered(self, term: Term, name: str) -> bool:
        if term.kind == "include":
            return self.included(term, name)
        if term.kind == "exists":
            return bool(self.records(name, "A", term=term.text))
        if term.kind == "ptr":
            return any(f".{each}".endswith(f".{name.lower()}") for each in self.validated())
        hosts = self.exchangers(term, name) if term.kind == "mx" else [name]
        return any(self.inside(each, term) for host in hosts for each in self.hosts(host, term.text))

    def included(self, term: Term, name: str) -> bool:
        before = len(self.doubts)
        found = self.result(name)
        if found == "none":
            fix = f"take include:{name} out, or have its owner publish a record there"
            raise _StopError("permerror", f"include:{name} leads to no record", fix)
        if term.sign != "+":
            self.doubts[before:] = [("", text) for _, text in self.doubts[before:]]
        return found == "pass"

    def exchangers(self, term: Term, name: str) -> list[str]:
        found = [record.split()[1:] for record in self.records(name, "MX", term=term.text)]
        if len(found) > _MOST_HOSTS:
            raise _StopError("permerror", f"{name} has more than {_MOST_HOSTS} MX hosts", _NAMES)
        return [host[0] for host in found if host]

    def hosts(self, name: str, term: str) -> tuple[str, ...]:
        return self.records(name, "A" if self.address.version == 4 else "AAAA", term=term)

    def validated(self) -> list[str]:
        """Names of our address that lead back to it (section 5.5); who does not answer is left out."""
        kind = "A" if self.address.version == 4 else "AAAA"
        names = self.ask(self.address.reverse_pointer, "PTR").records[:_MOST_HOSTS]
        return [name.lower() for name in names if str(self.address) in self.ask(name, kind).records]

    def inside(self, host: str, term: Term) -> bool:
        length = term.four if self.address.version == 4 else term.six
        return self.address in ipaddress.ip_network(f"{host}/{length}" if length else host, strict=False)

    def certain(self, result: str) -> bool:
        """Whether no doubt could make it another: all of them would say pass as well."""
        return not self.doubts or (result == "pass" and all(sign == "+" for sign, _ in self.doubts))


def evaluate(domain: str, address: str, ask: Ask, *, helo: str = "") -> Sender:
    """check_host() of RFC 7208 section 4, for a sender of that domain whose local part is not known."""
    seen = ipaddress.ip_address(address)
    seen = (seen.ipv4_mapped or seen) if seen.version == 6 else seen
    walk = _Walk(ask, seen, domain, helo)
    record = ""
    try:
        record = walk.record(domain) or ""
        result = walk.result(domain)
    except _StopError as stop:
        return Sender(domain, address, stop.result, walk.lookups, record, stop.why, stop.fix)
    if not walk.certain(result):
        return Sender(domain, address, "depends", walk.lookups, record, walk.doubts[0][1])
    return Sender(domain, address, result, walk.lookups, record)
