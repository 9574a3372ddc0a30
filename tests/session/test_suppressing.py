"""From the journal to the list: bounces and complaints that the books read, reports that they send, in real processes'
places: the database on disk, an SMTP server of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from postmeter.books.following import Follower
from postmeter.books.mailing import Mailer
from postmeter.books.notices import Notices
from postmeter.books.removed import Removed, forget
from postmeter.config.schema import Quota
from postmeter.config.schema import Suppression as Settings
from postmeter.config.values import InetAddress
from postmeter.events import Bounced, Complained, Mistrusted, Sent, Submitted, Suppressed, Unsubscribed
from postmeter.store import lessons, notices, suppression, veil
from postmeter.store.accounts import Charge
from postmeter.store.journal import Journal
from postmeter.store.lessons import Rules
from postmeter.store.outbox import Outbox
from postmeter.store.settle import Settler
from postmeter.store.suppression import Choice, Lookup, Suppression
from tests.growth import growth
from tests.lab.ports import free_port
from tests.lab.sink import Sink
from tests.lab.waiting import wait_for

NOW, DAY = 1_800_000_000.0, 86_400.0


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal.db", host="here")
    yield made
    made.close()


def follow(journal: Journal, **settings: object) -> None:
    """A new follower each time: nothing is kept but what is in the journal."""
    rules = Rules(Settings(**settings), "here")  # type: ignore[arg-type]
    follower = Follower(journal, domains=["example.com"], learn=partial(lessons.learn, rules=rules))
    while follower.work():
        pass


def listed(journal: Journal) -> list[Suppression]:
    return list(suppression.select(journal.database, Choice()))


def submitted(number: int, *to: str, when: float = NOW, mail_from: str = "alice@example.com") -> Submitted:
    return Submitted(
        source=f"eom:{number}", time=when, queue_id=f"Q{number}", reference=f"{number:016x}",
        message_id=f"<{number}@example.com>", login="alice@example.com", sender="alice@example.com",
        service="ORIGINATING", mail_from=mail_from, from_domain="example.com", recipients=to, size=1,
    )  # fmt: skip


def bounced(number: int, recipient: str, *, when: float = NOW, hard: bool = True, provider: str = "other") -> Bounced:
    return Bounced(
        source=f"log:{number}:{recipient}", time=when, queue_id=f"Q{number}", reference=f"{number:016x}",
        login="alice@example.com", from_domain="example.com", recipient=recipient, dsn="5.1.1", hard=hard,
        text="550 5.1.1 no such user", provider=provider,
    )  # fmt: skip


def removed(number: int, recipient: str, *, observed: bool = False, quiet: bool = False) -> Suppressed:
    return Suppressed(
        source=f"suppressed:{number:016x}:{recipient}", time=NOW, queue_id=f"Q{number}", reference=f"{number:016x}",
        login="alice@example.com", from_domain="example.com", recipient=recipient, reason="bounced", scope="everywhere",
        observed=observed, quiet=quiet, evidence="550 5.1.1 no such user", since=NOW - DAY,
    )  # fmt: skip


def test_two_hard_bounces_of_two_messages_suppress(journal: Journal) -> None:
    journal.record([submitted(1, "bob@example.net"), bounced(1, "Bob@example.net")])
    follow(journal)
    assert listed(journal) == []
    journal.record([submitted(2, "bob@example.net"), bounced(2, "bob@example.net", when=NOW + DAY)])
    follow(journal)
    [one] = listed(journal)
    assert (one.address, one.scope, one.count) == ("bob@example.net", "domain:example.com", 2)
    assert (one.evidence, one.until) == ("550 5.1.1 no such user", NOW + 31 * DAY)
    follow(journal)
    assert listed(journal) == [one], "to follow again changes nothing"


def test_a_complaint_and_an_unsubscribe_suppress_each_in_its_scope(journal: Journal) -> None:
    sent = Sent(
        source="log:1", time=NOW, queue_id="Q1", reference=f"{1:016x}", login="alice@example.com",
        from_domain="example.com", recipient="bob@example.net",
    )  # fmt: skip
    complained = Complained(
        source="arf:1", time=NOW, reference=f"{1:016x}", login="alice@example.com", from_domain="example.com",
        recipient="bob@example.net",
    )  # fmt: skip
    left = Unsubscribed(
        source="unsubscribed:1", time=NOW, reference=f"{1:016x}", recipient="bob@example.net",
        scope="from:alice@example.com", from_domain="example.com", host="",
    )  # fmt: skip
    journal.record([submitted(1, "bob@example.net"), sent, complained, left])
    follow(journal)
    found = [(one.reason, one.scope, one.until) for one in listed(journal)]
    assert found == [
        ("complained", "domain:example.com", NOW + 400 * DAY),
        ("unsubscribed", "from:alice@example.com", None),
    ]


def test_a_provider_that_refuses_everybody_is_an_event_in_the_journal(journal: Journal) -> None:
    """In the transaction that learned it; webhooks and notices read it there."""
    names = [f"r{number}@example.net" for number in range(60)]
    journal.record([submitted(1, *names), *(bounced(1, name, provider="Google") for name in names)])
    follow(journal, hard=1)
    assert listed(journal) == []
    [told] = [entry.event for entry in journal.events(limit=500) if isinstance(entry.event, Mistrusted)]
    assert told.provider == "Google"
    assert 20 <= told.hard == told.recipients <= 60  # those of the piece of the journal in which it was seen


def test_what_is_removed_is_recorded_with_the_message(tmp_path: Path, journal: Journal) -> None:
    settler = Settler(tmp_path / "journal.db", host="here", tick=3600)
    settler.settle((), submitted(1, "carol@example.net"), {}, NOW, besides=[removed(1, "bob@example.net")])
    settler.close()
    assert [type(entry.event) for entry in journal.events()] == [Submitted, Suppressed]


def test_a_message_that_finds_no_room_has_removed_nobody(tmp_path: Path, journal: Journal) -> None:
    """It comes again, under another reference, and would be counted twice."""
    settler = Settler(tmp_path / "journal.db", host="here", tick=3600)
    charge = Charge(key="alice", unit="recipients", window=3600, limit=1, amount=2, text="1 recipient/hour")
    message = submitted(1, "carol@example.net", "dora@example.net")
    settled = settler.settle((charge,), message, {}, NOW, besides=[removed(1, "bob@example.net")])
    settler.close()
    assert settled.refused is not None
    assert journal.events() == []


def test_what_is_removed_goes_the_way_of_the_emergency_spool_too(tmp_path: Path, journal: Journal) -> None:
    path = tmp_path / "journal.db"
    settler = Settler(path, host="here", tick=3600, patience=0.01)
    with journal.database.transaction():
        settler.settle((), submitted(1, "carol@example.net"), {}, NOW, besides=[removed(1, "bob@example.net")])
    settler.close()
    assert journal.events() == []
    later = Settler(path, host="here", tick=0.01)
    later.open()
    wait_for(journal.events)
    later.close()
    assert [type(entry.event) for entry in journal.events()] == [Submitted, Suppressed]


class Desk:
    """The chore under a clock, and an SMTP server that may be away."""

    def __init__(self, journal: Journal, port: int) -> None:
        self.now, self.failures = NOW, 0
        mailer = Mailer(InetAddress("127.0.0.1", port), "postmaster@example.com", "mail.example.com")
        self.chore = Removed(
            journal, mailer, failed=self._fail, token=lambda: "0" * 32, chance=lambda: 0.5,
            now=lambda: self.now, ticks=lambda: self.now,
        )  # fmt: skip

    def _fail(self, where: str) -> None:
        self.failures += 1

    def run(self) -> None:
        while self.chore.work():
            pass


def test_a_sender_gets_one_report_a_message(journal: Journal) -> None:
    """With all that were removed; none where he asked for none, where it was only observed, where nobody was left."""
    journal.record(
        [
            submitted(1, "carol@example.net"),
            removed(1, "bob@example.net"),
            removed(1, "dave@example.net"),
            submitted(2, "carol@example.net"),
            removed(2, "quiet@example.net", quiet=True),
            submitted(3, "carol@example.net"),
            removed(3, "seen@example.net", observed=True),
            removed(4, "alone@example.net"),
            submitted(5, "carol@example.net", mail_from="no address"),
            removed(5, "lost@example.net"),
        ]
    )
    with Sink() as sink:
        desk = Desk(journal, sink.port)
        desk.run()
        [report] = sink.wait(1)
        desk.run()
        assert len(sink.deliveries) == 1
    assert (report.mail_from, report.rcpt_to) == (b"", (b"alice@example.com",))
    assert b"bob@example.net" in report.data
    assert b"dave@example.net" in report.data
    assert Outbox(journal.database).topics() == {}
    assert not notices.knows(journal.database, "0" * 32, now=NOW), "the id is good for one message"


def test_a_server_that_is_away_delays_the_report(journal: Journal) -> None:
    """And a restart meanwhile loses nothing."""
    journal.record([submitted(1, "carol@example.net"), removed(1, "bob@example.net")])
    desk = Desk(journal, free_port())
    desk.run()
    assert desk.failures == 1
    with Sink() as sink:
        desk = Desk(journal, sink.port)
        desk.run()
        assert sink.wait(1)


def test_reports_leave_other_notices_alone(journal: Journal) -> None:
    """They wait in the same outbox."""
    outbox = Outbox(journal.database)
    outbox.put([("warnings", 1), ("removed:1", 2)], position=("any", 2))
    forget(journal)
    assert list(outbox.topics()) == ["warnings"]


def test_the_administrator_gets_a_mail_about_a_provider(journal: Journal) -> None:
    names = [f"r{number}@example.net" for number in range(60)]
    with Sink() as sink:
        mailer = Mailer(InetAddress("127.0.0.1", sink.port), "postmaster@example.com", "mail.example.com")
        notices_ = Notices(
            journal, Quota(warn_to=("admin@example.net",)), mailer, room=lambda event: None, failed=lambda where: None,
            token=lambda: "0" * 32, chance=lambda: 0.5, now=lambda: NOW, ticks=lambda: NOW,
        )  # fmt: skip
        notices_.work()
        journal.record([submitted(1, *names), *(bounced(1, name, provider="Google") for name in names)])
        follow(journal, hard=1)
        while notices_.work():
            pass
        [told] = sink.wait(1)
    assert told.rcpt_to == (b"admin@example.net",)
    assert b"postmeter suppress remove --since 2027-01-15T07:00:00Z --provider Google" in told.data


def test_a_long_list_costs_a_message_no_more_than_a_short_one(tmp_path: Path) -> None:
    """Mail to somebody who is not on it: one search in an index."""
    lookups = {}
    for count in (100, 50_000):
        writer = Journal(tmp_path / f"{count}.db")
        with writer.database.transaction() as link:
            suppression.add(
                link, (Suppression(f"r{at}@example.net", "everywhere", "manual", NOW) for at in range(count))
            )
        lookups[count] = Lookup(writer.database, lambda: NOW)

    def ask(count: int) -> None:
        for number in range(300):
            assert lookups[count].find([f"somebody{number}@example.net"]) == {}

    assert growth(ask, 100, 50_000) < 3


def test_who_is_erased_is_still_suppressed_for_the_very_next_message(journal: Journal) -> None:
    """The first address to become a hash, under the eyes of a worker that looked a moment ago."""
    bob = Suppression("bob@example.net", "everywhere", "bounced", NOW, NOW + DAY)
    with journal.database.transaction() as link:
        suppression.lengthen(link, [bob])
    lookup = Lookup(journal.database, lambda: NOW)
    assert lookup.find(["bob@example.net"])
    with journal.database.transaction() as link:
        hashed = veil.hashed("bob@example.net", veil.key(link))
        suppression.hide(link, [(hashed, "bob@example.net", "everywhere", "bounced")])
    assert [one.address for one in lookup.find(["Bob@example.net"])["Bob@example.net"]] == [hashed]
