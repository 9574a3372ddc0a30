"""A benchmark of several parts: which of them are measured, whether goals are kept, and the figures in a file.

Knows nothing of what a part measures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.lab.folder import CLONE

Figures = dict[str, Any]
Parts = Mapping[str, Callable[[argparse.Namespace], Figures]]


def judged(what: str, figure: float, most: float) -> Figures:
    """Tell whether a goal is kept, and keep it."""
    kept = figure <= most
    print(f"  goal: {what} {figure:,.2f}, at most {most:,.2f}: {'kept' if kept else 'MISSED'}")
    return {"what": what, "figure": figure, "most": most, "kept": kept}


def parser(name: str, about: str | None, parts: Parts) -> argparse.ArgumentParser:
    """With the options that all such benchmarks have; a part's own are added by who calls."""
    made = argparse.ArgumentParser(prog=f"python -m tests.bench.{name}", description=about)
    made.add_argument("--only", action="append", choices=list(parts))
    made.add_argument("--json", type=Path, default=CLONE / "build" / f"bench-{name}.json")
    return made


def measure(options: argparse.Namespace, parts: Parts) -> None:
    """The parts that are asked for; figures of the others stay in the file as they were."""
    found = {name: part(options) for name, part in parts.items() if not options.only or name in options.only}
    file: Path = options.json
    file.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | found, indent=1) + "\n")
