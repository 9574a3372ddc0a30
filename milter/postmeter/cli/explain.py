"""`postmeter explain`: what would happen to a message, and why, changing nothing."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

from postmeter.cli.command import FOUND_A_PROBLEM, OK, USAGE, Command, given

if TYPE_CHECKING:
    from postmeter.config.schema import Config
    from postmeter.mail.draft import Draft
    from postmeter.mail.message import Envelope, Field, Message
    from postmeter.mail.reply import Reply
    from postmeter.store.accounts import Accounts
    from postmeter.submission.quota import Quotas


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("message", metavar="MESSAGE.eml", help="a message as a mail program sends it; - for stdin")
    parser.add_argument("--login", default="", help="the SASL login; without one the mail is sendmail(1)'s")
    text = "a recipient; may be repeated"
    parser.add_argument("--rcpt", action="append", default=[], metavar="ADDRESS", type=given, help=text)
    parser.add_argument("--sender", metavar="ADDRESS", help="the envelope sender; the From address by default")
    text = "the client's address, where it is no sendmail(1); 192.0.2.1 unless it is given"
    parser.add_argument("--client", metavar="IP", type=_ip, help=text)
    parser.add_argument("--service", help="the smtpd service's milter_macro_daemon_name")
    parser.add_argument("--diff", action="store_true", help="show what would change, line by line")
    parser.add_argument("--json", action="store_true", help="for programs")


def _ip(text: str) -> str:
    from postmeter.config.problem import MistakeError
    from postmeter.config.values import ip_address

    try:
        return ip_address(text)
    except MistakeError as error:
        raise ArgumentTypeError(str(error)) from None


def run(args: Namespace) -> int:
    """0 when the message would be taken, 1 when it would be refused."""
    from postmeter.cli import daemons
    from postmeter.cli.config import not_ours
    from postmeter.config.load import load_with_lines
    from postmeter.config.problem import ConfigError
    from postmeter.explain import as_json, as_text, explain
    from postmeter.submission import standing
    from postmeter.submission.pipeline import Gate
    from postmeter.submission.quota import Quotas

    try:
        raw = sys.stdin.buffer.read() if args.message == "-" else Path(args.message).read_bytes()
    except OSError as error:
        print(f"{args.message}: {error.strerror}", file=sys.stderr)
        return USAGE
    loaded = load_with_lines(args.config)
    config = loaded.config
    try:
        material = daemons.prepare(loaded)
    except ConfigError as error:
        raise ConfigError([*not_ours(loaded), *error.problems]) from None
    settler = daemons.settler(config)
    own = daemons.notices(config)
    who = daemons.identity(material, own)
    marked = daemons.marks(material, who)
    orders = daemons.orders(config)
    stops = standing.rules(orders, config.quota.brake)
    quotas = Quotas(config.quota, settler, levels=material.levels, override=orders.limits)
    suppress = daemons.suppress(config)
    pipeline = daemons.pipeline(
        material, who=who, own=own, stops=stops, quotas=quotas, marked=marked, suppress=suppress
    )
    full = partial(_full, config=config, quotas=quotas, accounts=settler)
    gates = (Gate("suppression", suppress.gate),) if suppress.gates else ()
    told = explain(_message(raw, args), who=who, pipeline=pipeline, marked=marked, gates=gates, full=full)
    if args.json:
        print(json.dumps(as_json(told, diff=args.diff), indent=2))
    else:
        print("\n".join(as_text(told, diff=args.diff)))
    if config.mode == "observe":
        print("mode is observe: this would be written down, and nothing changed or refused", file=sys.stderr)
    return FOUND_A_PROBLEM if told.verdict == "refuse" else OK


def _full(draft: Draft, *, config: Config, quotas: Quotas, accounts: Accounts) -> Reply | None:
    """As `submission.record` answers when it has come to that; without a journal nothing is held yet."""
    from postmeter.store import database, held
    from postmeter.store.database import StoreError
    from postmeter.submission import standing

    waiting = 0
    with suppress(StoreError), closing(database.open(config.journal.path, readonly=True)) as book:
        waiting = held.look(book, draft.sender)
    if waiting < config.quota.hold_at_most:
        return None
    draft.note("hold", f"{draft.sender} has {waiting} messages on hold already (quota.hold_at_most)")
    over = accounts.check(quotas.charges(draft), draft.message.time)
    return quotas.refuse(draft, over) if over else standing.too_many(draft, config.quota.hold_at_most)


def _message(raw: bytes, args: Namespace) -> Message:
    from postmeter.cli.daemons import reference
    from postmeter.mail.message import Message
    from postmeter.mail.reading import read

    fields, body = read(raw)
    return Message(
        envelope=_envelope(args, fields),
        fields=fields,
        body=body,
        queue_id="explain",
        time=time(),
        reference=reference(),
    )


def _envelope(args: Namespace, fields: tuple[Field, ...]) -> Envelope:
    from postmeter.mail.address import from_addresses
    from postmeter.mail.message import Client, Envelope

    local = not args.login and not args.client and not args.service
    author = (from_addresses(fields) or [""])[0]
    return Envelope(
        mail_from=(author if args.sender is None else args.sender).encode(),
        rcpt_to=tuple(address.encode() for address in args.rcpt),
        client=Client() if local else Client(name="unknown", address=args.client or "192.0.2.1", port=1),
        login=args.login,
        waits=not local,
        service=args.service or ("local" if local else "ORIGINATING" if args.login else "smtpd"),
    )


COMMANDS = (
    Command(
        "explain",
        "what would happen to a message, and why, changing nothing",
        "postmeter explain newsletter.eml --login alice@example.com --rcpt bob@example.net --diff",
        arguments,
        run,
    ),
)
