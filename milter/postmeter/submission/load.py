"""What a worker carries at this moment, and where it says no more: sessions, octets in memory, the end of its shift.

Bounds are refusals with 4xx, never death (`milter.max_sessions`, `milter.max_memory`, `milter.drain`).
"""

from __future__ import annotations

from threading import Lock

from postmeter.mail.reply import Reply

TOO_MANY = Reply(451, "4.3.2", "too many sessions here, try again later")
LEAVING = Reply(421, "4.3.2", "service restarting, connect again")  # 421 makes Postfix hang up on the client (D10)


class Load:
    """Counts under a lock: callbacks run in threads that libmilter makes."""

    def __init__(self, *, max_sessions: int, max_memory: int) -> None:
        self._lock = Lock()
        self._max_sessions = max_sessions
        self._max_memory = max_memory
        self.sessions = 0
        self.octets = 0
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
            if self.octets + octets > self._max_memory:
                return False
            self.octets += octets
            return True

    def release(self, octets: int) -> None:
        with self._lock:
            self.octets -= octets
