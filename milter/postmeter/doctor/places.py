"""Names and hosts by which the world finds us: our address's name, our greeting, the host of links, where mail returns.

Plain functions from facts to findings. RFC 5321 section 4.1.4, RFC 7208 section 2.3, RFC 7505, RFC 8601, RFC 9477.
"""

from __future__ import annotations

from collections.abc import Iterator

from postmeter.doctor.domains import RESOLVER, named, smarthost
from postmeter.doctor.facts import Answer, Facts, Helo, Mailbox, Site
from postmeter.doctor.finding import NOTE, UNKNOWN, WARNING, WRONG, Finding
from postmeter.mail.address import ascii_domain

_SOON = 14 * 86400  # seconds; Let's Encrypt renews a certificate 30 days before its end


def pointers(facts: Facts) -> Iterator[Finding]:
    """The name of our address, and that this name leads back (RFC 8601 section 2.7.3, iprev)."""
    if smarthost(facts) or facts.mailer is None:
        return
    helo = facts.mailer.value("smtp_helo_name")
    for pointer in facts.pointers:
        names = pointer.names.records
        if pointer.names.silent:
            yield Finding(UNKNOWN, "ptr", f"the name of {pointer.address} could not be looked up",
                          pointer.names.silent, RESOLVER)  # fmt: skip
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


def greeting(facts: Facts) -> Iterator[Finding]:
    """HELO should be a name that leads to us; SPF of it is all that a bounce has, whose sender is empty."""
    helo = facts.helo
    if helo is None or smarthost(facts):
        return
    known = f"smtp_helo_name = {helo.name} (postconf -x)"
    if "." not in helo.name.strip("[]"):
        fix = "postconf -e myhostname=mail.example.com && postfix reload, with a name of yours that DNS has"
        what = f"Postfix says HELO {helo.name}, which is no full name: many refuse it"
        yield Finding(WRONG, "helo", what, known, fix)
    elif helo.addresses.silent:
        yield Finding(UNKNOWN, "helo", f"{helo.name} could not be looked up", helo.addresses.silent, RESOLVER)
    elif not helo.addresses.records:
        what = f"Postfix says HELO {helo.name}, which has no address: many refuse it"
        known = f"{known}; no A and no AAAA record at {helo.name}"
        yield Finding(WRONG, "helo", what, known, _record(facts, helo.name))
    elif facts.pointers and not {each.address for each in facts.pointers} & set(helo.addresses.records):
        what = f"Postfix says HELO {helo.name}, which is the name of another host"
        known = f"{known}; {helo.name} is {', '.join(helo.addresses.records)}"
        yield Finding(WARNING, "helo", what, known, _record(facts, helo.name))
    yield from _of_bounces(helo)


def _of_bounces(helo: Helo) -> Iterator[Finding]:
    for sender in helo.senders:
        if sender.result in ("fail", "softfail", "permerror"):
            what = f"bounces that Postfix sends fail SPF: {sender.domain} does not let {sender.address} send"
            known = f"{sender.why or sender.record or sender.result} (SPF of the HELO name, RFC 7208 section 2.3)"
            fix = sender.fix or f'{sender.domain}. IN TXT "v=spf1 {named(sender.address)} -all"'
            yield Finding(WARNING, "helo", what, known, fix)


def _record(facts: Facts, name: str) -> str:
    address = next((each.address for each in facts.pointers), "(this host's address)")
    return f"{name}. IN {'AAAA' if ':' in address else 'A'} {address}"


def sites(facts: Facts) -> Iterator[Finding]:
    for site in facts.sites:
        host = site.url.partition("://")[2]
        if site.addresses.silent:
            yield Finding(UNKNOWN, "tracking", f"{host} could not be looked up", site.addresses.silent, RESOLVER)
        elif not site.addresses.records:
            what = f"links lead to {host}, which has no address"
            yield Finding(WRONG, "tracking", what, f"no A and no AAAA record at {host}", _record(facts, host))
        elif site.trouble:
            fix = "start `postmeter web` and the proxy in front of it; renew the certificate for that very name"
            yield Finding(WRONG, "tracking", f"{site.url} does not answer as browsers need it", site.trouble, fix)
        else:
            yield from _answering(facts, site, host)


def _answering(facts: Facts, site: Site, host: str) -> Iterator[Finding]:
    """Somebody answers there: is it us, is it here, and for how long yet."""
    if site.stranger:
        what = f"what answers at {site.url} is not `postmeter web`: links do not open"
        fix = f"have the proxy hand {host} on to {facts.config.web.listen}, host name and all (contrib/nginx)"
        yield Finding(WRONG, "tracking", what, f"asked for a link that is none, it said {site.stranger}", fix)
    elif site.here is False:
        what = "links lead to another host: a proxy, or one that runs `postmeter web` too"
        known = f"{host} is {', '.join(site.addresses.records)}, and that is no address of this host"
        yield Finding(NOTE, "tracking", what, known, "name the proxy in web.proxies, or let the record lead here")
    if site.expires and site.expires - facts.now < _SOON:
        days = max(int((site.expires - facts.now) // 86400), 0)
        what = f"the certificate of {host} ends in {days} days"
        yield Finding(WARNING, "tracking", what, f"a TLS handshake with {host}", "renew it; see why it was not")


def mailboxes(facts: Facts) -> Iterator[Finding]:
    """Where bounces and complaints come to: a domain that takes mail."""
    for box in facts.mailboxes:
        domain = box.address.rpartition("@")[2]
        if box.hosts.silent or (not box.hosts.records and box.addresses.silent):
            why = box.hosts.silent or box.addresses.silent
            yield Finding(UNKNOWN, "mx", f"MX of {domain} could not be looked up", why, RESOLVER)
        elif _refuses(box):
            yield Finding(WRONG, "mx", f"nothing can come back to {box.address}", f"{_seen(box, domain)}; {box.key}",
                          f"{domain}. IN MX 10 {_host(facts)}.")  # fmt: skip
        elif box.dead:
            what = f"mail to {box.address} goes to {', '.join(box.dead)}, which has no address"
            level = WRONG if len(box.dead) == len(box.hosts.records) else WARNING
            yield Finding(level, "mx", what, f"MX of {domain}; {box.key}", _record(facts, box.dead[0]))
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


CHECKS = (pointers, greeting, sites, mailboxes)
