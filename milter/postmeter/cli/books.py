"""`postmeter books`: the daemon that keeps the journal in order and shows the figures of the whole host."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from postmeter.cli.command import FOUND_A_PROBLEM, OK, Command, said


def arguments(parser: ArgumentParser) -> None:
    text = "read these old logs of Postfix (gz, xz and zst too) into the journal, and end; twice does no harm"
    parser.add_argument("--once", nargs="+", type=Path, metavar="LOGFILE", help=text)


def run(args: Namespace) -> int:
    """Until a stop signal. A wrong configuration, or a page that cannot be served, ends it before it begins."""
    if args.once:
        return read(args)
    from postmeter.books.daemon import Daemon
    from postmeter.cli.keeping import Books
    from postmeter.config.load import load_with_lines
    from postmeter.runtime import logs
    from postmeter.runtime.notify import Notifier
    from postmeter.runtime.signals import Signals

    loaded = load_with_lines(args.config)
    logs.set_up(loaded.config.log, daemon="books")
    notifier = Notifier.from_environment()
    with Signals() as signals:  # before the first thread, which inherits the mask
        books = Books(loaded, args.config, notifier)
        try:
            Daemon(books.chores(), reload=books.reload, failed=books.failed, notifier=notifier).run(signals)
        finally:
            books.close()
    return OK


def read(args: Namespace) -> int:
    """Old logs, beside the daemon or without it."""
    from postmeter.cli.delivering import read_once
    from postmeter.config.load import load
    from postmeter.runtime.packed import PackedError
    from postmeter.store.database import StoreError

    try:
        print(read_once(load(args.config), args.once))
    except (OSError, PackedError, StoreError) as error:
        print(f"postmeter books: {said(error)}", file=sys.stderr)
        return FOUND_A_PROBLEM
    return OK


COMMANDS = (
    Command(
        "books",
        "the daemon that keeps the journal and shows the figures at /metrics",
        "postmeter books -c postmeter.yaml",
        arguments,
        run,
    ),
)
