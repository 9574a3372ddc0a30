"""When each daemon was last seen, as the time stamp of a file: all may read it, even those who may write little else.

Knows nothing of metrics. A row in the journal would not do: the tracking server may not open it, and a daemon whose
database is locked is still alive. The milter's and the books' files lie in the state directory's `seen`; the tracking
server's in the spool that it owns.
"""

from __future__ import annotations

import os
from pathlib import Path

EVERY = 10.0  # seconds; a scrape usually comes every 15 to 60


def place(state: Path, daemon: str) -> Path:
    """Where that daemon's file lies below the state directory."""
    return state / "spool" / "hits" / ".seen" if daemon == "web" else state / "seen" / daemon


def beat(path: Path) -> None:
    """Say that we are alive. What prevents it shows in the figure that stands still, and stops nobody."""
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        path.touch(0o640)
    except OSError:
        return


def last_beat(path: Path) -> float | None:
    """Seconds since the epoch, or None when that daemon never ran here."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return None
