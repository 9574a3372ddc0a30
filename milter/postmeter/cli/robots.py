"""The list of known robots: read for those who judge by it, and replaced by another one (`web --update-robots`).

Nothing is fetched: whoever has a newer list hands it over, and it is read from end to end before it is used.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from postmeter.cli.command import FOUND_A_PROBLEM, OK, failed, said
from postmeter.config.load import Loaded
from postmeter.config.problem import ConfigError, Problem
from postmeter.tracking import robotlist

if TYPE_CHECKING:
    from postmeter.books.robotfile import RobotFile

_MODE = 0o644


def opened(loaded: Loaded) -> RobotFile:
    """Raises ConfigError for a file that is no such list."""
    from postmeter.books.robotfile import RobotFile

    path = place(loaded)
    try:
        return RobotFile(path)
    except (OSError, ValueError) as error:
        raise ConfigError([_bad(loaded, path, error)]) from None


def problems(loaded: Loaded) -> list[Problem]:
    """What is wrong with `web.robots`."""
    try:
        opened(loaded)
    except ConfigError as error:
        return list(error.problems)
    return []


def place(loaded: Loaded) -> Path | None:
    """None for the list that comes with us."""
    named = loaded.config.web.robots
    return named if isinstance(named, Path) else None


def update(loaded: Loaded, source: str) -> int:
    """Put the list that `source` names, `-` for standard input, in place of that of `web.robots`."""
    path = place(loaded)
    if path is None:
        what = "the list that comes with postmeter is replaced by its next version only"
        raise ConfigError([loaded.problem("web.robots", what, "name a file of your own there")])
    try:
        text = _read(source)
        new = robotlist.parse(text)
        before = robotlist.parse(path.read_text("utf-8")).date if path.exists() else None
    except (OSError, ValueError) as error:
        told = said(error) if isinstance(error, OSError) else f"{source}: {error}"
        print(f"postmeter web: {told}", file=sys.stderr)
        return FOUND_A_PROBLEM
    if before is not None and new.date < before:
        print(f"postmeter web: {source}: of {new.date}, older than the list in use, of {before}", file=sys.stderr)
        return FOUND_A_PROBLEM
    try:
        _put(path, text)
    except OSError as error:
        return failed("web", error)
    print(f"{path}: {len(new.robots)} robots as of {new.date}; used within a second")
    return OK


def _read(source: str) -> str:
    if source == "-":
        return sys.stdin.buffer.read(robotlist.LONGEST).decode()
    with Path(source).open("rb") as file:
        return file.read(robotlist.LONGEST).decode()


def _put(path: Path, text: str) -> None:
    """In one step: books may look at any moment. Through no link: the directory may be another user's."""
    new = path.with_name(f".{path.name}-{os.getpid()}")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE), "wb") as file:
        file.write(text.encode())
        os.fchmod(file.fileno(), _MODE)
    new.replace(path)


def _bad(loaded: Loaded, path: Path | None, error: Exception) -> Problem:
    if isinstance(error, OSError):
        fix = f"name another, or put one there: postmeter web --update-robots {robotlist.DEFAULT}"
        return loaded.problem("web.robots", said(error), fix)
    return loaded.problem("web.robots", f"{path or robotlist.DEFAULT}: {error}", "see docs/tracking.md for its form")
