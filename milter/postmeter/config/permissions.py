"""Whether a user of this machine may enter, read or write a path, be it ourselves or Postfix.

Looks at modes, owners and groups of what is there, not at access lists (path_resolution(7)). Knows no key of the
configuration, and nothing of who else may: what private keys need is told where they are loaded.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

READ, WRITE, ENTER = 4, 2, 1


@dataclass(frozen=True, slots=True)
class Person:
    """`gid` is the first group, which new files get; `gids` all of them."""

    name: str
    uid: int
    gid: int
    gids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with which path, and the command that mends it."""

    path: Path
    what: str
    fix: str


def myself() -> Person:
    uid = os.geteuid()
    return Person(_user_name(uid), uid, os.getegid(), frozenset({os.getegid(), *os.getgroups()}))


def person(name: str) -> Person | None:
    """A user of this machine with the groups that a login or a daemon of that name gets."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Person(name, entry.pw_uid, entry.pw_gid, frozenset(os.getgrouplist(name, entry.pw_gid)))


def owner(path: Path) -> Person | None:
    """Whom a path belongs to; None when it is not there or its owner has no name."""
    try:
        return person(pwd.getpwuid(path.stat().st_uid).pw_name)
    except (OSError, KeyError):
        return None


def may(who: Person, state: os.stat_result, bits: int) -> bool:
    """Whether the mode grants `bits` (READ, WRITE, ENTER); the first class that fits decides (path_resolution(7))."""
    if who.uid == 0:
        return True
    if who.uid == state.st_uid:
        return (state.st_mode >> 6) & bits == bits
    if state.st_gid in who.gids:
        return (state.st_mode >> 3) & bits == bits
    return state.st_mode & bits == bits


def barrier(path: Path, who: Person) -> Fault | None:
    """The first directory on the way to `path` that is missing or that `who` may not enter."""
    for directory in reversed(Path(os.path.realpath(path)).parents):
        try:
            state = directory.stat()
        except PermissionError:
            return None  # we see less than `who` may; what we can see is open
        except OSError:
            return Fault(directory, f"there is no directory {directory}", f"make it: mkdir {directory}")
        if not stat.S_ISDIR(state.st_mode):
            return Fault(directory, f"{directory} is not a directory", "name another path")
        if not may(who, state, ENTER):
            what = f"{who.name} may not enter {directory} ({mode(state)})"
            return Fault(directory, what, _admit(directory, state, who))
    return None


def unreadable(path: Path, me: Person, missing: str) -> Fault | None:
    """Why `me` could not read a file; `missing` mends one that is not there."""
    fault = barrier(path, me)
    if fault:
        return Fault(fault.path, fault.what, missing) if not fault.path.exists() else fault
    try:
        state = path.stat()
    except OSError as error:
        return Fault(path, f"{path}: {error.strerror}", missing)
    if not stat.S_ISREG(state.st_mode):
        return Fault(path, f"{path} is not a file", "name a file")
    if not may(me, state, READ):
        what = f"{me.name} may not read {path} ({mode(state)})"
        return Fault(path, what, f"chown {me.name} {path} && chmod u+r {path}")
    return None


def unfit(path: Path, me: Person, missing: str) -> Fault | None:
    """Why a file would not do as a secret that `me` reads: nobody else may, and there is something in it."""
    fault = unreadable(path, me, missing)
    if fault:
        return fault
    state = path.stat()
    if state.st_mode & 0o027:
        return Fault(path, f"{path} is open to others ({mode(state)})", f"chmod 0640 {path}")
    if not state.st_size:
        return Fault(path, f"{path} is empty", missing)
    return None


def unlistable(directory: Path, me: Person) -> Fault | None:
    """Why `me`, who may enter a directory, could not tell what is in it."""
    state = directory.stat()
    if may(me, state, READ):
        return None
    return Fault(directory, f"{me.name} may not list {directory} ({mode(state)})", f"chown {me.name} {directory}")


def _admit(directory: Path, state: os.stat_result, who: Person) -> str:
    """Through the class that decides: for who is none of its own through the group, or else for everyone."""
    if who.uid == state.st_uid:
        return f"chmod u+x {directory}"
    if state.st_gid in who.gids:
        return f"chmod g+x {directory}"
    if state.st_mode & 0o070:
        return f"chmod o+x {directory}"
    return f"chgrp {group_name(who.gid)} {directory} && chmod g+x {directory}"


def group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def mode(state: os.stat_result) -> str:
    """The permission bits for a complaint."""
    return f"mode {stat.S_IMODE(state.st_mode):04o}"


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
