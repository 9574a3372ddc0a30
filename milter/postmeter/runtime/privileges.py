"""Give up being root for good: become another user, with that user's groups and none of ours (setuid(2)).

Knows nothing of what needed root before. What systemd's `User=` does for a unit, for a daemon started by hand.
"""

from __future__ import annotations

import ctypes
import os
import pwd

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2  # linux/prctl.h


def become(name: str) -> None:
    """Raises KeyError when there is no such user, OSError when we may not."""
    entry = pwd.getpwnam(name)
    if os.geteuid() == entry.pw_uid:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    ends_with_parent = ctypes.c_int()
    libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(ends_with_parent))
    os.setgroups(os.getgrouplist(name, entry.pw_gid))
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    libc.prctl(_PR_SET_PDEATHSIG, ends_with_parent.value)  # changing the user has switched it off (prctl(2))
