"""Keeps watch over the records of all keys in DNS, so that the operator knows of a fault before receivers do.

Goes through all keys again and again, each once in `check_every`, and more often while there is something wrong with
it; at most so many questions a second. A resolver that does not answer says nothing about a key: it stays what it was.
What is known is kept in the database, where a restart finds it. Knows nothing of what is done about a fault.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from time import sleep
from typing import TypeVar

from postmeter.config.schema import Dkim
from postmeter.events import KeyChanged
from postmeter.runtime.logs import OnceAMinute
from postmeter.store import keychecks
from postmeter.store.database import Database
from postmeter.store.keychecks import Check
from postmeter.submission import keylist, keyrecord, rotation
from postmeter.submission.dnskeys import Dns
from postmeter.submission.keyfiles import KeyProblem
from postmeter.submission.keylist import Domain, ListedKey
from postmeter.submission.keyrecord import Finding

log = logging.getLogger(__name__)
once = OnceAMinute(log)

_SLICE = 25  # domains in one piece of work, and one transaction
_RATE = 100.0  # questions a second at most: an hour is enough for 360,000 keys, and no resolver minds
_AT_ONCE = 8  # questions under way
_SOON = 6  # times as often, for a key that is wrong or that nobody could tell of
_REST = 60.0  # seconds at most between two walks through all keys, and
_WALKING = 20  # a walk takes a twentieth of the time at most
_SILENT = 3  # slices in a row of which nobody told anything: then a rest, for it may be the resolver

T = TypeVar("T")
R = TypeVar("R")


class KeyWatch:
    """For a thread of its own. `now` is the clock of the day, `ticks` a monotonic one."""

    def __init__(
        self,
        dkim: Dkim,
        dns: Dns,
        database: Database,
        *,
        host: str,
        now: Callable[[], float],
        ticks: Callable[[], float],
        close: Callable[[], None],
    ) -> None:
        self._dkim, self._dns, self._database, self._host = dkim, dns, database, host
        self._now, self._ticks, self.close = now, ticks, close
        self._walk: Iterator[Domain] | None = None
        self._begun = self._next = float("-inf")
        self._silent = 0

    def work(self) -> bool:
        """A slice of a walk; true when there is more of it."""
        if self._walk is None:
            if self._ticks() < self._next:
                return False
            self._begin()
        domains = list(islice(self._walk or (), _SLICE))
        if not domains:
            self._end(max(min(_REST, self._dkim.check_every / _WALKING), _WALKING * (self._ticks() - self._begun)))
            return False
        self._check(domains)
        if self._silent >= _SILENT:
            self._end(min(_REST, self._dkim.check_every))
            return False
        return True

    def _begin(self) -> None:
        self._begun = self._ticks()
        try:
            tabled = keylist.of_tables(self._dkim)
        except KeyProblem as problem:
            once.log(logging.ERROR, "tables", "OpenDKIM's tables cannot be checked: %s", problem)
            tabled = {}
        names = [domain.name for domain in keylist.domains(self._dkim, tabled)]
        keychecks.forget_others(self._database, names)
        self._walk = keylist.domains(self._dkim, tabled)

    def _end(self, rest: float) -> None:
        self._walk, self._next, self._silent = None, self._ticks() + rest, 0

    def _check(self, domains: Sequence[Domain]) -> None:
        """One slice: ask, keep what was said, tell what changed."""
        begun, now = self._ticks(), self._now()
        listed = [key for domain in domains for key in self._listed(domain)]
        known = keychecks.of_domains(self._database, [domain.name for domain in domains])
        keychecks.forget(self._database, known.keys() - {(key.domain, key.selector) for key in listed})
        due = [key for key in listed if self._is_due(known.get((key.domain, key.selector)), key, now)]
        if due:
            self._keep(due, together(self._find, due, at_once=_AT_ONCE), known, now)
            sleep(max(len(due) / _RATE - (self._ticks() - begun), 0.0))

    def _keep(
        self, keys: Sequence[ListedKey], found: Sequence[Finding], known: Mapping[tuple[str, str], Check], now: float
    ) -> None:
        outcomes = [
            after(known.get((key.domain, key.selector)), finding, key, now)
            for key, finding in zip(keys, found, strict=True)
        ]
        events = [event for _, event in outcomes if event is not None]
        keychecks.save(self._database, [check for check, _ in outcomes], events=events, host=self._host)
        for event in events:
            _say(event)
        unknown = [finding for finding in found if finding.ok is None]
        if unknown:
            said = "%d of %d keys stay what they were, DNS does not tell: %s"
            once.log(logging.WARNING, "silent", said, len(unknown), len(found), unknown[0].what)
        self._silent = self._silent + 1 if len(unknown) == len(found) else 0

    def _listed(self, domain: Domain) -> list[ListedKey]:
        """Those that mail is signed by, or was a while ago."""
        now, after = self._now(), self._dkim.retire_after
        try:
            keys = domain.keys(self._dkim.keys_dir)
        except KeyProblem as problem:
            once.log(logging.ERROR, domain.name, "%s: keys cannot be checked: %s", domain.name, problem)
            return []
        gone = {key.selector for key in keys if rotation.removable(key.state, now=now, after=after)}
        return [key for key in keys if key.state.state != "pending" and key.selector not in gone]

    def _is_due(self, before: Check | None, key: ListedKey, now: float) -> bool:
        if before is None or before.signs != key.signs:
            return True
        every = self._dkim.check_every
        return not 0 <= now - before.looked < (every if before.ok else every / _SOON)

    def _find(self, key: ListedKey) -> Finding:
        return find(self._dns, key)


def find(dns: Dns, key: ListedKey) -> Finding:
    """What the resolver shows for a key, or why that cannot be compared."""
    try:
        expected = key.expected()
    except KeyProblem as problem:
        return Finding("unusable", f"{problem.path}: {problem.what}", problem.fix)
    return dns.look(key.name, lambda found: keyrecord.judge(found, expected))


def after(before: Check | None, finding: Finding, key: ListedKey, now: float) -> tuple[Check, KeyChanged | None]:
    """What is known of a key after one more look, and what has to be told of it."""
    check = before or Check(
        domain=key.domain,
        selector=key.selector,
        ok=None,
        what="",
        since=now,
        checked=now,
        looked=now,
        signs=key.signs,
    )
    check = replace(check, looked=now, signs=key.signs)
    if finding.ok is None:
        return check, None
    said = f"{finding.word}: {finding.what}" if finding.what else finding.word
    turned = check.ok != finding.ok
    check = replace(check, ok=finding.ok, what=said, checked=now, since=now if turned else check.since)
    was_wrong = before is not None and before.ok is False
    if not turned or (finding.ok and not was_wrong):
        return check, None
    return check, _event(key, finding, said, now)


def _event(key: ListedKey, finding: Finding, said: str, now: float) -> KeyChanged:
    change = "mended" if finding.ok else "failed"
    return KeyChanged(
        source=f"key:{key.domain}:{key.selector}:{change}:{now:.3f}",
        time=now,
        domain=key.domain,
        selector=key.selector,
        change=change,
        what=said,
        fix=finding.fix,
        record="" if finding.ok else _record(key),
    )


def _record(key: ListedKey) -> str:
    try:
        return key.expected().text
    except KeyProblem:
        return ""


def _say(event: KeyChanged) -> None:
    level = logging.INFO if event.change == "mended" else logging.ERROR
    fix = f"; {event.fix}" if event.fix else ""
    log.log(level, "%s._domainkey.%s %s: %s%s", event.selector, event.domain, event.change, event.what, fix)


def together(work: Callable[[T], R], items: Iterable[T], *, at_once: int) -> list[R]:
    """The results in the order of the items. The threads are daemons: the end of the program does not wait for DNS."""
    waiting = list(enumerate(items))
    results: dict[int, R] = {}
    failures: list[Exception] = []

    def run() -> None:
        while True:
            try:
                number, item = waiting.pop()
            except IndexError:
                return
            try:
                results[number] = work(item)
            except Exception as error:  # raised again where the results are waited for
                failures.append(error)

    wanted = len(waiting)
    threads = [threading.Thread(target=run, daemon=True) for _ in range(min(at_once, wanted))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [results[number] for number in range(wanted)]
