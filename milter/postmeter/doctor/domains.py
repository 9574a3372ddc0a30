"""What receivers find in DNS about our mail: keys, SPF, DMARC, names of our addresses, where mail comes back.

Plain functions from facts to findings. RFC 6376, 7208, 7489, 8601, 9477. Where mail leaves by a smarthost, SPF and PTR
are a matter of that host's addresses, and the findings say so.
"""

from __future__ import annotations

from collections.abc import Iterator

from postmeter.doctor.facts import Answer, Facts, Mailbox, Policy, Sender
from postmeter.doctor.finding import NOTE, UNKNOWN, WARNING, WRONG, Finding
from postmeter.doctor.spf import MOST_LOOKUPS
from postmeter.mail.address import ascii_domain

_RESOLVER = "look at the resolver (dkim.resolvers, /etc/resolv.conf)"
_SOON = 14 * 86400  # seconds; Let's Encrypt renews a certificate 30 days before its end


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
        elif sender.result != "pass":
            yield _not_named(sender)


def _broken(sender: Sender) -> Finding | None:
    """What is wrong with a record whoever sends."""
    if sender.result == "temperror":
        return Finding(UNKNOWN, "spf", f"SPF of {sender.domain} could not be looked up", sender.why, _RESOLVER)
    if sender.result == "permerror":
        fix = "leave one record, with what is needed only"
        if sender.lookups > MOST_LOOKUPS:
            fix = "name networks (ip4:, ip6:) in place of include:, a and mx"
        return Finding(WRONG, "spf", f"receivers cannot use the SPF record of {sender.domain}",
                       f"{sender.why} (RFC 7208 section 4.6.4): {sender.record}", fix)  # fmt: skip
    return None


def _not_named(sender: Sender) -> Finding:
    term = f"ip{6 if ':' in sender.address else 4}:{sender.address}"
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
            yield Finding(UNKNOWN, "dmarc", what, policy.silent, _RESOLVER)
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


def pointers(facts: Facts) -> Iterator[Finding]:
    """The name of our address, and that this name leads back (RFC 8601 section 2.7.3, iprev)."""
    if smarthost(facts) or facts.mailer is None:
        return
    helo = facts.mailer.value("smtp_helo_name")
    for pointer in facts.pointers:
        names = pointer.names.records
        if pointer.names.silent:
            yield Finding(UNKNOWN, "ptr", f"the name of {pointer.address} could not be looked up",
                          pointer.names.silent, _RESOLVER)  # fmt: skip
        elif not names:
            what = f"{pointer.address} has no name: many refuse its mail"
            yield Finding(WRONG, "ptr", what, "there is no PTR record",
                          f"have the provider of that address set its PTR to {helo}")  # fmt: skip
        elif not any(pointer.address in pointer.forward.get(name, Answer()).records for name in names):
            kind = "AAAA" if ":" in pointer.address else "A"
            yield Finding(WRONG, "ptr", f"{names[0]}, the name of {pointer.address}, does not lead back to it",
                          f"{kind} of {', '.join(names)}", f"{names[0]}. IN {kind} {pointer.address}")  # fmt: skip
        elif helo.lower() not in [name.lower() for name in names]:
            what = f"Postfix says HELO {helo}, and its address is called {names[0]}"
            fix = f"postconf -e smtp_helo_name={names[0]}"
            yield Finding(WARNING, "ptr", what, f"smtp_helo_name; PTR of {pointer.address}", fix)


def sites(facts: Facts) -> Iterator[Finding]:
    for site in facts.sites:
        host = site.url.partition("://")[2]
        if site.addresses.silent:
            yield Finding(UNKNOWN, "tracking", f"{host} could not be looked up", site.addresses.silent, _RESOLVER)
        elif not site.addresses.records:
            what = f"links lead to {host}, which has no address"
            yield Finding(WRONG, "tracking", what, f"no A and no AAAA record at {host}", f"{host}. IN A (this host)")
        elif site.trouble:
            fix = "start `postmeter web` and the proxy in front of it; renew the certificate for that very name"
            yield Finding(WRONG, "tracking", f"{site.url} does not answer as browsers need it", site.trouble, fix)
        elif site.expires and site.expires - facts.now < _SOON:
            days = max(int((site.expires - facts.now) // 86400), 0)
            what = f"the certificate of {host} ends in {days} days"
            yield Finding(WARNING, "tracking", what, f"a TLS handshake with {host}", "renew it; see why it was not")


def mailboxes(facts: Facts) -> Iterator[Finding]:
    """Where bounces and complaints come to: a domain that takes mail."""
    for box in facts.mailboxes:
        domain = box.address.rpartition("@")[2]
        if box.hosts.silent or (not box.hosts.records and box.addresses.silent):
            why = box.hosts.silent or box.addresses.silent
            yield Finding(UNKNOWN, "mx", f"MX of {domain} could not be looked up", why, _RESOLVER)
        elif _refuses(box):
            yield Finding(WRONG, "mx", f"nothing can come back to {box.address}", f"{_seen(box, domain)}; {box.key}",
                          f"{domain}. IN MX 10 {_host(facts)}.")  # fmt: skip
    yield from _cfbl(facts)


def _refuses(box: Mailbox) -> bool:
    """A null MX (RFC 7505), or no host at all (RFC 5321 section 5.1)."""
    if box.hosts.records:
        return all(record.split()[1:] in ([], ["."]) for record in box.hosts.records)
    return not box.addresses.records


def _seen(box: Mailbox, domain: str) -> str:
    return "a null MX" if box.hosts.records else f"no MX and no address record at {domain}"


def _host(facts: Facts) -> str:
    return facts.mailer.value("myhostname") if facts.mailer else "mail.example.com"


def _cfbl(facts: Facts) -> Iterator[Finding]:
    """The field is believed where a signature of that address's domain covers it (RFC 9477 section 3.1)."""
    address = facts.config.bounces.cfbl_address
    if address is None:
        return
    domain = ascii_domain(address.rpartition("@")[2])
    signing = [ascii_domain(entry.domain) for entry in facts.config.dkim.sign]
    strange = [each for each in signing if not f".{domain}".endswith(f".{each}")]
    if strange:
        what = f"CFBL-Address {address} is not of {', '.join(strange[:5])}: mail From there gets no reports"
        fix = "take an address of the From domain, for example " + f"fbl@{strange[0]}"
        yield Finding(WARNING, "cfbl_address", what, "bounces.cfbl_address; dkim.sign (RFC 9477)", fix)


CHECKS = (leaving, keys, spf, dmarc, alignment, pointers, sites, mailboxes)
