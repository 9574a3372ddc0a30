"""Rates by From domain are of seven days, of what was decided, and bounded; so are the busiest logins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from postmeter.books.rates import Rates
from postmeter.store import database, figures
from postmeter.store.database import Database
from postmeter.store.fates import Group
from postmeter.store.figures import Names, Place

TODAY = 20_000
NOW = TODAY * 86_400.0 + 3600


@pytest.fixture
def book(tmp_path: Path) -> Database:
    return database.open(tmp_path / "journal.db")


def put(book: Database, rows: Iterable[tuple[int, str, str, str, int]]) -> None:
    """Day, From domain, login, what, how many."""
    places = Counter(
        {Place(day, Group(domain, login), "google", what): value for day, domain, login, what, value in rows}
    )
    with book.transaction() as link:
        figures.add(link, places, Names())


def test_rates_are_of_seven_days_and_of_what_was_decided(book: Database) -> None:
    put(book, [
        (TODAY, "example.com", "ann", "delivered", 890), (TODAY, "example.com", "ann", "soft", 10),
        (TODAY - 6, "example.com", "bob", "hard", 100), (TODAY, "example.com", "ann", "complained", 1),
        (TODAY, "example.com", "ann", "deferred", 5000), (TODAY - 7, "example.com", "ann", "hard", 9999),
    ])  # fmt: skip
    found = Rates(domains=["example.com"], logins=0, clock=lambda: NOW)(book)
    assert found == {
        ("rated_recipients", ("example.com",)): 1000.0,
        ("bounce_rate", ("example.com",)): 0.1,
        ("complaint_rate", ("example.com",)): 1 / 890,
    }


def test_domains_that_nobody_knows_are_one(book: Database) -> None:
    put(book, [(TODAY, f"d{number}.example", "ann", "hard", 1) for number in range(9)])
    found = Rates(domains=["example.com"], logins=0, clock=lambda: NOW)(book)
    assert {labels for _, labels in found} == {("other",)}
    assert found["rated_recipients", ("other",)] == 9


def test_only_the_busiest_logins_are_told_and_none_without_being_asked(book: Database) -> None:
    put(book, [(TODAY, "example.com", f"login{number}", "accepted", number + 1) for number in range(9)])
    put(book, [(TODAY, "example.com", "", "accepted", 99)])
    found = Rates(domains=[], logins=2, clock=lambda: NOW)(book)
    assert {labels[0] for name, labels in found if name == "login_recipients"} == {"login8", "login7"}
    assert found["login_recipients", ("login8", "accepted")] == 9.0
    assert not any(name == "login_recipients" for name, _ in Rates(domains=[], logins=0, clock=lambda: NOW)(book))


def test_a_login_is_one_in_any_spelling(book: Database) -> None:
    """As for quotas: whoever spells it anew for each message is the busiest none the less."""
    put(book, [(TODAY, "example.com", login, "accepted", 2) for login in ("Ann@example.com", "ANN@EXAMPLE.COM")])
    put(book, [(TODAY, "example.com", "bob", "accepted", 3), (TODAY - 1, "example.com", "ann@example.com", "hard", 1)])
    found = Rates(domains=[], logins=1, clock=lambda: NOW)(book)
    assert found["login_recipients", ("ann@example.com", "accepted")] == 4
    assert {labels[0] for name, labels in found if name == "login_recipients"} == {"ann@example.com"}
    told = figures.breakdowns(book, since=TODAY - 6, until=TODAY + 1, by=["login"])["login"]
    assert told == {"ann@example.com": Counter(accepted=4, hard=1), "bob": Counter(accepted=3)}


def test_a_scrape_reads_figures_once_a_minute(book: Database) -> None:
    now = [NOW]
    rates = Rates(domains=["example.com"], logins=0, clock=lambda: now[0])
    assert rates(book) == {}
    put(book, [(TODAY, "example.com", "ann", "hard", 1)])
    now[0] += 59
    assert rates(book) == {}
    now[0] += 2
    assert rates(book)["bounce_rate", ("example.com",)] == 1.0
    now[0] -= 10**6  # a clock that was put back
    assert rates(book) == {}
