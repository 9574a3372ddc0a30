"""A configuration file becomes a `Config`, or all that is wrong with it becomes one `ConfigError`.

Looks at the file alone; what only the machine can tell is for `check`.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from postmeter.config.problem import ConfigError, Problem
from postmeter.config.readers import Place, Reading, UnreadableError
from postmeter.config.schema import Config
from postmeter.config.section import section
from postmeter.config.yamltree import parse

__all__ = ["ConfigError", "Loaded", "Problem", "load", "load_with_lines", "loads", "read"]

_LARGEST = 64 * 1024**2  # a hundred thousand signing domains are 10 MB

_config = section(Config)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration with the line of each key that was written, by path: `dkim.sign[0].keys[1].file`."""

    config: Config
    file: str
    lines: dict[str, int] = field(default_factory=dict)

    def problem(self, path: str, what: str, fix: str) -> Problem:
        return Problem(self.file, self.line(path), path, what, fix)

    def warning(self, path: str, what: str, fix: str) -> Problem:
        return Problem(self.file, self.line(path), path, what, fix, "warning")

    def line(self, path: str) -> int:
        """The line of a key, or of the nearest one around it that was written; 0 when it is a default."""
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path, 0) if path else 0


def load(path: Path | str) -> Config:
    return load_with_lines(path).config


def load_with_lines(path: Path | str) -> Loaded:
    return read(_content(Path(path)), str(path))


def loads(text: str, name: str = "configuration") -> Config:
    return read(text, name).config


def read(content: bytes | str, name: str) -> Loaded:
    with _uncollected():
        return _read(content, name)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector: the tree has no cycles, and of 100,000 domains it is looked through for 5 s."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _read(content: bytes | str, name: str) -> Loaded:
    reading = Reading(name)
    root = parse(_text(content, name), name, reading.problems)
    config = Config()
    if root is not None:
        with contextlib.suppress(UnreadableError):  # it has complained
            config = _config.read(root, Place(reading))
    if reading.problems:
        raise ConfigError(_first_of_each(reading.problems))
    return Loaded(config, name, reading.lines)


def _first_of_each(problems: list[Problem]) -> list[Problem]:
    """One complaint a place: what follows from the first would only confuse."""
    first: dict[tuple[int, str], Problem] = {}
    for problem in problems:
        first.setdefault((problem.line, problem.path), problem)
    return list(first.values())


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        fix = "create it (an empty file is valid), or name another" if missing else "name a file that we may read"
        raise ConfigError([Problem(str(path), 0, "", f"cannot be read: {error.strerror}", fix)]) from None
    if len(content) > _LARGEST:
        raise ConfigError([Problem(str(path), 0, "", "larger than 64M", "is it the right file?")])
    return content


def _text(content: bytes | str, name: str) -> str:
    if isinstance(content, str):
        return content.removeprefix("\ufeff")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"not UTF-8: byte {content[error.start]:02X}"
        raise ConfigError([Problem(name, line, "", what, "save the file as UTF-8")]) from None
