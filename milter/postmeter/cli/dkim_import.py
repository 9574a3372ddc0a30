"""`postmeter dkim import-opendkim` and `import-rspamd`: prints the YAML that does what another signer's files say.

Changes no file. What cannot be carried over stands in comments on top, with the reason.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from postmeter.cli.command import OK, USAGE, sentence

if TYPE_CHECKING:
    from argparse import _SubParsersAction

OPENDKIM, RSPAMD = "import-opendkim", "import-rspamd"


def add_arguments(words: _SubParsersAction[ArgumentParser]) -> None:
    """Both words for `postmeter dkim`; what they run is in `args.does`."""
    text = "print the YAML that does what opendkim.conf and its tables say"
    example = f"example: postmeter dkim {OPENDKIM} --tables"
    parser = words.add_parser(OPENDKIM, help=text, description=sentence(text), epilog=example)
    file = Path("/etc/opendkim.conf")
    parser.add_argument("file", metavar="FILE", type=Path, nargs="?", default=file, help=f"{file} by default")
    parser.add_argument("--tables", action="store_true", help="keep KeyTable and SigningTable, to be read as they are")
    parser.set_defaults(does=_opendkim)
    text = "print the YAML that does what rspamd's dkim_signing.conf says"
    example = "/etc/rspamd/local.d/dkim_signing.conf"
    told = f"example: postmeter dkim {RSPAMD} {example}"
    parser = words.add_parser(RSPAMD, help=text, description=sentence(text), epilog=told)
    file = Path(example)
    parser.add_argument("file", metavar="FILE", type=Path, nargs="?", default=file, help=f"{file} by default")
    parser.set_defaults(does=_rspamd)


def _opendkim(args: Namespace) -> int:
    from postmeter.cli import import_opendkim
    from postmeter.config.problem import MistakeError

    try:
        carried = import_opendkim.carry(args.file, tables=args.tables)
    except MistakeError as mistake:
        return _refuse(OPENDKIM, mistake)
    print(carried.text(f"postmeter dkim {OPENDKIM} {args.file}{' --tables' * args.tables}"), end="")
    return OK


def _rspamd(args: Namespace) -> int:
    from postmeter.cli import import_rspamd
    from postmeter.config.problem import MistakeError

    try:
        carried = import_rspamd.carry(args.file)
    except MistakeError as mistake:
        return _refuse(RSPAMD, mistake)
    print(carried.text(f"postmeter dkim {RSPAMD} {args.file}"), end="")
    return OK


def _refuse(word: str, mistake: Exception) -> int:
    print(f"postmeter dkim {word}: {mistake}", file=sys.stderr)
    return USAGE
