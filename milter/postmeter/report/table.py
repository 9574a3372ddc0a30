"""A report for programs: CSV with a row for each part, and JSON.

RFC 4180, RFC 8259. Names come from clients; spreadsheets take what begins with one of =+-@ for a formula, so in CSV
such a name gets an apostrophe before it (owasp.org/www-community/attacks/CSV_Injection).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime

from postmeter.report.gather import COLUMNS, RATES, TRACKED, Figures, Report, day_text, decided

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'", '"', "＝", "＋", "－", "＠")


def as_csv(report: Report) -> str:
    """`by` is `total` in the first row; an empty cell is what nobody can tell."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["by", "name", *COLUMNS, "decided", *(f"{name}_rate" for name in RATES)])
    for by, name, counts in _rows(report):
        told = ["" if by == "provider" and column in TRACKED else counts.get(column, 0) for column in COLUMNS]
        rates = [
            _rate(rate, by, column) for column, rate in ((column, RATES[column].value(counts)) for column in RATES)
        ]
        writer.writerow([by, safe(name), *told, decided(counts), *rates])
    return out.getvalue()


def safe(name: str) -> str:
    return "'" + name if name.startswith(_FORMULA) else name


def as_json(report: Report) -> str:
    told = {
        "since": day_text(report.since),
        "until": day_text(report.until - 1),
        "made": datetime.fromtimestamp(report.made, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "host": report.host,
        "total": _object(report.total),
        "rates": {name: {"of": rate.of, "sum_of": list(rate.whole)} for name, rate in RATES.items()},
        "by": {
            by: [{"name": part.name, **_object(part.counts, by)} for part in parts]
            for by, parts in report.parts.items()
        },
    }
    return json.dumps(told, indent=2) + "\n"


def _rows(report: Report) -> Iterator[tuple[str, str, Figures]]:
    yield "total", "", report.total
    for by, parts in report.parts.items():
        for part in parts:
            yield by, part.name, part.counts


def _rate(value: float | None, by: str, column: str) -> str:
    return "" if value is None or (by == "provider" and column in TRACKED) else f"{value:.6f}"


def _object(counts: Figures, by: str = "") -> dict[str, object]:
    hidden = TRACKED if by == "provider" else frozenset()
    told = {name: counts.get(name, 0) for name in COLUMNS if name not in hidden}
    rates = {name: rate.value(counts) for name, rate in RATES.items() if name not in hidden}
    return {**told, "decided": decided(counts), "rates": rates}
