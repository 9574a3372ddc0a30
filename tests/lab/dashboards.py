"""What the dashboards of packaging/grafana ask for, as Prometheus would be asked: no Grafana is needed to know it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "packaging" / "grafana"
BOARDS = sorted(FOLDER.glob("*.json"))


@dataclass(frozen=True, slots=True)
class Asked:
    """One query of a panel; `instant` asks for one moment, else it is a graph."""

    board: str
    title: str
    about: str
    expression: str
    legend: str
    instant: bool

    @property
    def name(self) -> str:
        """As a person would tell it apart."""
        return f"{self.title}: {self.legend}" if self.legend else self.title

    def filled(self, *, span: str, rate: str) -> str:
        """With all hosts, domains and providers chosen; `span` is the time shown, `rate` what fits it."""
        chosen = {"host": ".*", "domain": ".*", "provider": ".*", "__range": span, "__rate_interval": rate}
        return re.sub(r"\$(\w+)", lambda found: chosen[found[1]], self.expression)


def load(path: Path) -> dict[str, Any]:
    board = json.loads(path.read_text())
    assert isinstance(board, dict)
    return board


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in board["panels"]:
        yield from [each for each in (panel, *panel.get("panels", [])) if each["type"] != "row"]


def asked() -> list[Asked]:
    """Every query of every panel."""
    return [
        Asked(path.stem, panel["title"], panel["description"], one["expr"], one["legendFormat"], one["instant"])
        for path in BOARDS
        for panel in panels(load(path))
        for one in panel["targets"]
    ]
