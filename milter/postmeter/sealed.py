"""Content that only we can read and nobody can alter: ChaCha20-Poly1305 (RFC 8439), in the constant time of OpenSSL.

Pure; knows nothing of tokens, which say whose key it is and what the content is bound to. A module of its own because
`cryptography` takes 0.1 s to load, which not every command shall wait for.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

NONCE = 12
OVERHEAD = NONCE + 16
"""Octets that are added: the nonce before what is encrypted, and the tag behind it."""

_KEYS = 256

_cipher = lru_cache(maxsize=_KEYS)(ChaCha20Poly1305)


def seal(key: bytes, content: bytes, *, nonce: bytes, bound: bytes) -> bytes:
    """`nonce` must not come twice with a key. It opens only with the same `bound`, which is not in it."""
    if len(nonce) != NONCE:
        raise ValueError(f"a nonce has {NONCE} bytes")
    return nonce + _cipher(key).encrypt(nonce, content, bound)


def unseal(key: bytes, sealed: bytes, *, bound: bytes) -> bytes | None:
    """The content, if it was sealed with this key and bound to the same, and no bit of it has changed."""
    if len(sealed) < OVERHEAD:
        return None
    try:
        return _cipher(key).decrypt(sealed[:NONCE], sealed[NONCE:], bound)
    except InvalidTag:
        return None
