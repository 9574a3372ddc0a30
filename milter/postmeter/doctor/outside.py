"""What the world sees of us, collected: our domains and addresses in DNS, the host of links, where mail comes back.

Asks and judges nothing. The addresses that mail leaves from are those Postfix is told to use, else those the system
would take for a way out.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from postmeter.config.schema import Config
from postmeter.doctor import spf
from postmeter.doctor.facts import Answer, Mailbox, Pointer, Policy, Sender, Site
from postmeter.doctor.mailer import Mailer, split
from postmeter.doctor.names import Names, public
from postmeter.mail.address import ascii_domain

_PATIENCE = 8.0  # seconds to see a certificate
_AT_ONCE = 8  # questions under way
_WAYS = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))  # RFC 5737, RFC 3849: nobody's addresses


@dataclass(frozen=True, slots=True)
class Outside:
    senders: tuple[Sender, ...]
    policies: tuple[Policy, ...]
    pointers: tuple[Pointer, ...]
    sites: tuple[Site, ...]
    mailboxes: tuple[Mailbox, ...]
    unclear: str = ""


def look(config: Config, mailer: Mailer | None, names: Names, *, given: Iterable[str] = ()) -> Outside:
    """`given` are the addresses that mail leaves from, where the operator knows better."""
    addresses, unclear = _leaving(mailer, tuple(given))
    pairs = [(domain, address) for domain in envelope_domains(config) for address in addresses]
    boxes = sorted(_addresses(config))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return Outside(
            senders=tuple(pool.map(lambda pair: spf.evaluate(pair[0], pair[1], names.ask), pairs)),
            policies=tuple(pool.map(names.policy, signed_domains(config))),
            pointers=tuple(pool.map(lambda address: _pointer(address, names), addresses)),
            sites=tuple(pool.map(lambda url: _site(url, names), sorted(_urls(config)))),
            mailboxes=tuple(pool.map(lambda box: _mailbox(box[0], box[1], names), boxes)),
            unclear=unclear,
        )


def signed_domains(config: Config) -> list[str]:
    return sorted({ascii_domain(entry.domain) for entry in config.dkim.sign})


def envelope_domains(config: Config) -> list[str]:
    """Of return paths: our From domains, as clients mostly have it, and those of tagged ones."""
    tagged = {ascii_domain(base.rpartition("@")[2]) for base in config.bounces.domains.values()}
    return sorted({*signed_domains(config), *tagged})


def _leaving(mailer: Mailer | None, given: tuple[str, ...]) -> tuple[list[str], str]:
    """The addresses, or why they are not known."""
    if given:
        return list(given), ""
    told = [address for address in _told(mailer) if public(address)] if mailer else []
    found = told or [address for address in _way_out() if public(address)]
    return found, "" if found else "this host has no address that the world sees: there is NAT, or no way out"


def _told(mailer: Mailer) -> Iterator[str]:
    """What Postfix binds to, and what it knows of a NAT before it."""
    for name in ("smtp_bind_address", "smtp_bind_address6", "proxy_interfaces"):
        for word in split(mailer.value(name)):
            with contextlib.suppress(ValueError):
                yield str(ipaddress.ip_address(word.strip("[]")))


def _way_out() -> Iterator[str]:
    """The source address of a packet that is never sent: connect(2) of UDP chooses the way only."""
    for family, anywhere in _WAYS:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((anywhere, 9))
            yield probe.getsockname()[0]


def _pointer(address: str, names: Names) -> Pointer:
    found = names.reverse(address)
    return Pointer(address, found, {name: names.addresses(name) for name in found.records})


def _urls(config: Config) -> set[str]:
    tables = (*config.tracking.domains.values(), *config.tracking.logins.values())
    return {url for url in (config.tracking.url, *(each.get("url") for each in tables)) if isinstance(url, str)}


def _site(url: str, names: Names) -> Site:
    parts = urlsplit(url)
    host = parts.hostname or ""
    addresses = names.addresses(host)
    if not addresses.records:
        return Site(url, addresses)
    context = ssl.create_default_context() if parts.scheme == "https" else None
    trouble, expires = handshake(host, addresses.records[0], parts.port or (443 if context else 80), context)
    return Site(url, addresses, trouble, expires)


def handshake(host: str, address: str, port: int, context: ssl.SSLContext | None) -> tuple[str, float]:
    """What a browser would complain of, and when the certificate ends; without a context it is plain http."""
    try:
        with socket.create_connection((address, port), timeout=_PATIENCE) as wire:
            if context is None:
                return "", 0.0
            with context.wrap_socket(wire, server_hostname=host) as sealed:
                return "", _end(sealed.getpeercert())
    except (OSError, ValueError) as error:
        return f"{host} ({address}): {error}", 0.0


def _end(certificate: dict[str, Any] | None) -> float:
    return float(ssl.cert_time_to_seconds(certificate["notAfter"])) if certificate else 0.0


def _addresses(config: Config) -> set[tuple[str, str]]:
    """Where mail comes back to, and the key that says so."""
    found = {(base, "bounces.domains") for base in config.bounces.domains.values()}
    more = (
        (config.bounces.cfbl_address, "bounces.cfbl_address"),
        (config.tracking.unsubscribe_mailto, "tracking.unsubscribe_mailto"),
    )
    return found | {(address, key) for address, key in more if address}


def _mailbox(address: str, key: str, names: Names) -> Mailbox:
    domain = ascii_domain(address.rpartition("@")[2])
    hosts = names.ask(domain, "MX")
    return Mailbox(address, key, hosts, Answer() if hosts.records or hosts.silent else names.addresses(domain))
