"""`postmeter links`: make the tracked links of a message, a login or a target host answer 410, or answer again.

Writes the block into the journal's database and at once into the list that the tracking server reads every second;
`books` keeps that list as the database wants it from then on.
"""

from __future__ import annotations

import re
import sys
import time
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING
from unicodedata import normalize

from postmeter.cli.command import FOUND_A_PROBLEM, OK, Command, failed, pattern, sentence
from postmeter.events import REFERENCE

if TYPE_CHECKING:
    from postmeter.store.blocks import Block, Blocks, Kind

_UNKNOWN = {
    "message": "no such message in the journal",
    "login": "that is no login; name one at a time",
    "host": "not a host name",
}
_LINK = re.compile(r"/c/([A-Za-z0-9_-]+)")


def arguments(parser: ArgumentParser) -> None:
    words = parser.add_subparsers(dest="action", metavar="block|unblock|list", required=True)
    for word, text in (("block", "their links answer 410 within 5 s"), ("unblock", "their links answer again")):
        told = f"example: postmeter links {word} --login stolen@example.com"
        one = words.add_parser(word, help=text, description=sentence(text), epilog=told)
        what = one.add_mutually_exclusive_group(required=True)
        what.add_argument(
            "--message", metavar="WHICH", help="its queue ID, Message-ID or reference, or one of its tracked links"
        )
        what.add_argument("--login", metavar="LOGIN", help="all its messages, those that it will send too")
        what.add_argument("--host", metavar="NAME", help='links that lead to this host; "*.NAME" is all hosts below it')
    text = "what is blocked, since when"
    words.add_parser("list", help=text, description=sentence(text), epilog="example: postmeter links list")


def run(args: Namespace) -> int:
    from postmeter.books.blocking import Blocking
    from postmeter.cli import slip
    from postmeter.config.load import load
    from postmeter.runtime.privileges import become_owner
    from postmeter.store import database
    from postmeter.store.blocks import Blocks

    path = load(args.config).journal.path
    try:
        become_owner(path.parent)
        opened = database.open(path, readonly=args.action == "list")
        blocks = Blocks(opened)
        if args.action == "list":
            return _list(blocks)
        code = _change(blocks, args)
        Blocking(opened, path.parent).refresh()
        if args.action == "block" and args.login is not None and code == OK:
            slip.tell("links", args.login, opened)
    except (database.StoreError, OSError) as error:
        return failed("links", error)
    return code


def _change(blocks: Blocks, args: Namespace) -> int:
    """Block or unblock; 1 when there was nothing to be done."""
    kind, values = _named(blocks, args)
    if not values:
        print(f"postmeter links: {_UNKNOWN[kind]}", file=sys.stderr)
        return FOUND_A_PROBLEM
    blocking = args.action == "block"
    done = OK
    for value in values:
        changed = blocks.add(kind, value, now=time.time()) if blocking else blocks.remove(kind, value)
        state = "blocked" if blocking else "not blocked"
        print(f"{kind} {value}: {'now' if changed else 'already'} {state}")
        done = done if changed or blocking else FOUND_A_PROBLEM
    return done


def _named(blocks: Blocks, args: Namespace) -> tuple[Kind, list[str]]:
    if args.login is not None:
        several = args.action == "block" and pattern(args.login)  # an old one can be lifted
        return "login", [args.login.lower()] if args.login and not several else []
    if args.host is not None:
        return "host", _host(args.host)
    return "message", _messages(blocks, args.message.strip())


def _host(text: str) -> list[str]:
    """As links have it, in A-labels."""
    from postmeter.mail.address import ascii_domain
    from postmeter.token import host_name

    wild, name = ("*.", text[2:]) if text.startswith("*.") else ("", text)
    try:
        return [wild + host_name(ascii_domain(normalize("NFC", name)))]
    except ValueError:
        return []


def _messages(blocks: Blocks, word: str) -> list[str]:
    """A link names its message itself, and a reference needs no journal: it may be older than what is kept there."""
    from postmeter.token import reference_of

    link = _LINK.search(word)
    if link:
        reference = reference_of(link[1]).hex()
        return [reference] if reference else []
    found = blocks.references(word) or blocks.references(f"<{word}>")
    return found or ([word.lower()] if REFERENCE.fullmatch(word.lower()) else [])


def _list(blocks: Blocks) -> int:
    for block in blocks.all():
        print(_line(block))
    return OK


def _line(block: Block) -> str:
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(block.since))
    return f"{since}  {block.kind:<7}  {block.value}"


COMMANDS = (
    Command(
        "links",
        "block the tracked links of a message, a login or a target host, or let them answer again",
        "postmeter links block --login alice@example.com",
        arguments,
        run,
    ),
)
