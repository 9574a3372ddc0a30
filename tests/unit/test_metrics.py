"""The list of metrics knows the label values that the rooms count."""

from __future__ import annotations

import re
from types import ModuleType

from postmeter.metrics import METRICS
from postmeter.tracking import parts, targets


def _known(name: str, label: str) -> set[str]:
    return {value for meaning in METRICS if meaning.name == name for value in meaning.known[label]}


def _reasons(module: ModuleType) -> set[str]:
    """Constants such as TOO_LONG = "too_long"."""
    return {
        value
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str) and re.fullmatch(r"[a-z_]+", value)
    }


def test_every_reason_to_leave_a_link_starts_at_0() -> None:
    assert {*parts.OF_MESSAGES, *parts.OF_PARTS} | _reasons(targets) == _known("rewrite_skipped_total", "reason")
