"""How malloc gives memory back: what was large at once, and of the rest not much is kept.

Left alone, glibc moves its threshold for mmap up to 32 MiB after the first large block is freed, and each thread has
arenas: buffers of messages then lie among small objects, and 300 MB of them leave 400 behind. Knows nothing of who
allocates. mallopt(3); elsewhere than with glibc nothing is done.
"""

from __future__ import annotations

import ctypes

# malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8

_MAPPED = 4 << 20  # octets from which on a block is mapped by itself; a system call and fresh pages each time
_KEPT = 8 << 20  # octets that may lie free at the end of an arena
_ARENAS = 2  # one thread at a time runs Python; the others are in OpenSSL, SQLite or libmilter


def bound() -> None:
    """For this process and what it forks; to be called before its first thread."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for parameter, value in ((_MMAP_THRESHOLD, _MAPPED), (_TRIM_THRESHOLD, _KEPT), (_ARENA_MAX, _ARENAS)):
        mallopt(parameter, value)
