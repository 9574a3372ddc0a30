"""The tag of a return path: it names the message that comes back, and nobody else can make one.

Pure, as `token` is, of the same secrets as marks. A tag stands in an address, so it is of letters and digits that every
mail server passes on, and is read in any case. `ADDRESS+TAG`; TAG is base32 (RFC 4648 section 6) in lower case of

    1   version        1
    2   key id         of the secret, see `token.key_id`
    8   reference      of the message
    9   MAC            BLAKE2b (RFC 7693), 72 bits, keyed with the secret's key for this use, over the bytes before it

20 octets are 32 letters, none of them half used. The MAC is short because each guess at it is a message that we have to
be sent: a million a second for a century are 2^52. Every recipient sees the tag: it proves which message is spoken of,
and not who speaks.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from hashlib import blake2b
from hmac import compare_digest

from postmeter.token import derive, key_id

RETURN_PATH = "b"
FEEDBACK = "f"
LENGTH = 32
"""Letters of a tag."""
LOCAL_PART = 64
"""Octets at most (RFC 5321 section 4.5.3.1.1)."""

_VERSION = b"\x01"
_HEAD, _REFERENCE, _MAC = 3, 8, 9
_TAG = re.compile(r"[A-Za-z2-7]{32}")
_TAGGED = re.compile(r"[+=_.#!&*-]([A-Za-z2-7]{32})\Z")  # behind any delimiter: it may have been another one


class Tagger:
    """Makes tags with the newest secret and knows those of all. Safe for threads; replaced, never changed."""

    __slots__ = ("_head", "_keys", "_person")

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets:
            raise ValueError("no secret")
        self._keys = tuple((key_id(secret), derive(secret, RETURN_PATH)) for secret in secrets)
        self._head = _VERSION + self._keys[0][0]
        self._person = derive(secrets[0], FEEDBACK)

    def tag(self, reference: bytes) -> str:
        """ValueError when the reference has not eight bytes."""
        if len(reference) != _REFERENCE:
            raise ValueError("a reference has eight bytes")
        content = self._head + reference
        return _text(content + _mac(self._keys[0][1], content))

    def open(self, text: str) -> bytes | None:
        """The reference that a tag names if we made it, else None, whatever the reason."""
        if not _TAG.fullmatch(text):
            return None
        raw = base64.b32decode(text.upper())
        content, given = raw[:-_MAC], raw[-_MAC:]
        for known_as, key in self._keys:
            if content[:_HEAD] == _VERSION + known_as and compare_digest(_mac(key, content), given):
                return content[_HEAD:]
        return None

    def open_address(self, address: str) -> bytes | None:
        """The same for an address with a tag at the end of its local part."""
        found = _TAGGED.search(address.rpartition("@")[0])
        return self.open(found[1]) if found else None

    def pseudonym(self, name: str) -> str:
        """Eight letters that stand for a login where others can read it, while the newest secret is that."""
        return _text(blake2b(name.lower().encode("utf-8", "replace"), key=self._person, digest_size=5).digest())


def tagged(address: str, tag: str, *, delimiter: str) -> str:
    """The address with the tag behind its local part."""
    local, _, domain = address.rpartition("@")
    return f"{local}{delimiter}{tag}@{domain}"


def untagged(address: str) -> str:
    """The address without what looks like a tag; one that has none stays as it is."""
    local, at, domain = address.rpartition("@")
    return _TAGGED.sub("", local) + at + domain


def fits(address: str) -> bool:
    """Whether the address has room for a delimiter and a tag."""
    return len(address.rpartition("@")[0].encode()) + 1 + LENGTH <= LOCAL_PART


def _mac(key: bytes, content: bytes) -> bytes:
    return blake2b(content, key=key, digest_size=_MAC, person=b"postmeter token").digest()


def _text(raw: bytes) -> str:
    return base64.b32encode(raw).decode("ascii").lower()
