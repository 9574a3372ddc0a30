"""Processor time of a process and all that it started: user and system, in seconds.

Knows nothing of milters. Threads that have ended are counted, children that have are not: a milter's workers live
longer than a run. proc(5), clock_getcpuclockid(3).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

_SCHEDULED = 2  # CPUCLOCK_SCHED: nanoseconds on a processor, where proc(5) counts hundredths of a second


def seconds(pids: Iterable[int]) -> float:
    """User and system time so far of these processes."""
    return sum(each(pids).values())


def each(pids: Iterable[int]) -> dict[int, float]:
    return {pid: time.clock_gettime(~pid << 3 | _SCHEDULED) for pid in pids}


def since(before: Mapping[int, float]) -> list[float]:
    """What each of these processes has used since, the one that used most first."""
    now = each(before)
    return sorted((now[pid] - used for pid, used in before.items()), reverse=True)


def tree(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in file.read_text().split():
            yield from tree(int(child))
