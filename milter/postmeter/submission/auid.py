"""i= of a signature: the agent or user it is made for (RFC 6376 section 3.5), as dkim-quoted-printable (section 2.11).

Knows nothing of messages or keys. Text in, tag value out; empty for what cannot be said there: no address, or one
outside the signing domain, which no verifier accepts. Nor one with a second @, however quoted: OpenDKIM 2.11 splits
what it has decoded at the first.
"""

from __future__ import annotations

import re

from postmeter.mail import address

_ATOM = r"[\w!#$%&'*+/=?^`{|}~-]+"  # RFC 5322 section 3.2.3, RFC 6532 section 3.2
_LOCAL = re.compile(rf'{_ATOM}(?:\.{_ATOM})*|"(?:[\w !#-?A-\[\]-~]|\\[ -?A-~])*"')
_HOST = re.compile(r"[a-z0-9_.-]+")
_LONGEST = 64  # octets, RFC 5321 section 4.5.3.1.1
_SAFE = frozenset(range(0x21, 0x7F)) - frozenset(b";=")  # stand for themselves


def auid(identity: str, domain: str) -> bytes:
    """The value of i= for an address, where it lies in the signing domain or below it."""
    local, at, _ = identity.rpartition("@")
    host = address.domain(identity)
    within = host == domain or host.endswith(f".{domain}")
    if not at or not within or not _HOST.fullmatch(host) or not _LOCAL.fullmatch(local):
        return b""
    octets = local.encode()
    return _quoted(octets) + b"@" + host.encode() if len(octets) <= _LONGEST else b""


def _quoted(octets: bytes) -> bytes:
    return b"".join(b"%c" % octet if octet in _SAFE else b"=%02X" % octet for octet in octets)
