"""`postmeter dkim`: make keys, say what DNS must show for them, compare it with what DNS shows, begin a rotation.

Writes private keys into `dkim.keys_dir` and nowhere else; nothing is ever overwritten, and no configuration is changed.
What a rotation goes on with is the books' affair.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from postmeter.cli import dkim_import
from postmeter.cli.command import FOUND_A_PROBLEM, OK, USAGE, Command, given, sentence

if TYPE_CHECKING:
    from postmeter.config.load import Loaded
    from postmeter.config.schema import Config, SignEntry
    from postmeter.submission.keyfiles import KeyProblem
    from postmeter.submission.keylist import ListedKey
    from postmeter.submission.newkeys import Owner

_PATIENCE = 10.0  # seconds to wait for somebody else who changes keys


def arguments(parser: ArgumentParser) -> None:
    words = parser.add_subparsers(dest="action", metavar="WHAT", required=True)
    for word, text, needed in (
        ("new", "a new RSA and a new Ed25519 key, and the records to publish", True),
        ("dns", "the records of all keys, as they have to be published", False),
        ("check", "every key beside what DNS shows; 1 when something is wrong", False),
        ("rotate", "new keys beside those that sign (keys: auto); they sign when DNS has shown them long enough", True),
    ):
        example = f"example: postmeter dkim {word} example.com"
        sub = words.add_parser(word, help=text, description=sentence(text), epilog=example)
        told = "a domain that signs, or will"
        sub.add_argument("domain", metavar="DOMAIN", nargs=None if needed else "?", type=given, help=told)
        sub.add_argument("--json", action="store_true", help="for programs")
    dkim_import.add_arguments(words)


def run(args: Namespace) -> int:
    from postmeter.cli import dkimcheck
    from postmeter.config.load import load_with_lines
    from postmeter.config.problem import MistakeError
    from postmeter.config.values import domain
    from postmeter.submission.keyfiles import KeyProblem

    if "does" in args:
        return int(args.does(args))
    loaded = load_with_lines(args.config)
    does = {"new": _new, "dns": _dns, "check": dkimcheck.check, "rotate": _rotate}[args.action]
    try:
        name = domain(args.domain) if args.domain else ""
        if not name and not loaded.config.dkim.signs:
            print("postmeter dkim: dkim.sign is empty: nothing is signed; a DOMAIN shows its keys", file=sys.stderr)
        return _whose_files(loaded, does(loaded, name, args.json))
    except MistakeError as error:
        print(f"postmeter dkim: {error.what}; {error.fix}", file=sys.stderr)
        return USAGE
    except KeyProblem as problem:
        print(f"postmeter dkim: {problem}", file=sys.stderr)
        return FOUND_A_PROBLEM


def _whose_files(loaded: Loaded, code: int) -> int:
    """Before somebody opens the daemons' keys to himself, as what helps a daemon's user would."""
    from postmeter.cli.config import not_ours

    for warning in not_ours(loaded) if code != OK else ():
        print(warning, file=sys.stderr)
    return code


def _new(loaded: Loaded, domain: str, as_json: bool) -> int:
    from postmeter.submission import keylist, newkeys
    from postmeter.submission.rotation import ALGORITHMS

    config = loaded.config
    entry = keylist.entry_of(config.dkim, domain)
    owner = _owner(config)
    folder = newkeys.open_folder(config.dkim.keys_dir, domain, owner)
    with newkeys.locked(folder, patience=_PATIENCE):
        before = [key for key in keylist.of_folder(config.dkim.keys_dir, domain) if key.signs]
        signs = entry is None or entry.keys != "auto" or not before
        made = newkeys.add(folder, ALGORITHMS, now=time.time(), signs=signs, owner=owner)
    _tell(config, domain, list(made), _next(config, domain, entry, before), as_json)
    return OK


def _rotate(loaded: Loaded, domain: str, as_json: bool) -> int:
    from postmeter.submission import keydir, keylist, newkeys, rotation

    config = loaded.config
    entry = keylist.entry_of(config.dkim, domain)
    if entry is None or entry.keys != "auto":
        for line in _refusal(domain, entry):
            print(line, file=sys.stderr)
        return FOUND_A_PROBLEM
    folder = keydir.folder(config.dkim.keys_dir, domain)
    with newkeys.locked(folder, patience=_PATIENCE):
        wanted = rotation.wanted(newkeys.own_keys(folder), now=time.time())
        if wanted:
            newkeys.add(folder, wanted, now=time.time(), signs=False, owner=_owner(config))
        waiting = rotation.pending(newkeys.own_keys(folder))
    if not waiting:
        print(f"postmeter dkim: no key of {domain} signs; make some: postmeter dkim new {domain}", file=sys.stderr)
        return FOUND_A_PROBLEM
    _tell(config, domain, waiting, _until_they_sign(config, domain), as_json)
    return OK


def _refusal(domain: str, entry: SignEntry | None) -> Iterator[str]:
    if entry is None:
        yield f"postmeter dkim: {domain} is not in dkim.sign; add {{domain: {domain}, keys: auto}} there, and reload"
        return
    yield f"postmeter dkim: the keys of {domain} are listed in the configuration, which no program of ours rewrites"
    yield f"  either make new ones (postmeter dkim new {domain}), publish them, wait a day, and list them instead;"
    yield f"  or put the files as SELECTOR.pem into the directory {domain} of dkim.keys_dir, and write keys: auto"


def _next(config: Config, domain: str, entry: SignEntry | None, before: Sequence[ListedKey]) -> list[str]:
    """What is to be done with new keys, step by step."""
    if entry is not None and entry.keys == "auto":
        if before:
            return _until_they_sign(config, domain)
        when = "once mode is enforce" if config.mode == "observe" else "from now on"
        return [f"publish these records now: mail is signed with these keys {when}", _check_line(domain)]
    steps = ["publish these records", _check_line(domain)]
    if entry is None:
        steps.append(f"add to dkim.sign: {{domain: {domain}, keys: auto}}, and reload postmeter")
        steps += [f"all keys in that directory will sign, {len(before)} more than these"] if before else []
    else:
        steps.append("when DNS has shown them for a day, list them in dkim.sign, not the old, and reload")
    return steps


def _until_they_sign(config: Config, domain: str) -> list[str]:
    from postmeter.config.amounts import duration_text

    seen, after = (duration_text(span) for span in (config.dkim.rotate_seen, config.dkim.retire_after))
    return [
        "publish these records, and leave the old ones in place",
        f"postmeter books does the rest: they sign when every name server has shown them for {seen}",
        f"the old records may go {after} later; how it stands: postmeter dkim check {domain}",
    ]


def _check_line(domain: str) -> str:
    return f"postmeter dkim check {domain}"


def _owner(config: Config) -> Owner:
    """Whoever has the directory of keys; where that is root, or nobody yet, the user of the daemons."""
    from postmeter.config import permissions
    from postmeter.config.check import whose
    from postmeter.submission.newkeys import Owner

    there = permissions.owner(config.dkim.keys_dir)
    person = there if there is not None and there.uid else whose(config)
    return Owner(person.uid, person.gid)


def _dns(loaded: Loaded, domain: str, as_json: bool) -> int:
    from postmeter.submission.keyfiles import KeyProblem

    broken: list[KeyProblem] = []
    told: list[dict[str, object]] = []
    for key in configured(loaded.config, domain, broken):
        try:
            if as_json:
                told.append(described(key))
            else:
                print("\n".join(_zone(loaded.config, key)))
        except KeyProblem as problem:
            broken.append(problem)
    if as_json:
        print(json.dumps({"keys": told}, indent=2))
    return complain(broken)


def complain(broken: Sequence[KeyProblem]) -> int:
    """What is wrong with some keys, beside what was said of the others; and the exit code."""
    for problem in broken:
        print(f"postmeter dkim: {problem}", file=sys.stderr)
    return FOUND_A_PROBLEM if broken else OK


def configured(config: Config, domain: str, broken: list[KeyProblem]) -> Iterator[ListedKey]:
    """All keys, or one domain's: also of a directory that the configuration does not name yet, or raises KeyProblem.

    Configured ones that cannot be listed hide no others: what is wrong with them goes to `broken`.
    """
    from postmeter.submission import keylist
    from postmeter.submission.keyfiles import KeyProblem

    tabled: keylist.Tabled = {}
    try:
        tabled = keylist.of_tables(config.dkim)
    except KeyProblem as problem:
        broken.append(problem)
    found = [each for each in keylist.domains(config.dkim, tabled) if domain in ("", each.name)]
    for each in found:
        try:
            keys = each.keys(config.dkim.keys_dir)
        except KeyProblem as problem:
            broken.append(problem)
            continue
        yield from keys
    if not found and domain:
        yield from keylist.of_folder(config.dkim.keys_dir, domain)


def _zone(config: Config, key: ListedKey) -> Iterator[str]:
    from postmeter.submission import keyrecord, rotation

    if rotation.removable(key.state, now=time.time(), after=config.dkim.retire_after):
        yield f"; {key.name} is not needed any more"
        return
    if key.state.state != "active":
        yield f"; {key.state.state}"
    yield keyrecord.zone_line(key.name, key.expected().text)


def described(key: ListedKey) -> dict[str, object]:
    """A key and its record, for programs."""
    from postmeter.submission import keyrecord

    expected = key.expected()
    return {
        "domain": key.domain,
        "selector": key.selector,
        "algorithm": expected.kind,
        "state": key.state.state,
        "file": str(key.file),
        "name": key.name,
        "record": expected.text,
        "zone": keyrecord.zone_line(key.name, expected.text),
    }


def _tell(config: Config, domain: str, selectors: Sequence[str], steps: Sequence[str], as_json: bool) -> None:
    """New keys: what to publish, in the two forms that people need, and what comes then."""
    from postmeter.submission import keylist

    listed = keylist.of_folder(config.dkim.keys_dir, domain)
    keys = [described(key) for key in listed if key.selector in selectors]
    keys.sort(key=lambda key: key["algorithm"] != "rsa")
    if as_json:
        print(json.dumps({"domain": domain, "keys": keys, "next": list(steps)}, indent=2))
        return
    for key in keys:
        print(f"{key['file']}  {key['algorithm']}, {key['state']}")
    print("\nFor a zone file:\n")
    for key in keys:
        print(key["zone"])
    print("\nFor a form, type TXT; take the domain off the name where the form adds it:\n")
    for key in keys:
        print(f"{key['name']}\n{key['record']}\n")
    print("Next:")
    for number, step in enumerate(steps, 1):
        print(f"  {number}. {step}")


COMMANDS = (
    Command(
        "dkim",
        "make DKIM keys, print and check their DNS records, rotate them, come from another signer",
        "postmeter dkim new example.com",
        arguments,
        run,
    ),
)
