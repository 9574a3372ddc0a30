"""`postmeter suppress`: who is not written to again, and why; and to add, to undo, to take over and to hand on.

Writes into the journal's database, where the milter's workers look for each message: what is changed here holds for the
next one. Decides nothing about mail.
"""

from __future__ import annotations

import json
import re
import sys
import time
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

from postmeter.cli.command import FOUND_A_PROBLEM, OK, USAGE, Command, failed, given, sentence

if TYPE_CHECKING:
    from postmeter.config.schema import Config
    from postmeter.store.database import Database
    from postmeter.store.suppression import Choice, Suppression

_BATCH = 500  # rows of one transaction: mail waits for none of them
_PAGE = 1000  # lines whose columns are of one width
_TOLD = 10  # lines of a file that are told one by one
_HEADING = ("ADDRESS", "REASON", "TIMES", "SINCE", "UNTIL", "SCOPE", "PROVIDER")
_REASONS = ("manual", "bounced", "complained", "unsubscribed")


class _MistakeError(Exception):
    """Wrong usage; its text says what to do."""


def run(args: Namespace) -> int:
    from postmeter.config.load import load
    from postmeter.store import database

    config = load(args.config)
    try:
        opened = database.open(config.journal.path, sync=config.journal.sync, readonly=args.word in ("list", "export"))
        done: int = args.do(args, config, opened)
        opened.close()
    except _MistakeError as error:
        print(f"postmeter suppress: {error}", file=sys.stderr)
        return USAGE
    except (database.StoreError, OSError) as error:
        return failed("suppress", error)
    return done


def _list(args: Namespace, config: Config, opened: Database) -> int:
    found = _standing(opened, args)
    if args.json:
        for one in found:
            print(json.dumps(_as_json(one)))
        return OK
    heading: list[tuple[str, ...]] = [_HEADING]
    while page := list(islice(found, _PAGE)):
        print("\n".join(_table(page, heading)))
        heading = []
    if config.suppression.observe:
        print("suppression.observe is true: all of them are written to all the same", file=sys.stderr)
    return OK


def _add(args: Namespace, config: Config, opened: Database) -> int:
    from postmeter.cli.suppresscsv import scope_problem
    from postmeter.mail.scope import as_mail_has_it
    from postmeter.store import suppression
    from postmeter.store.suppression import Suppression

    now = time.time()
    scope = args.scope or ("" if args.reason == "unsubscribed" else "everywhere")
    if not scope:
        raise _MistakeError("an unsubscribe is for one list or sender: add --scope")
    if problem := scope_problem(scope):
        raise _MistakeError(problem)
    scope, until = as_mail_has_it(scope), _end(args, config, now)(args.reason)
    made = [
        Suppression(_address(address), scope, args.reason, now, until, suppression.line(args.evidence))
        for address in args.addresses
    ]
    with opened.transaction() as link:
        suppression.replace(link, made)
    for one in made:
        print(f"{one.address}: suppressed {_where(one.scope)}{_until(one.until)}")
    return OK


def _remove(args: Namespace, config: Config, opened: Database) -> int:
    from postmeter.store import suppression

    choice = _choice(args)
    if choice == suppression.Choice():
        raise _MistakeError("name addresses, or say which by --since, --provider, --reason or --scope")
    with opened.transaction() as link:
        gone = suppression.remove(link, choice)
    if not gone:
        print("nobody was suppressed so", file=sys.stderr)
        return FOUND_A_PROBLEM
    print(f"{gone} {'suppression' if gone == 1 else 'suppressions'} removed")
    return OK


def _import(args: Namespace, config: Config, opened: Database) -> int:
    from postmeter.cli import suppresscsv
    from postmeter.store import suppression

    if args.scope and (problem := suppresscsv.scope_problem(args.scope)):
        raise _MistakeError(problem)
    now, left = time.time(), 0
    defaults = suppresscsv.Defaults(args.scope, args.reason, now, _end(args, config, now))

    def complain(number: int, why: str) -> None:
        nonlocal left
        left += 1
        if left <= _TOLD:
            print(f"{args.file}:{number}: left out: {suppression.line(why)}", file=sys.stderr)

    with open(0 if args.file == "-" else args.file, newline="", encoding="utf-8", errors="replace") as file:
        try:
            taken = _take(opened, suppresscsv.read(file, defaults, complain))
        except suppresscsv.UnreadableError as error:
            print(f"{args.file}: {error}", file=sys.stderr)
            return FOUND_A_PROBLEM
    more = f"; {left} lines left out" if left else ""
    print(f"{taken} {'suppression' if taken == 1 else 'suppressions'} taken over{more}")
    return FOUND_A_PROBLEM if left else OK


def _take(opened: Database, found: Iterator[Suppression]) -> int:
    """In small transactions: mail is not to wait for a long list. To begin again does no harm."""
    from postmeter.store import suppression

    taken = 0
    while batch := list(islice(found, _BATCH)):
        with opened.transaction() as link:
            suppression.lengthen(link, batch)
        taken += len(batch)
    return taken


def _export(args: Namespace, config: Config, opened: Database) -> int:
    from postmeter.cli import suppresscsv

    if args.file == "-":
        suppresscsv.write(sys.stdout, _standing(opened, args))
        return OK
    with open(args.file, "w", newline="", encoding="utf-8") as file:
        suppresscsv.write(file, _standing(opened, args))
    return OK


def _standing(opened: Database, args: Namespace) -> Iterator[Suppression]:
    """What has ended is shown on request only."""
    from postmeter.store import suppression

    now = time.time()
    return (one for one in suppression.select(opened, _choice(args)) if args.all or one.stands(now))


def _choice(args: Namespace) -> Choice:
    from postmeter.mail.scope import as_mail_has_it
    from postmeter.store.suppression import Choice

    return Choice(
        addresses=tuple(args.addresses),
        scope=as_mail_has_it(args.scope),
        reason=args.reason,
        provider=args.provider,
        since=_ago(args.since, time.time()) if args.since else None,
    )


def _ago(text: str, now: float) -> float:
    """How long ago, or a date and time; in this host's time zone where it has none."""
    from postmeter.config import amounts
    from postmeter.config.problem import MistakeError

    try:
        return now - amounts.duration(text)
    except MistakeError:
        try:
            return datetime.fromisoformat(text).astimezone().timestamp()
        except (ValueError, OverflowError):
            raise _MistakeError(f"--since {text}: write it like 7d, 12h, 2026-12-24 or 2026-12-24T18:00") from None


def _end(args: Namespace, config: Config, now: float) -> _End:
    return _End(args.for_, config, now)


class _End:
    """When one ends, by its reason: as asked for, or as what is learned would."""

    def __init__(self, asked: str, config: Config, now: float) -> None:
        self._now, self._asked = now, self._lasts(asked) if asked else None
        settings = config.suppression
        self._by_reason = {"bounced": settings.for_, "complained": settings.complaint}

    def __call__(self, reason: str) -> float | None:
        lasts = self._asked if self._asked is not None else self._by_reason.get(reason, 0.0)
        return self._now + lasts if lasts else None

    def _lasts(self, text: str) -> float:
        from postmeter.config import amounts
        from postmeter.config.problem import MistakeError

        if text == "ever":
            return 0.0
        try:
            lasts = amounts.duration(text)
        except MistakeError as error:
            raise _MistakeError(f"--for {text}: {error.what}; write it like 30d, or ever") from None
        if not lasts:
            raise _MistakeError(f"--for {text}: it would be over at once; write it like 30d, or ever")
        return lasts


def _address(text: str) -> str:
    if not re.fullmatch(r"[^\s@<>\x00-\x1f\x7f]{1,200}@[^\s@<>\x00-\x1f\x7f]{1,255}", text):
        raise _MistakeError(f"{text!r} is no address")
    return text


def _table(page: Sequence[Suppression], heading: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """A line for each, in columns; what was said of it below."""
    cells = [*heading, *(_cells(one) for one in page)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    said = [*("" for _ in heading), *(one.evidence for one in page)]
    for row, evidence in zip(cells, said, strict=True):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        if evidence:
            yield f"    {evidence}"


def _cells(one: Suppression) -> tuple[str, ...]:
    """What others wrote is one printable line each, whatever they wrote."""
    from postmeter.store.suppression import line

    until = "for ever" if one.until is None else _day(one.until)
    address, scope, provider = map(line, (one.address, one.scope, one.provider))
    return address, one.reason, str(one.count), _day(one.since), until, scope, provider


def _where(scope: str) -> str:
    return scope if scope == "everywhere" else f"for {scope}"


def _until(until: float | None) -> str:
    return f" until {_day(until)}" if until is not None else " for ever"


def _day(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(min(max(when, 0.0), 253402300799.0))) + "Z"


def _as_json(one: Suppression) -> dict[str, object]:
    return {
        "address": one.address,
        "scope": one.scope,
        "reason": one.reason,
        "since": one.since,
        "until": one.until,
        "count": one.count,
        "provider": one.provider,
        "evidence": one.evidence,
    }


def _arguments(parser: ArgumentParser) -> None:
    words = parser.add_subparsers(dest="word", metavar="list|add|remove|import|export", required=True)
    for word, text, example, do in _WORDS:
        told = f"example: postmeter suppress {word} {example}"
        one = words.add_parser(word, help=text, description=sentence(text), epilog=told, allow_abbrev=False)
        one.set_defaults(do=do, addresses=(), scope="", reason="", provider="", since="", for_="", all=False)
        for option in _OPTIONS[word]:
            _option(one, word, option)


def _option(parser: ArgumentParser, word: str, option: str) -> None:
    """What chooses may not be empty: `--since ""` would take in what it was to leave out."""
    if option == "addresses":
        parser.add_argument("addresses", metavar="ADDRESS", nargs="+" if word == "add" else "*", help="whom")
    elif option == "file":
        text = "a CSV file, - for standard input" if word == "import" else "- for standard output"
        parser.add_argument("file", metavar="FILE", help=text)
    elif option == "scope":
        text = "everywhere, domain:example.com, from:news@example.com or list:FROM-DOMAIN/ID"
        text += " (default everywhere)" if word == "add" else ""
        parser.add_argument("--scope", type=given, default=SUPPRESS, metavar="SCOPE", help=text)
    elif option == "reason":
        default = "manual" if word == "add" else ""
        text = f"why it is suppressed{f' (default {default})' if default else ''}"
        parser.add_argument("--reason", default=default, choices=_REASONS, help=text)
    elif option == "for":
        parser.add_argument("--for", dest="for_", type=given, default=SUPPRESS, metavar="TIME", help=_LASTS)
    elif option in ("all", "json"):
        text = "those that have ended too" if option == "all" else "a line of JSON for each"
        parser.add_argument(f"--{option}", action="store_true", help=text)
    elif option == "evidence":
        parser.add_argument("--evidence", default="", metavar="EVIDENCE", help="the line that says so")
    else:
        help_ = {
            "since": "those that began since then: 12h (ago), 2026-12-24, 2026-12-24T18:00",
            "provider": "those whose last bounce came from there, as the report names it",
        }
        name = option.upper()
        parser.add_argument(f"--{option}", type=given, default=SUPPRESS, metavar=name, help=help_[option])


_LASTS = "30d, or ever (default: bounces and complaints as suppression has it, others for ever)"
_CHOICE = ("addresses", "scope", "reason", "provider", "since")
_OPTIONS: dict[str, Iterable[str]] = {
    "list": (*_CHOICE, "all", "json"),
    "add": ("addresses", "scope", "reason", "for", "evidence"),
    "remove": _CHOICE,
    "import": ("file", "scope", "reason", "for"),
    "export": ("file", "scope", "reason", "provider", "since", "all"),
}
_WORDS = (
    ("list", "who is suppressed, why and how long", "bob@example.net", _list),
    ("add", "suppress an address", "bob@example.net --for 90d", _add),
    ("remove", "let them be written to again", "--since 2h --provider Google", _remove),
    ("import", "take over a CSV file of postmeter, Mailgun, SendGrid, Postmark or SES", "bounces.csv", _import),
    ("export", "write them as a CSV file", "suppressed.csv", _export),
)
COMMANDS = (
    Command(
        "suppress",
        "who is not written to again: list, add, remove, import, export",
        "postmeter suppress remove --since 2h --provider Google",
        _arguments,
        run,
    ),
)
