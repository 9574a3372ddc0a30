"""What the doctor says: one thing that is wrong, how it is known, and the exact command or record that mends it.

Knows nothing of how anything is found out.
"""

from __future__ import annotations

from dataclasses import dataclass

WRONG, WARNING, UNKNOWN, NOTE = "wrong", "warning", "unknown", "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """`level` is wrong (mail is harmed, or the settings do not do what they say), warning, unknown or note."""

    level: str
    about: str
    what: str
    known: str
    fix: str = ""
