"""Rotations with real name servers, files and a real journal; killed at any moment, and by two at once."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from postmeter.books import keyrotation
from postmeter.books.keyrotation import Rotations, RotationWork
from postmeter.config.schema import Dkim, KeyEntry, SignEntry
from postmeter.config.values import resolver
from postmeter.events import KeyChanged
from postmeter.runtime.logs import OnceAMinute
from postmeter.store.journal import Journal
from postmeter.submission import keydir, keylist, newkeys
from postmeter.submission.dnskeys import Dns
from postmeter.submission.newkeys import Owner
from tests.lab.killed import Killer, killed_at
from tests.lab.zones import Zones

DOMAIN = "example.com"
DAY0 = 1_793_700_000.0  # 2026-11-03
HOUR, DAY = 3600.0, 86_400.0
ME = Owner(os.geteuid(), os.getegid())
OLD, NEW = "pm20261103e", "pm20261103be"


@dataclass
class Rotating:
    """One domain with one Ed25519 key that signs; a new one of these is a restart."""

    folder: Path
    zones: Zones
    settings: dict[str, Any] = field(default_factory=dict)
    now: float = DAY0
    rotations: Rotations = field(init=False)

    def __post_init__(self) -> None:
        self.path = newkeys.open_folder(self.folder / "keys", DOMAIN, ME)
        if not list(self.path.glob("*.pem")):
            newkeys.add(self.path, ["ed25519"], now=DAY0, signs=True, owner=ME)
            os.utime(self.path / f"{OLD}.pem", (DAY0, DAY0))
            self.publish(OLD)
        self.dkim = Dkim(
            sign=(SignEntry(domain=DOMAIN, keys="auto"),), keys_dir=self.folder / "keys",
            resolvers=(resolver(self.zones.address),), **self.settings,
        )  # fmt: skip
        self.journal = Journal(self.folder / "journal.db", host="mx")
        dns = Dns(self.dkim.resolvers, port=self.zones.port)
        self.rotations = Rotations(self.dkim, dns, self.journal.database, "mx", ME, lambda: self.now)
        self.work = RotationWork(self.rotations, ticks=lambda: self.now, close=lambda: None)

    def rotate(self) -> None:
        newkeys.add(self.path, ["ed25519"], now=self.now, signs=False, owner=ME)

    def publish(self, selector: str) -> None:
        keys = {key.selector: key for key in keylist.of_folder(self.folder / "keys", DOMAIN)}
        self.zones.publish(keys[selector].name, keys[selector].expected().text)

    def withdraw(self, selector: str) -> None:
        self.zones.withdraw(f"{selector}._domainkey.{DOMAIN}")

    def goes_by(self, seconds: float, *, step: float = 900.0) -> None:
        """Time passes, and the books work in it."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(self.now + step, until)
            while self.work.work():
                pass

    def signing(self) -> list[str]:
        return sorted(keydir.active(self.path))

    def changes(self) -> list[tuple[str, str]]:
        events = [entry.event for entry in self.journal.events()]
        return [(event.change, event.selector) for event in events if isinstance(event, KeyChanged)]


@pytest.fixture
def zones() -> Iterator[Zones]:
    with Zones(DOMAIN) as zones:
        yield zones


@pytest.fixture
def rotating(tmp_path: Path, zones: Zones) -> Rotating:
    return Rotating(tmp_path, zones)


def test_a_new_key_signs_by_itself_when_all_have_shown_it_for_a_day(rotating: Rotating) -> None:
    rotating.rotate()
    rotating.goes_by(2 * DAY, step=HOUR)
    assert rotating.signing() == [OLD]
    rotating.publish(NEW)
    rotating.goes_by(DAY)
    assert rotating.signing() == [OLD]
    rotating.goes_by(HOUR)
    assert rotating.signing() == [NEW]
    assert rotating.changes() == [("pending", NEW), ("active", NEW), ("retired", OLD)]


def test_the_old_key_is_removable_when_its_mail_has_arrived(rotating: Rotating) -> None:
    rotating.rotate()
    rotating.publish(NEW)
    rotating.goes_by(DAY + HOUR)
    rotating.goes_by(7 * DAY - HOUR, step=HOUR)
    assert ("removable", OLD) not in rotating.changes()
    rotating.goes_by(2 * HOUR, step=HOUR)
    assert rotating.changes()[3:] == [("removable", OLD)]
    rotating.goes_by(3 * DAY, step=HOUR)
    assert len(rotating.changes()) == 4


@pytest.mark.parametrize("who", ["ns1.example.com", "ns2.example.com", "resolver"])
def test_one_who_does_not_show_it_keeps_it_from_signing(rotating: Rotating, who: str) -> None:
    rotating.rotate()
    rotating.publish(NEW)
    one = rotating.zones.resolver if who == "resolver" else rotating.zones.servers[who]
    record = one.records.pop(f"{NEW}._domainkey.{DOMAIN}")
    rotating.goes_by(2 * DAY)
    assert rotating.signing() == [OLD]
    one.records[f"{NEW}._domainkey.{DOMAIN}"] = record
    rotating.goes_by(DAY + HOUR)
    assert rotating.signing() == [NEW]


def test_a_break_begins_the_day_anew(rotating: Rotating) -> None:
    rotating.rotate()
    rotating.publish(NEW)
    rotating.goes_by(23 * HOUR)
    rotating.withdraw(NEW)
    rotating.goes_by(900)
    rotating.publish(NEW)
    rotating.goes_by(23 * HOUR)
    assert rotating.signing() == [OLD]
    rotating.goes_by(2 * HOUR)
    assert rotating.signing() == [NEW]


def test_silence_for_a_while_costs_no_more_than_that(rotating: Rotating) -> None:
    rotating.rotate()
    rotating.publish(NEW)
    rotating.goes_by(20 * HOUR)
    rotating.zones.servers["ns1.example.com"].faults["*"] = "SERVFAIL"
    rotating.goes_by(HOUR / 2)
    rotating.zones.servers["ns1.example.com"].faults.clear()
    rotating.goes_by(4 * HOUR)
    assert rotating.signing() == [NEW]


def test_a_restart_goes_on_where_it_was(rotating: Rotating, tmp_path: Path) -> None:
    rotating.rotate()
    rotating.publish(NEW)
    rotating.goes_by(23 * HOUR)
    again = Rotating(tmp_path, rotating.zones, now=rotating.now)
    again.goes_by(2 * HOUR)
    assert again.signing() == [NEW]


def test_who_was_away_for_long_begins_anew(rotating: Rotating, tmp_path: Path) -> None:
    """Nobody saw what DNS showed meanwhile."""
    rotating.rotate()
    rotating.publish(NEW)
    rotating.goes_by(HOUR)
    again = Rotating(tmp_path, rotating.zones, now=rotating.now + 2 * DAY)
    again.goes_by(HOUR)
    assert again.signing() == [OLD]
    again.goes_by(DAY)
    assert again.signing() == [NEW]


def test_another_key_under_the_same_selector_inherits_nothing(rotating: Rotating) -> None:
    rotating.rotate()
    rotating.publish(NEW)
    rotating.goes_by(23 * HOUR)
    (rotating.path / f"{NEW}.pem").write_bytes(newkeys.generate("ed25519"))
    rotating.publish(NEW)
    rotating.goes_by(2 * HOUR)
    assert rotating.signing() == [OLD]
    rotating.goes_by(DAY)
    assert rotating.signing() == [NEW]


def test_a_pending_key_that_was_deleted_ends_the_rotation(rotating: Rotating) -> None:
    rotating.rotate()
    rotating.goes_by(HOUR)
    (rotating.path / f"{NEW}.pem").unlink()
    rotating.goes_by(3 * DAY, step=HOUR)
    assert rotating.signing() == [OLD]


def test_a_key_that_nobody_publishes_is_told_of_again_each_week(rotating: Rotating) -> None:
    rotating.rotate()
    rotating.goes_by(15 * DAY, step=6 * HOUR)
    assert rotating.changes() == [("pending", NEW), ("waiting", NEW), ("waiting", NEW)]


def test_rotate_every_asks_by_itself_and_once(rotating: Rotating, tmp_path: Path) -> None:
    by_itself = Rotating(tmp_path, rotating.zones, {"rotate_every": 30 * DAY})
    by_itself.goes_by(29 * DAY, step=12 * HOUR)
    assert [path.stem for path in by_itself.path.glob("*.pem")] == [OLD]
    by_itself.goes_by(3 * DAY, step=6 * HOUR)
    [new] = sorted({path.stem for path in by_itself.path.glob("*.pem")} - {OLD})
    assert by_itself.changes() == [("pending", new)]
    by_itself.publish(new)
    by_itself.goes_by(DAY + HOUR)
    assert by_itself.signing() == [new]
    by_itself.goes_by(5 * DAY, step=6 * HOUR)
    assert len(list(by_itself.path.glob("*.pem"))) == 2


def test_a_listed_file_is_never_rewritten(rotating: Rotating, tmp_path: Path) -> None:
    entry = SignEntry(domain=DOMAIN, keys=(KeyEntry(selector=OLD, file=rotating.path / f"{OLD}.pem"),))
    listed = Rotating(tmp_path, rotating.zones, {"rotate_every": 30 * DAY})
    dkim = Dkim(sign=(entry,), keys_dir=tmp_path / "keys", rotate_every=30 * DAY)
    rotations = Rotations(dkim, listed.rotations.dns, listed.journal.database, "mx", ME, lambda: DAY0 + 99 * DAY)
    work = RotationWork(rotations, ticks=lambda: DAY0, close=lambda: None)
    while work.work():
        pass
    assert [path.name for path in listed.path.iterdir()] == [f"{OLD}.pem"]


def test_two_books_never_both_write(rotating: Rotating, caplog: pytest.LogCaptureFixture) -> None:
    """The other one has the directory: this one says so and comes again."""
    keyrotation.once = OnceAMinute(keyrotation.log)
    rotating.rotate()
    rotating.publish(NEW)
    with newkeys.locked(rotating.path, patience=0.0):
        rotating.goes_by(DAY + HOUR)
        assert rotating.signing() == [OLD]
    assert "somebody else is changing keys there" in caplog.text
    rotating.goes_by(HOUR)
    assert rotating.signing() == [NEW]


def test_killed_at_any_step_the_change_is_whole_or_not_there(rotating: Rotating) -> None:
    """A child is ended at its nth call that changes something, in files or in the database, until one gets through."""
    rotating.rotate()
    rotating.publish(NEW)
    rotating.goes_by(DAY - HOUR)
    killed = 0
    for nth in itertools.count(1):
        if killed_at(nth, partial(_two_hours, rotating)):
            killed += 1
            assert rotating.signing() in ([OLD], [NEW]), f"killed at step {nth}"
        else:
            break
    assert killed > 10
    rotating.goes_by(DAY + HOUR)
    assert rotating.signing() == [NEW]
    assert sorted(rotating.changes()) == [("active", NEW), ("pending", NEW), ("retired", OLD)]


_CALLS = ("fsync", "replace", "fchmod", "open", "listdir")


def _two_hours(rotating: Rotating, killer: Killer) -> None:
    """In a child."""
    mine = Rotating(rotating.folder, rotating.zones, now=rotating.now)
    database = mine.journal.database
    killer.arm(_CALLS)
    database.transaction = killer.armed(database.transaction)  # type: ignore[method-assign]
    mine.goes_by(2 * HOUR)


def test_dead_zones_keep_no_other_key_waiting(rotating: Rotating) -> None:
    """A look at each takes half a minute; one that answers must be seen within four pauses, or its day begins anew."""
    looks: list[tuple[float, str]] = []

    class Slow(Rotations):
        def stirs(self, domain: str) -> bool:
            return True

        def advance(self, domain: str) -> bool:
            looks.append((rotating.now, domain))
            rotating.now += 30.0 if domain != DOMAIN else 0.1
            return True

    dead = tuple(SignEntry(domain=f"dead{nth}.example", keys="auto") for nth in range(200))
    rotating.rotations = Slow(
        replace(rotating.dkim, sign=(*rotating.dkim.sign, *dead)), rotating.rotations.dns,
        rotating.journal.database, "mx", ME, lambda: rotating.now,
    )  # fmt: skip
    rotating.work = RotationWork(rotating.rotations, ticks=lambda: rotating.now, close=lambda: None)
    rotating.goes_by(DAY)
    seen = [when for when, domain in looks if domain == DOMAIN]
    assert max(b - a for a, b in pairwise(seen[1:])) < HOUR
