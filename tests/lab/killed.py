"""A child that is killed at its nth call of those that change files: so every moment between two of them is tried."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterable
from typing import Any


class Killer:
    """Counts the calls of all that it has armed."""

    def __init__(self, nth: int) -> None:
        self._left = nth

    def armed(self, call: Any) -> Any:
        """The same call; the nth of all kills the process before it is made."""

        def dying(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return dying

    def arm(self, names: Iterable[str]) -> None:
        """Calls of `os`, by their names."""
        for name in names:
            setattr(os, name, self.armed(getattr(os, name)))


def killed_at(nth: int, work: Callable[[Killer], None]) -> bool:
    """Whether a child was killed before it was done; `work` arms what shall count, and works."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work(Killer(nth))
            code = 0
        except Exception:  # of a copy of the whole test: nothing may go on from here
            traceback.print_exc()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), "the child failed; what it saw stands above"
    return code != 0
