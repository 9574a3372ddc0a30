"""`postmeter doctor`: what is wrong with this host's set-up, how that is known, and what mends it.

Collects by `doctor.examine` and tells; what concerns keys comes from `dkim check`. Changes nothing.
"""

from __future__ import annotations

import json
import shlex
import sys
import textwrap
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import asdict, replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from postmeter.cli.command import FOUND_A_PROBLEM, OK, USAGE, Command
from postmeter.cli.freeze import postfix_option

if TYPE_CHECKING:
    from postmeter.config.load import Loaded
    from postmeter.doctor.facts import Key
    from postmeter.doctor.finding import Finding

_WIDTH = 100
_FORM = 1
"""Of the JSON: fields may be added to it; one that went or changed its meaning would make it 2."""


def arguments(parser: ArgumentParser) -> None:
    text = "an address that mail leaves from, as the world sees it; may stand several times"
    parser.add_argument("--address", metavar="IP", action="append", default=[], help=text)
    parser.add_argument("--json", action="store_true", help="for programs")
    postfix_option(parser)


def run(args: Namespace) -> int:
    from postmeter.cli.config import all_problems
    from postmeter.config.load import load_with_lines
    from postmeter.doctor import examine

    wrong = [text for text in args.address if not _is_address(text)]
    if wrong:
        print(f"postmeter doctor: {wrong[0]} is no address", file=sys.stderr)
        return USAGE
    loaded = load_with_lines(args.config)
    given = [str(ip_address(text)) for text in args.address]
    facts = examine.facts_of(
        loaded.config, postfix=args.postfix, problems=all_problems(loaded), keys=list(_keys(loaded)), given=given
    )
    found = [_there(finding, args.postfix) for finding in examine.judge(facts)]
    if args.json:
        print(json.dumps({"version": _FORM, "findings": [asdict(finding) for finding in found]}, indent=2))
    else:
        print("\n".join(_told(found)))
    return FOUND_A_PROBLEM if any(finding.level == "wrong" for finding in found) else OK


def _keys(loaded: Loaded) -> Iterator[Key]:
    from postmeter.cli import dkimcheck
    from postmeter.cli.dkim import configured
    from postmeter.doctor.facts import Key
    from postmeter.submission.dnskeys import Dns

    config = loaded.config
    for found in dkimcheck.each(config, Dns(config.dkim.resolvers), configured(config, "", [])):
        finding = found.finding
        what = f"{finding.word}: {finding.what}" if finding.what else finding.word
        yield Key(found.key.name, finding.ok, found.wrong, what, finding.fix)


def _there(finding: Finding, postfix: Path | None) -> Finding:
    """With commands that mend the Postfix that was looked at, where that is not the system's."""
    if postfix is None:
        return finding
    where = shlex.quote(str(postfix))
    fix = finding.fix.replace("postconf -", f"postconf -c {where} -").replace(
        "postfix reload", f"postfix -c {where} reload"
    )
    return replace(finding, fix=fix.replace("postmeter attach", f"postmeter attach --postfix {where}"))


def _told(found: list[Finding]) -> Iterator[str]:
    """For people: a heading, how it is known, and what to do; a record or command stays on one line to be copied."""
    for finding in found:
        yield from textwrap.wrap(f"{finding.level.upper():<8} {finding.about}: {finding.what}", _WIDTH,
                                 subsequent_indent=" " * 9, break_long_words=False, break_on_hyphens=False)  # fmt: skip
        yield f"{'':<9}known by: {finding.known}"
        if finding.fix:
            yield f"{'':<9}fix: {finding.fix}"
    wrong = sum(finding.level == "wrong" for finding in found)
    yield f"{wrong} wrong, {len(found) - wrong} to look at" if found else "nothing is wrong"


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


COMMANDS = (
    Command(
        "doctor",
        "tell what is wrong with Postfix, files, stores and DNS, and what mends it",
        "postmeter doctor --json",
        arguments,
        run,
    ),
)
