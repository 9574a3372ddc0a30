"""One message that came back, understood as far as it can be: bounce, delay, complaint, automatic answer, or other.

Pure: never raises, whatever the input; linear in it. Knows nothing of who may be believed.
"""

from __future__ import annotations

from postmeter.feedback.report import OTHER, Report, Returned

__all__ = ["Report", "Returned", "read"]


def read(message: bytes) -> Report:
    return Report(kind=OTHER, why="not understood")
