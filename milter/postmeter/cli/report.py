"""`postmeter report`: what became of the mail, as text, CSV, JSON or one page of HTML; on standard output or by mail.

Reads the journal beside the running daemons. `--due` is what the timer runs: it sends what `report` asks for when it
is time, and notes up to which day it was sent.
"""

from __future__ import annotations

import socket
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from math import ceil
from typing import TYPE_CHECKING

from postmeter.cli.command import FOUND_A_PROBLEM, OK, USAGE, Command, failed, said
from postmeter.config.problem import MistakeError, quoted

if TYPE_CHECKING:
    from postmeter.config.schema import Config
    from postmeter.report.gather import Report

FORMATS = ("text", "csv", "json", "html")
POSITION = "report"
_DAY = 86_400.0
_LONGEST = 3660  # days; the journal began later
_FIX = "write it like 7d, or 2026-11-22"


def run(args: Namespace) -> int:
    from postmeter.config.load import load
    from postmeter.store.database import StoreError

    config = load(args.config)
    try:
        return _due(config) if args.due else _asked(args, config)
    except MistakeError as error:
        print(f"postmeter report: {error}", file=sys.stderr)
        return USAGE
    except (StoreError, OSError) as error:
        return failed("report", error)


def _asked(args: Namespace, config: Config) -> int:
    since, until = days(args.since, args.until, time.time())
    report = gathered(config, since=since, until=until, by=_by(args.by) or config.report.by, here=args.here)
    if args.mail:
        return _send(config, report, args.mail, about=f"asked for at {report.made}")
    sys.stdout.write(_worded(report, args.format, all_parts=args.all))
    return OK


def _worded(report: Report, form: str, *, all_parts: bool) -> str:
    from postmeter.report import page, table, text

    if form == "html":
        return page.page(report)
    if form != "text":
        return table.as_csv(report) if form == "csv" else table.as_json(report)
    terminal = sys.stdout.isatty()
    return "".join(f"{line}\n" for line in text.as_text(report, bars=terminal, all_parts=all_parts or not terminal))


def gathered(config: Config, *, since: int, until: int, by: Sequence[str], here: bool = False) -> Report:
    """The days from `since` to before `until`; of all hosts, if they have a database together."""
    from postmeter.cli.allhosts import ALL, everywhere
    from postmeter.report.gather import gather
    from postmeter.store import database, figures

    journal = database.open(config.journal.path, readonly=True)
    with closing(journal) as book, everywhere(config, book, here=here) as hosts:
        read = hosts.figures if hosts else partial(figures.breakdowns, book)
        host = ALL if hosts else named(config)
        return gather(read, since=since, until=until, by=by, now=time.time(), host=host)


def named(config: Config) -> str:
    return config.journal.host or socket.gethostname()


def days(since: str, until: str | None, now: float) -> tuple[int, int]:
    """Whole days by UTC: the first, and the first that is not in it. `until` is named as the last one."""
    today = int(now // _DAY)
    end = today + 1 if until is None else _day(until, today) + 1
    span = _span(since)
    first = end - span if span else _day(since, today)
    if first < 0:  # there was no mail, and soon no year to name it by (`datetime.MINYEAR`)
        raise MistakeError("that begins before 1970", _FIX)
    if not 0 < end - first <= _LONGEST:
        raise MistakeError(f"no days from {quoted(since)}", f"name a first day before the last; {_FIX}")
    return first, end


def _day(text: str, today: int) -> int:
    from postmeter.report.gather import day_of

    span = _span(text)
    if span:
        return today - span
    try:
        return day_of(text)
    except ValueError:
        raise MistakeError(f"{quoted(text)} is neither a day nor how long", _FIX) from None


def _span(text: str) -> int:
    """How many days, begun ones as whole; 0 for what is no duration."""
    from postmeter.config import amounts

    try:
        return max(1, ceil(amounts.duration(text) / _DAY))
    except (MistakeError, OverflowError):
        return 0


def _by(words: Sequence[str]) -> list[str]:
    from postmeter.store.figures import BY

    asked = list(dict.fromkeys(word for text in words for word in text.split(",") if word))
    wrong = next((word for word in asked if word not in BY), None)
    if wrong is not None:
        raise MistakeError(f"{quoted(wrong)} is nothing to break a report down by", f"one of {', '.join(BY)}")
    return asked


def _due(config: Config) -> int:
    """From the day on that was not in the last one; at first the days of one `report.every`."""
    from postmeter.store.journal import Journal

    if not config.report.to:
        return OK
    until, every = int(time.time() // _DAY), max(1, ceil(config.report.every / _DAY))
    with closing(Journal(config.journal.path, sync=config.journal.sync)) as journal:
        last = journal.position(POSITION)
        since = min(int(last), until) if last else until - every
        if until - since < every:
            return OK
        report = gathered(config, since=max(since, until - _LONGEST), until=until, by=config.report.by)
        code = _send(config, report, config.report.to, about=f"due at {until}")
        if code == OK:
            journal.record((), positions={POSITION: str(until)})
    return code


def _send(config: Config, report: Report, to: Sequence[str], *, about: str) -> int:
    from postmeter.cli.letterbox import send
    from postmeter.report import page, text

    body = "".join(f"{line}\n" for line in text.as_text(report, bars=False))
    html, about = page.page(report, mail=True), f"report of {report.period}, {about}"
    try:
        refused = send(config, subject=f"Mail report, {report.period}", text=body, html=html, to=to, about=about)
    except OSError as error:
        print(f"postmeter report: {config.notify.smtp} (notify.smtp): {said(error)}", file=sys.stderr)
        return FOUND_A_PROBLEM
    for address in refused:
        print(f"postmeter report: {config.notify.smtp} does not take mail for {address}", file=sys.stderr)
    return FOUND_A_PROBLEM if refused else OK


def _address(text: str) -> str:
    from postmeter.config import values

    try:
        return values.address(text)
    except MistakeError as error:
        raise ArgumentTypeError(str(error)) from None


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--since", metavar="TIME", default="7d", help="a day, or how many of them (default 7d)")
    parser.add_argument("--until", metavar="TIME", help="the last day, or how long ago (default today)")
    by = "domain, login, campaign, provider or day; may be repeated (default: report.by)"
    parser.add_argument("--by", action="append", default=[], metavar="WHAT", help=by)
    parser.add_argument("--format", choices=FORMATS, default="text", help="text, csv, json, or one page of html")
    parser.add_argument("--here", action="store_true", help="of this host only, not of all that ship to a database")
    parser.add_argument("--all", action="store_true", help="on a terminal too, more than the 20 busiest")
    sending = parser.add_mutually_exclusive_group()
    sending.add_argument("--mail", action="append", metavar="TO", type=_address, help="send it there, by notify.smtp")
    sending.add_argument("--due", action="store_true", help="send it to report.to, if report.every is over")


COMMANDS = (
    Command(
        "report",
        "show what became of the mail: delivered, bounced, complained of, opened; with rates",
        "postmeter report --since 30d --by provider",
        arguments,
        run,
    ),
)
