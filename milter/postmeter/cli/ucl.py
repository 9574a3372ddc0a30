"""Enough of UCL, rspamd's configuration language, to read what people write in dkim_signing.conf.

Read: comments, `name = value;`, `name: value`, `name { … }`, `name "key" { … }`, lists, quoted and bare text,
here-documents.
Not read: macros (`.include`), variables of its own, arithmetic; they are named with their line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

Value: TypeAlias = "str | Section | list[Value]"


class UclError(ValueError):
    """Something that is not read; says the line."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(f"line {line}: {what}")


@dataclass(slots=True)
class Section:
    """Values by name. What stands there twice becomes a list, and sections of one name become one, as UCL has it."""

    values: dict[str, Value] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, value: Value, line: int) -> None:
        before = self.values.get(name)
        self.lines.setdefault(name, line)
        if isinstance(before, Section) and isinstance(value, Section):
            for key, each in value.values.items():
                before.add(key, each, value.lines[key])
        elif before is None:
            self.values[name] = value
        else:
            self.values[name] = [*(before if isinstance(before, list) else [before]), value]


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    line: int


_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+ | \#[^\n]* | /\*.*?\*/)
    | (?P<here><<(?P<mark>[A-Z]+)\r?\n(?P<doc>.*?)\r?\n(?P=mark)(?=[\s;,]|\Z))
    | (?P<quoted>"(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*')
    | (?P<mark_>[{}\[\];,=:])
    | (?P<macro>\.[a-z_]+)(?=[\s(])
    | (?P<bare>(?:[^\s{}\[\];,="'#:]|:(?=\S))(?:[^\s{}\[\];,="'#:]|:(?=\S)|\#)*)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_LETTERS = {"n": "\n", "t": "\t", "r": "\r"}


def read(text: str) -> Section:
    """Raises UclError."""
    parser = _Parser([*_tokens(text), _Token("end", "", text.count("\n") + 1)])
    return parser.section("end")


def _tokens(text: str) -> Iterator[_Token]:
    at, line = 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise UclError(line, f"{text[at : at + 20]!r} is not understood")
        kind = "space" if match["space"] else match.lastgroup or ""
        if match["doc"] is not None:
            yield _Token("text", match["doc"], line)
        elif match["quoted"] is not None:
            yield _Token("text", _unescaped(match["quoted"][1:-1]), line)
        elif match["mark_"] is not None:
            yield _Token(match["mark_"], match["mark_"], line)
        elif match["macro"] is not None:
            yield _Token("macro", match["macro"], line)
        elif kind != "space":
            yield _Token("text", match.group(), line)
        line += match.group().count("\n")
        at = match.end()


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda found: _LETTERS.get(found[1], found[1]), text)


class _Parser:
    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens, self._at = tokens, 0

    def section(self, end: str) -> Section:
        found = Section()
        while True:
            token = self._next()
            if token.kind == end:
                return found
            if token.kind in (";", ","):
                continue
            if token.kind == "{" and end == "end":  # the whole may stand in braces
                for key, value in (inner := self.section("}")).values.items():
                    found.add(key, value, inner.lines[key])
                continue
            if token.kind == "macro":
                raise UclError(token.line, f"{token.text} is not read: put what it names into one file")
            if token.kind != "text":
                raise UclError(token.line, f"{token.text or 'the end of the file'!r} where a name should stand")
            found.add(*self._pair(token))

    def _pair(self, name: _Token) -> tuple[str, Value, int]:
        separated = self._peek().kind in ("=", ":")
        if separated:
            self._next()
        token, after = self._next(), self._peek()
        goes_on = after.kind == "{" or (after.kind == "text" and after.line == token.line)
        if token.kind == "text" and goes_on and not separated:
            key, inner, line = self._pair(token)
            return name.text, Section({key: inner}, {key: line}), name.line
        return name.text, self._value(token), name.line

    def _value(self, token: _Token) -> Value:
        if token.kind in ("text", "macro"):  # where a value stands, a dot begins a word like others
            return token.text
        if token.kind == "{":
            return self.section("}")
        if token.kind == "[":
            return list(self._list())
        raise UclError(token.line, f"{token.text or 'the end of the file'!r} where a value should stand")

    def _list(self) -> Iterator[Value]:
        while (token := self._next()).kind != "]":
            if token.kind not in (",", ";"):
                yield self._value(token)

    def _peek(self) -> _Token:
        return self._tokens[self._at]

    def _next(self) -> _Token:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token
