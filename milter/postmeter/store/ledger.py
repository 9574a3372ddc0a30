"""The ledger: how much of each limit is used, one row a (key, unit, window), decided and charged inside a transaction.

Knows nothing of rules, replies or mail: whoever asks brings finished charges. Time comes in as seconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """`amount` to be put on `key`'s account of that unit and window, if the limit leaves room for it.

    `enforce` false charges whatever the limit says (`over: observe`).
    """

    key: str
    unit: str
    window: int
    limit: int
    amount: int
    text: str
    enforce: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdrawn:
    """No room for `charge`: `used` of its limit in the window ending now; `room_at` is None when it can never fit."""

    charge: Charge
    used: int
    room_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One row of the ledger as it stands: `room_at` says when something is free again (now, when it is)."""

    key: str
    unit: str
    window: int
    used: int
