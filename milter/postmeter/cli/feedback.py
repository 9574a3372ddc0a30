"""`postmeter feedback`: takes one bounce or complaint on stdin, for pipe(8) or an alias; shows what could not be used.

pipe(8) and local(8) know exit codes (sysexits.h): 0, the message is on disk; 75, it is not, and comes again. So
whatever goes wrong ends in 75, a configuration that cannot be read and an option that means nothing too; but for a
message that is larger than we take.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from postmeter.cli.command import FOUND_A_PROBLEM, OK, Command, failed, said, sentence

if TYPE_CHECKING:
    from postmeter.feedback.arrivals import Arrival, Arrivals
    from postmeter.mail.message import Field

UNAVAILABLE, TRY_AGAIN = 69, 75  # EX_UNAVAILABLE, EX_TEMPFAIL

_CHUNK = 1 << 16
_HEADER = 1 << 17  # octets; Postfix's header_size_limit is 102,400
_UNSHOWN = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]")
_ADDRESS = re.compile(r"[^\s<>\x00-\x1f\x7f]{1,1000}")


def arguments(parser: ArgumentParser) -> None:
    text = "whom it came to; else $ORIGINAL_RECIPIENT, or X-Original-To or Delivered-To in the message"
    parser.add_argument("--recipient", metavar="ADDRESS", action="append", default=[], help=text)
    parser.add_argument("--sender", metavar="ADDRESS", help="the return path, empty for a bounce; else Return-Path")
    words = parser.add_subparsers(dest="action", metavar="list|show|retry", required=False)
    listed, shown, again = (
        words.add_parser(word, help=text, description=sentence(text), epilog=f"example: postmeter feedback {example}")
        for word, text, example in (
            ("list", "what could not be used, and why", "list"),
            ("show", "one of them, as it was received", "show 20261122T204925.123456Z-812-3"),
            ("retry", "read them once more, as after a change of the configuration", "retry --all"),
        )
    )
    listed.add_argument("--json", action="store_true", help="for programs")
    shown.add_argument("id", metavar="ID", help="as the list names it")
    which = again.add_mutually_exclusive_group()
    which.add_argument("id", metavar="ID", nargs="?", help="as the list names it (default: all of them)")
    which.add_argument("--all", action="store_true", help="all of them")


def run(args: Namespace) -> int:
    if args.action is None:
        return _take(args)
    from postmeter.books.returns import KEPT, NEW, place
    from postmeter.config.load import load
    from postmeter.feedback.arrivals import Arrivals
    from postmeter.runtime.privileges import become_owner

    state = load(args.config).journal.path.parent
    kept = Arrivals(place(state, KEPT))
    try:
        become_owner(state)
        if args.action == "list":
            return _list(kept, json_=args.json)
        if args.action == "show":
            return _show(kept, _named(args.id))
        return _retry(kept, Arrivals(place(state, NEW)), kept.names() if args.id is None else [_named(args.id)])
    except OSError as error:
        return failed("feedback", error)


def _take(args: Namespace) -> int:
    """From stdin into the spool."""
    from postmeter.feedback.arrivals import too_large

    try:
        _store(args)
    except OSError as error:
        if too_large(error):  # whoever has sent it is told
            print(f"postmeter feedback: {error.strerror or error}", file=sys.stderr)
            return UNAVAILABLE
        print(f"postmeter feedback: {said(error)}", file=sys.stderr)
        return TRY_AGAIN
    except Exception as error:  # whatever it is, a wrong configuration too: the message must not be lost
        print(f"postmeter feedback: {error}", file=sys.stderr)
        return TRY_AGAIN
    return OK


def _store(args: Namespace) -> None:
    from postmeter.books.returns import NEW, place
    from postmeter.config.load import load
    from postmeter.feedback.arrivals import LARGEST, Arrivals, Envelope
    from postmeter.mail.reading import read
    from postmeter.runtime.privileges import become_owner

    state = load(args.config).journal.path.parent
    become_owner(state)
    arrivals = Arrivals(place(state, NEW))
    raw = _read(LARGEST + 1)
    if raw.startswith(b"From "):  # a mailbox's line (mbox(5)), which some put above what they pipe
        raw = raw.partition(b"\n")[2]
    fields, _ = read(raw[:_HEADER])
    sender = _path(next((field.value for field in fields if field.key == b"return-path"), None))
    envelope = Envelope(
        time=time.time(),
        sender=sender if args.sender is None else _readable(args.sender),
        recipients=_recipients([_readable(each) for each in args.recipient], os.environ, fields),
    )
    arrivals.put(envelope, raw)


def _read(most: int) -> bytes:
    """stdin, or so much of it that it is too much."""
    pieces, left = [], most
    while left > 0 and (piece := sys.stdin.buffer.read(min(_CHUNK, left))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _recipients(given: list[str], environment: Mapping[str, str], fields: tuple[Field, ...]) -> tuple[str, ...]:
    """The tag is in the envelope recipient, before any alias: as pipe(8), for several at once, or local(8) tells it."""
    ways = [given, [_readable(environment.get("ORIGINAL_RECIPIENT", ""))]]
    for name in (b"x-original-to", b"delivered-to"):
        ways.append([next((_path(field.value) or "" for field in fields if field.key == name), "")])
    read = [[found[0] for word in way if (found := _ADDRESS.search(word.strip(" <>")))] for way in ways]
    return tuple(next((known for known in read if known), []))


def _readable(argument: str) -> str:
    """Octets that are no UTF-8 as they are shown, not as halves of characters that nobody can write."""
    return os.fsencode(argument).decode("utf-8", "backslashreplace")


def _path(value: bytes | None) -> str | None:
    return value.decode("utf-8", "backslashreplace").strip().strip("<>") if value is not None else None


def _list(kept: Arrivals, *, json_: bool) -> int:
    if json_:
        print(json.dumps([_told(arrival) for arrival in _all(kept)], indent=2))
        return OK
    for arrival in _all(kept):
        told = _told(arrival)
        whom = " ".join(map(_printable, arrival.envelope.recipients)) or "-"
        print(f"{told['id']}  {whom}  {told['why']}")
        print(f"    {told['subject'] or '(no subject)'}")
    return OK


def _all(kept: Arrivals) -> Iterator[Arrival]:
    for name in kept.names():
        arrival = kept.read(name)
        if arrival is not None:
            yield arrival


def _told(arrival: Arrival) -> dict[str, object]:
    """Whoever wrote the message did not write it for a terminal: what is not printable is not shown."""
    from postmeter.mail import fieldtext
    from postmeter.mail.reading import read

    fields, _ = read(arrival.raw[:_CHUNK])
    subject = next((fieldtext.text(field.value) for field in fields if field.key == b"subject"), "")
    envelope = arrival.envelope
    return {
        "id": _printable(arrival.name.removesuffix(".eml")),
        "time": envelope.time,
        "sender": envelope.sender,
        "recipients": [_printable(recipient) for recipient in envelope.recipients],
        "why": _printable(envelope.why),
        "subject": _printable(subject),
        "size": len(arrival.raw),
    }


def _show(kept: Arrivals, name: str) -> int:
    """As it was received; on a terminal without what would steer it."""
    arrival = kept.read(name)
    if arrival is None:
        return _missing(name)
    sys.stdout.flush()
    shown = _UNSHOWN.sub(b"?", arrival.raw.replace(b"\r\n", b"\n")) if sys.stdout.isatty() else arrival.raw
    sys.stdout.buffer.write(shown)
    sys.stdout.buffer.flush()
    return OK


def _retry(kept: Arrivals, new: Arrivals, names: list[str]) -> int:
    """`books` reads them within a second; what it cannot use again comes back here."""
    missing = [name for name in names if not kept.move(name, new)]
    for name in missing:
        _missing(name)
    return FOUND_A_PROBLEM if missing else OK


def _named(ident: str) -> str:
    return ident if ident.endswith(".eml") else f"{ident}.eml"


def _missing(name: str) -> int:
    print(f"postmeter feedback: there is no {name.removesuffix('.eml')}", file=sys.stderr)
    return FOUND_A_PROBLEM


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:300])


COMMANDS = (
    Command(
        "feedback",
        "take a bounce or complaint on stdin (for pipe(8)), or show those that could not be used",
        "postmeter feedback list",
        arguments,
        run,
        misused=TRY_AGAIN,
    ),
)
