"""Looks whether the journal's file system is about to be full, and says so before it is (`journal.min_free`).

Knows nothing of the journal: when a disk is full, the failure policy of whoever writes decides. statvfs(3).
"""

from __future__ import annotations

import logging
from pathlib import Path

from postmeter.runtime.logs import OnceAMinute
from postmeter.runtime.spool import free_bytes

once = OnceAMinute(logging.getLogger(__name__))


def check(directory: Path, least: int) -> None:
    """Warn when less than `least` bytes are free for us."""
    free = free_bytes(directory)
    if free < least:
        text = "%s: only %d MB free, fewer than journal.min_free (%d MB)"
        once.log(logging.WARNING, "free", text, directory, free >> 20, least >> 20)
