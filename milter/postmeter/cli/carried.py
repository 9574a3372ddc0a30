"""What another program's configuration becomes: our YAML, and in comments what has no place in it, with the reason.

Knows nothing of those programs, nor of what our keys mean.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import wrap
from typing import TypeAlias

Value: TypeAlias = "str | int | bool | Sequence[Value] | Mapping[str, Value] | None"

_PLAIN = re.compile(r"[A-Za-z0-9/][\w./+-]*(?:%|(?:[ :][\w./+-]+)*)")  # needs no quotes in YAML, also in [ ] and { }
_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "null"})
_NUMBER = re.compile(r"[0-9.:_eExobXOB+-]+")
_WIDTH = 116


@dataclass(frozen=True, slots=True)
class Left:
    """Something that is not carried over: where it stood, and why, with what to do."""

    where: str
    what: str
    why: str


@dataclass(slots=True)
class Carried:
    """Filled by whoever reads the other configuration."""

    sections: dict[str, dict[str, tuple[Value, str]]] = field(default_factory=dict)
    left: list[Left] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)

    def put(self, section: str, key: str, value: Value, why: str = "") -> None:
        self.sections.setdefault(section, {})[key] = (value, why)

    def leave(self, where: str, what: str, why: str) -> None:
        self.left.append(Left(where, what, why))

    def advise(self, text: str) -> None:
        self.advice.append(text)

    def text(self, made_by: str) -> str:
        return "\n".join(self._lines(made_by)) + "\n"

    def _lines(self, made_by: str) -> Iterator[str]:
        yield f"# Made by `{_comment(made_by)}`. Look through it, then ask `postmeter check-config` about it."
        for text in self.advice:
            yield from _commented(text, "# ", "# ")
        if self.left:
            yield "#"
            yield "# Not carried over:"
        for each in self.left:
            yield from _commented(f"{each.where}: {each.what}: {each.why}", "# - ", "#   ")
        for section, settings in self.sections.items():
            yield ""
            yield f"{section}:"
            for key, (value, why) in settings.items():
                yield from _commented(why, "  # ", "  # ")
                yield from _setting(key, value)


def _setting(key: str, value: Value) -> Iterator[str]:
    """A list of mappings has a line for each."""
    if isinstance(value, Sequence) and not isinstance(value, str) and value and isinstance(value[0], Mapping):
        yield f"  {key}:"
        yield from (f"    - {_flow(each)}" for each in value)
    else:
        yield f"  {key}: {_flow(value)}"


def _flow(value: Value) -> str:
    if value is None or isinstance(value, bool | int):
        return json.dumps(value)
    if isinstance(value, str):
        return _scalar(value)
    if isinstance(value, Mapping):
        pairs = (f"{_scalar(key)}: {_flow(each)}" for key, each in value.items())
        return f"{{{', '.join(pairs)}}}"
    return f"[{', '.join(map(_flow, value))}]"


def _scalar(text: str) -> str:
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS and not _NUMBER.fullmatch(text)
    return text if plain else f'"{"".join(map(_escaped, text))}"'


def _escaped(letter: str) -> str:
    """As YAML has it between double quotes; JSON's pairs for what is beyond 16 bits are no YAML."""
    if letter in '"\\':
        return f"\\{letter}"
    if letter.isascii() and letter.isprintable():
        return letter
    number = ord(letter)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _commented(text: str, first: str, later: str) -> list[str]:
    """A comment of as many lines as it takes; nothing that was read can end it."""
    width = {"width": _WIDTH, "break_long_words": False, "break_on_hyphens": False}
    return wrap(_comment(text), initial_indent=first, subsequent_indent=later, **width) if text else []  # type: ignore[arg-type]


def _comment(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text)
