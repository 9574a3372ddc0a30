"""Postfix's mail queue by its own commands: what lies in it; what is let go from hold, or deleted there.

Knows nothing of whose mail it is or why it is held. Queue ids go to postsuper(1) on its standard input, each of them
checked, and never to another queue than `hold`: short ids are used again for other messages, and postsuper takes a word
for the whole queue. postqueue(1) and postsuper(1) of Postfix 3.7; the latter is for root alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_ID = re.compile(r"[0-9A-Za-z]{5,30}", re.ASCII)  # postconf(5), enable_long_queue_ids
_LOOK, _ACT = 120.0, 600.0  # seconds; a queue after a break-in may hold a hundred thousand messages
_EARLY = 5.0  # seconds that Postfix's clock, read in whole seconds, may seem to be ahead of ours


class QueueError(Exception):
    """A command of Postfix that is missing, failed or was not allowed; its text is for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """A message in the queue; `queue` is hold, incoming, active, deferred, maildrop or corrupt."""

    queue_id: str
    queue: str
    arrived: float

    def came(self, time: float) -> bool:
        """Whether it is the message that ended at `time`, and not another one that got its queue id later.

        Arrival is its begin, however slow the client was; and no id is given twice while a message has it.
        """
        return self.arrived <= time + _EARLY


class MailQueue:
    """`config` is the directory of main.cf; None is Postfix's own."""

    def __init__(self, config: Path | None = None) -> None:
        self._config = config

    def look(self) -> list[Queued]:
        """Everything in the queue, in no order."""
        lines = self._run("postqueue", "-j", patience=_LOOK).decode("utf-8", "replace").splitlines()
        return [_queued(line) for line in lines if line.strip()]

    def release(self, ids: Iterable[str]) -> None:
        """From hold to the deferred queue. What is not on hold is left alone."""
        self._on_hold("-H", ids)

    def delete(self, ids: Iterable[str]) -> None:
        """What is not on hold is left alone."""
        self._on_hold("-d", ids)

    def _on_hold(self, option: str, ids: Iterable[str]) -> None:
        lines = "".join(f"{_checked(found)}\n" for found in ids)
        if lines:
            self._run("postsuper", option, "-", "hold", stdin=lines.encode(), patience=_ACT)

    def _run(self, name: str, *arguments: str, stdin: bytes = b"", patience: float) -> bytes:
        program = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            raise QueueError(f"{name} is not there: is Postfix installed on this host?")
        where = ["-c", str(self._config)] if self._config else []
        try:
            done = subprocess.run(
                [program, *where, *arguments], input=stdin, capture_output=True, check=False, timeout=patience
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise QueueError(f"{name}: {error}") from error
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise QueueError(f"{name}: {said[-1] if said else f'ended with {done.returncode}'}")
        return done.stdout


def _queued(line: str) -> Queued:
    try:
        found = json.loads(line)
        return Queued(queue_id=found["queue_id"], queue=found["queue_name"], arrived=float(found["arrival_time"]))
    except (ValueError, KeyError, TypeError) as error:
        raise QueueError(f"postqueue: no message is told like this: {line[:100]!r}") from error


def _checked(queue_id: str) -> str:
    if not _ID.fullmatch(queue_id):
        raise QueueError(f"{queue_id!r} is no queue id")
    return queue_id
