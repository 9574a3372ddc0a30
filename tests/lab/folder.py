"""Where a lab's files lie, and how other users may reach what lies in the clone.

A lab needs directories that the users of Postfix and of the milter can enter, whatever the mode of the clone, of /root
or of a pytest folder. Knows nothing of what is run from them.
"""

from __future__ import annotations

import atexit
import grp
import os
import pwd
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

CLONE = Path(__file__).resolve().parents[2]

# What no daemon imports is not copied: tools, and what the interpreter makes again.
_TOOLS = ("mypy", "mypyc", "ruff", "pip", "setuptools", "hypothesis", "_pytest")
_UNWANTED = ("__pycache__", *_TOOLS, *(f"{tool}-*.dist-info" for tool in _TOOLS))


def new_folder(prefix: str) -> Path:
    """A directory for one lab: anybody may enter it, only we may write to it."""
    folder = Path(tempfile.mkdtemp(prefix=f"postmeter-{prefix}-", dir="/var/tmp"))
    folder.chmod(0o755)
    return folder


def give(path: Path, user: str, *, group: str | None = None, mode: int = 0o755) -> Path:
    """Make `path` a directory of `user` (and of `group`, which need not exist) with that mode."""
    path.mkdir(parents=True, exist_ok=True)
    gid = group_id(group) if group else pwd.getpwnam(user).pw_gid
    os.chown(path, pwd.getpwnam(user).pw_uid, gid)
    path.chmod(mode)
    return path


def group_id(name: str) -> int:
    return grp.getgrnam(name).gr_gid


def may_read(user: str, path: Path) -> bool:
    """Whether `user` can list `path`: asked of the kernel, not worked out from modes."""
    done = subprocess.run(["/bin/ls", str(path)], user=user, group=_main_group(user), extra_groups=[], check=False,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    return done.returncode == 0


def _main_group(user: str) -> int:
    return pwd.getpwnam(user).pw_gid


@cache
def for_everybody(path: Path) -> Path:
    """`path` itself when everybody may read it, else a copy in a folder that goes when this process ends."""
    if may_read("nobody", path):
        return path
    folder = new_folder("copy")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shutil.copytree(path, folder / path.name, symlinks=True, ignore=shutil.ignore_patterns(*_UNWANTED))
    return folder / path.name
