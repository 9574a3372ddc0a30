"""`postmeter quota` and `freeze`, as an administrator types them, on a store in a folder."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from postmeter.cli.main import main
from postmeter.cli.quota import moment, worded
from postmeter.config.problem import MistakeError
from postmeter.store import database, orders
from postmeter.store.accounts import Charge
from postmeter.store.journal import Journal
from postmeter.store.orders import Kind, Order
from postmeter.store.settle import Settler
from tests.unit.test_cli_links import submitted

ALICE = "alice@example.com"
QUOTA = """
quota:
  limits: [4 recipients/day]
  domains: {limits: [8 recipients/day]}
  networks: {limits: [9 messages/hour]}
  total: {limits: [100 recipients/day]}
"""


class Place:
    """A configuration and its store. `run` is one command line; its code."""

    def __init__(self, folder: Path) -> None:
        self.config, self.path = folder / "postmeter.yaml", folder / "journal.db"
        self.config.write_text(f"journal: {{path: {self.path}}}\n{QUOTA}")
        database.open(self.path).close()

    def run(self, *words: str) -> int:
        return main(["-c", str(self.config), *words])

    def charge(self, level: str, key: str, amount: int, *, unit: str = "recipients", window: int = 86_400) -> None:
        settler = Settler(self.path)
        charge = Charge(level=level, key=key, unit=unit, window=window, limit=10**6, amount=amount, text="")
        settler.settle((charge,), None, {}, time.time())
        settler.close()

    def put(self, kind: Kind, login: str, value: str = "") -> None:
        book = database.open(self.path)
        orders.put(book, Order(kind=kind, login=login, value=value, since=time.time()))
        book.close()

    def orders(self) -> list[tuple[str, str, str]]:
        found = orders.read(database.open(self.path, readonly=True), time.time())
        return [(order.kind, order.login, order.value) for order in found]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_who_is_frozen_is_shown_while_redis_is_gone(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """After a break-in nobody wants to wait for it."""
    pytest.importorskip("redis")
    place.put("freeze", ALICE)
    place.config.write_text(place.config.read_text() + "  store: redis://127.0.0.1:1\n")
    assert place.run("quota", "show") == 1
    told = capsys.readouterr()
    assert told.out.startswith(f"{ALICE}  frozen")
    assert told.err.startswith("postmeter quota: the Redis of the quotas: 127.0.0.1:1: ")
    assert place.run("quota", "show", ALICE, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["accounts"], [order["kind"] for order in found["orders"]]) == (None, ["freeze"])
    assert place.run("quota", "reset", ALICE) == 1


def test_every_level_is_shown_busiest_first(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.charge("sender", ALICE, 2)
    place.charge("domain", "example.com", 8)
    place.charge("domain", "", 1)
    place.charge("network", "192.0.2.0/24", 3, unit="messages", window=3600)
    place.charge("total", "", 20)
    place.charge("brake", ALICE, 2, window=3600)
    assert place.run("quota", "show") == 0
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert [(cells[0], *[cell.strip() for cell in cells if "%" in cell]) for cells in lines] == [
        ("domain example.com", "100%"),
        (ALICE, "50%"),
        ("network 192.0.2.0/24", "33%"),
        ("all mail", "20%"),
        ("mail without a From domain of its own", "12%"),
    ]


def test_a_long_name_is_shown_whole_and_widens_no_other_line(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300
    place.charge("sender", ALICE, 2)
    place.charge("sender", long, 1)
    assert place.run("quota", "show") == 0
    short, wide = capsys.readouterr().out.splitlines()
    assert len(short) < 100
    assert wide.startswith(long + "  ")


def test_a_login_is_shown_with_all_that_may_stop_it(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own accounts, its domain's and those of all mail, what is ordered about it; nobody else's."""
    place.charge("total", "", 20)
    place.charge("sender", "bob@example.org", 1)
    place.put("freeze", "bob@example.org")
    assert place.run("quota", "set", ALICE, "7", "recipients/day,", "unlimited") == 64
    assert place.run("quota", "set", "Alice@example.com", "7 recipients/day", "1G/day", "--until", "7d") == 0
    capsys.readouterr()
    assert place.run("quota", "show", ALICE, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [(row["level"], row["key"], row["used"], row["limit"]) for row in told["accounts"]] == [
        ("total", "", 20, 100),
        ("domain", "example.com", 0, 8),
        ("sender", ALICE, 0, 1 << 30),
        ("sender", ALICE, 0, 7),
    ]
    [order] = told["orders"]
    assert (order["kind"], order["login"], order["value"]) == ("limits", ALICE, "7 recipients/day, 1G/day")
    assert place.run("quota", "show", ALICE) == 0
    assert "has other limits by order until 20" in capsys.readouterr().out


def test_an_address_without_a_login_is_no_domain(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.charge("sender", "192.0.2.1", 3, unit="recipients", window=86_400)
    assert place.run("quota", "show", "192.0.2.1", "--json") == 0
    assert {line["level"] for line in json.loads(capsys.readouterr().out)["accounts"]} == {"sender"}


def test_where_nothing_is_refused_other_limits_are_not_in_force(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.config.write_text(f"mode: observe\n{place.config.read_text()}")
    assert place.run("quota", "set", ALICE, "unlimited") == 0
    told = f"{ALICE}: unlimited, until they are cleared; but mode is observe: nothing is refused\n"
    assert capsys.readouterr().out == told


def test_other_limits_can_be_taken_back(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.run("quota", "set", ALICE, "unlimited") == 0
    assert capsys.readouterr().out == f"{ALICE}: unlimited, until they are cleared; in force within a second\n"
    assert place.run("quota", "set", ALICE, "--clear") == 0
    assert "limits of the configuration again" in capsys.readouterr().out
    assert place.orders() == []
    assert place.run("quota", "set", ALICE, "--clear") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["500/day"], "say of what: 500 messages/day"),
        (["1 message/day", "2 messages/day"], "limits what another limit of this list limits"),
        ([], "either limits or --clear"),
        (["1 message/day", "--clear"], "either limits or --clear"),
        (["1 message/day", "--until", "2020-01-01"], "is over already"),
        (["1 message/day", "--until", ""], "--until: it is empty"),
        (["1 message/day", "--until", "soon"], "write it like 7d, 12h, 2026-12-24"),
    ],
)
def test_limits_are_checked_in_the_words_of_the_configuration(
    place: Place, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.run("quota", "set", ALICE, *words) == 64
    assert said in capsys.readouterr().err
    assert place.orders() == []


@pytest.mark.parametrize(
    "words",
    [
        ["500 recipients/day", "1G/day"], ["500", "recipients/day", "1G/day"], ["500 recipients/day, 1G/day"],
        ["500", "recipients", "/", "day,", "1G", "/day"],
    ],
)  # fmt: skip
def test_limits_may_be_typed_with_quotes_or_without(words: list[str]) -> None:
    assert worded(words) == "500 recipients/day, 1G/day"


def test_a_time_may_be_typed_in_many_ways() -> None:
    now = datetime.fromisoformat("2026-12-01T12:00:00").astimezone().timestamp()
    day = 86_400
    assert [moment(text, now) - now for text in ("7d", "2026-12-02", "2026-12-02 12:00", "2026-12-03T12:00:00")] == [
        7 * day, day / 2, day, 2 * day,
    ]  # fmt: skip
    assert moment("2026-12-24T18:00:00+02:00", now) == datetime.fromisoformat("2026-12-24T16:00:00+00:00").timestamp()
    with pytest.raises(MistakeError):
        moment("9999-99-99", now)


@pytest.mark.parametrize(
    ("level", "key", "typed"),
    [
        ("domain", "xn--bcher-kva.example", "Bücher.example"),
        ("domain", "example.com", "Example.com."),
        ("network", "192.0.2.0/24", "192.0.2.77"),
        ("network", "192.0.2.0/24", "192.0.2.0/24"),
        ("network", "2001:db8::/56", "2001:DB8:0::77"),
        ("network", "unknown", "unknown"),
    ],
)
def test_a_level_is_emptied_by_the_name_that_people_know(place: Place, level: str, key: str, typed: str) -> None:
    place.charge(level, key, 8)
    assert place.run("quota", "reset", typed, "--level", level) == 0


def test_a_level_can_be_emptied(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.charge("domain", "example.com", 8)
    place.charge("total", "", 8)
    assert place.run("quota", "reset", "example.com") == 1
    assert place.run("quota", "reset", "example.com", "--level", "domain") == 0
    assert place.run("quota", "reset", "all", "--level", "total") == 0
    capsys.readouterr()
    place.run("quota", "show")
    assert capsys.readouterr().out == "nobody has used any of their limits\n"


def test_what_was_not_frozen_cannot_be_thawed(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.run("unfreeze", ALICE) == 1
    place.put("freeze", ALICE)
    assert place.run("quota", "show", ALICE) == 0
    assert f"{ALICE}  frozen, since 20" in capsys.readouterr().out
    assert place.run("unfreeze", "Alice@Example.com") == 0
    assert place.orders() == []


@pytest.mark.parametrize("words", [[], [ALICE, "--due"], ["--due", "--delete"]])
def test_release_wants_a_login_or_due_and_not_both(place: Place, words: list[str]) -> None:
    assert place.run("quota", "release", *words) == 64


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("alcie@example.com", "alice@example.com"),
        ("alice@exmaple.com", "alice@example.com"),
        ("alice", "alice@example.com"),
        ("Carol@example.com", "carol"),
        ("zacharias@example.com", ""),
        ("dave\x1b[2J", ""),
        ("ALICE@example.com", None),
        ("carol", None),
        ("cn=shop", None),
        ("192.0.2.7", None),
        ("2001:db8::/64", None),
        ("local", None),
    ],
)
def test_an_order_about_a_login_that_nobody_has_is_told(
    place: Place, capsys: pytest.CaptureFixture[str], typed: str, meant: str | None
) -> None:
    """It holds all the same: the login may come. Who has accounts or is an address needs no login."""
    events = [submitted(b"referenc"), submitted(b"otherref", login="Carol", number=2)]
    Journal(place.path).record([*events, submitted(b"thirdref", login="bob@example.com", number=3)])
    place.charge("sender", "cn=shop", 1)
    assert place.run("quota", "set", typed, "5 recipients/day") == 0
    told = capsys.readouterr().err
    assert [login for _, login, _ in place.orders()] == [typed.lower()]
    if meant is None:
        assert not told
        return
    begun = f'postmeter quota: no login "{typed}" is in the journal'.replace("\x1b", "\\x1b")
    assert told == (f"{begun}; did you mean {meant}?\n" if meant else f"{begun}\n")


@pytest.mark.parametrize("several", ["*@example.com", "@example.com", "Shop*@example.com"])
@pytest.mark.parametrize("line", ["freeze {}", "quota set {} 5 recipients/day"])
def test_nobody_is_told_that_a_pattern_of_logins_was_stopped(
    line: str, several: str, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """No login is called so: the order would be in force for nobody, whatever the command said."""
    assert place.run(*line.format(several).split()) == 64
    assert "name one at a time" in capsys.readouterr().err
    assert place.orders() == []


def test_an_order_for_a_pattern_can_be_taken_back(place: Place) -> None:
    """Earlier versions took it."""
    place.put("freeze", "*@example.com")
    assert place.run("unfreeze", "*@example.com") == 0
    place.put("limits", "@example.com", "1 message/day")
    assert place.run("quota", "set", "@example.com", "--clear") == 0
    assert place.orders() == []


@pytest.mark.parametrize("line", ["freeze", "unfreeze", "quota set", "quota reset"])
def test_an_empty_login_is_no_login(line: str, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """As where a script's variable was never set: nobody is told that somebody was frozen."""
    assert place.run(*line.split(), "") == 64
    assert "LOGIN: it is empty" in capsys.readouterr().err
    assert place.orders() == []


def test_only_what_is_used_up_is_at_100_percent(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.put("limits", ALICE, "1000 recipients/day")
    for more, told in ((999, "999 of 1000  99%"), (1, "1000 of 1000  100%"), (10, "1010 of 1000  101%")):
        place.charge("sender", ALICE, more)
        assert place.run("quota", "show", ALICE) == 0
        assert told in capsys.readouterr().out.splitlines()[0]


def test_nobody_who_goes_by_it_comes_too_early(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Times are told in whole seconds."""
    settler = Settler(place.path)
    begun = int(time.time()) - 10 + 0.7
    charge = Charge(level="sender", key=ALICE, unit="recipients", window=86_400, limit=4, amount=4, text="")
    settler.settle((charge,), None, {}, begun)
    over = settler.check((replace(charge, amount=1),), time.time())
    settler.close()
    assert place.run("quota", "show", ALICE, "--json") == 0
    told = {row["level"]: row["room_at"] for row in json.loads(capsys.readouterr().out)["accounts"]}
    assert over is not None
    assert over.room_at is not None
    assert over.room_at <= datetime.fromisoformat(told["sender"]).timestamp() < over.room_at + 1
    assert datetime.fromisoformat(told["domain"]).timestamp() <= time.time()
