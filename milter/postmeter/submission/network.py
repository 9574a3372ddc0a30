"""The client's network: what stands for an address where many addresses are one place (`quota.networks.prefix`).

Knows nothing of quotas or of whose mail it is. IPv6 gives every host an unbounded number of addresses (RFC 7721), and
so does a dialled IPv4 connection in the course of a week.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

from postmeter.mail.message import Client


def network(client: Client, prefix: Sequence[int]) -> str:
    """Empty for sendmail(1), and for what is no address. `prefix`: bits of IPv4 and of IPv6."""
    return "" if client.local else _network(client.address, prefix[0], prefix[1])


def of_address(address: str, prefix: Sequence[int]) -> str:
    """Empty for what is no address."""
    return _network(address, prefix[0], prefix[1])


@lru_cache(maxsize=4096)
def _network(client: str, bits4: int, bits6: int) -> str:
    try:
        ip = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return str(ipaddress.ip_network((ip, bits4 if ip.version == 4 else bits6), strict=False))
