"""A flood of connections to a milter: silent ones, and such that begin a packet and never end it.

Knows nothing of what the milter does about them; tells what became of it, and whether mail goes through afterwards.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench import cpu, held
from tests.bench.large import send

_FIELDS = [("From", b" news@example.com"), ("Subject", b" after the flood")]
_STAYS = 3.0  # seconds
_BOUND = 60.0


@dataclass(frozen=True, slots=True)
class Flooded:
    """`refused` connections the kernel did not even queue; `threads` were the most of one worker."""

    opened: int
    refused: int
    same_workers: bool
    files: int
    """The most that one worker had open beyond what was before."""
    threads: int
    grown: float
    """Octets resident in all workers beyond what was before."""
    cpu: float
    """Seconds that all workers used for each second that the flood stayed."""
    recovered: float
    """Seconds from its end until a message was taken."""


def flood(
    address: Path, workers: Callable[[], list[int]], count: int, *, begun: bytes, stays: float = _STAYS
) -> Flooded:
    """All opened at once, each sends what is `begun`, and they stay for some seconds."""
    before = workers()
    own = {pid: held.open_files(pid) for pid in before}
    rest = sum(map(held.resident, before))
    opened = [one for one in (_open(address, begun) for _ in range(count)) if one is not None]
    used, since, files, threads, most = cpu.each(before), time.monotonic(), 0, 0, 0
    while time.monotonic() < since + stays:
        time.sleep(0.1)
        files = max(files, *(held.open_files(pid) - own[pid] for pid in before))
        threads = max(threads, *(held.threads(pid) for pid in before))
        most = max(most, sum(map(held.resident, before)))
    spent = sum(cpu.since(used)) / (time.monotonic() - since)
    for one in opened:
        one.close()
    recovered = _until_taken(address)
    return Flooded(
        opened=len(opened), refused=count - len(opened), same_workers=workers() == before, files=files,
        threads=threads, grown=most - rest, cpu=spent, recovered=recovered,
    )  # fmt: skip


def _open(address: Path, begun: bytes) -> socket.socket | None:
    one = socket.socket(socket.AF_UNIX)
    one.setblocking(False)  # what is not queued at once is refused; Postfix does as its milter_default_action says
    try:
        one.connect(str(address))
        one.sendall(begun)
    except OSError:
        one.close()
        return None
    return one


def _until_taken(address: Path) -> float:
    begun = time.monotonic()
    while time.monotonic() < begun + _BOUND:
        try:
            if send(address, _FIELDS, b"dry again\r\n")[0] == "a":
                return time.monotonic() - begun
        except OSError:
            time.sleep(0.05)
    return float("inf")
