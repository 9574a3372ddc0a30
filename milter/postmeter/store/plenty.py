"""Which accounts had plenty of room a moment ago: so that MAIL need not read the ledger for every message.

For the early refusal alone, which spares a message that would be refused at its end. It may come late, it may not
come wrongly: what is remembered is never a reason to refuse, so a reset, a raised limit or a release is seen at once.
Others who charge the same account are not seen; when they have filled it, a message goes on to its end and is refused
there, where nothing is remembered, and from then on the ledger is read again. Knows nothing of how charges are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from time import monotonic

from postmeter.store.accounts import Account, Charge

KEPT = 60.0
"""Seconds for which it is believed that there is room."""

_SHARE = 2  # half of the limit free is plenty: others would have to send that much in the meantime …
_LEAST = 50  # … and so much it must be: of small limits a few messages are half
_MOST = 10_000  # accounts remembered: 2 MB


class Plenty:
    """Any thread may ask. What counts is always the limit of whoever asks: a lowered one is heeded at once."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._seen: dict[Account, tuple[float, int]] = {}

    def of(self, charges: Iterable[Charge]) -> bool:
        """Whether every one of these accounts had plenty of room when it was last looked at."""
        now = self._clock()
        for charge in charges:
            until, used = self._seen.get(charge.account, (0.0, 0))
            if now >= until or not _ample(charge, used):
                return False
        return True

    def keep(self, used: Sequence[tuple[Charge, int]]) -> None:
        """What the ledger said just now."""
        if len(self._seen) > _MOST:
            self._seen.clear()
        until = self._clock() + KEPT
        self._seen.update({charge.account: (until, so_much) for charge, so_much in used if _ample(charge, so_much)})

    def forget(self, charges: Iterable[Charge]) -> None:
        """Some of these turned out to have no room."""
        for charge in charges:
            self._seen.pop(charge.account, None)


def _ample(charge: Charge, used: int) -> bool:
    return charge.limit - used - charge.amount >= max(charge.limit // _SHARE, _LEAST)
