"""Sender, From domain, network and total: all must have room, and each says for itself what happens to more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postmeter.config.load import loads
from postmeter.mail.draft import Draft
from postmeter.mail.message import Client, Envelope, Field, Message
from postmeter.mail.reply import Reply
from postmeter.store import database, ledger, totals
from postmeter.store.accounts import Charge, Overdrawn
from postmeter.store.database import Database
from postmeter.store.settle import Settler
from postmeter.submission.identity import sender
from postmeter.submission.quota import Quotas

NOW = 1_795_355_580.0  # 2026-11-22 13:53:00 UTC
ALICE, BOB = "alice@example.com", "bob@example.com"
OFFICE, HOME = Client("office", "192.0.2.9", 40000), Client("home", "198.51.100.7", 40000)
LEVELS = ("sender", "domains", "networks", "total")


def every_level(tight: str = "", count: int = 3) -> str:
    """Ten recipients a day at each level, and fewer at one."""
    limits = {name: f"limits: [{count if name == tight else 10} recipients/day]" for name in LEVELS}
    return f"{limits['sender']}, " + ", ".join(f"{name}: {{{limits[name]}}}" for name in LEVELS[1:])


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests of this file: to make one takes longer than most of them."""
    return tmp_path_factory.mktemp("quota") / "journal.db"


@pytest.fixture(scope="module")
def book(journal: Path) -> Iterator[Database]:
    book = database.open(journal)
    yield book
    book.close()


@pytest.fixture
def settler(book: Database, journal: Path) -> Iterator[Settler]:
    settler = Settler(journal)
    yield settler
    settler.close()
    for usage in ledger.usage(book, NOW):
        ledger.reset(book, usage.level, usage.key)


Make = Callable[..., Quotas]


@pytest.fixture
def quotas(settler: Settler) -> Make:
    return lambda text, **more: Quotas(loads(f"quota: {{{text}}}").quota, settler, **more)


def mail(
    login: str = ALICE, *, to: int = 1, client: Client = OFFICE, domain: str = "example.com", **more: Any
) -> Draft:
    envelope = Envelope(
        mail_from=more.pop("mail_from", b"x@example.com"),
        rcpt_to=tuple(b"user%d@example.net" % nth for nth in range(to)),
        client=client,
        login=login,
        service=more.pop("service", "submission"),
        waits=more.pop("waits", True),
    )
    fields = (Field(b"From", b" x@example.com"),)
    message = Message(envelope=envelope, fields=fields, body=b"", queue_id="4Q", time=NOW, reference=bytes(8))
    return Draft(message, sender=sender(envelope), from_domain=domain, **more)


def send(quotas: Quotas, settler: Settler, draft: Draft) -> Reply | str | None:
    """As the milter does it: the step, then settle; `hold` where the message goes to the hold queue."""
    reply = quotas.check(draft)
    if reply is not None:
        return reply
    settled = settler.settle(quotas.charges(draft), None, {}, NOW)
    if settled.observed is not None:
        quotas.observed(draft, settled.observed)
    if settled.refused is None:
        return None
    return "hold" if quotas.over(draft, settled.refused) == "hold" else quotas.refuse(draft, settled.refused)


@pytest.mark.parametrize("look", [True, False])
@pytest.mark.parametrize(
    ("tight", "other", "who"),
    [
        ("sender", {"login": BOB}, "alice@example.com"),
        ("domains", {"domain": "b.example"}, "example.com (From domain)"),
        ("networks", {"client": HOME}, "192.0.2.0/24 (network)"),
        ("total", None, "this server"),
    ],
)
def test_one_level_without_room_refuses_the_message_and_charges_none(
    quotas: Make, settler: Settler, tight: str, other: dict[str, Any] | None, who: str, look: bool
) -> None:
    """And the reply says whose limit it was, not whose mail used it up."""
    some = quotas(every_level(tight), look=look)
    assert send(some, settler, mail(to=3)) is None
    reply = str(send(some, settler, mail(to=2)))
    assert reply.startswith(f"451 4.7.1 {who}: 3 of 3 recipients in the last day; room for 2 ")
    charged = {(charge.level, charge.key) for charge in some.charges(mail())}
    assert len(charged) == 4
    for charge in some.charges(mail(to=8)):
        over = settler.check([charge], NOW)
        assert over is not None
        assert over.used == 3, charge
    if other is not None:
        assert send(some, settler, mail(**other)) is None


@pytest.mark.parametrize(
    ("domain", "borrowed", "refused"), [("", False, True), ("b.example", True, True), ("example.com", False, False)]
)
def test_mail_without_a_from_domain_of_its_own_has_one_account_together(
    quotas: Make, settler: Settler, domain: str, borrowed: bool, refused: bool
) -> None:
    """None, several or another's: nobody escapes the level by his From."""
    few = quotas("domains: {limits: [2 messages/day]}")
    assert send(few, settler, mail(BOB, domain="")) is None
    assert send(few, settler, mail(BOB, domain="other.example", borrowed=True)) is None
    said = "451 4.7.1 mail without a From domain of its own: 2 of 2 messages in the last day; "
    reply = send(few, settler, mail(domain=domain, borrowed=borrowed))
    assert str(reply).startswith(said) if refused else reply is None


def test_unlimited_lifts_its_own_level_only(quotas: Make, settler: Settler) -> None:
    rule = "{login: '*', limits: unlimited}"
    lifted = quotas(f"limits: [1 message/day], rules: [{rule}], total: {{limits: [2 messages/day]}}")
    assert [send(lifted, settler, mail()) for _ in range(2)] == [None, None]
    assert "this server: 2 of 2 messages" in str(send(lifted, settler, mail()))


def over_of(over: str) -> str:
    rule = f"{{login: '*', limits: [1 message/day, 4 recipients/hour, 5 recipients/message], over: {over}}}"
    return f"over: observe, rules: [{rule}], domains: {{limits: [1 message/day]}}"


@pytest.mark.parametrize("look", [True, False])
@pytest.mark.parametrize(
    ("over", "waits", "expected"),
    [
        ("defer", True, "451 4.7.1 alice@example.com: 1 of 1 message "),
        ("defer", False, "550 5.7.1 alice@example.com: 1 of 1 message "),
        ("reject", True, "550 5.7.1 alice@example.com: 1 of 1 message "),
        ("reject", False, "550 5.7.1 alice@example.com: 1 of 1 message "),
        ("hold", True, "hold"),
        ("hold", False, "hold"),
        ("observe", True, "None"),
        ("observe", False, "None"),
    ],
)
def test_what_happens_to_more_is_the_rules_of_that_level(
    quotas: Make, settler: Settler, over: str, waits: bool, expected: str, look: bool
) -> None:
    """The other level only observes, as quota.over says: it is charged and refuses nothing."""
    some = quotas(over_of(over), look=look)
    assert send(some, settler, mail(waits=waits)) is None
    draft = mail(waits=waits)
    assert str(send(some, settler, draft)).startswith(expected)
    if look:
        assert draft.hold == ("quota" if over == "hold" else "")


@given(
    over=st.sampled_from(["defer", "reject", "hold"]),
    unit=st.sampled_from(["messages", "recipients", "bytes"]),
    room_at=st.none() | st.floats(NOW, NOW + 1e6),
    level=st.sampled_from(["sender", "domain", "network", "total", "brake"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_where_no_client_waits_nothing_is_ever_deferred(
    quotas: Make, over: str, unit: str, room_at: float | None, level: str
) -> None:
    """pickup(8) and a requeued message would come again for ever."""
    some = quotas(f"over: {over}")
    charge = Charge(key="k", unit=unit, window=3600, limit=5, amount=9, text="5/hour", level=level)
    full = Overdrawn(charge=charge, used=5, room_at=room_at)
    for draft in (mail(waits=False), mail("", client=Client("pc", "192.0.2.9", 0), service="local")):
        if level == "network" and draft.message.envelope.client.local:
            continue
        assert some.over(draft, full) in ("reject", "hold")
        assert some.refuse(draft, full).permanent
    if room_at is None:
        assert some.over(mail(), full) == "reject"


@pytest.mark.parametrize("look", [True, False])
@pytest.mark.parametrize(("to", "limit"), [(6, "5 recipients/message"), (5, "4 recipients/hour")])
@pytest.mark.parametrize("over", ["defer", "reject", "hold", "observe"])
def test_what_can_never_fit_is_refused_for_good_and_never_held(
    quotas: Make, settler: Settler, over: str, to: int, limit: str, look: bool
) -> None:
    draft = mail(to=to)
    reply = send(quotas(over_of(over), look=look), settler, draft)
    if over == "observe":
        assert reply is None
        assert sum(count for figure, count in draft.figures.items() if figure[0] == "quota_refusals_total") >= (to > 5)
    else:
        assert str(reply) in (
            f"550 5.5.3 alice@example.com: {to} recipients in one message, limit {limit}",
            "550 5.5.3 alice@example.com: 6 recipients in one message, limit 4 recipients/hour",
        )


def refusals(book: Database) -> int:
    return sum(count for (name, _), count in totals.read(book).items() if name == "quota_refusals_total")


@pytest.mark.parametrize("look", [True, False])
def test_what_is_only_observed_is_counted_once(quotas: Make, settler: Settler, book: Database, look: bool) -> None:
    """By the step on the draft, or after `settle` by itself."""
    watched = quotas("over: observe, limits: [1 message/day, 3 recipients/message]", look=look)
    counts = []
    for draft in (mail(), mail(), mail(to=4)):
        before = refusals(book)
        assert send(watched, settler, draft) is None
        settler.settle((), None, draft.figures, NOW)
        counts.append(refusals(book) - before)
    assert counts == [0, 1, 2]


def test_without_a_look_the_step_asks_no_store(tmp_path: Path) -> None:
    """One that cannot be read would be counted; what one message may hold is decided all the same."""
    (tmp_path / "journal.db").write_bytes(b"damaged" * 1000)
    blind = Quotas(loads(f"quota: {{{every_level()}}}").quota, Settler(tmp_path / "journal.db"), look=False)
    draft = mail()
    assert blind.check(draft) is None
    assert not draft.figures
    assert str(blind.check(mail(to=11))).startswith("550 5.5.3 alice@example.com: 11 recipients in one message")


def full(quotas: Make, settler: Settler, text: str) -> Quotas:
    some = quotas(text)
    for charge in some.charges(mail(to=3)):
        settler.settle((charge,), None, {}, NOW)
    return some


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("limits: [3 recipients/day]", "451 4.7.1 alice@example.com: 3 of 3 recipients"),
        ("networks: {limits: [3 recipients/day]}", "451 4.7.1 192.0.2.0/24 (network): 3 of 3 recipients"),
        ("total: {limits: [3 recipients/day]}, over: reject", "550 5.7.1 this server: 3 of 3 recipients"),
        ("domains: {limits: [3 recipients/day]}", "None"),
        ("limits: [3 recipients/day], over: hold", "None"),
        ("limits: [3 recipients/day], over: observe", "None"),
        ("limits: [3 recipients/day], exempt: ['@example.org']", "None"),
        ("rules: [{from_domain: example.com, limits: [3 recipients/day]}]", "None"),
        ("rules: [{limits: [3 recipients/day], over: hold}], total: {limits: [3 recipients/day]}", "451 4.7.1 this"),
    ],
)
def test_the_gate_refuses_at_mail_what_is_certain_there(
    quotas: Make, settler: Settler, text: str, refused: str
) -> None:
    """Neither what a From domain decides, nor what may be held or is only observed, nor what may be for the exempt."""
    gate = full(quotas, settler, text).gate
    assert str(gate(mail(to=0).message.envelope, None, NOW)).startswith(refused)
    local = mail("", to=0, client=Client(), service="local")
    for spared in (mail(to=0, waits=False), mail(to=0, mail_from=b""), local):
        assert gate(spared.message.envelope, None, NOW) is None


def test_an_order_stands_in_place_of_the_senders_limits_and_of_no_other(quotas: Make, settler: Settler) -> None:
    """For any sender, not only for logins; what makes no sense orders nothing."""
    orders = {ALICE: "2 messages/day, 1G/hour", BOB: "unlimited", "192.0.2.9": "3 messages/day", "x@x": "many"}
    text = "rules: [{login: '*', limits: [9 messages/day], over: reject}], total: {limits: [10 messages/day]}"
    some = quotas(text, override=orders.get)

    def limits(login: str) -> list[tuple[str, str]]:
        return [(charge.level, charge.text) for charge in some.charges(mail(login))]

    total = ("total", "10 messages/day")
    assert limits(ALICE) == [("sender", "2 messages/day"), ("sender", "1G/hour"), total]
    assert limits(BOB) == [total]
    assert limits("") == [("sender", "3 messages/day"), total]
    assert limits("x@x") == limits("carol") == [("sender", "9 messages/day"), total]
    assert [limit.text for limit in some.limits_of("sender", ALICE)] == ["2 messages/day", "1G/hour"]
    assert [limit.text for limit in some.limits_of("total", "")] == ["10 messages/day"]
    assert [send(some, settler, mail()) for _ in range(2)] == [None, None]
    assert str(send(some, settler, mail())).startswith("550 5.7.1 alice@example.com: 2 of 2 messages")


def test_charges_name_level_and_shares_to_warn_at_and_the_journal_names_them_too(quotas: Make) -> None:
    some = quotas(every_level() + ", warn_at: [100%, 12.5%, 80%], over: hold")
    draft = mail(to=4)
    charges = some.charges(draft)
    assert [(charge.level, charge.key) for charge in charges] == [
        ("sender", ALICE),
        ("domain", "example.com"),
        ("network", "192.0.2.0/24"),
        ("total", ""),
    ]
    assert {(charge.warn, charge.enforce, charge.amount) for charge in charges} == {((12, 80, 100), True, 4)}
    assert draft.facts["charged"] == [[c.level, c.key, "recipients", 86_400, 4] for c in charges]
    looked_at = mail()
    some.check(looked_at)
    assert "charged" not in looked_at.facts, "a look charges nothing"


def test_in_mode_observe_nothing_is_enforced_and_nobody_warned(quotas: Make) -> None:
    some = quotas(every_level(), observe=True)
    assert {(charge.enforce, charge.warn) for charge in some.charges(mail())} == {(False, ())}
    assert str(some.check(mail(to=11))).startswith("550 ")


@pytest.mark.parametrize("more", [{"mail_from": b""}, {"free": "notice"}, {"free": "marked"}])
def test_bounces_notices_and_what_was_here_before_are_charged_at_no_level(
    quotas: Make, settler: Settler, more: dict[str, Any]
) -> None:
    nothing = quotas(every_level("total", 1))
    draft = mail(**more)
    assert send(nothing, settler, mail()) is None
    assert send(nothing, settler, draft) is None
    assert nothing.charges(draft) == ()
    assert "charged" not in draft.facts


def test_what_loses_its_freedom_is_charged_after_all(quotas: Make) -> None:
    """A notice whose one-time id was used by another message meanwhile."""
    draft = mail(free="notice")
    some = quotas(every_level())
    assert some.check(draft) is None
    draft.free = ""
    assert len(some.charges(draft)) == 4
    assert len(draft.facts["charged"]) == 4  # type: ignore[arg-type]


def test_explain_tells_for_each_level_which_rule_decided_and_its_limits(quotas: Make) -> None:
    text = "rules: [{service: x, limits: unlimited}, {login: '*@example.com', limits: [5 messages/day, 1G/day]}]"
    draft, none = mail(), mail("", domain="", client=Client(), service="local")
    some = quotas(text + ", networks: {limits: [9 recipients/hour]}")
    assert some.check(draft) is None
    assert some.check(none) is None
    assert draft.notes[0].text == (
        "sender alice@example.com: rule 2 (login *@example.com): 5 messages/day, 1G/day; domain example.com: none; "
        "network 192.0.2.0/24: 9 recipients/hour; total: none"
    )
    assert none.notes[0].text == "sender local: none; domain (no From domain of its own): none; total: none"


def test_a_ramps_limit_is_todays(quotas: Make, settler: Settler) -> None:
    ramp = "{start: 2 recipients/day, factor: 1.5, end: 20 recipients/day, since: 2026-11-21}"
    warm = quotas(f"rules: [{{login: '*', ramp: {ramp}}}]")
    assert send(warm, settler, mail(to=3)) is None
    assert str(send(warm, settler, mail())).endswith(", limit 3 recipients/day")
