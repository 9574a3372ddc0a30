"""Reading private keys from disk, and who else could.

Knows nothing of what is in a key. OpenDKIM's rule (RequireSafeKeys, C14), told so that it can be mended: the exact
path, its mode, the command. Besides root, one account at most may reach a key: the one that we run as.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path

from postmeter.config import permissions


class KeyProblem(Exception):  # noqa: N818 (it may be no more than a warning, which is collected and not raised)
    """What is wrong with a key file and how to mend it; `fatal` False for what signs, but badly.

    `key` is the configuration key that leads to the file, e.g. dkim.sign[0].keys[1].file, where somebody knows it.
    """

    def __init__(self, path: Path, what: str, fix: str, *, fatal: bool = True) -> None:
        self.path, self.what, self.fix, self.fatal, self.key = path, what, fix, fatal, ""
        super().__init__(f"{path}: {what}; {fix}")

    def at(self, key: str) -> KeyProblem:
        self.key = key
        return self


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> KeyProblem:
    """Why a file or directory of keys cannot be read."""
    if isinstance(error, FileNotFoundError):
        return KeyProblem(path, "no such file", "correct the path, or put the file there")
    if isinstance(error, IsADirectoryError):
        return _directory(path)
    if isinstance(error, NotADirectoryError):
        return KeyProblem(path, "is not a directory", "make it one, or name another path")
    if isinstance(error, PermissionError):
        return _forbidden(path)
    return KeyProblem(path, f"cannot be read: {error.strerror}", "check the disk and the path")


def _directory(path: Path) -> KeyProblem:
    return KeyProblem(path, "is a directory", "name the key file in it")


def _forbidden(path: Path) -> KeyProblem:
    """Which of the directories above is closed to us, or else the path itself; as far as modes tell."""
    me = permissions.myself()
    fault = permissions.barrier(path, me)
    if fault is not None:
        what = fault.what.replace(str(fault.path), "it")
        return KeyProblem(fault.path, f"{what}, and so not read {path}", fault.fix)
    try:
        state = path.stat()
    except OSError:  # it is gone, or not by its mode
        return KeyProblem(path, f"{me.name} may not read it", "look at access lists, and at what confines the service")
    if permissions.may(me, state, permissions.READ):
        fix = "look at access lists, and at what confines the service"
    else:
        fix = f"chown {me.name} {path} && chmod u+r {path}"
    return KeyProblem(path, f"{me.name} may not read it ({permissions.mode(state)})", fix)


class Guard:
    """Checks that nobody else can read or replace a key; remembers groups and directories while one keyring loads."""

    def __init__(self, user: int | None = None) -> None:
        self._user = os.geteuid() if user is None else user
        self._safe: set[Path] = set()
        self._members: dict[int, frozenset[int]] = {}

    def check(self, path: Path) -> None:
        """Raises KeyProblem for the file itself or for the directory that is at fault."""
        real = Path(os.path.realpath(path))
        try:
            state = real.stat()
        except OSError:
            return  # reading it will say it better
        self._check_file(real, state)
        for folder in real.parents:
            if folder in self._safe or self._ends_walk(folder):
                break
        self._safe.add(real.parent)

    def _check_file(self, path: Path, state: os.stat_result) -> None:
        """What is no file is not told to be closed: others may need that directory, or that device."""
        if not stat.S_ISREG(state.st_mode):
            raise _directory(path) if stat.S_ISDIR(state.st_mode) else KeyProblem(path, "is no file", "name a key file")
        mode = stat.S_IMODE(state.st_mode)
        if mode & 0o006:
            raise KeyProblem(path, f"others can read or write it (mode {mode:04o})", f"chmod o-rwx {path}")
        self._check_owner(path, state.st_uid)
        if mode & 0o060 and (names := self._strangers(state)):
            what = f"group {_group(state.st_gid)} can read or write it (mode {mode:04o}): {names}"
            raise KeyProblem(path, what, f"chmod g-rwx {path}")

    def _ends_walk(self, folder: Path) -> bool:
        """Whether nobody else gets below this directory; raises when somebody else could put another key there."""
        try:
            state = folder.stat()
        except OSError as error:  # renamed under us, as when all keys are replaced at once
            raise unreadable(folder, error) from None
        mode = stat.S_IMODE(state.st_mode)
        sticky = bool(mode & stat.S_ISVTX)  # as /tmp: others may add entries, but not replace ours
        if mode & 0o002 and not sticky:
            raise KeyProblem(folder, f"others can replace keys below it (mode {mode:04o})", f"chmod o-w {folder}")
        self._check_owner(folder, state.st_uid)
        if mode & 0o020 and not sticky and (names := self._strangers(state)):
            what = f"group {_group(state.st_gid)} can replace keys below it (mode {mode:04o}): {names}"
            raise KeyProblem(folder, what, f"chmod g-w {folder}")
        return not mode & 0o011

    def _check_owner(self, path: Path, owner: int) -> None:
        """Root, or we. Whoever checks as root cannot know whom the service runs as: then any one owner will do."""
        if self._user and owner not in (0, self._user):
            raise KeyProblem(path, f"belongs to {_account(owner)}", f"chown {_account(self._user)} {path}")

    def _strangers(self, state: os.stat_result) -> str:
        """The accounts that its group lets in too, in words; empty when there is nobody but us and root."""
        accounts = (self._group_members(state.st_gid) | {state.st_uid}) - {0, self._user}
        if len(accounts) <= (0 if self._user else 1):
            return ""
        return ", ".join(_account(uid) for uid in sorted(accounts)[:3])

    def _group_members(self, gid: int) -> frozenset[int]:
        if gid not in self._members:
            try:
                named = set(grp.getgrgid(gid).gr_mem)
            except KeyError:
                named = set()
            everybody = pwd.getpwall()
            self._members[gid] = frozenset(
                account.pw_uid for account in everybody if account.pw_gid == gid or account.pw_name in named
            )
        return self._members[gid]


def _account(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
