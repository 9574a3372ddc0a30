"""From the press of a button to the journal: one event and one suppression, however often it is pressed; no lie."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from postmeter.books.hits import HitReader
from postmeter.books.robotfile import RobotFile
from postmeter.books.unsubscribes import OTHERS
from postmeter.books.webhooks import payload
from postmeter.events import Unsubscribed
from postmeter.runtime import spool
from postmeter.store.journal import Journal
from postmeter.token import Mint, Unsubscribe
from postmeter.tracking.hits import SPOOL
from tests.lab.redirects import Place, opened
from tests.lab.waiting import wait_for

ONE_CLICK = b"List-Unsubscribe=One-Click"
FORM = "application/x-www-form-urlencoded"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
MULTIPART = (
    b'--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--b--\r\n',
    "multipart/form-data; boundary=b",
)
ROBOTS = RobotFile(None).robots


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Lab:
    """The daemon as a process; the books' reader in ours."""

    place: Place

    def path(self, said: Unsubscribe, *, nonce: bytes = b"only used 1x", secret: bytes = b"") -> str:
        mint = Mint([secret or self.place.secret])
        return mint.unsubscribe_url("http://127.0.0.1", said, nonce=nonce).removeprefix("http://127.0.0.1")

    def ask(self, path: str, body: bytes | None = None, *, kind: str = FORM, method: str = "", **more: str) -> Reply:
        """POST where there is a body; `more` header fields."""
        link = self.place.connect()
        fields = {"Host": "127.0.0.1", "Accept-Language": "de"} | {name.capitalize(): more[name] for name in more}
        fields |= {"Content-Type": kind} if body is not None else {}
        link.request(method or ("GET" if body is None else "POST"), path, body=body, headers=fields)
        answer = link.getresponse()
        found = Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        link.close()
        return found

    @property
    def spool(self) -> Path:
        return self.place.state / "spool" / SPOOL

    def lines(self) -> int:
        """Unsubscribes in the spool."""
        return sum(path.read_bytes().count(b'"unsubscribe"') for path in spool.files(self.spool, SPOOL))

    def read(self) -> tuple[list[Unsubscribed], list[tuple[str, str, str]], int]:
        """Events, suppressions and the figure, once all that is in the spool has been read."""
        journal = Journal(self.place.state / "journal.db")
        later = time.time() + 10  # a click just before is judged after two seconds
        reader = HitReader(self.spool, journal, robots=ROBOTS, privacy="totals", clock=lambda: later, others=OTHERS)
        while reader.work():
            pass
        events = [entry.event for entry in journal.events() if isinstance(entry.event, Unsubscribed)]
        figure = journal.totals().get(("unsubscribes_total", ()), 0)
        journal.close()
        with sqlite3.connect(self.place.state / "journal.db") as link:
            rows = link.execute("SELECT address, scope, reason FROM suppressions ORDER BY address, scope").fetchall()
        link.close()
        return events, rows, figure


@pytest.fixture
def lab() -> Iterator[Lab]:
    with opened() as place, place.running():
        yield Lab(place)


BOB = Unsubscribe(b"message1", b"Bob@Example.NET", "from:news@shop.example")


def test_pressing_again_and_again_is_one_unsubscribe(lab: Lab) -> None:
    """By mail program and by page, in both forms, before and after the books looked."""
    path = lab.path(BOB)
    for _ in range(3):
        assert lab.ask(path, ONE_CLICK).status == 200
    assert lab.ask(path, *MULTIPART[:1], kind=MULTIPART[1]).status == 200
    assert lab.lines() == 4
    events, rows, figure = lab.read()
    for _ in range(2):
        assert lab.ask(path, ONE_CLICK).status == 200
    again = lab.read()
    assert again == (events, rows, figure)
    assert [(event.source, event.recipient, event.scope, event.from_domain) for event in events] == [
        (f"unsubscribed:{b'message1'.hex()}", "Bob@Example.NET", "from:news@shop.example", "shop.example")
    ]
    assert rows == [("bob@example.net", "from:news@shop.example", "unsubscribed")]
    assert figure == 1


def test_looking_is_no_unsubscribe(lab: Lab) -> None:
    for method in ("GET", "HEAD"):
        for _ in range(3):
            assert lab.ask(lab.path(BOB), method=method).status == 200
    assert lab.ask(lab.path(BOB), b"anything=else").status == 400
    assert lab.read() == ([], [], 0)


def test_two_messages_of_one_list_are_two_events_and_one_suppression(lab: Lab) -> None:
    for reference in (b"message1", b"message2"):
        assert lab.ask(lab.path(Unsubscribe(reference, BOB.recipient, BOB.scope)), ONE_CLICK).status == 200
    events, rows, figure = lab.read()
    assert (len(events), len(rows), figure) == (2, 1, 2)


def test_one_list_is_left_and_no_other(lab: Lab) -> None:
    weekly = "list:shop.example/weekly.shop.example"
    assert lab.ask(lab.path(Unsubscribe(b"message3", BOB.recipient, weekly)), ONE_CLICK).status == 200
    assert lab.read()[1] == [("bob@example.net", weekly, "unsubscribed")]


def test_junk_unsubscribes_nobody(lab: Lab) -> None:
    good = lab.path(BOB)
    wrong = [good[:-1], good[:-9] + "A" * 9, "/u/", "/u/x", lab.path(BOB, secret=b"f" * 32), "/c/" + good[3:]]
    for path in wrong:
        assert lab.ask(path, ONE_CLICK).status == 404
    assert lab.ask(good, ONE_CLICK, host="other.example").status == 404
    assert lab.ask(good, ONE_CLICK, method="PUT").status == 404
    assert lab.read() == ([], [], 0)


def test_an_older_secret_still_lets_people_leave_and_a_removed_one_no_more(lab: Lab) -> None:
    old = lab.path(BOB)

    def answers(fresh: str, status: int) -> bool:
        return lab.ask(fresh).status == 200 and lab.ask(old).status == status

    for known, status in (((b"n" * 32, lab.place.secret), 200), ((b"n" * 32,), 404)):
        lab.place.keep_secrets(*known)
        wait_for(partial(answers, lab.path(BOB, secret=b"n" * 32), status))


def test_a_spool_that_cannot_be_written_is_no_unsubscribe_yet(lab: Lab) -> None:
    """The person is asked to try again; what was said meanwhile is not forgotten, and counts once."""
    path = lab.path(BOB)
    away = lab.place.path / "away"
    lab.spool.rename(away)
    for file in spool.files(away, SPOOL):  # else the daemon goes on with the one it has open
        file.unlink()
    for accept in ("", BROWSER):
        found = lab.ask(path, ONE_CLICK, accept=accept)
        assert (found.status, found.headers["retry-after"]) == (503, "60")
        assert b'<html lang="de">' in found.body
        assert b"<form" in found.body
    away.rename(lab.spool)
    wait_for(lambda: lab.ask(path, ONE_CLICK).status == 200)
    events, rows, figure = lab.read()
    assert (len(events), len(rows), figure) == (1, 1, 1)


def test_nothing_is_lost_when_the_daemon_is_killed_after_it_answered() -> None:
    with opened() as place:
        lab = Lab(place)
        with place.running():
            assert lab.ask(lab.path(BOB), ONE_CLICK).status == 200
        assert len(lab.read()[0]) == 1


def test_a_spool_that_is_read_twice_counts_once(lab: Lab) -> None:
    """As after a journal was put back from a backup, or lines were replayed."""
    assert lab.ask(lab.path(BOB), ONE_CLICK).status == 200
    shutil.copytree(lab.spool, lab.place.path / "copy")
    first = lab.read()
    shutil.rmtree(lab.spool)
    shutil.copytree(lab.place.path / "copy", lab.spool)
    assert lab.read() == first


def test_people_and_programs_get_the_404_that_each_can_read(lab: Lab) -> None:
    page = lab.ask("/c/nothing", accept=BROWSER)
    assert (page.status, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "Seite nicht gefunden" in page.body.decode()
    assert page.headers["content-language"] == "de"
    assert lab.ask("/u/nothing", accept=BROWSER).body == page.body
    for accept in ("", "*/*", "image/avif,image/webp,*/*"):
        assert lab.ask("/c/nothing", accept=accept).body == b"Not found.\n"


def test_no_answer_sets_a_cookie_or_is_kept_or_sends_elsewhere(lab: Lab) -> None:
    for found in (lab.ask(lab.path(BOB)), lab.ask(lab.path(BOB), ONE_CLICK), lab.ask("/u/x", accept=BROWSER)):
        assert found.headers["cache-control"] == "no-store"
        assert found.headers["referrer-policy"] == "no-referrer"
        assert found.headers["x-robots-tag"] == "noindex, nofollow"
        assert "frame-ancestors 'none'" in found.headers["content-security-policy"]
        assert not {"set-cookie", "location"} & found.headers.keys()


def test_a_webhook_tells_who_left_what(lab: Lab) -> None:
    lab.ask(lab.path(BOB), ONE_CLICK)
    lab.read()
    journal = Journal(lab.place.state / "journal.db", host="mail.example.com")
    (told,) = json.loads(payload(journal.of_kinds(["unsubscribed"], after=0)[0]))["events"]
    journal.close()
    assert {key: told[key] for key in ("event", "recipient", "scope", "from_domain")} == {
        "event": "unsubscribed",
        "recipient": "Bob@Example.NET",
        "scope": "from:news@shop.example",
        "from_domain": "shop.example",
    }
