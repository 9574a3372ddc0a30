"""A document as a tree of plain texts with their lines.

Scalars stay text: what `off`, `0660`, `12:30` or `no` means is decided by the key that reads it and never by the rules
of YAML 1.1, which would make a boolean, an octal or a sexagesimal number of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from postmeter.config.problem import quoted

Raw: TypeAlias = "str | Sequence[Raw] | Mapping[str, Raw] | None"
"""A default as it would be written in the file."""

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})  # YAML 1.1, tag:yaml.org,2002:null


@dataclass(frozen=True, slots=True)
class Scalar:
    """`plain` tells that it stood without quotes."""

    text: str
    line: int = 0
    plain: bool = True

    @property
    def null(self) -> bool:
        return self.plain and self.text in _NULLS


@dataclass(frozen=True, slots=True)
class Listing:
    items: tuple[Node, ...]
    line: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    items: tuple[tuple[Scalar, Node], ...]
    line: int = 0


Node: TypeAlias = Scalar | Listing | Table


def node(raw: Raw) -> Node:
    """A default as a tree."""
    if raw is None:
        return Scalar("null")
    if isinstance(raw, str):
        return Scalar(raw, plain=False)
    if isinstance(raw, Mapping):
        return Table(tuple((Scalar(name), node(value)) for name, value in raw.items()))
    return Listing(tuple(node(item) for item in raw))


def describe(found: Node) -> str:
    """What stands there, for a complaint."""
    if isinstance(found, Listing):
        return "a list"
    if isinstance(found, Table):
        return "a mapping"
    if found.null:
        return "nothing"
    return quoted(found.text)
