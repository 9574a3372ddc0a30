"""Whose mail is ours, on a real Postfix: forged mail that only passes through this host never gets our signature."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import OpenLab
from tests.lab.client import Client
from tests.lab.folder import new_folder
from tests.lab.lab import ALICE, BOB, Lab, attach, letter
from tests.lab.postfix import Service
from tests.lab.product import Postmeter
from tests.lab.sink import Delivery, Sink
from tests.lab.waiting import wait_for

FORGED = letter(sender=ALICE, subject="forged")


class Filter(Sink):
    """A content filter that gives back what it gets to another smtpd, as amavis does."""

    port_back = 0

    def keep(self, delivery: Delivery) -> None:
        with Client(self.port_back) as client:
            client.send(delivery.data, mail_from=delivery.mail_from, rcpt_to=delivery.rcpt_to)
        super().keep(delivery)


@pytest.fixture(scope="module")
def amavis() -> Iterator[Filter]:
    it = Filter()
    with it:
        yield it


@pytest.fixture(scope="module")
def exchange() -> Iterator[Path]:
    """Where the pipe filter leaves what it was given; a folder that any user may reach."""
    folder = new_folder("filter")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def lab(open_lab: OpenLab, amavis: Filter, exchange: Path) -> Lab:
    """Port 25 with two kinds of content filter; every way back in has the milter."""
    postmeter = Postmeter({"senders": {"certificates": True}})
    postmeter.key("example.com", "pm")
    milter = attach(postmeter.milter)
    inbound = {"smtpd_sasl_auth_enable": "no", "smtpd_milters": milter, "milter_macro_daemon_name": "mx"}
    bare = {**inbound, "smtpd_milters": ""}
    services = [
        Service(name="mx", settings=inbound),
        Service(name="mx-smtp", settings={**bare, "content_filter": f"smtp:[127.0.0.1]:{amavis.port}"}),
        Service(name="mx-pipe", settings={**bare, "content_filter": "pipe-filter:x"}),
        Service(name="back", settings={**inbound, "milter_macro_daemon_name": "back"}),
        Service(
            name="certificate",
            settings={
                "smtpd_sasl_auth_enable": "no",
                "smtpd_milters": milter,
                "milter_macro_daemon_name": "certificate",
                "smtpd_tls_security_level": "encrypt",
                "smtpd_tls_ask_ccert": "yes",
            },
        ),
    ]
    made = Lab(postmeter=postmeter, services=services, sendmail=True, master=[_pipe_filter(exchange)])
    amavis.port_back = made.postfix.ports["back"]
    return open_lab(made)


def _pipe_filter(folder: Path) -> str:
    """The first half of a filter of FILTER_README's kind: pipe(8) may not run postdrop's group, so it leaves a file."""
    script = folder / "filter.sh"
    script.write_text(f"#!/bin/sh\ncat > {folder}/draft && mv {folder}/draft {folder}/filtered\n")
    script.chmod(0o755)
    folder.chmod(0o777)
    return f"pipe-filter unix - n n - - pipe\n  flags=Rq user=nobody argv={script}"


def arrives(lab: Lab, message: bytes, recipient: str, **how: str) -> Delivery:
    lab.send(message, rcpt_to=[recipient], **how)  # type: ignore[arg-type]
    return lab.sink.wait_for(recipient.encode())


def test_forged_mail_through_an_smtp_content_filter_is_not_signed(lab: Lab, amavis: Filter) -> None:
    """It comes back from 127.0.0.1 with a From of ours: the classic fault of signers. It is counted as passed."""
    delivery = arrives(lab, FORGED, "smtp-filter@example.net", login="", service="mx-smtp", mail_from="x@evil.example")
    assert amavis.deliveries
    assert delivery.values(b"dkim-signature") == []
    lab.postmeter.wait_figure(1, "messages_total", result="passed", service="back")


def test_forged_mail_through_a_pipe_content_filter_is_not_signed(lab: Lab, exchange: Path) -> None:
    """pipe(8) hands it out, sendmail(1) takes it back, and non_smtpd_milters shows it to us."""
    lab.send(FORGED, login="", service="mx-pipe", mail_from="x@evil.example", rcpt_to=["pipe-filter@example.net"])
    filtered = exchange / "filtered"
    wait_for(filtered.exists)
    lab.postfix.sendmail(filtered.read_bytes(), "-G", "-i", "-f", "x@evil.example", "pipe-filter@example.net")
    delivery = lab.sink.wait_for(b"pipe-filter@example.net")
    assert len(delivery.values(b"received")) == 2  # the client's hop and sendmail's
    assert delivery.values(b"dkim-signature") == []


def test_mail_written_here_is_signed_though_no_login_is_there(lab: Lab) -> None:
    """From 127.0.0.1 without a Received field: a local program's."""
    delivery = arrives(lab, letter(), "local@example.net", login="", service="mx", mail_from=ALICE)
    assert len(delivery.values(b"dkim-signature")) == 1


def test_mail_of_other_domains_from_loopback_is_left_alone(lab: Lab) -> None:
    message = letter(sender="x@elsewhere.example")
    delivery = arrives(lab, message, "elsewhere@example.net", login="", service="mx", mail_from="x@elsewhere.example")
    assert delivery.as_sent == lab.deliver_bare(message).as_sent


def test_a_login_of_another_domain_gets_no_signature_of_ours(lab: Lab) -> None:
    """bob@example.org puts on alice's domain: unsigned and counted."""
    before = lab.postmeter.metrics().figure("dkim_unsigned_total", reason="from_mismatch")
    delivery = arrives(lab, FORGED, "mismatch@example.net", login=BOB, mail_from=BOB)
    assert delivery.values(b"dkim-signature") == []
    lab.postmeter.wait_figure(before + 1, "dkim_unsigned_total", reason="from_mismatch")


def test_several_from_fields_leave_unsigned(lab: Lab) -> None:
    message = letter(fields=[f"From: {ALICE}"])
    assert arrives(lab, message, "two-from@example.net").values(b"dkim-signature") == []
    lab.postmeter.wait_figure(1, "dkim_unsigned_total", reason="several_from")


def test_a_client_certificate_makes_mail_ours(lab: Lab) -> None:
    """The sender is its common name; Postfix tells it at MAIL because we ask for it there (D26)."""
    context = lab.postfix.certificates.context(client=True)
    with Client(lab.postfix.ports["certificate"], tls=context) as client:
        client.send(letter(), mail_from=ALICE, rcpt_to=["certificate@example.net"])
    assert len(lab.sink.wait_for(b"certificate@example.net").values(b"dkim-signature")) == 1


@pytest.mark.parametrize("by", ["submission", "sendmail"])
def test_requeued_mail_is_shown_to_no_milter(lab: Lab, by: str) -> None:
    """`postsuper -r` brings it in again by pickup(8), which then asks no milter (postsuper(1)): charged and signed
    once, held before or not."""
    lab.sink.answer = lambda recipient: "450 4.2.0 later"
    service = "local" if by == "sendmail" else "ORIGINATING"
    accepted = lab.postmeter.metrics().figure("messages_total", result="accepted")
    passed = lab.postmeter.metrics().figure("messages_total", service="local", result="passed")
    recipient = f"requeued-{by}@example.net"
    if by == "sendmail":
        lab.postfix.sendmail(letter().replace(b"\r\n", b"\n"), "-f", ALICE, recipient)
    else:
        lab.send(letter(), rcpt_to=[recipient])
    lab.postfix.wait_for(rf"to=<{recipient}>.*status=deferred")
    lab.sink.answer = lambda recipient: "250 2.1.5 ok"
    for command in ("-h", "-r"):
        assert lab.postfix.run("postsuper", command, "ALL").returncode == 0
    lab.postfix.run("postqueue", "-f")  # wakes pickup(8)
    arrived = lab.sink.wait_for(recipient.encode())
    assert len(arrived.values(b"received")) == 2
    assert len(arrived.values(b"dkim-signature")) == 1
    lab.deliver(letter())  # and what was added for the requeued message would have been written by now
    lab.postmeter.wait_figure(accepted + 2, "messages_total", result="accepted")
    assert lab.postmeter.metrics().figure("messages_total", service="local", result="passed") == passed
    assert lab.postmeter.events()[-2]["service"] == service
