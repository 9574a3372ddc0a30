"""What was made of files: kept in bounded number, and made again when one of the files changes.

While what is there now cannot be used, what was made before goes on: a file that is half written, or was given to the
wrong user, stops no mail (C15). Files are looked at when they are needed, and once a second at most.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from postmeter.runtime.logs import OnceAMinute
from postmeter.submission.keyfiles import KeyProblem

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

log = logging.getLogger(__name__)
once = OnceAMinute(log)

_EVERY = 1.0  # seconds between two looks at the same files
_TRIES = 3  # of a reader whose files are being replaced

Watch: TypeAlias = Callable[[Path], object]
"""To be told each file or directory before it is read."""

_Stamp: TypeAlias = tuple[int, int, int, int] | None


@dataclass(slots=True)
class _Made(Generic[V]):
    value: V
    stamps: Mapping[Path, _Stamp]
    weight: int
    looked: float
    settled: bool


class Kept(Generic[K, V]):
    """Of all that was made, `most` by weight is kept. Safe for threads."""

    def __init__(self, *, most: int, weigh: Callable[[V], int], clock: Callable[[], float]) -> None:
        self._most, self._weigh, self._clock = most, weigh, clock
        self._lock = threading.Lock()
        self._made: OrderedDict[K, _Made[V]] = OrderedDict()
        self._weight = 0

    def get(self, key: K, make: Callable[[K, Watch], V]) -> V:
        """`make` reads files, and raises KeyProblem; so does this, when there is nothing to fall back on."""
        now = self._clock()
        with self._lock:
            made = self._made.get(key)
            if made is not None:
                self._made.move_to_end(key)
                if made.looked <= now < made.looked + _EVERY:
                    return made.value
                made.looked = now  # so that one thread looks while the others go on
        if made is not None and made.settled and not _changed(made.stamps):
            return made.value
        return self._again(key, make, made, now)

    def _again(self, key: K, make: Callable[[K, Watch], V], before: _Made[V] | None, now: float) -> V:
        try:
            made = self._read(key, make, now)
        except KeyProblem as problem:
            if before is None:
                raise
            once.log(logging.ERROR, str(problem.path), "%s; until then what was there before is used", problem)
            return before.value
        if before is not None and before.stamps != made.stamps:
            log.info("%s: changed, and read again", next(iter(made.stamps), key))
        self._keep(key, made)
        return made.value

    def _read(self, key: K, make: Callable[[K, Watch], V], now: float) -> _Made[V]:
        tries = 0
        while True:
            stamps: dict[Path, _Stamp] = {}
            tries += 1
            try:
                value = make(key, lambda path, into=stamps: into.setdefault(path, _stamp(path)))  # type: ignore[misc]
            except KeyProblem:
                if tries >= _TRIES or not _changed(stamps):
                    raise
            else:
                return _Made(value, stamps, self._weigh(value), now, settled=_settled(stamps, now))

    def _keep(self, key: K, made: _Made[V]) -> None:
        with self._lock:
            before = self._made.pop(key, None)
            self._made[key] = made
            self._weight += made.weight - (before.weight if before is not None else 0)
            while self._weight > self._most and len(self._made) > 1:
                self._weight -= self._made.popitem(last=False)[1].weight


def _stamp(path: Path) -> _Stamp:
    """What changes when a file does, its mode and owner too; None when it is not there."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _changed(stamps: Mapping[Path, _Stamp]) -> bool:
    return any(_stamp(path) != stamp for path, stamp in stamps.items())


def _settled(stamps: Mapping[Path, _Stamp], now: float) -> bool:
    """Whether another change would show. Clocks of file systems tick slowly: two changes may have one stamp."""
    return all(stamp is None or abs(now - stamp[3] / 1e9) > _EVERY for stamp in stamps.values())
