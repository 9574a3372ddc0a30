"""Keys of a section and how a frozen dataclass is made of them.

A key is a dataclass field whose metadata holds how it is read, its default as it would be written, its doc line, and
whether this version acts on it. Documentation and sample are made of the same metadata.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from postmeter.config import tree
from postmeter.config.readers import Place, Reader, UnreadableError, either
from postmeter.config.tree import Node, Raw, Scalar, Table

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Key:
    """`section` is the dataclass of a nested section."""

    name: str
    attribute: str
    reader: Reader[Any]
    doc: str
    default: Raw = None
    required: bool = False
    section: type[Any] | None = None
    example: str = ""


def setting(reader: Reader[T], default: Raw, doc: str, *, example: str = "") -> T:
    """A key with its default as it would be written in the file."""
    value = reader.default(default)
    spec = Key("", "", reader, doc, default, example=example)
    made: Any
    if isinstance(value, dict):
        made = dataclasses.field(default_factory=value.copy, metadata={"key": spec})
    else:
        made = dataclasses.field(default=value, metadata={"key": spec})
    return cast(T, made)


def required(reader: Reader[T], doc: str) -> T:
    made: Any = dataclasses.field(metadata={"key": Key("", "", reader, doc, required=True)})
    return cast(T, made)


def part(kind: type[T], doc: str, *, look: Callable[[T, Place], None] | None = None) -> T:
    """A section within: a mapping of its own keys. `look` complains of keys that do not fit each other."""
    reader = section(kind) if look is None else _agreeing(section(kind), look)
    spec = Key("", "", reader, doc, {}, section=kind)
    made: Any = dataclasses.field(default_factory=kind, metadata={"key": spec})
    return cast(T, made)


def keys(kind: type[Any]) -> tuple[Key, ...]:
    """The keys of a section in the order of the contract. An underscore ends an attribute that Python reserves."""
    if kind not in _known_keys:
        _known_keys[kind] = tuple(
            dataclasses.replace(field.metadata["key"], name=field.name.removesuffix("_"), attribute=field.name)
            for field in dataclasses.fields(kind)
        )
    return _known_keys[kind]


_known_keys: dict[type[Any], tuple[Key, ...]] = {}  # asked for each of 100,000 signing domains


def section(kind: type[T]) -> Reader[T]:
    def take(node: Node, place: Place) -> T:
        found = _read(node, place, keys(kind))
        absent = [spec for spec in keys(kind) if spec.required and spec.attribute not in found]
        for spec in absent:
            place.complain(node.line, f"{spec.name} is missing", f"add {spec.name}: {spec.reader.form}")
        if absent:
            raise UnreadableError
        return kind(**found)

    return Reader("a mapping", take)


def _agreeing(inner: Reader[T], look: Callable[[T, Place], None]) -> Reader[T]:
    def take(node: Node, place: Place) -> T:
        found = inner.take(node, place)
        look(found, place)
        return found

    return Reader(inner.form, take)


def overrides(kind: Callable[[], type[Any]], *, without: frozenset[str]) -> Reader[dict[str, object]]:
    """Some keys of a section that is being defined; the result holds those that were written, by attribute."""

    def take(node: Node, place: Place) -> dict[str, object]:
        return _read(node, place, tuple(spec for spec in keys(kind()) if spec.name not in without))

    return Reader("a mapping of keys of this section", take)


def _read(node: Node, place: Place, known: tuple[Key, ...]) -> dict[str, Any]:
    if isinstance(node, Scalar) and node.null:  # a section whose keys are all commented out
        return {}
    if not isinstance(node, Table):
        raise place.complain(node.line, f"must be a mapping, not {tree.describe(node)}", _mapping_fix(node, known))
    by_name = {spec.name: spec for spec in known}
    found: dict[str, Any] = {}
    failed = False
    for name, item in node.items:
        try:
            spec = _known(name, by_name, place)
            found[spec.attribute] = spec.reader.read(item, place.key(name))
        except UnreadableError:
            failed = True
    if failed:
        raise UnreadableError
    return found


def _mapping_fix(node: Node, known: tuple[Key, ...]) -> str:
    first = re.split(r"[\s:=]", node.text)[0] if isinstance(node, Scalar) else ""
    if first in {spec.name for spec in known}:
        return f"write {first}: VALUE, with a space behind the colon"
    needed = ", ".join(spec.name for spec in known if spec.required)
    return f"write its keys below it: {needed}" if needed else "write its keys below it"


def _known(name: Scalar, by_name: dict[str, Key], place: Place) -> Key:
    if name.text in by_name:
        return by_name[name.text]
    raise place.key(name).complain(name.line, "unknown key", _key_fix(name.text, by_name))


def _key_fix(name: str, by_name: dict[str, Key]) -> str:
    first, colon, _ = name.partition(":")
    if colon and first in by_name:
        return f"write {first}: VALUE, with a space behind the colon"
    homes = tuple(spec.name for spec in by_name.values() if spec.section and name in map(_name, keys(spec.section)))
    if homes:
        return f"it stands below {either(homes)}: indent it there"
    close = difflib.get_close_matches(name.lower().replace("-", "_"), by_name, n=1)
    return f"did you mean {close[0]}?" if close else f"known here: {', '.join(by_name)}"


def _name(spec: Key) -> str:
    return spec.name
