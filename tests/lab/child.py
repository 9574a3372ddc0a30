"""A child of this process that does one thing and ends, whatever happens in it.

An exception that left it would be pytest's: it would run the rest of the tests once more, perhaps as another user.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable


def code_of(work: Callable[[], int]) -> int:
    """The exit code of a child that ends with what `work` answers: 70 where it fails, and what it saw is printed."""
    child = os.fork()
    if child == 0:
        code = 70  # EX_SOFTWARE
        try:
            code = work()
        except BaseException:  # whatever it is, it goes no further
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
