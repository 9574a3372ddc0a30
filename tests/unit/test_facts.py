"""The table of facts in tests/README.md is whole, and the tests it names exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROWS = re.findall(r"^\| D(\d+) \|(.*)\|(.*)\|$", (TESTS / "README.md").read_text(), re.MULTILINE)


def test_every_fact_has_one_row() -> None:
    assert [int(number) for number, _, _ in ROWS] == list(range(1, 45))


def test_every_test_that_is_named_exists() -> None:
    """A file such as `e2e/test_quota` and a function such as test_over_the_limit…, in the file named before it."""
    missing = []
    for number, _, where in ROWS:
        place = ""
        for word in re.findall(r"`?((?:unit|session|e2e)(?:/test_\w+)?|test_\w+)`?", where):
            if word.startswith("test_"):
                missing += [] if word in _functions(place) else [f"D{number}: {place} has no {word}"]
            else:
                place = word
                missing += [] if _functions(place) else [f"D{number}: no {place}"]
    assert missing == []


def _functions(place: str) -> set[str]:
    """The tests of a file, or of all files of a folder."""
    path = TESTS / place
    files = path.glob("test_*.py") if path.is_dir() else [path.with_suffix(".py")]
    text = "".join(file.read_text() for file in files if file.exists())
    return set(re.findall(r"^def (test_\w+)", text, re.MULTILINE))
