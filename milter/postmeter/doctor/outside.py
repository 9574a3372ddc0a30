"""What the world sees of us, collected: our domains and addresses in DNS, the host of links, where mail comes back.

Asks and judges nothing. The addresses that mail leaves from are those Postfix is told to use, else those the system
would take for a way out.
"""

from __future__ import annotations

import contextlib
import http.client
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
from postmeter.doctor.facts import Answer, Helo, Mailbox, Pointer, Policy, Sender, Site
from postmeter.doctor.mailer import Mailer, split
from postmeter.doctor.names import Names, public
from postmeter.mail.address import ascii_domain

_PATIENCE = 8.0  # seconds to see a certificate
_AT_ONCE = 8  # questions under way
_PROBE = "/c/doctor"  # as a link begins, and none that anybody was sent
_NO_LINK = (404, b"Not found.")
_PAGE = 64  # octets read of an answer that should have eleven
_MOST_HOSTS = 10  # of an MX that are looked up
_WAYS = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))  # RFC 5737, RFC 3849: nobody's addresses


@dataclass(frozen=True, slots=True)
class Outside:
    senders: tuple[Sender, ...]
    policies: tuple[Policy, ...]
    pointers: tuple[Pointer, ...]
    sites: tuple[Site, ...]
    mailboxes: tuple[Mailbox, ...]
    helo: Helo | None = None
    unclear: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a browser would complain of, when the certificate ends, and what answered in our place."""

    trouble: str = ""
    expires: float = 0.0
    stranger: str = ""


def look(config: Config, mailer: Mailer | None, names: Names, *, given: Iterable[str] = ()) -> Outside:
    """`given` are the addresses that mail leaves from, where the operator knows better."""
    addresses, unclear = _leaving(mailer, tuple(given))
    pairs = [(domain, address) for domain in envelope_domains(config) for address in addresses]
    boxes = sorted(_addresses(config))
    greeting = mailer.value("smtp_helo_name") if mailer else ""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return Outside(
            senders=tuple(pool.map(lambda pair: spf.evaluate(pair[0], pair[1], names.ask, helo=greeting), pairs)),
            policies=tuple(pool.map(names.policy, signed_domains(config))),
            pointers=tuple(pool.map(lambda address: _pointer(address, names), addresses)),
            sites=tuple(pool.map(lambda url: _site(url, names, addresses), sorted(_urls(config)))),
            mailboxes=tuple(pool.map(lambda box: _mailbox(box[0], box[1], names), boxes)),
            helo=_helo(greeting, names, addresses) if greeting else None,
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
    """What Postfix binds to, smtp(8) services of their own too, and what it knows of a NAT before it."""
    clients = [None, *(each for each in mailer.services if each.program == "smtp")]
    names = ("smtp_bind_address", "smtp_bind_address6", "proxy_interfaces")
    words = [word for each in clients for name in names for word in split(mailer.value(name, each))]
    for word in dict.fromkeys(words):
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


def _helo(name: str, names: Names, addresses: list[str]) -> Helo:
    if "." not in name or name.startswith("["):
        return Helo(name, Answer())
    return Helo(name, names.addresses(name), tuple(spf.evaluate(name, each, names.ask) for each in addresses))


def _site(url: str, names: Names, ours: list[str]) -> Site:
    parts = urlsplit(url)
    host = parts.hostname or ""
    addresses = names.addresses(host)
    if not addresses.records:
        return Site(url, addresses)
    context = ssl.create_default_context() if parts.scheme == "https" else None
    seen = visit(host, addresses.records[0], parts.port or (443 if context else 80), context)
    here = any(each in ours or _is_here(each) for each in addresses.records) if ours else None
    return Site(url, addresses, seen.trouble, seen.expires, seen.stranger, here)


def _is_here(address: str) -> bool:
    """Whether this host has it: bind(2) takes no other, and nothing is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def visit(host: str, address: str, port: int, context: ssl.SSLContext | None) -> Seen:
    """As a browser comes, for a link that is none; without a context it is plain http."""
    try:
        with socket.create_connection((address, port), timeout=_PATIENCE) as wire:
            if context is None:
                return Seen(stranger=_stranger(wire, host))
            with context.wrap_socket(wire, server_hostname=host) as sealed:
                return Seen(expires=_end(sealed.getpeercert()), stranger=_stranger(sealed, host))
    except (OSError, ValueError) as error:
        return Seen(f"{host} ({address}): {error}")


def _stranger(wire: socket.socket, host: str) -> str:
    """What was answered, where it is not what `postmeter web` answers. A proxy may hand on links and nothing else."""
    try:
        wire.sendall(f"GET {_PROBE} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("ascii"))
        response = http.client.HTTPResponse(wire)
        response.begin()
        page = response.read(_PAGE)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"no answer in HTTP: {str(error)[:100] or type(error).__name__}"
    ours = (response.status, page.strip()) == _NO_LINK
    return "" if ours else f"{response.status} {response.reason[:40]}".strip()


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
    own = Answer() if hosts.records or hosts.silent else names.addresses(domain)
    listed = [host for record in hosts.records[:_MOST_HOSTS] for host in record.split()[1:] if host != "."]
    dead = tuple(host for host in listed if names.addresses(host) == Answer())
    return Mailbox(address, key, hosts, own, dead)
