"""Processor time of a process and all that it started, from proc(5): user and system, in seconds.

Knows nothing of milters. Time of children that have ended is not counted: a milter's workers live longer than a run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def seconds(pids: Iterable[int]) -> float:
    """User and system time so far of these processes."""
    return sum(_ticks(pid) for pid in pids) / _TICKS


def tree(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in file.read_text().split():
            yield from tree(int(child))


def _ticks(pid: int) -> int:
    # Behind the command's name in parentheses: field 3 first; utime is 14, stime 15 (proc_pid_stat(5)).
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
