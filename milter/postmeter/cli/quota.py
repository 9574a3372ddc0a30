"""`postmeter quota`: what senders have used of their limits; other limits for a time, a fresh start, held mail let go.

Works beside the running daemons: on the store of the quotas, and by orders that the milter's workers look up each
second.
"""

from __future__ import annotations

import re
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from datetime import datetime
from math import isfinite

from postmeter.cli import release, slip, usage
from postmeter.cli.command import FOUND_A_PROBLEM, OK, USAGE, Command, failed, given, pattern
from postmeter.config import amounts
from postmeter.config.load import load
from postmeter.config.problem import MistakeError, quoted
from postmeter.config.schema import Config
from postmeter.mail.address import ascii_domain
from postmeter.store import accounting, database, ledger, orders
from postmeter.store.accounts import StoreDownError
from postmeter.store.database import StoreError
from postmeter.store.orders import Order
from postmeter.submission.network import of_address

_ALICE = "alice@example.com"


def run(args: Namespace) -> int:
    config = load(args.config)
    try:
        return int(args.do(args, config))
    except StoreDownError as error:
        print(usage.gone(error), file=sys.stderr)
        return FOUND_A_PROBLEM
    except (StoreError, OSError) as error:
        return failed("quota", error)
    except MistakeError as error:
        print(f"postmeter quota: {error}", file=sys.stderr)
        return USAGE


def put(args: Namespace, config: Config) -> int:
    """Limits are checked as those of the configuration are, and in the same words."""
    if args.clear == bool(args.limits) or (args.clear and args.until):
        raise MistakeError("either limits or --clear", "write them like 500 recipients/day, or unlimited")
    if pattern(args.login) and not args.clear:
        raise MistakeError(f"{quoted(args.login)} is no login", "name one at a time, or write a rule for them")
    now, login = time.time(), args.login.lower()
    text = worded(args.limits)
    if not args.clear:
        amounts.limits(text)
    until = moment(args.until, now) if args.until else None
    book = database.open(config.journal.path, sync=config.journal.sync)
    if args.clear:
        lifted = orders.lift(book, "limits", login, now)
    else:
        orders.put(book, Order(kind="limits", login=login, value=text, since=now, until=until))
        slip.tell("quota", args.login, book)
    book.close()
    if args.clear and not lifted:
        print(f"{args.login}: had no other limits", file=sys.stderr)
        return FOUND_A_PROBLEM
    end = "until they are cleared" if until is None else f"until {usage.iso(until)}"
    done = "has the limits of the configuration again" if args.clear else f"{text}, {end}"
    force = "but mode is observe: nothing is refused" if config.mode == "observe" else "in force within a second"
    print(f"{args.login}: {done}; {force}")
    return OK


def reset(args: Namespace, config: Config) -> int:
    """With Redis it comes back when no worker remembers any more that there was no room."""
    remote = accounting.redis(config.quota)
    key = _key(args.level, args.login, config.quota.networks.prefix)
    if remote is not None:
        count = remote.reset(args.level, key)
        remote.close()
        time.sleep(_remembered())
    else:
        book = database.open(config.journal.path, sync=config.journal.sync)
        count = ledger.reset(book, args.level, key)
        book.close()
    if not count:
        print(f"{args.login}: nothing was charged", file=sys.stderr)
        return FOUND_A_PROBLEM
    print(f"{args.login}: {count} {'account' if count == 1 else 'accounts'} emptied")
    return OK


def _key(level: str, text: str, prefix: Sequence[int]) -> str:
    """What accounts of that level are kept by, of a name as people have it."""
    if level == "total":
        return ""
    if level == "domain":
        return ascii_domain(text)
    return (of_address(text, prefix) if level == "network" else "") or text.lower()


def _remembered() -> float:
    """Asked for by those who use Redis only: its library may be missing elsewhere."""
    from postmeter.store.redis_settle import REMEMBERED

    return REMEMBERED


def worded(words: Sequence[str]) -> str:
    """Limits as they were typed, whether a shell's quotes held them together or not, with commas between them."""
    parts = re.sub(r"\s*/\s*", "/", " ".join(words)).replace(",", " ").split()
    found: list[str] = []
    for part in parts:
        if found and "/" not in found[-1]:
            found[-1] += f" {part}"
        else:
            found.append(part)
    return ", ".join(found)


def moment(text: str, now: float) -> float:
    """A date, a date and time, or how long from now; in this host's time zone where the text has none."""
    try:
        when = now + amounts.duration(text)
    except MistakeError:
        try:
            when = datetime.fromisoformat(text).astimezone().timestamp()
        except (ValueError, OverflowError):
            fix = "write it like 7d, 12h, 2026-12-24 or 2026-12-24T18:00"
            raise MistakeError(f"{quoted(text)} is neither a time nor how long", fix) from None
    if when <= now or not isfinite(when):
        raise MistakeError(f"{quoted(text)} is over already", "name a time to come")
    return when


def _arguments(parser: ArgumentParser) -> None:
    words = parser.add_subparsers(metavar="WHAT", required=True)
    for word, text, example, fill in _WORDS:
        told = f"example: postmeter quota {word} {example}"
        what = f"{text[0].upper()}{text[1:]}."
        fill(words.add_parser(word, help=text, description=what, epilog=told, allow_abbrev=False))


def _set_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("login", metavar="LOGIN", type=given, help="a login, or whatever a sender is counted as")
    text = "in place of those of the configuration: 500 recipients/day, 1G/day; or unlimited"
    parser.add_argument("limits", metavar="LIMITS", nargs="*", help=text)
    until = "7d, 2026-12-24 or 2026-12-24T18:00; without it, for good"
    parser.add_argument("--until", metavar="WHEN", type=given, help=until)
    parser.add_argument("--clear", action="store_true", help="back to the limits of the configuration")
    parser.set_defaults(do=put)


def _reset_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("login", metavar="LOGIN", type=given, help="a login, or whatever a sender is counted as")
    text = "LOGIN is a From domain, a network or an address in it, anything for total; brake: what it counts of a login"
    parser.add_argument("--level", choices=(*usage.LEVELS, "brake"), default="sender", help=text)
    parser.set_defaults(do=reset)


_WORDS = (
    ("show", "used, limit and when there is room again, busiest first", _ALICE, usage.arguments),
    ("set", "give a login other limits for a time", f"{_ALICE} 2000 recipients/day --until 7d", _set_arguments),
    ("reset", "empty all accounts of a sender", _ALICE, _reset_arguments),
    ("release", "let held mail go, or end the brake on a login", _ALICE, release.arguments),
)

COMMANDS = (
    Command(
        "quota",
        "what senders have used of their limits, other limits for a time, held mail",
        f"postmeter quota set {_ALICE} 2000 recipients/day --until 7d",
        _arguments,
        run,
    ),
)
