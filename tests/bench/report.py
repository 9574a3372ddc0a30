"""The figures for people and for programs: medians, spreads and ratios of the samples, and where they were taken.

Knows nothing of how they came about.
"""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import milter
from cryptography.hazmat.backends.openssl import backend

from tests.bench import peers
from tests.bench.latency import Waits
from tests.bench.rows import ALONE, FLOOR, SKIPPED
from tests.bench.run import Sample


@dataclass(frozen=True, slots=True)
class Result:
    """All rounds of one turn. `spread`: highest less lowest rate, over the median."""

    part: str
    row: str
    mail: str
    sessions: int
    rounds: int
    rate: float
    spread: float
    cpu_ms: float
    busiest: float


def results(samples: Sequence[Sample]) -> list[Result]:
    """In the order in which parts, messages and rows first came."""
    groups: dict[tuple[str, str, str, int], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.part, sample.mail, sample.row, sample.sessions), []).append(sample)
    return [_result(group) for group in groups.values()]


def _result(group: Sequence[Sample]) -> Result:
    rates = [sample.rate for sample in group]
    rate, first = statistics.median(rates), group[0]
    return Result(
        first.part, first.row, first.mail, first.sessions, len(group), rate, (max(rates) - min(rates)) / rate,
        statistics.median(sample.cpu_ms for sample in group), statistics.median(sample.busiest for sample in group),
    )  # fmt: skip


def table(found: Sequence[Result]) -> Iterator[str]:
    """Lines of one table a part and message; a ratio to a row that was not run there is left out."""
    for part, mail in dict.fromkeys((result.part, result.mail) for result in found):
        mine = [result for result in found if (result.part, result.mail) == (part, mail)]
        known = {result.row: result for result in mine}
        yield (
            f"{f'{part}, {mail}':<29}{'messages/s':>10}{'spread':>8}{'CPU ms':>9}{'busiest':>9}"
            f"{'x Postfix':>11}{'x nothing':>11}{'x opendkim':>12}"
        )
        for result in mine:
            others = (known.get(ALONE), known.get(FLOOR) or known.get(SKIPPED), _opendkim(known))
            name = f"{result.row}, {result.sessions} sessions" if len(mine) > len(known) else result.row
            yield (
                f"  {name:<27}{result.rate:>10,.0f}{result.spread:>8.0%}{result.cpu_ms:>9.2f}{result.busiest:>9.0%}"
                f"{_ratio(result, others[0]):>11}{_ratio(result, others[1]):>11}{_ratio(result, others[2]):>12}"
            )
        yield ""


def _opendkim(known: dict[str, Result]) -> Result | None:
    return known.get("opendkim") or known.get("opendkim-inet")


def _ratio(result: Result, other: Result | None) -> str:
    return f"{result.rate / other.rate:.2f}" if other else "-"


def waiting(found: Sequence[Waits]) -> Iterator[str]:
    """Milliseconds that a message takes: medians over the rounds, and what a row adds to Postfix alone."""
    if not found:
        return
    yield f"{'waits, ms a message':<29}{'median':>10}{'p99':>8}{'longest':>9}{'median added':>14}{'p99 added':>11}"
    for mail, row in dict.fromkeys((each.mail, each.row) for each in found):
        mine, alone = _times(found, mail, row), _times(found, mail, ALONE)
        added = [f"{its - bare:.2f}" for its, bare in zip(mine, alone or mine, strict=True)] if alone else ["-", "-"]
        cells = f"{mine[0]:>10.2f}{mine[1]:>8.2f}{mine[2]:>9.1f}{added[0]:>14}{added[1]:>11}"
        yield f"  {f'{row}, {mail}':<27}{cells}"
    yield ""


def _times(found: Sequence[Waits], mail: str, row: str) -> tuple[float, ...]:
    mine = [each for each in found if (each.mail, each.row) == (mail, row)]
    columns = zip(*((each.median, each.p99, each.longest) for each in mine), strict=True)
    return tuple(statistics.median(column) for column in columns)


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
        **{name: peers.version(name) or "not here" for name in _PACKAGES},
    }


_PACKAGES = ("opendkim", "rspamd", "redis-server", "dkimpy-milter", "policyd-rate-limit")


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _value(line: str) -> str:
    return line.partition("=")[2].strip('"')
