"""What Postfix did with mail of ours is in the journal, by its real log: the next hop takes, puts off and refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.lab.client import RefusedError
from tests.lab.lab import ALICE, Lab, letter
from tests.lab.postfix import Service
from tests.lab.product import Postmeter

QUICK = {"queue_run_delay": "1s", "minimal_backoff_time": "1s", "maximal_backoff_time": "2s"}
ANSWERS = {
    b"takes": "250 2.1.5 ok",
    b"nobody": "550 5.1.1 no such user",
    b"full": "552 5.2.2 mailbox full",
    b"policy": "550 5.7.1 not from you",
    b"later": "450 4.2.1 later",
}


def answer(recipient: bytes) -> str:
    return ANSWERS.get(re.split(rb"[0-9@]", recipient)[0], "250 2.1.5 ok")


def reading(postmeter: Postmeter, **settings: object) -> Lab:
    """A lab whose books read the log of its Postfix."""
    log = postmeter.folder / "postfix" / "log" / "mail.log"
    postmeter.settings["delivery"] = {"log": str(log)}
    return Lab(postmeter=postmeter, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def lab(needs_postfix: None) -> Iterator[Lab]:
    postmeter = Postmeter({"senders": {"from": {"*": "any"}}})
    postmeter.key("example.com", "pm")
    with reading(postmeter, postfix=QUICK, sendmail=True) as lab:
        lab.sink.answer = answer
        yield lab


def told(lab: Lab, kind: str, recipient: str) -> list[dict[str, object]]:
    return [event for event in lab.postmeter.events(kind) if event["recipient"] == recipient]


def wait_told(lab: Lab, kind: str, recipient: str) -> list[dict[str, object]]:
    lab.postmeter.wait_until(lambda: bool(told(lab, kind, recipient)), bound=60)
    return told(lab, kind, recipient)


def test_every_recipient_is_told_as_the_next_hop_decided(lab: Lab) -> None:
    names = [f"{name.decode()}{number}@example.net" for name in ANSWERS for number in range(4)]
    lab.send(letter(), rcpt_to=names)
    lab.postmeter.wait_until(lambda: all(told(lab, "deferred", name) for name in names if "later" in name), bound=60)
    wanted = {
        "takes": ("sent", None),
        "nobody": ("bounced", True),
        "full": ("bounced", False),
        "policy": ("bounced", False),
    }
    for name in names:
        kind, hard = wanted.get(re.split("[0-9]", name)[0], ("deferred", None))
        [event, *more] = wait_told(lab, kind, name)
        assert more == [] or kind == "deferred"
        assert (event.get("hard"), event["login"]) == (hard, ALICE)
        assert all(event[key] for key in ("text", "relay", "delays"))
    lab.postmeter.wait_figure(4, "queue_recipients", state="deferred")
    ANSWERS[b"later"] = "250 2.1.5 now"
    for name in names:
        if "later" in name:
            assert len(wait_told(lab, "sent", name)) == 1
    arrived = {recipient.decode() for each in lab.sink.wait() for recipient in each.rcpt_to}
    assert arrived >= {name for name in names if told(lab, "sent", name)}
    lab.postmeter.wait_figure(0, "queue_recipients", bound=30)


def test_mail_of_sendmail_is_told_too(lab: Lab) -> None:
    assert lab.postfix.sendmail(letter(), "-f", ALICE, "takes900@example.net").returncode == 0
    wait_told(lab, "sent", "takes900@example.net")


def test_bounces_that_postfix_writes_and_mail_of_others_are_no_deliveries_of_ours(lab: Lab) -> None:
    lab.send(letter(), login="", service="transit", mail_from="x@example.org", rcpt_to=["takes901@example.net"])
    lab.sink.wait_for(b"takes901@example.net")
    lab.send(letter(), rcpt_to=["nobody902@example.net", "takes902@example.net"])
    wait_told(lab, "bounced", "nobody902@example.net")
    wait_told(lab, "sent", "takes902@example.net")
    everybody = {event["recipient"] for kind in ("sent", "deferred", "bounced") for event in lab.postmeter.events(kind)}
    assert not everybody & {"takes901@example.net", ALICE}


def test_requeued_mail_keeps_its_story(lab: Lab) -> None:
    ANSWERS[b"later"] = "450 4.2.1 later"
    lab.send(letter(), rcpt_to=["later903@example.net"])
    wait_told(lab, "deferred", "later903@example.net")
    ANSWERS[b"later"] = "250 2.1.5 now"
    lab.postfix.run("postsuper", "-r", "ALL")
    lab.postfix.sendmail(letter(), "-f", ALICE, "takes903@example.net")  # wakes pickup(8), which looks once a minute
    assert len(wait_told(lab, "sent", "later903@example.net")) == 1


def test_a_later_milter_that_refuses_costs_the_sender_nothing(needs_postfix: None) -> None:
    """Header fields that a milter adds are checked when all milters have taken the message (milter_header_checks)."""
    postmeter = Postmeter({"quota": {"limits": ["10 recipients/day"]}, "senders": {"from": {"*": "any"}}})
    postmeter.key("example.com", "pm")
    checks = {"milter_header_checks": "regexp:{ { /^DKIM-Signature:.*/ REJECT 5.7.1 not like this } }"}
    with reading(postmeter, postfix=checks) as lab:
        with pytest.raises(RefusedError):
            lab.send(letter(), rcpt_to=["takes1@example.net"])
        lab.postmeter.wait_until(lambda: len(lab.postmeter.events("untaken")) == 1)
        assert lab.postmeter.events("submitted")[0]["facts"]["charged"]
        used = lab.postmeter.run("quota", "show", ALICE)
        assert b" 0 of 10 " in used.stdout


def test_a_content_filter_on_this_host_delivers_nothing(needs_postfix: None) -> None:
    """An SMTP filter in between: one story, told by the queue id under which the message leaves."""
    back = Service(name="back", settings={"smtpd_sasl_auth_enable": "no", "smtpd_milters": "", "content_filter": ""})
    with reading(Postmeter({"senders": {"from": {"*": "any"}}}), services=[back], postfix=QUICK) as lab:
        lab.postfix.services[0].settings["content_filter"] = f"smtp:[127.0.0.1]:{lab.postfix.ports['back']}"  # type: ignore[index]
        lab.postfix.write()
        lab.postfix.stop()  # a reload is not in force yet when `postfix reload` has ended
        lab.postfix.start()
        lab.sink.answer = answer
        lab.send(letter(), rcpt_to=["takes1@example.net", "nobody1@example.net"])
        wait_told(lab, "sent", "takes1@example.net")
        wait_told(lab, "bounced", "nobody1@example.net")
        assert [event["queue_id"] for event in lab.postmeter.events("sent")] != [
            event["queue_id"] for event in lab.postmeter.events("submitted")
        ]
        assert len(lab.postmeter.events("sent")) == 1
