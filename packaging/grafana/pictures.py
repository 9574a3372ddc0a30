"""Draws the dashboards beside it as a Grafana would show them, from answers of a real Prometheus: `make pictures`.

    pictures.py ask URL SECONDS > answers.json        asks what every panel asks, over the last so many seconds
    pictures.py draw answers.json FOLDER              draws business.png and operators.png

There is no Grafana in Debian or on PyPI. What is drawn goes by the panels' places, titles, units, legends, thresholds
and stacking as their JSON has them; colours and letters are this program's. Drawing takes matplotlib; build time only.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BOARDS = ("business", "operators")
STEPS = 160  # points of a graph
RATE = "60s"
"""$__rate_interval, as of a Prometheus that asks every 15 seconds."""
COLOURS = ("#5794f2", "#73bf69", "#ff9830", "#f2495c", "#b877d9", "#fade2a", "#37872d", "#8ab8ff", "#e0b400", "#c4162a")
STATES = {"green": "#299c46", "orange": "#ed8128", "red": "#d44a3a"}
_WIDTH, _ROW = 14.0, 0.34  # inches of the page, and of one of Grafana's rows


# --- asking


def ask(url: str, seconds: int) -> dict[str, Any]:
    """By board and panel's id: for each query its legend and series, a list of (labels, [(time, value), …])."""
    end = time.time()
    found: dict[str, Any] = {"start": end - seconds, "end": end, "boards": {}}
    for name in BOARDS:
        answers = found["boards"][name] = {}
        for panel in _panels(name):
            answers[str(panel["id"])] = [_query(url, target, end, seconds) for target in panel["targets"]]
    return found


def _query(url: str, target: dict[str, Any], end: float, seconds: int) -> list[Any]:
    chosen = {"host": ".*", "domain": ".*", "provider": ".*", "__range": f"{seconds}s", "__rate_interval": RATE}
    query = re.sub(r"\$(\w+)", lambda name: chosen[name[1]], target["expr"])
    if target["instant"]:
        asked, word = {"query": query, "time": end}, "query"
    else:
        asked, word = {"query": query, "start": end - seconds, "end": end, "step": seconds / STEPS}, "query_range"
    with urllib.request.urlopen(f"{url}/api/v1/{word}?{urllib.parse.urlencode(asked)}", timeout=30) as response:
        series = json.load(response)["data"]["result"]
    return [[_legend(target["legendFormat"], each["metric"]), each.get("values") or [each["value"]]] for each in series]


def _legend(form: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda name: labels.get(name[1], ""), form)


def _panels(name: str) -> list[dict[str, Any]]:
    board = json.loads((HERE / f"postmeter-{name}.json").read_text())
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def _rows(name: str) -> list[dict[str, Any]]:
    board = json.loads((HERE / f"postmeter-{name}.json").read_text())
    return [panel for panel in board["panels"] if panel["type"] == "row"]


# --- numbers as Grafana writes them


def written(value: float, unit: str, decimals: int | None = None) -> str:
    """Of the units that the panels have."""
    if unit == "percentunit":
        return f"{_short(value * 100, 2 if abs(value) < 0.01 else 1)}%"
    if unit == "s":
        return _seconds(value)
    if unit == "locale":
        return f"{value:,.0f}"
    steps = [(2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB")] if unit == "bytes" else [(1e9, " Bil"), (1e6, " Mil")]
    steps += [] if unit == "bytes" else [(1e3, " K")]
    for size, name in steps:
        if abs(value) >= size:
            return f"{_short(value / size, 1)}{name}"
    return f"{_short(value, 2 if decimals is None else decimals)}{' B' if unit == 'bytes' else ''}"


def _seconds(value: float) -> str:
    for size, name in ((86_400.0, " days"), (3600.0, " hours"), (60.0, " mins"), (1.0, " s"), (1e-3, " ms")):
        if abs(value) >= size:
            return f"{_short(value / size, 1)}{name}"
    return f"{_short(value * 1e6, 0)} µs" if value else "0 s"


def _short(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


# --- drawing


def draw(answers: dict[str, Any], folder: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    for name in BOARDS:
        _board(name, answers, folder / f"{name}.png")


def _board(name: str, answers: dict[str, Any], file: Path) -> None:
    from matplotlib import pyplot

    panels = _panels(name)
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    page = pyplot.figure(figsize=(_WIDTH, height * _ROW), facecolor="#f4f5f5")
    for row in _rows(name):
        page.text(0.008, 1 - (row["gridPos"]["y"] + 0.6) / height, row["title"], size=11, weight="bold", va="center")
    for panel in panels:
        place = panel["gridPos"]
        gap_x, gap_y = 0.0025, 0.12 / height
        box = (
            place["x"] / 24 + gap_x, 1 - (place["y"] + place["h"]) / height + gap_y,
            place["w"] / 24 - 2 * gap_x, place["h"] / height - 2 * gap_y,
        )  # fmt: skip
        frame = page.add_axes(box, facecolor="white", xticks=[], yticks=[])
        frame.spines[:].set_color("#d8d9da")
        found = answers["boards"][name][str(panel["id"])]
        title_y = 1 - 0.55 / place["h"]
        frame.text(0.02 if place["w"] > 4 else 0.05, title_y, panel["title"], size=9, va="center")
        if panel["type"] == "stat":
            _number(frame, panel, found)
        elif panel["type"] == "bargauge":
            _bars(frame, panel, found)
        else:
            _graph(page, box, panel, found, answers)
    page.savefig(file, dpi=100, facecolor=page.get_facecolor())
    pyplot.close(page)
    _shrink(file)


def _number(frame: Any, panel: dict[str, Any], found: Sequence[Any]) -> None:
    values = [float(series[1][-1][1]) for answer in found for series in answer]
    defaults = panel["fieldConfig"]["defaults"]
    if panel["options"]["textMode"] == "name":
        values, text = [], "\n".join(legend for answer in found for legend, _ in answer)
    else:
        text = written(values[0], defaults["unit"], defaults.get("decimals")) if values else defaults["noValue"]
    colour = _state(values[0], defaults) if values and panel["options"]["colorMode"] == "value" else "#24292e"
    frame.text(0.5, 0.4, text, size=22 if values else 12, color=colour, ha="center", va="center")


def _bars(frame: Any, panel: dict[str, Any], found: Sequence[Any]) -> None:
    """A bar each, by name; the largest value is as long as there is room."""
    series = sorted(((legend, float(points[-1][1])) for answer in found for legend, points in answer))
    if not series:
        frame.text(0.5, 0.5, panel["fieldConfig"]["defaults"]["noValue"], ha="center", color="#8e8e8e")
    largest = max((value for _, value in series), default=0) or 1
    for nth, (name, value) in enumerate(series):
        y = 0.8 - 0.76 * (nth + 0.5) / len(series)
        tall = min(0.1, 0.5 / len(series))
        frame.text(0.19, y, name, ha="right", va="center", size=8)
        frame.barh(y, 0.6, left=0.21, height=tall, color="#ececec")
        frame.barh(y, 0.6 * value / largest, left=0.21, height=tall, color=STATES["green"])
        frame.text(0.83, y, written(value, panel["fieldConfig"]["defaults"]["unit"]), va="center", size=8)
    frame.set_xlim(0, 1)
    frame.set_ylim(0, 1)


def _state(value: float, defaults: dict[str, Any]) -> str:
    colour = ""
    for step in defaults["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            colour = step["color"]
    return STATES.get(colour, "#24292e")


def _graph(page: Any, box: tuple[float, ...], panel: dict[str, Any], found: Sequence[Any], answers: Any) -> None:
    """Series over time; a legend of the names below, in as many lines as it takes."""
    left, bottom, width, height = box
    series = [(legend or "Value", points) for answer in found for legend, points in answer]
    lines = _broken([name for name, _ in series], room=int(width * _WIDTH * 15))
    foot = (0.17 + 0.085 * max(len(lines), 1)) if series else 0.2
    axes = page.add_axes((left + 0.04, bottom + height * foot, width - 0.049, height * (0.86 - foot)))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#d8d9da")
    axes.grid(color="#ececec", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7, length=0, colors="#52545c")
    axes.set_xlim(answers["start"], answers["end"])
    _ticks(axes, answers)
    if not series:
        none = panel["fieldConfig"]["defaults"]["noValue"]
        axes.text(0.5, 0.5, none, transform=axes.transAxes, ha="center", color="#8e8e8e")
        axes.set_yticks([])
        return
    top = _lines(axes, panel, series, answers)
    _scale(axes, panel, top)
    _names(page, (left, bottom, width, height), lines)


def _ticks(axes: Any, answers: Any) -> None:
    span = answers["end"] - answers["start"]
    step = next(size for size in (60, 120, 300, 600, 1800, 3600, 1e9) if span / size <= 7)
    first = math.ceil(answers["start"] / step) * step
    places = [first + nth * step for nth in range(int((answers["end"] - first) / step) + 1)]
    places = [place for place in places if place < answers["end"] - span / 40]
    axes.set_xticks(places, [time.strftime("%H:%M", time.gmtime(place)) for place in places])


def _lines(axes: Any, panel: dict[str, Any], series: Sequence[Any], answers: Any) -> float:
    """Drawn; how high they reach."""
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults["custom"]
    grid = [answers["start"] + nth * (answers["end"] - answers["start"]) / STEPS for nth in range(STEPS + 1)]
    below, top = [0.0] * len(grid), 0.0
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    for nth, (_, points) in enumerate(series):
        colour = COLOURS[nth % len(COLOURS)]
        at = {round((float(when) - grid[0]) / (grid[1] - grid[0])): float(value) for when, value in points}
        values = [at.get(place, math.nan) for place in range(len(grid))]
        high = [low + (0 if math.isnan(value) else value) for low, value in zip(below, values, strict=True)]
        shown = [math.nan if math.isnan(value) else one for one, value in zip(high, values, strict=True)]
        axes.plot(grid, shown if stacked else values, color=colour, linewidth=1.1)
        floor = below if stacked else [0.0] * len(grid)
        axes.fill_between(grid, floor, shown if stacked else values, color=colour, linewidth=0,
                          alpha=custom["fillOpacity"] / 100)  # fmt: skip
        finite = [value for value in (shown if stacked else values) if math.isfinite(value)]
        top = max([top, *finite])
        below = high if stacked else below
    for step in defaults["thresholds"]["steps"][1:]:
        if custom.get("thresholdsStyle", {}).get("mode") == "dashed" and step["value"] <= max(top * 3, 1e-9):
            axes.axhline(step["value"], color=STATES[step["color"]], linestyle="--", linewidth=1)
            top = max(top, step["value"])
    return top


def _scale(axes: Any, panel: dict[str, Any], top: float) -> None:
    """From 0, in four or five steps of 1, 2 or 5."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    top = top or 1.0
    size, base = top / 4, 1.0
    if unit == "bytes":
        base = float(next((each for each in (2**30, 2**20, 2**10) if top >= each), 1))
    if unit == "s" and top >= 90:
        base = 60.0
    size /= base
    power = base * 10 ** math.floor(math.log10(size))
    size *= base
    step = next(power * one for one in (1, 2, 5, 10) if power * one >= size)
    places = [step * nth for nth in range(int(top / step * 1.0001) + 2)]
    axes.set_ylim(0, max(places[-1] * 0.98, top * 1.03))
    axes.set_yticks(places[:-1] if places[-1] > top * 1.03 else places)
    axes.set_yticklabels([written(float(place), unit) for place in axes.get_yticks()])


def _broken(names: Sequence[str], *, room: int) -> list[list[tuple[int, str]]]:
    lines: list[list[tuple[int, str]]] = []
    used = room
    for nth, name in enumerate(names):
        if used + len(name) + 4 > room:
            lines.append([])
            used = 0
        lines[-1].append((nth, name))
        used += len(name) + 4
    return lines[:4]


def _names(page: Any, box: tuple[float, ...], lines: Sequence[Sequence[tuple[int, str]]]) -> None:
    left, bottom, _, height = box
    letter = 0.0665 / _WIDTH
    for down, line in enumerate(reversed(lines)):
        x, y = left + 0.008, bottom + height * (0.055 + 0.085 * down)
        for nth, name in line:
            page.text(x, y, "\u2501", color=COLOURS[nth % len(COLOURS)], size=9, va="center", weight="bold")
            page.text(x + 2.4 * letter, y, name, size=7.5, va="center", color="#24292e")
            x += (len(name) + 4) * letter


def _shrink(file: Path) -> None:
    """A picture of few colours takes a third of the room."""
    from PIL import Image

    with Image.open(file) as picture:
        small = picture.convert("RGB").quantize(96, dither=Image.Dither.NONE)
    small.save(file, optimize=True)


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        json.dump(ask(sys.argv[2], int(sys.argv[3])), sys.stdout)
    else:
        draw(json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3]))
