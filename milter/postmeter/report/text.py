"""A report for a terminal, a pipe or the text part of a mail: one figure a line, then a table for each breakdown.

Names come from clients: none of them reaches a terminal but on one line and printable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from postmeter.report.gather import (
    COLUMNS,
    PLACES,
    RATES,
    TRACKED,
    Figures,
    Part,
    Report,
    decided,
    percent,
    shown,
)
from postmeter.runtime.logs import one_line

_BAR = 24  # characters
_NAME = 40  # characters of a name
_MOST = 20  # parts of a breakdown
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_TITLES = {"domain": "From domain", "login": "login", "campaign": "campaign", "provider": "provider", "day": "day"}
_TABLE = ("accepted", "delivered", "hard", "soft", "complained", "opened_human", "clicked_human")
_HEADS = {"hard": "hard", "soft": "soft", "complained": "spam", "opened_human": "opened", "clicked_human": "clicked"}


def as_text(report: Report, *, bars: bool, all_parts: bool = False) -> Iterator[str]:
    """`bars`: for a terminal, which has room and the characters for them."""
    yield f"Mail submitted on {report.period} (UTC), {one_line(report.host)}"
    yield ""
    if not any(report.total.values()):
        yield "No mail in these days."
        return
    yield from _total(report, bars=bars)
    for by, parts in report.parts.items():
        if by != "day" or len(parts) > 1:
            yield ""
            yield from _breakdown(by, parts if all_parts or by == "day" else parts[:_MOST], report, bars=bars)
            if len(parts) > _MOST and by != "day" and not all_parts:
                yield f"and {len(parts) - _MOST} less busy; --all shows them"
    yield ""
    yield from notes(report)


def notes(report: Report) -> Iterator[str]:
    """What one has to know to read the rates."""
    yield f"decided = delivered, bounced and expired together: {decided(report.total)} recipients."
    if report.total.get("unknown"):
        yield "unknown = Postfix's log tells neither delivery nor bounce (lines were lost, or it was not read)."
    if report.tracked:
        yield "opened, clicked = the first of each recipient, or message, and link; people as far as can be told."
    if report.nameless:
        yield "Some hits bear no name (tracking.privacy): they are in opens and clicks alone, and in no rate."


def _total(report: Report, *, bars: bool) -> Iterator[str]:
    names = [name for name in COLUMNS if report.total.get(name) or name in ("accepted", *PLACES, "complained")]
    width = max(len(COLUMNS[name]) for name in names)
    digits = max(len(f"{report.total.get(name, 0):,}") for name in names)
    for name in names:
        rate = RATES.get(name)
        value = rate.value(report.total) if rate else None
        line = f"  {COLUMNS[name]:<{width}}  {report.total.get(name, 0):>{digits},}"
        if rate is not None and value is not None:
            line += f"  {percent(value):>7} of {rate.of}"
            line = f"{line:<{width + digits + 40}}  {bar(value)}" if bars else line
        yield line.rstrip()


def bar(value: float) -> str:
    """To an eighth of a character; what is more than nothing shows."""
    eighths = min(_BAR * 8, round(value * _BAR * 8))
    eighths = max(eighths, 1) if value > 0 else 0
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip())[:_BAR]


def _breakdown(by: str, parts: Sequence[Part], report: Report, *, bars: bool) -> Iterator[str]:
    columns = [name for name in _TABLE if name not in TRACKED or (report.tracked and by != "provider")]
    rows = [[_TITLES[by], *(_HEADS.get(name, name) for name in columns), *(["delivered of decided"] if bars else [])]]
    for part in parts:
        cells = [one_line(shown(by, part.name), longest=_NAME), *(_cell(name, part.counts) for name in columns)]
        share = RATES["delivered"].value(part.counts)
        rows.append([*cells, *([bar(share or 0.0)] if bars else [])])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(_aligned(widths, row)).rstrip()


def _aligned(widths: Sequence[int], row: Sequence[str]) -> Iterator[str]:
    """Names and bars to the left, figures to the right."""
    for number, (width, cell) in enumerate(zip(widths, row, strict=True)):
        left: Callable[[int], str] = cell.ljust
        yield left(width) if number == 0 or cell.startswith(("█", "▏", "delivered of")) else cell.rjust(width)


def _cell(name: str, counts: Figures) -> str:
    """A figure, and where it is a share of something which."""
    value = RATES[name].value(counts) if name in RATES else None
    told = f"{counts.get(name, 0):,}"
    return told if value is None or not counts.get(name) else f"{told} {percent(value):>6}"
