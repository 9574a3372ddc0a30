"""Where promtool is: Debian's package prometheus, installed, or unpacked by `make all` and never started."""

from __future__ import annotations

import shutil
from pathlib import Path

_UNPACKED = Path(__file__).resolve().parents[2] / "build/peers/prometheus/usr/bin/promtool"


def find() -> str:
    """Its path; empty where there is none."""
    return shutil.which("promtool") or (str(_UNPACKED) if _UNPACKED.exists() else "")
