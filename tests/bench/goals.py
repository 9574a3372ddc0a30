"""What the figures ought to be, as ratios of one run, and whether they are.

Knows nothing of how they came about.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tests.bench.latency import Waits
from tests.bench.report import Result
from tests.bench.rows import ALONE, FLOOR, OURS, SKIPPED

_PLAIN, _NEWSLETTER = "plain", "newsletter"
_FASTER = {
    _NEWSLETTER: {"opendkim": 1.3, "opendkim+policyd": 1.7, "rspamd": 1.8, "dkimpy-milter": 4.8},
    _PLAIN: {"opendkim": 1.5, "opendkim+policyd": 2.0, "rspamd": 1.15, "dkimpy-milter": 5.5},
}
_LIGHTER = {_PLAIN: 0.5, _NEWSLETTER: 0.75}
_FLOORS = 1.5


@dataclass(frozen=True, slots=True)
class Goal:
    """`found` is at least, or at most, `wanted`; both are ratios, or milliseconds where `what` says so."""

    what: str
    mail: str
    wanted: float
    found: float
    at_most: bool = False

    @property
    def reached(self) -> bool:
        return self.found <= self.wanted if self.at_most else self.found >= self.wanted


@dataclass(frozen=True, slots=True)
class Found:
    """All of a run. `least` are the milliseconds of one signature and one hash by message, of each round.

    `lost` messages by part: taken by Postfix, and in no journal or never sent on.
    """

    results: Sequence[Result]
    waits: Sequence[Waits]
    least: dict[str, list[float]]
    lost: dict[str, int]

    def result(self, part: str, row: str, mail: str) -> Result | None:
        fit = (each for each in self.results if (each.part, each.row, each.mail) == (part, row, mail))
        return next(fit, None)

    def floor(self, mail: str) -> float | None:
        """CPU milliseconds that no signer goes below."""
        nothing = self.result("speed", FLOOR, mail)
        return nothing.cpu_ms + statistics.median(self.least[mail]) if nothing and self.least.get(mail) else None


def goals(found: Found) -> list[Goal]:
    """Those whose rows were run."""
    return [goal for mail in (_NEWSLETTER, _PLAIN) for goal in _of(found, mail)]


def _of(found: Found, mail: str) -> Iterator[Goal]:
    rate, cost = (lambda result: result.rate), (lambda result: result.cpu_ms)
    ratio = _Ratio(found, mail)
    for peer, wanted in _FASTER[mail].items():
        yield from ratio.of(f"messages/s, x {peer}", rate, ("speed", OURS), ("speed", peer), wanted)
    lighter = _LIGHTER[mail]
    yield from ratio.of("CPU, x opendkim", cost, ("speed", OURS), ("speed", "opendkim"), lighter, at_most=True)
    ours, floor = found.result("speed", OURS, mail), found.floor(mail)
    if ours and floor:
        yield Goal(f"CPU, x the floor of {floor:.2f} ms", mail, _FLOORS, ours.cpu_ms / floor, at_most=True)
    foreign = ("foreign", "postmeter-foreign")
    yield from ratio.of(f"mail not ours: messages/s, x {SKIPPED}", rate, foreign, ("foreign", SKIPPED), 0.95)
    workers = ("protocol", "postmeter-1-worker")
    if mail == _NEWSLETTER:
        yield from ratio.of("two workers: messages/s, x one, no Postfix", rate, ("protocol", OURS), workers, 1.4)
        if "sessions" in found.lost:
            yield Goal("1 to 100 sessions: messages lost", mail, 0, found.lost["sessions"], at_most=True)
    inet = ("inet", "opendkim-inet")
    yield from ratio.of("ports: messages/s, x opendkim", rate, ("inet", "postmeter-inet"), inet, 4.0)
    yield from _added(found, mail)


@dataclass(frozen=True, slots=True)
class _Ratio:
    found: Found
    mail: str

    def of(
        self, what: str, value: Callable[[Result], float], ours: tuple[str, str], other: tuple[str, str], wanted: float,
        *, at_most: bool = False,
    ) -> Iterator[Goal]:  # fmt: skip
        """Nothing where one of the rows, each with its part, was not run."""
        first, second = self.found.result(*ours, self.mail), self.found.result(*other, self.mail)
        if first and second and value(second):
            yield Goal(what, self.mail, wanted, value(first) / value(second), at_most)


def _added(found: Found, mail: str) -> Iterator[Goal]:
    """The p99 of a row less that of Postfix alone; medians over the rounds."""
    rows = {row: [each.p99 for each in found.waits if (each.row, each.mail) == (row, mail)] for row in _WAITING}
    if all(rows.values()):
        alone, peer, ours = (statistics.median(rows[row]) for row in _WAITING)
        yield Goal("ms added to the p99 of a message; opendkim's", mail, peer - alone, ours - alone, at_most=True)


_WAITING = (ALONE, "opendkim", OURS)


def table(reached: Sequence[Goal]) -> Iterator[str]:
    if reached:
        yield f"{'goal':<64}{'wanted':>13}{'found':>9}"
    for goal in reached:
        word = "most" if goal.at_most else "least"
        told = "reached" if goal.reached else "MISSED"
        yield f"  {goal.mail:<12}{goal.what:<50}{word:>6}{goal.wanted:>7.2f}{goal.found:>9.2f}  {told}"
