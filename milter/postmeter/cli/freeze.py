"""`postmeter freeze` and `unfreeze`: stop a login at once, and say which of its mail Postfix still has.

Writes an order that the milter's workers look up once a second, and comes back when they know of it. What is in the
queue is listed for postsuper(1) and left alone: to delete it is the administrator's to say.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from postmeter.cli.command import FOUND_A_PROBLEM, OK, Command, given, login
from postmeter.events import Event, Refiltered, Submitted

if TYPE_CHECKING:
    from postmeter.config.schema import Config
    from postmeter.runtime.mailqueue import MailQueue
    from postmeter.store.database import Database
    from postmeter.store.journal import Journal

_SLACK = 0.2  # seconds that a worker may take to look
_WHOM = "a login, or whatever a sender is counted as"


def freeze(args: Namespace) -> int:
    """1 also where the order changes nothing: nobody must take a stolen account for stopped that is not."""
    from postmeter.cli import slip
    from postmeter.config.load import load
    from postmeter.runtime.mailqueue import MailQueue, QueueError
    from postmeter.store.database import StoreError
    from postmeter.store.journal import Journal

    config = load(args.config)
    journal = config.journal
    words = sys.stderr if args.queue else sys.stdout
    try:
        book = Journal(journal.path, sync=journal.sync)
        _put(book.database, args.login)
        print(_said(args.login, config), file=words)
        slip.tell("freeze", args.login, book.database)
        if args.queue:
            for queue_id in _queued(book, MailQueue(args.postfix), args.login.lower()):
                print(queue_id)
        book.close()
    except (StoreError, QueueError) as error:
        print(f"postmeter freeze: {error}", file=sys.stderr)
        return FOUND_A_PROBLEM
    return FOUND_A_PROBLEM if config.mode == "observe" else OK


def unfreeze(args: Namespace) -> int:
    from postmeter.config.load import load
    from postmeter.store import database, orders
    from postmeter.store.database import StoreError

    journal = load(args.config).journal
    try:
        book = database.open(journal.path, sync=journal.sync)
        lifted = orders.lift(book, "freeze", args.login.lower(), time.time())
        book.close()
    except StoreError as error:
        print(f"postmeter unfreeze: {error}", file=sys.stderr)
        return FOUND_A_PROBLEM
    if not lifted:
        print(f"{args.login}: was not frozen", file=sys.stderr)
        return FOUND_A_PROBLEM
    print(f"{args.login}: may send again within a second")
    return OK


def wait_until_seen() -> None:
    """Comes back when every worker of this host has looked again."""
    from postmeter.store import orders

    time.sleep(orders.EVERY + _SLACK)


def _put(book: Database, login: str) -> None:
    from postmeter.store import orders

    orders.put(book, orders.Order(kind="freeze", login=login.lower(), since=time.time()))
    wait_until_seen()


def _said(login: str, config: Config) -> str:
    if config.mode == "observe":
        return f"{login}: frozen, but mode is observe: nothing is refused, its mail leaves as before"
    others = "" if config.quota.store is None else "; on the other hosts within a few seconds, as soon as Redis answers"
    return f"{login}: frozen; every message of it is refused from now on{others}"


def _queued(book: Journal, queue: MailQueue, sender: str) -> Iterator[str]:
    """Of what lies in the queue, that which this login brought; a short queue id may have been another message's."""
    for found in queue.look():
        entries = book.of_queue_id(found.queue_id)
        if any(_sent(book, entry.event, sender) and found.came(entry.event.time) for entry in entries):
            yield found.queue_id


def _sent(book: Journal, event: Event, sender: str) -> bool:
    """Whether the message is this login's; what came back from a content filter is that of its first pass."""
    if isinstance(event, Refiltered):
        return any(_of(entry.event, sender) for entry in book.of_reference(event.reference))
    return _of(event, sender)


def _of(event: Event, sender: str) -> bool:
    return isinstance(event, Submitted) and event.sender == sender


def _login(parser: ArgumentParser) -> None:
    parser.add_argument("login", metavar="LOGIN", type=given, help=_WHOM)


def postfix_option(parser: ArgumentParser) -> None:
    """For the commands that ask Postfix."""
    text = "the directory of main.cf, of another Postfix than the system's"
    parser.add_argument("--postfix", metavar="DIR", type=Path, help=text)


def _freeze_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("login", metavar="LOGIN", type=login, help=_WHOM)
    text = "print the queue ids of its mail that Postfix still has, for: postsuper -d -"
    parser.add_argument("--queue", action="store_true", help=text)
    postfix_option(parser)


COMMANDS = (
    Command(
        "freeze",
        "refuse all mail of a login from now on, within a second and a bit",
        "postmeter freeze alice@example.com --queue",
        _freeze_arguments,
        freeze,
    ),
    Command(
        "unfreeze",
        "let a frozen login send again",
        "postmeter unfreeze alice@example.com",
        _login,
        unfreeze,
    ),
)
