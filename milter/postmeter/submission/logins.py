"""Sets of logins or From domains that a rule names: by glob, by group, or in a file that may change at any time.

Globs are the administrator's, names come from outside: an exact name, `*@domain` and `*.domain` are looked up however
many there are, and what else fnmatch(3) knows is tried glob by glob, in time that grows with the name's length times
the glob's (`fnmatch.translate` goes back over no `*` once it has found the text behind it). Knows nothing of limits.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterable
from fnmatch import translate
from pathlib import Path
from time import monotonic, time

from postmeter.config import namelist
from postmeter.config.problem import MistakeError
from postmeter.config.values import is_glob
from postmeter.runtime.logs import OnceAMinute

once = OnceAMinute(logging.getLogger(__name__))

_LOOK = 1.0  # seconds between two looks at a file
_STILL = 1.0  # seconds for which a file has not been written to: somebody who writes it line by line is done


class Names:
    """Case matters nowhere: spelling must not lead to another rule."""

    __slots__ = ("_below", "_deepest", "_domains", "_exact", "_globs")

    def __init__(self, globs: Iterable[str]) -> None:
        known = {glob.lower() for glob in globs}
        tails = {glob for glob in known if glob[:2] in ("*@", "*.") and not is_glob(glob[1:]) and "@" not in glob[2:]}
        self._exact = frozenset(glob for glob in known if not is_glob(glob))
        self._domains = frozenset(tail[1:] for tail in tails if tail[1] == "@")
        self._below = frozenset(tail[1:] for tail in tails if tail[1] == ".")
        self._deepest = max(map(len, self._below), default=0)
        rest = sorted(glob for glob in known - tails if is_glob(glob))
        self._globs = tuple(re.compile(translate(glob)) for glob in rest)

    def hold(self, name: str) -> bool:
        """Whether that name, in lower case, is one of them."""
        if name in self._exact:
            return True
        if self._domains and name[name.rfind("@") :] in self._domains:
            return True
        if self._below and self._lies_below(name):
            return True
        return any(glob.match(name) for glob in self._globs)

    def _lies_below(self, name: str) -> bool:
        """Compares what begins at each dot, from the right, as far as the longest of `*.domain` reaches."""
        at = name.rfind(".")
        while at >= 0 and len(name) - at <= self._deepest:
            if name[at:] in self._below:
                return True
            at = name.rfind(".", 0, at)
        return False


class NamesInFile:
    """A file's names as they are now: looked at once a second, read when it changed.

    A file that is gone or makes no sense leaves the names as they were. Made before the fork, used by any thread.
    """

    def __init__(self, path: Path, *, kind: str, clock: Callable[[], float] = monotonic) -> None:
        """`kind` is the key that names the file. OSError or MistakeError when it cannot be used."""
        self._path = path
        self._clock = clock
        self._name = namelist.KINDS[kind]
        self._kind = kind
        self._turn = threading.Lock()
        self._read_as = self._seen_as = self._state()
        self._names = Names(namelist.read(path, self._name))
        self._due = self._clock() + _LOOK

    def hold(self, name: str) -> bool:
        if self._clock() >= self._due and self._turn.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._due = self._clock() + _LOOK
                self._turn.release()
        return self._names.hold(name)

    def _look(self) -> None:
        try:
            state = self._state()
            if state != self._read_as and self._still(state):
                self._names = Names(namelist.read(self._path, self._name))
                self._read_as = state
        except (OSError, MistakeError) as error:
            text = "%s: the file cannot be used, its old names go on: %s"
            once.log(logging.ERROR, f"{self._kind}:{self._path}", text, self._kind, error)

    def _still(self, state: tuple[int, int, int]) -> bool:
        """Whether it was last written a while ago, or is what it was at the last look, should the clocks disagree."""
        before, self._seen_as = self._seen_as, state
        return state == before or not 0 <= time() - state[1] / 1e9 < _STILL

    def _state(self) -> tuple[int, int, int]:
        found = os.stat(self._path)
        return found.st_ino, found.st_mtime_ns, found.st_size
