"""The ledger: how much of each limit is used, one row a (key, unit, window), decided and charged inside a transaction.

Knows nothing of rules, replies or mail: whoever asks brings finished charges. Time comes in as seconds since the epoch.
The cost of a charge does not depend on how many keys there are, nor on how much was sent before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from sqlite3 import Connection

from postmeter.store.accounts import Account, Charge, Overdrawn, account_name
from postmeter.store.database import Database, Row
from postmeter.store.window import Window

MICROSECONDS = 1_000_000

# By key alone: a key has a few accounts, side by side, and most charges of a message are one key's.
_SELECT = "SELECT key, unit, window, state FROM ledger WHERE key IN (SELECT value FROM json_each(?))"
_SAVE = """
    INSERT INTO ledger (key, unit, window, empty_at, state) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET empty_at = excluded.empty_at, state = excluded.state
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One account as it stands at `now`."""

    level: str
    key: str
    unit: str
    window: int
    used: int
    state: Window
    now: float

    def room_at(self, limit: int) -> float | None:
        """When one more fits under that limit; None for never."""
        micro = _micro(self.now)
        at = self.state.room_at(micro, amount=1, limit=limit)
        return self.now if at == micro else None if at is None else at / MICROSECONDS


class Ledger:
    """The rows that some charges need, read at once; `save` writes those that changed. Lives in one transaction."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._windows = {(key, unit, span): _window(span, state) for key, unit, span, state in rows}
        self._changed: set[Account] = set()

    def overdrawn(self, charges: Sequence[Charge], now: float) -> Overdrawn | None:
        """The charge without room that frees last."""
        found = [over for charge in charges if charge.enforce and (over := self._over(charge, now))]
        return max(found, key=lambda over: inf if over.room_at is None else over.room_at, default=None)

    def ahead(self, charges: Sequence[Charge], now: float) -> bool:
        """Whether the clock was stepped back behind some account: only a transaction can put that right."""
        return any(self._window(charge.account).ahead(_micro(now)) for charge in charges)

    def charge(self, charges: Sequence[Charge], now: float) -> None:
        """Put every amount on its account; two limits on one account charge it once."""
        for account, amount in {charge.account: charge.amount for charge in charges if charge.amount}.items():
            self._windows[account] = self._window(account).charged(_micro(now), amount)
            self._changed.add(account)

    def save(self, link: Connection) -> None:
        windows = ((account, self._windows[account]) for account in self._changed)
        link.executemany(_SAVE, [(*account, window.empty_at(), window.pack()) for account, window in windows])

    def _over(self, charge: Charge, now: float) -> Overdrawn | None:
        if not charge.amount:
            return None
        window, micro = self._window(charge.account), _micro(now)
        if window.ahead(micro):
            window = self._windows[charge.account] = window.settled(micro)
            self._changed.add(charge.account)
        at = window.room_at(micro, amount=charge.amount, limit=charge.limit)
        if at == micro:
            return None
        return Overdrawn(charge=charge, used=window.used(micro), room_at=None if at is None else at / MICROSECONDS)

    def _window(self, account: Account) -> Window:
        return self._windows.get(account) or Window(account[2] * MICROSECONDS)


def load(link: Connection, charges: Iterable[Charge]) -> Ledger:
    """For a transaction on that connection."""
    keys = {charge.account[0] for charge in charges}
    return Ledger(link.execute(_SELECT, (json.dumps(list(keys)),)).fetchall() if keys else ())


def peek(database: Database, charges: Iterable[Charge]) -> Ledger:
    """For a look without a transaction."""
    keys = {charge.account[0] for charge in charges}
    return Ledger(database.query(_SELECT, (json.dumps(list(keys)),)) if keys else ())


def usage(database: Database, now: float, *, level: str | None = None, key: str | None = None) -> list[Usage]:
    """What every key, or one of a level, has used of its windows; accounts that are empty again are left out."""
    sql = "SELECT key, unit, window, state FROM ledger WHERE empty_at > ?"
    values: list[object] = [_micro(now)]
    if key is not None:
        sql += " AND key = ?"
        values.append(account_name(level or "sender", key))
    elif level is not None:
        sql += " AND key >= ? AND key < ?"
        values += [f"{level}:", f"{level};"]
    rows = database.query(sql + " ORDER BY key, window, unit", values)
    found = (_usage(row, now) for row in rows)
    return [usage for usage in found if usage.used]


def reset(database: Database, level: str, key: str) -> int:
    """Empty all accounts of a key; returns how many there were."""
    with database.transaction() as link:
        return link.execute("DELETE FROM ledger WHERE key = ?", (account_name(level, key),)).rowcount


def sweep(database: Database, now: float, *, most: int = 500) -> int:
    """Forget accounts that have been empty for a day, `most` at a time; keys that are client addresses would pile up.

    They are looked for before the transaction, which is short and looks again. Returns how many went.
    """
    idle = _micro(now) - 86_400 * MICROSECONDS
    found = database.query("SELECT key, unit, window FROM ledger WHERE empty_at < ? LIMIT ?", (idle, most))
    if not found:
        return 0
    condition = "key = ? AND unit = ? AND window = ? AND empty_at < ?"
    with database.transaction() as link:
        return link.executemany(f"DELETE FROM ledger WHERE {condition}", [(*row, idle) for row in found]).rowcount


def _usage(row: Row, now: float) -> Usage:
    name, unit, window, state = row
    level, _, key = name.partition(":")
    found = _window(window, state)
    return Usage(level=level, key=key, unit=unit, window=window, used=found.used(_micro(now)), state=found, now=now)


def _window(seconds: int, state: bytes) -> Window:
    return Window.unpack(seconds * MICROSECONDS, state)


def _micro(seconds: float) -> int:
    return int(seconds * MICROSECONDS)
