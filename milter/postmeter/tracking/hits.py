"""Clicks and opens on their way into the spool: what a line says, and what happens when it cannot be written.

Knows nothing of HTTP and not what becomes of a line: `books` makes events of them. A full disk must stop no redirect:
lines wait in memory, a bounded number of them, and those that found no room are counted in a line of their own. A line
holds the client's address and program, which `books` needs to tell people from robots; so a file is finished after a
minute, and `books` deletes it when it has read it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as _text

from postmeter.runtime.logs import OnceAMinute
from postmeter.runtime.spool import SpoolError, Writer

SPOOL = "hits"
_WAITING = 10_000  # lines of half a kilobyte: 5 MB
_AGENT = 300  # octets; browsers' are 110 to 150, apps' add some
_FIELD = 40  # octets of any other field; the longest that means something has 30
_MINUTE = 60.0  # seconds after its first line in which a file is finished

SEEN = ("Purpose", "X-Purpose", "Sec-Purpose", "X-Moz", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Sec-Fetch-User")
"""The header fields that tell people from robots, besides the program's name."""

log = logging.getLogger(__name__)
once = OnceAMinute(log)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """`kind` is `click` or `open`; `fields` are those of SEEN that came."""

    kind: str = "click"
    time: float
    reference: bytes
    link: int
    recipient: bytes
    target: str
    host: str
    method: str
    address: str
    agent: str
    secure: bool = False
    fields: tuple[tuple[str, str], ...] = ()

    def line(self) -> bytes:
        """JSON in ASCII, so that no byte of a stranger's can end the line."""
        fields = ",".join([f'"{name}":{_told(value, _FIELD)}' for name, value in self.fields])
        return (
            f'{{"kind":"{self.kind}","time":{self.time:.3f},"reference":"{self.reference.hex()}","link":{self.link},'
            f'"recipient":"{self.recipient.hex()}","target":{_text(self.target)},"host":{_text(self.host)},'
            f'"method":{_text(self.method)},"secure":{"true" if self.secure else "false"},'
            f'"address":{_text(self.address)},"agent":{_told(self.agent, _AGENT)},"fields":{{{fields}}}}}'
        ).encode("ascii")


def _told(text: str, longest: int) -> str:
    """What a stranger sent, as a JSON string of bounded length: no octet takes more than six letters there."""
    text = text[:longest]
    if not text.isascii():
        text = text.encode("utf-8", "surrogateescape")[:longest].decode("utf-8", "replace")
    return _text(text)


class Hits:
    """Lines into the spool at once, or from memory as soon as it takes them again."""

    def __init__(self, writer: Writer, *, waiting: int = _WAITING, clock: Callable[[], float] = time.monotonic) -> None:
        self._writer = writer
        self._most = waiting
        self._clock = clock
        self._waiting: list[bytes] = []
        self._lost = 0
        self._begun = 0.0
        """When a second had lines in the present file; 0 while it has none."""
        self._fresh = True

    def keep(self, hit: Hit) -> bool:
        """`put` of a click or an open."""
        return self.put(hit.line())

    def put(self, line: bytes) -> bool:
        """True: the line survives our death. Else it waits in memory until the spool can be written again."""
        if self._waiting:
            self._wait(line)
            return False
        try:
            self._writer.append((line,))
        except SpoolError as error:
            self._wait(line)
            once.log(logging.ERROR, "spool", "clicks are answered and cannot be recorded: %s", error)
            return False
        self._fresh = False
        return True

    def retry(self) -> None:
        """Once a second: what waits goes first, in its order; then how many found no room to wait."""
        self._finish()
        if not (self._waiting or self._lost):
            return
        lost = [b'{"lost":%d}' % self._lost] if self._lost else []
        try:
            self._writer.append([*self._waiting, *lost])
            log.warning("%d clicks that had waited are recorded", len(self._waiting))
            self._waiting, self._lost, self._fresh = [], 0, False
        except SpoolError as error:
            del self._waiting[: error.written]
            once.log(logging.ERROR, "spool", "%d clicks wait to be recorded: %s", len(self._waiting), error)

    def close(self) -> None:
        self.retry()
        if self._waiting or self._lost:
            log.error("%d clicks lost", len(self._waiting) + self._lost)
        self._writer.close()

    def _finish(self) -> None:
        """End a file that has had lines for a minute: only then it can be deleted."""
        if self._fresh:
            return
        if not self._begun:
            self._begun = self._clock()
        elif self._clock() - self._begun >= _MINUTE:
            self._writer.close()
            self._begun, self._fresh = 0.0, True

    def _wait(self, line: bytes) -> None:
        if len(self._waiting) < self._most:
            self._waiting.append(line)
        else:
            self._lost += 1
