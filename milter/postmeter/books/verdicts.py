"""Tells people from robots where several hits are needed for it: what else came for a message, and when.

Judges a hit in the light of those around it, and judges it again when more of them come in within a minute: a verdict
can only become harder. Remembers a minute of hits in memory, nothing longer and nowhere else; knows no event and no
file. What one hit says by itself is `tracking.robots`' business.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from postmeter.books.spooled import Seen
from postmeter.tracking.robots import HUMAN, MACHINE, UNSURE, Robots, Sight, Verdict

MINUTE = 60.0  # seconds around a hidden link, and behind a HEAD, that colour what comes from the same network
SECOND = 1.0  # seconds within which nobody follows many links

_MOST = 200  # hits of one message that are remembered, and looked at around another
_MESSAGES = 5000  # messages of which hits are remembered
_HITS = 30_000  # hits that are remembered in all; one takes some 4 kB at most, with its target
_HARDNESS = {HUMAN: 0, UNSURE: 1, MACHINE: 2}


@dataclass(frozen=True, slots=True)
class About:
    """What a judge has to know of a message. `handed_in` is None where it is not ours, or not known any more;
    `delivered`, when the first server took it, as long as the log does not say.
    """

    handed_in: float | None = None
    delivered: float | None = None
    deferred: bool = False
    """As far as the log says every attempt to deliver it failed, and it is tried again."""
    single: bool = True
    """It went to one recipient, so that all hits are one person's or a robot's."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A hit with its verdict, and the one that it had before; None for a hit that is new."""

    seen: Seen
    verdict: Verdict
    before: Verdict | None = None


@dataclass(slots=True)
class _Recent:
    """What is remembered of a message: what was known of it, and its last hits."""

    about: About
    judged: list[Judged]


class Judge:
    """One a process. `about` tells of the message of a reference."""

    def __init__(self, robots: Robots, about: Callable[[str], About]) -> None:
        self.robots = robots
        self._about = about
        self._recent: OrderedDict[str, _Recent] = OrderedDict()

    def judge(self, ripe: Sequence[Seen], ahead: Iterable[Seen]) -> list[Judged]:
        """The verdicts on `ripe`, which must come one after the other in time, and those that they change.

        `ahead` are hits that will be judged later; they count as seen.
        """
        later = _by_message(ahead)
        found: list[Judged] = []
        for reference, hits in _by_message(ripe).items():
            found += self._judge(reference, hits, later.get(reference, []))
        self._forget()
        return found

    def _forget(self) -> None:
        held = sum(len(recent.judged) for recent in self._recent.values())
        while len(self._recent) > _MESSAGES or held > _HITS:
            held -= len(self._recent.popitem(last=False)[1].judged)

    def review(self, since: float) -> list[Judged]:
        """What has become known of the delivery of messages shows their hits since then in another light."""
        waiting = [
            reference
            for reference, recent in self._recent.items()
            if recent.about.delivered is None and recent.judged and recent.judged[-1].seen.time >= since
        ]
        return [changed for reference in waiting for changed in self._review(reference)]

    def _review(self, reference: str) -> list[Judged]:
        recent, about = self._recent[reference], self._about(reference)
        if about.delivered is None:
            return []
        window = _Window([old.seen for old in recent.judged], single=about.single)
        changed = list(self._again(recent.judged, window, about))
        self._recent[reference] = _Recent(about, _current(recent.judged, changed))
        return changed

    def _judge(self, reference: str, hits: list[Seen], later: list[Seen]) -> list[Judged]:
        about = self._about(reference)
        before = self._recent.pop(reference, _Recent(about, []))
        known = [old for old in before.judged if old.seen.time > hits[0].time - MINUTE]
        around = sorted([*(old.seen for old in known), *hits, *later], key=lambda hit: hit.time)
        window = _Window(around, single=about.single)
        new = [Judged(hit, self._verdict(hit, window, about)) for hit in hits]
        changed = list(self._again(known, window, about))
        self._recent[reference] = _Recent(about, _current(known, [*changed, *new]))
        return [*new, *changed]

    def _again(self, known: Iterable[Judged], window: _Window, about: About) -> Iterator[Judged]:
        for old in known:
            verdict = self._verdict(old.seen, window, about)
            if _HARDNESS[verdict.by] > _HARDNESS[old.verdict.by]:
                yield Judged(old.seen, verdict, old.verdict)

    def _verdict(self, hit: Seen, window: _Window, about: About) -> Verdict:
        begun = about.handed_in if about.delivered is None else about.delivered
        sight = Sight(
            kind=hit.kind,
            method=hit.method,
            agent=hit.agent,
            address=hit.address,
            fields=hit.fields,
            secure=hit.secure,
            since=None if begun is None else hit.time - begun,
            delivered=about.delivered is not None,
            deferred=about.deferred,
            links=window.links(hit),
            asked=window.asked(hit),
            trapped=window.trapped(hit),
        )
        return self.robots.judge(sight)


class _Window:
    """Hits of one message in the order of their time, as seen from one of them."""

    def __init__(self, around: Sequence[Seen], *, single: bool) -> None:
        self._around = around
        self._single = single
        self._place = {hit.source: at for at, hit in enumerate(around)}
        self._traps = [hit for hit in around if _is_trap(hit)]
        self._heads = [hit for hit in around if hit.method == "HEAD"]

    def links(self, hit: Seen) -> int:
        """How many links were followed within a second: of a shared message only from the same network."""
        if hit.kind != "click":
            return 1
        found = {hit.link}
        for near in self._near(hit):
            if near.link not in found and near.kind == "click" and (self._single or near.network == hit.network):
                found.add(near.link)
        return len(found)

    def asked(self, hit: Seen) -> bool:
        return any(
            (head.kind, head.link, head.network) == (hit.kind, hit.link, hit.network)
            and 0 <= hit.time - head.time <= MINUTE
            for head in self._heads[-_MOST:]
        )

    def trapped(self, hit: Seen) -> bool:
        return _is_trap(hit) or any(
            trap.network == hit.network and abs(hit.time - trap.time) <= MINUTE for trap in self._traps[-_MOST:]
        )

    def _near(self, hit: Seen) -> Iterator[Seen]:
        at = self._place[hit.source]
        for step, side in ((-1, range(at - 1, max(-1, at - _MOST), -1)), (1, range(at + 1, at + _MOST))):
            for place in side:
                if place >= len(self._around) or (self._around[place].time - hit.time) * step > SECOND:
                    break
                yield self._around[place]


def _current(known: Iterable[Judged], newer: Iterable[Judged]) -> list[Judged]:
    """The last verdict on each hit, of the last hits."""
    found = {one.seen.source: one for one in (*known, *newer)}
    return list(found.values())[-_MOST:]


def _is_trap(hit: Seen) -> bool:
    """The hidden link, which nobody can see: it has the number 0."""
    return hit.kind == "click" and hit.link == 0


def _by_message(hits: Iterable[Seen]) -> dict[str, list[Seen]]:
    found: dict[str, list[Seen]] = {}
    for hit in hits:
        found.setdefault(hit.reference, []).append(hit)
    return found
