"""Mail that came back to the wrong host: judged by the host of its message, once, whoever is away meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from postmeter.books.elsewhere import GRACE, Elsewhere
from postmeter.books.returns import AWAY, KEPT, NEW, Leave, Returns, place
from postmeter.config.schema import Bounces
from postmeter.events import Bounced, Complained, Event, Submitted
from postmeter.feedback.arrivals import Arrivals, Envelope
from tests.lab.postgres import Postgres as Server
from tests.lab.reports import arf, dsn
from tests.session.test_returns import BASE, REFERENCE, RETURN_PATH, SUBMITTED, TAGGER
from tests.session.test_shipping import Host, ask, follow, taken

pytestmark = pytest.mark.usefixtures("needs_postgres")

_numbers = iter(range(100))


@pytest.fixture(scope="module")
def server(needs_postgres: None) -> Iterator[Server]:
    with Server() as server:
        yield server


class Site(Host):
    """A host that reads what comes back to it. A second of it is an hour of the tests of shipping."""

    def __init__(self, folder: Path, url: str, name: str) -> None:
        state = folder / name
        state.mkdir()
        super().__init__(state, url, name)
        self.new, self.kept, self.away = (Arrivals(place(state, which)) for which in (NEW, KEPT, AWAY))
        self.returns = Returns(
            self.journal, state, bounces=Bounces(domains={"example.com": BASE}), tagger=TAGGER, leave=Leave(),
            clock=lambda: self.now, away=self.away,
        )  # fmt: skip
        exchange = Elsewhere(self.journal, away=self.away, new=self.new, kept=self.kept, now=lambda: self.now)
        self.shipper._besides = (*self.shipper._besides, exchange)

    def come(self, raw: bytes, to: str = RETURN_PATH) -> None:
        self.new.put(Envelope(time=self.now, sender="", recipients=(to,)), raw)
        self.turn()

    def turn(self, *events: Event) -> None:
        self.ship(*events)
        while self.returns.work():
            pass
        self.ship()
        while self.returns.work():
            pass

    def told(self) -> list[Event]:
        return [entry.event for entry in self.journal.events() if not isinstance(entry.event, Submitted)]

    def waiting(self) -> list[str]:
        return [*self.new.names(), *self.away.names()]


@pytest.fixture
def sites(tmp_path: Path, server: Server) -> list[Site]:
    url = server.new_database(f"elsewhere{next(_numbers)}")
    return [Site(tmp_path, url, name) for name in ("one", "two")]


def test_a_bounce_at_another_host_is_recorded_by_the_one_whose_message_it_is(sites: list[Site]) -> None:
    one, two = sites
    one.turn(SUBMITTED)
    two.come(dsn("reader@example.net", to=RETURN_PATH))
    one.turn()
    [event] = one.told()
    assert isinstance(event, Bounced)
    assert (event.reference, event.recipient) == (REFERENCE.hex(), "Reader@example.net")
    assert two.told() == []
    assert [*one.waiting(), *two.waiting(), *one.kept.names(), *two.kept.names()] == []
    assert ask(one.url, "SELECT name FROM returned") == []


def test_a_complaint_that_only_names_the_message_finds_it_too(sites: list[Site]) -> None:
    one, two = sites
    one.turn(SUBMITTED)
    follow(one)
    two.come(arf("reader@example.net", message_id="<1@example.com>"), to="fbl@example.com")
    one.turn()
    assert [type(event) for event in one.told()] == [Complained]


def test_it_waits_for_the_database_and_for_a_host_that_is_behind(sites: list[Site], server: Server) -> None:
    one, two = sites
    two.turn()
    server.stop()
    two.come(dsn("reader@example.net", to=RETURN_PATH))
    assert len(two.away.names()) == 1
    server.start()
    two.turn()
    assert len(two.away.names()) == 1, "nobody has shipped that message yet"
    one.turn(SUBMITTED)
    two.turn()
    one.turn()
    assert [type(event) for event in one.told()] == [Bounced]
    assert two.waiting() == []


def test_what_no_host_knows_is_kept_for_a_person(sites: list[Site]) -> None:
    _, two = sites
    two.turn(taken())
    two.come(arf("reader@example.net", message_id="<nobody's@example.com>"), to="fbl@example.com")
    assert len(two.kept.names()) == 1
    two.come(dsn("reader@example.net", to=RETURN_PATH))
    assert len(two.kept.names()) == 1
    two.now += GRACE
    two.turn()
    assert len(two.kept.names()) == 2
    assert two.waiting() == []
    assert two.told() == []
    assert two.journal.totals()["feedback_total", ("untrusted",)] == 2


def test_who_is_killed_between_counting_and_removing_counts_a_stranger_s_once(sites: list[Site]) -> None:
    _, two = sites
    for name in ("<nobody's@example.com>", "<another@example.com>"):
        two.new.put(Envelope(time=two.now, sender="", recipients=("fbl@example.com",)), arf("x@y", message_id=name))
    while two.returns.work():
        pass
    there = {name: (two.away.directory / name).read_bytes() for name in two.away.names()}
    two.turn(taken())
    for name, octets in there.items():
        (two.away.directory / name).write_bytes(octets)
    two.turn()
    assert (two.waiting(), sorted(two.kept.names())) == ([], sorted(there))
    assert two.journal.totals()["feedback_total", ("untrusted",)] == 2


def test_to_get_it_twice_records_it_once(sites: list[Site]) -> None:
    """Killed between its own disk and the database, a host fetches it again."""
    one, two = sites
    one.turn(SUBMITTED)
    two.come(dsn("reader@example.net", to=RETURN_PATH))
    again = ask(one.url, "SELECT journal, name, time, sender, recipients, message FROM returned")
    one.turn()
    ask(one.url, "INSERT INTO returned VALUES (%s, %s, %s, %s, %s, %s)", *again[0])
    one.turn()
    assert [type(event) for event in one.told()] == [Bounced]
    assert one.journal.totals()["feedback_total", ("bounce",)] == 1
