"""YAML as a tree of texts with lines: the one door to PyYAML.

Works on parser events with a stack of its own, so that depth costs no recursion. Refuses what surprises and bombs are
made of: duplicate keys, aliases, tags, several documents. Knows no key. YAML 1.1, as PyYAML reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from postmeter.config.problem import Problem
from postmeter.config.tree import Listing, Node, Scalar, Table, describe

_DEEPEST = 16  # the contract needs 5
_UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)  # YAML 1.1 section 4.1.1
_FALSE_SPACE = re.compile(r"^[ \t]*([\xa0\u1680\u2000-\u200b\u202f\u205f\u3000])", re.MULTILINE)  # as web pages have it
_GLUED = re.compile(r" *(?:- +)?[\w-]+:[^ ]")
_FAST: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_QUOTE = "put the text in quotes"
_NO_SPACE = ("a colon with no space behind it", "put a space behind it")

_SYNTAX = (  # PyYAML's words for it, ours, and what to do
    ("'\\t'", "a tab where only spaces may stand", "indent with spaces"),
    ("mapping values are not allowed", "a colon where no key can end", "mend the indentation, or " + _QUOTE),
    ("could not find expected ':'", "a key without a colon", "end it with a colon, or mend the indentation"),
    ("scanning an alias", "a text that begins with *", _QUOTE),
    ("scanning an anchor", "a text that begins with &", _QUOTE),
    ("expected <block end>", "the indentation fits no line above", "indent it as its neighbours"),
    ("unknown escape character", "a backslash that means nothing", "double it, or use single quotes"),
    ("quoted scalar", "a quote that is not closed", "close it"),
    ("expected ',' or", "a bracket that is not closed, or a comma missing behind it", "close it, or add the comma"),
    ("node content, but found ':'", "a colon with nothing before it", "put an address like ::1 in quotes"),
    ("unexpected ':'", *_NO_SPACE),
    ("cannot start any token", "a text that begins with a sign of YAML's own", _QUOTE),
)
_GOES_ON = ("mapping values", "expected '<document start>'")  # behind a key that was taken for a text
_TOLD_WHERE_BEGUN = ("quoted scalar", "expected ',' or", "could not find expected ':'")


class _Stop(Exception):  # noqa: N818 - no error but the end of reading; its problem is kept already
    pass


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end is not reached; a mapping's keys and values follow each other in `nodes`."""

    line: int
    mapping: bool
    nodes: list[Node] = field(default_factory=list)

    def step(self) -> str:
        """The path from here to what is being read."""
        if not self.mapping:
            return f"[{len(self.nodes)}]"
        key = self.nodes[-1] if len(self.nodes) % 2 else None
        return f".{key.text}" if isinstance(key, Scalar) else ""


@dataclass(slots=True)
class _Builder:
    file: str
    problems: list[Problem]
    stack: list[_Open] = field(default_factory=list)
    root: Node | None = None

    def complain(self, line: int, what: str, fix: str, *, key: str = "") -> None:
        path = "".join(opened.step() for opened in self.stack) + (f".{key}" if key else "")
        self.problems.append(Problem(self.file, line, path.removeprefix("."), what, fix))

    def take(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.ScalarEvent) and not event.anchor and not event.tag:  # most of them, so the first
            self.add(Scalar(event.value, line, plain=not event.style))
            return
        if isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            self.complain(line, "a second document begins", "keep one, and take the line --- out")
            raise _Stop
        if isinstance(event, yaml.AliasEvent):
            self.complain(line, f"an alias, *{event.anchor}", "write the value out, or " + _QUOTE)
            self.add(Scalar("", line, plain=False))
        elif isinstance(event, yaml.NodeEvent):
            self._begin(event, line)
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            self.add(self._close(self.stack.pop()))

    def _begin(self, event: yaml.NodeEvent, line: int) -> None:
        tag = getattr(event, "tag", None)
        if event.anchor or tag:
            name = f"an anchor, &{event.anchor}" if event.anchor else f"a tag, {tag}"
            self.complain(line, name, "take it out, or " + _QUOTE)
        if isinstance(event, yaml.ScalarEvent):
            self.add(Scalar(event.value, line, plain=not event.style))
        elif len(self.stack) >= _DEEPEST:
            self.complain(line, "lists and mappings are nested too deep", "close the brackets that stand before")
            raise _Stop
        else:
            self.stack.append(_Open(line, isinstance(event, yaml.MappingStartEvent)))

    def add(self, node: Node) -> None:
        if self.stack:
            self.stack[-1].nodes.append(node)
        else:
            self.root = node

    def _close(self, opened: _Open) -> Node:
        if not opened.mapping:
            return Listing(tuple(opened.nodes), opened.line)
        first: dict[str, Scalar] = {}
        items: list[tuple[Scalar, Node]] = []
        for key, value in zip(opened.nodes[::2], opened.nodes[1::2], strict=True):
            if not isinstance(key, Scalar):
                self.complain(key.line, f"{describe(key)} where a key should be", _QUOTE)
            elif key.text in first:
                what = f"stands here a second time, first in line {first[key.text].line}"
                self.complain(key.line, what, "keep one of them", key=key.text)
            else:
                first[key.text] = key
                items.append((key, value))
        return Table(tuple(items), opened.line)


def parse(text: str, file: str, problems: list[Problem]) -> Node | None:
    """The document's tree; None when it is empty or cannot be read to its end, which `problems` then tells."""
    found = _UNPRINTABLE.search(text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        problems.append(Problem(file, line, "", f"an unprintable character, U+{ord(found[0]):04X}", "take it out"))
        return None
    found = _FALSE_SPACE.search(text)
    if found:
        line, what = text.count("\n", 0, found.start(1)) + 1, f"a space that is none to YAML, U+{ord(found[1]):04X}"
        problems.append(Problem(file, line, "", what, "indent with the spaces of the keyboard"))
        return None
    builder = _Builder(file, problems)
    try:
        for event in _events(text, _FAST):
            builder.take(event)
    except _Stop:
        return None
    except yaml.YAMLError as error:
        problems.append(_syntax(text, file, error))
        return None
    return builder.root


def _events(text: str, loader: type) -> Iterator[yaml.Event]:
    return yaml.parse(text, Loader=loader)


def _syntax(text: str, file: str, error: yaml.YAMLError) -> Problem:
    """The mistake in the words of PyYAML's own parser, where that finds it too: libyaml's differ."""
    try:
        for _event in _events(text, yaml.SafeLoader):
            pass
    except yaml.YAMLError as other:
        error = other
    if not isinstance(error, yaml.MarkedYAMLError):
        return Problem(file, 0, "", f"not YAML: {error}", "mend the file")
    said = f"{error.context or ''}: {error.problem or ''}"
    begun = any(words in said for words in _TOLD_WHERE_BEGUN)
    mark = error.context_mark if begun else error.problem_mark
    line = mark.line + 1 if mark else 0
    glued = _glued_above(text, line) if any(words in said for words in _GOES_ON) else 0
    if glued:
        return Problem(file, glued, "", *_NO_SPACE)
    known = next(((ours, fix) for theirs, ours, fix in _SYNTAX if theirs in said), None)
    return Problem(file, line, "", *(known or (f"not YAML: {error.problem}", "mend the line or the one above it")))


def _glued_above(text: str, line: int) -> int:
    """The line above, when its key goes on as one text with this one for want of a space; else 0."""
    lines = text.splitlines()[: line - 1]
    while lines and not lines[-1].partition("#")[0].strip():
        lines.pop()
    return len(lines) if lines and _GLUED.match(lines[-1]) else 0
