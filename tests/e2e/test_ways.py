"""Each way by which a real Postfix gets rid of mail, or gives it up, is told as what it is; figures and report too."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_delivery import ANSWERS, QUICK, answer, reading, told, wait_told
from tests.lab.folder import give
from tests.lab.lab import Lab, letter
from tests.lab.product import Postmeter
from tests.lab.sink import Sink

ENDS = {
    "takes@smtp.example": ("sent", None),
    "nobody@smtp.example": ("bounced", True),
    "takes@lmtp.example": ("sent", None),
    "nobody@lmtp.example": ("bounced", True),
    "x@pipe-takes.example": ("sent", None),
    "x@pipe-refuses.example": ("bounced", False),
    "x@discard.example": ("sent", None),
    "x@error.example": ("bounced", False),
    "mailbox@virtual.example": ("sent", None),
    "nobody@virtual.example": ("bounced", False),
    "file@local.example": ("sent", None),
    "nobody-here@local.example": ("bounced", False),
    "forward@local.example": ("sent", None),
    "gone@local.example": ("bounced", True),
}
"""What becomes of whom, and whether it is hard: only where another server said so of the address."""
GIVEN_UP = ("x@pipe-later.example", "x@retry.example", "x@nowhere.example", "later@lmtp.example")
HELD, DELETED = "later1@smtp.example", "later2@smtp.example"


@pytest.fixture(scope="module")
def lab(needs_postfix: None) -> Iterator[Lab]:
    postmeter = Postmeter({"senders": {"from": {"*": "any"}}})
    postmeter.key("example.com", "pm")
    with Sink(lmtp=True) as lmtp:
        lmtp.answer = answer
        mail = postmeter.folder / "mail"
        with reading(postmeter, postfix={**QUICK, **ways(lmtp, mail)}, master=daemons()) as lab:
            mail.mkdir()
            give(mail, "nobody")
            lab.sink.answer = answer
            yield lab


def ways(lmtp: Sink, mail: Path) -> dict[str, str]:
    """By recipient domain (transport(5)); aliases(5) and virtual(8) hold three files and two addresses."""
    transports = {
        "lmtp": lmtp.transport, "pipe-takes": "taken:", "pipe-refuses": "refused:", "pipe-later": "later:",
        "discard": "discard:thrown away", "error": "error:5.1.1 nobody", "retry": "retry:4.3.0 wait",
        "nowhere": "smtp:[127.0.0.1]:1",
    }  # fmt: skip
    aliases = "{file = /dev/null}, {forward = takes77@smtp.example}, {gone = nobody77@smtp.example}"
    return {
        "transport_maps": ", ".join(f"inline:{{{{{name}.example = {way}}}}}" for name, way in transports.items()),
        "mydestination": "local.example",
        "alias_maps": f"inline:{{{aliases}}}",
        "allow_mail_to_files": "alias, forward",
        "virtual_mailbox_domains": "virtual.example",
        "virtual_mailbox_base": str(mail),
        "virtual_mailbox_maps": "inline:{{mailbox@virtual.example = mailbox/}}",
        "virtual_mailbox_limit": "0",
        "virtual_uid_maps": "static:65534",
        "virtual_gid_maps": "static:65534",
        "smtpd_reject_unlisted_recipient": "no",
        "transport_retry_time": "1s",  # on a busy machine a daemon may start late
        "service_throttle_time": "1s",
    }


def daemons() -> list[str]:
    """pipe(8) gives the exit codes of sysexits.h: 67 is EX_NOUSER, 75 EX_TEMPFAIL."""
    exits = {"taken": 0, "refused": 67, "later": 75}
    pipes = (
        f"{name} unix - n n - - pipe flags= user=nobody argv=/bin/sh -c {{exit {code}}}" for name, code in exits.items()
    )
    return [*pipes, "local unix - n n - - local", "virtual unix - n n - - virtual"]


def test_each_way_of_delivery_is_told_as_it_ended_and_figures_and_report_say_the_same(lab: Lab) -> None:
    lab.send(letter(), rcpt_to=[*ENDS, *GIVEN_UP])
    for name in GIVEN_UP:
        wait_told(lab, "deferred", name)
    for name, (kind, hard) in ENDS.items():
        [event] = wait_told(lab, kind, name)
        assert event.get("hard") == hard, event
    lab.postfix.run("postsuper", "-e", "ALL")
    for name in GIVEN_UP:
        wait_told(lab, "expired", name)

    for name in (HELD, DELETED):
        lab.send(letter(), rcpt_to=[name])
        wait_told(lab, "deferred", name)
        lab.postfix.run("postsuper", "-h", str(told(lab, "deferred", name)[0]["queue_id"]))
    ANSWERS[b"later"] = "250 2.1.5 now"
    lab.postfix.run("postsuper", "-d", str(told(lab, "deferred", DELETED)[0]["queue_id"]))
    wait_told(lab, "unknown", DELETED)
    lab.postfix.run("postsuper", "-H", "ALL")
    wait_told(lab, "sent", HELD)

    ends = Counter(kind for kind, _ in ENDS.values())
    ends.update(sent=1, expired=len(GIVEN_UP), unknown=1)
    for kind, count in ends.items():
        assert len(lab.postmeter.events(kind)) == count
        lab.postmeter.wait_figure(count, "deliveries_total", status=kind)
    lab.postmeter.wait_figure(0, "queue_recipients")
    done = lab.postmeter.run("report", "--by", "domain", "--format", "csv")
    totals = next(csv.DictReader(done.stdout.decode().splitlines()))
    dead = sum(bool(hard) for _, hard in ENDS.values())
    shown = {"accepted": len(ENDS) + len(GIVEN_UP) + 2, "delivered": ends["sent"], "waiting": 0, "deferred": 0}
    shown |= {"hard": dead, "soft": ends["bounced"] - dead, "expired": ends["expired"], "unknown": ends["unknown"]}
    shown |= {"delayed": len(GIVEN_UP) + 2}
    assert {key: totals[key] for key in shown} == {key: str(value) for key, value in shown.items()}
