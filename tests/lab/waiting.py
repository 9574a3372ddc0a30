"""To wait for something that comes true by itself, with a bound. Never for a while."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for(condition: Callable[[], object], *, within: float = 20.0, else_: Callable[[], str] | None = None) -> None:
    """AssertionError when it does not come true in so many seconds; `else_` says how things stand then."""
    until = time.monotonic() + within
    while not condition():
        assert time.monotonic() < until, else_() if else_ else f"still not so after {within} s"
        time.sleep(0.01)
