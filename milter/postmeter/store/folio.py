"""A folio: all accounts of one key, each a unit and a window, in the one row of the ledger that a charge has to write.

Pure. Times are microseconds. Beside its window an account knows which shares of a limit were told of lately, so that
nobody is warned twice in one window.
"""

from __future__ import annotations

from struct import Struct, error

from postmeter.store.window import MOST, SKEW, Window, added, edges, sum_in

MICROSECONDS = 1_000_000
UNITS = ("messages", "recipients", "bytes")
"""As numbers in a packed folio: new ones go to the end."""

_HEAD = Struct("<BBHI")  # unit, warnings, octets of the window's state, window in seconds
_WARNED = Struct("<BQ")  # percent, until when nobody is told again
_WIDE = 1 << 32  # an amount that takes more octets than usual
_NUMBERS = {unit: number for number, unit in enumerate(UNITS)}


class Slot:
    """One account. `warned`: until when a share, in percent, is not told of again.

    As long as charges only go behind the others its window stays the octets that lie in the ledger.
    """

    __slots__ = ("_count", "_first", "_last", "_state", "_window", "length", "warned")

    def __init__(self, length: int, state: bytes = b"") -> None:
        self.length = length
        self.warned: dict[int, int] = {}
        self._count, self._first, self._last = edges(state)
        self._state = state
        self._window: Window | None = None
        if not self._count:
            self.window = Window.unpack(length, state) if state else Window(length)

    @property
    def window(self) -> Window:
        if self._window is None:
            self._window = Window.unpack(self.length, self._state)
        return self._window

    @window.setter
    def window(self, window: Window) -> None:
        self._window, self._state, self._count = window, b"", 0
        self._last = window.times[-1] if window.times else 0

    def settle(self, now: int) -> int:
        """How much is used, once what has left the window is let go."""
        if self._count and self._first > now - self.length and self._last <= now:
            return sum_in(self._state, self._count)
        settled = self.window.settled(now)
        if settled is not self._window:
            self.window = settled
        return sum(settled.amounts)

    def charge(self, now: int, amount: int) -> None:
        """With `amount` more, whatever the limit, after `settle`."""
        if 0 < self._count < MOST and self._last < now and amount < _WIDE:
            self._state, self._window = added(self._state, self._count, now, amount), None
            self._count, self._last = self._count + 1, now
        else:
            self.window = self.window.charged(now, amount)

    def ahead(self, now: int) -> bool:
        """As `Window.ahead`."""
        return self._last > now + SKEW

    def knows(self, percent: int, now: int) -> bool:
        """Whether this was told within a window. What a clock that was ahead left behind is no reason."""
        return now < self.warned.get(percent, 0) <= now + self.length + SKEW

    def warn(self, percent: int, now: int) -> bool:
        """Whether this is to be told; true once in a window."""
        if self.knows(percent, now):
            return False
        self.warned[percent] = now + self.length
        return True

    def ends(self) -> int:
        """When it will be as if it had never been."""
        empty = self._last + self.length if self._last else 0
        return max(empty, *self.warned.values()) if self.warned else empty

    def state(self) -> bytes:
        """The window packed."""
        if not self._state:
            self._state = self.window.pack()
        return self._state


class Folio:
    """Made anew where a key has none."""

    __slots__ = ("slots",)

    def __init__(self, slots: dict[tuple[str, int], Slot] | None = None) -> None:
        self.slots = {} if slots is None else slots

    def slot(self, unit: str, seconds: int) -> Slot:
        found = self.slots.get((unit, seconds))
        if found is None:
            found = self.slots[unit, seconds] = Slot(seconds * MICROSECONDS)
        return found

    def pack(self, now: int) -> tuple[int, bytes]:
        """When all will be over, and what is not yet: limits that nobody has any more leave in time."""
        parts: list[bytes] = []
        last = 0
        for (unit, seconds), slot in self.slots.items():
            ends = slot.ends()
            if ends <= now:
                continue
            last = max(last, ends)
            state = slot.state()
            parts += [_HEAD.pack(_NUMBERS[unit], len(slot.warned), len(state), seconds), state]
            if slot.warned:
                parts += [_WARNED.pack(percent, until) for percent, until in slot.warned.items()]
        return last, b"".join(parts)

    @classmethod
    def unpack(cls, packed: bytes) -> Folio:
        """The opposite of `pack`; ValueError for what pack never made, be it no octets at all."""
        slots, at = {}, 0
        try:
            while at < len(packed):
                unit, warnings, size, seconds = _HEAD.unpack_from(packed, at)
                at += _HEAD.size
                slot = Slot(seconds * MICROSECONDS, packed[at : at + size])
                at += size
                for _ in range(warnings):
                    percent, until = _WARNED.unpack_from(packed, at)
                    slot.warned[percent] = until
                    at += _WARNED.size
                slots[UNITS[unit], seconds] = slot
        except (error, IndexError, TypeError) as what:
            raise ValueError("no folio") from what
        return cls(slots)
