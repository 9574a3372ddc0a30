"""Hits on tracked links on their way into the spool: what a line says, and what happens when it cannot be written.

Knows nothing of HTTP and not what becomes of a line: `books` makes events of them. A full disk must stop no redirect:
lines wait in memory, a bounded number of them, and those that found no room are counted in a line of their own.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as _text

from postmeter.runtime.logs import OnceAMinute
from postmeter.runtime.spool import SpoolError, Writer

SPOOL = "hits"
_WAITING = 10_000  # lines of half a kilobyte: 5 MB
_AGENT = 300  # characters; browsers' are 110 to 150, apps' add some

log = logging.getLogger(__name__)
once = OnceAMinute(log)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    time: float
    reference: bytes
    link: int
    recipient: bytes
    target: str
    host: str
    method: str
    address: str
    agent: str

    def line(self) -> bytes:
        """JSON in ASCII, so that no byte of a stranger's can end the line."""
        agent = self.agent[:_AGENT]
        if not agent.isascii():
            agent = agent.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return (
            f'{{"time":{self.time:.3f},"reference":"{self.reference.hex()}","link":{self.link},'
            f'"recipient":"{self.recipient.hex()}","target":{_text(self.target)},"host":{_text(self.host)},'
            f'"method":{_text(self.method)},"address":{_text(self.address)},"agent":{_text(agent)}}}'
        ).encode("ascii")


class Hits:
    """Lines into the spool at once, or from memory as soon as it takes them again."""

    def __init__(self, writer: Writer, *, waiting: int = _WAITING) -> None:
        self._writer = writer
        self._most = waiting
        self._waiting: list[bytes] = []
        self._lost = 0

    def keep(self, hit: Hit) -> None:
        """On return the hit survives our death, unless the spool cannot be written."""
        if self._waiting:
            self._wait(hit.line())
            return
        try:
            self._writer.append((hit.line(),))
        except SpoolError as error:
            self._wait(hit.line())
            once.log(logging.ERROR, "spool", "clicks are answered and cannot be recorded: %s", error)

    def retry(self) -> None:
        """Once a second: what waits goes first, in its order; then how many found no room to wait."""
        if not (self._waiting or self._lost):
            return
        lost = [b'{"lost":%d}' % self._lost] if self._lost else []
        try:
            self._writer.append([*self._waiting, *lost])
            log.warning("%d clicks that had waited are recorded", len(self._waiting))
            self._waiting, self._lost = [], 0
        except SpoolError as error:
            del self._waiting[: error.written]
            once.log(logging.ERROR, "spool", "%d clicks wait to be recorded: %s", len(self._waiting), error)

    def close(self) -> None:
        self.retry()
        if self._waiting or self._lost:
            log.error("%d clicks lost", len(self._waiting) + self._lost)
        self._writer.close()

    def _wait(self, line: bytes) -> None:
        if len(self._waiting) < self._most:
            self._waiting.append(line)
        else:
            self._lost += 1
