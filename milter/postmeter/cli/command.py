"""What a command is: its word, its help, its arguments, and what it runs.

Knows nothing of what commands do. A module of commands exports `COMMANDS`, a tuple of these, and imports what is
heavy (libmilter, aiohttp, prometheus_client) only inside `run`: help stays quick, no daemon loads another's libraries.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from dataclasses import dataclass

# The codes of sysexits.h that Postfix's own commands use; Debian's systemd units know 78 as "do not start me again".
OK = 0
FOUND_A_PROBLEM = 1
USAGE = 64
CONFIGURATION = 78


def no_arguments(parser: ArgumentParser) -> None:
    """For a command that takes nothing but `-c FILE`, which every command gets."""


@dataclass(frozen=True, slots=True)
class Command:
    """`example` is a whole command line that parses; `run` finds the configuration's path in `args.config`, a Path.

    A command with words of its own (`links block`) adds them in `arguments` by `parser.add_subparsers`.
    """

    name: str
    summary: str
    example: str
    arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]
    misused: int = USAGE
    """How it ends when its options are wrong."""


def said(error: Exception) -> str:
    """An error for people: one of the system's without its number."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror


def failed(name: str, error: Exception) -> int:
    """A command's own words for what it could not do. That nobody reads on is none of it: `main` knows what that is."""
    if isinstance(error, BrokenPipeError):
        raise error
    print(f"postmeter {name}: {said(error)}", file=sys.stderr)
    return FOUND_A_PROBLEM


def given(text: str) -> str:
    """The type of an argument that may not be empty, as it is in a script whose variable was never set."""
    if not text.strip():
        raise ArgumentTypeError("it is empty")
    return text


def pattern(login: str) -> bool:
    """Whether that means several logins: nobody is called so, and what is said of it would hold for nobody."""
    return "@" in login and (login.startswith("@") or "*" in login)


def login(text: str) -> str:
    """The type of a login that something is done to."""
    if pattern(given(text)):
        raise ArgumentTypeError(f"{text!r} is no login; name one at a time")
    return text


def sentence(text: str) -> str:
    """The line that a list of commands shows, as the head of that command's own help."""
    return f"{text[:1].upper()}{text[1:]}."
