"""What a process holds in memory, from proc(5): shares of common pages, the peak, growth over a run.

Knows nothing of milters.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

MIB = 1 << 20


def share(pid: int) -> float:
    """Octets of its proportional set: its own pages, and of common ones the part that falls to it."""
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss") * 1024


def shares(pids: Iterable[int]) -> float:
    return sum(map(share, pids))


def anonymous(pids: Iterable[int]) -> float:
    """Octets that belong to no file, of these processes: their part of programs' pages grows when others end."""
    return sum(_kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss_Anon") * 1024 for pid in pids)


def resident(pid: int) -> int:
    return _kilobytes(Path(f"/proc/{pid}/status"), "VmRSS") * 1024


def peak(pid: int) -> int:
    """The most that was resident since `forget_peak`."""
    return _kilobytes(Path(f"/proc/{pid}/status"), "VmHWM") * 1024


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the straight line nearest to the points (least squares)."""
    middle = sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)
    spread = sum((x - middle[0]) ** 2 for x, _ in points)
    return sum((x - middle[0]) * (y - middle[1]) for x, y in points) / spread if spread else 0.0


def _kilobytes(file: Path, name: str) -> int:
    for line in file.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise ValueError(f"{file} tells no {name}")
