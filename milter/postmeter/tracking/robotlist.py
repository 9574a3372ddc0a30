"""The list of known robots: a dated text file, each robot with the source that tells of it.

    date 2026-11-22
    robot NAME
      source URL            who says so; at least one
      on click open         on which hits it counts: click, open or both
      verdict machine       or unsure: a person may be behind it
      agent ~ TEXT          its User-Agent holds that, in any case; `=` for all of it, as it is
      network 192.0.2.0/24  or it comes from there

Any agent or network of a robot will do. Pure: reads no file, fetches nothing. A mistake anywhere makes the whole file
none, by line: half a list would count robots as people.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from postmeter.config.values import Network, unmapped

DEFAULT = Path(__file__).with_name("robots.txt")
"""The list that comes with us."""

LONGEST = 32 * 1024 * 1024  # bytes: the published networks of the large hosts are some megabytes

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_KINDS = ("click", "open")
_LEAST_TEXT = 4  # characters: a shorter one is in everybody's agent


@dataclass(frozen=True, slots=True)
class Robot:
    """`exact` are whole agents, `parts` what an agent holds, in lower case."""

    name: str
    sources: tuple[str, ...]
    kinds: tuple[str, ...]
    verdict: str
    exact: frozenset[str]
    parts: tuple[str, ...]
    networks: tuple[Network, ...]


class RobotList:
    """The robots of a file, to be asked by agent and by address; a machine's word beats one that is unsure."""

    def __init__(self, date: datetime.date, robots: Iterable[Robot]) -> None:
        self.date = date
        self.robots = tuple(sorted(robots, key=lambda robot: robot.verdict))
        self._networks: dict[tuple[str, int, int], dict[int, Robot]] = {}
        for robot in self.robots:
            for kind in robot.kinds:
                for network in robot.networks:
                    place = self._networks.setdefault((kind, network.version, network.prefixlen), {})
                    place.setdefault(int(network.network_address), robot)

    def by_agent(self, kind: str, agent: str) -> Robot | None:
        low = agent.lower()
        for robot in self.robots:
            if kind in robot.kinds and (agent in robot.exact or any(part in low for part in robot.parts)):
                return robot
        return None

    def by_address(self, kind: str, address: str) -> Robot | None:
        try:
            known = ipaddress.ip_address(address)
        except ValueError:
            return None
        found: list[Robot] = []
        for (wanted, version, length), networks in self._networks.items():
            if wanted == kind and version == known.version:
                rest = known.max_prefixlen - length
                robot = networks.get(int(known) >> rest << rest)
                found += [robot] if robot else []
        return min(found, key=lambda robot: robot.verdict, default=None)


@dataclass(slots=True)
class _Draft:
    """A robot whose lines are being read."""

    name: str
    line: int
    sources: list[str] = field(default_factory=list)
    kinds: tuple[str, ...] = ()
    verdict: str = ""
    exact: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    networks: list[Network] = field(default_factory=list)

    def done(self) -> Robot:
        missing = [
            word
            for word, value in (
                ("source", self.sources),
                ("on", self.kinds),
                ("verdict", self.verdict),
                ("agent or network", self.exact or self.parts or self.networks),
            )
            if not value
        ]
        if missing:
            raise ValueError(f"line {self.line}: robot {self.name} has no {missing[0]}")
        exact, parts = frozenset(self.exact), tuple(self.parts)
        return Robot(self.name, tuple(self.sources), self.kinds, self.verdict, exact, parts, tuple(self.networks))


def parse(text: str) -> RobotList:
    """ValueError, which names the line, for what is no such list."""
    date: datetime.date | None = None
    drafts: dict[str, _Draft] = {}
    robot: _Draft | None = None
    for number, line in enumerate(text.splitlines(), 1):
        word, _, value = line.strip().partition(" ")
        value = value.strip()
        if not word or word.startswith("#"):
            continue
        try:
            if word == "date" and date is None:
                date = datetime.date.fromisoformat(value)
            elif word == "robot":
                robot = drafts[value] = _begin(value, number, drafts)
            elif robot is None:
                raise ValueError("a date, or a robot, comes first")
            else:
                _add(robot, word, value)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    if date is None:
        raise ValueError("line 1: no date")
    return RobotList(date, [draft.done() for draft in drafts.values()])


def _begin(name: str, number: int, drafts: dict[str, _Draft]) -> _Draft:
    if not _NAME.fullmatch(name):
        raise ValueError("a robot's name has small letters, digits and hyphens, 40 at most")
    if name in drafts:
        raise ValueError(f"robot {name} stands in line {drafts[name].line} already")
    return _Draft(name, number)


def _add(robot: _Draft, word: str, value: str) -> None:
    if word == "source" and re.fullmatch(r"https?://\S+", value):
        robot.sources.append(value)
    elif word == "on" and value and set(value.split()) <= set(_KINDS):
        robot.kinds = tuple(kind for kind in _KINDS if kind in value.split())
    elif word == "verdict" and value in ("machine", "unsure"):
        robot.verdict = value
    elif word == "agent":
        _add_agent(robot, value)
    elif word == "network":
        network = unmapped(ipaddress.ip_network(value))
        if network.prefixlen < (8 if network.version == 4 else 16):
            raise ValueError(f"{network} is too large to be somebody's")
        robot.networks.append(network)
    else:
        raise ValueError(f"what is `{word} {value}`?")


def _add_agent(robot: _Draft, value: str) -> None:
    how, _, text = value.partition(" ")
    text = text.strip()
    if how == "=" and text:
        robot.exact.append(text)
    elif how == "~" and len(text) >= _LEAST_TEXT:
        robot.parts.append(text.lower())
    else:
        raise ValueError(f"write `agent = TEXT`, or `agent ~ TEXT` of {_LEAST_TEXT} characters or more")
