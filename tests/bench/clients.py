"""Clients that are processes of their own: what they do is handed in. Knows nothing of milters."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable


def fork(work: Callable[[], None]) -> int:
    """The id of a process that does it, and ends with 1 when it could not."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except Exception:  # of a copy of the whole benchmark: nothing may go on from here
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait(pids: Iterable[int]) -> None:
    """Until all have ended; RuntimeError when one could not do its work."""
    failed = sum(os.waitpid(pid, 0)[1] != 0 for pid in pids)
    if failed:
        raise RuntimeError(f"{failed} clients failed; what they saw stands above")
