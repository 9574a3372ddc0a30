"""Charts as inline SVG: what became of each day's mail, and bars that fit into a table's cell.

Colours are classes of the page's style sheet, so that they follow light and dark. SVG 2; every bar has a title, which
browsers show and read out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from postmeter.report.gather import Figures, Part

STACK = (
    ("delivered", "good", ("delivered",)),
    ("on its way", "wait", ("waiting", "deferred")),
    ("bounced", "bad", ("hard", "soft", "expired")),
    ("unknown", "dark", ("unknown",)),
)
"""From the bottom up: what it is called, its class, and what it adds up."""

_WIDTH, _HEIGHT = 860, 240
_LEFT, _TOP, _BOTTOM = 64, 10, 26
_LABELS = 9  # days with a label
_WIDEST = 46.0


def days(parts: Sequence[Part]) -> str:
    """A stack for each day."""
    top = ceiling(max((part.counts.get("accepted", 0) for part in parts), default=0))
    step = (_WIDTH - _LEFT) / max(1, len(parts))
    drawn = [*_grid(top), *(line for number, part in enumerate(parts) for line in _day(part, number, step, top))]
    every = -(-len(parts) // _LABELS)
    for number in range(0, len(parts), max(1, every)):
        x = _LEFT + (number + 0.5) * step
        drawn.append(
            f'<text x="{x:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(parts[number].name[5:])}</text>'
        )
    label = "Recipients by day, and what became of them"
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(drawn)}</svg>'


def _day(part: Part, number: int, step: float, top: int) -> Iterator[str]:
    width = min(_WIDEST, step * 0.72 if step > 4 else step)
    x, room = _LEFT + number * step + (step - width) / 2, _HEIGHT - _TOP - _BOTTOM
    told = ", ".join(f"{value:,} {name}" for name, _, value in stacked(part.counts) if value) or "no mail"
    y = float(_HEIGHT - _BOTTOM)
    bars = []
    for _, kind, value in stacked(part.counts):
        if value:
            height = value / top * room
            y -= height
            bars.append(f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>')
    yield f"<g><title>{escape(part.name)}: {told}</title>{''.join(bars)}</g>"


def _grid(top: int) -> Iterator[str]:
    room = _HEIGHT - _TOP - _BOTTOM
    for quarter in range(5):
        y, value = _TOP + room * (1 - quarter / 4), top * quarter / 4
        yield f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
        if value == int(value):
            yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{int(value):,}</text>'


def ceiling(most: int) -> int:
    """The next number that is pleasant to count to, and divides by four."""
    if most <= 8:
        return 4 if most <= 4 else 8
    power = 1
    while 80 * power < most:
        power *= 10
    return next(factor * power for factor in (12, 16, 20, 24, 32, 40, 60, 80) if factor * power >= most)


def stacked(counts: Figures) -> list[tuple[str, str, int]]:
    """The name, class and value of each layer."""
    return [(name, kind, sum(counts.get(one, 0) for one in of)) for name, kind, of in STACK]


def strip(counts: Figures) -> str:
    """One bar of the whole width, of what became of all recipients; also for mail programs, which show no SVG."""
    whole = counts.get("accepted", 0)
    if not whole:
        return ""
    layers = ((name, kind, value) for name, kind, value in stacked(counts) if value)
    spans = (
        f'<span class="{kind}" style="width:{value / whole * 100:.2f}%" title="{value:,} {name}"></span>'
        for name, kind, value in layers
    )
    return f'<div class="strip">{"".join(spans)}</div>'
