"""A folio: all accounts of one key, each a unit and a window, in the one row of the ledger that a charge has to write.

Pure. Times are microseconds. Beside its window an account knows which shares of a limit were told of lately, so that
nobody is warned twice in one window.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct

from postmeter.store.window import SKEW, Window

MICROSECONDS = 1_000_000
UNITS = ("messages", "recipients", "bytes")
"""As numbers in a packed folio: new ones go to the end."""

_HEAD = Struct("<BBHI")  # unit, warnings, octets of the window's state, window in seconds
_WARNED = Struct("<BQ")  # percent, until when nobody is told again
_NUMBERS = {unit: number for number, unit in enumerate(UNITS)}


@dataclass(slots=True)
class Slot:
    """One account. `warned`: until when a share, in percent, is not told of again."""

    window: Window
    warned: dict[int, int] = field(default_factory=dict)

    def warn(self, percent: int, now: int) -> bool:
        """Whether this is to be told; true once in a window. What a clock that was ahead left behind is no reason."""
        length = self.window.length
        if now < self.warned.get(percent, 0) <= now + length + SKEW:
            return False
        self.warned[percent] = now + length
        return True

    def ends(self) -> int:
        """When it will be as if it had never been."""
        return max(self.window.empty_at(), *self.warned.values()) if self.warned else self.window.empty_at()


class Folio:
    """Made anew where a key has none."""

    __slots__ = ("slots",)

    def __init__(self, slots: dict[tuple[str, int], Slot] | None = None) -> None:
        self.slots = {} if slots is None else slots

    def slot(self, unit: str, seconds: int) -> Slot:
        found = self.slots.get((unit, seconds))
        if found is None:
            found = self.slots[unit, seconds] = Slot(Window(seconds * MICROSECONDS))
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
            state = slot.window.pack()
            parts += [_HEAD.pack(_NUMBERS[unit], len(slot.warned), len(state), seconds), state]
            if slot.warned:
                parts += [_WARNED.pack(percent, until) for percent, until in slot.warned.items()]
        return last, b"".join(parts)

    @classmethod
    def unpack(cls, packed: bytes) -> Folio:
        """The opposite of `pack`; ValueError or struct.error for what pack never made."""
        slots, at = {}, 0
        while at < len(packed):
            unit, warnings, size, seconds = _HEAD.unpack_from(packed, at)
            at += _HEAD.size
            slot = Slot(Window.unpack(seconds * MICROSECONDS, packed[at : at + size]))
            at += size
            for _ in range(warnings):
                percent, until = _WARNED.unpack_from(packed, at)
                slot.warned[percent] = until
                at += _WARNED.size
            slots[UNITS[unit], seconds] = slot
        return cls(slots)
