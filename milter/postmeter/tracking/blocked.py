"""Links that no longer answer: the file that `books` and `links block` write and the tracking server reads.

The server may not open the journal, so what is blocked there stands in `web/blocked`, one line each: `message HEX16`
or `host NAME`, where `*.NAME` means all hosts below it. Knows nothing of why, or of logins: those are messages here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# What a browser takes for the host of an absolute http or https URL (url.spec.whatwg.org 4.4): a backslash is a slash.
_HOST = re.compile(r"(?i:https?):[/\\]*(?:[^/\\?#]*@)?(\[[^\]]*\]|[^/\\?#:]*)")
_MODE = 0o644


def place(state: Path) -> Path:
    """Where the file lies below the state directory."""
    return state / "web" / "blocked"


@dataclass(frozen=True, slots=True)
class Blocked:
    """References of messages, and names of hosts, as one look at the file found them."""

    messages: frozenset[bytes] = frozenset()
    hosts: frozenset[str] = frozenset()

    def covers(self, reference: bytes, target: str) -> bool:
        return reference in self.messages or (bool(self.hosts) and self._host(target))

    def _host(self, target: str) -> bool:
        name = host_of_target(target)
        above = name.split(".")
        return name in self.hosts or any(f"*.{'.'.join(above[at:])}" in self.hosts for at in range(1, len(above)))


def host_of_target(target: str) -> str:
    """The host that a link leads to: lower case, no port; empty when it is no http or https URL."""
    found = _HOST.match(target)
    return found[1].lower().rstrip(".") if found else ""


def parse(text: str) -> Blocked:
    """Lines that make no sense are passed over: the others must take effect."""
    messages, hosts = set(), set()
    for line in text.splitlines():
        kind, _, value = line.partition(" ")
        if kind == "message" and re.fullmatch("[0-9a-f]{16}", value):
            messages.add(bytes.fromhex(value))
        elif kind == "host":
            hosts.add(value)
    return Blocked(frozenset(messages), frozenset(hosts))


def write(path: Path, *, messages: Iterable[str], hosts: Iterable[str]) -> None:
    """Put a new file in place of the old one, in one step. What root makes belongs to whom the state belongs to, who
    must not have root write or give away what lies elsewhere: O_EXCL follows no link."""
    lines = [f"host {host}" for host in sorted(set(hosts))] + [f"message {one}" for one in sorted(set(messages))]
    data = "".join(f"{line}\n" for line in lines).encode()
    if path.exists() and path.read_bytes() == data:
        return
    root = os.geteuid() == 0
    if not path.parent.exists():
        _make(path.parent, root=root)
    new = path.with_name(f".{path.name}-{os.getpid()}")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE), "wb") as file:
        file.write(data)
        os.fchmod(file.fileno(), _MODE)
        if root:
            owner = path.parent.stat()
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
    new.replace(path)


def _make(directory: Path, *, root: bool) -> None:
    """Whoever reads there is another user, whatever our umask is."""
    directory.mkdir()
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(handle, 0o755)
        if root:
            owner = directory.parent.stat()
            os.fchown(handle, owner.st_uid, owner.st_gid)
    finally:
        os.close(handle)


class Blocklist:
    """The file as a server sees it: `look` once a second, `now` in between."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self.now = Blocked()

    def look(self) -> None:
        """Read the file again if it is another one. What was blocked stays so while it cannot be read: OSError."""
        try:
            state = self._path.stat()
        except FileNotFoundError:
            self._seen, self.now = None, Blocked()
            return
        seen = (state.st_ino, state.st_mtime_ns, state.st_size)
        if seen != self._seen:
            self.now = parse(self._path.read_text("utf-8", "replace"))
            self._seen = seen
