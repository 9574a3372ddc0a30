"""How long to leave alone what failed: twice as long each time, by chance a little more or less, up to a bound."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial


class Backoff:
    """`chance` gives 0 to 1, so that what failed together does not come again together."""

    def __init__(self, *, first: float, most: float, chance: Callable[[], float]) -> None:
        self._first, self._most, self._chance = first, most, chance
        self._delay = self._until = 0.0

    def rests(self, now: float) -> bool:
        return now < self._until

    def failed(self, now: float) -> float:
        """Rest from now on; returns for how many seconds."""
        self._delay = min(max(2 * self._delay, self._first), self._most)
        wait = self._delay * (0.75 + self._chance() / 2)
        self._until = now + wait
        return wait

    def succeeded(self) -> None:
        self._delay = self._until = 0.0


class Rests:
    """Those of several, by their names. `ticks` is a monotonic clock."""

    def __init__(self, *, first: float, most: float, chance: Callable[[], float], ticks: Callable[[], float]) -> None:
        self._make = partial(Backoff, first=first, most=most, chance=chance)
        self._ticks = ticks
        self._of: dict[str, Backoff] = {}

    def rests(self, name: str) -> bool:
        return name in self._of and self._of[name].rests(self._ticks())

    def failed(self, name: str) -> float:
        """Rest from now on; returns for how many seconds."""
        return self._of.setdefault(name, self._make()).failed(self._ticks())

    def succeeded(self, *names: str) -> None:
        for name in names:
            self._of.pop(name, None)
