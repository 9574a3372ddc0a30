"""The `postmeter` program: finds the command, parses its arguments, and turns what went wrong into an exit code.

Knows nothing of what commands do, and loads only the module of the one that was asked for. Exit codes: 0, 1 when a
command found a problem, 64 for wrong usage, 78 for a wrong configuration (sysexits.h), 130 for Ctrl-C as shells do.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from textwrap import fill
from typing import NoReturn

from postmeter import __version__
from postmeter.cli.command import CONFIGURATION, FOUND_A_PROBLEM, OK, USAGE, Command, said, sentence
from postmeter.config.problem import ConfigError

DEFAULT_CONFIG = Path("/etc/postmeter/postmeter.yaml")
_CTRL_C = 130
_WIDTH = 78  # of 80 columns, as argparse has it

COMMANDS: list[tuple[str, str]] = [
    ("milter", "postmeter.cli.milter"),
    ("web", "postmeter.cli.web"),
    ("books", "postmeter.cli.books"),
    ("run", "postmeter.cli.run"),
    ("check-config", "postmeter.cli.config"),
    ("doctor", "postmeter.cli.doctor"),
    ("attach", "postmeter.cli.attach"),
    ("detach", "postmeter.cli.attach"),
    ("explain", "postmeter.cli.explain"),
    ("quota", "postmeter.cli.quota"),
    ("freeze", "postmeter.cli.freeze"),
    ("unfreeze", "postmeter.cli.freeze"),
    ("dkim", "postmeter.cli.dkim"),
    ("links", "postmeter.cli.links"),
    ("report", "postmeter.cli.report"),
    ("trace", "postmeter.cli.trace"),
    ("suppress", "postmeter.cli.suppress"),
    ("feedback", "postmeter.cli.feedback"),
    ("erase", "postmeter.cli.erase"),
    ("backup", "postmeter.cli.backup"),
]
"""Every command's word and the module whose `COMMANDS` has it, in the order of `postmeter --help`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the answer is the exit code."""
    if sys.stdout is None:  # closed by whoever started us
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # an address may hold what the terminal's charset does not
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        return _CTRL_C
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        _say_no_more()
        return OK
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _say_no_more()
        print(f"postmeter: {said(error)}", file=sys.stderr)
        return FOUND_A_PROBLEM


def _say_no_more() -> None:
    """What is left of the output goes nowhere, when Python writes it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str]) -> int:
    try:
        command, args = _parse(arguments)
        code = command.run(args)
    except SystemExit as end:  # argparse's way to end after --help, --version and wrong usage
        code = end.code if isinstance(end.code, int) else USAGE
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return CONFIGURATION
    sys.stdout.flush()  # so that a broken pipe or a full disk shows now and not at exit
    return code


def _parse(arguments: list[str]) -> tuple[Command, Namespace]:
    config, rest = take_config(arguments)
    words = [word for word, _ in COMMANDS]
    word = rest[0] if rest else ""
    parser = build_parser([load(word)] if word in words else load_all())
    if not word:
        parser.print_help(sys.stderr)
        parser.exit(USAGE)
    if word not in words and not word.startswith("-"):
        guess = "".join(f'; did you mean "{match}"?' for match in get_close_matches(word, words, n=1))
        parser.error(f'no command "{word}"{guess}')
    try:
        args = parser.parse_args(rest)
    except SystemExit as end:  # a program gives options; a subcommand, or the lack of one, is a person's
        options = word in words and all(other.startswith("-") for other in rest[1:2])
        raise SystemExit(load(word).misused if options and end.code == USAGE else end.code) from None
    args.config = config
    return args.command, args


def take_config(arguments: list[str]) -> tuple[Path, list[str]]:
    """The configuration's path, named anywhere on the command line, and the other arguments."""
    parser = Parser(prog="postmeter", usage="postmeter [-c FILE] COMMAND ...", add_help=False, allow_abbrev=False)
    _add_config(parser)
    known, rest = parser.parse_known_args(arguments)
    return known.config, rest


def build_parser(commands: Iterable[Command]) -> ArgumentParser:
    parser = Parser(
        prog="postmeter",
        description="Quotas, DKIM signatures, link tracking and the truth about delivery for an existing Postfix.",
        epilog="postmeter COMMAND --help tells about one command, with an example.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"postmeter {__version__}")
    _add_config(parser)
    words = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in commands:
        _fill(words.add_parser(command.name, help=command.summary, allow_abbrev=False), command)
    return parser


def _fill(parser: ArgumentParser, command: Command) -> None:
    """Give a command's parser its description, example and arguments."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.description = fill(sentence(command.summary), _WIDTH)
    parser.epilog = f"example:\n  {command.example}"
    _add_config(parser)
    command.arguments(parser)
    parser.set_defaults(command=command)


def _add_config(parser: ArgumentParser) -> None:
    text = f"the configuration (default {DEFAULT_CONFIG})"
    parser.add_argument("-c", "--config", metavar="FILE", type=Path, default=DEFAULT_CONFIG, help=text)


def load(word: str) -> Command:
    """The command of that word, from its module."""
    commands: tuple[Command, ...] = import_module(dict(COMMANDS)[word]).COMMANDS
    return next(command for command in commands if command.name == word)


def load_all() -> list[Command]:
    return [load(word) for word, _ in COMMANDS]


class Parser(ArgumentParser):
    """argparse with the exit code of sysexits.h."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")
