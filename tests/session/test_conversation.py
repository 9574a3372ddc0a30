"""What a client of Postfix's kind is answered, over the wire, by the real libmilter in a forked worker."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import process_time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from postmeter.config.schema import Senders
from postmeter.mail.draft import Draft
from postmeter.mail.message import Envelope, Field
from postmeter.mail.reply import Reply
from postmeter.runtime import prefork
from postmeter.submission.load import Load
from postmeter.submission.pipeline import Gate, Stage
from postmeter.submission.session import Session
from tests.lab.mta import Mta
from tests.lab.ports import free_port
from tests.lab.waiting import wait_for
from tests.session.conftest import Running

FIELDS = [("From", b" alice@example.com"), ("Subject", b" hello")]
BODY = b"one\r\ntwo\r\n"


def sign(draft: Draft) -> None:
    draft.insert_field(Field(b"X-Stamp", b" by us\n\tfolded"))


def send(mta: Mta, body: bytes = BODY, sender: str = "alice@example.com", login: str = "alice@example.com") -> str:
    mta.mail(sender, login=login)
    mta.rcpt("bob@example.net")
    return mta.message(FIELDS, body).verdict.code


def test_only_what_is_used_is_negotiated(running: Running) -> None:
    """HELO, unknown commands and DATA are declined; connect, RCPT, fields and body go unanswered."""
    running.start()
    with running.mta() as mta:
        mta.negotiate()
        assert mta.actions == 0x01 | 0x02 | 0x10
        assert mta.steps == 0x02 | 0x100 | 0x200 | 0x1000 | 0x8000 | 0x80 | 0x80000 | 0x100000


@pytest.mark.parametrize(
    ("desk", "actions"),
    [
        ({"signs": False, "rewrites": False}, 0x10),
        ({"rewrites": False}, 0x01 | 0x10),
        ({"signs": False}, 0x01 | 0x02 | 0x10),
        ({"returns": True}, 0x01 | 0x02 | 0x10 | 0x40),
        ({"signs": False, "rewrites": False, "returns": True}, 0x01 | 0x10 | 0x40),
        ({"drops": True}, 0x01 | 0x02 | 0x10 | 0x08),
        ({"observe": True, "drops": True}, 0),
    ],
)
def test_only_the_right_to_do_what_is_configured_is_asked_for(
    running: Running, desk: dict[str, bool], actions: int
) -> None:
    running.start(**desk)
    with running.mta() as mta:
        mta.negotiate()
        assert mta.actions == actions


def spurn(envelope: Envelope, recipient: bytes | None) -> Reply | None:
    return Reply(550, "5.7.1", "not to them") if recipient and recipient.startswith(b"them") else None


def test_a_gate_at_rcpt_refuses_that_recipient_only(running: Running) -> None:
    """A message that goes on without it is accepted and no refusal besides."""
    running.start(rcpt_gates=(Gate("suppression", spurn),))
    with running.session() as mta:
        mta.mail("alice@example.com", login="alice@example.com")
        assert mta.rcpt("them@example.net").data == b"550 5.7.1 not to them\0"
        assert mta.rcpt("bob@example.net").code == "c"
        assert mta.message(FIELDS, BODY).verdict.code == "a"
        mta.abort()
    accepted, message, *_ = running.told()
    assert (accepted, message.envelope.rcpt_to) == ("accepted", (b"bob@example.net",))
    assert running.told_no_more()


@pytest.mark.parametrize("others", [[], ["bob@example.net"]])
@pytest.mark.parametrize("leave", [Mta.abort, Mta.quit, Mta.close])
def test_a_message_that_ends_where_recipients_are_refused_is_one_refusal(
    running: Running, others: list[str], leave: Callable[[Mta], None]
) -> None:
    """However many: nobody was left, or the client gave up; its next message is another."""
    running.start(rcpt_gates=(Gate("suppression", spurn),))
    with running.session() as mta:
        mta.mail("alice@example.com", login="alice@example.com")
        for name in ["them1@example.net", *others, "them2@example.net", "them3@example.net"]:
            mta.rcpt(name)
        leave(mta)
        refused, envelope, *why = running.told()
        assert (refused, *why) == ("refused", "suppression", "550 5.7.1 not to them")
        assert envelope.rcpt_to == (b"them1@example.net", b"them2@example.net", b"them3@example.net")
        if leave is Mta.abort:
            assert send(mta) == "a"
            assert running.told()[0] == "accepted"
    assert running.told_no_more()


def test_recipients_refused_take_memory_as_others_do(running: Running) -> None:
    """What there is no room for is not kept; the refusal is told of all the same, and its memory is given back."""
    running.start(rcpt_gates=(Gate("suppression", spurn),), max_memory=100_000)
    with running.session() as mta, running.session() as other:
        for size in (3_000, 10):
            mta.mail("alice@example.com", login="alice@example.com")
            for nth in range(1_000):
                assert mta.rcpt(f"them{nth}{'x' * size}@example.net").code == "y"
            other.mail("bob@example.com", login="bob@example.com")
            other.rcpt("ann@example.net")
            assert other.message(FIELDS, b"x" * 60_000).reply.startswith("451 4.3.1")
            assert running.told()[2] == "capacity"
            mta.abort()
            refused, envelope, *why = running.told()
            assert (refused, *why) == ("refused", "suppression", "550 5.7.1 not to them")
            assert 0 < sum(map(len, envelope.rcpt_to)) < 50_000
            assert send(other, b"x" * 20_000) == "a"
            assert running.told()[0] == "accepted"


def test_a_refusal_of_recipients_is_told_although_there_is_room_for_none(running: Running) -> None:
    running.start(rcpt_gates=(Gate("suppression", spurn),), max_memory=100)
    with running.session() as mta:
        mta.mail("alice@example.com", login="alice@example.com")
        mta.rcpt("them@example.net")
        mta.abort()
    assert running.told()[2:] == ("suppression", "550 5.7.1 not to them")


def test_memory_comes_back_where_a_refusal_cannot_be_told_of(running: Running) -> None:
    """Whatever fails when a client is gone already: there is no other moment to give it back."""
    whole = running.folder / "whole"
    gates = (Gate("suppression", spurn),)
    running.start(Stage("whole", lambda draft: whole.touch()), rcpt_gates=gates, max_memory=100_000)
    (running.folder / "diary").unlink()
    with running.session() as mta:
        mta.mail("alice@example.com", login="alice@example.com")
        for nth in range(20):
            mta.rcpt(f"them{nth}{'x' * 1_000}@example.net")
    with running.session() as other:
        wait_for(lambda: bool(send(other, b"x" * 60_000)) and whole.exists())


def drop_them(draft: Draft) -> None:
    draft.drop_recipients({b'"them, there"@example.net', b"j\xc3\xb6rg@example.net"})


def test_removed_recipients_are_named_to_postfix_as_the_client_named_them(running: Running) -> None:
    """In angle brackets, each once; what is recorded has the others only."""
    running.start(Stage("drop", drop_them), drops=True)
    names = [b'"them, there"@example.net', b"bob@example.net", b"j\xc3\xb6rg@example.net", b'"them, there"@example.net']
    with running.session() as mta:
        mta.mail("alice@example.com", login="alice@example.com")
        for name in names:
            mta.rcpt(name)
        taken = mta.message(FIELDS, BODY)
    assert taken.verdict.code == "a"
    removed = [change.data for change in taken.changes if change.code == "-"]
    assert removed == [b'<"them, there"@example.net>\0', b"<j\xc3\xb6rg@example.net>\0"]
    assert running.told()[1].envelope.rcpt_to == (b"bob@example.net",)


def test_over_inet_data_is_answered(running: Running) -> None:
    """Declined, its macros would be a packet without a reply, and Nagle's algorithm holds the next one back (D40)."""
    running.inet = ("127.0.0.1", free_port())
    running.start(Stage("sign", sign))
    with running.session() as mta:
        assert not mta.steps & 0x200
        mta.mail("alice@example.com", login="alice@example.com")
        mta.rcpt("bob@example.net")
        assert mta.message(FIELDS, BODY).inserted("X-Stamp")


def test_an_mta_that_offers_too_little_is_refused_at_once(running: Running) -> None:
    running.start()
    with running.mta() as mta, pytest.raises(ConnectionError):
        mta.negotiate(steps=0x7F)


def test_mail_of_ours_is_collected_whole_and_stamped_last(running: Running) -> None:
    """The message reaches the steps byte for byte; the inserted field comes with its leading space and LF fold."""
    running.start(Stage("sign", sign))
    with running.session() as mta:
        mta.mail("alice@example.com", login="alice@example.com", args=[b"SIZE=100"])
        mta.rcpt("bob@example.net")
        taken = mta.message([*FIELDS, ("X-Odd", b"\tfolded\n more"), ("X-Raw", b" \xff\xfe"), ("X-Empty", b"")], BODY)
    assert taken.verdict.code == "a"
    assert taken.inserted("X-Stamp") == [" by us\n\tfolded"]
    kind, message, *_ = running.told()
    assert kind == "accepted"
    assert message.body == BODY
    assert message.fields[2:] == (
        Field(b"X-Odd", b"\tfolded\n more"),
        Field(b"X-Raw", b" \xff\xfe"),
        Field(b"X-Empty", b""),
    )
    assert message.envelope.login == "alice@example.com"
    assert message.envelope.args == (b"SIZE=100",)
    assert message.envelope.rcpt_to == (b"bob@example.net",)
    assert message.queue_id == "4XyZ1234567"


def test_several_messages_of_one_session_share_nothing(running: Running) -> None:
    """State is reset at MAIL, also after RSET in the middle of a message (D4)."""
    running.start()
    with running.session() as mta:
        assert send(mta, b"first\r\n") == "a"
        mta.abort()
        mta.mail("mallory@example.com", login="alice@example.com")
        mta.rcpt("eve@example.net")
        mta.header("X-Left", b" over")
        mta.step("B", b"left over\r\n")
        mta.abort()
        assert send(mta, b"second\r\n") == "a"
    first, second = running.told()[1], running.told()[1]
    assert (first.body, second.body) == (b"first\r\n", b"second\r\n")
    assert [field.name for field in second.fields] == [b"From", b"Subject"]
    assert second.envelope.rcpt_to == (b"bob@example.net",)


@pytest.mark.parametrize("cut", ["C", "M", "R", "L", "N", "B"])
def test_a_client_may_vanish_at_any_point(running: Running, cut: str) -> None:
    """Nothing is recorded, and the next session is served."""
    running.start()
    mta = running.mta()
    mta.negotiate()
    steps: dict[str, Callable[[], object]] = {
        "C": lambda: mta.connect(),
        "M": lambda: mta.mail("alice@example.com", login="alice@example.com"),
        "R": lambda: mta.rcpt("bob@example.net"),
        "L": lambda: mta.header("From", b" alice@example.com"),
        "N": lambda: mta.step("N", b""),
        "B": lambda: mta.step("B", b"half a li"),
    }
    for name, step in steps.items():
        step()
        if name == cut:
            break
    mta.close()
    with running.session() as after:
        assert send(after, b"after\r\n") == "a"
    assert running.told()[1].body == b"after\r\n"


def test_foreign_mail_is_let_go_at_mail(running: Running) -> None:
    """Another service, another network, no login: accepted at MAIL, so that Postfix sends nothing more of it (D8)."""
    running.start()
    with running.session(service="smtpd") as mta:
        assert mta.mail("someone@example.net").code == "a"
        assert running.told() == ("passed", "smtpd")
        assert mta.mail("alice@example.com", login="alice@example.com").code == "c"


def test_mail_that_passes_through_loopback_is_let_go_before_its_body(running: Running) -> None:
    """A Received field with ESMTP: a content filter gave it back (issue: whose mail is ours)."""
    running.start()
    received = ("Received", b" from mx (mx [192.0.2.9])\n\tby host (Postfix) with ESMTPS id 4Xy\n\tfor <x@y>; now")
    with running.session(service="smtpd", address="127.0.0.1") as mta:
        assert mta.mail("mallory@example.com").code == "c"
        mta.rcpt("bob@example.net")
        assert mta.message([received, *FIELDS], BODY).verdict.code == "a"
        assert running.told() == ("passed", "smtpd")


def test_local_mail_is_ours_when_its_domain_is(running: Running) -> None:
    running.start()
    with running.session(service="smtpd", address="127.0.0.1", port=0) as mta:
        mta.mail("root@example.com", queue_id="4Local")
        mta.rcpt("bob@example.net")
        assert mta.message(FIELDS, BODY).verdict.code == "a"
    kind, message, *_ = running.told()
    assert kind == "accepted"
    assert message.envelope.service == "local"
    assert message.envelope.client.local


def test_octets_of_addresses_and_fields_need_not_be_utf_8(running: Running) -> None:
    """D28: nothing raises, nothing is lost."""
    running.start()
    with running.session() as mta:
        mta.mail(b"al\xeece@example.com", login="alice@example.com")
        mta.rcpt(b"b\xf6b@example.net")
        taken = mta.message([("From", b" \xe4\xf6 <alice@example.com>"), ("Subject", b" \xff\x80")], b"\xff\x00\r\n")
    assert taken.verdict.code == "a"
    message = running.told()[1]
    assert message.envelope.mail_from == b"al\xeece@example.com"
    assert message.envelope.rcpt_to == (b"b\xf6b@example.net",)
    assert message.fields[1].value == b" \xff\x80"
    assert message.body == b"\xff\x00\r\n"


def test_a_login_that_is_no_utf_8_is_refused_for_now(running: Running) -> None:
    """pymilter cannot read such a macro (D28): no limit would hold for mail whose login nobody knows."""
    running.start()
    with running.session() as mta:
        mta.send("D", b"M{auth_authen}\0al\xefce\0")
        assert mta.step("M", b"<alice@example.com>\0").code == "y"
        assert running.told() == ("failed", "envfrom")
        assert send(mta, b"fine\r\n") == "a"


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 50_000_000])
def test_bodies_of_any_size_arrive_whole(running: Running, size: int) -> None:
    def remember(draft: Draft) -> None:
        draft.note("size", f"{len(draft.body)} {draft.body[:1]!r} {draft.body[-2:]!r}")

    def shorten(draft: Draft) -> Reply | None:
        draft.body = b""  # the diary's datagram holds no 50 MB
        return None

    running.start(Stage("size", remember), settle=shorten)
    body = (b"x" * 998 + b"\r\n") * (size // 1000) + b"y" * (size % 1000)
    with running.session() as mta:
        assert send(mta, body) == "a"
    assert running.told()[2][0].text == f"{size} {body[:1]!r} {body[-2:]!r}"


def test_a_thousand_recipients_are_kept_in_order(running: Running) -> None:
    running.start()
    with running.session() as mta:
        mta.mail("alice@example.com", login="alice@example.com")
        for number in range(1000):
            mta.rcpt(f"r{number}@example.net")
        mta.message(FIELDS, BODY)
    assert running.told()[1].envelope.rcpt_to == tuple(f"r{number}@example.net".encode() for number in range(1000))


def test_a_recipient_costs_the_same_however_many_there_are() -> None:
    """sendmail(1) knows no limit: copied at each RCPT, fifty thousand kept a worker busy for seconds."""
    desk: Any = SimpleNamespace(observe=False, rcpt_gates=(), load=Load(max_sessions=1, max_memory=100 << 20))
    session, ctx = Session(desk), cast(Any, None)

    def cost() -> float:
        start = process_time()
        for _ in range(3000):
            session.rcpt(ctx, b"<reader@example.net>")
        return process_time() - start

    costs = [cost() for _ in range(10)]
    assert min(costs[-3:]) < 4 * max(costs[:2])


def refuse_with(reply: Reply) -> Callable[[Draft], Reply]:
    return lambda draft: reply


def test_a_percent_in_a_reply_reaches_the_client_doubled_for_postfix(running: Running) -> None:
    """Postfix turns %% into % (D10); line ends and foreign letters never leave."""
    running.start(Stage("no", refuse_with(Reply(451, "4.7.1", "100% of é\r\n250 ok"))))
    with running.session() as mta:
        mta.mail("alice@example.com", login="alice@example.com")
        mta.rcpt("bob@example.net")
        assert mta.message(FIELDS, BODY).reply == "451 4.7.1 100%% of \\xe9  250 ok"


def test_a_charge_refused_last_is_answered_though_edits_were_sent(running: Running) -> None:
    running.start(Stage("sign", sign), settle=refuse_with(Reply(451, "4.7.1", "no room")))
    with running.session() as mta:
        mta.mail("alice@example.com", login="alice@example.com")
        mta.rcpt("bob@example.net")
        taken = mta.message(FIELDS, BODY)
    assert taken.inserted("X-Stamp")
    assert taken.reply == "451 4.7.1 no room"


def test_a_bounce_is_never_refused(running: Running) -> None:
    """Whatever a step says, and whatever fails: nobody would be told (RFC 5321 section 4.5.5)."""
    running.start(Stage("no", refuse_with(Reply(550, "5.7.1", "never"))), Stage("bug", bug), max_memory=1_000_000)
    with running.session() as mta:
        assert send(mta, sender="") == "a"
        assert running.told()[0] == "accepted"
        assert send(mta, b"x" * 2_000_000, sender="") == "a"


def test_a_step_that_fails_half_way_changes_nothing_of_a_bounce(running: Running) -> None:
    def half(draft: Draft) -> None:
        draft.insert_field(Field(b"X-Half", b" done"))
        raise RuntimeError("a bug")

    running.start(Stage("half", half), Stage("sign", sign))
    with running.session() as mta:
        mta.mail("", login="alice@example.com")
        mta.rcpt("bob@example.net")
        taken = mta.message(FIELDS, BODY)
    assert taken.verdict.code == "a"
    assert [answer.data[4:] for answer in taken.changes] == [b"X-Stamp\0 by us\n\tfolded\0"]


def test_changes_come_as_one_run_of_body_then_edits_then_insertions(running: Running) -> None:
    """Exact bytes, in order: body chunks, fields from the highest instance down, our own field last (D7, D13, D17)."""

    def change(draft: Draft) -> None:
        draft.insert_field(Field(b"X-Stamp", b" 1"))
        draft.replace_field(b"X-Thrice", nth=1, value=b" changed")
        draft.drop_fields(b"x-twice")
        draft.replace_body(b"z" * 100_000 + b"\r\n", ())

    running.start(Stage("change", change))
    with running.session() as mta:
        mta.mail("alice@example.com", login="alice@example.com")
        mta.rcpt("bob@example.net")
        taken = mta.message([*FIELDS, ("X-Twice", b" a"), ("X-Thrice", b" a"), ("X-Twice", b" b")], BODY)
    assert taken.body() == b"z" * 100_000 + b"\r\n"
    codes = [answer.code for answer in taken.changes]
    assert codes == sorted(codes, key="bmi".index)
    assert [answer.data for answer in taken.changes if answer.code == "m"] == [
        b"\0\0\0\2x-twice\0\0",
        b"\0\0\0\1X-Thrice\0 changed\0",
        b"\0\0\0\1x-twice\0\0",
    ]
    assert taken.changes[-1].data == b"\0\0\0\0X-Stamp\0 1\0"


def hold(draft: Draft) -> None:
    draft.hold = "quota"


def test_held_mail_is_changed_and_signed_and_quarantined_last(running: Running) -> None:
    """It leaves as any other when it is let go; the hold ends nothing, the verdict is still to come (D7, D8)."""

    def change(draft: Draft) -> None:
        draft.replace_body(b"other\r\n", ())
        draft.insert_field(Field(b"X-Stamp", b" 1"))

    running.start(Stage("change", change), Stage("hold", hold), holds=True)
    with running.session() as mta:
        assert mta.actions == 0x01 | 0x02 | 0x10 | 0x20
        mta.mail("alice@example.com", login="alice@example.com")
        mta.rcpt("bob@example.net")
        taken = mta.message(FIELDS, BODY)
    assert [answer.code for answer in taken.changes] == ["b", "i", "q"]
    assert taken.changes[-1].data == b"postmeter: quota\0"
    assert taken.verdict.code == "a"


def test_what_is_refused_last_is_not_held(running: Running) -> None:
    running.start(Stage("hold", hold), holds=True, settle=refuse_with(Reply(451, "4.7.1", "too many are held")))
    with running.session() as mta:
        mta.mail("alice@example.com", login="alice@example.com")
        mta.rcpt("bob@example.net")
        taken = mta.message(FIELDS, BODY)
    assert (taken.changes, taken.reply) == ([], "451 4.7.1 too many are held")


def nobodys(draft: Draft) -> None:
    draft.wishes = replace(draft.wishes, test=True)


@pytest.mark.parametrize("sender", ["alice@example.com", ""])
def test_a_test_is_recorded_and_discarded_unchanged(running: Running, sender: str) -> None:
    running.start(Stage("sign", sign), Stage("switches", nobodys))
    with running.session() as mta:
        mta.mail(sender, login="alice@example.com")
        mta.rcpt("bob@example.net")
        taken = mta.message(FIELDS, BODY)
    assert (taken.changes, taken.verdict.code) == ([], "d")
    assert running.told()[0] == "accepted"


def test_a_test_that_cannot_be_recorded_is_not_taken(running: Running) -> None:
    running.start(Stage("switches", nobodys), settle=refuse_with(Reply(451, "4.3.0", "no journal")))
    with running.session() as mta:
        mta.mail("alice@example.com", login="alice@example.com")
        mta.rcpt("bob@example.net")
        assert mta.message(FIELDS, BODY).reply == "451 4.3.0 no journal"


def test_a_test_that_is_only_observed_goes_out(running: Running) -> None:
    """The journal says what would have been."""

    def settle(draft: Draft) -> None:
        draft.note("facts", str(draft.facts))

    running.start(Stage("switches", nobodys), observe=True, settle=settle)
    with running.session() as mta:
        assert send(mta) == "a"
    notes = running.told()[2]
    assert notes[-1].text == "{'observed': {'verdict': 'discard'}}"


def test_observing_changes_and_refuses_nothing(running: Running) -> None:
    running.start(Stage("sign", sign), Stage("no", refuse_with(Reply(550, "5.7.1", "never"))), observe=True)
    with running.session() as mta:
        mta.mail("alice@example.com", login="alice@example.com")
        mta.rcpt("bob@example.net")
        taken = mta.message(FIELDS, BODY)
    assert taken.verdict.code == "a"
    assert taken.changes == []
    assert running.told()[0] == "accepted"


def bug(draft: Draft) -> None:
    raise ZeroDivisionError(draft.message.queue_id)


def test_a_bug_is_answered_once_with_451_and_the_session_lives_on(running: Running) -> None:
    running.start(Stage("step", lambda draft: bug(draft) if draft.body == b"bug\r\n" else None))
    with running.session() as mta:
        mta.mail("alice@example.com", login="alice@example.com")
        mta.rcpt("bob@example.net")
        assert mta.message(FIELDS, b"bug\r\n").reply.startswith("451 4.3.0")
        assert send(mta, b"fine\r\n") == "a"


def test_a_bug_is_logged_once_a_minute_however_much_mail_meets_it(running: Running, tmp_path: Path) -> None:
    """A message may have thousands of fields, and somebody may send what we fail at again and again."""
    log = logging.FileHandler(tmp_path / "log")
    logging.getLogger().addHandler(log)
    try:
        running.start(Stage("step", lambda draft: bug(draft) if draft.body == b"bug\r\n" else None), settle=bug)
    finally:
        logging.getLogger().removeHandler(log)
    with running.session() as mta:
        for body in (b"bug\r\n", b"fine\r\n") * 5:
            send(mta, body)
    running.stop()
    said = (tmp_path / "log").read_text()
    assert (said.count("bug in step"), said.count("bug in callback eom")) == (1, 1)
    assert said.count("Traceback") == 2


def test_a_bug_in_a_sparing_step_leaves_the_message_as_it_was(running: Running) -> None:
    def half(draft: Draft) -> None:
        draft.replace_body(b"damaged", ())
        bug(draft)

    running.start(Stage("links", half, spare=True), Stage("sign", sign))
    with running.session() as mta:
        mta.mail("alice@example.com", login="alice@example.com")
        mta.rcpt("bob@example.net")
        taken = mta.message(FIELDS, BODY)
    assert taken.verdict.code == "a"
    assert taken.body() is None
    assert taken.inserted("X-Stamp")


def test_a_bug_behind_the_steps_is_answered_with_451_too(running: Running) -> None:
    """Nothing is accepted by accident when recording fails in a way that nobody thought of."""
    running.start(settle=bug)
    with running.session() as mta:
        mta.mail("alice@example.com", login="alice@example.com")
        mta.rcpt("bob@example.net")
        assert mta.message(FIELDS, BODY).reply.startswith("451 4.3.0")
    assert running.told() == ("failed", "eom")


def test_on_bug_accept_lets_mail_through(running: Running) -> None:
    running.start(Stage("step", bug), tolerant=True)
    with running.session() as mta:
        assert send(mta) == "a"


def test_a_gate_refuses_at_mail_for_smtp_clients_only(running: Running) -> None:
    def gate(envelope: Envelope, recipient: bytes | None) -> Reply | None:
        return Reply(451, "4.7.1", "over") if recipient is None else None

    running.start(gates=(Gate("quota", gate),), senders=Senders())
    with running.session() as mta:
        assert mta.mail("alice@example.com", login="alice@example.com").data == b"451 4.7.1 over\0"
        assert mta.mail("", login="alice@example.com").code == "c"
        mta.abort()
        assert mta.mail("alice@example.com", login="alice@example.com", queue_id="4Requeued").code == "c"


def test_a_gate_may_ask_about_the_null_sender_too(running: Running) -> None:
    """Whoever is frozen does not get out by an empty sender."""
    running.start(gates=(Gate("frozen", lambda envelope, recipient: Reply(550, "5.7.1", "frozen"), bounces=True),))
    with running.session() as mta:
        assert mta.mail("", login="alice@example.com").data == b"550 5.7.1 frozen\0"
    assert running.told()[2] == "frozen"


def test_memory_is_bounded_by_refusal(running: Running) -> None:
    """What does not fit gets 451 4.3.1 at its end; the next message has room again."""
    running.start(max_memory=1_000_000)
    with running.session() as mta:
        mta.mail("alice@example.com", login="alice@example.com")
        mta.rcpt("bob@example.net")
        assert mta.message(FIELDS, b"x" * 2_000_000).reply.startswith("451 4.3.1")
        assert send(mta, b"small\r\n") == "a"


@pytest.mark.parametrize(("name", "value"), [("X-Long", b" " + b"x" * 50_000), ("X" * 30_000, b""), ("X", b"")])
def test_a_header_takes_memory_as_a_body_does(running: Running, name: str, value: bytes) -> None:
    """By its values, by its names, and by how many fields there are."""
    running.start(max_memory=1_000_000)
    count = 1_500_000 // (2 * len(name) + len(value) + 100)
    with running.session() as mta:
        mta.mail("alice@example.com", login="alice@example.com")
        mta.rcpt("bob@example.net")
        assert mta.message([*FIELDS, *[(name, value)] * count], BODY).reply.startswith("451 4.3.1")
        assert send(mta, b"small\r\n") == "a"


def test_recipients_take_memory_as_a_body_does(running: Running) -> None:
    """However many there are, they are counted in what is told of the refusal."""
    running.start(max_memory=100_000)
    with running.session() as mta:
        for address in ("bob@example.net", "b" * 3_000 + "@example.net"):
            count = 100_000 // len(address)
            mta.mail("alice@example.com", login="alice@example.com")
            for _ in range(count):
                mta.rcpt(address)
            assert mta.message(FIELDS, BODY).reply.startswith("451 4.3.1")
            what, envelope, stage, _ = running.told()
            assert (what, len(envelope.rcpt_to), stage) == ("refused", count, "capacity")
            assert sum(map(len, envelope.rcpt_to)) < 50_000
            assert send(mta, b"small\r\n") == "a"
            assert running.told()[1].envelope.rcpt_to == (b"bob@example.net",)


def test_recipients_stay_when_the_rest_of_a_message_is_let_go(running: Running) -> None:
    """They are told of, and their memory is given back with them."""
    running.start(max_memory=100_000)
    with running.session() as mta:
        for _ in range(5):
            mta.mail("alice@example.com", login="alice@example.com")
            for _ in range(100):
                mta.rcpt("bob@example.net", queue_id="4X")
            assert mta.message(FIELDS, b"x" * 200_000).reply.startswith("451 4.3.1")
            assert running.told()[1].rcpt_to == (b"bob@example.net",) * 100
        mta.mail("alice@example.com", login="alice@example.com")
        mta.rcpt("bob@example.net")
        assert mta.message(FIELDS, b"x" * 60_000).verdict.code == "a"


def test_temporary_files_may_lie_in_a_folder_with_a_long_name(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libmilter's own socket lies there, and an address of a socket has 108 octets (unix(7))."""
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    running.start(Stage("sign", sign))
    with running.session() as mta:
        assert send(mta) == "a"
    assert not list(long.iterdir())


def test_one_session_too_many_is_refused_for_now(running: Running) -> None:
    running.start(max_sessions=2)
    first, second, third = running.session(), running.session(), running.session()
    assert third.mail("alice@example.com", login="alice@example.com").data.startswith(b"451 4.3.2")
    for mta in (first, second):
        mta.quit()
        mta.close()
    with running.session() as later:
        third.close()
        wait_for(lambda: later.mail("alice@example.com", login="alice@example.com").code == "c")


def test_what_no_client_waits_for_is_taken_though_there_are_too_many_sessions(running: Running) -> None:
    """pickup(8) would bring sendmail(1)'s mail again each minute; there is one of it at a time (D42)."""
    running.start(max_sessions=0)
    with running.session() as mta:
        assert mta.mail("alice@example.com", login="alice@example.com", queue_id="4X").code == "c"
        mta.rcpt("bob@example.net", queue_id="4X")
        assert mta.message(FIELDS, BODY).verdict.code == "a"


@pytest.mark.parametrize(
    ("settings", "sender"),
    [
        ({"max_sessions": 0}, ""),
        ({"max_sessions": 0, "observe": True}, "alice@example.com"),
        ({"max_memory": 100}, ""),
        ({"max_memory": 100, "observe": True}, "alice@example.com"),
    ],
)
def test_what_is_never_refused_passes_untouched_where_there_is_no_room(
    running: Running, settings: dict[str, Any], sender: str
) -> None:
    """A bounce, and any mail while we only observe."""
    running.start(Stage("sign", sign), **settings)
    with running.session() as mta:
        early = mta.mail(sender, login="alice@example.com")
        if early.code == "c":
            mta.rcpt("bob@example.net")
            taken = mta.message(FIELDS, BODY)
            assert (taken.verdict.code, taken.changes) == ("a", [])
        else:
            assert early.code == "a"
    assert running.told() == ("passed", "ORIGINATING")


def test_gates_refuse_nothing_while_we_observe(running: Running) -> None:
    never = Gate("never", lambda envelope, recipient: Reply(550, "5.7.1", "never"), bounces=True)
    running.start(gates=(never,), rcpt_gates=(never,), observe=True)
    with running.session() as mta:
        for sender in ("alice@example.com", ""):
            assert mta.mail(sender, login="alice@example.com").code == "c"
            assert mta.rcpt("bob@example.net").code == "c"
            assert mta.message(FIELDS, BODY).verdict.code == "a"
            assert running.told()[0] == "accepted"


def test_a_bug_refuses_nothing_while_we_observe(running: Running) -> None:
    running.start(observe=True)
    with running.session() as mta:
        mta.send("D", b"M{auth_authen}\0al\xefce\0")
        assert mta.step("M", b"<alice@example.com>\0").code == "a"


def refuses_connections(running: Running) -> bool:
    try:
        running.mta().close()
    except OSError as error:
        return isinstance(error, ConnectionRefusedError | FileNotFoundError)
    return False


@pytest.mark.parametrize("inet", [False, True])
def test_a_stop_waits_for_the_message_in_flight(running: Running, inet: bool) -> None:
    """SIGTERM to the parent: new connections are refused, none hangs; the open message is finished, exit 0 (D23)."""
    if inet:
        running.inet = ("127.0.0.1", free_port())
    running.start(Stage("sign", sign), drain=30.0)  # libmilter looks at its listener once in five seconds
    mta = running.session()
    mta.mail("alice@example.com", login="alice@example.com")
    mta.rcpt("bob@example.net")
    os.kill(running.pid, signal.SIGTERM)
    wait_for(lambda: refuses_connections(running))
    assert mta.message(FIELDS, BODY).inserted("X-Stamp")
    mta.close()
    assert running.wait() == 0


def test_a_session_that_goes_on_during_a_drain_is_sent_away_with_421(running: Running) -> None:
    running.start(drain=2.0)
    mta = running.session()
    assert send(mta) == "a"
    os.kill(running.pid, signal.SIGTERM)
    replies: list[bytes] = []

    def sent_away() -> bool:
        replies.append(mta.mail("alice@example.com", login="alice@example.com").data)
        mta.abort()
        return replies[-1].startswith(b"421 4.3.2")

    wait_for(sent_away, within=5)
    mta.close()
    assert running.wait() == 0


def test_a_reload_brings_new_workers_while_old_sessions_end_in_peace(running: Running) -> None:
    running.start(Stage("sign", sign), workers=2)
    mta = running.session()
    mta.mail("alice@example.com", login="alice@example.com")
    old = set(running.workers())
    os.kill(running.pid, signal.SIGUSR1)
    wait_for(lambda: len(set(running.workers()) - old) == 2)
    with running.session() as fresh:
        assert send(fresh) == "a"
    mta.rcpt("bob@example.net")
    assert mta.message(FIELDS, BODY).inserted("X-Stamp")
    mta.close()
    wait_for(lambda: not old & set(running.workers()))
    assert running.stop() == 0


def tell_worker(draft: Draft) -> None:
    draft.insert_field(Field(b"X-Worker", b" %d" % os.getpid()))


def test_a_reload_is_done_when_no_old_worker_takes_a_session(
    running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever connects after READY=1 meets the new configuration (sd_notify(3)), whatever the old workers still do."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "systemd"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "systemd"))
        systemd.settimeout(10)
        running.start(Stage("worker", tell_worker), workers=2, drain=60.0)
        assert systemd.recv(1000).startswith(b"READY=1")
        held = running.session()
        held.mail("alice@example.com", login="alice@example.com")
        for _ in range(10):
            old = running.workers()
            os.kill(running.pid, signal.SIGUSR1)
            assert systemd.recv(1000).startswith(b"RELOADING=1")
            assert systemd.recv(1000).startswith(b"READY=1")
            with running.session() as mta:
                mta.mail("alice@example.com", login="alice@example.com")
                mta.rcpt("bob@example.net")
                (worker,) = mta.message(FIELDS, BODY).inserted("X-Worker")
            assert int(worker) not in old
        held.close()


def pipe_ends(pid: int) -> Counter[tuple[str, int]]:
    """The mode of the link tells the end that is read from the one that is written to (proc(5))."""
    entries = [entry for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_fifo()]
    return Counter((os.readlink(entry), entry.lstat().st_mode) for entry in entries)


def test_a_worker_holds_each_end_of_a_pipe_once(running: Running) -> None:
    """A second descriptor of the pipe to its parent would outlast the word that it takes no more sessions."""
    running.start()
    inherited = pipe_ends(running.pid)
    held = pipe_ends(running.workers()[0])
    assert held
    assert all(count <= max(1, inherited[end]) for end, count in held.items())


def test_a_reload_whose_workers_cannot_start_changes_nothing(running: Running) -> None:
    """The old workers serve on, new sessions too; the next good reload takes over."""
    running.start(Stage("sign", sign), workers=2, reloads=["bad"])
    wait_for(lambda: len(running.workers()) == 2)
    old = set(running.workers())
    os.kill(running.pid, signal.SIGUSR1)
    with running.session() as mta:
        assert send(mta) == "a"
    wait_for((running.folder / "broken").exists)
    wait_for(lambda: set(running.workers()) == old)
    os.kill(running.pid, signal.SIGUSR1)
    wait_for(lambda: len(set(running.workers()) - old) == 2 and not old & set(running.workers()))
    with running.session() as mta:
        assert send(mta) == "a"


def test_a_reload_that_fails_by_a_bug_changes_nothing(running: Running) -> None:
    running.start(workers=1, reloads=["bug"])
    old = running.workers()
    os.kill(running.pid, signal.SIGUSR1)
    wait_for((running.folder / "broken").exists)
    with running.session() as mta:
        assert send(mta) == "a"
    assert running.workers() == old
    assert running.stop() == 0


def test_where_no_worker_can_be_started_just_now_the_parent_tries_again(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Descriptors, or processes, may run out for a moment: that is no reason for the other workers to go as well."""
    monkeypatch.setattr(prefork, "SICK", 0.0)
    told = running.folder / "log"
    handler = logging.FileHandler(told)
    logging.getLogger("postmeter.runtime.prefork").addHandler(handler)
    try:
        running.start(workers=2)
    finally:
        logging.getLogger("postmeter.runtime.prefork").removeHandler(handler)
        handler.close()
    wait_for(lambda: len(running.workers()) == 2)
    usual = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (1, usual[1]))
    os.kill(running.workers()[0], signal.SIGKILL)
    wait_for(lambda: "no new worker just now" in told.read_text())
    with running.session() as mta:
        assert send(mta) == "a"
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, usual)
    os.kill(running.workers()[0], signal.SIGKILL)
    wait_for(lambda: len(running.workers()) == 2)


def test_a_killed_worker_is_replaced(running: Running) -> None:
    running.start(workers=2)
    victim = running.workers()[0]
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: victim not in running.workers() and len(running.workers()) == 2)
    with running.session() as mta:
        assert send(mta) == "a"


def test_an_orderly_end_of_a_worker_leaves_the_socket(running: Running) -> None:
    """libmilter unlinks the path that it opened: not the shared one (D39)."""
    running.start(workers=1)
    victim = running.workers()[0]
    os.kill(victim, signal.SIGTERM)
    wait_for(lambda: victim not in running.workers() and len(running.workers()) == 1)
    with running.session() as mta:
        assert send(mta) == "a"


def test_workers_end_when_their_parent_is_killed(running: Running) -> None:
    running.start(workers=2)
    orphans = running.workers()
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") and alive(pid) for pid in orphans))


def alive(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
