"""`postmeter books`: the daemon that keeps the journal in order and shows the figures of the whole host."""

from __future__ import annotations

from argparse import Namespace

from postmeter.cli.command import OK, Command, no_arguments


def run(args: Namespace) -> int:
    """Until a stop signal. A wrong configuration, or a page that cannot be served, ends it before it begins."""
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


COMMANDS = (
    Command(
        "books",
        "the daemon that keeps the journal and shows the figures at /metrics",
        "postmeter books -c postmeter.yaml",
        no_arguments,
        run,
    ),
)
