"""`postmeter dkim check`: every configured key beside what DNS shows for it, and what to do about the difference.

A pending key is looked for at all name servers of its zone, the others at the resolver, as receivers look for them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from postmeter.cli.command import FOUND_A_PROBLEM, OK

if TYPE_CHECKING:
    from postmeter.config.load import Loaded
    from postmeter.config.schema import Config
    from postmeter.submission.dnskeys import Dns
    from postmeter.submission.keylist import ListedKey
    from postmeter.submission.keyrecord import Finding

_SLICE = 200  # keys asked for before the first is shown
_AT_ONCE = 8  # questions under way


@dataclass(frozen=True, slots=True)
class Found:
    """A key, what DNS shows, and what is to be said of its rotation."""

    key: ListedKey
    finding: Finding
    note: str = ""

    @property
    def wrong(self) -> bool:
        """A pending key that is not published yet is no fault, nor is a record that is not needed any more."""
        waits = self.key.state.state == "pending" and self.finding.word in ("missing", "unknown")
        return not self.finding.ok and not waits


def check(loaded: Loaded, domain: str, as_json: bool) -> int:
    from postmeter.cli import postfix
    from postmeter.cli.dkim import complain, configured
    from postmeter.submission.dnskeys import Dns
    from postmeter.submission.keyfiles import KeyProblem

    config = loaded.config
    for problem in postfix.retirement(loaded):
        print(problem, file=sys.stderr)
    dns = Dns(config.dkim.resolvers)
    wrong = 0
    told = []
    broken: list[KeyProblem] = []
    for found in each(config, dns, configured(config, domain, broken)):
        wrong += found.wrong
        if as_json:
            told.append(_plain(found))
        else:
            print("\n".join(_lines(found)), flush=True)
    if as_json:
        print(json.dumps({"keys": told}, indent=2))
    elif wrong:
        print(f"\nThe records as they must be: postmeter dkim dns {domain}".rstrip())
    return complain(broken) or (FOUND_A_PROBLEM if wrong else OK)


def each(config: Config, dns: Dns, keys: Iterator[ListedKey]) -> Iterator[Found]:
    """Each key beside what DNS shows for it, in their order."""
    from postmeter.books.keywatch import together

    while some := list(islice(keys, _SLICE)):
        yield from together(lambda key: _find(config, dns, key), some, at_once=_AT_ONCE)


def _find(config: Config, dns: Dns, key: ListedKey) -> Found:
    from postmeter.books import keyrotation, keywatch
    from postmeter.submission import rotation
    from postmeter.submission.keyfiles import KeyProblem
    from postmeter.submission.keyrecord import Finding

    if rotation.removable(key.state, now=time.time(), after=config.dkim.retire_after):
        return Found(key, Finding("removable", ok=True), _note(config, key))
    if key.state.state != "pending":
        return Found(key, _misplaced(dns, key, keywatch.find(dns, key)), _note(config, key))
    try:
        finding = keyrotation.look(dns, key.name, key.expected())
    except KeyProblem as problem:
        finding = Finding("unusable", f"{problem.path}: {problem.what}", problem.fix)
    return Found(key, _misplaced(dns, key, finding), _note(config, key))


def _misplaced(dns: Dns, key: ListedKey, finding: Finding) -> Finding:
    """The commonest slip of all: the form adds the domain to a name that ends with it."""
    from postmeter.submission import keyrecord

    if finding.word != "missing":
        return finding
    wrong = f"{key.name}.{key.domain}"
    there = dns.look(wrong, lambda found: keyrecord.judge(found, key.expected()))
    if not there.ok:
        return finding
    return replace(finding, what=f"it stands at {wrong}", fix=f"call it {key.selector}._domainkey: the rest is added")


def _note(config: Config, key: ListedKey) -> str:
    from postmeter.config.amounts import duration_text
    from postmeter.submission import rotation

    after = config.dkim.retire_after
    if key.state.state == "retired":
        if rotation.removable(key.state, now=time.time(), after=after):
            return f"take its record out of DNS, and delete {key.file}"
        return f"retired; its record must stay until {_clock(key.state.since + after)}"
    if key.state.state == "pending":
        seen = _seen_since(config, key)
        wait = duration_text(config.dkim.rotate_seen)
        if seen:
            return f"pending; seen everywhere since {_clock(seen)}, signs after {wait} of that"
        return f"pending; it signs when every name server has shown it for {wait}"
    return ""


def _seen_since(config: Config, key: ListedKey) -> float:
    """As the books have noted it; 0 when they have not, or cannot be read."""
    from postmeter.store import database, keychecks

    try:
        book = database.open(config.journal.path, readonly=True)
        sighting = keychecks.seen(book, key.domain, key.selector)
        book.close()
    except database.StoreError:
        return 0.0
    return sighting.since if sighting is not None else 0.0


def _lines(found: Found) -> Iterable[str]:
    key, finding = found.key, found.finding
    sign = {True: "ok", None: "?", False: "WRONG" if found.wrong else "-"}[finding.ok]
    about = f"  {finding.word}" if finding.word != "right" else ""
    yield f"{sign:<6} {key.name}{about}{': ' + finding.what if finding.what else ''}"
    if finding.fix:
        yield f"{'':<7}fix: {finding.fix}"
    if found.note:
        yield f"{'':<7}{found.note}"


def _plain(found: Found) -> dict[str, object]:
    key, finding = found.key, found.finding
    return {
        "domain": key.domain,
        "selector": key.selector,
        "state": key.state.state,
        "ok": finding.ok,
        "wrong": found.wrong,
        "found": finding.word,
        "what": finding.what,
        "fix": finding.fix,
        "note": found.note,
    }


def _clock(when: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))
