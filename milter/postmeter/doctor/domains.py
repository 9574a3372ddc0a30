"""What receivers find in DNS about our From domains and return paths: keys, SPF, DMARC.

Plain functions from facts to findings. RFC 6376, 7208, 7489. Where mail leaves by a smarthost, SPF and PTR are a
matter of that host's addresses, and the findings say so.
"""

from __future__ import annotations

from collections.abc import Iterator

from postmeter.doctor.facts import Facts, Policy, Sender
from postmeter.doctor.finding import NOTE, UNKNOWN, WARNING, WRONG, Finding
from postmeter.mail.address import ascii_domain

RESOLVER = "look at the resolver (dkim.resolvers, /etc/resolv.conf)"


def smarthost(facts: Facts) -> str:
    """By whom mail leaves, when it is not this host itself."""
    if facts.mailer is None:
        return ""
    relay = facts.mailer.value("relayhost")
    if relay:
        return relay
    for name in ("sender_dependent_relayhost_maps", "sender_dependent_default_transport_maps"):
        if facts.mailer.value(name):
            return f"what {name} names"
    default = facts.mailer.value("default_transport")
    return default.partition(":")[2]


def leaving(facts: Facts) -> Iterator[Finding]:
    """What is not checked here, and whose it is."""
    relay = smarthost(facts)
    if relay:
        what = f"mail leaves by {relay}: SPF must let its addresses send, and their PTR is its operator's to set"
        names = ", ".join(entry for entry in _spf_domains(facts)) or "your domains"
        fix = f"ask its operator for the include: of SPF, and put it into the records of {names}"
        yield Finding(NOTE, "smarthost", what, "relayhost, default_transport or maps by sender (postconf -x)", fix)
    elif facts.mailer is not None and facts.mailer.value("transport_maps"):
        what = "some mail may leave by another host: there SPF and PTR are a matter of that host's addresses"
        yield Finding(NOTE, "smarthost", what, "transport_maps is set", "see to it that SPF names those hosts too")
    if facts.unclear and not relay:
        fix = "postmeter doctor --address 192.0.2.1, or proxy_interfaces in main.cf where there is NAT"
        yield Finding(UNKNOWN, "address", "SPF and PTR were not checked", facts.unclear, fix)


def _spf_domains(facts: Facts) -> list[str]:
    return sorted({sender.domain for sender in facts.senders})


def keys(facts: Facts) -> Iterator[Finding]:
    for key in facts.keys:
        if key.ok is None:
            yield Finding(UNKNOWN, "dkim", f"{key.name} could not be looked up", key.what, key.fix)
        elif key.wrong:
            fix = f"{key.fix}; the record: postmeter dkim dns {key.name.partition('._domainkey.')[2]}".lstrip("; ")
            yield Finding(WRONG, "dkim", f"{key.name} is not as it must be", key.what, fix)


def spf(facts: Facts) -> Iterator[Finding]:
    if smarthost(facts):
        yield from (each for each in map(_broken, facts.senders) if each is not None)
        return
    for sender in facts.senders:
        found = _broken(sender)
        if found is not None:
            yield found
        elif sender.result == "depends":
            what = f"whether SPF of {sender.domain} lets {sender.address} send is settled for each message anew"
            fix = f"to have it for all mail, put {named(sender.address)} before {sender.why}"
            yield Finding(UNKNOWN, "spf", what, f"{sender.why} needs a message's own address: {sender.record}", fix)
        elif sender.result != "pass":
            yield _not_named(sender)


def named(address: str) -> str:
    """The mechanism that stands for an address."""
    return f"ip{6 if ':' in address else 4}:{address}"


def _broken(sender: Sender) -> Finding | None:
    """What is wrong with a record whoever sends."""
    if sender.result == "temperror":
        return Finding(UNKNOWN, "spf", f"SPF of {sender.domain} could not be looked up", sender.why, RESOLVER)
    if sender.result == "permerror":
        what = f"receivers cannot use the SPF record of {sender.domain}"
        known = f"{sender.why} (RFC 7208): {sender.record}" if sender.record else f"{sender.why} (RFC 7208)"
        return Finding(WRONG, "spf", what, known, sender.fix or "leave one record, with what is needed only")
    return None


def _not_named(sender: Sender) -> Finding:
    term = named(sender.address)
    if not sender.record:
        return Finding(WRONG, "spf", f"{sender.domain} has no SPF record", f"no TXT record v=spf1 at {sender.domain}",
                       f'{sender.domain}. IN TXT "v=spf1 {term} -all"')  # fmt: skip
    first, _, rest = sender.record.partition(" ")
    what = f"SPF of {sender.domain} does not let {sender.address} send: {sender.result}"
    return Finding(WRONG, "spf", what, sender.record, f'{sender.domain}. IN TXT "{first} {term} {rest}"')


def dmarc(facts: Facts) -> Iterator[Finding]:
    for policy in facts.policies:
        if policy.silent:
            what = f"DMARC of {policy.domain} could not be looked up"
            yield Finding(UNKNOWN, "dmarc", what, policy.silent, RESOLVER)
        elif not policy.at:
            what = f"{policy.domain} has no DMARC record: Google and Yahoo refuse bulk mail then"
            record = f'_dmarc.{policy.domain}. IN TXT "v=DMARC1; p=none; rua=mailto:postmaster@{policy.domain}"'
            yield Finding(WRONG, "dmarc", what, f"no TXT record at _dmarc.{policy.domain} or above", record)
        else:
            yield from _policy(policy)


def _policy(policy: Policy) -> Iterator[Finding]:
    known = f"_dmarc.{policy.at}: " + "; ".join(f"{name}={value}" for name, value in policy.tags.items())
    if policy.count > 1:
        what = f"there are {policy.count} DMARC records: receivers take none of them"
        yield Finding(WRONG, "dmarc", what, known, f"leave one at _dmarc.{policy.at}")
    elif policy.tags.get("p") not in ("none", "quarantine", "reject"):
        what = f"DMARC of {policy.domain} has no policy"
        yield Finding(WRONG, "dmarc", what, known, "write p=none, p=quarantine or p=reject behind v=DMARC1")


def alignment(facts: Facts) -> Iterator[Finding]:
    """d= and the return path beside the From domain, as the domain's own record wants it (RFC 7489 section 3.1)."""
    if facts.config.dkim.default_domain:
        what = f"mail From domains without a key is signed as {facts.config.dkim.default_domain}, which does not align"
        fix = "give these domains keys of their own: postmeter dkim new DOMAIN"
        yield Finding(NOTE, "dmarc", f"{what}: DMARC passes by SPF or not at all", "dkim.default_domain", fix)
    entries = {ascii_domain(entry.domain): entry for entry in facts.config.dkim.sign}
    for policy in facts.policies:
        entry = entries.get(policy.domain)
        if entry is not None and entry.subdomains and policy.tags.get("adkim") == "s":
            what = f"mail From domains below {policy.domain} is signed with d={policy.domain}, which does not align"
            yield Finding(WRONG, "dmarc", what, f"_dmarc.{policy.at}: adkim=s; dkim.sign: subdomains",
                          "give these domains keys of their own, or leave adkim= out")  # fmt: skip
        base = facts.config.bounces.domains.get(policy.domain, "")
        domain = ascii_domain(base.rpartition("@")[2])
        if base and not _aligns(domain, policy):
            what = f"the return path {base} does not align with {policy.domain}: DMARC passes by DKIM alone"
            fix = f"bounces.domains: {{{policy.domain}: bounces@{policy.domain}}}"
            yield Finding(WARNING, "dmarc", what, f"bounces.domains; _dmarc.{policy.at or policy.domain}", fix)


def _aligns(domain: str, policy: Policy) -> bool:
    if policy.tags.get("aspf") == "s":
        return domain == policy.domain
    above = policy.at or policy.domain
    return f".{domain}".endswith(f".{above}") or f".{policy.domain}".endswith(f".{domain}")


CHECKS = (leaving, keys, spf, dmarc, alignment)
