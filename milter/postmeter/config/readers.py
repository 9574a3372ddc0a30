"""From a tree of texts to values: what a key accepts, and the complaint when it finds something else.

A reader collects complaints in its `Reading` and goes on with the next key or item, so that one look at the file shows
all that is wrong. Knows no key by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Generic, TypeVar

from postmeter.config import tree
from postmeter.config.problem import MistakeError, Problem, quoted
from postmeter.config.tree import Listing, Node, Scalar, Table

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

_NONE = frozenset({"none", "off", "no", "false", "never"})  # as people say null
_BARE = re.compile(r"[\w/.+](?:[\w/.+@*%:-]| (?=\w))*(?<!:)")  # surely a text in a list of YAML without quotes
_SHOWN = 200  # characters of a text in what to write instead
_FEW = 6  # words: so many are all named to whoever has written another


class UnreadableError(Exception):
    """Complained already; there is no value."""


@dataclass(slots=True)
class Reading:
    """One pass over one file: what was wrong, and the line of each key."""

    file: str
    problems: list[Problem] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the document a reader is: `dkim.sign[0].domain`."""

    reading: Reading
    path: str = ""

    def key(self, name: Scalar) -> Place:
        """A key of the mapping here; its own line counts, not that of what begins below it."""
        place = Place(self.reading, f"{self.path}.{name.text}" if self.path else name.text)
        if name.line:
            self.reading.lines.setdefault(place.path, name.line)
        return place

    @property
    def line(self) -> int:
        return self.reading.lines.get(self.path, 0)

    def item(self, index: int) -> Place:
        return Place(self.reading, f"{self.path}[{index}]")

    def complain(self, line: int, what: str, fix: str) -> UnreadableError:
        self.reading.problems.append(Problem(self.reading.file, line, self.path, what, fix))
        return UnreadableError()


@dataclass(frozen=True, slots=True)
class Reader(Generic[T]):
    """`form` names what it accepts, for complaints and for the documentation."""

    form: str
    take: Callable[[Node, Place], T]

    def read(self, node: Node, place: Place) -> T:
        if node.line:
            place.reading.lines.setdefault(place.path, node.line)
        return self.take(node, place)

    def default(self, raw: tree.Raw) -> T:
        """The value of a default of ours; a mistake in it is a bug, found at import."""
        place = Place(Reading("default"))
        value = self.read(tree.node(raw), place)
        if place.reading.problems:
            raise ValueError(str(place.reading.problems[0]))
        return value


def scalar(form: str, parse: Callable[[str], T]) -> Reader[T]:
    def take(node: Node, place: Place) -> T:
        if not isinstance(node, Scalar) or node.null:
            raise place.complain(node.line, f"must be {form}, not {tree.describe(node)}", f"write {form}")
        try:
            return parse(node.text)
        except MistakeError as wrong:
            raise place.complain(node.line, wrong.what, wrong.fix) from None

    return Reader(form, take)


def bounded(
    form: str, parse: Callable[[str], T], *, least: T, most: T | None = None, show: Callable[[T], str] = str
) -> Reader[T]:
    """A number, size or duration within limits."""

    def check(text: str) -> T:
        value: Any = parse(text)
        if value < least or (most is not None and value > most):
            span = f"{show(least)} or more" if most is None else f"{show(least)} to {show(most)}"
            raise MistakeError(f"{quoted(text)} is out of range", f"write {span}")
        return value  # type: ignore[no-any-return]

    return scalar(form, check)


def choice(*words: str) -> Reader[str]:
    """One of a few words."""

    def parse(text: str) -> str:
        if text not in words:
            close = get_close_matches(text.lower(), words, n=1) if len(words) > _FEW else []
            fix = f"did you mean {close[0]}? known here: {', '.join(words)}" if close else f"write {either(words)}"
            raise MistakeError(f"{quoted(text)} is not known here", fix)
        return text

    return scalar(either(words), parse)


def either(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def optional(inner: Reader[T]) -> Reader[T | None]:
    def take(node: Node, place: Place) -> T | None:
        if isinstance(node, Scalar) and node.null:
            return None
        try:
            return inner.take(node, place)
        except UnreadableError:
            if isinstance(node, Scalar) and node.text.lower() in _NONE:
                place.reading.problems[-1] = replace(place.reading.problems[-1], fix="write null for none")
            raise

    return Reader(f"{inner.form}, or null", take)


def word_or(*words: str, other: Reader[T]) -> Reader[T | str]:
    """A word of its own meaning, e.g. auto, or what `other` reads."""

    form = f"{', '.join(words)} or {other.form}"

    def take(node: Node, place: Place) -> T | str:
        if isinstance(node, Scalar) and node.text in words:
            return node.text
        if isinstance(node, Scalar) and other.form.startswith("a list"):
            listed = f"{', '.join(words)}, or {_listing_fix(node)}" if "each" in other.form else form
            raise place.complain(node.line, f"must be {form}, not {tree.describe(node)}", f"write {listed}")
        try:
            return other.take(node, place)
        except UnreadableError:
            _blame_brackets(node, words, place)
            raise

    return Reader(form, take)


def _blame_brackets(node: Node, words: tuple[str, ...], place: Place) -> None:
    """For the last complaint, where such a word stands alone in a list."""
    only = node.items[0] if isinstance(node, Listing) and len(node.items) == 1 else None
    if isinstance(only, Scalar) and only.text in words:
        place.reading.problems[-1] = replace(place.reading.problems[-1], fix=f"write {only.text} without brackets")


def listing(inner: Reader[T]) -> Reader[tuple[T, ...]]:
    form = f"a list, each {inner.form}"

    def take(node: Node, place: Place) -> tuple[T, ...]:
        if not isinstance(node, Listing):
            raise place.complain(node.line, f"must be a list, not {tree.describe(node)}", _listing_fix(node))
        values: list[T] = []
        failed = False
        for index, item in enumerate(node.items):
            try:
                values.append(inner.read(item, place.item(index)))
            except UnreadableError:
                failed = True
        if failed:
            raise UnreadableError
        return tuple(values)

    return Reader(form, take)


def _listing_fix(node: Node) -> str:
    if isinstance(node, Scalar) and node.text.startswith("-"):
        return "put a space behind each dash"
    if isinstance(node, Scalar):
        return "write [] for none" if node.null else _in_brackets(node.text)
    return "write it as [one, two] or with a dash before each item"


def _in_brackets(text: str) -> str:
    """A text whose commas are taken for those of a list, with the quotes that YAML wants."""
    if len(text) > _SHOWN or not text.isprintable():
        return "put it in brackets"
    items = (item if _BARE.fullmatch(item) else json.dumps(item, ensure_ascii=False) for item in text.split(", "))
    return f"put it in brackets: [{', '.join(items)}]"


def table(key: Callable[[str], K], inner: Reader[T], form: str) -> Reader[dict[K, T]]:
    """A mapping whose keys are the operator's, e.g. domains."""

    def take(node: Node, place: Place) -> dict[K, T]:
        if not isinstance(node, Table):
            fix = "write {} for none, or NAME: VALUE for each"
            raise place.complain(node.line, f"must be {form}, not {tree.describe(node)}", fix)
        values: dict[K, T] = {}
        failed = False
        for name, item in node.items:
            try:
                at = place.key(name)
                _put(values, _name(key, name, at), inner, item, at)
            except UnreadableError:
                failed = True
        if failed:
            raise UnreadableError
        return values

    return Reader(form, take)


def _name(key: Callable[[str], K], name: Scalar, place: Place) -> K:
    try:
        return key(name.text)
    except MistakeError as wrong:
        raise place.complain(name.line, wrong.what, wrong.fix) from None


def _put(values: dict[K, T], name: K, inner: Reader[T], item: Node, place: Place) -> None:
    if name in values:
        raise place.complain(place.line, f"the same as {name} above", "leave one of them out")
    values[name] = inner.read(item, place)
