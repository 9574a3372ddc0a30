"""The `postmeter` program: finds the command, parses its arguments, and turns what went wrong into an exit code.

Knows nothing of what commands do, and loads only the module of the one that was asked for. Exit codes: 0, 1 when a
command found a problem, 64 for wrong usage, 78 for a wrong configuration (sysexits.h), 130 for Ctrl-C as shells do.
"""

from __future__ import annotations

import io
import os
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from postmeter import __version__
from postmeter.cli.command import CONFIGURATION, OK, USAGE, Command
from postmeter.config.problem import ConfigError

DEFAULT_CONFIG = Path("/etc/postmeter/postmeter.yaml")
_CTRL_C = 130

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
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # an address may hold what the terminal's charset does not
    try:
        return _run(*_parse(list(sys.argv[1:] if argv is None else argv)))
    except SystemExit as end:  # argparse's way to end after --help, --version and wrong usage
        return end.code if isinstance(end.code, int) else USAGE
    except KeyboardInterrupt:
        return _CTRL_C
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def _run(command: Command, args: Namespace) -> int:
    try:
        code = command.run(args)
        sys.stdout.flush()  # so that a broken pipe shows now and not at exit
        return code
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return CONFIGURATION


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
    args = parser.parse_args(rest)
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
    parser.description = command.summary[0].upper() + command.summary[1:] + "."
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
