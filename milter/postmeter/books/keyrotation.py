"""Brings a domain's new keys to sign, when all who could be asked have shown them long enough; and asks for new ones.

The rules are in `submission.rotation`; this looks, writes and tells. Of what it does the state file is what counts:
events are made of it afterwards, each once, so that one who is killed in between tells later. Where somebody else
holds the directory it comes again. Knows nothing of when it is called.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from postmeter.config.amounts import duration_text
from postmeter.config.schema import Dkim
from postmeter.events import KeyChanged
from postmeter.mail.address import ascii_domain
from postmeter.runtime.logs import OnceAMinute
from postmeter.store import keychecks
from postmeter.store.database import Database
from postmeter.store.keychecks import Seen
from postmeter.submission import keydir, keylist, keyrecord, newkeys, rotation
from postmeter.submission.dnskeys import Dns
from postmeter.submission.keyfiles import KeyProblem
from postmeter.submission.keylist import ListedKey
from postmeter.submission.keyrecord import Expected, Finding
from postmeter.submission.newkeys import Owner
from postmeter.submission.rotation import Sighting

log = logging.getLogger(__name__)
once = OnceAMinute(log)

_FIND = 60.0  # seconds at most between two looks for what has to be rotated
_SLICE = 200  # directories looked at in one piece of work
_REST = 20  # looking for it takes a twentieth of the time at most
_BEGIN = 6 * 3600.0  # seconds at most between two questions whether `rotate_every` is over
_WEEK = 7 * 86_400.0
_SLOW = 5.0  # seconds: a zone some of whose servers are dead, and it is asked about one after the other
_DEAD = 400  # times as long it is left alone, so that a hundred of these leave three quarters of the time to others
_RECENT = 30 * 86_400.0  # seconds for which a state's change is told if nobody has told it


@dataclass(frozen=True, slots=True)
class Rotations:
    """All rotations of one configuration. `host` is our name in events; `now` the clock of the day."""

    dkim: Dkim
    dns: Dns
    database: Database
    host: str
    owner: Owner
    now: Callable[[], float]

    def begin_due(self, domain: str) -> bool:
        """Make new keys where `rotate_every` asks for them. Raises KeyProblem."""
        every = self.dkim.rotate_every
        folder = keydir.folder(self.dkim.keys_dir, domain)
        if every is None or not rotation.due(newkeys.own_keys(folder), now=self.now(), every=every):
            return False
        with newkeys.locked(folder, patience=0.0):
            wanted = rotation.due(newkeys.own_keys(folder), now=self.now(), every=every)
            made = newkeys.add(folder, wanted, now=self.now(), signs=False, owner=self.owner)
        log.info("%s: new keys wait for DNS: %s; postmeter dkim dns %s", domain, ", ".join(made), domain)
        return True

    def advance(self, domain: str) -> bool:
        """Look for the pending keys of a domain; true while there are some. Raises KeyProblem."""
        waiting = [key for key in keylist.of_folder(self.dkim.keys_dir, domain) if key.state.state == "pending"]
        ripe = {key.selector: key for key in waiting if self._is_ripe(key)}
        if ripe:
            self._promote(domain, ripe)
        self.tell(domain)
        return len(ripe) < len(waiting)

    def tell(self, domain: str) -> None:
        """What became of the domain's keys, as far as nobody has told it."""
        now = self.now()
        listed = keylist.of_folder(self.dkim.keys_dir, domain)
        events = [event for key in listed for event in self._events(key, now)]
        if events:
            keychecks.record(self.database, events, host=self.host)

    def stirs(self, domain: str) -> bool:
        """Whether there is something to advance, or to tell. Raises KeyProblem."""
        states = keydir.read_state(keydir.folder(self.dkim.keys_dir, domain)).values()
        if states:
            self.tell(domain)
        return any(state.state == "pending" for state in states)

    def _is_ripe(self, key: ListedKey) -> bool:
        expected = key.expected()
        found = look(self.dns, key.name, expected)
        now, seen = self.now(), self.dkim.rotate_seen
        before = keychecks.seen(self.database, key.domain, key.selector)
        known = Sighting(before.since, before.last) if before and before.record == expected.text else None
        sighting = rotation.sight(known, shown=found.ok, now=now, seen=seen)
        if sighting is None:
            keychecks.unsee(self.database, key.domain, key.selector)
        elif sighting != known:
            keychecks.sight(
                self.database,
                Seen(
                    domain=key.domain,
                    selector=key.selector,
                    record=expected.text,
                    since=sighting.since,
                    last=sighting.last,
                ),
            )
        if not found.ok:
            once.log(logging.INFO, key.name, "%s waits: %s: %s", key.name, found.word, found.what)
        return rotation.ripe(sighting, now=now, seen=seen)

    def _promote(self, domain: str, ripe: dict[str, ListedKey]) -> None:
        """Only what is still as it was seen: alone with the directory, and everything read again."""
        folder = keydir.folder(self.dkim.keys_dir, domain)
        with newkeys.locked(folder, patience=0.0):
            keys = newkeys.own_keys(folder)
            same = [name for name, key in ripe.items() if name in keys and self._as_seen(key)]
            states = rotation.promote(keys, same, self.now())
            changed = {name: state for name, state in states.items() if state != keys[name].state}
            if changed:
                newkeys.save(folder, changed)
        for name, state in sorted(changed.items()):
            log.info("%s._domainkey.%s: %s from now on", name, domain, state.state)

    def _as_seen(self, key: ListedKey) -> bool:
        before = keychecks.seen(self.database, key.domain, key.selector)
        return before is not None and before.record == key.expected().text

    def _events(self, key: ListedKey, now: float) -> Iterator[KeyChanged]:
        """All that a key's state tells; `source` is the same each time, and so the journal takes it once."""
        state, after = key.state, self.dkim.retire_after
        if not state.since or now - state.since > max(_RECENT, 2 * after):
            return
        if state.state == "pending":
            weeks = int((now - state.since) // _WEEK)
            change = "waiting" if weeks > 0 else "pending"
            what = f"not seen everywhere for {weeks} weeks" if weeks > 0 else "a new key waits for its record"
            fix = f"publish it; it signs when all name servers have shown it for {duration_text(self.dkim.rotate_seen)}"
            yield _event(key, change, what, fix, when=state.since + weeks * _WEEK, record=key.expected().text)
        elif state.state == "active":
            yield _event(key, "active", "it signs from now on", "", when=state.since)
        else:
            fix = f"leave its record in place for {duration_text(after)}: mail that it signed is still on its way"
            yield _event(key, "retired", "it signs no more", fix, when=state.since)
            if rotation.removable(state, now=now, after=after):
                fix = f"take its record out of DNS, and delete {key.file}"
                yield _event(key, "removable", "nothing needs it any more", fix, when=state.since + after)


def look(dns: Dns, name: str, expected: Expected) -> Finding:
    """What the zone's servers show, and the resolver that mail servers like ours ask. Right when all of them do."""

    def judge(found: Sequence[bytes]) -> Finding:
        return keyrecord.judge(found, expected)

    there = dns.everywhere(name, judge)
    return there if there.ok is False else _worse(there, dns.look(name, judge))


def _worse(first: Finding, second: Finding) -> Finding:
    return second if first.ok or second.ok is False else first


def _event(key: ListedKey, change: str, what: str, fix: str, *, when: float, record: str = "") -> KeyChanged:
    source = f"key:{key.domain}:{key.selector}:{change}:{when:.3f}"
    return KeyChanged(
        source=source,
        time=when,
        domain=key.domain,
        selector=key.selector,
        change=change,
        what=what,
        fix=fix,
        record=record,
    )


class RotationWork:
    """For a thread of its own: finds domains whose keys have to be rotated, and looks for each in its time."""

    def __init__(self, rotations: Rotations, *, ticks: Callable[[], float], close: Callable[[], None]) -> None:
        self._rotations, self._ticks, self.close = rotations, ticks, close
        self._domains = [ascii_domain(entry.domain) for entry in rotations.dkim.sign if entry.keys == "auto"]
        self._pause = rotation.pause(rotations.dkim.rotate_seen)
        self._waiting: set[str] = set()
        self._looks: list[tuple[float, str]] = []  # a heap: when each of them is looked for again
        self._at = 0  # of the domains that are gone through
        self._begun = self._next = self._asked = float("-inf")
        self._asking = False

    def work(self) -> bool:
        """One domain's look at DNS, or a slice of the search."""
        now = self._ticks()
        if self._looks and self._looks[0][0] <= now:
            _, due = heapq.heappop(self._looks)
            self._waiting.remove(due)
            if self._do(due, self._rotations.advance):
                took = self._ticks() - now
                self._wait(due, now + max(self._pause, _DEAD * took if took > _SLOW else 0.0))
            return True
        return self._search(now) if now >= self._next else False

    def _search(self, now: float) -> bool:
        if self._at == 0:
            self._begun, self._asking = now, now - self._asked >= self._begin_every()
        for domain in self._domains[self._at : self._at + _SLICE]:
            if self._asking:
                self._do(domain, self._rotations.begin_due)
            if domain not in self._waiting and self._do(domain, self._rotations.stirs):
                self._wait(domain, now)
        self._at += _SLICE
        if self._at < len(self._domains):
            return True
        self._at = 0
        self._asked = self._begun if self._asking else self._asked
        self._next = now + max(min(_FIND, max(self._pause, 1.0)), _REST * (self._ticks() - self._begun))
        return False

    def _wait(self, domain: str, until: float) -> None:
        self._waiting.add(domain)
        heapq.heappush(self._looks, (until, domain))

    def _begin_every(self) -> float:
        every = self._rotations.dkim.rotate_every
        return float("inf") if every is None else min(_BEGIN, every / _REST)

    def _do(self, domain: str, what: Callable[[str], bool]) -> bool:
        """One domain's trouble is not another's; it is told once a minute, and tried again."""
        try:
            return what(domain)
        except KeyProblem as problem:
            once.log(logging.ERROR, domain, "%s: keys cannot be rotated: %s", domain, problem)
            return what == self._rotations.advance
