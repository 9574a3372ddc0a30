"""Give up being root for good: become another user, with that user's groups and none of ours (setuid(2)).

Knows nothing of what needed root before. What systemd's `User=` does for a unit, for a daemon started by hand.
"""

from __future__ import annotations

import ctypes
import os
import pwd
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2  # linux/prctl.h


def become(name: str) -> None:
    """Raises KeyError when there is no such user, OSError when we may not."""
    entry = pwd.getpwnam(name)
    if os.geteuid() != entry.pw_uid:
        _become(entry.pw_uid, entry.pw_gid, os.getgrouplist(name, entry.pw_gid))


def become_owner(directory: Path) -> None:
    """Root, and nobody else, becomes whom that belongs to: who may put a link there could have root write elsewhere."""
    if os.geteuid() != 0 or not directory.is_dir():
        return
    owner = directory.stat()
    if owner.st_uid == 0:
        return
    try:
        become(pwd.getpwuid(owner.st_uid).pw_name)
    except KeyError:  # a container's user has a number, and often no name
        _become(owner.st_uid, owner.st_gid, [])


def _become(user: int, group: int, groups: Sequence[int]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    ends_with_parent = ctypes.c_int()
    libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(ends_with_parent))
    os.setgroups(groups)
    os.setgid(group)
    os.setuid(user)
    libc.prctl(_PR_SET_PDEATHSIG, ends_with_parent.value)  # changing the user has switched it off (prctl(2))
