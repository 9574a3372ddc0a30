"""Who asked, and whether by TLS, through proxies that we trust (X-Forwarded-For and -Proto, as nginx and Apache do).

Knows nothing of what was asked. A header is believed as far as trusted proxies wrote it: from its end, up to the first
address that is none of theirs.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache

from postmeter.config.values import Network

_KEPT = 4096  # decisions about addresses
_PORT = re.compile(r"\[([^\]]*)\](?::[0-9]+)?|([0-9.]+)(?::[0-9]+)?")  # RFC 7239 section 6 forms that some proxies use


class Clients:
    """What is known of addresses under one configuration."""

    def __init__(self, proxies: Sequence[Network]) -> None:
        self._proxies = tuple(proxies)
        self.known = lru_cache(maxsize=_KEPT)(self._known)

    def address(self, peer: str, forwarded: str) -> str:
        """The address to be kept; the peer's own where it is no proxy, or one that says nothing usable."""
        best, trusted = self.known(peer)
        for text in reversed(forwarded.split(",")) if trusted and forwarded else ():
            name, trusted = self.known(text.strip()[:64])
            if not name:
                break
            best = name
            if not trusted:
                break
        return best

    def secure(self, peer: str, proto: str, tls: bool) -> bool:
        """Whether the client came by TLS: what the proxy next to us says of it, or what we saw ourselves."""
        if not self.known(peer)[1]:
            return tls
        return proto.rpartition(",")[2].strip().lower() == "https"

    def _known(self, text: str) -> tuple[str, bool]:
        """The address in its usual form, empty when it is none, and whether it is a trusted proxy's."""
        found = _PORT.fullmatch(text)
        named = (found[1] or found[2]) if found else text
        try:
            address = ipaddress.ip_address(named.partition("%")[0])  # a zone may be any text (RFC 6874)
        except ValueError:
            return "", False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return str(address), any(address in network for network in self._proxies)
