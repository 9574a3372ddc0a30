"""Names and addresses in the configuration: domains, mail addresses, networks, sockets, web servers, paths.

Text in, value out, or `MistakeError` with what to write instead. No files are looked at here and no names resolved.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from postmeter.config.problem import MistakeError, quoted
from postmeter.mail.address import ascii_domain

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_DNS = 53  # RFC 1035 section 4.2
_LONGEST_NAME = 253  # RFC 1035 section 2.3.4
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")  # RFC 1035 2.3.1, and the underscore that DNS allows


@dataclass(frozen=True, slots=True)
class UnixAddress:
    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class InetAddress:
    """`host` is a name or an address without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this host can reach it; a name other than localhost is not trusted to be that."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


SocketAddress: TypeAlias = UnixAddress | InetAddress


def word(text: str) -> str:
    """A name without spaces or control characters."""
    if not text or not text.isprintable() or " " in text:
        raise MistakeError(f"{quoted(text)} is not a name", "write it without spaces")
    return text


def line(text: str) -> str:
    """Any text on one line."""
    if not text or not text.isprintable():
        raise MistakeError(f"{quoted(text)} is not a text on one line", "write something printable")
    return text


def domain(text: str) -> str:
    """A domain name in lower case and as A-labels (RFC 5890), as DNS and a From field's domain know it."""
    short = text if len(text) <= _LONGEST_NAME + 1 else ""
    name = short.lower().removesuffix(".") if short.isascii() else _a_labels(short)
    if len(name) > _LONGEST_NAME or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise MistakeError(f"{quoted(text)} is not a domain name", "write it like example.com")
    return name


def _a_labels(text: str) -> str:
    """Empty for what is no domain. IDNA2003 takes faß for fass: what it reads otherwise may be another's domain."""
    name = ascii_domain(unicodedata.normalize("NFC", text.lower()))
    try:
        older = text.lower().removesuffix(".").encode("idna").decode("ascii")
    except UnicodeError:
        return ""
    if older != name:
        raise MistakeError(f"{quoted(text)} can be read in two ways", f"write {name} or {older}")
    return name


def selector(text: str) -> str:
    """A DKIM selector: one or more DNS labels (RFC 6376 section 3.1)."""
    alone, record, _ = text.partition("._domainkey")
    if record:
        raise MistakeError(f"{quoted(text)} is the name of its record", f"write {alone} alone")
    try:
        if not text.isascii():
            raise MistakeError("", "")
        return domain(text)
    except MistakeError:
        raise MistakeError(
            f"{quoted(text)} is not a selector", "write letters, digits and dashes, for example pm2026a"
        ) from None


def host_pattern(text: str) -> str:
    """A host name, or *. and a domain for every host below it."""
    return "*." + domain(text[2:]) if text.startswith("*.") else domain(text)


def is_glob(text: str) -> bool:
    return any(char in text for char in "*?[")


def domain_glob(text: str) -> str:
    """A domain, or a glob of domains as A-labels, such as *.example.com."""
    if not is_glob(text):
        return domain(text)
    if not re.fullmatch(r"[A-Za-z0-9_.*?!\[\]-]{1,253}", text):
        raise MistakeError(f"{quoted(text)} is not a glob of domains", "write it like *.example.com, in ASCII")
    return text.lower()


def address(text: str) -> str:
    """A mail address as typed by people: one @, something on both sides."""
    local, _, host = text.rpartition("@")
    if not local or not text.isprintable() or " " in text or "@" in local.strip('"'):
        raise MistakeError(f"{quoted(text)} is not a mail address", "write it like postmaster@example.com")
    return f"{local}@{domain(host)}"


def login_or_address(text: str) -> str:
    """A login, which may have no domain, or what `address_or_domain` takes."""
    return address_or_domain(text) if "@" in text else word(text)


def address_or_domain(text: str) -> str:
    """An address, or @ and a domain for all of its addresses."""
    if "@" not in text:
        fix = "write it like postmaster@example.com, or @example.com for all addresses there"
        raise MistakeError(f"{quoted(text)} is neither a mail address nor @ and a domain", fix)
    return "@" + domain(text[1:]) if text.startswith("@") else address(text)


def network(text: str) -> Network:
    try:
        return unmapped(ipaddress.ip_network(text))
    except ValueError:
        pass
    try:
        meant = unmapped(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise MistakeError(
            f"{quoted(text)} is not a network", "write it like 192.0.2.0/24, 2001:db8::/32 or 127.0.0.1"
        ) from None
    raise MistakeError(f"{quoted(text)} has host bits set", f"write {meant}, or the address alone")


def unmapped(network: Network) -> Network:
    """Of IPv4 within IPv6 (RFC 4291 section 2.5.5.2) the former, as clients' addresses are looked at."""
    inner = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if inner is None or network.prefixlen < 96:
        return network
    return ipaddress.IPv4Network((inner, network.prefixlen - 96))


def ip_address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise MistakeError(f"{quoted(text)} is not an IP address", "write it like 192.0.2.53 or 2001:db8::53") from None


def resolver(text: str) -> InetAddress:
    """An IP address, or one with a port: 127.0.0.1:5353, [::1]:5353."""
    try:
        if text.count(":") == 1 or text.startswith("["):
            found = inet(text)
            return InetAddress(ip_address(found.host), found.port)
        return InetAddress(ip_address(text), _DNS)
    except MistakeError:
        fix = "write an IP address, for example 192.0.2.53, or one with a port: 127.0.0.1:5353"
        raise MistakeError(f"{quoted(text)} is not the address of a resolver", fix) from None


def path(text: str) -> Path:
    """An absolute path: a daemon's working directory is nobody's business."""
    if not text.startswith("/") or not text.isprintable():
        raise MistakeError(f"{quoted(text)} is not an absolute path", "begin it with /")
    return Path(text)


def inet(text: str) -> InetAddress:
    """HOST:PORT or [IPV6]:PORT."""
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        example = f", for example 127.0.0.1:{text}" if re.fullmatch(r"[1-9][0-9]{1,4}", text) else ", the port a number"
        raise MistakeError(f"{quoted(text)} has no port from 1 to 65535", f"write HOST:PORT{example}")
    if host in ("", "*"):
        fix = f"write 127.0.0.1:{port}, or 0.0.0.0:{port} for every address of this host"
        raise MistakeError(f"{quoted(text)} names no host", fix)
    if host.startswith("[") and host.endswith("]"):
        return InetAddress(_ipv6(host[1:-1], text), int(port))
    if ":" in host:
        raise MistakeError(f"{quoted(text)} is not HOST:PORT", "write an IPv6 address in brackets: [::1]:8891")
    return InetAddress(domain(host), int(port))


def _ipv6(host: str, text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(host))
    except ValueError:
        raise MistakeError(f"{quoted(text)} holds no IPv6 address", "write it like [::1]:8891") from None


def socket_address(text: str) -> SocketAddress:
    """unix:PATH or inet:HOST:PORT, as Postfix writes them."""
    kind, _, rest = text.partition(":")
    if kind == "unix":
        return UnixAddress(path(rest))
    if kind == "inet":
        return inet(rest)
    raise MistakeError(f"{quoted(text)} is not a socket", "write unix:/PATH or inet:HOST:PORT")


def origin(text: str) -> str:
    """A web server without a path: https://click.example.com, perhaps with a port."""
    parts = _web(text, "https://click.example.com", shown=quoted(text))
    if parts.path not in ("", "/") or "?" in text or "#" in text:
        raise MistakeError(
            f"{quoted(text)} has a path or a query", "give scheme and host alone, for example https://click.example.com"
        )
    name = parts.hostname or ""
    host = f"[{_ipv6(name, text)}]" if ":" in name else domain(name)
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


def url(text: str) -> str:
    """A web address with any path. It is not repeated in a complaint: its path may be a password."""
    _web(text, "https://crm.example.com/mail", shown="this")
    return text


def _web(text: str, example: str, *, shown: str) -> SplitResult:
    try:
        parts = urlsplit(text if text.isprintable() and " " not in text else "")
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a bracket or a port that are none
        good = False
    if not good:
        raise MistakeError(f"{'this' if '@' in text else shown} is not a web address", f"write it like {example}")
    if "@" in parts.netloc:
        raise MistakeError("a name or a password does not stand in a web address", "leave it out, and the @")
    return parts


def scheme(text: str) -> str:
    """What stands before ://, in lower case; empty when nothing does."""
    match = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*)://.", text)
    return match[1].lower() if match else ""
