"""What Postfix does around its milters, and what that means for mail that we sign and meter (facts D6 to D42)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import OpenLab
from tests.lab.client import Client, RefusedError
from tests.lab.folder import give, new_folder
from tests.lab.lab import ALICE, Lab, attach, letter
from tests.lab.postfix import LOGINS, Postfix, Service, submission
from tests.lab.product import Postmeter
from tests.lab.sink import Sink

LOCAL_LIMIT = 3


@pytest.fixture(scope="module")
def lab(open_lab: OpenLab) -> Lab:
    """Signs for example.com, over an inet socket; gets sendmail's mail and Postfix's own bounces too."""
    limits = {"rules": [{"service": "local", "limits": [f"{LOCAL_LIMIT} messages/day"]}]}
    postmeter = Postmeter({"quota": limits}, inet=True)
    postmeter.key("example.com", "pm")
    checked = Service(
        name="checked",
        settings={
            "smtpd_milters": attach(postmeter.milter),
            "milter_macro_daemon_name": "ORIGINATING",
            "cleanup_service_name": "checking-cleanup",
        },
    )
    drop = "regexp:{{/^DKIM-Signature:/ IGNORE}}"
    cleanup = f"checking-cleanup unix n - n - 0 cleanup\n  -o {{ milter_header_checks = {drop} }}"
    settings = {"internal_mail_filter_classes": "bounce", "enable_long_queue_ids": "yes"}
    made = Lab(postmeter=postmeter, services=[checked], master=[cleanup], postfix=settings, sendmail=True)
    return open_lab(made)


def test_the_signature_stands_on_top(lab: Lab) -> None:
    """Above Postfix's own Received field, which is no part of what was signed (D12)."""
    names = [line.partition(b":")[0].lower() for line in lab.deliver(letter()).header.split(b"\r\n") if line[:1] > b" "]
    assert names[:2] == [b"dkim-signature", b"received"]


def test_the_journal_knows_queue_id_and_login_of_every_message(lab: Lab) -> None:
    """Several messages of one session: the login, named at MAIL, is kept (D1, D35); the queue id, empty until a
    recipient was accepted, is each message's own (D2)."""
    two = ["one@example.net", "two@example.net"]
    with lab.client() as client:
        told = [client.send(letter(), mail_from=ALICE, rcpt_to=two) for _ in range(3)]
    queue_ids = [answer.text.rpartition(" ")[2] for answer in told]
    events = lab.postmeter.events()[-3:]
    assert [event["queue_id"] for event in events] == queue_ids
    assert {event["login"] for event in events} == {ALICE}
    assert all(event["recipients"] == two for event in events)


def test_header_checks_may_drop_the_signature(lab: Lab) -> None:
    """`milter_header_checks` sees what milters add: a rule there decides, and mail goes on (D16)."""
    arrived = lab.deliver(letter(), service="checked")
    assert arrived.values(b"dkim-signature") == []
    assert b"Good morning." in arrived.body


def test_a_killed_worker_costs_its_sessions_only(lab: Lab) -> None:
    """The client in the middle gets 4xx (default_action=tempfail, D6); the next connection finds a new worker."""
    with lab.client() as client:
        client.envelope(ALICE, ["one@example.net"])
        for pid in lab.postmeter.workers():
            os.kill(pid, signal.SIGKILL)
        answer = client.data(letter())
        assert answer.code // 100 == 4, answer
    assert lab.deliver(letter()).values(b"dkim-signature")


def test_a_bounce_made_here_passes(lab: Lab) -> None:
    """Postfix's own notices reach non_smtpd_milters with the null sender; they are signed for our domain or left alone,
    and never refused (D20)."""
    lab.sink.answer = lambda recipient: "550 5.1.1 nobody" if b"unknown" in recipient else "250 2.1.5 ok"
    lab.send(letter(), rcpt_to=["unknown@example.net"])
    bounce = lab.sink.wait_for(lambda delivery: delivery.rcpt_to == (ALICE.encode(),))
    assert bounce.mail_from == b""
    assert b"multipart/report" in bounce.header


def test_sendmail_over_quota_comes_back_at_once(lab: Lab) -> None:
    """Not deferred, or pickup would bring it again every minute (D42): it is returned to its sender."""
    for nth in range(LOCAL_LIMIT + 1):
        message = letter(subject=f"local {nth}").replace(b"\r\n", b"\n")
        assert lab.postfix.sendmail(message, "-f", ALICE, f"local{nth}@example.net").returncode == 0
        lab.postfix.wait_for(rf"(to=<local{nth}@example\.net>.*status=|milter-reject.*local{nth}@example\.net)")
    notice = lab.sink.wait_for(f"{LOCAL_LIMIT} messages in the last day".encode())
    assert notice.mail_from == b""
    assert notice.rcpt_to == (ALICE.encode(),)
    assert list((lab.postfix.queue / "maildrop").iterdir()) == []


@pytest.fixture
def chrooted() -> Iterator[tuple[Postfix, Postmeter, Sink]]:
    """Two submission services with the same relative path, one of them chrooted to the queue directory as on Debian."""
    folder = new_folder("chroot")
    give(folder / "queue", "root")
    socket = give(folder / "queue/postmeter", "nobody", group="postfix", mode=0o750) / "milter.sock"
    milter = attach("unix:postmeter/milter.sock")
    jail = Service(name="chrooted", settings=submission(milter).settings, chroot=True)
    postmeter = Postmeter({"milter": {"listen": f"unix:{socket}"}})
    postmeter.key("example.com", "pm")
    with Sink() as sink, postmeter, Postfix(submission(milter), jail, sink=sink.transport, folder=folder) as postfix:
        yield postfix, postmeter, sink


@pytest.mark.usefixtures("needs_postfix")
def test_the_relative_path_works_chrooted_and_not(chrooted: tuple[Postfix, Postmeter, Sink]) -> None:
    """`unix:postmeter/milter.sock` is found from within the queue directory, where Postfix's daemons work (D21)."""
    postfix, _, sink = chrooted
    for service in ("submission", "chrooted"):
        with Client(postfix.ports[service], login=(ALICE, LOGINS[ALICE])) as client:
            client.send(letter(), mail_from=ALICE, rcpt_to=[f"{service}@example.net"])
        assert sink.wait_for(f"{service}@example.net".encode()).values(b"dkim-signature")


def test_without_the_milter_nothing_leaves_unmetered(lab: Lab) -> None:
    """default_action=tempfail: while postmeter is away, clients are told to come again; nothing passes unsigned."""
    lab.postmeter.stop("milter")
    with pytest.raises(RefusedError) as caught:
        lab.send(letter())
    assert caught.value.answer.code // 100 == 4
    lab.postmeter.start("milter")
    assert lab.deliver(letter()).values(b"dkim-signature")
