"""The figures for people and for programs: medians, spreads and ratios of the samples, and where they were taken.

Knows nothing of how they came about.
"""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import milter
from cryptography.hazmat.backends.openssl import backend

from tests.bench.rows import ALONE, FLOOR, OURS
from tests.bench.run import Sample

# One RSA-2048 signature by OpenSSL and one pass of SHA-256 over 30 kB: what no signer can do without.
RSA_MS, SHA256_MS = 0.28, 0.016


@dataclass(frozen=True, slots=True)
class Result:
    """All rounds of one row and message. `spread`: highest less lowest rate, over the median."""

    row: str
    mail: str
    rounds: int
    rate: float
    spread: float
    cpu_ms: float


def results(samples: Sequence[Sample]) -> list[Result]:
    """In the order in which rows and messages first came."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.mail, sample.row), []).append(sample)
    return [_result(row, mail, group) for (mail, row), group in groups.items()]


def _result(row: str, mail: str, group: Sequence[Sample]) -> Result:
    rates = [sample.rate for sample in group]
    rate = statistics.median(rates)
    return Result(
        row, mail, len(group), rate, (max(rates) - min(rates)) / rate,
        statistics.median(sample.cpu_ms for sample in group),
    )  # fmt: skip


def table(found: Sequence[Result]) -> Iterator[str]:
    """Lines of one table a message; a ratio to a row that was not run is left out."""
    for mail in dict.fromkeys(result.mail for result in found):
        mine = {result.row: result for result in found if result.mail == mail}
        yield f"{mail:<18}{'messages/s':>12}{'spread':>8}{'CPU ms':>9}{'x Postfix':>11}{'x nothing':>11}{'CPU x':>8}"
        for result in mine.values():
            cells = (_ratio(result, mine.get(ALONE)), _ratio(result, mine.get(FLOOR)), _cpu_ratio(result, mine))
            yield (
                f"  {result.row:<16}{result.rate:>12,.0f}{result.spread:>8.0%}{result.cpu_ms:>9.2f}"
                f"{cells[0]:>11}{cells[1]:>11}{cells[2]:>8}"
            )
        yield from _floor(mine)
        yield ""


def _ratio(result: Result, other: Result | None) -> str:
    return f"{result.rate / other.rate:.2f}" if other else "-"


def _cpu_ratio(result: Result, known: dict[str, Result]) -> str:
    other = known.get(FLOOR)
    return f"{result.cpu_ms / other.cpu_ms:.1f}" if other and other.cpu_ms else "-"


def _floor(known: dict[str, Result]) -> Iterator[str]:
    if OURS in known and FLOOR in known:
        floor = known[FLOOR].cpu_ms + RSA_MS + SHA256_MS
        ours = known[OURS].cpu_ms
        yield f"  floor ({FLOOR} + one RSA-2048 + one SHA-256): {floor:.2f} ms; {OURS} {ours / floor:.2f} times that"


def machine() -> dict[str, str]:
    """What the figures depend on besides the code."""
    model = next((line.partition(":")[2] for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    return {
        "processor": f"{os.cpu_count()} x {model.strip() or platform.machine()}",
        "memory": f"{int(memory) >> 20} GiB",
        "system": next((_value(line) for line in _lines("/etc/os-release") if line.startswith("PRETTY_NAME")), ""),
        "kernel": platform.release(),
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def busy() -> str:
    """A warning when others use the machine; empty when it is ours. Rates suffer from it, CPU time hardly."""
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    return f"others use this machine (load {load:.1f} on {processors} processors)" if load > processors / 4 else ""


def versions(postfix: str) -> dict[str, str]:
    names = ("pymilter", "cryptography", "dkimpy")
    return {
        "Postfix": postfix,
        "Python": platform.python_version(),
        "libmilter": ".".join(map(str, milter.getversion())),  # type: ignore[attr-defined]
        **{name: metadata.version(name) for name in names},
        "OpenSSL": backend.openssl_version_text(),
        "SQLite": sqlite3.sqlite_version,
    }


def as_json(found: Sequence[Result], samples: Sequence[Sample]) -> dict[str, object]:
    return {"results": [asdict(each) for each in found], "samples": [asdict(each) for each in samples]}


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _value(line: str) -> str:
    return line.partition("=")[2].strip('"')
