"""People and robots: who made a hit, as far as a careful look can tell: human, machine or unsure, with the reason.

A pure function over what was seen of a hit, of other hits of its message, and a dated list of known robots. It asks
nobody and keeps nothing. Careful means: what is not known to be a person's is never `human`, whatever network it comes
from; the rules and their limits stand in docs/decisions.md. Fetch Metadata (w3.org/TR/fetch-metadata), RFC 9110.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from postmeter.tracking.robotlist import Robot, RobotList

HUMAN, MACHINE, UNSURE = "human", "machine", "unsure"

SOON = 60.0
"""Seconds after a message was handed in in which nobody is taken for a person: gateways look at links before, or as,
they deliver."""

MANY = 3
"""Links of a message within a second that no person follows; two could be a browser that brings back its windows."""

_KEPT = 4096  # decisions about agents and addresses
_AHEAD = re.compile(r"prefetch|prerender|preview", re.IGNORECASE)
_BROWSER = re.compile(r"Mozilla/5\.0 \(.+ (?:Chrome|CriOS|Firefox|FxiOS|Edg|EdgA|EdgiOS|Version)/[0-9.]+")
_NO_BROWSER = re.compile(r"bot\b|crawl|spider|headless|preview|scan|proxy|phantom|\+?https?://", re.IGNORECASE)
# Safari sends no Sec-Fetch-User (https://webkit.org/b/247697).
_SAFARI = re.compile(r"Version/[0-9.]+ (?:Mobile/\w+ )?Safari/[0-9.]+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What is known of a hit. Of `fields` the names are as in `hits.SEEN`.

    `since`: seconds after the message was delivered, or handed in as long as it is not `delivered`; None for a message
    that we do not know; `deferred` when a server did not take it yet, and none has. `links`: how many links of it were
    followed within a second of this hit, this one counted.
    `asked`: somebody of its network had asked for it by HEAD. `trapped`: somebody of that followed the hidden link.
    """

    kind: str
    method: str
    agent: str
    address: str
    fields: Mapping[str, str]
    secure: bool = True
    since: float | None = None
    delivered: bool = False
    deferred: bool = False
    links: int = 1
    asked: bool = False
    trapped: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    by: str
    reason: str


class Robots:
    """Judges by one list of robots."""

    def __init__(self, known: RobotList) -> None:
        self.date = known.date
        self._known = known
        self._of_agent = lru_cache(maxsize=_KEPT)(self._find_agent)
        self._of_address = lru_cache(maxsize=_KEPT)(self._find_network)

    def judge(self, sight: Sight) -> Verdict:
        robot = self._of_agent(sight.kind, sight.agent) or self._of_address(sight.kind, sight.address)
        machine = _machine(sight, robot)
        if machine:
            return Verdict(MACHINE, machine)
        unsure = _unsure(sight, robot)
        return Verdict(UNSURE, unsure) if unsure else Verdict(HUMAN, "browser")

    def _find_agent(self, kind: str, agent: str) -> Robot | None:
        return self._known.by_agent(kind, agent)

    def _find_network(self, kind: str, address: str) -> Robot | None:
        return self._known.by_address(kind, address)


def _machine(sight: Sight, robot: Robot | None) -> str:
    """Why it is a machine's; empty when nothing says so."""
    if sight.trapped:
        return "honeypot"
    if sight.method == "HEAD":
        return "head"
    if any(_AHEAD.search(sight.fields.get(name, "")) for name in ("Purpose", "X-Purpose", "Sec-Purpose", "X-Moz")):
        return "prefetch"
    if not sight.agent.strip():
        return "no_agent"
    if robot is not None and robot.verdict == MACHINE:
        return f"robot:{robot.name}"
    if sight.delivered and sight.since is not None and sight.since < 0:
        return "before_delivery"
    if sight.links >= MANY:
        return "many_links"
    return "head_first" if sight.asked else ""


def _unsure(sight: Sight, robot: Robot | None) -> str:
    """Why it cannot be said to be a person's; empty when everything speaks for one."""
    if robot is not None:
        return f"robot:{robot.name}"
    if sight.links > 1:
        return "two_links"
    if not _is_browser(sight.agent):
        return "no_browser"
    if not _is_public(sight.address):
        return "no_address"
    if sight.since is None:
        return "no_message"
    if sight.since < SOON:
        return "soon"
    if sight.deferred:
        return "not_delivered"
    return _metadata(sight)


def _metadata(sight: Sight) -> str:
    """What is missing of what a browser sends when somebody follows a link, or looks at a page with the image in it."""
    fields = sight.fields
    mode, target = fields.get("Sec-Fetch-Mode", ""), fields.get("Sec-Fetch-Dest", "")
    if not mode and not sight.secure:
        return "plain_http"  # there browsers send none of it
    if sight.kind == "open":
        return "" if (mode, target) == ("no-cors", "image") else "no_image"
    by_hand = fields.get("Sec-Fetch-User") == "?1" or _SAFARI.search(sight.agent)
    return "" if (mode, target) == ("navigate", "document") and by_hand else "no_navigation"


@lru_cache(maxsize=_KEPT)
def _is_browser(agent: str) -> bool:
    return bool(_BROWSER.match(agent)) and not _NO_BROWSER.search(agent)


@lru_cache(maxsize=_KEPT)
def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False
