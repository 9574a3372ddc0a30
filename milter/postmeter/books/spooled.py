"""A line of the tracking server's spool as what it may hold and no more: the server is another, less trusted user.

Pure; knows nothing of files, and nothing of what becomes of a hit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any

from postmeter.events import REFERENCE
from postmeter.tracking.hits import SEEN

LONGEST = 8192  # bytes of a line; its target, which is the longest in it, is one that we took for a link: 1,900
_MOST_LOST = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A click or an open as the server wrote it down; `source` names its line."""

    source: str
    kind: str
    time: float
    reference: str
    link: int
    recipient: str
    target: str
    host: str
    method: str
    address: str
    agent: str
    secure: bool
    fields: Mapping[str, str]

    @property
    def network(self) -> str:
        """The address's /24, or /48 of IPv6; the text itself where it is no address."""
        return _network(self.address)


@lru_cache(maxsize=4096)
def _network(address: str) -> str:
    try:
        known = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((known, 24 if known.version == 4 else 48), strict=False))


def said(line: bytes) -> dict[str, Any]:
    """The line's JSON object. ValueError when it is none."""
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def seen(source: str, said: Mapping[str, Any]) -> Seen:
    """ValueError, TypeError or KeyError for what is no hit."""
    kind = said.get("kind", "click")  # 0.1.0 knew no other
    if kind not in ("click", "open"):
        raise ValueError("neither click nor open")
    fields = said.get("fields", {})
    return Seen(
        source=source,
        kind=kind,
        time=number(said["time"]),
        reference=reference(said["reference"]),
        link=int(number(said["link"])),
        recipient=text(said["recipient"], 510),
        target=text(said["target"], LONGEST),
        host=text(said["host"], 255),
        method=text(said["method"], 8),
        address=text(said["address"], 64),
        agent=text(said["agent"], 512),
        secure=said.get("secure", False) is True,
        fields={name: text(fields[name], 64) for name in SEEN if name in fields},
    )


def lost(line: bytes) -> int:
    """How many hits a line stands for that is none: the server says so of those that it could not keep."""
    try:
        return min(int(number(said(line)["lost"])), _MOST_LOST)
    except (ValueError, TypeError, KeyError, RecursionError):
        return 1


def number(value: object) -> float:
    """ValueError for what is none that every database can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        raise ValueError("not a number that fits")
    return value


def reference(value: object) -> str:
    """Of a message."""
    if not isinstance(value, str) or not REFERENCE.fullmatch(value):
        raise ValueError("not a reference")
    return value


def text(value: object, longest: int) -> str:
    """Text that any database can hold: a lone surrogate, which JSON can say, is none."""
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value[:longest].encode("utf-8", "replace").decode()
