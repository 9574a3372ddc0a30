"""Which limits a sender has, what a message is charged, and what its client is told."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.cli.main import main
from postmeter.config.load import loads
from postmeter.mail.draft import Draft
from postmeter.mail.message import Client, Envelope, Field, Message
from postmeter.mail.reply import Reply
from postmeter.store.accounts import Charge, Overdrawn
from postmeter.store.database import StoreError
from postmeter.store.settle import Settler
from postmeter.submission import refusal
from postmeter.submission.identity import Identity, sender
from postmeter.submission.quota import Quotas

NOW = 1_795_355_580.0  # 2026-11-22 13:53:00 UTC
ALICE = "alice@example.com"
TAKEN = Client(name="pc", address="192.0.2.9", port=40000)


@pytest.fixture
def settler(tmp_path: Path) -> Iterator[Settler]:
    settler = Settler(tmp_path / "journal.db")
    settler.open()
    yield settler
    settler.close()


@pytest.fixture
def quotas(settler: Settler) -> Callable[[str], Quotas]:
    return lambda text: Quotas(loads(f"quota: {{{text}}}").quota, settler)


def envelope(*, login: str = ALICE, to: int = 1, mail_from: bytes = b"alice@example.com", **more: object) -> Envelope:
    rcpt_to = tuple(b"user%d@example.net" % nth for nth in range(to))
    values: dict[str, object] = {"login": login, "rcpt_to": rcpt_to, "client": TAKEN, "service": "submission"}
    return Envelope(mail_from=mail_from, **(values | more))  # type: ignore[arg-type]


def draft(env: Envelope, *, size: int = 100, from_domain: str = "example.com", now: float = NOW) -> Draft:
    fields = (Field(b"From", b" alice@example.com"),)
    message = Message(envelope=env, fields=fields, body=bytes(size), queue_id="4Q", time=now, reference=bytes(8))
    return Draft(message, sender=sender(env), from_domain=from_domain)


def send(quotas: Quotas, settler: Settler, mail: Draft) -> Reply | None:
    """As the session does it: check, then settle."""
    reply = quotas.check(mail)
    if reply is None:
        over = settler.settle(quotas.charges(mail), None, {}, mail.message.time).refused
        reply = quotas.refuse(mail, over) if over else None
    return reply


def test_the_reply_says_what_was_counted_of_how_much_and_when_there_is_room(
    quotas: Callable[[str], Quotas], settler: Settler
) -> None:
    daily = quotas("limits: [500 recipients/day]")
    early = NOW - 86_400 + 12 * 60
    assert send(daily, settler, draft(envelope(to=500), now=early)) is None
    reply = send(daily, settler, draft(envelope()))
    assert str(reply) == (
        "451 4.7.1 alice@example.com: 500 of 500 recipients in the last day; "
        "room for 1 at 14:05 UTC (in 12 min), limit 500 recipients/day"
    )


SENTENCES = [
    (
        ("messages", 1, 5, 5, 1, 0.4, "5 messages/second"),
        "5 of 5 messages in the last second; room for 1 at 13:53:01 UTC (in 1 s)",
    ),
    (
        ("messages", 60, 1, 1, 1, 45, "1 message/minute"),
        "1 of 1 message in the last minute; room for 1 at 13:53:45 UTC (in 45 s)",
    ),
    (
        ("recipients", 86_400, 500, 480, 30, 3 * 3600 + 1, "500 recipients/day"),
        "480 of 500 recipients in the last day; room for 30 at 16:54 UTC (in 4 h)",
    ),
    (
        ("recipients", 2_592_000, 9, 9, 1, 6.5 * 86_400, "9 recipients/month"),
        "9 of 9 recipients in the last month; room for 1 on 2026-11-29 at 01:53 UTC (in 7 days)",
    ),
    (
        ("bytes", 86_400, 1 << 30, 1_020_000_000, 90_000_000, 600, "1G/day"),
        "972.7M of 1G in the last day; room for 85.8M at 14:03 UTC (in 10 min)",
    ),
    (
        ("bytes", 3600, 1000, 999, 500, 600, "1000 bytes/hour"),
        "999 bytes of 1000 bytes in the last hour; room for 500 bytes at 14:03 UTC (in 10 min)",
    ),
]


@pytest.mark.parametrize(("case", "expected"), SENTENCES)
def test_the_sentence_suits_every_unit_and_every_wait(
    case: tuple[str, int, int, int, int, float, str], expected: str
) -> None:
    unit, window, limit, used, amount, wait, text = case
    charge = Charge(key="a@b", unit=unit, window=window, limit=limit, amount=amount, text=text)
    over = Overdrawn(charge=charge, used=used, room_at=NOW + wait)
    assert refusal.sentence(over, NOW) == f"a@b: {expected}, limit {text}"


@given(st.floats(0.001, 2_592_000), st.sampled_from(["messages", "recipients", "bytes"]), st.text(min_size=1))
def test_every_reply_fits_on_one_line_whatever_the_login(wait: float, unit: str, login: str) -> None:
    text = f"{2**53} {unit}/month"
    charge = Charge(key=login * 200, unit=unit, window=2_592_000, limit=2**53, amount=2**53, text=text)
    reply = refusal.reply(Overdrawn(charge=charge, used=2**53, room_at=NOW + wait), NOW, reject=False)
    assert reply.line() == reply.text
    assert reply.line().endswith(text)


@pytest.mark.parametrize(
    ("limits", "to", "size", "expected"),
    [
        ("50 recipients/message", 51, 0, "550 5.5.3 alice@example.com: 51 recipients"),
        ("10M/message", 1, 11 << 20, "552 5.3.4 alice@example.com: 11M"),
        ("50 recipients/hour", 51, 0, "550 5.5.3 alice@example.com: 51 recipients"),
        ("1k/day", 1, 2000, "552 5.3.4 alice@example.com: 2k"),
    ],
)
def test_what_can_never_fit_is_refused_for_good(
    quotas: Callable[[str], Quotas], limits: str, to: int, size: int, expected: str
) -> None:
    reply = quotas(f"limits: [{limits}]").check(draft(envelope(to=to), size=size))
    assert str(reply) == f"{expected} in one message, limit {limits}"


def test_over_reject_is_550_and_a_rule_may_say_so(quotas: Callable[[str], Quotas], settler: Settler) -> None:
    strict = quotas("rules: [{login: 'alice@*', limits: [1 message/day], over: reject}]")
    assert send(strict, settler, draft(envelope())) is None
    reply = send(strict, settler, draft(envelope()))
    assert str(reply).startswith("550 5.7.1 alice@example.com: 1 of 1 message ")


def test_over_observe_accepts_charges_counts_and_notes(quotas: Callable[[str], Quotas], settler: Settler) -> None:
    watched = quotas("over: observe, limits: [1 message/day]")
    first, second = draft(envelope()), draft(envelope())
    assert [send(watched, settler, first), send(watched, settler, second)] == [None, None]
    assert second.figures["quota_refusals_total", ("day", "messages")] == 1
    assert any("only observed" in note.text for note in second.notes)
    assert send(quotas("limits: [2 messages/day]"), settler, draft(envelope())) is not None


def test_mail_of_the_null_sender_is_neither_refused_nor_charged(
    quotas: Callable[[str], Quotas], settler: Settler
) -> None:
    bounces = quotas("limits: [1 recipient/day, 1 recipient/message]")
    mail = draft(envelope(mail_from=b"", to=7))
    assert send(bounces, settler, mail) is None
    assert bounces.charges(mail) == ()
    assert bounces.gate(envelope(mail_from=b"", to=0), None, NOW) is None


def test_mail_of_sendmail_is_never_deferred(quotas: Callable[[str], Quotas], settler: Settler) -> None:
    local = envelope(login="", client=Client(), service="local")
    one = quotas("limits: [1 message/day]")
    assert send(one, settler, draft(local)) is None
    assert str(send(one, settler, draft(local))).startswith("550 5.7.1 local: 1 of 1 message ")
    assert one.gate(local, None, NOW) is None


def test_exempt_recipients_do_not_count_and_a_message_to_them_alone_counts_nothing(
    quotas: Callable[[str], Quotas],
) -> None:
    some = quotas("exempt: ['@Example.org', postmaster@example.net], limits: [2 recipients/day, 1 message/day]")
    to = (b"x@example.org", b"PostMaster@example.net", b"u@example.net", b"y@sub.example.org")
    assert [charge.amount for charge in some.charges(draft(envelope(rcpt_to=to)))] == [2, 1]
    assert some.charges(draft(envelope(rcpt_to=to[:2]))) == ()
    assert some.gate(envelope(to=0), None, NOW) is None


@pytest.mark.parametrize("written", ["post@bücher.example", "Post@Bücher.example", "post@xn--bcher-kva.example"])
@pytest.mark.parametrize("sent", ["post@bücher.example", "POST@BÜCHER.example.", "Post@XN--bcher-kva.example"])
def test_an_exempt_address_is_exempt_however_its_domain_is_written(
    quotas: Callable[[str], Quotas], written: str, sent: str
) -> None:
    some = quotas(f"exempt: [{written}], limits: [2 recipients/day]")
    assert some.charges(draft(envelope(rcpt_to=(sent.encode(),)))) == ()
    assert len(some.charges(draft(envelope(rcpt_to=("mail" + sent).encode().split())))) == 1


@pytest.mark.parametrize(("action", "limits"), [("unsigned", [6]), ("report", [1000])])
def test_a_from_domain_that_the_login_may_not_use_earns_it_no_quota(
    settler: Settler, action: str, limits: list[int]
) -> None:
    """Anybody can write any From: a stolen account must not choose its limits by it."""
    rule = "{from_domain: news.example, limits: [1000 messages/day]}"
    config = loads(f"senders: {{from_mismatch: {action}}}\nquota: {{limits: [6 messages/day], rules: [{rule}]}}")
    mail = draft(envelope(), from_domain="news.example")
    assert Identity(config.senders, lambda domain: True).check_from(mail) is None
    assert [charge.limit for charge in Quotas(config.quota, settler).charges(mail)] == limits


@pytest.mark.parametrize(
    "recipient",
    [
        b"victim%far.example@example.org",
        b"far.example!victim@example.org",
        b'"victim@far.example"@example.org',
        b"victim@far.example@example.org",
        b"victim@far.example (@example.org",
        b'"victim@far.example" @example.org',
        b"@far.example:victim@example.org",
    ],
)
def test_an_address_that_postfix_takes_elsewhere_is_not_exempt(
    quotas: Callable[[str], Quotas], recipient: bytes
) -> None:
    """Sender-specified routing and comments (postconf(5)) must not hide a recipient from the limits."""
    some = quotas("exempt: ['@example.org'], limits: [1 recipient/day]")
    assert [charge.amount for charge in some.charges(draft(envelope(rcpt_to=(recipient,))))] == [1]


RULES = """rules: [
  {login: boss@example.com, limits: unlimited},
  {login: "*@example.com", from_domain: news.example, limits: [9 messages/day]},
  {service: batch, limits: [8 messages/day]},
  {login: "*@Example.COM", limits: [7 messages/day]}], limits: [6 messages/day]"""


@pytest.mark.parametrize(
    ("login", "service", "from_domain", "limits"),
    [
        ("Boss@example.com", "submission", "news.example", []),
        (ALICE, "submission", "news.example", [9]),
        (ALICE, "batch", "example.com", [8]),
        (ALICE, "submission", "example.com", [7]),
        ("carol@example.org", "submission", "example.com", [6]),
    ],
)
def test_the_first_rule_whose_conditions_all_hold_decides(
    quotas: Callable[[str], Quotas], login: str, service: str, from_domain: str, limits: list[int]
) -> None:
    mail = draft(envelope(login=login, service=service), from_domain=from_domain)
    assert [charge.limit for charge in quotas(RULES).charges(mail)] == limits


def test_the_gate_refuses_at_mail_who_is_already_over_and_nobody_else(
    quotas: Callable[[str], Quotas], settler: Settler
) -> None:
    two = quotas("limits: [2 recipients/day]")
    assert two.gate(envelope(to=0), None, NOW) is None
    assert send(two, settler, draft(envelope(to=2))) is None
    assert str(two.gate(envelope(to=0), None, NOW)).startswith("451 4.7.1 alice@example.com: 2 of 2 recipients ")
    assert two.gate(envelope(to=0, login="bob@example.com"), None, NOW) is None


def test_the_gate_never_refuses_some_of_the_recipients(quotas: Callable[[str], Quotas], settler: Settler) -> None:
    two = quotas("limits: [2 recipients/day]")
    assert send(two, settler, draft(envelope(to=2))) is None
    assert two.gate(envelope(to=1), b"another@example.net", NOW) is None


def test_the_gate_leaves_to_the_end_what_a_from_domain_decides(
    quotas: Callable[[str], Quotas], settler: Settler
) -> None:
    split = quotas("rules: [{from_domain: news.example, limits: unlimited}], limits: [1 message/day]")
    assert send(split, settler, draft(envelope())) is None
    assert split.gate(envelope(to=0), None, NOW) is None
    assert send(split, settler, draft(envelope())) is not None
    assert send(split, settler, draft(envelope(), from_domain="news.example")) is None


def test_a_ledger_that_cannot_be_read_is_counted_and_left_to_settle(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"damaged" * 1000)
    settler = Settler(tmp_path / "journal.db")
    blind = Quotas(loads("quota: {limits: [1 message/day]}").quota, settler)
    mail = draft(envelope())
    assert blind.check(mail) is None
    assert mail.figures["quota_store_errors_total", ()] == 1
    assert blind.gate(envelope(to=0), None, NOW) is None
    with pytest.raises(StoreError):
        settler.open()
    settler.close()


@pytest.fixture
def config(tmp_path: Path, settler: Settler) -> Path:
    file = tmp_path / "postmeter.yaml"
    file.write_text(f"journal: {{path: {tmp_path}/journal.db}}\nquota: {{limits: [4 recipients/day, 1G/day]}}\n")
    return file


def charge(settler: Settler, login: str, amount: int) -> None:
    one = Charge(key=login, unit="recipients", window=86_400, limit=99, amount=amount, text="")
    settler.settle((one,), None, {}, time.time())


def test_quota_show_lists_the_busiest_first(config: Path, settler: Settler, capsys: pytest.CaptureFixture[str]) -> None:
    charge(settler, "bob@example.com", 1)
    charge(settler, ALICE, 4)
    assert main(["-c", str(config), "quota", "show"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[:6] == [ALICE, "recipients/day", "4", "of", "4", "100%"]
    assert "room again at 20" in first
    assert second.split() == ["bob@example.com", "recipients/day", "1", "of", "4", "25%"]


def test_quota_show_steers_no_terminal(config: Path, settler: Settler, capsys: pytest.CaptureFixture[str]) -> None:
    """A login may hold anything that its server let somebody register."""
    charge(settler, "\x1b[2Jeve\n\x9b", 1)
    assert main(["-c", str(config), "quota", "show"]) == 0
    assert capsys.readouterr().out.startswith("\\x1b[2Jeve\\n\\x9b ")


def test_quota_show_of_a_login_is_json_for_programs_with_every_limit(
    config: Path, settler: Settler, capsys: pytest.CaptureFixture[str]
) -> None:
    charge(settler, ALICE, 3)
    assert main(["-c", str(config), "quota", "show", "Alice@example.com", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["accounts"]
    assert [(row["unit"], row["used"], row["limit"], row["text"]) for row in found] == [
        ("recipients", 3, 4, "4 recipients/day"),
        ("bytes", 0, 1 << 30, "1G/day"),
    ]


def test_quota_reset_empties_a_login_while_the_daemons_run(
    config: Path, settler: Settler, capsys: pytest.CaptureFixture[str]
) -> None:
    charge(settler, ALICE, 4)
    charge(settler, "bob@example.com", 1)
    assert main(["-c", str(config), "quota", "reset", ALICE]) == 0
    assert capsys.readouterr().out == f"{ALICE}: 1 account emptied\n"
    assert main(["-c", str(config), "quota", "show"]) == 0
    assert capsys.readouterr().out.startswith("bob@example.com")
    assert main(["-c", str(config), "quota", "reset", ALICE]) == 1


def test_quota_show_without_a_journal_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "postmeter.yaml"
    file.write_text(f"journal: {{path: {tmp_path}/none.db}}\n")
    assert main(["-c", str(file), "quota", "show"]) == 1
    assert "there is no journal yet" in capsys.readouterr().err
    assert not (tmp_path / "none.db").exists()
