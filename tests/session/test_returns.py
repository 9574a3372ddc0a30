"""From a message that came back to the journal: believed of that message's own recipients, once, and nothing lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
import smtplib
import socket
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from postmeter.books.forwarding import Forwarding
from postmeter.books.returns import FORWARD, KEPT, NEW, Leave, Returns, place
from postmeter.config.schema import Bounces, InetAddress
from postmeter.delivery.providers import parse
from postmeter.events import Bounced, Complained, Event, Submitted, Unsubscribed
from postmeter.feedback.arrivals import LARGEST, Arrival, Arrivals, Envelope
from postmeter.feedback.lmtp import Lmtp
from postmeter.store import fates, veil
from postmeter.store.database import StoreError
from postmeter.store.journal import Journal
from postmeter.tag import Tagger, tagged
from postmeter.token import Mint, Unsubscribe
from tests.lab.product import python_environment
from tests.lab.reports import arf, dsn, vacation
from tests.lab.sink import Sink

NOW = 1_793_000_000.0
TAGGER = Tagger([bytes(32)])
MINT = Mint([b"s" * 32])
REFERENCE = b"referenc"
TAG = TAGGER.tag(REFERENCE)
BASE = "bounces@example.com"
RETURN_PATH = tagged(BASE, TAG, delimiter="+")
RECIPIENTS = ("Reader@example.net", "other@example.net")
ALICE = "alice@example.com"
LEAVE = "leave@example.com"
SUBMITTED = Submitted(
    source="eom:4X:1", time=NOW - 60, queue_id="4X", reference=REFERENCE.hex(), message_id="<1@example.com>",
    login=ALICE, sender=ALICE, service="ORIGINATING", mail_from=ALICE, from_domain="example.com",
    recipients=RECIPIENTS, size=100, facts={"campaign": "spring", "bulk": True},
)  # fmt: skip


@dataclass
class Desk:
    """A journal that knows one message, and the chore."""

    state: Path
    journal: Journal
    bounces: Bounces
    now: float = NOW

    def __post_init__(self) -> None:
        self.new, self.kept, self.forward = (Arrivals(place(self.state, which)) for which in (NEW, KEPT, FORWARD))
        self.returns = self.reader()

    def reader(self) -> Returns:
        leave = Leave(frozenset({LEAVE}), MINT, ("click.example.com",))
        return Returns(
            self.journal, self.state, bounces=self.bounces, tagger=TAGGER, leave=leave, clock=lambda: self.now,
            provider=parse("@example.net, partner\n"),
        )  # fmt: skip

    def come(self, raw: bytes, *, to: str = RETURN_PATH, sender: str | None = "") -> None:
        self.new.put(Envelope(time=self.now, sender=sender, recipients=(to,)), raw)
        while self.returns.work():
            pass

    def events(self) -> list[Event]:
        return [entry.event for entry in self.journal.events() if not isinstance(entry.event, Submitted)]

    def figures(self) -> dict[str, int]:
        return {labels[0]: value for (name, labels), value in self.journal.totals().items() if name == "feedback_total"}

    def why(self) -> list[str]:
        return [arrival.envelope.why for name in self.kept.names() if (arrival := self.kept.read(name))]


def open_desk(folder: Path, *messages: Submitted, **keys: object) -> Desk:
    journal = Journal(folder / "journal.db", host="lab")
    journal.record(messages or [SUBMITTED])
    with journal.database.transaction() as link:
        fates.name(link, messages or [SUBMITTED])
    return Desk(folder, journal, Bounces(**{"domains": {"example.com": BASE}, **keys}))  # type: ignore[arg-type]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return open_desk(tmp_path)


def test_a_bounce_is_recorded_for_the_recipient_that_it_names(desk: Desk) -> None:
    desk.come(dsn("reader@example.net", to=RETURN_PATH))
    [event] = desk.events()
    assert isinstance(event, Bounced)
    assert event.source.startswith("dsn:")
    assert (event.reference, event.recipient, event.by) == (REFERENCE.hex(), "Reader@example.net", "dsn")
    assert (event.dsn, event.hard, event.relay) == ("5.1.1", True, "inner.example.net")
    assert (event.login, event.campaign, event.from_domain, event.queue_id) == (ALICE, "spring", "example.com", "4X")
    assert event.provider == "partner", "what the address tells, before the log tells of a relay"
    assert desk.figures() == {"bounce": 1}
    assert desk.new.names() == desk.kept.names() == desk.forward.names() == []


def test_an_alias_is_known_by_whom_the_sender_named(desk: Desk) -> None:
    desk.come(dsn("inner@elsewhere.example", original="other@example.net", to=RETURN_PATH.upper()))
    [event] = desk.events()
    assert isinstance(event, Bounced)
    assert (event.recipient, event.final) == ("other@example.net", "inner@elsewhere.example")


def test_one_bounce_a_recipient_whoever_tells_it_and_however_often(desk: Desk) -> None:
    log = replace(bounce_of_the_log(), recipient="reader@example.net")
    desk.journal.record([log])
    desk.come(dsn("reader@example.net", to=RETURN_PATH))
    for mark in "abc":
        desk.come(dsn("other@example.net", to=RETURN_PATH, mark=mark))
    desk.come(dsn("other@example.net", to=RETURN_PATH, mark="a"))
    assert [event.recipient for event in desk.events() if isinstance(event, Bounced)] == [
        "reader@example.net",
        "other@example.net",
    ]
    assert desk.figures() == {"repeated": 4, "bounce": 1}


def test_repeats_in_one_batch_are_one(desk: Desk) -> None:
    for mark in "abc":
        desk.new.put(Envelope(time=NOW, recipients=(RETURN_PATH,)), dsn("other@example.net", to=RETURN_PATH, mark=mark))
    assert desk.returns.work() is False
    assert len(desk.events()) == 1


def bounce_of_the_log() -> Bounced:
    return Bounced(
        source="log:1:2:0", time=NOW, queue_id="4X", reference=REFERENCE.hex(), login=ALICE,
        from_domain="example.com", recipient="reader@example.net", dsn="5.1.1", hard=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "to"),
    [
        (dsn("stranger@example.net", to=RETURN_PATH), RETURN_PATH),
        (dsn("reader@example.net", to=BASE), BASE),
        (dsn("reader@example.net", to=BASE), tagged(BASE, Tagger([b"\1" * 32]).tag(REFERENCE), delimiter="+")),
        (dsn("reader@example.net", to=BASE), tagged(BASE, TAGGER.tag(b"somebody"), delimiter="+")),
        (dsn("reader@example.net", to=BASE), tagged(BASE, TAG[:-1] + ("a" if TAG[-1] != "a" else "b"), delimiter="+")),
        (arf("reader@example.net"), "fbl@example.com"),
        (arf("stranger@example.net", return_path=RETURN_PATH), "fbl@example.com"),
        (arf("stranger@example.net", message_id="<1@example.com>"), "fbl@example.com"),
        (arf(message_id="<1@example.com>"), "fbl@example.com"),
        (arf(return_path=RETURN_PATH), "fbl@example.com"),
        (dsn("reader@example.net", to=BASE).replace(b"a letter", b"a letter\r\nMessage-ID: <1@example.com>"), BASE),
        (b"", BASE),
        (b"\xff\0" * 1000, BASE),
    ],
    ids=[
        "a recipient of another", "no tag", "another's secret", "a message that is unknown", "one letter changed",
        "a complaint without evidence", "a complaint of a stranger", "a stranger and a Message-ID",
        "a Message-ID and nobody", "a tag and nobody of two", "a bounce by Message-ID", "nothing", "noise",
    ],
)  # fmt: skip
def test_what_proves_nothing_changes_nothing_and_is_kept(desk: Desk, raw: bytes, to: str) -> None:
    desk.come(raw, to=to)
    assert desk.events() == []
    assert desk.forward.names() == []
    [name] = desk.kept.names()
    arrival = desk.kept.read(name)
    assert arrival
    assert arrival.raw == raw
    assert arrival.envelope.why
    assert desk.figures() == {"untrusted": 1}


@pytest.mark.parametrize(
    "raw",
    [
        arf("READER@example.net", return_path=RETURN_PATH),
        arf("reader@example.net", feedback_id=TAG),
        arf("reader@example.net", message_id="<1@example.com>"),
    ],
    ids=["return path", "CFBL-Feedback-ID", "Message-ID"],
)
def test_a_complaint_is_believed_by_tag_or_message_id_and_recipient(desk: Desk, raw: bytes) -> None:
    for _ in range(2):
        desk.come(raw, to="fbl@example.com", sender="feedback@provider.example")
    desk.come(raw.replace(b"SomeGenerator", b"Another"), to="fbl@example.com")
    [event] = desk.events()
    assert isinstance(event, Complained)
    assert (event.recipient, event.reporter, event.campaign) == ("Reader@example.net", "SomeGenerator/1.0", "spring")
    assert desk.figures() == {"complaint": 1, "repeated": 2}


def test_of_copies_with_one_message_id_the_complaint_is_of_the_one_that_its_recipient_got(tmp_path: Path) -> None:
    """An Exchange server in front of us gives each recipient a message."""
    copies = [
        replace(SUBMITTED, source=f"eom:{n}", reference=f"{n:016x}", recipients=(f"reader{n}@example.net",))
        for n in range(20)
    ]
    desk = open_desk(tmp_path, *copies)
    desk.come(arf("reader17@example.net", message_id="<1@example.com>"), to="fbl@example.com")
    assert [(event.recipient, event.reference) for event in desk.events() if isinstance(event, Complained)] == [
        ("reader17@example.net", copies[17].reference)
    ]


def test_a_complaint_that_blacks_the_address_out_is_that_of_the_only_recipient(tmp_path: Path) -> None:
    desk = open_desk(tmp_path, replace(SUBMITTED, recipients=("reader@example.net",)))
    desk.come(arf(return_path=RETURN_PATH), to="fbl@example.com")
    assert [type(event) for event in desk.events()] == [Complained]


@pytest.mark.parametrize("kind", ["not-spam", "fraud", "virus", "other"])
def test_only_abuse_is_a_complaint(desk: Desk, kind: str) -> None:
    desk.come(arf("reader@example.net", return_path=RETURN_PATH, kind=kind), to="fbl@example.com")
    assert desk.events() == []


def test_a_recipient_that_is_a_hash_by_now_is_still_known(desk: Desk) -> None:
    key = veil.read_key(desk.journal.database)
    hidden = [veil.hashed(name, key) for name in RECIPIENTS]
    with desk.journal.database.transaction() as link:
        link.execute("UPDATE events SET data = json_set(data, '$.recipients', json(?))", (json.dumps(hidden),))
    desk.come(dsn("reader@example.net", to=RETURN_PATH))
    desk.come(dsn("reader@example.net", to=RETURN_PATH, mark="again"))
    [event] = desk.events()
    assert isinstance(event, Bounced)
    assert event.recipient == hidden[0]


@pytest.mark.parametrize(
    "raw",
    [
        vacation(to=RETURN_PATH),
        dsn("reader@example.net", to=RETURN_PATH, status="4.4.1", action="delayed"),
        dsn("reader@example.net", to=RETURN_PATH, status="2.0.0", action="relayed"),
    ],
    ids=["vacation", "delay", "relayed"],
)
def test_what_is_no_bounce_goes_to_the_sender_on_record(desk: Desk, raw: bytes) -> None:
    desk.come(raw)
    assert desk.events() == []
    [name] = desk.forward.names()
    arrival = desk.forward.read(name)
    assert arrival
    assert (arrival.raw, arrival.envelope.recipients, arrival.envelope.sender) == (raw, (ALICE,), "")
    assert desk.figures() == {"passed_on": 1}


@pytest.mark.parametrize("header", [b"", b"Return-Path: <>\n", b"Return-Path: <postmaster@example.net>\n"])
def test_a_postmaster_s_letter_is_no_bounce_by_the_envelope_that_it_came_in(desk: Desk, header: bytes) -> None:
    """Postfix writes Return-Path for pipe(8), and none for LMTP; whoever wrote one before it knows nothing of ours."""
    letter = (
        b"In-Reply-To: <1@example.com>\nFrom: Jo Postmaster <postmaster@example.net>\nSubject: Re: News\n\n"
        b"Take reader@example.net off your list: 550 5.1.1 user unknown, your mail could not be delivered.\n"
    )
    desk.come(header + letter, sender="postmaster@example.net")
    assert desk.events() == []
    assert desk.figures() == {"passed_on": 1}


def test_with_tag_all_every_bounce_is_recorded_and_passed_on(tmp_path: Path) -> None:
    desk = open_desk(tmp_path, tag="all")
    desk.come(dsn("reader@example.net", to=RETURN_PATH))
    assert [type(event) for event in desk.events()] == [Bounced]
    assert len(desk.forward.names()) == 1


@pytest.mark.parametrize("mail_from", [RETURN_PATH, BASE.upper(), LEAVE, tagged(LEAVE, TAG, delimiter="-"), "hash:1"])
def test_nothing_goes_in_circles(tmp_path: Path, mail_from: str) -> None:
    desk = open_desk(tmp_path, replace(SUBMITTED, mail_from=mail_from))
    desk.come(vacation(to=RETURN_PATH))
    assert desk.forward.names() == []
    assert desk.why()[0].startswith("not passed on: ")


def test_what_has_been_through_fifty_servers_stays(desk: Desk) -> None:
    desk.come(vacation(to=RETURN_PATH, fields=["Received: by mx.example.net"] * 50))
    assert desk.forward.names() == []
    assert desk.why() == ["not passed on: it has been through too many servers"]


def test_who_is_killed_between_recording_and_removing_counts_nothing_twice(desk: Desk) -> None:
    raw = dsn("reader@example.net", to=RETURN_PATH)
    name = desk.new.put(Envelope(time=NOW, recipients=(RETURN_PATH,)), raw)
    copy = (desk.new.directory / name).read_bytes()
    desk.returns.work()
    (desk.new.directory / name).write_bytes(copy)
    again = desk.reader()
    again.work()
    assert desk.new.names() == []
    assert len(desk.events()) == 1
    assert desk.figures() == {"bounce": 1}


def test_while_the_journal_cannot_be_written_nobody_is_told_again_and_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*events: object, **keys: object) -> int:
        raise StoreError(Path("journal.db"), "locked")

    desk.new.put(Envelope(time=NOW, recipients=(RETURN_PATH,)), vacation(to=RETURN_PATH))
    monkeypatch.setattr(desk.journal, "record", fails)
    for _ in range(3):
        with pytest.raises(StoreError):
            desk.returns.work()
    assert (desk.forward.names(), len(desk.new.names())) == ([], 1)
    monkeypatch.undo()
    desk.returns.work()
    assert (len(desk.forward.names()), desk.new.names()) == (1, [])


def test_who_is_killed_between_recording_and_passing_on_passes_it_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(recorded: object) -> None:
        raise KeyboardInterrupt

    desk.new.put(Envelope(time=NOW, recipients=(RETURN_PATH,)), vacation(to=RETURN_PATH))
    with monkeypatch.context() as patch:
        patch.setattr(Returns, "_finish", lambda self, recorded: killed(recorded) if recorded else None)
        with pytest.raises(KeyboardInterrupt):
            desk.returns.work()
    assert desk.forward.names() == []
    desk.reader().work()
    assert (len(desk.forward.names()), desk.new.names(), desk.figures()) == (1, [], {"passed_on": 1})


def test_what_is_read_once_more_is_read_though_it_was_in_the_last_batch(desk: Desk) -> None:
    desk.come(dsn("reader@example.net", to=BASE), to=BASE)
    [name] = desk.kept.names()
    assert desk.kept.move(name, desk.new)
    desk.returns.work()
    assert len(desk.kept.names()) == 1


def test_a_report_that_makes_our_reader_fail_holds_up_nobody(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from postmeter.feedback import reading

    real = reading.read

    def fails(raw: bytes, *, sender: str | None) -> object:
        if b"poison" in raw:
            raise IndexError("a bug")
        return real(raw, sender=sender)

    monkeypatch.setattr(reading, "read", fails)
    desk.new.put(Envelope(time=NOW, recipients=(RETURN_PATH,)), b"Subject: poison\r\n\r\n")
    desk.come(dsn("reader@example.net", to=RETURN_PATH))
    assert len(desk.events()) == 1
    assert desk.why() == ["failed by a bug of ours"]


@pytest.mark.parametrize("when", ["Infinity", "NaN", "-1", "9" * 400, '"soon"', "[]", "null"])
def test_a_file_of_another_user_with_no_time_holds_up_nobody(desk: Desk, when: str) -> None:
    """Nor is it a number that JSON has no word for, in what `feedback list` writes."""
    desk.new.directory.mkdir(parents=True)
    (desk.new.directory / "0.eml").write_text(f'{{"time":{when}}}\nSubject: x\n\n')
    assert desk.new.read("0.eml") == Arrival("0.eml", Envelope(time=0.0), b"Subject: x\n\n")
    desk.come(dsn("reader@example.net", to=RETURN_PATH))
    assert [type(event) for event in desk.events()] == [Bounced]


def test_an_unsubscribe_by_mail_is_that_of_its_token(desk: Desk) -> None:
    said = Unsubscribe(REFERENCE, b"reader@example.net", "from:alice@example.com")
    url = MINT.unsubscribe_url("https://click.example.com", said, nonce=b"only used 1x")
    token = url.rpartition("/")[2]
    mail = f"From: whoever@example.org\r\nTo: {LEAVE}\r\nSubject: unsubscribe\r\n {token}\r\n\r\n".encode()
    for _ in range(2):
        desk.come(mail, to=LEAVE.upper(), sender="whoever@example.org")
    [event] = desk.events()
    assert isinstance(event, Unsubscribed)
    assert (event.recipient, event.scope, event.host) == (
        "reader@example.net", "from:alice@example.com", "click.example.com",
    )  # fmt: skip
    assert event.source == f"unsubscribed:{REFERENCE.hex()}"
    desk.come(mail.replace(token.encode(), b"x" * len(token)), to=LEAVE)
    assert len(desk.events()) == 1
    assert desk.why() == ["an unsubscribe without a token of ours in its subject"]


def test_what_is_kept_is_bounded_by_age_and_number_and_counted(desk: Desk) -> None:
    desk.kept.directory.mkdir(parents=True)
    for number in range(1005):
        (desk.kept.directory / f"{number:06}.eml").write_bytes(b"{}\n")
    desk.now = os.stat(desk.kept.directory / "000000.eml").st_mtime + 60
    desk.returns.sweep()
    assert len(desk.kept.names()) == 1000
    assert desk.kept.names()[0] == "000005.eml"
    desk.now += 31 * 86400
    desk.returns.sweep()
    assert desk.kept.names() == []
    assert desk.figures() == {"dropped": 1005}


def test_who_is_killed_while_what_was_kept_goes_counts_each_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.kept.directory.mkdir(parents=True)
    for number in range(5):
        (desk.kept.directory / f"{number:06}.eml").write_bytes(b"{}\n")
    desk.now = os.stat(desk.kept.directory / "000000.eml").st_mtime + 31 * 86400
    drop = Arrivals.drop

    def killed(kept: Arrivals, name: str) -> None:
        if name == "000003.eml":
            raise KeyboardInterrupt
        drop(kept, name)

    with monkeypatch.context() as patch:
        patch.setattr(Arrivals, "drop", killed)
        with pytest.raises(KeyboardInterrupt):
            desk.returns.sweep()
    assert len(desk.kept.names()) == 2
    desk.reader().sweep()
    assert (desk.kept.names(), desk.figures()) == ([], {"dropped": 5})


# --- the listener


@dataclass
class Served:
    port: int
    arrivals: Arrivals

    def client(self) -> smtplib.LMTP:
        return smtplib.LMTP("127.0.0.1", self.port, timeout=10)

    def raw(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def one(self) -> bytes:
        [name] = self.arrivals.names()
        arrival = self.arrivals.read(name)
        assert arrival
        return arrival.raw


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    arrivals = Arrivals(tmp_path / "new")
    bound = socket.create_server(("127.0.0.1", 0))
    lmtp = Lmtp(bound, arrivals, host="mx.example.com")
    yield Served(bound.getsockname()[1], arrivals)
    lmtp.close()
    bound.close()


def test_a_message_is_kept_octet_for_octet_with_its_envelope(served: Served) -> None:
    raw = vacation(to=RETURN_PATH) + b"..two dots\r\n.\rnot alone\r\n" + b"long " * 40_000 + b"\r\n"
    client = served.client()
    client.sendmail("", [RETURN_PATH, "fbl@example.com"], raw, ["BODY=8BITMIME"])
    client.close()  # it does not read the second recipient's reply
    assert served.one() == raw
    arrival = served.arrivals.read(served.arrivals.names()[0])
    assert arrival
    assert (arrival.envelope.sender, arrival.envelope.recipients) == ("", (RETURN_PATH, "fbl@example.com"))
    assert (served.arrivals.directory / arrival.name).stat().st_mode & 0o777 == 0o640


def test_every_recipient_is_answered_behind_the_dot(served: Served) -> None:
    """RFC 2033 section 4.2; pipelined, as Postfix does."""
    with served.raw() as link:
        link.sendall(
            b"LHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: x\r\n\r\n.\r\nQUIT\r\n"
        )
        told = b"".join(iter(lambda: link.recv(4096), b"")).split(b"\r\n")
    assert [line[:3] for line in told if line] == [
        b"220", *[b"250"] * 6, b"250", b"250", b"250", b"354", b"250", b"250", b"221",
    ]  # fmt: skip


@pytest.mark.parametrize("end", [b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r.\r"])
def test_nobody_hides_a_second_message_in_the_first(served: Served, end: bytes) -> None:
    """Only CRLF . CRLF ends one (CVE-2023-51764 and its like)."""
    inner = b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nSubject: two\r\n\r\n"
    with served.raw() as link:
        link.sendall(
            b"LHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nSubject: one" + end + inner + b"\r\n.\r\nQUIT\r\n"
        )
        b"".join(iter(lambda: link.recv(4096), b""))
    assert b"Subject: two" in served.one()


def test_a_client_that_goes_away_in_the_middle_leaves_nothing(served: Served) -> None:
    with served.raw() as link:
        link.sendall(b"LHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nSubject: x\r\n\r\nhalf")
        link.shutdown(socket.SHUT_WR)
        b"".join(iter(lambda: link.recv(4096), b""))
    assert served.arrivals.names() == []
    assert list(served.arrivals.directory.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "answers"),
    [
        (b"HELO me\r\n", [b"500"]),
        (b"MAIL FROM:<>\r\n", [b"503"]),
        (b"LHLO me\r\nRCPT TO:<a@b>\r\n", [b"503"]),
        (b"LHLO me\r\nMAIL FROM:<>\r\nDATA\r\n", [b"250", b"503"]),
        (b"LHLO me\r\nMAIL a@b\r\n", [b"501"]),
        (b"LHLO me\r\nMAIL FROM:<> SIZE=99999999999\r\n", [b"552"]),
        (b"LHLO me\r\nMAIL FROM:<>\r\nRSET\r\nRCPT TO:<a@b>\r\n", [b"250", b"250", b"503"]),
        (b"x" * 100_000 + b"\r\nNOOP\r\n", [b"500", b"250"]),
        (b"\xff\0\xfe\r\n", [b"500"]),
    ],
)
def test_what_is_said_out_of_turn_is_told_so(served: Served, said: bytes, answers: list[bytes]) -> None:
    with served.raw() as link:
        link.sendall(said + b"QUIT\r\n")
        told = b"".join(iter(lambda: link.recv(4096), b"")).split(b"\r\n")
    codes = [line[:3] for line in told if line[:3] != b"" and line[3:4] == b" "]
    assert codes[1 + said.startswith(b"LHLO") :] == [*answers, b"221"]


def test_a_message_larger_than_we_take_is_refused_for_good_and_the_next_is_taken(served: Served) -> None:
    large = b"x" * 100 + (b"y" * 998 + b"\r\n") * (LARGEST // 1000 + 1)
    with served.client() as client:
        client.ehlo_or_helo_if_needed()
        assert client.mail("", ["SIZE=100"])[0] == client.rcpt("a@b")[0] == 250
        assert client.data(large)[0] == 552
        client.sendmail("", ["a@b"], b"Subject: next\r\n\r\n")
    assert served.one() == b"Subject: next\r\n\r\n"


def test_what_cannot_be_written_comes_again(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with served.client() as client:
        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(smtplib.SMTPDataError) as caught:
            client.sendmail("", ["a@b"], b"Subject: x\r\n\r\n")
        assert caught.value.smtp_code == 452
        monkeypatch.undo()
        client.sendmail("", ["a@b"], b"Subject: x\r\n\r\n")
    assert len(list(served.arrivals.directory.iterdir())) == 1


def test_a_full_spool_takes_no_more(tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path / "new", most=2)
    for _ in range(2):
        arrivals.put(Envelope(time=NOW), b"x")
    arrivals = Arrivals(tmp_path / "new", most=2)
    with pytest.raises(OSError, match="too many messages wait") as caught:
        arrivals.put(Envelope(time=NOW), b"x")
    assert caught.value.errno == errno.EDQUOT


def test_many_clients_at_once_lose_nothing(served: Served) -> None:
    def send(number: int) -> None:
        with served.client() as client:
            for nth in range(10):
                client.sendmail("", ["a@b"], b"Subject: %d.%d\r\n\r\n" % (number, nth))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {arrival.raw for name in served.arrivals.names() if (arrival := served.arrivals.read(name))}
    assert found == {b"Subject: %d.%d\r\n\r\n" % (number, nth) for number in range(10) for nth in range(10)}


# --- passing on


def test_an_answer_reaches_the_sender_octet_for_octet(tmp_path: Path) -> None:
    waiting, kept = Arrivals(tmp_path / FORWARD), Arrivals(tmp_path / KEPT)
    raw = vacation(to=RETURN_PATH) + b".\r\n..\r\n"
    waiting.put(Envelope(time=NOW, sender="", recipients=(ALICE,)), raw)
    waiting.put(Envelope(time=NOW, sender="", recipients=(ALICE,)), raw.replace(b"\r\n", b"\n"))
    with Sink() as sink:
        forwarding = passing_on(waiting, kept, sink.port)
        assert forwarding.work() is False
        for arrived in sink.wait(2):
            assert arrived.mail_from == b""
            assert arrived.rcpt_to == (ALICE.encode(),)
            trace, _, rest = arrived.data.partition(b"\r\nFrom: reader")
            assert b"From: reader" + rest == raw
            assert trace.startswith(b"Received: by mx.example.com (postmeter) with LMTP id ")
    assert waiting.names() == kept.names() == []


def passing_on(waiting: Arrivals, kept: Arrivals, port: int, *, now: float = NOW) -> Forwarding:
    smtp = InetAddress("127.0.0.1", port)
    return Forwarding(
        waiting, kept, smtp, host="mx.example.com", failed=lambda chore: None, chance=lambda: 0.5, clock=lambda: now
    )


def test_with_no_server_it_waits_and_after_five_days_a_person_is_left_to_look(tmp_path: Path) -> None:
    waiting, kept = Arrivals(tmp_path / FORWARD), Arrivals(tmp_path / KEPT)
    waiting.put(Envelope(time=NOW, sender="", recipients=(ALICE,)), b"x")
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    passing_on(waiting, kept, port).work()
    assert len(waiting.names()) == 1
    passing_on(waiting, kept, port, now=NOW + 6 * 86400).work()
    assert waiting.names() == []
    assert len(kept.names()) == 1


# --- the command


@dataclass
class Place:
    folder: Path

    def run(self, *arguments: str, stdin: bytes = b"", **env: str) -> tuple[int, bytes, bytes]:
        import subprocess

        python, known = python_environment()
        done = subprocess.run(
            [python, "-s", "-P", "-m", "postmeter", "feedback", *arguments, "-c", str(self.folder / "postmeter.yaml")],
            input=stdin, capture_output=True, env={**known, **env}, check=False, timeout=60,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    @property
    def new(self) -> Arrivals:
        return Arrivals(place(self.folder / "state", NEW))

    def envelope(self) -> Envelope:
        [name] = self.new.names()
        arrival = self.new.read(name)
        assert arrival
        self.new.drop(name)
        return arrival.envelope


@pytest.fixture
def command(tmp_path: Path) -> Place:
    (tmp_path / "state").mkdir()
    (tmp_path / "postmeter.yaml").write_text(f"journal: {{path: {tmp_path}/state/journal.db}}\n")
    return Place(tmp_path)


def test_the_command_keeps_what_it_is_given_and_says_0(command: Place) -> None:
    code, _, error = command.run("--recipient", RETURN_PATH, stdin=b"Subject: x\n\nhello\n")
    assert (code, error) == (0, b"")
    [name] = command.new.names()
    arrival = command.new.read(name)
    assert arrival
    assert arrival.raw == b"Subject: x\n\nhello\n"


def test_where_nothing_can_be_kept_the_log_names_the_place(command: Place) -> None:
    """Postfix writes it beside the deferral, and has no more to go by."""
    (command.folder / "state" / "spool").write_text("in the way")
    code, _, error = command.run("--recipient", RETURN_PATH, stdin=b"Subject: x\n\nhello\n")
    assert (code, f"{command.folder}/state/spool" in error.decode()) == (75, True), error


@pytest.mark.parametrize("arguments", [["--recipeint=a@b.example"], ["--recipient"], ["--sender=", "${sender}"]])
def test_a_line_of_master_cf_with_a_slip_loses_no_message(command: Place, arguments: list[str]) -> None:
    """64 is a bounce to pipe(8), and what came back has nobody to go back to."""
    code, _, error = command.run(*arguments, stdin=b"Subject: x\n\nhello\n")
    assert (code, b"postmeter feedback" in error or b"unrecognized" in error) == (75, True)
    assert command.run("frobnicate")[0] == 64


@pytest.mark.parametrize(
    ("arguments", "env", "header", "recipients"),
    [
        (["--recipient=a@b"], {"ORIGINAL_RECIPIENT": "c@d"}, "X-Original-To: e@f\n", "a@b"),
        (["--recipient=a@b", "--recipient=c@d"], {}, "X-Original-To: e@f\n", "a@b c@d"),
        (["--recipient="], {"ORIGINAL_RECIPIENT": "c@d"}, "", "c@d"),
        ([], {"ORIGINAL_RECIPIENT": "c@d"}, "X-Original-To: e@f\n", "c@d"),
        ([], {}, "Delivered-To: g@h\nX-Original-To: <e@f>\n", "e@f"),
        ([], {}, "Delivered-To: g@h\nDelivered-To: i@j\n", "g@h"),
    ],
)
def test_whom_it_came_to(
    command: Place, arguments: list[str], env: dict[str, str], header: str, recipients: str
) -> None:
    header = "From MAILER-DAEMON Mon Nov  2 10:00:00 2026\nReturn-Path: <>\n" + header
    assert command.run(*arguments, stdin=header.encode() + b"\nhello\n", **env)[0] == 0
    envelope = replace(command.envelope(), time=0.0)
    assert envelope == Envelope(time=0.0, sender="", recipients=tuple(recipients.split()))


@pytest.mark.parametrize("sender", ["", "-x@example.org"])
def test_who_sent_it_and_the_line_of_a_mailbox_is_no_part_of_it(command: Place, sender: str) -> None:
    raw = b"Return-Path: <a@b>\nSubject: x\n\nFrom here\n"
    assert command.run(f"--sender={sender}", "--recipient=a@b", stdin=b"From a@b Mon Nov  2 2026\n" + raw)[0] == 0
    [name] = command.new.names()
    arrival = command.new.read(name)
    assert arrival
    assert (arrival.envelope.sender, arrival.raw) == (sender, raw)


def test_a_message_that_cannot_be_kept_comes_again(command: Place) -> None:
    """75 is EX_TEMPFAIL: pipe(8) leaves the message in the queue."""
    shutil.rmtree(command.folder / "state")
    (command.folder / "state").write_text("no directory")
    assert command.run("--recipient", "a@b", stdin=b"x")[0] == 75
    (command.folder / "postmeter.yaml").write_text("no such key: 1\n")
    assert command.run("--recipient", "a@b", stdin=b"x")[0] == 75
    (command.folder / "postmeter.yaml").unlink()
    assert command.run("--recipient", "a@b", stdin=b"x")[0] == 75


def test_a_message_that_is_too_large_is_refused_for_good(command: Place) -> None:
    assert command.run("--recipient", "a@b", stdin=b"x" * (LARGEST + 1))[0] == 69
    assert command.new.names() == []


def test_what_was_kept_is_listed_shown_and_read_again(command: Place) -> None:
    kept = Arrivals(place(command.folder / "state", KEPT))
    raw = b"Subject: =?utf-8?q?h=1B[31mello?=\r\n\r\n\xff"
    kept.put(Envelope(time=NOW, recipients=("a@b",), why="untrusted"), raw, name="20261102T1.eml")
    code, out, _ = command.run("list")
    assert (code, b"20261102T1  a@b  untrusted" in out, b"\x1b" in out) == (0, True, False)
    assert json.loads(command.run("list", "--json")[1])[0]["id"] == "20261102T1"
    assert command.run("show", "20261102T1")[:2] == (0, raw)
    assert command.run("retry", "20261102T1")[0] == 0
    assert kept.names() == []
    [name] = command.new.names()
    assert name != "20261102T1.eml"
    arrival = command.new.read(name)
    assert arrival
    assert arrival.raw == raw
    for arguments in (("show", "20261102T1"), ("retry", "20261102T1"), ("show", "../../../postmeter.yaml")):
        assert command.run(*arguments)[0] == 1
    assert command.run("retry", "--all")[0] == 0


@pytest.mark.parametrize("arguments", [(), ("--all",)])
def test_retry_alone_reads_all_that_was_kept_again(command: Place, arguments: tuple[str, ...]) -> None:
    kept = Arrivals(place(command.folder / "state", KEPT))
    for name in ("one.eml", "two.eml"):
        kept.put(Envelope(time=NOW, recipients=("a@b",), why="untrusted"), b"x", name=name)
    assert command.run("retry", "")[0] == 1  # a script's variable that was never set
    assert command.run("retry", "one", "--all")[0] == 64
    assert kept.names() == ["one.eml", "two.eml"]
    assert command.run("retry", *arguments)[0] == 0
    assert (kept.names(), len(command.new.names())) == ([], 2)


def test_a_journal_without_the_tables_is_not_made_by_the_command(command: Place) -> None:
    """The command needs no right to write the database."""
    command.run("--recipient", "a@b", stdin=b"x")
    assert not (command.folder / "state" / "journal.db").exists()
    with pytest.raises(sqlite3.OperationalError):
        sqlite3.connect(f"file:{command.folder}/state/journal.db?mode=ro", uri=True).execute("SELECT 1")
