"""`postmeter report` and `postmeter trace` over a journal that was followed, as an administrator types them."""

from __future__ import annotations

import csv
import email
import email.policy
import io
import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from postmeter.books.following import Follower
from postmeter.cli.main import main
from postmeter.events import Bounced, Complained, Deferred, Opened, Released, Sent, Submitted
from postmeter.store import veil
from postmeter.store.database import Database
from postmeter.store.journal import Journal
from tests.lab.sink import Sink

NOW = time.time()
ANN = "ann@example.com"
FIRST, SECOND, THIRD = "a" * 16, "b" * 16, "c" * 16
WILD = "550 5.1.1 \x1b[2Jno such\r\nuser \u202e"


class Place:
    """A configuration, its journal, and where its mail goes."""

    def __init__(self, folder: Path, sink: Sink) -> None:
        self.config, self.path = folder / "postmeter.yaml", folder / "journal.db"
        self.config.write_text(
            f"journal: {{path: {self.path}, host: mx1.example.com}}\n"
            f"notify: {{smtp: 127.0.0.1:{sink.port}}}\n"
            "report: {to: [boss@example.com], every: 7d, by: [login, day]}\n"
        )
        self.sink = sink
        self.journal = Journal(self.path, host="mx1.example.com")

    def record(self, *events: Any) -> None:
        self.journal.record(events)
        follower = Follower(self.journal, domains=())
        while follower.work():
            pass

    def run(self, *words: str) -> int:
        return main(["-c", str(self.config), *words])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Sink() as sink:
        found = Place(tmp_path, sink)
        found.record(*story())
        yield found


def submitted(reference: str, queue_id: str, *recipients: str, ago: float = 3600.0, **facts: object) -> Submitted:
    return Submitted(
        source=f"eom:{reference}", time=NOW - ago, queue_id=queue_id, reference=reference,
        message_id=f"<{queue_id}@example.com>", login=ANN, sender=ANN, service="submission", mail_from=ANN,
        from_domain="example.com", recipients=recipients, size=1234, facts=facts,
    )  # fmt: skip


def story() -> list[Any]:
    """One message to two people; another one that was held, and let go."""
    named: dict[str, Any] = {"queue_id": "4ABC", "reference": FIRST, "login": ANN, "from_domain": "example.com"}
    bob, eve = "Bob@example.net", "eve@example.org"
    return [
        submitted(FIRST, "4ABC", bob, eve, campaign="spring\x1b[0m"),
        *(Deferred(source=f"log:{n}", time=NOW - 3500 + n, recipient=bob, text=f"451 try later {n}",
                   relay="mx.example.net", **named) for n in range(3)),
        Sent(source="log:10", time=NOW - 3000, recipient=bob, relay="mx.example.net", provider="google", delay=600.0,
             dsn="2.0.0", text="250 OK", **named),
        Bounced(source="log:11", time=NOW - 3000, recipient=eve, hard=True, dsn="5.1.1", text=WILD, **named),
        Complained(source="arf:1", time=NOW - 60, reference=FIRST, login=ANN, from_domain="example.com",
                   recipient="bob@example.net", reporter="Yahoo"),
        Opened(source="hit:1", time=NOW - 100, reference=FIRST, recipient="", host="", method="GET", address="",
               agent="", by="machine", reason="robot:google", campaign="", from_domain="example.com", recipients=2,
               unique=True),
        submitted(SECOND, "4DEF", bob, ago=1800.0, held="quota"),
        Released(source="released:4DEF", time=NOW - 900, queue_id="4DEF", login=ANN, sender=ANN, action="released",
                 by="due"),
    ]  # fmt: skip


def test_a_report_says_what_became_of_everybody(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.run("report", "--by", "login,provider", "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    wanted = {
        "accepted": 3,
        "delivered": 1,
        "hard": 1,
        "waiting": 1,
        "complained": 1,
        "opened_machine": 1,
        "delayed": 1,
    }
    assert {name: found["total"][name] for name in wanted} == wanted
    assert found["total"]["rates"]["hard"] == 0.5
    assert {part["name"]: part["accepted"] for part in found["by"]["provider"]} == {"": 2, "google": 1}
    assert [part["name"] for part in found["by"]["login"]] == [ANN]


def test_every_format_is_whole(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.run("report", "--format", "csv") == 0
    assert next(csv.DictReader(io.StringIO(capsys.readouterr().out)))["accepted"] == "3"
    assert place.run("report", "--format", "html") == 0
    assert capsys.readouterr().out.rstrip().endswith("</html>")
    assert place.run("report") == 0
    assert re.search(r"accepted +3\n +delivered +1 +50.0% of decided", capsys.readouterr().out)


@pytest.mark.parametrize(
    "words",
    [
        ["--by", "colour"], ["--since", "yesterday"], ["--since", "2026-11-09", "--until", "2026-11-01"],
        ["--mail", ""], ["--mail", "boss"], ["--mail", "boss@example.com\nBcc: x@example.net"],
    ],
)  # fmt: skip
def test_what_cannot_be_reported_is_said(place: Place, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert place.run("report", *words) == 64
    assert "postmeter report: " in capsys.readouterr().err


def test_a_report_goes_by_mail_as_text_and_page(place: Place) -> None:
    assert place.run("report", "--mail", "ann@example.com") == 0
    [delivery] = place.sink.wait()
    message = email.message_from_bytes(delivery.data, policy=email.policy.default)
    assert delivery.rcpt_to == (b"ann@example.com",)
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    text, html = (part.get_content() for part in message.iter_parts())
    assert "50.0% of decided" in text
    assert "<svg" not in html
    assert html.rstrip().endswith("</html>")


def test_what_is_due_goes_once_and_again_when_its_time_is_over(place: Place) -> None:
    assert place.run("report", "--due") == place.run("report", "--due") == 0
    assert [delivery.rcpt_to for delivery in place.sink.wait()] == [(b"boss@example.com",)]
    place.journal.record((), positions={"report": str(int(time.time() // 86_400) - 7)})
    assert place.run("report", "--due") == 0
    assert len(place.sink.wait(2)) == 2


def test_what_nobody_takes_stays_due(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.sink.answer = lambda recipient: "550 5.1.1 nobody"
    assert place.run("report", "--due") == 1
    assert capsys.readouterr().err.startswith("postmeter report: ")
    place.sink.answer = lambda recipient: "250 2.1.5 ok"
    assert place.run("report", "--due") == 0
    assert len(place.sink.wait()) == 1


@pytest.mark.parametrize("what", ["4ABC", "<4ABC@example.com>", "4ABC@example.com", FIRST, "EVE@example.org"])
def test_a_message_is_found_by_whatever_is_known_of_it(
    place: Place, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    assert place.run("trace", what) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"message {FIRST}\n")
    assert "eve@example.org: bounced hard" in told
    assert "bounced for eve@example.org (hard: the address is at fault): 5.1.1 550 5.1.1 " in told


def test_a_story_is_told_in_its_order_and_words(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.run("trace", "4ABC")
    lines = [line.partition("Z  ")[2] for line in capsys.readouterr().out.splitlines() if re.match("  20", line)]
    assert lines[0] == "taken by submission from login ann@example.com, for Bob@example.net, eve@example.org"
    assert lines[1].endswith("deferred 3 times for Bob@example.net by mx.example.net; the last time: 451 try later 2")
    assert "sent to Bob@example.net by mx.example.net, 10 minutes after it came in: 2.0.0 250 OK" in lines
    assert lines[-2:] == ["opened by a machine (robot:google)", "bob@example.net called it spam, as Yahoo reports"]


def test_a_recipient_s_story_leaves_out_the_others(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.run("trace", "bob@EXAMPLE.net") == 0
    told = capsys.readouterr().out
    assert "bounced" not in told
    assert told.index(f"message {SECOND}") < told.index(f"message {FIRST}"), "latest first"
    assert "put on hold: a quota had no room" in told
    assert "let out of the hold queue, by itself, there was room" in told


def busy(place: Place) -> list[str]:
    """A message to many people, opened more often than can be told; who it went to, in the order of the log."""
    people = [f"p{number}@example.net" for number in range(60)]
    named: dict[str, Any] = {"queue_id": "4BIG", "reference": THIRD, "login": ANN, "from_domain": "example.com"}
    place.record(
        submitted(THIRD, "4BIG", *people),
        *(Opened(source=f"hit:big:{number}", time=NOW - 3000 + number, reference=THIRD, recipient="", host="",
                 method="GET", address="", agent="", by="machine", reason="robot:x", campaign="",
                 from_domain="example.com", recipients=60, unique=True) for number in range(30)),
        *(Sent(source=f"log:big:{whom}", time=NOW - 2000, recipient=whom, provider="google", delay=1.0, **named)
          for whom in people),
    )  # fmt: skip
    return people


def test_a_recipient_of_a_long_list_is_told_of_whatever_became_of_the_others(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postmeter.trace.MOST_EVENTS", 20)
    monkeypatch.setattr("postmeter.store.finding._SLICE", 7)
    last = busy(place)[-1]
    assert place.run("trace", last) == 0
    told = capsys.readouterr().out
    assert f"sent to {last}, " in told
    assert told.count("opened by a machine") == 18
    assert told.endswith("\n  and more than these 20 events, which are not told\n")


def test_what_is_left_out_of_a_long_story_is_said_and_hits_come_last(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    people = busy(place)
    for most, left in ((61, True), (91, False)):
        monkeypatch.setattr("postmeter.trace.MOST_EVENTS", most)
        assert place.run("trace", "--json", "4BIG") == 0
        [found] = json.loads(capsys.readouterr().out)
        assert (len(found["events"]), found["more"]) == (most, left)
        assert [event["recipient"] for event in found["events"] if event["kind"] == "sent"] == people


def test_messages_that_are_left_out_are_told_of(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    for most, told, left in (("1", 1, True), ("2", 2, False)):
        assert place.run("trace", "bob@example.net", "--most", most) == 0
        said = capsys.readouterr()
        assert said.out.count(f"message {SECOND}\n") + said.out.count(f"message {FIRST}\n") == told
        assert said.err == ("postmeter trace: there are earlier ones; --most N shows more\n" if left else "")


def test_what_servers_and_clients_said_steers_no_terminal(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.run("trace", "4ABC")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", capsys.readouterr().out)


def test_a_story_is_whole_in_json(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.run("trace", "--json", "4ABC") == 0
    [found] = json.loads(capsys.readouterr().out)
    assert [event["kind"] for event in found["events"]].count("deferred") == 3
    assert next(event["text"] for event in found["events"] if event["kind"] == "bounced") == WILD
    assert {one["recipient"]: one["status"] for one in found["recipients"]} == {
        "bob@example.net": "sent", "eve@example.org": "bounced",
    }  # fmt: skip


def test_an_address_that_was_forgotten_is_found_by_who_knows_it(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    with place.journal.database.transaction() as link:
        hashed = veil.hashed("eve@example.org", veil.key(link))
        link.execute("UPDATE fates SET recipient = ? WHERE recipient = 'eve@example.org'", (hashed,))
        link.execute("UPDATE events SET data = replace(data, 'eve@example.org', ?)", (hashed,))
    assert place.run("trace", "eve@example.org") == 0
    told = capsys.readouterr().out
    assert "eve@example.org" not in told
    assert f"bounced for {hashed}" in told


@pytest.mark.parametrize("what", ["4ABC", "<4ABC@example.com>", "bob@example.net", FIRST])
def test_nothing_that_is_asked_for_reads_all_events(place: Place, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[str] = []
    query = Database.query

    def watched(self: Database, sql: str, values: Sequence[object] = ()) -> list[Any]:
        plans.extend(str(row[3]) for row in query(self, f"EXPLAIN QUERY PLAN {sql}", values))
        return query(self, sql, values)

    monkeypatch.setattr(Database, "query", watched)
    place.run("trace", what)
    assert any(plan.startswith("SEARCH events") for plan in plans)
    assert [plan for plan in plans if re.match("SCAN (events|fates|message_ids)", plan)] == []


@pytest.mark.parametrize("words", [["x@example.com", "--most", n] for n in ("0", "-1", "many", "9" * 20)] + [[""]])
def test_what_cannot_be_looked_for_is_wrong_usage(place: Place, words: list[str]) -> None:
    """And not a message that nobody knows."""
    assert place.run("trace", *words) == 64


def test_nothing_found_is_a_problem(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.run("trace", "nobody\x1b@example.com") == 1
    assert capsys.readouterr().out == "nothing is known of nobody\\x1b@example.com\n"


def test_who_got_no_mail_for_being_suppressed_is_not_just_unknown(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused at RCPT there is no message that could be told of."""
    assert place.run("suppress", "add", "Gone@example.net", "--for", "30d") == 0
    capsys.readouterr()
    assert place.run("trace", "gone@EXAMPLE.net") == 1
    told = "nothing is known of gone@EXAMPLE.net, who is suppressed: postmeter suppress list gone@EXAMPLE.net\n"
    assert capsys.readouterr().out == told
