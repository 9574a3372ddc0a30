"""The watch over keys in DNS: real name servers, a real journal, clocks that the test holds."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from postmeter.books import keywatch
from postmeter.books.keyfigures import of_keys
from postmeter.books.keywatch import KeyWatch, together
from postmeter.config.schema import Dkim, OpendkimTables, SignEntry
from postmeter.config.tablefile import table_file
from postmeter.config.values import resolver
from postmeter.events import KeyChanged
from postmeter.mail.draft import Figure
from postmeter.runtime.logs import OnceAMinute
from postmeter.store.journal import Journal
from postmeter.submission import keydir, keylist, newkeys
from postmeter.submission.dnskeys import Dns
from postmeter.submission.keydir import KeyState
from postmeter.submission.newkeys import Owner
from tests.lab.dns import SILENCE, NameServer

DAY = 1_793_700_000.0
HOUR = 3600.0
ME = Owner(os.geteuid(), os.getegid())


@dataclass
class Watching:
    """The watch of some domains, each with one Ed25519 key; a new one is a restart."""

    folder: Path
    server: NameServer
    domains: tuple[str, ...] = ("example.com",)
    every: float = HOUR
    now: float = DAY
    watch: KeyWatch = field(init=False)

    def __post_init__(self) -> None:
        for domain in self.domains:
            path = newkeys.open_folder(self.folder / "keys", domain, ME)
            if not list(path.glob("*.pem")):
                newkeys.add(path, ["ed25519"], now=DAY, signs=True, owner=ME)
        self.dkim = Dkim(
            sign=tuple(SignEntry(domain=domain, keys="auto") for domain in self.domains),
            keys_dir=self.folder / "keys", check_every=self.every,
            resolvers=(resolver(f"127.0.0.1:{self.server.port}"),),
        )  # fmt: skip
        self.journal = Journal(self.folder / "journal.db", host="mx")
        self.watch = KeyWatch(
            self.dkim, Dns(self.dkim.resolvers), self.journal.database, host="mx", now=lambda: self.now,
            ticks=lambda: self.now, close=lambda: None,
        )  # fmt: skip

    def publish(self, domain: str = "example.com") -> None:
        for key in keylist.of_folder(self.folder / "keys", domain):
            self.server.records[key.name] = key.expected().text

    def withdraw(self) -> None:
        self.server.records.clear()

    def look(self, *, later: float = 0.0) -> None:
        """A whole walk."""
        self.now += later
        while self.watch.work():
            pass

    def changes(self) -> list[str]:
        events = [entry.event for entry in self.journal.events()]
        return [event.change for event in events if isinstance(event, KeyChanged)]

    def figures(self, *domains: str) -> Mapping[Figure, float]:
        return of_keys(self.journal.database, domains or ("example.com",))

    def figure(self, domain: str = "example.com") -> float | None:
        return next((value for (_, labels), value in self.figures().items() if labels[:1] == (domain,)), None)


@pytest.fixture
def server() -> Iterator[NameServer]:
    with NameServer() as server:
        yield server


@pytest.fixture
def watching(tmp_path: Path, server: NameServer) -> Watching:
    return Watching(tmp_path, server)


def test_a_key_that_dns_shows_is_1_and_nobody_is_told(watching: Watching) -> None:
    watching.publish()
    watching.look()
    assert (watching.figure(), watching.changes()) == (1.0, [])


def test_a_key_that_stops_matching_is_told_once_within_check_every(
    watching: Watching, caplog: pytest.LogCaptureFixture
) -> None:
    watching.publish()
    watching.look()
    watching.withdraw()
    for _ in range(5):
        watching.look(later=HOUR)
    assert (watching.figure(), watching.changes()) == (0.0, ["failed"])
    assert caplog.text.count("pm20261103e._domainkey.example.com failed: missing: ") == 1
    event = next(entry.event for entry in watching.journal.events())
    assert isinstance(event, KeyChanged)
    assert (event.domain, event.selector, event.time) == ("example.com", "pm20261103e", DAY + HOUR)
    assert "there is no such name" in event.what
    assert event.record.startswith("v=DKIM1; k=ed25519; p=")


def test_it_is_told_when_it_is_mended_and_sooner_than_it_was_asked_for(watching: Watching) -> None:
    watching.look()
    assert watching.changes() == ["failed"]
    watching.publish()
    watching.look(later=HOUR / 6)
    assert (watching.figure(), watching.changes()) == (1.0, ["failed", "mended"])


def test_a_restart_forgets_nothing_and_tells_nothing_again(watching: Watching, tmp_path: Path) -> None:
    watching.look()
    again = Watching(tmp_path, watching.server, now=watching.now + HOUR)
    assert again.figure() == 0.0
    again.look()
    assert again.changes() == ["failed"]
    again.publish()
    once_more = Watching(tmp_path, watching.server, now=again.now + HOUR)
    once_more.look()
    assert once_more.changes() == ["failed", "mended"]


def test_a_restart_does_not_ask_again_what_was_asked_just_now(watching: Watching, tmp_path: Path) -> None:
    watching.publish()
    watching.look()
    asked = len(watching.server.asked)
    Watching(tmp_path, watching.server, now=watching.now + HOUR / 2).look()
    assert len(watching.server.asked) == asked


@pytest.mark.parametrize("fault", ["SERVFAIL", SILENCE])
def test_silence_is_no_failing_key(
    watching: Watching, fault: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key stays what it was, the page tells since when nobody knows, and so does the log."""
    monkeypatch.setattr(keywatch, "once", OnceAMinute(keywatch.log))
    watching.publish()
    watching.look()
    known = watching.figures()["dkim_checked_timestamp_seconds", ()]
    watching.server.faults["*"] = fault
    for _ in range(2):
        watching.look(later=HOUR)
    assert (watching.figure(), watching.changes()) == (1.0, [])
    assert watching.figures()["dkim_checked_timestamp_seconds", ()] == known == DAY
    assert "1 of 1 keys stay what they were, DNS does not tell" in caplog.text


def test_a_dead_resolver_is_left_alone_for_a_while_and_broken_zones_keep_nobody_waiting(
    tmp_path: Path, server: NameServer
) -> None:
    """After three slices without any answer the walk ends; one zone that fails does not end it."""
    watching = Watching(tmp_path, server, tuple(f"d{nth}.example" for nth in range(110)))
    server.faults["*"] = "SERVFAIL"
    watching.look()
    assert len(set(server.asked)) == 75
    server.faults = dict.fromkeys(server.asked[:1], "SERVFAIL")
    watching.look(later=HOUR)
    assert len(set(server.asked)) == 110
    assert len(watching.changes()) == 109


def test_a_key_nobody_ever_told_of_is_not_shown(watching: Watching) -> None:
    watching.server.faults["*"] = "SERVFAIL"
    watching.look()
    assert watching.figure() is None
    assert watching.figures()["dkim_checked_timestamp_seconds", ()] == DAY


def test_a_retired_key_is_watched_as_long_as_its_mail_is_on_its_way(watching: Watching) -> None:
    """It is no figure any more, but its record may not go yet."""
    path = keydir.folder(watching.dkim.keys_dir, "example.com")
    [old] = keydir.key_files(path)
    newkeys.add(path, ["ed25519"], now=DAY, signs=True, owner=ME)
    keydir.write_state(path, {old: KeyState("retired", DAY)})
    watching.publish()
    watching.look()
    del watching.server.records[f"{old}._domainkey.example.com"]
    watching.look(later=HOUR)
    assert (watching.figure(), watching.changes()) == (1.0, ["failed"])
    watching.look(later=8 * 24 * HOUR)
    assert watching.changes() == ["failed"]


def test_a_pending_key_is_nobodys_fault(watching: Watching) -> None:
    path = keydir.folder(watching.dkim.keys_dir, "example.com")
    watching.publish()
    newkeys.add(path, ["ed25519"], now=DAY, signs=False, owner=ME)
    watching.look()
    assert (watching.changes(), len(watching.figures())) == ([], 2)


def test_a_key_that_is_gone_is_forgotten(watching: Watching) -> None:
    watching.look()
    path = keydir.folder(watching.dkim.keys_dir, "example.com")
    newkeys.add(path, ["ed25519"], now=DAY + 24 * HOUR, signs=True, owner=ME)
    (path / "pm20261103e.pem").unlink()
    watching.publish()
    watching.look(later=HOUR)
    assert {labels for _, labels in watching.figures()} == {("example.com", "pm20261104e"), ()}


def test_a_domain_that_is_gone_is_forgotten(tmp_path: Path, server: NameServer) -> None:
    Watching(tmp_path, server, ("a.example", "b.example")).look()
    fewer = Watching(tmp_path, server, ("a.example",), now=DAY + HOUR)
    fewer.look()
    assert {labels for _, labels in fewer.figures("a.example", "b.example")} == {("a.example", "pm20261103e"), ()}


def test_other_domains_are_one_figure_that_is_0_when_one_of_them_fails(tmp_path: Path, server: NameServer) -> None:
    watching = Watching(tmp_path, server, ("a.example", "b.example", "c.example"))
    for domain in watching.domains:
        watching.publish(domain)
    watching.look()
    others = ("dkim_key_ok", ("other", "other"))
    assert watching.figures("a.example")[others] == 1.0
    assert others not in watching.figures(*watching.domains)
    server.records = {name: text for name, text in server.records.items() if "c.example" not in name}
    watching.look(later=HOUR)
    assert watching.figures("a.example")[others] == 0.0
    assert watching.figures("a.example")["dkim_key_ok", ("a.example", "pm20261103e")] == 1.0


def test_a_file_that_cannot_be_read_is_a_failing_key(watching: Watching) -> None:
    watching.publish()
    watching.look()
    path = keydir.folder(watching.dkim.keys_dir, "example.com") / "pm20261103e.pem"
    path.write_text("-----BEGIN PRIVATE KEY-----\n")
    watching.look(later=HOUR)
    assert (watching.figure(), watching.changes()) == (0.0, ["failed"])


def test_a_directory_that_cannot_be_read_stops_no_other(tmp_path: Path, server: NameServer) -> None:
    watching = Watching(tmp_path, server, ("a.example", "b.example"))
    watching.publish("b.example")
    (tmp_path / "keys" / "a.example" / keydir.STATE).write_text("{")
    watching.look()
    assert {labels for _, labels in watching.figures("a.example", "b.example")} == {("b.example", "pm20261103e"), ()}


def test_many_domains_are_asked_for_at_a_bounded_rate(tmp_path: Path, server: NameServer) -> None:
    """300 keys take three seconds, in pieces of a quarter of a second each."""
    watching = Watching(tmp_path, server, tuple(f"d{nth}.example" for nth in range(75)))
    for domain in watching.domains:
        watching.publish(domain)
    watching.watch._ticks = time.monotonic
    begun, pieces = time.monotonic(), 0
    while watching.watch.work():
        pieces += 1
    assert len(server.asked) == 75
    assert pieces == 3
    assert time.monotonic() - begun >= 75 / 100


def test_what_is_done_together_keeps_its_order_and_its_failures() -> None:
    assert together(lambda number: number * 2, range(50), at_once=8) == [number * 2 for number in range(50)]
    assert together(str, [], at_once=8) == []
    with pytest.raises(ZeroDivisionError):
        together(lambda number: 1 // number, [1, 0], at_once=8)
    busy = threading.Barrier(8, timeout=10)
    assert together(lambda number: busy.wait() >= 0, range(8), at_once=8) == [True] * 8


def test_a_kill_between_two_looks_doubles_nothing(watching: Watching, tmp_path: Path) -> None:
    """What is known and what is told are one transaction: a child is killed at random moments of it."""
    for nth in range(12):
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                Watching(tmp_path, watching.server, now=DAY + nth * HOUR).look()
            os._exit(0)
        time.sleep(0.01 * nth)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, 9)
        os.waitpid(child, 0)
    again = Watching(tmp_path, watching.server, now=DAY + 20 * HOUR)
    again.look()
    assert again.changes() == ["failed"]


def test_opendkims_tables_are_watched_too(tmp_path: Path, server: NameServer) -> None:
    watching = Watching(tmp_path, server)
    path = newkeys.open_folder(tmp_path / "other", "shop.example", ME)
    [(selector, file)] = newkeys.add(path, ["ed25519"], now=DAY, signs=True, owner=ME).items()
    (tmp_path / "key.table").write_text(f"k1 shop.example:{selector}:{file}\n")
    (tmp_path / "signing.table").write_text("shop.example k1\n")
    tables = OpendkimTables(
        key_table=table_file(str(tmp_path / "key.table")), signing_table=table_file(str(tmp_path / "signing.table"))
    )
    watching.watch._dkim = replace(watching.dkim, opendkim_tables=tables)
    watching.look()
    assert watching.figures("shop.example")["dkim_key_ok", ("shop.example", selector)] == 0.0
