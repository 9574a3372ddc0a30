"""Print for people: sections, steps that held, diffs. Colour on a terminal only (no-color.org).

Knows nothing of what it shows.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable

_CODES = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "cyan": "36", "dim": "2"}
_WIDTH = 118  # where nobody says how wide the screen is: what a log viewer shows
_COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ
_shown: list[str] = []  # titles of sections


def paint(text: str, colour: str) -> str:
    return f"\033[{_CODES[colour]}m{text}\033[0m" if _COLOUR else text


def say(text: str = "") -> None:
    print(text, flush=True)


def section(title: str) -> None:
    _shown.append(title)
    say(f"\n{paint(f'== {title}', 'bold')}")


def held(text: str) -> None:
    """A step that held."""
    say(f"{paint('ok', 'green')}  {text}")


def failed(text: str) -> None:
    """With the section, for the text may be the system's and say nothing but `Connection refused`."""
    say(f"{paint('FAILED', 'red')}  {': '.join([*_shown[-1:], text])}")


def quote(text: str, colour: str = "cyan") -> None:
    """Somebody else's words, indented and folded to the screen."""
    for line in text.splitlines():
        for piece in textwrap.wrap(line, _width() - 4, subsequent_indent="  ", drop_whitespace=False) or [""]:
            say("    " + paint(piece, colour))


def diff(before: bytes, after: bytes) -> None:
    """What changed, a few lines around it, without the file names."""
    old, new = (data.decode("utf-8", "backslashreplace").splitlines() for data in (before, after))
    for line in _hunks(difflib.unified_diff(old, new, n=1, lineterm="")):
        colour = {"+": "green", "-": "red"}.get(line[:1], "dim")
        say("    " + paint(_cut(_printable(line), 4), colour))


def _hunks(lines: Iterable[str]) -> Iterable[str]:
    for nth, line in enumerate(lines):
        if nth >= 2:  # behind the two lines with file names
            yield "  ..." if line.startswith("@@") else line


def _printable(line: str) -> str:
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "?", line.replace("\t", "    "))


def _width() -> int:
    return shutil.get_terminal_size((_WIDTH, 24)).columns if sys.stdout.isatty() else _WIDTH


def _cut(line: str, indent: int) -> str:
    width = _width() - indent
    return line if len(line) <= width else line[: width - 1] + "…"
