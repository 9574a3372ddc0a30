"""How malloc gives memory back: what was large at once, and of the rest not much is kept.

Left alone, glibc moves its threshold for mmap up to 32 MiB after the first large block is freed, and each thread has
arenas: buffers of messages then lie among small objects, and 300 MB of them leave 400 behind. Knows nothing of who
allocates. mallopt(3), malloc_trim(3); elsewhere than with glibc nothing is done.
"""

from __future__ import annotations

import ctypes
from typing import Any

# malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8

_MAPPED = 4 << 20  # octets from which on a block is mapped by itself; a system call and fresh pages each time
_KEPT = 8 << 20  # octets that may lie free at the end of an arena
_ARENAS = 1  # one thread at a time runs Python; and malloc_trim(3) leaves the ends of all others as they are


def bound() -> None:
    """For this process and what it forks; to be called before its first thread."""
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        for parameter, value in ((_MMAP_THRESHOLD, _MAPPED), (_TRIM_THRESHOLD, _KEPT), (_ARENA_MAX, _ARENAS)):
            mallopt(parameter, value)


def give_back() -> None:
    """Every whole page that lies free, within arenas too. Takes 0.1 to 0.5 ms, in which others may wait for memory; and
    what much goes back takes besides: 50 to 100 ms for 300 MB, once.

    By itself an arena keeps the most that ever was in use at once, up to `_KEPT` and what lies between blocks in use:
    that grows with the number of messages, for the more there are the more of them once meet.
    """
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _glibc(name: str) -> Any:
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
