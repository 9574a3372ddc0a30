"""The brake from the journal up: what the books learn, whom a worker stops on it, and a season of a company's mail."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from postmeter.books.baselines import REMEMBERED, Baselines
from postmeter.config.schema import Brake, Quota, Suppression
from postmeter.events import Braked, Released, Submitted
from postmeter.mail.draft import Draft
from postmeter.mail.message import Client, Envelope, Message
from postmeter.store.database import Database
from postmeter.store.fates import Transition
from postmeter.store.journal import Journal
from postmeter.store.ledger import usage
from postmeter.store.lessons import Rules, learn
from postmeter.store.orders import Order, Standing, lift, put
from postmeter.store.profiles import SLICES, Profiles
from postmeter.store.settle import Settler
from postmeter.submission import record
from postmeter.submission.brake import Watch
from postmeter.submission.quota import Quotas
from postmeter.submission.record import Recorder
from tests.bench.brake import ABROAD, run
from tests.bench.company import Company

HOUR, DAY = 3600.0, 86_400.0
NOW = 1_763_460_000.0  # a Tuesday, 10:00 UTC
ALICE, BOB = "alice@example.com", "bob@example.com"
OFFICE = "192.0.2.7"


def mail(time: float, *to: str, login: str = ALICE, network: str = "192.0.2.0/24", held: str = "") -> Submitted:
    return Submitted(
        source=f"eom:{login}:{time}", time=time, queue_id=f"Q{time:.0f}", reference="", message_id="", login=login,
        sender=login, service="submission", mail_from=login, from_domain="example.com", recipients=to, size=1,
        network=network, facts={"held": held} if held else {},
    )  # fmt: skip


def a_month(login: str = ALICE) -> list[Submitted]:
    """Two letters a day to the same ten people."""
    return [
        mail(NOW - day * DAY - hour * HOUR, f"friend{day % 10}@example.org", login=login)
        for day in range(31, 0, -1)
        for hour in (0, 3)
    ]


class Host:
    """A database, its books, and as many workers as are asked for, under one clock."""

    def __init__(self, folder: Path) -> None:
        self.path, self.now = folder / "journal.db", NOW
        self.journal = Journal(self.path)
        self._settlers: list[Settler] = []
        self._number = 0

    def learn(self, *events: Submitted | Released) -> None:
        """By books that were started just now."""
        self.journal.record(events)
        books = Baselines(self.journal, learn=30 * DAY, clock=lambda: self.now)
        while books.work():
            pass

    def recorder(self, settings: Brake) -> Recorder:
        settler = Settler(self.path, tick=3600)
        self._settlers.append(settler)
        database = Database(self.path, sync="normal", readonly=True)
        watch = Watch(settings, Profiles(database), prefix=(24, 56), released=Standing(database, self.clock).released)
        writer = Database(self.path, sync="normal", readonly=False)

        def brake(braked: Braked) -> None:
            put(writer, Order(kind="brake", login=braked.login, value=braked.evidence, since=braked.time))

        return Recorder(
            settler,
            Quotas(Quota(brake=settings), settler),
            observe=False,
            tolerant=False,
            hold_at_most=100,
            watch=watch,
            brake=brake,
        )

    def clock(self) -> float:
        return self.now

    def draft(self, *to: str, login: str = ALICE, client: str = OFFICE, mail_from: str = ALICE) -> Draft:
        self._number += 1
        envelope = Envelope(
            mail_from.encode(), rcpt_to=tuple(name.encode() for name in to), login=login,
            client=Client(address=client, port=4711), service="submission",
        )  # fmt: skip
        return Draft(Message(envelope, (), b"", f"N{self._number}", self.now, bytes(8)), sender=login)

    def events(self, kind: type) -> list[object]:
        return [entry.event for entry in self.journal.events(limit=10_000) if isinstance(entry.event, kind)]

    def orders(self) -> list[str]:
        rows = self.journal.database.query("SELECT login FROM orders WHERE kind = 'brake' AND until IS NULL")
        return [login for (login,) in rows]

    def close(self) -> None:
        for settler in self._settlers:
            settler.close()
        self.journal.close()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    made = Host(tmp_path)
    monkeypatch.setattr(record, "time", made.clock)
    yield made
    made.close()


def profiles(host: Host) -> Profiles:
    return Profiles(Database(host.path, sync="normal", readonly=True))


def strangers(count: int, start: int = 0) -> list[str]:
    return [f"x{nth}@example.net" for nth in range(start, start + count)]


def blast(host: Host, recorder: Recorder, to: list[str], **how: str) -> int:
    """How many of them got their message before the first refusal."""
    for done, name in enumerate(to):
        host.now += 1
        if recorder.accepted(host.draft(name, **how)) is not None:
            return done
    return len(to)


# --- what is learned


def test_hours_contacts_and_networks_are_learned_once_however_often_the_books_start(host: Host) -> None:
    host.learn(mail(NOW, "a@x.org", "b@x.org"), mail(NOW + 60, "A@X.org", "c@x.org"))
    host.learn(mail(NOW + 2 * HOUR, "a@x.org", network="198.51.100.0/24"))
    host.learn()
    past = profiles(host).past(ALICE, since=NOW - DAY)
    hour = int(NOW // 3600)
    assert (past.hours, past.first) == ({hour: 4, hour + 2: 1}, NOW)
    assert past.strangers == {hour: 3, hour + 2: 0}, "the same address in capitals is no other"
    assert profiles(host).known(["a@x.org", "C@x.org", "d@x.org"], login=ALICE, before=NOW + DAY) == (2, 2)
    assert profiles(host).known(["a@x.org"], login=BOB, before=NOW + DAY) == (0, 1)
    assert profiles(host).known(["c@x.org"], login=ALICE, before=NOW + 60) == (0, 0)
    assert profiles(host).users("192.0.2.0/24", login=ALICE, since=NOW, before=NOW + 1) == (True, 1)
    assert profiles(host).users("192.0.2.0/24", login=BOB, since=NOW, before=NOW + 1) == (False, 1)
    assert profiles(host).users("198.51.100.0/24", login=ALICE, since=NOW, before=NOW + 1) == (False, 0)


def test_no_address_is_kept_with_what_is_learned(host: Host) -> None:
    host.learn(mail(NOW, "somebody.private@example.org"))
    with closing(sqlite3.connect(host.path)) as link:
        tables = [name for (name,) in link.execute("SELECT name FROM sqlite_master WHERE name LIKE 'profile_%'")]
        kept = [repr(row) for name in tables for row in link.execute(f"SELECT * FROM {name}")]
    assert len(kept) >= 5
    assert not [row for row in kept if "somebody" in row]


def test_bounces_are_not_learned_and_what_the_brake_held_only_once_it_is_let_go(host: Host) -> None:
    host.learn(replace(mail(NOW, "a@x.org"), mail_from=""), mail(NOW + 1, "b@x.org", held="brake"))
    assert profiles(host).past(ALICE, since=0).hours == {}
    released = Released(
        source="released:1", time=NOW + DAY, queue_id=f"Q{NOW + 1:.0f}", login=ALICE, sender=ALICE,
        action="deleted", by="person",
    )  # fmt: skip
    host.learn(released)
    assert profiles(host).past(ALICE, since=0).hours == {}
    host.learn(replace(released, source="released:2", action="released"))
    assert profiles(host).past(ALICE, since=0).hours == {int(NOW // 3600): 1}


def test_a_test_that_nobody_got_makes_nobody_known(host: Host) -> None:
    """It costs nothing, and a thief could send thousands: nor does it count among mail that bounced or not."""
    host.learn(replace(mail(NOW, "a@x.org"), facts={"discarded": "X-Postmeter-Test"}))
    assert profiles(host).past(ALICE, since=0).hours == {}
    assert profiles(host).lately(ALICE, login=ALICE, since=0, most=10) == set()
    host.learn(mail(NOW + 1, "b@x.org"))
    assert profiles(host).lately(ALICE, login=ALICE, since=0, most=10) == {"b@x.org"}


def test_a_login_that_is_spelled_anew_each_time_is_one(host: Host) -> None:
    """Where the server of SASL logins does not mind case: each spelling would be a sender with one message."""
    host.learn(*(replace(mail(NOW + nth, f"{nth}@x.org", login=name), sender=ALICE)
                 for nth, name in enumerate((ALICE, "Alice@example.com", "ALICE@example.com", ""))))  # fmt: skip
    host.learn(mail(NOW + 9, "nobody@x.org", login=BOB), mail(NOW - HOUR, "old@x.org"))
    found = profiles(host).lately(ALICE, login="aLICE@example.com", since=NOW, most=10)
    assert found == {"0@x.org", "1@x.org", "2@x.org", "3@x.org"}


@pytest.mark.parametrize("jump", [2000, 10**15])
def test_numbers_that_nobody_got_hide_no_message(host: Host, jump: int) -> None:
    """A message that is refused at its end takes one: a program that tries all day would make others look new."""
    host.learn(replace(mail(NOW, "0@x.org", login=""), sender=ALICE))
    with host.journal.database.transaction() as link:
        link.execute("UPDATE sqlite_sequence SET seq = seq + ?", (jump,))
    host.learn(replace(mail(NOW + 1, "1@x.org", login=""), sender=ALICE))
    assert profiles(host).lately(ALICE, login=ALICE, since=NOW, most=10) == {"0@x.org", "1@x.org"}


def test_what_is_old_is_forgotten_in_its_own_time(host: Host) -> None:
    """Hours and networks after `learn`; whom a login wrote to after more than a year."""
    host.learn(mail(NOW, "a@x.org"))
    for age, hours, contacts in ((29, 1, 1), (32, 0, 1), (REMEMBERED / DAY + 1, 0, 0)):
        host.now = NOW + age * DAY
        books = Baselines(host.journal, learn=30 * DAY, clock=host.clock)
        for _ in range(SLICES):
            books.sweep()
        assert len(profiles(host).past(ALICE, since=0).hours) == hours
        assert profiles(host).users("192.0.2.0/24", login=ALICE, since=0, before=host.now)[1] == hours
        assert profiles(host).known(["a@x.org"], login=ALICE, before=host.now)[0] == contacts


def test_events_of_before_networks_were_recorded_can_be_read(host: Host) -> None:
    host.journal.record([mail(NOW, "a@x.org")])
    with host.journal.database.transaction() as link:
        link.execute("UPDATE events SET data = json_remove(data, '$.network')")
    host.learn()
    assert profiles(host).past(ALICE, since=0).hours == {int(NOW // 3600): 1}
    assert [event.network for event in host.events(Submitted)] == [""]  # type: ignore[attr-defined]


# --- whom a worker stops


@pytest.mark.parametrize(("client", "sign"), [(ABROAD, "network"), (OFFICE, "strangers")])
def test_a_thief_gets_19_messages_out_and_only_that_login_is_stopped(host: Host, client: str, sign: str) -> None:
    """The 20th is refused, told without a word of why; the administrator is told once, by however many workers."""
    host.learn(*a_month(), *a_month(BOB))
    first, second = host.recorder(Brake(mode="on")), host.recorder(Brake(mode="on"))
    friends = [f"friend{nth}@example.org" for nth in range(10)] * 5
    to = strangers(40) if sign == "strangers" else friends
    assert blast(host, first, to, client=client) == 19
    said = [worker.accepted(host.draft(to[0], client=client)) for worker in (first, second)]
    assert [(reply.code, reply.status) for reply in said if reply] == [(451, "4.7.1")] * 2
    assert "wrote" not in str(said)
    assert "seen" not in str(said)
    assert host.orders() == [ALICE]
    [braked] = host.events(Braked)
    assert isinstance(braked, Braked)
    assert (braked.signs, braked.observed, braked.recipients, braked.usual) == ((sign,), False, 20, 19)
    assert blast(host, second, friends[:15], login=BOB) == 15


def test_a_patient_thief_teaches_the_brake_nothing_within_a_week(host: Host) -> None:
    """For two days he sends 19 an hour to strangers: by then his network is ripe, and strangers are half of all."""
    host.learn(*a_month())
    host.learn(*(
        mail(NOW + hour * HOUR + nth, f"p{hour}.{nth}@example.net", network="203.0.113.0/24")
        for hour in range(50) for nth in range(19)
    ))  # fmt: skip
    host.now = NOW + 51 * HOUR
    host.learn()
    assert blast(host, host.recorder(Brake(mode="on")), strangers(60), client="203.0.113.9") == 19
    (braked,) = host.events(Braked)
    assert isinstance(braked, Braked)
    assert braked.signs == ("strangers",)


def test_more_than_usual_alone_stops_nobody(host: Host) -> None:
    """From her own network, to people she knows: forty of them, and each message settled and recorded once."""
    host.learn(*a_month())
    assert blast(host, host.recorder(Brake(mode="on")), [f"friend{nth % 10}@example.org" for nth in range(40)]) == 40
    assert (len(host.events(Braked)), host.orders()) == (0, [])
    assert len(host.events(Submitted)) == 62 + 40


def bounces(host: Host, *, hard: int, sent: int, login: str = ALICE) -> None:
    """What became of so many recipients of a login, as the books learn it."""
    fates = [
        Transition(
            time=NOW, reference=f"{nth:016x}", recipient=f"r{nth}@example.net", from_domain="example.com", login=login,
            campaign="", provider="other", was="accepted", now="bounced" if nth < hard else "sent", hard=nth < hard,
        )
        for nth in range(hard + sent)
    ]  # fmt: skip
    with host.journal.database.transaction() as link:
        learn(link, fates, Rules(Suppression(), "host"))


def test_a_login_whose_mail_bounces_is_stopped(host: Host) -> None:
    """To people she knows and from her own network: what gives it away is that a third of it does not exist."""
    host.learn(*a_month())
    bounces(host, hard=30, sent=70, login="Alice@example.com")
    friends = [f"friend{nth % 10}@example.org" for nth in range(40)]
    assert blast(host, host.recorder(Brake(mode="on")), friends) == 19
    (braked,) = host.events(Braked)
    assert isinstance(braked, Braked)
    assert braked.signs == ("bounces",)
    assert braked.evidence == "30% of its last recipients do not exist"


@pytest.mark.parametrize(
    ("hard", "sent", "settings"),
    [
        (29, 71, Brake(mode="on")),
        (10, 5, Brake(mode="on")),
        (50, 50, Brake(mode="on", bounced=0.6)),
        (50, 50, Brake(mode="on", signs=("network", "strangers"))),
    ],
)
def test_bounces_are_no_sign(host: Host, hard: int, sent: int, settings: Brake) -> None:
    """Too few of them, too few recipients to tell by, another share asked for, or the sign not asked for."""
    host.learn(*a_month())
    bounces(host, hard=hard, sent=sent)
    friends = [f"friend{nth % 10}@example.org" for nth in range(40)]
    assert blast(host, host.recorder(settings), friends) == 40


def test_a_thief_beside_the_owner_is_seen_though_the_owner_was_cleared(host: Host) -> None:
    host.learn(*a_month())
    worker = host.recorder(Brake(mode="on"))
    assert blast(host, worker, [f"friend{nth % 10}@example.org" for nth in range(40)]) == 40
    assert blast(host, worker, strangers(5), client=ABROAD) == 0


def test_observing_stops_nobody_and_tells_once_an_hour(host: Host) -> None:
    host.learn(*a_month())
    workers = [host.recorder(Brake(mode="observe")) for _ in range(2)]
    assert blast(host, workers[0], strangers(40)) == 40
    assert blast(host, workers[1], strangers(40, 40)) == 40
    assert [event.observed for event in host.events(Braked)] == [True]  # type: ignore[attr-defined]
    assert host.orders() == []
    host.now += HOUR
    assert blast(host, workers[0], strangers(40, 80)) == 40
    assert len(host.events(Braked)) == 2


def test_who_was_released_by_a_person_is_left_alone_for_a_day(host: Host) -> None:
    host.learn(*a_month())
    worker = host.recorder(Brake(mode="on"))
    assert blast(host, worker, strangers(40)) == 19
    assert lift(host.journal.database, "brake", ALICE, host.now)
    assert worker.accepted(host.draft("x99@example.net")) is None, "before it has looked for orders again"
    assert blast(host, worker, strangers(100, 100)) == 100
    host.learn()
    host.now += DAY + HOUR
    host.learn()
    assert blast(host, worker, strangers(100, 200)) < 100


def test_a_release_by_a_clock_that_is_years_ahead_spares_nobody_for_years(host: Host) -> None:
    host.learn(*a_month())
    database = Database(host.path, sync="normal", readonly=False)
    put(database, Order(kind="brake", login=ALICE, since=NOW + 365 * DAY))
    assert lift(database, "brake", ALICE, NOW + 365 * DAY + 1)
    assert blast(host, host.recorder(Brake(mode="on")), strangers(60)) == 19
    assert host.orders() == [ALICE]


def test_held_instead_of_deferred(host: Host) -> None:
    """`action: hold`: the message that gave the thief away is taken, on record as held, and charged nothing."""
    host.learn(*a_month())
    worker = host.recorder(Brake(mode="on", action="hold"))
    assert blast(host, worker, strangers(19)) == 19
    draft = host.draft("x99@example.net")
    assert worker.accepted(draft) is None
    assert (draft.hold, host.orders()) == ("brake", [ALICE])
    assert host.journal.database.query("SELECT reason FROM held") == [("brake",)]


def test_mail_that_is_not_watched(host: Host) -> None:
    """Bounces, mail that was here before, mail of no login, logins that are excepted."""
    host.learn(*a_month())
    worker = host.recorder(Brake(mode="on", except_=("Al*@example.com",)))
    assert blast(host, worker, strangers(40)) == 40
    worker = host.recorder(Brake(mode="on"))
    assert blast(host, worker, strangers(40, 40), mail_from="") == 40
    assert blast(host, worker, strangers(40, 40), login="") == 40
    for name in strangers(40, 80):
        draft = host.draft(name)
        draft.free = "marked"
        assert worker.accepted(draft) is None
    assert usage(host.journal.database, host.now, level="brake") == []


def test_nobody_is_stopped_for_what_the_books_could_not_know(host: Host) -> None:
    """Nothing learned; less than a week learned; books that have been dead for two days."""
    assert blast(host, host.recorder(Brake(mode="on")), strangers(40)) == 40
    host.learn(*[one for one in a_month() if one.time > NOW - 6 * DAY])
    assert blast(host, host.recorder(Brake(mode="on")), strangers(40, 100)) == 40
    host.now = NOW + 30 * DAY
    assert blast(host, host.recorder(Brake(mode="on")), strangers(40, 200)) == 40


def test_networks_are_no_sign_before_a_week_of_them_is_known(host: Host) -> None:
    """An older version recorded none: to know all of a login but its networks is not to know it is abroad."""
    host.learn(*(replace(one, network="") for one in a_month()))
    worker = host.recorder(Brake(mode="on"))
    assert blast(host, worker, [f"friend{nth % 10}@example.org" for nth in range(40)], client=ABROAD) == 40
    assert blast(host, worker, strangers(60), client=ABROAD) < 60


def test_a_first_day_is_measured_by_what_the_house_knows(host: Host) -> None:
    """A new colleague writes to people the house knows, at home; a thief of a login that is never used does not."""
    host.learn(*a_month(), *a_month(BOB))
    worker = host.recorder(Brake(mode="on"))
    friends = [f"friend{nth % 10}@example.org" for nth in range(40)]
    assert blast(host, worker, friends, login="new@example.com", client="198.51.100.9") == 40
    assert blast(host, worker, strangers(40), login="idle@example.com", client=ABROAD) == 19


# --- a season of a company's mail


def test_thieves_are_stopped_and_others_are_not(tmp_path: Path) -> None:
    """Seven weeks of twelve people: rarely an alarm for nothing; a thief who can be told apart reaches 60 at most."""
    result = run(Company(7, people=12, days=49, list_size=60), Brake(mode="on"), trials=[44], scratch=tmp_path)
    alone, alarms = sum(map(len, result.unusual.values())), sum(map(len, result.alarms.values()))
    assert alone >= 8
    assert alarms <= alone / 5, result.alarms
    loud = {case: out[0] for case, out in result.out.items() if "15 an hour" not in case[0]}
    # From a network of its own, who always writes to strangers does nothing unusual; nor does who is hardly known,
    # to people that the house knows.
    blind = {case for case in loud if case[1] in ("shared", "sales", "shop") and "from abroad" not in case[0]}
    blind |= {case for case in loud if case[1] in ("idle", "new") and "contacts" in case[0]}
    assert {case: out for case, out in loud.items() if case not in blind and out > 60} == {}
