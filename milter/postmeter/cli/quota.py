"""`postmeter quota`: what senders have used of their limits, and a way to give one a fresh start.

Reads and writes the ledger beside the running daemons; a look needs no more than leave to read the journal.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from postmeter.cli.command import FOUND_A_PROBLEM, OK, Command
from postmeter.config.load import load
from postmeter.config.schema import Config, Limit
from postmeter.runtime.logs import one_line
from postmeter.store import database, ledger
from postmeter.store.database import StoreError
from postmeter.store.ledger import Usage
from postmeter.store.settle import Settler
from postmeter.submission.quota import Quotas
from postmeter.submission.refusal import SPANS, number

_BAR = 20  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One account: `limit` is None where the configuration no longer has one for it."""

    sender: str
    unit: str
    window: int
    used: int
    limit: Limit | None
    room_at: float | None

    @property
    def share(self) -> float:
        return self.used / max(self.limit.count, 1) if self.limit else 0.0

    def as_json(self) -> dict[str, object]:
        return {
            "sender": self.sender,
            "unit": self.unit,
            "window": self.window,
            "used": self.used,
            "limit": self.limit.count if self.limit else None,
            "text": self.limit.text if self.limit else None,
            "room_at": _iso(self.room_at),
        }


def run(args: Namespace) -> int:
    config = load(args.config)
    try:
        return int(args.do(args, config))
    except StoreError as error:
        print(f"postmeter: {error}", file=sys.stderr)
        return FOUND_A_PROBLEM


def show(args: Namespace, config: Config) -> int:
    """Busiest first; a login that was asked for by name is shown with all its limits, used or not."""
    now = time.time()
    name = args.login.lower() if args.login else None
    book = database.open(config.journal.path, readonly=True)
    usages = ledger.usage(book, now, level="sender", key=name)
    book.close()
    quotas = Quotas(config.quota, Settler(config.journal.path))
    lines = _lines(usages, quotas, name=name, now=now)
    if args.json:
        print(json.dumps([line.as_json() for line in lines], indent=2))
    else:
        _print(lines, now)
    return OK


def reset(args: Namespace, config: Config) -> int:
    book = database.open(config.journal.path, sync=config.journal.sync)
    count = ledger.reset(book, "sender", args.login.lower())
    book.close()
    if not count:
        print(f"{args.login}: nothing was charged", file=sys.stderr)
        return FOUND_A_PROBLEM
    print(f"{args.login}: {count} {'account' if count == 1 else 'accounts'} emptied")
    return OK


def _lines(usages: Iterable[Usage], quotas: Quotas, *, name: str | None, now: float) -> list[Line]:
    lines = [_line(usage, quotas) for usage in usages]
    shown = {(line.unit, line.window) for line in lines}
    unused = [limit for limit in quotas.limits_of("sender", name) if limit.window] if name else []
    lines += [
        Line(sender=name or "", unit=limit.unit, window=limit.window, used=0, limit=limit, room_at=now)
        for limit in unused
        if (limit.unit, limit.window) not in shown
    ]
    return sorted(lines, key=lambda line: (-line.share, line.sender, line.window, line.unit))


def _line(usage: Usage, quotas: Quotas) -> Line:
    known = quotas.limits_of("sender", usage.key)
    limit = next((limit for limit in known if (limit.unit, limit.window) == (usage.unit, usage.window)), None)
    at = usage.room_at(limit.count) if limit else usage.now
    return Line(sender=usage.key, unit=usage.unit, window=usage.window, used=usage.used, limit=limit, room_at=at)


def _print(lines: Sequence[Line], now: float) -> None:
    if not lines:
        print("nobody has used any of their limits")
        return
    rows = [_cells(line, now, bars=sys.stdout.isatty()) for line in lines]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cells(line: Line, now: float, *, bars: bool) -> list[str]:
    of = f"{number(line.limit.count, line.unit)}" if line.limit else "no limit"
    cells = [one_line(line.sender), f"{line.unit}/{SPANS[line.window]}", f"{number(line.used, line.unit)} of {of}"]
    filled = min(_BAR, int(line.share * _BAR))
    cells.append("█" * filled + "░" * (_BAR - filled) if bars else f"{line.share:.0%}")
    return [*cells, _room(line, now)]


def _room(line: Line, now: float) -> str:
    if line.room_at is None:
        return "never room"
    return "" if line.room_at <= now else f"room again at {_iso(line.room_at)}"


def _iso(when: float | None) -> str | None:
    return None if when is None else datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _arguments(parser: ArgumentParser) -> None:
    words = parser.add_subparsers(metavar="WHAT", required=True)
    shows = words.add_parser("show", help="used, limit and when there is room again, busiest first", allow_abbrev=False)
    shows.add_argument("login", metavar="LOGIN", nargs="?", help="a login, or whatever a sender is counted as")
    shows.add_argument("--json", action="store_true", help="for programs")
    shows.set_defaults(do=show)
    resets = words.add_parser("reset", help="empty all accounts of a sender", allow_abbrev=False)
    resets.add_argument("login", metavar="LOGIN", help="a login, or whatever a sender is counted as")
    resets.set_defaults(do=reset)


COMMANDS = (
    Command(
        "quota",
        "what senders have used of their limits",
        "postmeter quota show alice@example.com",
        _arguments,
        run,
    ),
)
