"""`postmeter trace`: a message's story, by queue id, Message-ID, reference or recipient.

Reads the journal beside the running daemons.
"""

from __future__ import annotations

import json
import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from time import time
from typing import TYPE_CHECKING

from postmeter.cli.command import FOUND_A_PROBLEM, OK, Command, given

if TYPE_CHECKING:
    from postmeter.trace import Line, Story

_LONGEST = 600  # characters of a line; servers say long things


def run(args: Namespace) -> int:
    """1 when nothing was found."""
    from postmeter.cli.allhosts import everywhere
    from postmeter.config.load import load
    from postmeter.store import database
    from postmeter.store.database import StoreError
    from postmeter.store.finding import Finder
    from postmeter.store.suppression import Lookup
    from postmeter.trace import as_object, trace

    config = load(args.config)
    try:
        journal = database.open(config.journal.path, readonly=True)
        with closing(journal) as book, everywhere(config, book, here=args.here) as hosts:
            found = trace(hosts or Finder(book), args.what.strip(), most=args.most + 1)
            suppressed = not found and bool(Lookup(book, time).find([args.what.strip()]))
    except StoreError as error:
        print(f"postmeter trace: {error}", file=sys.stderr)
        return FOUND_A_PROBLEM
    stories = found[: args.most]
    if len(found) > len(stories):
        print("postmeter trace: there are earlier ones; --most N shows more", file=sys.stderr)
    if args.json:
        print(json.dumps([as_object(story) for story in stories], indent=2))
    else:
        told = "\n\n".join("\n".join(_told(story)) for story in stories)
        print(told or _nothing(args.what.strip(), suppressed=suppressed))
    return OK if stories else FOUND_A_PROBLEM


def _nothing(what: str, *, suppressed: bool) -> str:
    """Who is refused at RCPT gets no message that could be told of."""
    from postmeter.runtime.logs import one_line

    name = one_line(what)
    more = f", who is suppressed: postmeter suppress list {name}" if suppressed else ""
    return f"nothing is known of {name}{more}"


def _told(story: Story) -> Iterator[str]:
    from postmeter.runtime.logs import one_line
    from postmeter.trace import outcome

    message = story.message
    yield f"message {story.reference}"
    if message is not None:
        campaign = message.facts.get("campaign")
        about = [f"Message-ID {message.message_id}", f"queue id {message.queue_id}", f"{message.size:,} octets"]
        about += [f"campaign {campaign}"] if campaign else []
        yield f"  {one_line(', '.join(about), longest=_LONGEST)}"
    for fate in story.fates:
        yield f"  {one_line(fate.recipient)}: {one_line(outcome(fate))}"
    for line in story.lines:
        yield f"  {_when(line)}  {one_line(line.text, longest=_LONGEST)}"
    if story.more:
        yield f"  and more than these {len(story.entries)} events, which are not told"


def _when(line: Line) -> str:
    until = f" until {_clock(line.until)}" if line.until else ""
    return f"{_clock(line.time)}{until}"


def _clock(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _number(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise ArgumentTypeError(f"{text!r} is no number of messages; write 1 or more")
    return int(text)


def arguments(parser: ArgumentParser) -> None:
    text = "a queue id, a Message-ID, a recipient's address, or a reference"
    parser.add_argument("what", metavar="QUEUE-ID|MESSAGE-ID|RECIPIENT", type=given, help=text)
    parser.add_argument("--most", type=_number, default=20, metavar="N", help="so many messages, latest first (20)")
    parser.add_argument("--here", action="store_true", help="of this host only, not of all that ship to a database")
    parser.add_argument("--json", action="store_true", help="for programs")


COMMANDS = (
    Command(
        "trace",
        "tell the story of a message: taken, held, sent, deferred, bounced, opened",
        "postmeter trace ann@example.net",
        arguments,
        run,
    ),
)
