"""The ledger against an oracle that keeps every stamp: decisions over several limits, warnings, and what is saved."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from postmeter.events import Warned
from postmeter.store import database, ledger
from postmeter.store.accounts import Account, Charge, Settled
from postmeter.store.folio import Folio, Slot
from postmeter.store.migrations import MIGRATIONS
from postmeter.store.window import Window

NOW = 1_700_000_000.0
UNITS = ("messages", "recipients", "bytes")


def charge(key: str = "alice", *, limit: int = 10, amount: int = 1, window: int = 3600, **more: object) -> Charge:
    values: dict[str, object] = {"unit": "messages", "text": f"{limit} messages/hour"} | more
    return Charge(key=key, limit=limit, amount=amount, window=window, **values)  # type: ignore[arg-type]


@dataclass
class Oracle:
    """Every stamp, and when somebody was told of what; times in seconds on a clock that does not step back."""

    stamps: dict[Account, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    told: dict[tuple[Account, int], float] = field(default_factory=dict)

    def used(self, account: Account, now: float) -> int:
        return sum(amount for time, amount in self.stamps[account] if now - account[2] < time <= now)

    def room_at(self, one: Charge, now: float) -> float:
        """Tried at every moment at which something leaves."""
        moments = [now, *sorted(time + one.window for time, _ in self.stamps[one.account] if time + one.window > now)]
        fits = (at for at in moments if self.used(one.account, at) + one.amount <= one.limit)
        return next(fits, float("inf"))

    def settle(self, charges: Sequence[Charge], now: float) -> tuple[float | None, set[tuple[Account, int, int]]]:
        """When the refused charge has room, and account, percent and use of every warning."""
        refusing = [one for one in charges if one.enforce and self.room_at(one, now) > now]
        if refusing:
            worst = max(refusing, key=lambda one: self.room_at(one, now))
            percents = worst.warn if worst.amount <= worst.limit else ()
            return self.room_at(worst, now), self._tell(worst, percents, self.used(worst.account, now), now)
        told = set()
        for one in charges:
            before = self.used(one.account, now)
            after = before + one.amount
            told |= self._tell(one, [p for p in one.warn if before < p * one.limit / 100 <= after], after, now)
        for one in charges:
            self.stamps[one.account].append((now, one.amount))
        return None, told

    def _tell(self, one: Charge, percents: Sequence[int], used: int, now: float) -> set[tuple[Account, int, int]]:
        due = [p for p in percents if now - self.told.get((one.account, p), 0) >= one.window]
        self.told |= {(one.account, percent): now for percent in due}
        return {(one.account, percent, used) for percent in due}


class Disk:
    """A table of folios, read and written anew for each message, as by a process that was started for it."""

    def __init__(self) -> None:
        self.link = sqlite3.connect(":memory:", isolation_level=None)
        steps = dict(MIGRATIONS)
        for statement in str(steps["2026-11 folios"]).split(";"):
            self.link.execute(statement)

    def settle(self, charges: Sequence[Charge], now: float) -> tuple[Settled, list[Warned]]:
        page = ledger.load(self.link, charges)
        settled, told = page.settle(charges, now)
        page.save(self.link)
        return settled, told


def fact(event: Warned) -> tuple[Account, int, int]:
    return (f"{event.level}:{event.key}", event.unit, event.window), event.percent, event.used


CHARGES = st.lists(
    st.builds(
        charge,
        st.sampled_from(["alice", "bob"]),
        limit=st.integers(0, 12),
        amount=st.integers(1, 6),
        window=st.sampled_from([1, 60, 3600]),
        unit=st.sampled_from(UNITS),
        level=st.sampled_from(["sender", "domain", "total"]),
        enforce=st.booleans(),
        warn=st.sampled_from([(), (80,), (50, 80, 100)]),
    ),
    max_size=4,
    unique_by=lambda one: one.account,
)
STEPS = st.sampled_from([0.0, 0.5, 1.0, 59.0, 60.0, 700.0, 3600.0])


@given(st.lists(st.tuples(STEPS, CHARGES), max_size=40))
@settings(deadline=None)
def test_all_limits_are_decided_charged_and_told_of_as_if_every_stamp_were_kept(
    mail: list[tuple[float, list[Charge]]],
) -> None:
    """Fewer messages than a window keeps exactly."""
    oracle, disk, now = Oracle(), Disk(), NOW
    for step, charges in mail:
        now += step
        expected = oracle.settle(charges, now)
        settled, told = disk.settle(charges, now)
        refused = settled.refused
        room_at = None if refused is None else float("inf") if refused.room_at is None else refused.room_at
        assert (room_at, {fact(event) for event in told}) == expected
    disk.link.close()


def test_what_is_only_watched_is_told_of_when_it_passes_its_limit() -> None:
    watched = charge(limit=3, amount=2, enforce=False)
    disk = Disk()
    assert disk.settle([watched], NOW)[0].observed is None
    observed = disk.settle([watched], NOW + 1)[0].observed
    assert observed is not None
    assert (observed.charge, observed.used, observed.room_at) == (watched, 2, NOW + 3600)


def test_two_limits_on_one_account_charge_it_once() -> None:
    disk = Disk()
    disk.settle([charge(limit=10, amount=2), charge(limit=20, amount=2)], NOW)
    assert disk.settle([charge(limit=10, amount=8)], NOW)[0].refused is None
    assert disk.settle([charge(limit=10)], NOW)[0].refused is not None


def test_a_key_of_one_level_is_not_that_of_another() -> None:
    disk = Disk()
    disk.settle([charge(limit=1, level="sender")], NOW)
    assert disk.settle([charge(limit=1, level="domain")], NOW)[0].refused is None


def test_a_warning_names_the_account_what_is_used_of_it_and_whose_message_it_was() -> None:
    mine = charge(limit=10, amount=8, warn=(80,))
    _, (event,) = ledger.Ledger().settle([mine], NOW, login="alice@example.com")
    assert (event.login, event.level, event.key, event.used, event.limit, event.percent, event.text) == (
        "alice@example.com", "sender", "alice", 8, 10, 80, "10 messages/hour"
    )  # fmt: skip
    _, (event,) = ledger.Ledger().settle([replace(mine, level="domain")], NOW, login="alice@example.com")
    assert event.login == ""


def test_a_message_that_never_fits_says_nothing_about_what_is_used() -> None:
    settled, told = ledger.Ledger().settle([charge(limit=10, amount=11, warn=(80, 100))], NOW)
    assert settled.refused is not None
    assert (settled.refused.room_at, told) == (None, [])


def test_a_clock_that_was_ahead_keeps_nobody_from_being_warned() -> None:
    disk, mine = Disk(), charge(limit=2, warn=(50,))
    assert len(disk.settle([mine], NOW + 10**8)[1]) == 1
    told = [len(disk.settle([mine], NOW + later)[1]) for later in (0, 1, 2, 3599, 3600, 7200)]
    assert told == [0, 1, 0, 0, 0, 1]


def test_accounts_of_limits_that_nobody_has_any_more_leave_their_row() -> None:
    disk = Disk()
    disk.settle([charge(window=60), charge(window=3600)], NOW)
    disk.settle([charge(window=3600)], NOW + 61)
    [(state,)] = disk.link.execute("SELECT state FROM folios")
    assert list(Folio.unpack(state).slots) == [("messages", 3600)]


def test_accounts_that_a_message_does_not_charge_keep_what_they_hold() -> None:
    """Another rule's for another service, perhaps, until the very end of their window."""
    disk = Disk()
    disk.settle([charge(window=3600, limit=1), charge(window=86_400, limit=1)], NOW)
    for later in (60, 1799, 1801, 3599):
        disk.settle([charge(window=60)], NOW + later)
        assert disk.settle([charge(window=3600, limit=1)], NOW + later)[0].refused
    for later in (3601, 43_201, 86_399):
        disk.settle([charge(window=60)], NOW + later)
        assert disk.settle([charge(window=86_400, limit=1)], NOW + later)[0].refused
    assert disk.settle([charge(window=86_400, limit=1)], NOW + 86_400)[0].refused is None


@given(st.dictionaries(st.tuples(st.sampled_from(UNITS), st.integers(1, 2**31)), st.tuples(
    st.lists(st.tuples(st.integers(1, 1000), st.integers(1, 2**40)), max_size=60),
    st.dictionaries(st.integers(1, 100), st.integers(2 * 10**15, 10**16), max_size=3)), max_size=5))  # fmt: skip
def test_a_packed_folio_is_read_back_as_it_was(
    accounts: dict[tuple[str, int], tuple[list[tuple[int, int]], dict[int, int]]],
) -> None:
    folio, now = Folio(), 10**15
    for (unit, seconds), (entries, warned) in accounts.items():
        slot = folio.slot(unit, seconds)
        for gap, amount in entries:
            slot.window = slot.window.charged(now + gap, amount)
        slot.warned = warned
    ends, state = folio.pack(now)
    living = {key: slot for key, slot in folio.slots.items() if slot.ends() > now}
    back = {key: (slot.window, slot.warned) for key, slot in Folio.unpack(state).slots.items()}
    assert back == {key: (slot.window, slot.warned) for key, slot in living.items()}
    assert ends == max((slot.ends() for slot in living.values()), default=0)


GAPS = st.one_of(st.integers(-120, 120), st.integers(0, 90), st.just(3600), st.just(0))


@given(st.lists(st.tuples(GAPS, st.sampled_from([1, 1, 1, 7, 2**32 - 1, 2**32])), max_size=180), st.booleans())
@settings(deadline=None)
@example([(1, 1)] * 150, False)
@example([(1, 1), (-100, 1)], False)
def test_octets_are_charged_as_the_window_would_be(mail: list[tuple[int, int]], kept: bool) -> None:
    """Whatever comes between the charges, and over a read from the ledger at each of them (`kept`: at none)."""
    slot, window, now = Slot(3600 * 10**6), Window(3600 * 10**6), 10**15
    for gap, amount in mail:
        now += gap * 10**6
        slot = slot if kept else Slot(slot.length, slot.state())
        assert slot.ahead(now) == window.ahead(now)
        assert slot.settle(now) == sum(window.settled(now).amounts)
        assert slot.window == window.settled(now)
        slot.charge(now, amount)
        window = window.settled(now).charged(now, amount)
        assert (slot.state(), slot.ends()) == (window.pack(), window.empty_at())
        assert slot.window == window


@pytest.mark.parametrize("state", [b"\0", b"\7\0\1\0\0\0\0\0I", b"\0\1\1\0\1\0\0\0I"])
def test_what_pack_never_made_is_refused(state: bytes) -> None:
    with pytest.raises(ValueError, match=r"no folio|window"):
        Folio.unpack(state)


def test_usage_tells_levels_apart_and_reads_a_million_keys_in_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "_SLICE", 3)
    with closing(database.open(tmp_path / "journal.db")) as book:
        with book.transaction() as link:
            page = ledger.Ledger()
            page.settle([charge(f"u{n}", level=level) for n in range(7) for level in ("sender", "domain")], NOW)
            page.settle([charge("", level="total"), charge("u5", window=60)], NOW)
            page.save(link)
        senders = [(row.key, row.window) for row in ledger.each_usage(book, NOW, level="sender")]
        assert senders == [*((f"u{n}", 3600) for n in range(5)), ("u5", 60), ("u5", 3600), ("u6", 3600)]
        assert len(ledger.usage(book, NOW)) == 16
        assert [(row.level, row.key) for row in ledger.usage(book, NOW, level="total", key="")] == [("total", "")]
        assert [row.key for row in ledger.usage(book, NOW + 60, key="u5")] == ["u5"]
        assert (ledger.reset(book, "sender", "u5"), ledger.reset(book, "sender", "u5")) == (2, 0)
        assert [row.level for row in ledger.usage(book, NOW) if row.key == "u5"] == ["domain"]


def test_usage_tells_when_one_more_fits_under_a_limit() -> None:
    state = Window(3600 * 10**6).charged(int(NOW * 10**6), 4).charged(int((NOW + 60) * 10**6), 6)
    usage = ledger.Usage(level="sender", key="alice", unit="messages", window=3600, used=10, state=state, now=NOW + 90)
    assert [usage.room_at(limit) for limit in (11, 10, 6, 5)] == [NOW + 90, NOW + 3600, NOW + 3660, NOW + 3660]
    assert usage.room_at(0) is None


def test_a_reset_mends_what_cannot_be_read(tmp_path: Path) -> None:
    """SQLite has no checksums: what a disk gave back otherwise would keep a login from sending for ever."""
    with closing(database.open(tmp_path / "journal.db")) as book:
        with book.transaction() as link:
            page = ledger.Ledger()
            page.settle([charge()], NOW)
            page.save(link)
            link.execute("UPDATE folios SET state = x'09'")
            assert ledger.load(link, [charge()]).unreadable == {"sender:alice"}
        assert list(ledger.damaged(book)) == list(ledger.damaged(book, "sender:alice")) == ["sender:alice"]
        assert ledger.reset(book, "sender", "alice") == 1
        assert ledger.usage(book, NOW) == []


def test_one_keys_usage_and_idle_keys_are_found_by_an_index(tmp_path: Path) -> None:
    with closing(database.open(tmp_path / "journal.db")) as book:
        for condition in ("name = 'x'", "name > 'x' AND name < 'y' ORDER BY name", "idle <= 7"):
            plan = book.query(f"EXPLAIN QUERY PLAN SELECT * FROM folios WHERE {condition}")
            assert [row[3].split()[0] for row in plan] == ["SEARCH"]


def test_what_the_ledger_before_it_held_is_charged_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a database of the first version: a row an account, keys without a level."""
    path = tmp_path / "journal.db"
    old = [name for name, _ in MIGRATIONS].index("2026-11 levels of the ledger")
    monkeypatch.setattr(database, "MIGRATIONS", MIGRATIONS[:old])
    window = Window(3600 * 10**6).charged(int(NOW * 10**6), 9)
    with closing(database.open(path)) as book, book.transaction() as link:
        for unit, key in (("messages", "alice"), ("bytes", "alice"), ("messages", "domain:x")):
            row = (key, unit, 3600, window.empty_at(), window.pack())
            link.execute("INSERT INTO ledger VALUES (?, ?, ?, ?, ?)", row)
    monkeypatch.undo()
    with closing(database.open(path)) as book:
        found = {(row.level, row.key, row.unit): row.used for row in ledger.usage(book, NOW)}
        senders = {("sender", "alice", "messages"): 9, ("sender", "alice", "bytes"): 9}
        assert found == senders | {("sender", "domain:x", "messages"): 9}
        assert ledger.sweep(book, NOW + 86_400) == 0
        assert ledger.sweep(book, NOW + 3 * 86_400) == 2
