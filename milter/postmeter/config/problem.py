"""What is wrong with a configuration, in one line that says where it stands and how to mend it.

Knows nothing of YAML or of what the keys mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Severity: TypeAlias = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Problem:
    """`line` 0: no line is to blame, but a default or the file as a whole. `path` is dotted, e.g. milter.listen."""

    file: str
    line: int
    path: str
    what: str
    fix: str
    severity: Severity = "error"

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        named = f"{place}: {_on_one_line(self.path)}" if self.path else place
        marked = "warning: " if self.severity == "warning" else ""
        return f"{named}: {marked}{self.what}; {self.fix}" if self.fix else f"{named}: {marked}{self.what}"


class ConfigError(Exception):
    """A configuration that cannot be used; `problems` holds at least one, in the order of their lines."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class MistakeError(ValueError):
    """A text that is not what its key wants: what it is instead, and what to write."""

    def __init__(self, what: str, fix: str) -> None:
        self.what, self.fix = what, fix
        super().__init__(f"{what}; {fix}")


def _on_one_line(path: str) -> str:
    """Keys are the operator's: one in quotes may hold anything."""
    return path if path.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in path)


def quoted(text: str) -> str:
    """A text of the operator's in a complaint, not longer than a line can bear."""
    return repr(text if len(text) <= 60 else text[:57] + "…")
