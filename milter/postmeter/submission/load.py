"""What a worker carries at this moment, and where it says no more: sessions, octets in memory, the end of its shift.

Bounds are refusals with 4xx, never death (`milter.max_sessions`, `milter.max_memory`, `milter.drain`).
"""

from __future__ import annotations

from collections import deque
from threading import Condition, Lock
from time import monotonic

from postmeter.mail.message import Envelope
from postmeter.mail.reply import Reply

TOO_MANY = Reply(451, "4.3.2", "too many sessions here, try again later")
TOO_MUCH = Reply(451, "4.3.1", "too much mail held in memory here, try again later")
LEAVING = Reply(421, "4.3.2", "service restarting, connect again")  # 421 makes Postfix hang up on the client (D10)

_WORK = 5  # halves of its size that a message takes at its end beside what is held of it (tests.bench.memory)
_SPARE = 8192  # octets of memory that a message takes at once, most headers: each time locks all sessions
_EACH = 160  # octets that a refused recipient takes besides its text
_PATIENCE = 120.0  # seconds; Postfix waits for 300 (milter_content_timeout)


class Load:
    """Counts under a lock: callbacks run in threads that libmilter makes."""

    def __init__(self, *, max_sessions: int, max_memory: int) -> None:
        self._lock = Lock()
        self._less = Condition(self._lock)
        self._turns: deque[object] = deque()
        """Those who wait for room to work in, in the order in which they came."""
        self._max_sessions = max_sessions
        self._max_memory = max_memory
        self.most_connections = 2 * max_sessions + 100
        """Those over `max_sessions` are answered 451; still more are not even accepted."""
        self.sessions = 0
        self.octets = 0
        self.working = 0
        """Octets that messages at their end may take besides: body and signature are made from copies."""
        self.leaving = False
        """Set when the shift is nearly over: sessions that begin another message are sent away."""

    def enter(self) -> None:
        with self._lock:
            self.sessions += 1

    def leave(self) -> None:
        with self._lock:
            self.sessions -= 1

    def refusal(self) -> Reply | None:
        """Why no message may begin now."""
        if self.leaving:
            return LEAVING
        return TOO_MANY if self.sessions > self._max_sessions else None

    def hold(self, octets: int) -> bool:
        """Take so many octets of memory; False, and none taken, when there is not so much left."""
        with self._lock:
            if self.octets + self.working + octets > self._max_memory:
                return False
            self.octets += octets
            return True

    def release(self, octets: int) -> None:
        with self._lock:
            self.octets -= octets
            if self._turns:
                self._less.notify_all()

    def begin(self, octets: int) -> bool:
        """Work on a message of which so many octets are held: at once where there is room, else one after another.

        So a worker takes `max_memory` at most, and if that is full already, the work on one message besides. False
        when the wait grew too long.
        """
        need = _WORK * octets // 2
        with self._lock:
            if (self._turns or not self._fits(need)) and not self._queue(need):
                return False
            self.working += need
            return True

    def end(self, octets: int) -> None:
        """The work that was begun on so many octets is done."""
        with self._lock:
            self.working -= _WORK * octets // 2
            if self._turns:
                self._less.notify_all()

    def _fits(self, need: int) -> bool:
        return not self.working or self.octets + self.working + need <= self._max_memory

    def _queue(self, need: int) -> bool:
        turn, end = object(), monotonic() + _PATIENCE
        self._turns.append(turn)
        try:
            while not (self._turns[0] is turn and self._fits(need)):
                left = end - monotonic()
                if left <= 0:
                    return False
                self._less.wait(left)
            return True
        finally:
            self._turns.remove(turn)
            self._less.notify_all()


class Share:
    """What one message holds; `kept` of it until nothing is held any more, and `room` for what may follow."""

    __slots__ = ("_load", "held", "kept", "room")

    def __init__(self, load: Load) -> None:
        self._load = load
        self.held = self.kept = self.room = 0

    @property
    def used(self) -> int:
        return self.held - self.room

    def grow(self, octets: int) -> bool:
        """Make room for so many more octets; False, and none made, when there are not so many left."""
        for wanted in (octets + _SPARE, octets):
            if self._load.hold(wanted):
                self.held += wanted
                self.room += wanted
                return True
        return False

    def shrink(self) -> None:
        """Give back all but what is kept."""
        if self.held > self.kept:
            self._load.release(self.held - self.kept)
        self.held, self.room = self.kept, 0


class Spurned:
    """Recipients that were refused, each once, and why the first was.

    As many are kept as there is room for: for want of it nobody else is refused.
    """

    __slots__ = ("_recipients", "reply", "stage")

    def __init__(self, reply: Reply, stage: str) -> None:
        self.reply, self.stage = reply, stage
        self._recipients: dict[bytes, None] = {}

    def add(self, recipient: bytes, share: Share) -> Spurned:
        octets = 2 * len(recipient) + _EACH  # twice: the event has it as text besides
        if recipient not in self._recipients and (octets <= share.room or share.grow(octets)):
            share.room -= octets
            share.kept += octets
            self._recipients[recipient] = None
        return self

    def of(self, envelope: Envelope) -> Envelope:
        """With them for its recipients."""
        return envelope.to(tuple(self._recipients), frozenset())
