"""What is charged, to whom, and what came of it: the values that both stores of quotas share, and what a store can do.

Knows nothing of SQLite, Redis, rules, replies or mail. An account is one limit's unit and window for one key of one
level; the name of a key says its level first, so that no login can be taken for a domain or a network.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, TypeAlias

from postmeter.events import Event, Released
from postmeter.mail.draft import Figure
from postmeter.store.database import StoreError

Account: TypeAlias = tuple[str, str, int]
"""What an account is about: its key with the level in front, unit, window in seconds."""

LEVELS = ("sender", "domain", "network", "total", "brake")


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """`amount` to be put on an account of `key`, if the limit leaves room for it.

    `enforce` false charges whatever the limit says. `warn` are the shares of the limit, in percent, that somebody wants
    to be told of when they are reached.
    """

    key: str
    unit: str
    window: int
    limit: int
    amount: int
    text: str
    level: str = "sender"
    enforce: bool = True
    warn: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The key with its level in front, as stores keep it."""
        return account_name(self.level, self.key)

    @property
    def account(self) -> Account:
        return self.name, self.unit, self.window


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdrawn:
    """No room for `charge`: `used` of its limit in the window ending now; `room_at` is None when it can never fit."""

    charge: Charge
    used: int
    room_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A message for Postfix's hold queue: what it will be charged when it leaves it.

    `most` is how many messages of that sender may be held at one time; 0 is no bound.
    """

    queue_id: str
    sender: str
    login: str
    reason: str
    """`quota` or `brake`."""
    charges: tuple[Charge, ...]
    most: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A message that waits in Postfix's hold queue. `going`: charged, and Postfix is being told to let it go."""

    queue_id: str
    time: float
    sender: str
    login: str
    reason: str
    charges: tuple[Charge, ...]
    recipients: int
    going: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What came of it: all charged and recorded; or, with `refused` or `full`, nothing at all.

    `observed` is a limit that was passed although it was not enforced. `full`: no more may be held.
    """

    refused: Overdrawn | None = None
    observed: Overdrawn | None = None
    full: bool = False


DONE = Settled()
"""Charged and recorded, and nothing to be said about it."""


class StoreDownError(StoreError):
    """The store of quotas does not answer, and nothing was charged; the journal may be as well as ever."""

    def __init__(self, what: str) -> None:
        self.what = what
        Exception.__init__(self, what)


class UnreadableError(StoreDownError):
    """What is kept of some keys makes no sense, and nothing was charged; all others are as well as ever."""

    def __init__(self, names: Collection[str]) -> None:
        super().__init__("; ".join(map(unreadable, sorted(names))))


class Accounts(Protocol):
    """A store of quotas together with the journal. One a process, made after the fork, called from any thread."""

    def open(self) -> None:
        """Make sure that it can be written: a daemon does so before it takes mail. StoreError when not."""

    def glance(self, charges: Sequence[Charge], now: float) -> Overdrawn | None:
        """What is known at once, for early refusal: may know of no overdraft where `check` would."""

    def check(self, charges: Sequence[Charge], now: float) -> Overdrawn | None:
        """The charge without room that frees last, or None. Reads only; StoreError when that is impossible."""

    def settle(
        self,
        charges: Sequence[Charge],
        event: Event | None,
        figures: Mapping[Figure, int],
        now: float,
        *,
        hold: Hold | None = None,
        besides: Sequence[Event] = (),
    ) -> Settled:
        """Charge all and record `event` with `figures`, or, without room for one charge, do nothing and say which.

        With `hold` nothing is charged, the message is recorded as held. `besides` go with the event. An event whose
        `source` the journal knows already was settled before, and is not charged again. StoreError when neither
        journal nor spool can be written, StoreDownError when nobody can tell whether there is room.
        """

    def release(self, message: Held, event: Released, now: float) -> Settled:
        """Charge what leaves the hold queue and mark it as `going`; or, without room for one charge, say which.

        One that is going already is not charged again. With another `action` than `released` nothing is charged, and
        the message is no longer kept as held. StoreError when the journal cannot be written: it stays held.
        """

    def add(self, figures: Mapping[Figure, int]) -> None:
        """Add to the totals with the next transaction. Costs nothing, never fails."""

    def close(self) -> None:
        """Write what `add` still holds, and let go of everything."""


def charge_of(plain: Mapping[str, Any]) -> Charge:
    """A charge from the JSON of its fields."""
    return Charge(**{**plain, "warn": tuple(plain.get("warn", ()))})


@lru_cache(maxsize=4096)
def account_name(level: str, key: str) -> str:
    """A key as stores keep it, its level in front."""
    return f"{level}:{storable(key)}"


def unreadable(name: str) -> str:
    """What is wrong with an account of that name, and what mends it. Its use is lost: it begins anew."""
    return f"what {name.partition(':')[2] or 'all mail'} has used cannot be read: {mended(name)}"


def mended(name: str) -> str:
    """The command that empties an account."""
    level, _, key = name.partition(":")
    return f"postmeter quota reset {shlex.quote(key or 'all')}{'' if level == 'sender' else f' --level {level}'}"


def storable(key: str) -> str:
    """SQLite takes no half of a surrogate pair, and its JSON ends a string at a NUL."""
    if key.isascii() and "\0" not in key:
        return key
    return key.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
