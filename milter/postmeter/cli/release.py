"""`postmeter quota release`: lets held mail go, by a timer what there is room for, by a person all of a login.

For root alone, as postsuper(1) is. Decides nothing about mail: `submission.release` does.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from postmeter.cli.command import FOUND_A_PROBLEM, OK, USAGE
from postmeter.cli.freeze import postfix_option, wait_until_seen

if TYPE_CHECKING:
    from postmeter.config.schema import Config
    from postmeter.store.orders import Kind
    from postmeter.submission.release import Outcome, Releaser

_FOR_ROOT = "postmeter quota release: run it as root: nobody else may touch Postfix's hold queue (postsuper(1))"


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("login", metavar="LOGIN", nargs="?", help="let all go that is held for it, and end its brake")
    text = "what there is room for: oldest first, each charged; never what the brake holds; for a timer"
    parser.add_argument("--due", action="store_true", help=text)
    parser.add_argument("--delete", action="store_true", help="delete what is held for LOGIN instead")
    postfix_option(parser)
    parser.set_defaults(do=run)


def run(args: Namespace, config: Config) -> int:
    """Quiet when nothing is due: a timer calls it each minute."""
    from postmeter.runtime.mailqueue import QueueError

    if args.due == bool(args.login) or (args.due and args.delete):
        print("postmeter quota release: give a LOGIN, or --due alone", file=sys.stderr)
        return USAGE
    if os.geteuid() != 0:
        print(_FOR_ROOT, file=sys.stderr)
        return FOUND_A_PROBLEM
    try:
        return _due(args, config) if args.due else _by_person(args, config)
    except QueueError as error:
        print(f"postmeter quota release: {error}", file=sys.stderr)
        return FOUND_A_PROBLEM


def _due(args: Namespace, config: Config) -> int:
    from postmeter.submission.levels import may_hold

    with _Desk(args, config) as desk, alone(config.journal.path):
        outcome = desk.releaser.due()
    if any((outcome.released, outcome.gone)):
        print(_told(outcome))
    elif not outcome.wait and not may_hold(config.quota):
        print("nothing is ever held here: no over: hold in the configuration; the timer can be switched off")
    return OK


def _by_person(args: Namespace, config: Config) -> int:
    """Comes back when every worker knows that the brake is off."""
    from postmeter.store import orders

    name, said, lifted = args.login.lower(), [], False
    with _Desk(args, config) as desk, alone(config.journal.path):
        try:
            lifted = orders.lift(desk.database, "brake", name, time.time())
            if lifted:
                said.append("the brake is off")
            outcome = desk.releaser.by_person(name, delete=args.delete)
            if outcome.any():
                said.append(_told(outcome))
        finally:
            if said:
                print(f"{args.login}: {'; '.join(said)}")
    if lifted:
        wait_until_seen()
    if not said:
        print(f"{args.login}: nothing is held, and no brake is on", file=sys.stderr)
    return OK if said else FOUND_A_PROBLEM


def _told(outcome: Outcome) -> str:
    counts = (
        (outcome.released, "released"),
        (outcome.deleted, "deleted"),
        (outcome.wait, "waiting for room"),
        (outcome.gone, "no longer there"),
    )
    total = sum(count for count, _ in counts)
    held = f"{total} held {'message' if total == 1 else 'messages'}"
    return f"{held}: " + ", ".join(f"{count} {what}" for count, what in counts if count)


@contextmanager
def alone(journal: Path) -> Iterator[None]:
    """One run at a time on this host: of two, each could find a message uncharged, and both charge it in Redis.

    Opened as root in a directory of the daemons' user: not through a link.
    """
    path = journal.with_name(f"{journal.name}.release")
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


class _Desk:
    """What a release needs, opened for it alone. StoreError when the journal cannot be written: nothing moves then."""

    def __init__(self, args: Namespace, config: Config) -> None:
        from postmeter.cli import daemons
        from postmeter.runtime.mailqueue import MailQueue
        from postmeter.store import database
        from postmeter.submission.release import Releaser

        self.database = database.open(config.journal.path, sync=config.journal.sync)
        self._accounts = daemons.settler(config)
        stops: tuple[Kind, ...] = ("freeze", "brake") if config.quota.brake.mode == "on" else ("freeze",)
        queue = MailQueue(args.postfix)
        self.releaser: Releaser = Releaser(self.database, self._accounts, queue, clock=time.time, stops=stops)

    def __enter__(self) -> _Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self._accounts.close()
        self.database.close()
