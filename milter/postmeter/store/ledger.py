"""The ledger: how much of each limit is used, one row a key, decided and charged inside a transaction.

Knows nothing of rules, replies or mail: whoever asks brings finished charges. Time comes in as seconds since the epoch.
The cost of a charge does not depend on how many keys there are, nor on how much was sent before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from sqlite3 import Connection

from postmeter.events import Warned
from postmeter.store import warnings
from postmeter.store.accounts import DONE, Charge, Overdrawn, Settled, UnreadableError, account_name
from postmeter.store.database import Database, Row
from postmeter.store.folio import MICROSECONDS, Folio, Slot
from postmeter.store.window import Window

_DAY = 86_400 * MICROSECONDS
_SLICE = 1000  # rows read at once; a longer read would keep the write-ahead log from being copied back

_SELECT = "SELECT name, state, id, idle FROM folios WHERE name = ?"
_SOME = "SELECT name, state, id, idle FROM folios WHERE name IN ({})"
_SLICES = "SELECT name, state FROM folios WHERE name > ? AND name < ? ORDER BY name LIMIT ?"
_INSERT = "INSERT INTO folios (name, state, idle) VALUES (?, ?, ?)"
_UPDATE = "UPDATE folios SET state = ? WHERE id = ?"  # `idle` has an index, and changes once a day
_UPDATE_IDLE = "UPDATE folios SET state = ?, idle = ? WHERE id = ?"


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


@dataclass(slots=True)
class _Look:
    """A charge beside its account as it stands before: what is `used` of the settled window."""

    charge: Charge
    name: str
    slot: Slot
    used: int


class Ledger:
    """The folios that some charges need; `save` writes those that changed. Lives in one transaction.

    `unreadable` are those of which nobody knows what they say: they count as empty, and stay as they are.
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._found: dict[str, tuple[int, int]] = {}
        self._folios: dict[str, Folio] = {}
        self._changed: dict[str, int] = {}
        self.unreadable: set[str] = set()
        for name, state, row, idle in rows:
            self._found[name] = row, idle
            try:
                self._folios[name] = Folio.unpack(state)
            except ValueError:
                self.unreadable.add(name)

    def dark(self, charges: Iterable[Charge]) -> UnreadableError | None:
        """Why nobody can tell whether some enforced limit leaves room."""
        names = {charge.name for charge in charges if charge.enforce and charge.amount} & self.unreadable
        return UnreadableError(names) if names else None

    def overdrawn(self, charges: Sequence[Charge], now: float) -> Overdrawn | None:
        """The enforced charge without room that frees last."""
        micro = _micro(now)
        looks = self._looks((charge for charge in charges if charge.enforce), micro)
        short = _short(looks)
        return _last(short, micro)[1] if short else None

    def ahead(self, charges: Sequence[Charge], now: float) -> bool:
        """Whether the clock was stepped back behind some account: only a transaction can put that right."""
        micro = _micro(now)
        return any(self._slot(charge.name, charge).ahead(micro) for charge in charges)

    def used(self, charge: Charge, now: float) -> int:
        """Of the account that it would be put on."""
        return self._slot(charge.name, charge).settle(_micro(now))

    def told(self, charge: Charge, now: float) -> bool:
        """Whether somebody was told already of what a refusal of this charge says."""
        slot, micro = self._slot(charge.name, charge), _micro(now)
        return all(slot.knows(percent, micro) for percent in warnings.refused(charge))

    def settle(self, charges: Sequence[Charge], now: float, *, login: str = "") -> tuple[Settled, list[Warned]]:
        """Put every amount on its account, or none when an enforced one has no room; and what is to be told.

        Two limits on one account charge it once.
        """
        micro = _micro(now)
        looks = self._looks(charges, micro)
        short = _short(looks)
        if refusing := [look for look in short if look.charge.enforce]:
            look, over = _last(refusing, micro)
            percents = warnings.refused(look.charge)
            return Settled(refused=over), self._warn(look, percents, used=look.used, login=login, now=now)
        outcome = Settled(observed=_last(short, micro)[1]) if short else DONE
        told: list[Warned] = []
        for look in looks:
            if look.charge.warn and (percents := warnings.reached(look.charge, look.used)):
                told += self._warn(look, percents, used=look.used + look.charge.amount, login=login, now=now)
        for look in {id(look.slot): look for look in looks}.values():
            look.slot.charge(micro, look.charge.amount)
            self._changed[look.name] = micro
        return outcome, told

    def refund(self, charges: Iterable[Charge], at: float, now: float) -> None:
        """Take back what was charged at that time; of an account that has forgotten it, nothing."""
        micro = _micro(now)
        for charge in charges:
            slot = self._slot(charge.name, charge)
            slot.window = slot.window.given_back(micro, _micro(at), charge.amount)
            self._changed[charge.name] = micro

    def save(self, link: Connection) -> None:
        """Once: what was not there before is inserted."""
        for name, micro in self._changed.items():
            if name in self.unreadable:
                continue
            ends, state = self._folios[name].pack(micro)
            idle = ends // _DAY + 2  # the day since the epoch on which it will have been empty for a day
            row, before = self._found.get(name, (0, 0))
            if not row:
                link.execute(_INSERT, (name, state, idle))
            elif before == idle:
                link.execute(_UPDATE, (state, row))
            else:
                link.execute(_UPDATE_IDLE, (state, idle, row))

    def _looks(self, charges: Iterable[Charge], micro: int) -> list[_Look]:
        looks = []
        for charge in charges:
            if charge.amount:
                name = charge.name
                slot = self._slot(name, charge)
                if slot.ahead(micro):
                    self._changed[name] = micro
                looks.append(_Look(charge, name, slot, slot.settle(micro)))
        return looks

    def _slot(self, name: str, charge: Charge) -> Slot:
        folio = self._folios.get(name)
        if folio is None:
            folio = self._folios[name] = Folio()
        return folio.slot(charge.unit, charge.window)

    def _warn(self, look: _Look, percents: Iterable[int], *, used: int, login: str, now: float) -> list[Warned]:
        micro = _micro(now)
        due = [percent for percent in percents if look.slot.warn(percent, micro)]
        if due:
            self._changed[look.name] = micro
        return [warnings.warned(look.charge, percent=percent, used=used, login=login, now=now) for percent in due]


def load(link: Connection, charges: Iterable[Charge]) -> Ledger:
    """For a transaction on that connection."""
    found = (link.execute(_SELECT, (name,)).fetchone() for name in {charge.name for charge in charges})
    return Ledger(row for row in found if row)


def peek(database: Database, charges: Sequence[Charge]) -> Ledger:
    """For a look without a transaction; UnreadableError when nobody can tell whether there is room."""
    names = list({charge.name for charge in charges})
    found = Ledger(database.query(_SOME.format(",".join("?" * len(names))), names))
    if found.unreadable and (dark := found.dark(charges)):
        raise dark
    return found


def usage(database: Database, now: float, *, level: str | None = None, key: str | None = None) -> list[Usage]:
    """What every key, or those of a level, or one of a level, has used; accounts that are empty are left out."""
    if key is None:
        return list(each_usage(database, now, level=level))
    rows = database.query(_SELECT, (account_name(level or "sender", key),))
    return [usage for row in rows for usage in _usages(row, now)]


def each_usage(database: Database, now: float, *, level: str | None = None) -> Iterator[Usage]:
    """As `usage`, key by key in slices: for a million of them, in little memory and without a long read."""
    begin, end = (f"{level}:", f"{level};") if level else ("", "\U0010ffff")
    while rows := database.query(_SLICES, (begin, end, _SLICE)):
        for row in rows:
            yield from _usages(row, now)
        begin = rows[-1][0]


def reset(database: Database, level: str, key: str) -> int:
    """Empty all accounts of a key; returns how many there were, 1 for what cannot be read."""
    name = (account_name(level, key),)
    with database.transaction() as link:
        count = sum(_count(state) for _, state, _, _ in link.execute(_SELECT, name))
        link.execute("DELETE FROM folios WHERE name = ?", name)
        return count


def _count(state: bytes) -> int:
    try:
        return len(Folio.unpack(state).slots)
    except ValueError:
        return 1


def damaged(database: Database, name: str | None = None) -> Iterator[str]:
    """The names of all accounts, or whether that one is among them, of which nobody knows what they say."""
    begin = ""
    if name is not None:
        yield from Ledger(database.query(_SELECT, (name,))).unreadable
        return
    while rows := database.query(_SLICES, (begin, "\U0010ffff", _SLICE)):
        for name, state in rows:
            try:
                Folio.unpack(state)
            except ValueError:
                yield name
        begin = rows[-1][0]


def sweep(database: Database, now: float, *, most: int = 500) -> int:
    """Forget keys that have been empty for a day, `most` at a time; client addresses would pile up.

    They are looked for before the transaction, which is short and looks again. Returns how many went.
    """
    today = _micro(now) // _DAY
    found = database.query("SELECT name FROM folios WHERE idle <= ? LIMIT ?", (today, most))
    if not found:
        return 0
    with database.transaction() as link:
        sql = "DELETE FROM folios WHERE name = ? AND idle <= ?"
        return link.executemany(sql, [(name, today) for (name,) in found]).rowcount


def _short(looks: Iterable[_Look]) -> list[_Look]:
    return [look for look in looks if look.used + look.charge.amount > look.charge.limit]


def _last(looks: Sequence[_Look], micro: int) -> tuple[_Look, Overdrawn]:
    """Of charges without room the one that frees last; what never fits comes first."""
    return max(((look, _overdrawn(look, micro)) for look in looks), key=lambda found: _room_at(found[1]))


def _overdrawn(look: _Look, micro: int) -> Overdrawn:
    at = look.slot.window.room_at(micro, amount=look.charge.amount, limit=look.charge.limit)
    return Overdrawn(charge=look.charge, used=look.used, room_at=None if at is None else at / MICROSECONDS)


def _room_at(over: Overdrawn) -> float:
    return inf if over.room_at is None else over.room_at


def _usages(row: Row, now: float) -> list[Usage]:
    """Nothing for what cannot be read: `damaged` tells of that."""
    level, _, key = row[0].partition(":")
    found: list[Usage] = []
    try:
        slots = Folio.unpack(row[1]).slots
    except ValueError:
        return found
    for (unit, window), slot in sorted(slots.items()):
        used = slot.window.used(_micro(now))
        if used:
            state = slot.window
            found.append(Usage(level=level, key=key, unit=unit, window=window, used=used, state=state, now=now))
    return found


def _micro(seconds: float) -> int:
    return int(seconds * MICROSECONDS)
