"""`postmeter attach` and `postmeter detach`: shows what changes in Postfix, asks, and has postconf(1) make it.

No file of Postfix's is written here. Decides nothing about the change: `doctor.attaching` does.
"""

from __future__ import annotations

import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from postmeter.cli.command import FOUND_A_PROBLEM, OK, Command
from postmeter.cli.freeze import postfix_option

if TYPE_CHECKING:
    from postmeter.config.schema import Config
    from postmeter.doctor.attaching import Step
    from postmeter.doctor.mailer import Mailer


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask")
    postfix_option(parser)


def _attach_arguments(parser: ArgumentParser) -> None:
    text = "an smtpd of master.cf, e.g. submission/inet; may stand several times (default: those for submission)"
    parser.add_argument("--service", metavar="NAME/TYPE", action="append", default=[], help=text)
    _arguments(parser)


def attach(args: Namespace) -> int:
    """Refuses while nobody answers at the socket: until then every client would get 451."""
    from postmeter.config.load import load
    from postmeter.doctor import attaching

    config = load(args.config)

    def plan(mailer: Mailer) -> list[Step]:
        return attaching.attach(mailer, config, wanted=args.service)

    def ready(mailer: Mailer) -> str:
        return _unanswered(mailer, config)

    return _change(args, "attach", plan, ready=ready)


def detach(args: Namespace) -> int:
    from postmeter.config.load import load
    from postmeter.doctor import attaching, mailer

    config = load(args.config)
    code = _change(args, "detach", attaching.detach)
    if code == OK:
        by_hand = attaching.remaining(mailer.read(args.postfix), config)
        for name in by_hand:
            print(f"postmeter detach: {name} names postmeter by hand: take it off there", file=sys.stderr)
        return FOUND_A_PROBLEM if by_hand else OK
    return code


def _change(
    args: Namespace, name: str, plan: Callable[[Mailer], list[Step]], *, ready: Callable[[Mailer], str] = lambda _: ""
) -> int:
    from postmeter.doctor import mailer
    from postmeter.doctor.attaching import PlanError
    from postmeter.doctor.mailer import MailerError

    try:
        seen = mailer.read(args.postfix)
        steps = plan(seen)
        if not steps:
            print(f"nothing to {name}: Postfix is as it would be then")
            return OK
        _show(steps, args)
        refusal = ready(seen)
        if refusal:
            print(f"postmeter {name}: nothing was changed: {refusal}", file=sys.stderr)
            return FOUND_A_PROBLEM
        if not args.yes and not _agreed():
            print(f"postmeter {name}: nothing was changed", file=sys.stderr)
            return FOUND_A_PROBLEM
        if plan(mailer.read(args.postfix)) != steps:
            print(f"postmeter {name}: Postfix was changed meanwhile; nothing was done, try again", file=sys.stderr)
            return FOUND_A_PROBLEM
        return _make(steps, args, name)
    except (PlanError, MailerError) as error:
        print(f"postmeter {name}: {error}", file=sys.stderr)
        return FOUND_A_PROBLEM


def _show(steps: Sequence[Step], args: Namespace) -> None:
    """The commands as they are run, each with what stands there now."""
    where = ["-c", str(args.postfix)] if args.postfix else []
    for step in steps:
        was = "not set" if step.was is None else step.was or "empty"
        print(f"# {step.name} is now: {was}")
        print(shlex.join(["postconf", *where, *step.arguments]))
    print(shlex.join(["postfix", *where, "reload"]), flush=True)


def _make(steps: Sequence[Step], args: Namespace, name: str) -> int:
    """Each step alone leaves a Postfix that works; and whoever comes back after a failure does the rest."""
    from postmeter.doctor import mailer
    from postmeter.doctor.mailer import MailerError

    for step in steps:
        mailer.run("postconf", args.postfix, *step.arguments)
    try:
        mailer.run("postfix", args.postfix, "reload")
    except MailerError as error:
        print(f"postmeter {name}: the change is made, and Postfix was not reloaded: {error}", file=sys.stderr)
        return FOUND_A_PROBLEM
    print("done")
    return OK


def _unanswered(mailer: Mailer, config: Config) -> str:
    """Why clients would get 451 after it; empty when a milter answers, or when nobody can tell."""
    from postmeter.config.schema import UnixAddress
    from postmeter.doctor import reaching

    listen = config.milter.listen
    address = f"unix:{listen.path}" if isinstance(listen, UnixAddress) else f"inet:{listen}"
    queue, user = mailer.value("queue_directory"), mailer.value("mail_owner")
    trial = reaching.reach("postmeter answers", address, queue=queue, user=user, chroot=False)
    return "" if trial.ok is not False else f"clients would get 451: {trial.why}; see `postmeter check-config`"


def _agreed() -> bool:
    """Only a person at a terminal can agree."""
    if not sys.stdin.isatty():
        print("no terminal to ask at: give --yes", file=sys.stderr)
        return False
    print("make this change? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


COMMANDS = (
    Command(
        "attach",
        "give Postfix postmeter as a milter: show the change, ask, make it",
        "postmeter attach --service submission/inet",
        _attach_arguments,
        attach,
    ),
    Command("detach", "undo what attach did", "postmeter detach --yes", _arguments, detach),
)
