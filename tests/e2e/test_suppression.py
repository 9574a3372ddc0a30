"""Suppression through a real Postfix: who is removed, who gets the message all the same, and what the sender reads."""

from __future__ import annotations

import contextlib
import email
import email.policy
import json
import sqlite3
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import pytest

from tests.e2e.conftest import OpenLab
from tests.lab.client import Client, RefusedError
from tests.lab.lab import ALICE, BOB, Lab, attach, letter
from tests.lab.postfix import Service
from tests.lab.product import Postmeter
from tests.lab.sink import Delivery

BULK = ("X-Campaign: spring",)


def start(open_lab: OpenLab, settings: dict[str, Any]) -> Lab:
    """Port 25 has the milter too, and takes mail from loopback without a login: reports come in there."""
    postmeter = Postmeter({"quota": {"limits": ["1000 recipients/hour"]}, **settings})
    postmeter.key("example.com", "pm")
    port25 = Service(
        name="port25", settings={"smtpd_milters": attach(postmeter.milter), "smtpd_sasl_auth_enable": "no"}
    )
    aliases = {"virtual_alias_maps": "inline:{ {team@example.net = one@example.net, two@example.net} }"}
    lab = Lab(postmeter=postmeter, services=[port25], sendmail=True, postfix=aliases)
    where = f"127.0.0.1:{lab.postfix.ports['port25']}"
    postmeter.settings["notify"] = {"smtp": where, "from": "postmaster@example.com"}
    return open_lab(lab)


@pytest.fixture(scope="module")
def lab(open_lab: OpenLab) -> Lab:
    return start(open_lab, {"suppression": {"observe": False, "bypass": [ALICE]}})


@pytest.fixture(scope="module")
def strict(open_lab: OpenLab) -> Lab:
    """All mail, not bulk mail alone."""
    return start(open_lab, {"suppression": {"observe": False, "mail": "all", "bypass": [ALICE]}})


@pytest.fixture(scope="module")
def observing(open_lab: OpenLab) -> Lab:
    return start(open_lab, {"suppression": {"observe": True, "mail": "all"}})


@pytest.fixture(scope="module")
def learning(open_lab: OpenLab) -> Lab:
    """Where the books read Postfix's log, and the sink knows nobody whose name begins with `dead`."""
    postmeter = Postmeter({"suppression": {"observe": False}})
    lab = Lab(postmeter=postmeter)
    postmeter.settings["delivery"] = {"log": str(lab.postfix.log_file)}
    lab.sink.answer = lambda rcpt: "550 5.1.1 no such user" if rcpt.startswith(b"dead") else "250 2.1.5 ok"
    return open_lab(lab)


def suppress(lab: Lab, address: str, *words: str) -> None:
    lab.postmeter.run("suppress", "add", address, *words)


def events(lab: Lab, kind: str, recipient: str = "") -> list[dict[str, Any]]:
    sql = "SELECT data FROM events WHERE kind = ? ORDER BY seq"
    with contextlib.closing(sqlite3.connect(f"file:{lab.postmeter.state / 'journal.db'}?mode=ro", uri=True)) as link:
        found = [json.loads(data) for (data,) in link.execute(sql, (kind,))]
    return [one for one in found if not recipient or one.get("recipient") == recipient]


def charged(lab: Lab, login: str) -> int:
    told = json.loads(lab.postmeter.run("quota", "show", login, "--json").stdout)
    return int(next(one["used"] for one in _accounts(told)))


def _accounts(told: Any) -> Iterator[dict[str, Any]]:
    if isinstance(told, dict) and "used" in told:
        yield told
    elif isinstance(told, dict | list):
        for one in told.values() if isinstance(told, dict) else told:
            yield from _accounts(one)


def arrival(lab: Lab, recipient: bytes) -> Delivery:
    """What that recipient got; a report about it is not meant."""
    return lab.sink.wait_for(lambda delivery: recipient in delivery.rcpt_to)


def report_to(lab: Lab, sender: str, about: str) -> EmailMessage:
    """The report on `about` among those that came to a sender."""
    lab.postmeter.wait_until(lambda: bool(_reports(lab, sender, about)))
    found = _reports(lab, sender, about)
    assert len(found) == 1, "more than one report about one message"
    assert found[0].mail_from == b"", "a report that somebody could return"
    message = email.message_from_bytes(found[0].data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def _reports(lab: Lab, sender: str, about: str) -> list[Delivery]:
    found = [one for one in lab.sink.deliveries if sender.encode() in one.rcpt_to and b"delivery-status" in one.data]
    return [one for one in found if about.encode() in one.data]


def test_a_suppressed_recipient_is_removed_and_the_others_get_it(lab: Lab) -> None:
    """Charged are the others alone; the sender reads who did not get it, and why."""
    suppress(lab, "gone@example.net", "--reason", "bounced", "--evidence", "550 5.1.1 <gone@example.net> unknown")
    before = charged(lab, BOB)
    message = letter("Offers.\r\n", sender=BOB, fields=BULK)
    lab.send(message, login=BOB, rcpt_to=["here@example.net", "Gone@EXAMPLE.net", "there@example.net"])
    arrived = arrival(lab, b"there@example.net")
    assert set(arrived.rcpt_to) | set(arrival(lab, b"here@example.net").rcpt_to) == {
        b"here@example.net",
        b"there@example.net",
    }
    assert charged(lab, BOB) - before == 2
    [told] = events(lab, "suppressed", "Gone@EXAMPLE.net")
    assert (told["reason"], told["scope"], told["observed"]) == ("bounced", "everywhere", False)
    [taken] = [one for one in events(lab, "submitted") if "here@example.net" in one["recipients"]]
    assert taken["recipients"] == ["here@example.net", "there@example.net"]
    report = report_to(lab, BOB, "Gone@EXAMPLE.net")
    assert report["X-Postmeter-Notice"] is None
    assert report["Auto-Submitted"] == "auto-replied"
    assert report.get_content_type() == "multipart/report"
    assert report.get_param("report-type") == "delivery-status"
    words, status, header = report.iter_parts()
    read = words.get_content().replace("\r\n", "\n")
    assert "Gone@EXAMPLE.net\n      suppressed since" in read
    assert "550 5.1.1 <gone@example.net> unknown" in read
    assert words["Content-Transfer-Encoding"] == "7bit", "a person must read it as it stands"
    groups: Any = status.get_payload()
    fields = [dict(group) for group in groups]
    assert fields[1]["Final-Recipient"] == "rfc822; Gone@EXAMPLE.net"
    assert (fields[1]["Action"], fields[1]["Status"]) == ("failed", "5.7.1")
    assert report["In-Reply-To"] in str(header)
    assert charged(lab, BOB) - before == 2, "a report of ours was charged"


def test_when_nobody_is_left_the_message_is_refused(lab: Lab) -> None:
    suppress(lab, "alone@example.net")
    with pytest.raises(RefusedError) as refused:
        lab.send(letter(sender=BOB, fields=BULK), login=BOB, rcpt_to=["alone@example.net"])
    assert refused.value.answer.code == 550
    assert "5.7.1 no recipient is left: alone@example.net is suppressed here since" in refused.value.answer.text
    [told] = events(lab, "suppressed", "alone@example.net")
    assert told["observed"] is False


def test_a_password_reset_reaches_who_unsubscribed(lab: Lab) -> None:
    """The newsletter does not, nor does anything that is bulk mail of that address; another list does."""
    suppress(lab, "left@example.net", "--reason", "unsubscribed", "--scope", f"from:{BOB}")
    lab.send(letter("Your new password", sender=BOB), login=BOB, rcpt_to=["left@example.net"])
    assert b"new password" in arrival(lab, b"left@example.net").data
    with pytest.raises(RefusedError):
        lab.send(letter(sender=BOB, fields=BULK), login=BOB, rcpt_to=["left@example.net"])
    other = [*BULK, "List-Id: <other.example.org>"]
    lab.send(letter("Another list", sender=BOB, fields=other), login=BOB, rcpt_to=["left@example.net"])
    lab.postmeter.wait_until(lambda: any(b"Another list" in one.data for one in lab.sink.deliveries))


def test_a_suppression_of_one_from_domain_leaves_the_other_alone(lab: Lab) -> None:
    suppress(lab, "half@example.net", "--scope", "domain:example.org")
    with pytest.raises(RefusedError):
        lab.send(letter(sender=BOB, fields=BULK), login=BOB, rcpt_to=["half@example.net"])
    lab.send(letter("From the other", fields=BULK), rcpt_to=["half@example.net"])
    assert b"From the other" in arrival(lab, b"half@example.net").data


def test_the_bypass_counts_for_its_logins_and_leaves_no_trace(lab: Lab) -> None:
    suppress(lab, "urgent@example.net")
    field = "X-Postmeter-Bypass-Suppression: yes"
    lab.send(letter("Come what may", fields=[*BULK, field]), rcpt_to=["urgent@example.net"])
    arrived = arrival(lab, b"urgent@example.net")
    assert arrived.values(b"X-Postmeter-Bypass-Suppression") == []
    with pytest.raises(RefusedError):
        lab.send(letter(sender=BOB, fields=[*BULK, field]), login=BOB, rcpt_to=["urgent@example.net"])


def test_mail_of_sendmail_is_decided_at_its_end(lab: Lab) -> None:
    """Where cleanup(8) takes a refusal at RCPT for an error of the configuration, and mail would stay for ever (D8)."""
    suppress(lab, "cron@example.net")
    lab.postfix.sendmail(letter("From cron", fields=BULK), "-f", ALICE, "cron@example.net", "awake@example.net")
    arrived = arrival(lab, b"awake@example.net")
    assert arrived.rcpt_to == (b"awake@example.net",)
    assert not any(b"cron@example.net" in one.rcpt_to for one in lab.sink.deliveries)
    assert "cron@example.net" in next(report_to(lab, ALICE, "cron@example.net").iter_parts()).get_content()


def test_the_same_recipient_twice_and_odd_spellings_are_removed(lab: Lab) -> None:
    suppress(lab, "twice@example.net")
    suppress(lab, "odd.one@example.net")
    recipients = [
        "twice@example.net",
        "TWICE@example.net",
        "twice@example.net",
        "twice@example.net.",
        '"odd.one"@example.net',
        '"odd\\.one"@example.net',
        '"odd".one@example.net',
        "odd.one(of them)@example.net",
        "@relay.example:odd.one@example.net",
        "<odd.one@example.net>",
        "kept@example.net",
    ]
    lab.send(letter(sender=BOB, fields=BULK), login=BOB, rcpt_to=recipients)
    got = arrival(lab, b"kept@example.net").rcpt_to
    lab.postmeter.wait_until(lambda: bool(_reports(lab, BOB, "twice@example.net")))
    assert got == (b"kept@example.net",)
    [taken] = [one for one in events(lab, "submitted") if "kept@example.net" in one["recipients"]]
    assert taken["recipients"] == ["kept@example.net"]


def test_an_alias_is_removed_with_all_that_it_stands_for(lab: Lab) -> None:
    """Postfix removes what the client named, after it has expanded it."""
    suppress(lab, "team@example.net")
    lab.send(letter(sender=BOB, fields=BULK), login=BOB, rcpt_to=["team@example.net", "single@example.net"])
    assert arrival(lab, b"single@example.net")
    everybody = {rcpt for one in lab.sink.deliveries for rcpt in one.rcpt_to}
    assert not everybody & {b"one@example.net", b"two@example.net", b"team@example.net"}


def test_who_wants_no_report_gets_none(lab: Lab) -> None:
    """NOTIFY=NEVER (RFC 3461 section 4.1)."""
    suppress(lab, "quiet@example.net")
    suppress(lab, "told@example.net")
    with lab.client(BOB) as client:
        client.envelope(BOB, ["loud@example.net"])
        assert client.command(b"RCPT TO:<quiet@example.net> NOTIFY=NEVER ORCPT=rfc822;quiet@example.net").code == 250
        assert client.data(letter(sender=BOB, fields=BULK)).code == 250
    assert arrival(lab, b"loud@example.net")
    [told] = events(lab, "suppressed", "quiet@example.net")
    assert told["quiet"] is True
    lab.send(letter(sender=BOB, fields=BULK), login=BOB, rcpt_to=["loud@example.net", "told@example.net"])
    report_to(lab, BOB, "told@example.net")
    assert not _reports(lab, BOB, "quiet@example.net")


def test_everywhere_is_refused_at_rcpt_for_logins_that_may_never_bypass(strict: Lab) -> None:
    """The others go on; a login that may bypass is asked at the end of the message instead."""
    suppress(strict, "never@example.net", "--evidence", "a trap")
    with strict.client(BOB) as client:
        assert client.command(b"MAIL FROM:<" + BOB.encode() + b">").code == 250
        refused = client.command(b"RCPT TO:<never@example.net>")
        assert refused.code == 550
        assert "5.7.1 never@example.net is suppressed here since" in refused.text
        assert client.command(b"RCPT TO:<always@example.net>").code == 250
    with strict.client(ALICE) as client:
        assert client.command(b"MAIL FROM:<" + ALICE.encode() + b">").code == 250
        assert client.command(b"RCPT TO:<never@example.net>").code == 250
    strict.postmeter.wait_until(lambda: bool(events(strict, "suppressed", "never@example.net")))


def test_a_message_counts_once_however_many_of_its_recipients_are_refused(strict: Lab) -> None:
    """With some left it is accepted, with none it is rejected; each who was refused is suppressed once."""
    gone = [f"counted{number}@example.net" for number in range(5)]
    for name in gone:
        suppress(strict, name)
    before = strict.postmeter.metrics()
    with strict.client(BOB) as client:
        assert asked(client, *gone[:3], "left1@example.net", "left2@example.net") == [250, 550, 550, 550, 250, 250]
        assert client.data(letter(sender=BOB)).code == 250
        assert asked(client, *gone[3:]) == [250, 550, 550]
    for result in ("accepted", "rejected"):
        had = before.figure("messages_total", result=result)
        strict.postmeter.wait_figure(had + 1, "messages_total", result=result)
    strict.postmeter.wait_figure(before.figure("recipients_total") + 2, "recipients_total")
    strict.postmeter.wait_figure(before.figure("suppressed_total") + 5, "suppressed_total")


def asked(client: Client, *recipients: str) -> list[int]:
    """How MAIL and each RCPT are answered."""
    lines = [f"MAIL FROM:<{BOB}>", *(f"RCPT TO:<{recipient}>" for recipient in recipients)]
    return [client.command(line.encode()).code for line in lines]


def test_a_bounce_is_never_touched(strict: Lab) -> None:
    """A null sender's mail is somebody's answer (RFC 5321 section 4.5.5)."""
    suppress(strict, "answered@example.net")
    strict.send(letter("A bounce", fields=BULK), mail_from="", rcpt_to=["answered@example.net"])
    assert b"A bounce" in arrival(strict, b"answered@example.net").data


def test_observing_changes_nothing_and_tells_all(observing: Lab) -> None:
    suppress(observing, "watched@example.net")
    observing.send(letter("Observed", fields=BULK), rcpt_to=["watched@example.net"])
    assert b"Observed" in arrival(observing, b"watched@example.net").data
    [told] = events(observing, "suppressed", "watched@example.net")
    assert told["observed"] is True
    observing.postmeter.wait_figure(1, "suppression_observed_total", reason="manual")


def test_what_was_removed_is_counted(lab: Lab) -> None:
    suppress(lab, "counted@example.net", "--reason", "complained")
    lab.send(letter(sender=BOB, fields=BULK), login=BOB, rcpt_to=["counted@example.net", "uncounted@example.net"])
    lab.postmeter.wait_figure(1, "suppressed_total", reason="complained")


def test_what_is_removed_by_hand_is_written_to_at_once(lab: Lab) -> None:
    suppress(lab, "back@example.net")
    lab.postmeter.run("suppress", "remove", "back@example.net")
    lab.send(letter("Welcome back", sender=BOB, fields=BULK), login=BOB, rcpt_to=["back@example.net"])
    assert b"Welcome back" in arrival(lab, b"back@example.net").data


def test_who_bounces_twice_is_not_written_to_a_third_time(learning: Lab) -> None:
    """From the sink's refusal by Postfix's log and the books to the milter; what it said comes back to the sender."""
    for number in (1, 2):
        learning.send(letter(fields=BULK), rcpt_to=["dead@example.net"])
        learning.postmeter.wait_until(lambda number=number: len(events(learning, "bounced")) == number)  # type: ignore[misc]
    learning.postmeter.wait_until(lambda: bool(listed(learning)))
    [one] = listed(learning)
    assert (one["address"], one["scope"], one["reason"]) == ("dead@example.net", "domain:example.com", "bounced")
    assert one["count"] == 2
    assert "550 5.1.1 no such user" in one["evidence"]
    with pytest.raises(RefusedError) as refused:
        learning.send(letter(fields=BULK), rcpt_to=["dead@example.net"])
    assert "no such user" in refused.value.answer.text
    learning.send(letter("Your new password"), rcpt_to=["dead@example.net"])
    learning.postmeter.wait_until(lambda: len(events(learning, "bounced")) == 3)


def listed(lab: Lab) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lab.postmeter.run("suppress", "list", "--json").stdout.splitlines()]
