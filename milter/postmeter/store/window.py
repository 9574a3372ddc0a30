"""A sliding window that never lets more than its limit through, kept in at most 60 entries.

Pure: integers in, integers out; times are microseconds, and the clock is the caller's. Up to `MOST` charges are kept
with their exact time. Beyond that neighbours are joined, and a joined entry counts whole until its *last* charge has
left the window: so what is counted is never less than what passed, in any window `(t - length, t]`.

Why a steady pace of 95 % is never refused: an entry only ever spans `length / SPAN` or is a single charge, so at most
the charges of `length * (1 + 1/SPAN)` are counted. With n equal charges a window, n > MOST: n * (1 + 1/30) + 1 <=
n / 0.95 from n = 52 on. With n <= MOST nothing is joined at all, and the count is exact.
Why joining always finds a pair: among MOST + 1 living entries the lasts of every second one lie, taken together, within
one window, so some two neighbours lie within `length / (MOST / 2)` = `length / SPAN`.

The clock: stepped forward, time has passed. Stepped back, nothing is freed: an entry from the future by more than
`SKEW` is dated now, so that it counts for one whole window more and never for ever; by less (threads that read the
clock before they queued), it stays, and the new charge is dated like it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct

MOST = 60
SPAN = MOST // 2
SKEW = 60_000_000
"""Microseconds; longer than a message takes from when its time was read to its turn to write (database.PATIENCE)."""

_TIME, _AMOUNT = Struct("<Q"), Struct("<I")
_USUAL = ord("I")  # amounts of 32 bits


@dataclass(frozen=True, slots=True)
class Window:
    """Charges still in the window, oldest first: when each was last added to, and how much it is."""

    length: int
    times: tuple[int, ...] = ()
    amounts: tuple[int, ...] = ()

    def settled(self, now: int) -> Window:
        """Without what has left the window, and with nothing in the future."""
        if not self.times:
            return self
        if self.times[-1] > now + SKEW:
            times = tuple(min(time, now) for time in self.times)
            return Window(self.length, times, self.amounts).settled(now)
        gone = bisect_right(self.times, now - self.length)
        return Window(self.length, self.times[gone:], self.amounts[gone:]) if gone else self

    def ahead(self, now: int) -> bool:
        """Whether the clock was stepped back behind these charges; only `settled`, once saved, puts that right."""
        return bool(self.times) and self.times[-1] > now + SKEW

    def empty_at(self) -> int:
        """When the last charge leaves."""
        return self.times[-1] + self.length if self.times else 0

    def used(self, now: int) -> int:
        return sum(self.settled(now).amounts)

    def room_at(self, now: int, *, amount: int, limit: int) -> int | None:
        """When `amount` fits, if nothing else comes between: `now`, later, or never (None)."""
        if amount > limit:
            return None
        window = self.settled(now)
        over = sum(window.amounts) + amount - limit
        if over <= 0:
            return now
        for time, freed in zip(window.times, window.amounts, strict=True):
            over -= freed
            if over <= 0:
                return time + self.length
        raise AssertionError("an empty window has room for any amount up to its limit")

    def charged(self, now: int, amount: int) -> Window:
        """With `amount` more, whatever the limit."""
        window = self.settled(now)
        times, amounts = window.times, window.amounts
        if times and times[-1] >= now:
            return Window(self.length, times, (*amounts[:-1], amounts[-1] + amount))
        return _joined(self.length, (*times, now), (*amounts, amount))

    def given_back(self, now: int, at: int, amount: int) -> Window:
        """Without what was charged at that time, if it still counts.

        It lies in the first entry that ends then or later, by no more than what may be joined: another one is somebody
        else's, put there after this account was emptied, and what others put there stays.
        """
        window = self.settled(now)
        times, amounts = window.times, window.amounts
        nth = bisect_left(times, at)
        if at <= now - self.length or nth == len(times) or times[nth] - at > self.length // SPAN + SKEW:
            return window
        left = max(amounts[nth] - amount, 0)
        entry = ((times[nth], left),) if left else ()
        pairs = list(zip(times, amounts, strict=True))
        kept = (*pairs[:nth], *entry, *pairs[nth + 1 :])
        return Window(self.length, tuple(time for time, _ in kept), tuple(amount for _, amount in kept))

    def pack(self) -> bytes:
        """The entries as they lie in the ledger; the length is part of the row's key."""
        kind = b"I" if not self.amounts or max(self.amounts) < 1 << 32 else b"Q"
        return kind + _layout(kind, len(self.times)).pack(*self.times, *self.amounts)

    @classmethod
    def unpack(cls, length: int, state: bytes) -> Window:
        """The opposite of `pack`; ValueError for what pack never made."""
        kind = state[:1]
        if kind not in (b"I", b"Q"):
            raise ValueError("no window")
        count, rest = divmod(len(state) - 1, 12 if kind == b"I" else 16)
        if rest:
            raise ValueError("half a window")
        numbers = _layout(kind, count).unpack_from(state, 1)
        return cls(length, numbers[:count], numbers[count:])


def edges(state: bytes) -> tuple[int, int, int]:
    """How many entries a packed window has, the first time and the last; no entries where it must be unpacked."""
    count, rest = divmod(len(state) - 1, 12)
    if rest or count < 1 or state[0] != _USUAL:
        return 0, 0, 0
    return count, _TIME.unpack_from(state, 1)[0], _TIME.unpack_from(state, 8 * count - 7)[0]


def sum_in(state: bytes, count: int) -> int:
    """All amounts of a packed window of so many entries."""
    return sum(_amounts(count).unpack_from(state, 1 + 8 * count))


def added(state: bytes, count: int, now: int, amount: int) -> bytes:
    """A packed window of fewer than MOST entries with one more, of fewer than 33 bits, behind them."""
    behind = 1 + 8 * count
    return b"".join((state[:behind], _TIME.pack(now), state[behind:], _AMOUNT.pack(amount)))


@lru_cache(maxsize=MOST + 1)
def _amounts(count: int) -> Struct:
    return Struct(f"<{count}I")


@lru_cache(maxsize=2 * MOST + 2)
def _layout(kind: bytes, count: int) -> Struct:
    return Struct(f"<{count}Q{count}{kind.decode()}")


def _joined(length: int, times: tuple[int, ...], amounts: tuple[int, ...]) -> Window:
    """At most MOST entries: the closest neighbours become one, never wider than `length / SPAN`."""
    if len(times) <= MOST:
        return Window(length, times, amounts)
    gaps = sorted(map(int.__sub__, times[2:], times))
    width = min(length // SPAN, gaps[MOST // 4])  # a quarter of the pairs at once, so that this pass is rare
    ends, sums = [times[0]], [amounts[0]]
    for time, amount in zip(times[1:], amounts[1:], strict=True):
        if len(ends) > 1 and time - ends[-2] <= width:
            ends[-1] = time
            sums[-1] += amount
        else:
            ends.append(time)
            sums.append(amount)
    return Window(length, tuple(ends), tuple(sums))
