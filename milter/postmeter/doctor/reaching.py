"""Whether Postfix can talk to the milter: tried as its own user, from its queue directory, chrooted where it is.

A child process becomes that user for good, connects and negotiates; nothing it does touches a message. For root alone.
Knows nothing of what is configured. Milter protocol version 6 (mfdef.h of libmilter).
"""

from __future__ import annotations

import os
import pwd
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence

from postmeter.doctor.facts import Trial

_PATIENCE = 10.0  # seconds; a worker answers at once, one that was just started needs a moment
_NEGOTIATE = struct.pack(">Ic3I", 13, b"O", 6, 0x1FF, 0x1FFFFF)
_QUIT = struct.pack(">Ic", 1, b"Q")
_CHILD = "import sys; from postmeter.doctor.reaching import speak; sys.exit(speak(*sys.argv[1:]))"


def reach(about: str, address: str, *, queue: str, user: str, chroot: bool) -> Trial:
    """`address` is a word of smtpd_milters: unix:path or inet:host:port."""
    if os.geteuid() != 0:
        return Trial(about, None, f"only root can become {user}")
    try:
        pwd.getpwnam(user)
    except KeyError:
        return Trial(about, None, f"there is no user {user} (mail_owner)")
    code, why = _tried([address, queue, user, "chroot" if chroot else ""])
    return Trial(about, code == 0, why)


def _tried(arguments: Sequence[str]) -> tuple[int, str]:
    """A process of its own: to become another user concerns all threads, and cannot be undone.

    -P: it begins as root, and must load nothing from wherever the operator happens to be.
    """
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _CHILD, *arguments], env=path, capture_output=True, text=True, check=False,
            timeout=3 * _PATIENCE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    said = done.stderr.strip().splitlines()
    return done.returncode, said[-1] if said else ""


def speak(address: str, queue: str, user: str, chroot: str) -> int:
    """In the child: 0 when a milter answered; what went wrong goes to standard error."""
    _become(user, queue, chroot=bool(chroot))
    try:
        with _connect(address) as wire:
            wire.sendall(_NEGOTIATE)
            answer = wire.recv(5)
            wire.sendall(_QUIT)
    except (OSError, ValueError) as error:
        where = f"in the chroot {queue}" if chroot else f"from {queue}"
        why = error.strerror if isinstance(error, OSError) else None
        print(f"{user}, {where}: {address}: {why or error}", file=sys.stderr)
        return 1
    if answer[4:5] != b"O":
        print(f"what listens at {address} is no milter", file=sys.stderr)
        return 1
    return 0


def _become(user: str, queue: str, *, chroot: bool) -> None:
    """What is needed later is loaded before, for a chroot has none of it."""
    entry = pwd.getpwnam(user)
    groups = os.getgrouplist(user, entry.pw_gid)
    "127.0.0.1".encode("idna")
    os.chdir(queue)
    if chroot:
        os.chroot(queue)
    os.setgroups(groups)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def _connect(address: str) -> socket.socket:
    kind, _, place = address.partition(":")
    if kind == "unix":
        wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        wire.settimeout(_PATIENCE)
        wire.connect(place)
        return wire
    host, _, port = place.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE)
