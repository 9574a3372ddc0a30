"""Keeps the tracking server's list of blocked links as the journal's blocks want it.

A blocked login is all messages that it ever sent: those that come after the block too, for a stolen account may go on
sending. Knows nothing of tokens or HTTP, nor of who blocked what.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from postmeter.store.blocks import Block, Blocks
from postmeter.store.database import Database
from postmeter.tracking import blocked


class Blocking:
    """`refresh` once a second, or once after a change: costs one small query as long as nothing is blocked."""

    def __init__(self, database: Database, state: Path) -> None:
        self._blocks = Blocks(database)
        self._path = blocked.place(state)
        self._messages: dict[str, set[str]] = {}
        self._seen = 0
        self._written: tuple[object, ...] = ()

    def refresh(self) -> None:
        blocks = self._blocks.all()
        self._expand({block.value for block in blocks if block.kind == "login"})
        messages = {block.value for block in blocks if block.kind == "message"}.union(*self._messages.values())
        self._write(messages, {block.value for block in blocks if block.kind == "host"})

    def count(self, block: Block) -> int:
        """How many messages a block stands for, as of the last refresh."""
        return len(self._messages.get(block.value, ())) if block.kind == "login" else int(block.kind == "message")

    def _expand(self, logins: set[str]) -> None:
        newest = self._blocks.last_event() if logins else 0  # before the questions: what comes meanwhile is asked again
        for login in self._messages.keys() - logins:
            del self._messages[login]
        for login in logins:
            known = self._messages.get(login)
            if known is None:
                self._messages[login] = set(self._blocks.messages(login))
            elif newest > self._seen:
                known.update(self._blocks.messages(login, after=self._seen))
        self._seen = newest

    def _write(self, messages: set[str], hosts: set[str]) -> None:
        """Somebody else may have written an older list meanwhile; one that is still ours is left alone."""
        wanted = (frozenset(messages), frozenset(hosts))
        if not messages and not hosts and not self._path.exists():
            return
        if self._written != (*wanted, self._stamp()):
            blocked.write(self._path, messages=messages, hosts=hosts)
            self._written = (*wanted, self._stamp())

    def _stamp(self) -> tuple[int, int]:
        with contextlib.suppress(FileNotFoundError):
            state = self._path.stat()
            return state.st_ino, state.st_ctime_ns
        return 0, 0
