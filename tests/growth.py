"""How work grows with its input: a ratio of two CPU times of one run, which no noise of the machine decides."""

from __future__ import annotations

from collections.abc import Callable
from time import process_time
from typing import TypeVar

T = TypeVar("T")


def growth(work: Callable[[T], object], small: T, large: T) -> float:
    """How many times as long `large` takes as `small`: the least of five rounds of each."""
    return _least(work, large) / max(_least(work, small), 1e-5)


def _least(work: Callable[[T], object], given: T) -> float:
    def seconds() -> float:
        start = process_time()
        work(given)
        return process_time() - start

    return min(seconds() for _ in range(5))
