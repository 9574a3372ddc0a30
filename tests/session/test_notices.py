"""Who is told what, and when: a real journal, a real SMTP server, clocks that the test holds."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from email import message_from_bytes
from email.policy import default
from itertools import count
from pathlib import Path

import pytest

from postmeter.books.mailing import Mailer
from postmeter.books.notices import POSITION, Notices, forget
from postmeter.config.schema import InetAddress, Quota, Senders
from postmeter.events import Braked, Event, Warned
from postmeter.mail.draft import Draft
from postmeter.mail.message import Client, Envelope, Field, Message
from postmeter.store import notices as ids
from postmeter.store.database import Database
from postmeter.store.journal import Journal
from postmeter.submission.identity import Identity, Whose
from postmeter.submission.notice import Notices as Own
from tests.lab.ports import free_port
from tests.lab.sink import Delivery, Sink

ADMIN = "postmaster@example.com"
DAY = 1_793_700_000.0
_numbers = count()


def warned(key: str = "alice@example.com", *, percent: int = 80, level: str = "sender", login: str = "") -> Warned:
    return Warned(
        source=f"warned:{next(_numbers)}", time=DAY, login=login, level=level, key=key, unit="recipients",
        window=86_400, limit=100, text="100 recipients/day", used=percent, percent=percent,
    )  # fmt: skip


def braked(login: str = "alice@example.com") -> Braked:
    return Braked(
        source=f"braked:{next(_numbers)}", time=DAY, login=login, observed=False, action="defer", recipients=400,
        usual=20, signs=("network",), evidence="from 203.0.113.9",
    )  # fmt: skip


class Telling:
    """Notices under a test: `hours` is the clock of the day and the monotonic one; a new one is a restart."""

    def __init__(
        self, folder: Path, port: int, *, sender: bool = False, to: tuple[str, ...] = (ADMIN,), name: str = ADMIN
    ) -> None:
        self.folder, self.port, self.name = folder, port, name
        self.quota = Quota(warn_to=to, warn_sender=sender)
        self.now, self.failed = DAY, 0
        self.journal = Journal(folder / "journal.db", host="mx")
        self.restart()
        self.work()

    def restart(self) -> None:
        mailer = Mailer(InetAddress("127.0.0.1", self.port), self.name, "mx.example.com")
        journal = Journal(self.folder / "journal.db", host="mx")
        self.notices = Notices(
            journal, self.quota, mailer, room=lambda event: None, failed=self._count,
            token=lambda: f"{next(_numbers):032x}", chance=lambda: 0.5, now=lambda: self.now, ticks=lambda: self.now,
        )  # fmt: skip

    def record(self, *events: Event) -> None:
        self.journal.record(events)

    def work(self, *events: Event, later: float = 0.0) -> None:
        self.now += later
        self.record(*events)
        while self.notices.work():
            pass

    def _count(self, where: str) -> None:
        assert where == "notices"
        self.failed += 1


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


@pytest.fixture
def telling(tmp_path: Path, sink: Sink) -> Telling:
    return Telling(tmp_path, sink.port)


def subjects(sink: Sink) -> list[str]:
    return [str(message_from_bytes(delivery.data, policy=default)["Subject"]) for delivery in sink.deliveries]


def text(delivery: Delivery) -> str:
    return delivery.body.decode()


def test_the_first_goes_at_once_and_ten_minutes_are_one_mail(telling: Telling, sink: Sink) -> None:
    telling.work(warned())
    assert len(sink.deliveries) == 1
    for _ in range(9):
        telling.work(warned("bob@example.com"), warned("carol@example.com"), later=60.0)
    assert len(sink.deliveries) == 1
    telling.work(later=61.0)
    assert len(sink.deliveries) == 2
    assert "bob@example.com" in text(sink.deliveries[1])
    assert "carol@example.com" in text(sink.deliveries[1])
    assert "alice@example.com" not in text(sink.deliveries[1])
    telling.work(later=86_400.0)
    assert len(sink.deliveries) == 2


def test_it_goes_to_all_who_are_to_be_warned_in_our_name(tmp_path: Path, sink: Sink) -> None:
    Telling(tmp_path, sink.port, to=(ADMIN, "second@example.org")).work(warned())
    (delivery,) = sink.deliveries
    assert delivery.mail_from == ADMIN.encode()
    assert delivery.rcpt_to == (ADMIN.encode(), b"second@example.org")


def test_names_beyond_ascii_are_told_and_tell(tmp_path: Path, sink: Sink) -> None:
    """RFC 6531, to a server that has it."""
    Telling(tmp_path, sink.port, name="pöst@example.com", to=("jürgen@example.net",)).work(warned())
    (delivery,) = sink.deliveries
    assert (delivery.mail_from, delivery.rcpt_to) == ("pöst@example.com".encode(), ("jürgen@example.net".encode(),))
    assert delivery.values(b"From") == ["postmeter <pöst@example.com>".encode()]


def test_what_happened_before_anybody_asked_is_not_told(tmp_path: Path, sink: Sink) -> None:
    Journal(tmp_path / "journal.db").record([warned(), braked()])
    telling = Telling(tmp_path, sink.port)
    telling.work(later=86_400.0)
    assert sink.deliveries == []


def test_a_restart_forgets_neither_what_waits_nor_when_the_last_mail_went(telling: Telling, sink: Sink) -> None:
    telling.work(warned())
    telling.work(warned("bob@example.com"), later=60.0)
    telling.restart()
    telling.work(later=60.0)
    assert len(sink.deliveries) == 1
    telling.restart()
    telling.work(later=600.0)
    assert len(sink.deliveries) == 2
    assert "bob@example.com" in text(sink.deliveries[1])


def test_a_brake_is_told_at_once_and_a_login_once_an_hour(telling: Telling, sink: Sink) -> None:
    telling.work(warned())
    telling.work(braked(), braked("bob@example.com"), later=1.0)
    assert sorted(subjects(sink)[1:]) == [
        "postmeter on mx.example.com: alice@example.com is stopped, 400 recipients in an hour",
        "postmeter on mx.example.com: bob@example.com is stopped, 400 recipients in an hour",
    ]
    telling.work(braked(), later=3000.0)
    assert len(sink.deliveries) == 3
    telling.work(later=601.0)
    assert len(sink.deliveries) == 4


def test_a_sender_is_told_of_his_own_limits_if_he_has_an_address(tmp_path: Path, sink: Sink) -> None:
    telling = Telling(tmp_path, sink.port, sender=True, to=())
    telling.work(
        warned("bob@example.org"),
        warned("carol"),
        warned("192.0.2.7"),
        warned("dave@example.org", level="domain", login="dave@example.org"),
        warned("erin", login="erin@example.org"),
    )
    assert sorted(delivery.rcpt_to for delivery in sink.deliveries) == [(b"bob@example.org",), (b"erin@example.org",)]
    telling.work(warned("bob@example.org", percent=100), later=60.0)
    assert len(sink.deliveries) == 2
    telling.work(later=600.0)
    assert sink.deliveries[-1].rcpt_to == (b"bob@example.org",)


@pytest.mark.parametrize(
    "login",
    [
        "a@example.com\r\nRCPT TO:<b@example.com>",
        "a@b@example.com",
        "victim%elsewhere.example@example.com",
        "elsewhere.example!victim@example.com",
        '"a b"@example.com',
        "<a@example.com>",
        "a@example.com,b@example.com",
        "ä@example.com",
    ],
)
def test_no_login_has_mail_sent_to_somebody_else(tmp_path: Path, sink: Sink, login: str) -> None:
    telling = Telling(tmp_path, sink.port, sender=True, to=())
    telling.work(warned(login))
    assert sink.deliveries == []


def test_a_server_that_is_away_loses_nothing_and_is_not_pestered(tmp_path: Path) -> None:
    """Refused connections rest twice as long each time; what waited goes in one mail once it is back."""
    telling = Telling(tmp_path, free_port())
    telling.work(warned())
    for _ in range(3600):
        telling.work(later=1.0)
    assert telling.failed == 10  # 10 + 20 + ... + 640 + 900 + 900 + 900 s
    telling.record(warned("bob@example.com"))
    telling.restart()
    with Sink() as sink:
        telling.port = sink.port
        telling.restart()
        telling.work(later=900.0)
        (delivery,) = sink.deliveries
    assert "alice@example.com" in text(delivery)
    assert "bob@example.com" in text(delivery)


def test_an_addressee_who_is_refused_does_not_hold_up_the_others(tmp_path: Path, sink: Sink) -> None:
    sink.answer = lambda address: "550 5.1.1 nobody" if address.startswith(b"aaron@") else "250 2.1.5 ok"
    telling = Telling(tmp_path, sink.port, sender=True, to=())
    telling.work(warned("aaron@example.org"), warned("bob@example.org"))
    assert [delivery.rcpt_to for delivery in sink.deliveries] == [(b"bob@example.org",)]
    for _ in range(400):
        telling.work(later=901.0)
    failed = telling.failed
    assert failed > 200
    telling.work(later=901.0)
    assert telling.failed == failed, "given up after three days"


def test_a_server_that_says_nothing_is_left_after_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postmeter.books.mailing._PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        telling = Telling(tmp_path, silent.getsockname()[1])
        begin = time.monotonic()
        telling.work(warned())
    assert telling.failed == 1
    assert time.monotonic() - begin < 5


def test_a_server_that_thinks_for_long_gets_the_mail_once(
    telling: Telling, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filter in front of it may take its time (RFC 5321 section 4.5.3.2): who gives up too early sends twice."""
    monkeypatch.setattr("postmeter.books.mailing._PATIENCE", 0.2)
    thinking = threading.Event()
    sink.answer = lambda recipient: "250 2.1.5 ok" if not thinking.wait(0.6) else ""
    telling.work(warned())
    assert (telling.failed, len(sink.deliveries)) == (0, 1)


def test_an_id_is_known_while_the_mail_is_on_its_way_and_no_longer(telling: Telling, sink: Sink) -> None:
    """Whoever receives the mail must not be able to use the id that it came with."""
    seen: list[str] = []

    def answer(recipient: bytes) -> str:
        with contextlib.closing(Database(telling.folder / "journal.db", sync="normal", readonly=True)) as database:
            seen.extend(ident for (ident,) in database.query("SELECT id FROM notice_ids"))
        return "250 2.1.5 ok"

    sink.answer = answer
    telling.work(warned())
    (delivery,) = sink.deliveries
    assert [value.decode() for value in delivery.values(b"X-Postmeter-Notice")] == seen
    assert telling.journal.database.query("SELECT id FROM notice_ids") == []


def test_notices_that_are_no_longer_wanted_are_forgotten(telling: Telling, sink: Sink) -> None:
    telling.work(warned())
    telling.work(warned("bob@example.com"), later=60.0)
    forget(telling.journal)
    assert telling.journal.position(POSITION) == ""
    telling.restart()
    telling.work(later=601.0)
    assert len(sink.deliveries) == 1


def test_a_journal_put_back_from_a_backup_is_read_on(telling: Telling, sink: Sink) -> None:
    telling.journal.record([], positions={POSITION: "1000000"})
    telling.restart()
    telling.work()
    telling.work(warned())
    assert len(sink.deliveries) == 1


_DIES = """
import os, signal, sys
from pathlib import Path
from postmeter.books.mailing import Mailer
from postmeter.books.notices import Notices
from postmeter.config.schema import InetAddress, Quota
from postmeter.store.journal import Journal

class Dies(Notices):
    def _note(self):
        if self._taken:
            os.kill(os.getpid(), signal.SIGKILL)  # the server has taken it, and nobody has noted it yet

where, port = Path(sys.argv[1]), int(sys.argv[2])
mailer = Mailer(InetAddress("127.0.0.1", port), "postmaster@example.com", "mx.example.com")
quota = Quota(warn_to=("postmaster@example.com",))
telling = Dies(Journal(where / "journal.db", host="mx"), quota, mailer, room=lambda event: None,
    failed=print, token=lambda: "ab" * 16, chance=lambda: 0.5)
while True:
    telling.work()
"""


def test_kill_9_between_sending_and_noting_loses_nothing_and_repeats_one_mail(tmp_path: Path, sink: Sink) -> None:
    """The second bears the first one's Message-ID, by which a mail program can tell that it has it."""
    telling = Telling(tmp_path, sink.port)
    telling.record(warned())
    command = [sys.executable, "-c", _DIES, str(tmp_path), str(sink.port)]
    done = subprocess.run(command, env={"PYTHONPATH": os.pathsep.join(sys.path)}, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(sink.deliveries) == 1
    telling.now = time.time()
    telling.restart()
    telling.work()
    telling.work(later=86_400.0)
    first, second = sink.deliveries
    assert first.values(b"Message-ID") == second.values(b"Message-ID")
    assert text(first) == text(second)


# --- the other side: the milter knows its own mail


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with contextlib.closing(Database(tmp_path / "journal.db", sync="normal", readonly=False)) as database:
        database.query("SELECT 1")
        yield database


IDENT = "0123456789abcdef" * 2


def own(database: Database) -> Own:
    return Own(Database(database.path, sync="normal", readonly=True), database)


def issue(database: Database, *, lives: float = 60.0) -> None:
    ids.issue(database, IDENT, now=time.time(), until=time.time() + lives)


def draft(*idents: str, name: str = "X-Postmeter-Notice") -> Draft:
    marks = tuple(Field(name.encode(), b" " + ident.encode()) for ident in idents)
    fields = (Field(b"From", b" postmaster@mx.example.com"), *marks, Field(b"Subject", b" a notice"))
    envelope = Envelope(b"postmaster@mx.example.com", client=Client("localhost", "127.0.0.1", 9), service="smtpd")
    return Draft(Message(envelope, fields, b"", "4Q", time.time(), bytes(8)))


def left(mail: Draft) -> list[bytes]:
    return [field.name for field in mail.fields]


@pytest.mark.parametrize("name", ["X-Postmeter-Notice", "x-postmeter-NOTICE"])
def test_our_own_mail_is_free_and_bears_no_id_when_it_leaves(database: Database, name: str) -> None:
    issue(database)
    mail = draft(IDENT, name=name)
    own(database).step(mail)
    assert mail.free == "notice"
    assert left(mail) == [b"From", b"Subject"]


@pytest.mark.parametrize(
    "idents",
    [("f" * 32,), (IDENT, IDENT), (IDENT.upper(),), (IDENT + "0",), ("",), ("x" * 32,), (IDENT, "f" * 32)],
)
def test_a_forged_id_gains_nothing_and_is_taken_off(database: Database, idents: tuple[str, ...]) -> None:
    issue(database)
    mail = draft(*idents)
    own(database).step(mail)
    assert mail.free == ""
    assert left(mail) == [b"From", b"Subject"]


def test_more_ids_than_can_be_taken_off_are_refused(database: Database) -> None:
    reply = own(database).step(draft(*["f" * 32] * 101))
    assert reply is not None
    assert reply.permanent


def test_an_id_is_good_once_whoever_asks_first(database: Database) -> None:
    issue(database)
    one, other = draft(IDENT), draft(IDENT)
    own(database).step(one)
    own(database).step(other)
    assert [own(database).spend(mail) for mail in (one, other)] == [True, False]
    late = draft(IDENT)
    own(database).step(late)
    assert late.free == ""


def test_an_id_is_good_for_a_short_while(database: Database) -> None:
    issue(database, lives=-1.0)
    mail = draft(IDENT)
    own(database).step(mail)
    assert mail.free == ""


def test_mail_without_the_field_costs_no_question(tmp_path: Path) -> None:
    """The journal is not even there."""
    nowhere = Database(tmp_path / "no" / "journal.db", sync="normal", readonly=True)
    mail = draft()
    Own(nowhere, nowhere).step(mail)
    assert not Own(nowhere, nowhere).has_id(mail.fields)
    assert mail.changes == []


def test_a_journal_that_cannot_answer_makes_a_notice_mail_like_any_other(tmp_path: Path) -> None:
    nowhere = Database(tmp_path / "no" / "journal.db", sync="normal", readonly=True)
    mail = draft(IDENT)
    Own(nowhere, nowhere).step(mail)
    assert mail.free == ""
    assert left(mail) == [b"From", b"Subject"]
    assert not Own(nowhere, nowhere).spend(mail)


def test_a_notice_is_ours_though_no_key_covers_its_from_domain(database: Database) -> None:
    """From a trusted network, like all mail without a login; a Received field of another server ends that."""
    issue(database)
    mail = draft(IDENT)
    who = Identity(Senders(), lambda domain: False, own(database).has_id)
    assert who.by_envelope(mail.message.envelope) is Whose.UNDECIDED
    assert who.by_header(mail.fields) == ""
    assert who.by_header(draft("f" * 32).fields) == "foreign_domain"
    received = Field(b"Received", b" from x by y with ESMTP id 1; now")
    assert who.by_header([received, *mail.fields]) == "relayed"
