"""The small languages of the configuration: durations, sizes, limits, percentages, names, addresses.

Text in, value out, or `MistakeError` with what to write instead. No files are looked at here and no names resolved.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from postmeter.config.problem import MistakeError, quoted

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

MINUTE, HOUR, DAY, MONTH = 60, 3600, 86400, 30 * 86400
_LONGEST_NAME = 253  # RFC 1035 section 2.3.4
_LARGEST = 2**53  # what JSON numbers of every reader can hold (RFC 8259 section 6); fits SQLite's 64 bits too
_LONGEST = 36500 * DAY
_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_BYTES = {"": 1, "k": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_UNITS = {"message": "messages", "recipient": "recipients", "byte": "bytes"}
_WINDOWS = {"second": 1, "minute": MINUTE, "hour": HOUR, "day": DAY, "month": MONTH, "message": 0}

_NUMBER = r"[0-9]{1,16}(?:\.[0-9]{1,9})?"  # longer ones are above every bound, and slow to convert
_DURATION = re.compile(rf"({_NUMBER}) ?(ms|s|m|h|d)")
_SIZE = re.compile(rf"({_NUMBER}) ?([kKMGT]?)")
_LIMIT = re.compile(r"(?P<count>[0-9]{1,16}) *(?P<unit>[a-z]+) */ *(?P<window>[a-z]+)")
_BYTE_LIMIT = re.compile(rf"(?P<size>{_NUMBER} ?[kKMGT]) */ *(?P<window>[a-z]+)")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")  # RFC 1035 2.3.1, and the underscore that DNS allows


@dataclass(frozen=True, slots=True)
class Limit:
    """`unit` is messages, recipients or bytes; `window` seconds, 0 = each message; `text` as it was configured."""

    count: int
    unit: str
    window: int
    text: str


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


def duration(text: str) -> float:
    """Seconds. A number alone says too little, but for 0."""
    if text == "0":
        return 0.0
    match = _DURATION.fullmatch(text)
    if match is None:
        raise MistakeError(
            f"{quoted(text)} is not a duration", "write a number and ms, s, m, h or d, for example 30s, 10m or 7d"
        )
    seconds = Fraction(match[1]) * _MILLISECONDS[match[2]] / 1000
    if seconds > _LONGEST:
        raise MistakeError(f"{quoted(text)} is longer than a hundred years", "write a shorter time")
    return float(seconds)


def size(text: str) -> int:
    """Bytes; k is 1024."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise MistakeError(
            f"{quoted(text)} is not a size", "write bytes, or a number and k, M or G, for example 64k or 10M"
        )
    count = int(Fraction(match[1]) * _BYTES[match[2].replace("K", "k")])
    if count > _LARGEST:
        raise MistakeError(f"{quoted(text)} is too large", "write at most 8192T")
    return count


def duration_text(seconds: float) -> str:
    """The shortest exact way to write a time; `duration` reads it back."""
    milliseconds = round(seconds * 1000)
    for unit in ("d", "h", "m", "s"):
        if milliseconds % _MILLISECONDS[unit] == 0:
            return f"{milliseconds // _MILLISECONDS[unit]}{unit}" if milliseconds else "0"
    return f"{milliseconds}ms"


def size_text(count: int) -> str:
    """The shortest exact way to write a size; `size` reads it back."""
    for unit in ("T", "G", "M", "k"):
        if count and count % _BYTES[unit] == 0:
            return f"{count // _BYTES[unit]}{unit}"
    return str(count)


def whole(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise MistakeError(f"{quoted(text)} is not a whole number", "write digits alone")
    return int(text)


def decimal(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise MistakeError(f"{quoted(text)} is not a number", "write it like 1.5")
    return float(text)


def percent(text: str) -> float:
    """A fraction of one: 80% is 0.8."""
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?%", text):
        raise MistakeError(f"{quoted(text)} is not a percentage", "write it like 80%")
    return float(Fraction(text[:-1]) / 100)


def boolean(text: str) -> bool:
    known = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if text.lower() not in known:
        raise MistakeError(f"{quoted(text)} is neither true nor false", "write true or false")
    return known[text.lower()]


def octal_mode(text: str) -> int:
    """A file mode, e.g. 0660."""
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise MistakeError(f"{quoted(text)} is not a file mode", 'write three octal digits, for example "0660"')
    return int(text, 8)


def limit(text: str) -> Limit:
    """An amount and the time it is for, e.g. 500 recipients/day or 1G/day."""
    match = _BYTE_LIMIT.fullmatch(text)
    if match:
        return _limit(size(match["size"]), "bytes", match["window"], text)
    match = _LIMIT.fullmatch(text)
    if match:
        return _limit(int(match["count"]), _unit(match["unit"], text), match["window"], text)
    raise MistakeError(f"{quoted(text)} is not a limit", _limit_fix(text))


def _limit_fix(text: str) -> str:
    bare = re.fullmatch(r"([0-9]+) */ *([a-z]+)", text)
    if bare:
        return f"say of what: {bare[1]} messages/{bare[2]}, {bare[1]} recipients/{bare[2]} or {bare[1]} bytes/{bare[2]}"
    return "write it like 500 recipients/day, 100 messages/hour, 1G/day or 50 recipients/message"


def _unit(word: str, text: str) -> str:
    unit = _UNITS.get(word.removesuffix("s"))
    if unit is None:
        raise MistakeError(f"{quoted(text)} counts {word!r}", "count messages, recipients or bytes")
    return unit


def _limit(count: int, unit: str, window: str, text: str) -> Limit:
    if window not in _WINDOWS:
        raise MistakeError(
            f"{quoted(text)} is for each {window!r}", "write /second, /minute, /hour, /day, /month or /message"
        )
    if window == "message" and unit == "messages":
        raise MistakeError(
            f"{quoted(text)} limits nothing", "limit the recipients or bytes of a message, or messages in a time"
        )
    if count < 1:
        raise MistakeError(f"{quoted(text)} would let nothing through", "write 1 or more, or leave the limit out")
    if count > _LARGEST:
        raise MistakeError(f"{quoted(text)} is too large to be counted", "leave the limit out")
    return Limit(count, unit, _WINDOWS[window], text)


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
    name = text.lower().removesuffix(".")
    try:
        if not name.isascii() and len(name) <= _LONGEST_NAME:
            name = name.encode("idna").decode("ascii")
    except UnicodeError:
        name = ""
    if len(name) > _LONGEST_NAME or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise MistakeError(f"{quoted(text)} is not a domain name", "write it like example.com")
    return name


def selector(text: str) -> str:
    """A DKIM selector: one or more DNS labels (RFC 6376 section 3.1)."""
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
    return "@" + domain(text[1:]) if text.startswith("@") else address(text)


def network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise MistakeError(
            f"{quoted(text)} is not a network", "write it like 192.0.2.0/24, 2001:db8::/32 or 127.0.0.1"
        ) from None
    raise MistakeError(f"{quoted(text)} has host bits set", f"write {meant}, or the address alone")


def ip_address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise MistakeError(f"{quoted(text)} is not an IP address", "write it like 192.0.2.53 or 2001:db8::53") from None


def path(text: str) -> Path:
    """An absolute path: a daemon's working directory is nobody's business."""
    if not text.startswith("/") or not text.isprintable():
        raise MistakeError(f"{quoted(text)} is not an absolute path", "begin it with /")
    return Path(text)


def inet(text: str) -> InetAddress:
    """HOST:PORT or [IPV6]:PORT."""
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise MistakeError(f"{quoted(text)} has no port from 1 to 65535", "write HOST:PORT, for example 127.0.0.1:8891")
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
    parts = _web(text, "https://click.example.com")
    if parts.path not in ("", "/") or "?" in text or "#" in text:
        raise MistakeError(
            f"{quoted(text)} has a path or a query", "give scheme and host alone, for example https://click.example.com"
        )
    name = parts.hostname or ""
    host = f"[{_ipv6(name, text)}]" if ":" in name else domain(name)
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


def url(text: str) -> str:
    """A web address with any path."""
    _web(text, "https://crm.example.com/mail")
    return text


def _web(text: str, example: str) -> SplitResult:
    try:
        parts = urlsplit(text if text.isprintable() and " " not in text else "")
        good = parts.scheme in ("http", "https") and parts.hostname and parts.username is None and parts.port != 0
    except ValueError:  # a bracket or a port that are none
        good = False
    if not good:
        raise MistakeError(f"{quoted(text)} is not a web address", f"write it like {example}")
    return parts


def scheme(text: str) -> str:
    """What stands before ://, in lower case; empty when nothing does."""
    match = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*)://.", text)
    return match[1].lower() if match else ""
