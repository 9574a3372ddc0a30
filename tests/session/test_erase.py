"""A person who is erased is in no table and in no file any more, while others write; what was decided stays."""

from __future__ import annotations

import base64
import contextlib
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from postmeter.books.following import Follower
from postmeter.cli import erase
from postmeter.cli.main import main
from postmeter.events import Bounced, Clicked, Event, Sent, Submitted, Suppressed, Unsubscribed
from postmeter.store import erasing, fates, orders, rows, suppression, veil
from postmeter.store.batch import Job
from postmeter.store.emergency import Spool
from postmeter.store.journal import Journal
from postmeter.store.profiles import Profiles, Sighting, learn
from postmeter.store.settle import Settler
from postmeter.store.suppression import Choice, Suppression
from postmeter.token import Mint
from tests.lab.waiting import wait_for

SECRETS = (bytes(range(32)), bytes(range(1, 33)))
BOB, MARY = "Bob.Ross@Shop.Example", "mary@shop.example"
NOW = time.time()


def told(number: int, recipient: str = BOB, *others: str) -> list[Event]:
    """A message to somebody, what became of it, a click and an unsubscribe."""
    reference = f"{number:016x}"
    about: dict[str, Any] = {"reference": reference, "login": "alice", "from_domain": "news.example"}
    link: dict[str, Any] = {"host": "click.news.example", "method": "GET", "agent": "Firefox", "link": 1}
    return [
        Submitted(
            source=f"eom:Q{number}:1", time=NOW, queue_id=f"Q{number}", message_id=f"<{number}@news.example>",
            sender="alice", service="submission", mail_from=f"b+{recipient.replace('@', '=')}@news.example",
            recipients=(recipient, *others), size=1, facts={"metadata": {"to": [recipient.upper()]}}, **about,
        ),
        Sent(source=f"log:{number}:1", time=NOW, queue_id=f"Q{number}", recipient=recipient,
             text=f"250 2.1.5 <{recipient.lower()}> accepted", **about),
        Bounced(source=f"dsn:{number}", time=NOW, queue_id="", recipient=recipient, final=f"x{recipient}", **about),
        Clicked(source=f"hit:{number}", time=NOW, reference="", recipient=Mint(SECRETS[:1]).pseudonym(
            recipient.encode()).hex(), target=f"https://news.example/?u={recipient.replace('@', '%40')}",
            address="192.0.2.0/24", **link),
        Unsubscribed(source=f"unsubscribed:{reference}", time=NOW, reference=reference, recipient=recipient,
                     scope="from:alice@news.example", from_domain="news.example", host="click.news.example"),
    ]  # fmt: skip


class Kept:
    """A journal with its files, and a configuration that names it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "postmeter.yaml"
        secrets = folder / "tracking.secrets"
        secrets.write_text("".join(f"{secret.hex()}\n" for secret in SECRETS[::-1]))
        settings = {"journal": {"path": str(folder / "journal.db")}, "tracking": {"secrets": str(secrets)}}
        self.config.write_text(yaml.safe_dump(settings))
        self.journal = Journal(folder / "journal.db", host="h")

    def record(self, *events: Event) -> None:
        self.journal.record(events)
        follower = Follower(self.journal, domains=())
        while follower.work():
            pass

    def erase(self, address: str = BOB, *more: str) -> int:
        return main(["erase", address, "-c", str(self.config), *more])

    def holding(self, address: str) -> list[str]:
        """Files in which a grep finds it: as itself, and not as the end of another one's."""
        local, _, domain = re.escape(address).rpartition("@")
        pattern = re.compile(rf"(?<![a-z.]){local}(?:@|=|%40){domain}".encode(), re.IGNORECASE)
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return [path.name for path in files if pattern.search(path.read_bytes())]


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_a_grep_finds_nothing_any_more_and_others_stay(kept: Kept) -> None:
    kept.record(*told(1), *told(2, MARY, BOB), *told(3, f"jim.{BOB}"))
    with kept.journal.database.transaction() as link:
        link.execute("INSERT INTO profile_logins VALUES (1, 'alice', 0, 0)")
    learn(kept.journal.database, [Sighting("alice", NOW, "", (BOB, MARY))], position=0)
    assert kept.holding(BOB) != []
    assert kept.erase() == 0, "said that something is left"
    assert kept.holding(BOB) == []
    assert kept.holding(MARY) != []
    assert kept.holding(f"jim.{BOB}") != []
    assert Profiles(kept.journal.database).known([BOB, MARY], login="alice", before=NOW + 1) == (1, 1)


def test_what_became_of_mail_and_what_was_decided_is_found_by_the_hash(kept: Kept) -> None:
    kept.record(*told(1))
    before, figures = kept.journal.totals(), kept.journal.database.query("SELECT * FROM figures")
    kept.erase(BOB.upper())
    with kept.journal.database.transaction() as link:
        plain, veiled = veil.known_as(link, BOB)
    assert [fate.status for fate in fates.of_recipient(kept.journal.database, veiled, most=9)] == ["bounced"]
    assert fates.of_recipient(kept.journal.database, plain, most=9) == []
    rows = kept.journal.database.query("SELECT address, reason FROM suppressions")
    assert rows == [(veiled, "unsubscribed")]
    assert (kept.journal.totals(), kept.journal.database.query("SELECT * FROM figures")) == (before, figures)
    first = kept.journal.submitted(f"{1:016x}")
    assert first is not None
    assert first.recipients == (veiled,)


def test_a_hit_is_nobodys_then_under_whichever_secret_and_spelling(kept: Kept) -> None:
    pseudonyms = [Mint([secret]).pseudonym(name.encode()).hex() for secret in SECRETS for name in (BOB, BOB.lower())]
    other = Mint(SECRETS[:1]).pseudonym(MARY.encode()).hex()
    [hit] = [event for event in told(1) if isinstance(event, Clicked)]
    kept.record(*told(9), *(replace(hit, source=f"hit:x{one}", recipient=one) for one in (*pseudonyms, other)))
    assert kept.erase(BOB.lower()) == 0
    hits = {entry.event.source: entry.event for entry in kept.journal.events() if isinstance(entry.event, Clicked)}
    assert {hits[f"hit:x{one}"].recipient for one in pseudonyms} == {""}
    assert {(hits[f"hit:x{one}"].address, hits[f"hit:x{one}"].agent) for one in pseudonyms} == {("", "")}
    assert hits[f"hit:x{other}"].recipient == other


def test_what_waits_in_the_emergency_spool_is_erased_and_replayed(kept: Kept) -> None:
    spool = Spool(kept.folder / "spool" / "events", durable=False)
    for event in told(1)[:1] + told(2, MARY)[:1]:
        spool.put(Job((), rows.encode(event, "h"), {}, NOW))
    assert kept.erase() == 0
    assert kept.holding(BOB) == []
    settler = Settler(kept.folder / "journal.db", tick=0.01)
    settler.open()
    wait_for(lambda: len(kept.journal.events()) >= 2)
    settler.close()
    recipients = [entry.event.recipients for entry in kept.journal.events() if isinstance(entry.event, Submitted)]
    assert sorted(map(len, recipients)) == [1, 1]
    assert (MARY,) in recipients


def test_what_waits_beside_an_event_in_the_emergency_spool_is_erased_too(kept: Kept) -> None:
    """A recipient that was removed is no recipient of the message any more: its own event alone names it."""
    [taken] = [event for event in told(1, MARY) if isinstance(event, Submitted)]
    removed = Suppressed(
        source=f"suppressed:{taken.reference}:{BOB}", time=NOW, queue_id="Q1", reference=taken.reference,
        login="alice", from_domain="news.example", recipient=BOB, reason="bounced", scope="everywhere",
        evidence=f"550 {BOB} is unknown",
    )  # fmt: skip
    job = Job((), rows.encode(taken, "h"), {}, NOW, besides=(rows.encode(removed, "h"),))
    Spool(kept.folder / "spool" / "events", durable=True).put(job)
    assert kept.erase() == 0
    assert kept.holding(BOB) == []
    settler = Settler(kept.folder / "journal.db", tick=0.01)
    settler.add({("messages_total", ("submission", "passed")): 1})

    def found() -> list[Suppressed]:
        return [one.event for one in kept.journal.events() if isinstance(one.event, Suppressed)]

    wait_for(found)
    settler.close()
    assert veil.is_hashed(found()[0].recipient)


def test_what_a_killed_process_began_to_write_is_erased_too(kept: Kept) -> None:
    """Nobody finishes it, and nobody else looks there until the journal fails again."""
    folder = kept.folder / "spool" / "events"
    spool = Spool(folder, durable=False)
    spool.put(Job((), rows.encode(told(1)[0], "h"), {}, NOW))
    [whole] = folder.glob("*.json")
    draft = whole.rename(whole.with_suffix(".tmp"))
    assert kept.erase() == 1, "somebody may be writing it just now"
    os.utime(draft, (NOW - 4000, NOW - 4000))
    assert kept.erase() == 0
    assert kept.holding(BOB) == []


def test_a_pipe_among_the_hits_holds_nobody(kept: Kept) -> None:
    """The tracking server's user may make one there; nor does a link of its have anything read."""
    hits = kept.folder / "spool" / "hits"
    hits.mkdir(parents=True)
    os.mkfifo(hits / "hits-1.jsonl")
    elsewhere = kept.folder / "mine"
    elsewhere.write_text(BOB)
    (hits / "hits-2.jsonl").symlink_to(elsewhere)
    assert kept.erase() == 0


def test_an_event_that_waits_and_cannot_be_read_is_named(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    folder = kept.folder / "spool" / "events"
    folder.mkdir(parents=True)
    (folder / "1.json").write_text(f'{{"row": ["h", "submitted", "{BOB}')
    assert kept.erase() == 1
    assert "1.json names it" in capsys.readouterr().err


@pytest.mark.parametrize("days", [-10.0, 10.0])
def test_who_is_suppressed_stays_so_when_an_older_hash_of_it_is_there(kept: Kept, days: float) -> None:
    """The later end of both holds, as it does wherever two say the same."""
    when = NOW + days * 86_400
    with kept.journal.database.transaction() as link:
        hashed = veil.hashed(BOB, veil.key(link))
        old = Suppression(hashed, "everywhere", "bounced", NOW - 9e6, when)
        suppression.lengthen(link, [old, Suppression(BOB, "everywhere", "bounced", NOW, NOW + 5 * 86_400, BOB)])
    assert kept.erase() == 0
    assert kept.holding(BOB) == []
    [one] = suppression.select(kept.journal.database, Choice())
    assert (one.address, one.until) == (hashed, max(when, NOW + 5 * 86_400))


@pytest.mark.parametrize(
    "hidden",
    [
        b"Content-Transfer-Encoding: base64\n\n" + base64.encodebytes(b"Mail to <" + BOB.encode() + b"> came back\n"),
        b"Content-Transfer-Encoding: quoted-printable\n\nThe mail to <bob.ross=40shop.exam=\nple> came back\n",
        b"Subject: =?utf-8?B?" + base64.b64encode(BOB.encode()) + b"?=\n\n",
        b"Content-Type: multipart/report; boundary=b\n\n--b\nContent-Transfer-Encoding: base64\n\n"
        + base64.encodebytes(b"to: " + BOB.encode()) + b"--b--\n",
    ],
)  # fmt: skip
def test_mail_that_names_it_in_some_coding_is_deleted(kept: Kept, hidden: bytes) -> None:
    folder = kept.folder / "spool" / "returns" / "kept"
    folder.mkdir(parents=True)
    (folder / "1.eml").write_bytes(b'{"time": 1}\n' + hidden)
    (folder / "2.eml").write_bytes(b'{"time": 1}\nTo: ' + MARY.encode() + b"\n\n")
    assert kept.erase() == 0
    assert [path.name for path in folder.iterdir()] == ["2.eml"]


def test_mail_kept_for_a_person_to_look_at_is_deleted(kept: Kept) -> None:
    folder = kept.folder / "spool" / "returns" / "kept"
    folder.mkdir(parents=True)
    (folder / "1").write_bytes(b"{}\nTo: BOB.ROSS@shop.example\n")
    (folder / "2").write_bytes(b"{}\nTo: mary@shop.example\n")
    assert kept.erase() == 0
    assert [path.name for path in folder.iterdir()] == ["2"]


def test_what_waits_for_books_is_named(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    folder = kept.folder / "spool" / "hits"
    folder.mkdir(parents=True)
    (folder / "hits-1-1-1.jsonl").write_text(json.dumps({"recipient": BOB}) + "\n")
    assert kept.erase() == 1
    assert "hits-1-1-1.jsonl names it and waits for `postmeter books`" in capsys.readouterr().err


def test_what_somebody_is_at_work_with_stays_and_is_named(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    """Else nobody would ever know what became of mail that is in the queue."""
    with kept.journal.database.transaction() as link:
        data = json.dumps({"recipients": {BOB: {}}})
        link.execute("INSERT INTO lives VALUES ('h', 'postfix', 'Q1', 1.0, ?)", (data,))
    assert kept.erase() == 1
    assert "1 messages to it are still in Postfix's queue: erase again" in capsys.readouterr().err
    assert kept.journal.database.query("SELECT data FROM lives") == [(data,)]


@pytest.mark.parametrize(
    "spelling",
    [
        '"bob.ross"@shop.example',
        '"bob\\.ross"@shop.example',
        "@a.example:Bob.Ross@shop.example",
        "bob.ross(x)@shop.example",
    ],
)
def test_a_recipient_goes_whatever_a_client_put_around_it(kept: Kept, spelling: str) -> None:
    kept.record(*told(1, spelling))
    kept.erase()
    [taken] = [entry.event for entry in kept.journal.events() if isinstance(entry.event, Submitted)]
    assert veil.is_hashed(taken.recipients[0])


def test_twice_is_once(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    kept.record(*told(1), *told(2, MARY, BOB))
    assert kept.erase() == 0
    before = kept.journal.events()
    capsys.readouterr()
    assert kept.erase() == 0
    assert kept.journal.events() == before
    assert re.findall(r"\b[1-9]\d*$", capsys.readouterr().out, re.MULTILINE) == []


def test_a_sender_is_told_that_its_own_mail_stays(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    [taken] = [event for event in told(1) if isinstance(event, Submitted)]
    kept.record(replace(taken, login="alice@news.example"))
    assert kept.erase("alice@news.example") == 1
    assert "it is a login here" in capsys.readouterr().err


@pytest.mark.parametrize("lifted", [False, True])
def test_a_login_that_an_order_names_is_told_so_and_not_to_try_again(
    kept: Kept, capsys: pytest.CaptureFixture[str], lifted: bool
) -> None:
    kept.record(*told(1))
    orders.put(kept.journal.database, orders.Order(kind="freeze", login=BOB.lower(), since=NOW))
    if lifted:
        orders.lift(kept.journal.database, "freeze", BOB.lower(), NOW + 1)
    assert kept.erase() == 1
    err = capsys.readouterr().err
    assert "it is a login here" in err
    assert "run it again" not in err


def test_the_letters_in_another_logins_name_are_no_remains(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    kept.record(*told(1)[:2])
    orders.put(kept.journal.database, orders.Order(kind="freeze", login=f"jim.{BOB.lower()}", since=NOW))
    assert kept.erase() == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("word", ["bob", "hash:0123456789abcdef0123456789abcdef", "", "@x.example", "bob@"])
def test_what_is_no_address_is_refused(kept: Kept, word: str) -> None:
    assert kept.erase(word) == 64


def _busy(path: str, stop: Any) -> None:
    """Messages to others, as fast as they come, from another process."""
    settler, number = Settler(Path(path)), 1000
    while not stop.is_set():
        number += 1
        settler.settle((), told(number, f"p{number}@shop.example")[0], {}, time.time())
    settler.close()


def test_it_works_while_mail_is_written(kept: Kept) -> None:
    for number in range(300):
        kept.record(*told(number, BOB if number % 3 else f"q{number}@shop.example"))
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    writer = context.Process(target=_busy, args=(str(kept.folder / "journal.db"), stop))
    writer.start()
    try:
        before = kept.journal.last()
        wait_for(lambda: kept.journal.last() > before)
        assert kept.erase() == 0
        assert writer.is_alive()
    finally:
        stop.set()
        writer.join()
    assert writer.exitcode == 0
    assert kept.holding(BOB) == []
    assert kept.journal.database.query("PRAGMA integrity_check") == [("ok",)]


def erased(kept: Kept) -> int:
    [(count,)] = kept.journal.database.query("SELECT count(*) FROM events WHERE data LIKE '%hash:%'")
    return int(count)


def test_killed_at_any_moment_and_run_again_it_comes_to_the_same(kept: Kept, tmp_path_factory: Any) -> None:
    for number in range(400):
        kept.record(*told(number, BOB if number % 3 else f"q{number}@shop.example"))
    other = tmp_path_factory.mktemp("whole") / "journal.db"
    with kept.journal.database.transaction() as link:
        veil.key(link)
    kept.journal.database.query("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(kept.folder / "journal.db", other)
    command = [sys.executable, "-m", "postmeter", "erase", BOB, "-c", str(kept.config)]
    kills = 0
    for wanted in (1, 250, 500, 750, 1000):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={"PYTHONPATH": "milter"})
        while process.poll() is None and erased(kept) < wanted:
            time.sleep(0.001)  # bounded: it ends
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills >= 3
    assert kept.erase() == 0
    assert kept.holding(BOB) == []
    kept.config.write_text(kept.config.read_text().replace(str(kept.folder / "journal.db"), str(other)))
    assert kept.erase() == 0
    with contextlib.closing(Journal(other)) as whole:
        for table in ("events", "fates", "figures", "suppressions", "totals"):
            rows, alike = (one.database.query(f"SELECT * FROM {table} ORDER BY 1, 2") for one in (kept.journal, whole))
            assert rows == alike


KEY = bytes(32)
PERSON = erasing.Person(BOB, KEY, lambda spelling: [])


@given(st.text(), st.sampled_from(["", " ", "<", '"', "u=", "/", "rfc822;"]), st.sampled_from(["", ">", " ", ".", ","]))
def test_an_address_goes_wherever_it_stands(around: str, before: str, after: str) -> None:
    for form in (BOB, BOB.lower(), BOB.upper(), "bob.ross=shop.example", "bob.ross%40shop.example"):
        text = f"{around}\n{before}{form}{after}\n{around}"
        assert PERSON.hash in PERSON.without(text)
        assert form not in PERSON.without([{"x": text}])[0]["x"] or form in around


@pytest.mark.parametrize("other", [f"x{BOB}", f"jim.{BOB}", f"a+{BOB}", f"{BOB}.au", f"{BOB}x", f"{BOB}-x.example"])
def test_another_one_whose_address_begins_or_ends_so_stays(other: str) -> None:
    assert PERSON.without(other) == other
    assert PERSON.without(f"<{other}>") == f"<{other}>"


def test_a_domain_in_letters_of_its_own_is_the_same_as_its_a_label() -> None:
    person = erasing.Person("Ännä@bücher.example", KEY, lambda spelling: [])
    for spelled in ("ännä@bücher.example", "ÄNNÄ@BÜCHER.example", "ännä@xn--bcher-kva.example"):
        assert person.without(spelled) == person.hash
        assert person.may_be_in(json.dumps(spelled))


NAMES = ["öykü.öztürk@shop.example", "ännä@xn--bcher-kva.example", "иван@почта.example", "o'neil+ö=ü@shop.example"]


@given(st.sampled_from(NAMES), st.data())
def test_letters_of_any_alphabet_may_be_capitals(address: str, data: st.DataObject) -> None:
    """Each by itself, as names begin with one; also where JSON or a URL writes them otherwise."""
    person = erasing.Person(address, KEY, lambda spelling: [])
    spelt = "".join(data.draw(st.sampled_from((char, char.upper()))) for char in address)
    assert person.without(spelt) == person.hash
    for text in (spelt, json.dumps(spelt), f"https://shop.example/?u={quote(spelt)}", quote(spelt, safe="").lower()):
        assert person.may_be_in(text)
        assert person.in_octets(f"x{text}x".encode())
        assert person.may_be_in(person.without(text)) is False or text.startswith('"')


@pytest.mark.parametrize("address", NAMES)
def test_an_address_is_found_wherever_a_file_is_cut_for_reading(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And however long its letters are where they are written otherwise."""
    monkeypatch.setattr(erase, "_BLOCK", 1)
    person, file = erasing.Person(address, KEY, lambda spelling: []), tmp_path / "file"
    for text in (address, json.dumps(address), quote(address, safe="")):
        file.write_text(f"before {text} behind", "utf-8")
        assert erase._holds(file, person)


def test_a_name_that_begins_with_a_letter_beyond_ascii_goes(kept: Kept) -> None:
    """Mail to such people is an event in JSON, and their capital is another escape there than the small letter."""
    kept.record(*told(1, "Öykü.Öztürk@Shop.Example"))
    assert kept.erase("öykü.öztürk@shop.example") == 0
    said = " ".join(path.read_text("latin-1").lower() for path in kept.folder.rglob("*") if path.is_file())
    pattern = r"(?:\\u00d6|\\u00f6|%c3%96|%c3%b6|ã\x96|ã¶)yk"
    assert re.findall(f"x{pattern}", said), "another's stays"
    assert not re.findall(f"(?<!x){pattern}", said)
