"""The tables of facts in tests/README.md are whole, and the tests they name exist."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROWS = re.findall(r"^\| ([CD]\d+) \|(.*)\|(.*)\|$", (TESTS / "README.md").read_text(), re.MULTILINE)


def test_every_fact_has_one_row() -> None:
    """About Postfix, libmilter and pymilter, then about DKIM."""
    wanted = [("D", number) for number in range(1, 45)] + [("C", number) for number in range(1, 25)]
    assert [(fact[0], int(fact[1:])) for fact, _, _ in ROWS] == wanted


def test_every_test_that_is_named_exists() -> None:
    """A file such as `e2e/test_quota` and a function such as test_over_the_limit…, in the file named before it."""
    missing = []
    for fact, _, where in ROWS:
        place = ""
        for word in re.findall(r"`?((?:unit|session|e2e)(?:/test_\w+)?|test_\w+)`?", where):
            if word.startswith("test_"):
                missing += [] if word in _functions(place) else [f"{fact}: {place} has no {word}"]
            else:
                place = word
                missing += [] if _functions(place) else [f"{fact}: no {place}"]
    assert missing == []


@cache
def _functions(place: str) -> set[str]:
    """The tests of a file, or of all files of a folder."""
    path = TESTS / place
    files = path.glob("test_*.py") if path.is_dir() else [path.with_suffix(".py")]
    text = "".join(file.read_text() for file in files if file.exists())
    return set(re.findall(r"^def (test_\w+)", text, re.MULTILINE))
