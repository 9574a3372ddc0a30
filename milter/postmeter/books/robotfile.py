"""The list of robots as the books use it: ours, or the operator's file, which is read again when it has changed.

Fetches nothing. What is wrong with a file that has changed is told, and the list that was read before goes on.
"""

from __future__ import annotations

import logging
from pathlib import Path

from postmeter.runtime.logs import OnceAMinute
from postmeter.tracking.robotlist import DEFAULT, LONGEST, RobotList, parse
from postmeter.tracking.robots import Robots

log = logging.getLogger(__name__)
once = OnceAMinute(log)


def read(path: Path | None) -> RobotList:
    """OSError when it cannot be read, ValueError, with the line, when it is no such list."""
    file = path or DEFAULT
    if file.stat().st_size > LONGEST:
        raise ValueError(f"more than {LONGEST} bytes")
    return parse(file.read_text("utf-8"))


class RobotFile:
    """`path` is None for our own list, which changes with the program only."""

    def __init__(self, path: Path | None) -> None:
        """Raises what `read` does."""
        self._path = path
        self._seen = self._stamp()
        self.robots = Robots(read(path))

    def look(self) -> bool:
        """True when there is another list."""
        if self._path is None or self._stamp() == self._seen:
            return False
        seen = self._stamp()
        try:
            self.robots = Robots(read(self._path))
        except (OSError, ValueError) as error:
            once.log(logging.ERROR, "robots", "%s: the old list goes on: %s", self._path, error)
            return False
        self._seen = seen
        log.info("%s: robots as of %s", self._path, self.robots.date)
        return True

    def _stamp(self) -> tuple[int, int, int] | None:
        if self._path is None:
            return None
        try:
            state = self._path.stat()
        except OSError:
            return None
        return state.st_ino, state.st_ctime_ns, state.st_size
