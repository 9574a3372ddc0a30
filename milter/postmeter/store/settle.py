"""Settling: charge every limit and record the message with its totals, all in one transaction or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from postmeter.events import Event
from postmeter.mail.draft import Figure
from postmeter.store.ledger import Charge, Overdrawn


class Settler:
    """One a process, made after the fork, called from any thread. Every method may raise `StoreError`."""

    def __init__(self, path: Path, *, sync: str = "normal", host: str = "") -> None:
        raise NotImplementedError

    def check(self, charges: Sequence[Charge], now: float) -> Overdrawn | None:
        """The charge without room that frees last, or None. Reads only."""
        raise NotImplementedError

    def settle(
        self, charges: Sequence[Charge], event: Event | None, figures: Mapping[Figure, int], now: float
    ) -> Overdrawn | None:
        """Charge all and record `event` with `figures`, or, without room for one charge, do nothing and say which."""
        raise NotImplementedError

    def add(self, figures: Mapping[Figure, int]) -> None:
        """Add to the totals with the next transaction, or a second from now at most. Costs no transaction."""
        raise NotImplementedError

    def close(self) -> None:
        """Write what `add` still holds, and let go of everything."""
        raise NotImplementedError
