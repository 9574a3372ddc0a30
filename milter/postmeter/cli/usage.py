"""`postmeter quota show`: what everybody has used of which limit, and who is frozen, braked, held or has other limits.

Reads the store of the quotas beside the running daemons; with SQLite a look needs no more than leave to read the
journal. Knows nothing of how limits are decided.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from math import ceil

from postmeter.cli.command import FOUND_A_PROBLEM, OK
from postmeter.config.schema import Config, Limit
from postmeter.mail import address
from postmeter.runtime.logs import one_line
from postmeter.store import accounting, database, held, ledger, orders
from postmeter.store.accounts import StoreDownError, account_name, unreadable
from postmeter.store.database import Database
from postmeter.store.ledger import Usage
from postmeter.store.orders import Order
from postmeter.store.settle import Settler
from postmeter.submission.quota import Quotas
from postmeter.submission.refusal import SPANS, number

LEVELS = ("sender", "domain", "network", "total")

_WIDEST = 64  # letters of a column: an address of usual length
_BAR = 20  # characters
_SCREEN = 50  # accounts shown on a terminal, unless --all
_NAMELESS = {"domain": "mail without a From domain of its own", "total": "all mail"}
_ORDERS = {"freeze": "frozen", "brake": "stopped by the brake", "limits": "has other limits by order"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One account: `limit` is None where the configuration no longer has one for it."""

    level: str
    key: str
    unit: str
    window: int
    used: int
    limit: Limit | None
    room_at: float | None

    @property
    def share(self) -> float:
        return self.used / max(self.limit.count, 1) if self.limit else 0.0

    @property
    def name(self) -> str:
        return self.key if self.level == "sender" else f"{self.level} {self.key}" if self.key else _NAMELESS[self.level]

    def as_json(self) -> dict[str, object]:
        return {
            "level": self.level,
            "key": self.key,
            "unit": self.unit,
            "window": self.window,
            "used": self.used,
            "limit": self.limit.count if self.limit else None,
            "text": self.limit.text if self.limit else None,
            "room_at": iso(self.room_at),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What is held of a sender, for `quota` or `brake`."""

    sender: str
    reason: str
    messages: int
    since: float

    def as_json(self) -> dict[str, object]:
        since = iso(self.since)
        return {"sender": self.sender, "reason": self.reason, "messages": self.messages, "since": since}


def run(args: Namespace, config: Config) -> int:
    """Busiest first; a login that was asked for by name is shown with all its limits, used or not.

    Orders and held mail are this host's own: they are shown when a Redis is gone, too.
    """
    now = time.time()
    name = args.login.lower() if args.login else None
    book = database.open(config.journal.path, readonly=True)
    ordered = [order for order in orders.read(book, now) if name in (None, order.login)]
    waiting = _waiting(book, name)
    lines = _sorted(_lines(config, book, ordered, name=name, now=now))
    dark = [] if config.quota.store else _unreadable(book, name)
    book.close()
    if args.json:
        told = {
            "accounts": None if lines is None else [line.as_json() for line in lines],
            "orders": [_order_json(order) for order in ordered],
            "held": [one.as_json() for one in waiting],
        }
        print(json.dumps(told, indent=2))
    else:
        if lines is not None:
            terminal = sys.stdout.isatty()
            _print(lines, now, bars=terminal, most=_SCREEN if terminal and not args.all else len(lines))
        for text in (*map(_ordered, ordered), *map(_held, waiting)):
            print(text)
    for account in dark:
        print(f"postmeter quota: {unreadable(account)}", file=sys.stderr)
    return FOUND_A_PROBLEM if lines is None or dark else OK


def _unreadable(book: Database, name: str | None) -> list[str]:
    """Accounts that cannot be read; of one who is asked for by name, those that may stop it."""
    if name is None:
        return list(ledger.damaged(book))
    names = [account_name(level, key) for level, key in (*_asked(name), ("brake", name))]
    return [found for one in names for found in ledger.damaged(book, one)]


def gone(error: StoreDownError) -> str:
    return f"postmeter quota: the Redis of the quotas: {error}"


def _sorted(lines: Iterable[Line]) -> list[Line] | None:
    """None when the store does not answer, which is said."""
    try:
        return sorted(lines, key=lambda line: (-line.share, line.level, line.key, line.window, line.unit))
    except StoreDownError as error:
        print(gone(error), file=sys.stderr)
        return None


def _lines(config: Config, book: Database, ordered: Iterable[Order], *, name: str | None, now: float) -> Iterator[Line]:
    limits = {order.login: order.value for order in ordered if order.kind == "limits"}
    quotas = Quotas(config.quota, Settler(config.journal.path), override=limits.get)
    remote = accounting.redis(config.quota)
    if name is None:
        found = remote.each_usage(now) if remote else ledger.each_usage(book, now)
        yield from (_line(usage, quotas, now) for usage in found if usage.level in LEVELS)
        return
    for level, key in _asked(name):
        usages = remote.usage(now, level=level, key=key) if remote else ledger.usage(book, now, level=level, key=key)
        lines = [_line(usage, quotas, now) for usage in usages]
        yield from lines
        if lines or level != "network":
            yield from _unused(quotas, level, key, lines, now)


def _asked(name: str) -> list[tuple[str, str]]:
    """The accounts of a name: a login's with those of its domain and of all, or a domain's, or a network's."""
    if name in ("", "total"):
        return [("total", "")]
    if "/" in name:
        return [("network", name), ("sender", name)]
    if "@" in name:
        return [("sender", name), ("domain", address.domain(name)), ("total", "")]
    return [("sender", name), *([("domain", name)] if "." in name and not _is_address(name) else [])]


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _unused(quotas: Quotas, level: str, key: str, lines: Iterable[Line], now: float) -> Iterator[Line]:
    shown = {(line.unit, line.window) for line in lines}
    for limit in quotas.limits_of(level, key):
        if limit.window and (limit.unit, limit.window) not in shown:
            yield Line(level=level, key=key, unit=limit.unit, window=limit.window, used=0, limit=limit, room_at=now)


def _line(usage: Usage, quotas: Quotas, now: float) -> Line:
    known = quotas.limits_of(usage.level, usage.key)
    limit = next((limit for limit in known if (limit.unit, limit.window) == (usage.unit, usage.window)), None)
    return Line(
        level=usage.level,
        key=usage.key,
        unit=usage.unit,
        window=usage.window,
        used=usage.used,
        limit=limit,
        room_at=_room_at(usage, limit, now),
    )


def _room_at(usage: Usage, limit: Limit | None, now: float) -> float | None:
    """`now` where there is room, whatever clock the store goes by; else in whole seconds, as times are told: nobody
    shall come too early."""
    when = usage.room_at(limit.count) if limit else usage.now
    return when if when is None else now if when <= usage.now else ceil(when)


def _waiting(book: Database, name: str | None) -> list[Waiting]:
    rows = held.waiting(book, sender=name)
    counts = Counter((row.sender, row.reason) for row in rows)
    oldest = {(row.sender, row.reason): row.time for row in reversed(rows)}
    return [
        Waiting(sender=sender, reason=reason, messages=messages, since=oldest[sender, reason])
        for (sender, reason), messages in counts.most_common()
    ]


def _print(lines: Sequence[Line], now: float, *, bars: bool, most: int) -> None:
    if not lines:
        print("nobody has used any of their limits")
        return
    rows = [_cells(line, now, bars=bars) for line in lines[:most]]
    widths = [min(max(map(len, column)), _WIDEST) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if len(lines) > most:
        print(f"and {len(lines) - most} less busy; --all shows them")


def _cells(line: Line, now: float, *, bars: bool) -> list[str]:
    of = f"{number(line.limit.count, line.unit)}" if line.limit else "no limit"
    cells = [one_line(line.name), f"{line.unit}/{SPANS[line.window]}", f"{number(line.used, line.unit)} of {of}"]
    filled = min(_BAR, int(line.share * _BAR))
    told = line.share if line.share >= 1 else min(line.share, 0.99)  # 100% is where nothing fits any more
    cells.append("█" * filled + "░" * (_BAR - filled) if bars else f"{told:.0%}")
    return [*cells, _room(line, now)]


def _room(line: Line, now: float) -> str:
    if line.room_at is None:
        return "never room"
    return "" if line.room_at <= now else f"room again at {iso(line.room_at)}"


def _ordered(order: Order) -> str:
    value = f": {one_line(order.value)}" if order.value else ""
    until = f" until {iso(order.until)}" if order.until is not None else ""
    return f"{one_line(order.login)}  {_ORDERS[order.kind]}{until}, since {iso(order.since)}{value}"


def _held(waiting: Waiting) -> str:
    messages = f"{waiting.messages} {'message' if waiting.messages == 1 else 'messages'}"
    why = "until there is room" if waiting.reason == "quota" else "by the brake, for a person to release or delete"
    return f"{one_line(waiting.sender)}  {messages} held {why}, the oldest since {iso(waiting.since)}"


def _order_json(order: Order) -> dict[str, object]:
    since, until = iso(order.since), iso(order.until)
    return {"kind": order.kind, "login": order.login, "value": order.value, "since": since, "until": until}


def iso(when: float | None) -> str | None:
    return None if when is None else datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def arguments(parser: ArgumentParser) -> None:
    text = "a login, or whatever a sender is counted as; a From domain, a client network, or total"
    parser.add_argument("login", metavar="LOGIN", nargs="?", help=text)
    parser.add_argument("--all", action="store_true", help=f"on a terminal too, more than the {_SCREEN} busiest")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(do=run)
