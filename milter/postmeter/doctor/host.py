"""Files and modes, clock, disk and stores of this host.

Plain functions from facts to findings. What is wrong with files was found by the checks of the configuration.
"""

from __future__ import annotations

from collections.abc import Iterator

from postmeter.doctor.facts import Facts
from postmeter.doctor.finding import UNKNOWN, WARNING, WRONG, Finding

_FILES = 1000  # a message in the queue is a file or two, a hit or a report in a spool one
_TRIED = frozenset({"milter.socket_group", "milter.socket_mode"})


def files(facts: Facts) -> Iterator[Finding]:
    """What a socket's modes seem to forbid is left out where Postfix's user was let in."""
    let_in = bool(facts.sockets) and all(trial.ok for trial in facts.sockets)
    for problem in facts.problems:
        if let_in and problem.path in _TRIED:
            continue
        place = f"{problem.file}:{problem.line}" if problem.line else problem.file
        level = WARNING if problem.severity == "warning" else WRONG
        about, known = problem.path or "configuration", f"postmeter check-config: {place}"
        yield Finding(level, about, problem.what, known, problem.fix)


def clock(facts: Facts) -> Iterator[Finding]:
    """Windows of quotas, t= and x= of signatures, and tokens all believe it."""
    if facts.clock is False:
        yield Finding(WARNING, "clock", "nothing keeps the clock right", "adjtimex(2) says that it is not synchronized",
                      "timedatectl set-ntp true (apt-get install systemd-timesyncd)")  # fmt: skip


def disk(facts: Facts) -> Iterator[Finding]:
    for each in facts.disks:
        if each.free < each.least:
            what = f"{each.path} has {each.free // 2**20} MiB left, and should have {each.least // 2**20}"
            yield Finding(WRONG, "disk", what, f"statvfs(3); {each.key}", f"make room: df -h {each.path}")
        if each.inodes is not None and each.inodes < _FILES:
            what = f"{each.path} has room for {each.inodes} more files, whatever their size"
            yield Finding(WRONG, "disk", what, "statvfs(3): f_favail", f"delete files: df -i {each.path}")
        if each.readonly:  # as ext4 becomes by itself when the disk fails
            fix = f"dmesg says why; then mount -o remount,rw what findmnt -T {each.path} names"
            yield Finding(WRONG, "disk", f"{each.path} cannot be written to", "statvfs(3): ST_RDONLY", fix)


def stores(facts: Facts) -> Iterator[Finding]:
    for trial in facts.stores:
        if trial.ok is None:
            fix = trial.fix or "run doctor as root"
            yield Finding(UNKNOWN, "stores", f"whether {trial.about} is not known", trial.why, fix)
        elif not trial.ok:
            fix = "start the server, or mend the address or the password that the configuration gives"
            yield Finding(WRONG, "stores", f"{trial.about}: it does not", trial.why, trial.fix or fix)


CHECKS = (files, clock, disk, stores)
