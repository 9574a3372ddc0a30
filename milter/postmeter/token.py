"""Every authenticated string we give out: what it holds, how it is made, and whether one that comes back is ours.

Pure: no file, no clock, no log; whoever uses it reads the secrets and knows the hosts. Links live for ever, so this
layout does too; only the version byte may ever lead to another one. A return path has a `tag`.

    BASE/c/TOKEN    a link     (issued)
    BASE/o/TOKEN    an open    (laid out as a link whose number is 0 and that has no target)
    BASE/u/TOKEN    an unsubscribe (hides what it says: see below)

TOKEN is base64url without padding (RFC 4648 section 5; unused last bits are zero) of

    1   version        1
    2   key id         of the secret, see `key_id`; it reveals nothing of it
    8   reference      of the message
    n   link           its number, LEB128: seven bits a byte, low ones first, the eighth says that more follow
    1+n recipient      one byte of length, then so many bytes; 0 says nothing about a person; else see `pseudonym`
    n   target         UTF-8, to the end
    16  MAC            BLAKE2b (RFC 7693), 128 bits, keyed with the secret's key for this use

The MAC is over the host (one byte of length, then ASCII lower case) and all bytes before the MAC. It stands last, at a
place that needs no parsing: nothing is parsed before it has been checked. Its key is derived from the secret and the
use, so a token of one use is nothing in another. The host is that of BASE without its port, because the name is what
people trust and what a proxy keeps; a token is worth nothing on another host.

An unsubscribe names a person at every level of privacy, so its content is hidden. It is base64url of

    3   version, key id, as above
    12  nonce          chance, given by whoever mints
    n   content        encrypted: 8 reference, 2 length of the address (big-endian), the recipient's address, scope
    16  tag

as `sealed` makes it with the secret's key for the use `u`, bound to version, key id and the host in ASCII lower case.
The scope is what the person leaves, as `mail.scope` writes it.

A mark is what mail carries through a content filter and back: it stands in a header field and lives for an hour. It is
base64url, of other secrets and for the use `m`, of

    3   version, key id and
    8   reference, as above
    8   time           whole seconds since the epoch, big-endian
    1   flags          1: the message may be signed for its From domain; 2: the sender is a login
    16  From domain    BLAKE2b of its name in lower case
    1+n queue id       of the first pass; one byte of length, then so many bytes
    1+n sender         likewise
    16  MAC            over the Message-ID (four bytes of length before it) and all bytes before the MAC

Keyed BLAKE2b keeps the GIL for input this short, HMAC of OpenSSL frees it for every call and costs more (D41).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from hmac import compare_digest
from typing import TypeAlias
from urllib.parse import urlsplit

LINK = "c"
OPEN = "o"
UNSUBSCRIBE = "u"
RECIPIENT = "r"
MARK = "m"

_VERSION = 1
_HEAD = 3  # version and key id
_REFERENCE = 8
_MAC = 16
_LEAST = _HEAD + _REFERENCE + 2 + _MAC
_TIME = 8
_DOMAIN = 16
_NAMES = _HEAD + _REFERENCE + _TIME + 1 + _DOMAIN  # where a mark's queue id begins
_SIGNABLE, _BY_LOGIN = 1, 2
_LONGEST_QUEUE_ID, _LONGEST_SENDER = 32, 128  # octets: so a mark stays below 300 letters
_HOSTS = 1024  # prepared keys that are kept; whatever Host a stranger sends cannot make us keep more
_SECRET = re.compile(r"[0-9A-Fa-f]{64}")
_HOST = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9._-]{0,252}?|\[[0-9A-Fa-f:.]{2,45}\])\.?(?::[0-9]*)?")  # RFC 3986 3.2.2
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_+/", b"+/\xff\xff")  # + and / are not letters of base64url: they must not pass

_State: TypeAlias = blake2b


@dataclass(frozen=True, slots=True)
class Link:
    """What a link's token says. `recipient` is empty where a link is shared or nothing about a person is kept."""

    reference: bytes
    link: int
    recipient: bytes
    target: str


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """What an unsubscribe's token says: which message brought it, who leaves, and what (`mail.scope`)."""

    reference: bytes
    recipient: bytes
    scope: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What the first pass said of a message. A queue id or a sender that is too long for a mark comes back empty."""

    reference: bytes
    time: int
    signable: bool
    domain: bytes
    """`domain_digest` of the From domain that it had."""
    queue_id: str
    login: str
    """Empty where the sender is no login."""
    sender: str


def parse_secrets(text: str) -> tuple[bytes, ...]:
    """The secrets of a file's text, newest first: 64 hexadecimal digits a line, # comments and blank lines aside."""
    secrets: dict[bytes, None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        content = line.strip()
        if not content or content.startswith("#"):
            continue
        if not _SECRET.fullmatch(content):
            raise ValueError(f"line {number}: not 64 hexadecimal digits")
        secrets[bytes.fromhex(content)] = None
    if not secrets:
        raise ValueError("line 1: no secret; put one of 64 hexadecimal digits there")
    return tuple(secrets)


def key_id(secret: bytes) -> bytes:
    """Two bytes that tell secrets apart; two secrets that share one are both tried."""
    return blake2b(b"", key=secret, digest_size=_HEAD - 1, person=b"postmeter key id").digest()


def derive(secret: bytes, use: str) -> bytes:
    """The secret's key of 256 bits for one use."""
    return blake2b(use.encode(), key=secret, digest_size=32, person=b"postmeter use").digest()


def host_of(url: str) -> str:
    """The host that a base URL's tokens are for: lower case, no port, no final dot. ValueError when there is none."""
    return host_name(urlsplit(url).netloc.rpartition("@")[2])


def host_name(host: str) -> str:
    """A Host header's name in the form tokens know; ValueError for what cannot be a host of ours."""
    found = _HOST.fullmatch(host)
    if not found:
        raise ValueError(f"no host name in ASCII: {host!r}")
    return found[1].lower()


def reference_of(token: str) -> bytes:
    """The message that a token claims to be of, even one cut off at its end; nothing is checked. Empty for noise."""
    try:
        raw = base64.b64decode(token[: (_HEAD + _REFERENCE) * 4 // 3 + 1] + "A", altchars=b"-_", validate=True)
    except ValueError:
        return b""
    return raw[_HEAD : _HEAD + _REFERENCE] if raw[0] == _VERSION and len(raw) >= _HEAD + _REFERENCE else b""


class Mint:
    """Makes tokens with the newest secret and knows those of all. Safe for threads; replaced, never changed."""

    __slots__ = ("_known", "_maker", "_newest", "_person", "_states")

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets:
            raise ValueError("no secret")
        self._newest = secrets[0]
        self._person = derive(secrets[0], RECIPIENT)
        self._known: dict[bytes, list[bytes]] = {}
        for secret in secrets:
            self._known.setdefault(key_id(secret), []).append(secret)
        self._maker = lru_cache(maxsize=_HOSTS)(self._prepare)
        self._states = lru_cache(maxsize=_HOSTS)(self._candidates)

    def link_url(self, base_url: str, *, reference: bytes, link: int, target: str, recipient: bytes = b"") -> str:
        """The tracked URL. ValueError when a part does not fit the layout or the target is no text (lone surrogate)."""
        return self._url(base_url, LINK, _pack(reference, link, recipient) + target.encode())

    def link_urls(self, base_url: str, *, reference: bytes, recipient: bytes = b"") -> Callable[[int, str], bytes]:
        """What makes the tracked URLs of one message, each of a number and a target: `link_url`'s, in ASCII."""
        prefix, head, state = self._maker(base_url, LINK)
        first = _pack(reference, 0, recipient)
        start, before, after = prefix.encode("ascii"), head + first[:_REFERENCE], first[_REFERENCE + 1 :]

        def url(link: int, target: str) -> bytes:
            content = before + _varint(link) + after + target.encode()
            mac = state.copy()
            mac.update(content)
            return start + _encode(content + mac.digest())

        return url

    def open_url(self, base_url: str, *, reference: bytes, recipient: bytes = b"") -> str:
        """The address of the image that tells that a message was opened. ValueError as for links."""
        return self._url(base_url, OPEN, _pack(reference, 0, recipient))

    def open_link(self, host: str, token: str) -> Link | None:
        """What the token says if we made it for a link on this host, else None, whatever the reason."""
        return self._open(host, LINK, token)

    def open_open(self, host: str, token: str) -> Link | None:
        """The same for an open: it has no target."""
        return self._open(host, OPEN, token)

    def unsubscribe_url(self, base_url: str, said: Unsubscribe, *, nonce: bytes) -> str:
        """Where a person can leave. ValueError when a part does not fit the layout."""
        from postmeter.sealed import seal  # as late as possible, as it says

        if len(said.reference) != _REFERENCE or len(said.recipient) > 0xFFFF:
            raise ValueError("a reference has eight bytes, an address 65,535 at most")
        prefix, head, _ = self._maker(base_url, UNSUBSCRIBE)
        content = said.reference + len(said.recipient).to_bytes(2, "big") + said.recipient + said.scope.encode()
        key, bound = derive(self._newest, UNSUBSCRIBE), head + host_of(base_url).encode("ascii")
        return prefix + _encode(head + seal(key, content, nonce=nonce, bound=bound)).decode("ascii")

    def open_unsubscribe(self, host: str, token: str) -> Unsubscribe | None:
        """What the token says if we made it for this host, else None, whatever the reason."""
        from postmeter.sealed import unseal

        raw = _decode(token)
        if raw[:1] != bytes([_VERSION]):
            return None
        try:
            bound = raw[:_HEAD] + host_name(host).encode("ascii")
        except ValueError:
            return None
        for secret in self._known.get(raw[1:_HEAD], ()):
            content = unseal(derive(secret, UNSUBSCRIBE), raw[_HEAD:], bound=bound)
            if content is not None:
                return _unpack_unsubscribe(content)
        return None

    def pseudonym(self, address: bytes) -> bytes:
        """Eight bytes that stand for a recipient while the newest secret is that; a domain's case is no difference."""
        local, at, domain = address.rpartition(b"@")
        name = local + at + domain.lower()
        return blake2b(name, key=self._person, digest_size=8, person=b"postmeter person").digest()

    def _url(self, base_url: str, use: str, content: bytes) -> str:
        prefix, head, state = self._maker(base_url, use)
        content = head + content
        mac = state.copy()
        mac.update(content)
        return prefix + _encode(content + mac.digest()).decode("ascii")

    def _open(self, host: str, use: str, token: str) -> Link | None:
        raw = _decode(token)
        if len(raw) < _LEAST or raw[0] != _VERSION or raw[1:_HEAD] not in self._known:
            return None
        try:
            states = self._states(raw[1:_HEAD], use, host)
        except ValueError:
            return None
        content, given = raw[:-_MAC], raw[-_MAC:]
        for state in states:
            mac = state.copy()
            mac.update(content)
            if compare_digest(mac.digest(), given):
                return _unpack(content)
        return None

    def _prepare(self, base_url: str, use: str) -> tuple[str, bytes, _State]:
        """What all URLs of one use below a base have in common: how they begin, and a MAC that has seen their host."""
        head = bytes([_VERSION]) + key_id(self._newest)
        return f"{base_url.rstrip('/')}/{use}/", head, _state(self._newest, use, host_of(base_url))

    def _candidates(self, known_as: bytes, use: str, host: str) -> tuple[_State, ...]:
        name = host_name(host)
        return tuple(_state(secret, use, name) for secret in self._known[known_as])


class Marker:
    """Makes marks with the newest secret and knows those of all. Safe for threads; replaced, never changed."""

    __slots__ = ("_head", "_keys")

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets:
            raise ValueError("no secret")
        self._keys = tuple((key_id(secret), derive(secret, MARK)) for secret in secrets)
        self._head = bytes([_VERSION]) + self._keys[0][0]

    def mark(self, mark: Mark, *, message_id: bytes) -> str:
        """Fewer than 300 letters. ValueError when a part does not fit the layout."""
        if len(mark.reference) != _REFERENCE or len(mark.domain) != _DOMAIN:
            raise ValueError("a reference has eight bytes, a domain's digest sixteen")
        if not 0 <= mark.time < 1 << 8 * _TIME:
            raise ValueError("a mark's time is not before the epoch")
        flags = _SIGNABLE * mark.signable | _BY_LOGIN * bool(mark.login)
        fixed = mark.reference + mark.time.to_bytes(_TIME, "big") + bytes([flags]) + mark.domain
        names = _name(mark.queue_id, _LONGEST_QUEUE_ID) + _name(mark.login or mark.sender, _LONGEST_SENDER)
        content = self._head + fixed + names
        return _encode(content + _mark_mac(self._keys[0][1], message_id, content)).decode("ascii")

    def open_mark(self, text: str, *, message_id: bytes) -> Mark | None:
        """What the mark says if we made it for a message with this Message-ID, however old, else None."""
        raw = _decode(text)
        if len(raw) < _NAMES + 2 + _MAC or raw[0] != _VERSION:
            return None
        content, given = raw[:-_MAC], raw[-_MAC:]
        for known_as, key in self._keys:
            if known_as == raw[1:_HEAD] and compare_digest(_mark_mac(key, message_id, content), given):
                return _unpack_mark(content)
        return None


def domain_digest(domain: str) -> bytes:
    """What a mark says of a From domain, which may be longer than a mark."""
    return blake2b(domain.lower().encode("utf-8", "backslashreplace"), digest_size=_DOMAIN).digest()


def _mark_mac(key: bytes, message_id: bytes, content: bytes) -> bytes:
    bound = len(message_id).to_bytes(4, "big") + message_id + content
    return blake2b(bound, key=key, digest_size=_MAC, person=b"postmeter token").digest()


def _name(text: str, longest: int) -> bytes:
    """Its length and its octets. What is too long, or no text, is left out and not cut: half a name is another one."""
    octets = text.encode("utf-8", "ignore")
    return bytes([len(octets)]) + octets if len(octets) <= longest else bytes(1)


def _unpack_mark(content: bytes) -> Mark:
    """The parts of content that its MAC has proved to be ours."""
    at = _HEAD + _REFERENCE + _TIME
    end = _NAMES + 1 + content[_NAMES]
    sender = content[end + 1 :].decode()
    by_login = bool(content[at] & _BY_LOGIN)
    return Mark(
        reference=content[_HEAD : _HEAD + _REFERENCE],
        time=int.from_bytes(content[_HEAD + _REFERENCE : at], "big"),
        signable=bool(content[at] & _SIGNABLE),
        domain=content[at + 1 : _NAMES],
        queue_id=content[_NAMES + 1 : end].decode(),
        login=sender if by_login else "",
        sender=sender.lower() if by_login else sender,
    )


def _state(secret: bytes, use: str, host: str) -> _State:
    name = host.encode("ascii")
    return blake2b(bytes([len(name)]) + name, key=derive(secret, use), digest_size=_MAC, person=b"postmeter token")


def _pack(reference: bytes, link: int, recipient: bytes) -> bytes:
    if len(reference) != _REFERENCE or link < 0:
        raise ValueError("a reference has eight bytes, a link's number is not negative")
    return reference + _varint(link) + bytes([len(recipient)]) + recipient


def _unpack(content: bytes) -> Link:
    """The parts of content that its MAC has proved to be ours."""
    at = _HEAD + _REFERENCE
    link = shift = 0
    while content[at] & 0x80:
        link |= (content[at] & 0x7F) << shift
        shift += 7
        at += 1
    link |= content[at] << shift
    end = at + 2 + content[at + 1]
    return Link(content[_HEAD : _HEAD + _REFERENCE], link, content[at + 2 : end], content[end:].decode())


def _unpack_unsubscribe(content: bytes) -> Unsubscribe:
    """The parts of content that its tag has proved to be ours."""
    at = _REFERENCE + 2
    end = at + int.from_bytes(content[_REFERENCE:at], "big")
    return Unsubscribe(content[:_REFERENCE], content[at:end], content[end:].decode())


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes([number])
    return bytes([number & 0x7F | 0x80]) + _varint(number >> 7)


def _encode(raw: bytes) -> bytes:
    return binascii.b2a_base64(raw, newline=False).translate(_TO_URL).rstrip(b"=")


def _decode(token: str) -> bytes:
    """The token's bytes if it is their one base64url form, else nothing."""
    try:
        text = token.encode("ascii")
        raw = binascii.a2b_base64(text.translate(_FROM_URL) + b"=" * (-len(text) % 4), strict_mode=True)
    except ValueError:
        return b""
    return raw if _encode(raw) == text else b""
