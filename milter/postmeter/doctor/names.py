"""Questions to DNS, asked of the configured resolvers or the system's, each with a bound and each asked once.

RFC 1035. "No such record" and "no answer" are told apart. Knows nothing of what is in a record.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver
import dns.reversename

from postmeter.config.schema import InetAddress
from postmeter.doctor.facts import Answer, Policy

_PATIENCE = 8.0  # seconds for one question, all tries
_PORT = 53
_WORDS = frozenset({"p", "sp", "np", "adkim", "aspf"})
_GIVES_UP = 8  # questions in a row that nobody answered in time: then it is the resolver, and no zone


class Names:
    """For one run: what was answered is kept, so that all checks judge the same."""

    def __init__(self, resolvers: Sequence[InetAddress] = (), *, patience: float = _PATIENCE) -> None:
        self._patience, self._silences = patience, 0
        self._resolver: dns.resolver.Resolver | None = None
        self._known: dict[tuple[str, str], Answer] = {}
        try:
            self._resolver = dns.resolver.Resolver(configure=not resolvers)
        except dns.exception.DNSException:
            return
        if resolvers:
            self._resolver.nameservers = [each.host for each in resolvers]
            self._resolver.nameserver_ports = {each.host: each.port or _PORT for each in resolvers}

    def ask(self, name: str, kind: str) -> Answer:
        """The values of one type as text; aliases are followed."""
        key = (name.rstrip(".").lower(), kind)
        if key not in self._known:
            self._known[key] = self._ask(*key)
        return self._known[key]

    def _ask(self, name: str, kind: str) -> Answer:
        if self._resolver is None:
            return Answer(silent="/etc/resolv.conf names no resolver; give dkim.resolvers")
        if self._silences >= _GIVES_UP:
            return Answer(silent=f"the resolver did not answer the last {_GIVES_UP} questions")
        try:
            found = self._resolver.resolve(dns.name.from_text(name), kind, lifetime=self._patience, search=False)
            self._silences = 0
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            self._silences = 0
            return Answer()
        except dns.exception.Timeout:
            self._silences += 1
            return Answer(silent=f"{kind} of {name}: nobody answered within {self._patience:g} s")
        except (dns.exception.DNSException, OSError, UnicodeError) as error:
            return Answer(silent=f"{kind} of {name}: {' '.join(str(error).split())[:200] or type(error).__name__}")
        return Answer(tuple(_text(record) for record in found))

    def addresses(self, name: str) -> Answer:
        """IPv4 and IPv6; what one of both questions gave counts."""
        four, six = self.ask(name, "A"), self.ask(name, "AAAA")
        records = (*four.records, *six.records)
        return Answer(records, "" if records else four.silent or six.silent)

    def reverse(self, address: str) -> Answer:
        return self.ask(dns.reversename.from_address(address).to_text(), "PTR")

    def policy(self, domain: str) -> Policy:
        """The DMARC record for a From domain, of its own or of the nearest domain above (RFC 7489, RFC 9989)."""
        labels = domain.split(".")
        for start in range(max(len(labels) - 1, 1)):
            at = ".".join(labels[start:])
            answer = self.ask(f"_dmarc.{at}", "TXT")
            if answer.silent:
                return Policy(domain, silent=answer.silent)
            texts = [text for text in answer.records if text.replace(" ", "").lower().startswith("v=dmarc1")]
            if texts:
                return Policy(domain, at, _tags(texts[0]), count=len(texts))
        return Policy(domain)


def _text(record: object) -> str:
    """A TXT record's strings joined, a name without its final dot, an MX as `10 host`."""
    strings = getattr(record, "strings", None)
    if strings is not None:
        return b"".join(strings).decode("utf-8", "backslashreplace")
    return str(record).rstrip(".")


def _tags(text: str) -> dict[str, str]:
    """Words of policies are the same in capitals (RFC 7489 section 6.4)."""
    pairs = (part.partition("=") for part in text.split(";"))
    found = {name.strip().lower(): value.strip() for name, equals, value in pairs if equals}
    return {name: value.lower() if name in _WORDS else value for name, value in found.items()}


def public(address: str) -> bool:
    """Whether the world may see it as ours."""
    return ipaddress.ip_address(address).is_global
