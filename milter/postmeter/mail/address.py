"""Addresses: their text for people, their parts, the From field's.

Bytes in, text out; never raises on what a client may send (RFC 5321 4.1.2, RFC 5322 3.4, RFC 6531).
"""

from __future__ import annotations


def text(raw: bytes) -> str:
    """An address or header value as text that any log, database or JSON document can hold; foreign bytes as \\xNN."""
    return raw.decode("utf-8", "backslashreplace")


def bare(raw: bytes) -> bytes:
    """An envelope address without its angle brackets (RFC 5321 4.1.2 Reverse-path)."""
    raw = raw.strip()
    return raw[1:-1] if raw[:1] == b"<" and raw[-1:] == b">" else raw


def domain(address: str) -> str:
    """The part behind the last @, in lower case; empty when there is none."""
    return address.rpartition("@")[2].lower().rstrip(".") if "@" in address else ""
