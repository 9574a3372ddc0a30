"""What malloc keeps of memory that is free, in a process of its own: its settings are a process's for good."""

from __future__ import annotations

import os
import subprocess
import sys

_HELD = """
import ctypes, sys
from pathlib import Path
from postmeter.runtime import heap

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

heap.bound()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
blocks = [libc.malloc(size) for _ in range(1000) for size in (32_000, 200)]
for at in blocks[::2]:
    ctypes.memset(at, 1, 32_000)
before = resident()
for at in blocks[::2]:
    libc.free(at)
kept = resident()
heap.give_back()
print(before - kept, kept - resident())
"""


def test_free_memory_between_blocks_in_use_goes_back_to_the_system() -> None:
    """32 MB, of which malloc gives back nothing by itself: each free block has one in use behind it."""
    command = [sys.executable, "-c", _HELD]
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    alone, given = map(int, done.stdout.split())
    assert alone < 2_000_000
    assert given > 25_000_000
