"""`postmeter links`: what it blocks, by whatever name it is told, and how the tracking server's list follows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from postmeter.books.blocking import Blocking
from postmeter.cli.main import main
from postmeter.events import Submitted
from postmeter.store import database
from postmeter.store.journal import Journal
from postmeter.token import Mint
from postmeter.tracking import blocked


@dataclass
class Place:
    """A configuration and its state directory, with an empty journal."""

    config: Path
    state: Path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    config = tmp_path / "postmeter.yaml"
    config.write_text(f"journal: {{path: {tmp_path}/state/journal.db}}\n")
    (tmp_path / "state").mkdir()
    Journal(tmp_path / "state" / "journal.db").close()
    return Place(config, tmp_path / "state")


def submitted(reference: bytes, *, login: str = "alice@example.com", number: int = 1) -> Submitted:
    return Submitted(
        source=f"eom:Q{number}:{number}",
        time=float(number),
        queue_id=f"Q{number}",
        reference=reference.hex(),
        message_id=f"<{number}@example.com>",
        login=login,
        sender=login,
        service="submission",
        mail_from=login,
        from_domain="example.com",
        recipients=("bob@example.net",),
        size=1,
    )


def links(place: Place, *words: str) -> int:
    return main(["links", *words, "-c", str(place.config)])


def listed(place: Place) -> blocked.Blocked:
    path = blocked.place(place.state)
    return blocked.parse(path.read_text()) if path.exists() else blocked.Blocked()


@pytest.mark.parametrize(
    "which", ["Q1", "<1@example.com>", "1@example.com", b"referenc".hex(), b"referenc".hex().upper(), "link", "cut"]
)
def test_a_message_is_blocked_by_any_of_its_names(place: Place, which: str) -> None:
    Journal(place.state / "journal.db").record([submitted(b"referenc"), submitted(b"otherref", number=2)])
    url = Mint([b"x" * 32]).link_url("http://a.example", reference=b"referenc", link=1, target="https://b.example/")
    word = {"link": url, "cut": url[:50]}.get(which, which)
    assert links(place, "block", "--message", word) == 0
    assert listed(place) == blocked.Blocked(frozenset({b"referenc"}))
    assert links(place, "unblock", "--message", word) == 0
    assert listed(place) == blocked.Blocked()


def test_a_blocked_login_s_messages_are_all_blocked_those_to_come_too(place: Place) -> None:
    journal = Journal(place.state / "journal.db")
    journal.record([submitted(b"referenc"), submitted(b"otherref", login="bob@example.com", number=2)])
    books = Blocking(database.open(place.state / "journal.db"), place.state)
    books.refresh()
    assert links(place, "block", "--login", "alice@example.com") == 0
    assert listed(place).messages == {b"referenc"}
    for number, reference in enumerate((b"thirdref", b"forthref"), 3):
        journal.record([submitted(reference, number=number)])
        books.refresh()
    assert listed(place).messages == {b"referenc", b"thirdref", b"forthref"}
    assert links(place, "unblock", "--login", "alice@example.com") == 0
    books.refresh()
    assert listed(place) == blocked.Blocked()


def test_a_login_is_the_same_in_any_case(place: Place) -> None:
    """Both as it is typed, and as its mail was sent before the block and after it."""
    journal = Journal(place.state / "journal.db")
    journal.record([submitted(b"referenc", login="Alice@example.com"), submitted(b"secondrf", number=2)])
    journal.record([submitted(b"otherref", login="bob@example.com", number=3)])
    journal.record([submitted(b"nologin-", login="", number=4)])
    books = Blocking(database.open(place.state / "journal.db"), place.state)
    assert links(place, "block", "--login", "ALICE@example.com") == 0
    assert listed(place).messages == {b"referenc", b"secondrf"}
    books.refresh()
    journal.record([submitted(b"fifthref", login="aLice@example.com", number=5)])
    books.refresh()
    assert listed(place).messages == {b"referenc", b"secondrf", b"fifthref"}
    assert links(place, "unblock", "--login", "alice@EXAMPLE.com") == 0
    assert listed(place) == blocked.Blocked()


def test_a_block_of_a_login_that_nobody_has_is_told(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """It is made all the same: that login may come."""
    Journal(place.state / "journal.db").record([submitted(b"referenc"), submitted(b"bobs-ref", login="bob", number=2)])
    assert links(place, "block", "--login", "Alice@Example.com") == 0
    assert links(place, "block", "--host", "alcie.example") == 0
    assert not capsys.readouterr().err
    assert links(place, "block", "--login", "alcie@example.com") == 0
    told = capsys.readouterr()
    assert told.out == "login alcie@example.com: now blocked\n"
    missed = 'postmeter links: no login "alcie@example.com" is in the journal'
    assert told.err == f"{missed}; did you mean alice@example.com?\n"


def test_a_pattern_of_logins_is_no_login(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert links(place, "block", "--login", "*@example.com") == 1
    assert capsys.readouterr().err == "postmeter links: that is no login; name one at a time\n"
    assert links(place, "unblock", "--login", "*@example.com") == 1


def test_a_block_of_a_login_as_it_was_typed_once_holds_and_can_be_lifted(place: Place) -> None:
    """0.1.0 kept them so."""
    Journal(place.state / "journal.db").record([submitted(b"referenc")])
    opened = database.open(place.state / "journal.db")
    with opened.transaction() as link:
        link.execute("INSERT INTO blocks VALUES ('login', 'Alice@example.com', 1.0)")
    Blocking(opened, place.state).refresh()
    assert listed(place).messages == {b"referenc"}
    assert links(place, "unblock", "--login", "Alice@example.com") == 0
    assert listed(place) == blocked.Blocked()


def test_books_put_an_older_list_right(place: Place) -> None:
    """Whoever wrote last, the list says what the database says, two seconds later at most."""
    books = Blocking(database.open(place.state / "journal.db"), place.state)
    links(place, "block", "--host", "evil.example")
    books.refresh()
    blocked.write(blocked.place(place.state), messages=[], hosts=[])
    books.refresh()
    assert listed(place).hosts == {"evil.example"}


def test_a_host_is_blocked_as_links_name_it_however_it_is_typed(place: Place) -> None:
    """Links hold A-labels; who reads of a phishing page sees U-labels."""
    assert links(place, "block", "--host", "Bücher.example") == 0
    assert links(place, "block", "--host", "*.BÜCHER.example") == 0
    assert links(place, "block", "--host", "u\u0308.example") == 0  # not yet in NFC
    assert listed(place).hosts == {"xn--bcher-kva.example", "*.xn--bcher-kva.example", "xn--tda.example"}
    assert links(place, "unblock", "--host", "bücher.example") == 0
    assert links(place, "block", "--host", "bücher .example") == 1


def test_hosts_are_blocked_by_name_or_all_below_a_name(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert links(place, "block", "--host", "EVIL.example") == 0
    assert links(place, "block", "--host", "*.bad.example") == 0
    assert links(place, "block", "--host", "not a host") == 1
    assert listed(place).hosts == {"evil.example", "*.bad.example"}
    capsys.readouterr()
    assert links(place, "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:] for line in lines] == [["host", "evil.example"], ["host", "*.bad.example"]]


def test_what_is_not_there_is_a_problem_and_wrong_usage_is_usage(place: Place) -> None:
    assert links(place, "block", "--message", "Q9") == 1
    assert links(place, "unblock", "--login", "alice@example.com") == 1
    assert links(place, "block") == 64
    assert links(place, "block", "--login", "a", "--host", "b") == 64
    assert links(place, "list") == 0
