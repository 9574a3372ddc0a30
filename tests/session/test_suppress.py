"""`postmeter suppress` as an administrator types it, on a journal of its own."""

from __future__ import annotations

import io
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from postmeter.cli.main import main
from postmeter.store import suppression, veil
from postmeter.store.database import Database
from postmeter.store.journal import Journal
from postmeter.store.suppression import Suppression

NOW = 1_800_000_000.0
DAY = 86_400.0


class Place:
    """A configuration with an empty journal beside it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], *, observe: bool = False) -> None:
        self.config, self._capsys = folder / "postmeter.yaml", capsys
        self.path = folder / "state" / "journal.db"
        self.path.parent.mkdir()
        self.config.write_text(f"journal: {{path: {self.path}}}\nsuppression: {{observe: {str(observe).lower()}}}\n")
        Journal(self.path).close()

    def run(self, *words: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = main(["suppress", *words, "-c", str(self.config)])
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def listed(self, *words: str) -> list[dict[str, Any]]:
        code, out, _ = self.run("list", "--json", *words)
        assert code == 0
        return [json.loads(line) for line in out.splitlines()]

    def put(self, *made: Suppression) -> None:
        database = Database(self.path, sync="normal", readonly=False)
        with database.transaction() as link:
            suppression.replace(link, made)
        database.close()


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Place:
    return Place(tmp_path, capsys)


def test_what_is_added_is_listed_for_people_and_programs(place: Place) -> None:
    code, out, _ = place.run("add", "Bob@Example.NET", "--for", "90d", "--evidence", "550 5.1.1\x1b[31m unknown")
    assert code == 0
    assert out.startswith("Bob@Example.NET: suppressed everywhere until ")
    [one] = place.listed()
    assert (one["address"], one["scope"], one["reason"], one["count"]) == ("bob@example.net", "everywhere", "manual", 1)
    assert one["until"] - one["since"] == 90 * DAY
    _, out, _ = place.run("list", "bob@EXAMPLE.net")
    heading, row, said = out.splitlines()
    assert heading.split() == ["ADDRESS", "REASON", "TIMES", "SINCE", "UNTIL", "SCOPE", "PROVIDER"]
    assert row.startswith("bob@example.net  manual  1      2")
    assert row.index("everywhere") == heading.index("SCOPE")
    assert said == "    550 5.1.1 [31m unknown"
    assert place.listed("carol@example.net") == []


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("domain:Example.COM", "domain:example.com"),
        ("domain:B\u00fccher.example.", "domain:xn--bcher-kva.example"),
        ("domain:Bu\u0308cher.example", "domain:xn--bcher-kva.example"),
        ("from:News@B\u00fccher.Example", "from:news@xn--bcher-kva.example"),
        ("list:B\u00fccher.example/Weekly.Books", "list:xn--bcher-kva.example/weekly.books"),
    ],
)
def test_a_scope_is_that_of_mail_however_it_is_typed(place: Place, tmp_path: Path, typed: str, meant: str) -> None:
    """Otherwise it would hold for no message, and nobody would know."""
    place.run("add", "a@x.example", "--scope", typed)
    (tmp_path / "in.csv").write_text(f"address,scope,reason\nb@x.example,{typed},manual\n", "utf-8")
    (tmp_path / "bare.csv").write_text("c@x.example\n", "utf-8")
    assert place.run("import", str(tmp_path / "in.csv"))[0] == 0
    assert place.run("import", str(tmp_path / "bare.csv"), "--scope", typed, "--reason", "manual")[0] == 0
    assert [(one["address"][0], one["scope"]) for one in place.listed("--scope", typed)] == [
        (name, meant) for name in "abc"
    ]
    assert place.run("remove", "--scope", typed)[:2] == (0, "3 suppressions removed\n")


@pytest.mark.parametrize(
    ("reason", "days"), [("bounced", 30), ("complained", 400), ("manual", None), ("unsubscribed", None)]
)
def test_it_lasts_as_long_as_what_is_learned_would(place: Place, reason: str, days: int | None) -> None:
    place.run("add", "bob@example.net", "--reason", reason, "--scope", "from:news@example.com")
    [one] = place.listed()
    assert one["until"] is None if days is None else one["until"] == one["since"] + days * DAY


def test_no_list_from_anywhere_commands_a_terminal(place: Place, tmp_path: Path) -> None:
    """Addresses, lists and providers in a CSV file are what somebody wrote into it; a client's RCPT may be too."""
    file = tmp_path / "odd.csv"
    file.write_text(
        "address,scope,reason,provider\n"
        "\x9b2J@x.example,list:x.example/\x1b[2J,manual,\x1b]0;x\x07\n"
        "\x9b3J@x.example,everywhere,no reason,\n"
    )
    _, out, told = place.run("import", str(file))
    place.put(Suppression('"\x1b[2J"@x.example', "everywhere", "bounced", time.time()))
    _, shown, _ = place.run("list")
    assert "2j@x.example" in shown
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", out + told + shown)


def test_what_is_said_again_replaces_what_was(place: Place) -> None:
    place.run("add", "bob@example.net")
    place.run("add", "bob@example.net", "--for", "1h")
    [one] = place.listed()
    assert one["until"] == one["since"] + 3600


def test_what_is_said_of_an_address_replaces_what_stands_under_its_hash(place: Place) -> None:
    """Suppressed for ever once, and that long ago; now for an hour, as the person who runs it says."""
    database = Database(place.path, sync="normal", readonly=False)
    hashed = veil.hashed("bob@example.net", veil.read_key(database))
    database.close()
    place.put(Suppression(hashed, "everywhere", "manual", NOW - 90 * DAY))
    place.run("add", "bob@example.net", "--for", "1h")
    [one] = place.listed()
    assert one["until"] == one["since"] + 3600


def test_a_provider_and_a_time_undo_what_it_taught(place: Place) -> None:
    """The rest of the list stays: of others, and of before."""
    now = time.time()
    here = Suppression("a@x.example", "domain:example.com", "bounced", now - 600, now + DAY, "550", 2, "Google")
    place.put(
        here,
        Suppression("b@x.example", "domain:example.com", "bounced", now - 9000, now + DAY, "550", 2, "Google"),
        Suppression("c@x.example", "domain:example.com", "bounced", now - 600, now + DAY, "550", 2, "Yahoo"),
    )
    assert place.run("remove", "--since", "1h", "--provider", "Google")[:2] == (0, "1 suppression removed\n")
    assert [one["address"] for one in place.listed()] == ["b@x.example", "c@x.example"]
    assert place.run("remove", "--since", "1h", "--provider", "Google")[0] == 1


def test_what_has_ended_is_shown_on_request(place: Place) -> None:
    place.put(Suppression("a@x.example", "everywhere", "bounced", NOW - 900 * DAY, NOW - 800 * DAY))
    assert place.listed() == []
    assert len(place.listed("--all")) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "not an address"], "is no address"),
        (["add", "a@x.example", "--scope", "list:nobody"], "is no scope"),
        (["add", "a@x.example", "--reason", "unsubscribed"], "add --scope"),
        (["add", "a@x.example", "--for", "a while"], "--for a while"),
        (["add", "a@x.example", "--for", "0"], "--for 0: it would be over at once"),
        (["remove"], "name addresses"),
        (["remove", "--since", "yore"], "--since yore"),
        (["remove", "--provider", "Google", "--since", ""], "--since: it is empty"),
        (["remove", "--since", "1h", "--provider", " "], "--provider: it is empty"),
        (["remove", "--since", "1h", "--scope", ""], "--scope: it is empty"),
        (["add", "a@x.example", "--for", ""], "--for: it is empty"),
        (["list", "--since", "yore"], "--since yore"),
    ],
)
def test_wrong_usage_is_told_with_what_helps(place: Place, words: list[str], said: str) -> None:
    code, out, err = place.run(*words)
    assert (code, out) == (64, "")
    assert said in err
    assert place.listed("--all") == []


def test_nothing_is_held_back_while_observing_and_the_list_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Place(tmp_path, capsys, observe=True)
    assert "suppression.observe is true" in place.run("list")[2]


def test_a_list_goes_out_and_comes_back_the_same(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [
        Suppression("a@x.example", "everywhere", "bounced", NOW + 0.25, NOW + DAY, '=cmd("x"), 550', 3, "Google"),
        Suppression("a@x.example", "list:example.com/weekly", "unsubscribed", NOW),
        Suppression("=b@x.example", "domain:example.com", "manual", NOW, None, "said\u2028so"),
    ]
    place.put(*made)
    file = tmp_path / "suppressed.csv"
    assert place.run("export", str(file), "--all")[0] == 0
    assert "'=cmd" in file.read_text()
    before = place.listed("--all")
    assert len(before) == 3
    assert place.run("remove", "a@x.example", "=b@x.example")[0] == 0
    code, out, err = place.run("import", str(file))
    assert (code, out, err) == (0, "3 suppressions taken over\n", "")
    assert place.listed("--all") == before
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert place.run("export", "-", "--all")[1].replace("\r\n", "\n") == file.read_text()


def test_a_long_list_is_taken_over_and_its_faults_are_told(place: Place, tmp_path: Path) -> None:
    """Ten by name, the others counted; what makes sense is taken, and once more does no harm."""
    file = tmp_path / "bounces.csv"
    good = "".join(f"5.1.1,550 5.1.1 unknown,user{at}@x.example,1715019118\n" for at in range(2000))
    bad = "".join(f"5.1.1,550,nobody-{at},1715019118\n" for at in range(50))
    file.write_text("status,reason,email,created\n" + good + bad)
    for _ in range(2):
        code, out, err = place.run("import", str(file), "--for", "ever")
        assert (code, out) == (1, "2000 suppressions taken over; 50 lines left out\n")
        assert len(err.splitlines()) == 10
        assert f"{file}:2002: left out: 'nobody-0' is no address" in err
    assert len(place.listed()) == 2000


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (b"\xff\xfe\x00\x00\x89PNG", "neither a header that is known nor an address"),
        (b"name,city\r\nBob,Paris\r\n", "neither a header that is known nor an address"),
        (b"address;reason\r\nbob@x.example;bounced\r\n", "columns have commas between them"),
        (b"email,created\r\na@x.example,1\r\n", "add --reason"),
    ],
)
def test_a_file_that_is_no_list_changes_nothing(place: Place, tmp_path: Path, octets: bytes, said: str) -> None:
    file = tmp_path / "odd.csv"
    file.write_bytes(octets)
    code, out, err = place.run("import", str(file))
    assert (code, out) == (1, "")
    assert said in err
    assert place.run("import", str(tmp_path / "missing.csv"))[0] == 1


def test_a_shorter_end_from_a_file_takes_nothing_back(place: Place, tmp_path: Path) -> None:
    """Whoever unsubscribed stays so, whatever an old list says."""
    place.put(Suppression("a@x.example", "everywhere", "manual", NOW))
    file = tmp_path / "old.csv"
    file.write_text("address,scope,reason,since,until\na@x.example,everywhere,manual,1715019118,1715019119\n")
    place.run("import", str(file))
    [one] = place.listed("--all")
    assert (one["since"], one["until"]) == (NOW, None)
