"""The commands that documents show: lines of shell blocks (```sh), and `postmeter …` in running text.

Knows which documents there are and how they are written (CommonMark: fenced code, code spans), not what commands do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.folder import CLONE

_SHOWN = (
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "contrib/**/*.md", "tests/*.md", "packaging/**/*.md",
    "packaging/debian/README.Debian",
)  # fmt: skip
DOCUMENTS = sorted({path for pattern in _SHOWN for path in CLONE.glob(pattern)})

_FENCED = re.compile(r"^( *)```([^`\n]*)\n(.*?)^\1```[ ]*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: where it begins, what its first fence says of it, and its text without the indentation."""

    document: Path
    number: int
    language: str
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """One command line, as a person would type it; continued lines are one."""

    document: Path
    number: int
    text: str

    @property
    def command(self) -> str:
        """Without the comment behind it."""
        return re.sub(r"\s+# .*$", "", self.text)

    def __str__(self) -> str:
        return f"{self.document.relative_to(CLONE)}:{self.number}: {self.text}"


def blocks(document: Path) -> Iterator[Block]:
    text = document.read_text()
    for found in _FENCED.finditer(text):
        inner = "".join(line.removeprefix(found[1]) for line in found[3].splitlines(keepends=True))
        yield Block(document, text.count("\n", 0, found.start()) + 2, found[2], inner)


def lines(block: Block) -> list[Line]:
    """Of a shell block, without those that are empty or all comment."""
    found, number, begun = [], block.number, ""
    for nth, text in enumerate(block.text.splitlines()):
        if not begun:
            number = block.number + nth
        begun += text
        if not begun.endswith("\\"):
            found.append(Line(block.document, number, begun))
            begun = ""
        else:
            begun = begun[:-1]
    return [line for line in found if line.text.strip() and not line.text.lstrip().startswith("#")]


def shell(document: Path) -> list[list[Line]]:
    """The command lines of a document, a list for each block."""
    return [lines(block) for block in blocks(document) if block.language == "sh"]


def mentions(document: Path, program: str = "postmeter") -> Iterator[Line]:
    """Every `postmeter …`, or of another program, in running text, whatever lines it is broken over."""
    text = _FENCED.sub(lambda found: "\n" * found[0].count("\n"), document.read_text())
    for found in _CODE.finditer(text):
        words = " ".join(found[1].split())
        if words.startswith(f"{program} "):
            yield Line(document, text.count("\n", 0, found.start()) + 1, words)
