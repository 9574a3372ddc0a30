"""What clients do to a real Postfix, with postmeter signing behind it: every message that arrives verifies."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.e2e.conftest import OpenLab
from tests.lab import keys
from tests.lab.client import Client, RefusedError
from tests.lab.lab import ALICE, Lab, letter
from tests.lab.postfix import LOGINS
from tests.lab.product import Postmeter
from tests.lab.sink import Delivery
from tests.lab.verify import verify_all

pytestmark = pytest.mark.usefixtures("needs_verifiers")


class Signing(Lab):
    """A lab that signs for example.com, RSA and Ed25519."""

    def __init__(self) -> None:
        postmeter = Postmeter({"senders": {"daemon_names": []}})
        self.keys = [postmeter.key("example.com", "r"), postmeter.key("example.com", "e", "ed25519")]
        limits = {"message_size_limit": "62914560", "mailbox_size_limit": "0", "smtpd_recipient_limit": "2000"}
        super().__init__(postmeter=postmeter, sendmail=True, postfix=limits)

    def verified(self, delivery: Delivery) -> None:
        """Both signatures are there, and every verifier accepts those that it knows."""
        assert len(delivery.values(b"dkim-signature")) == 2
        for verdict in verify_all([delivery.data], keys.records(*self.keys)):
            assert verdict.accepted, verdict


@pytest.fixture(scope="module")
def lab(open_lab: OpenLab) -> Signing:
    made = open_lab(Signing())
    assert isinstance(made, Signing)
    return made


def test_signed_by_both_keys_and_accepted_by_all_verifiers(lab: Signing) -> None:
    lab.verified(lab.deliver(letter()))


def test_rset_starttls_and_a_second_ehlo(lab: Signing) -> None:
    """State is reset at MAIL; EHLO may come again at any time (D4)."""
    with lab.client(ALICE, tls=True) as client:
        client.envelope("mallory@example.com", ["nobody1@example.net"])
        client.command(b"RSET")
        client.command(b"EHLO again.example.com")
        client.send(letter(), mail_from=ALICE, rcpt_to=["ehlo@example.net"])
    delivery = lab.sink.wait_for(b"ehlo@example.net")
    assert delivery.mail_from == ALICE.encode()
    lab.verified(delivery)


def test_commands_in_one_packet(lab: Signing) -> None:
    """PIPELINING: MAIL, RCPT and DATA at once (RFC 2920)."""
    with lab.client(ALICE) as client:
        answers = client.pipeline(b"MAIL FROM:<%b>" % ALICE.encode(), b"RCPT TO:<pipe@example.net>", b"DATA")
        assert [answer.code for answer in answers] == [250, 250, 354]
        client.write(letter() + b".\r\n")
        assert client.answer().code == 250
    lab.verified(lab.sink.wait_for(b"pipe@example.net"))


def test_chunking(lab: Signing) -> None:
    """BDAT raises DATA too (D21); chunk ends fall anywhere."""
    message = letter("one\r\ntwo\r\n")
    with lab.client(ALICE) as client:
        client.envelope(ALICE, ["bdat@example.net"])
        assert client.bdat(message[:100], message[100:101], message[101:])[-1].code == 250
    lab.verified(lab.sink.wait_for(b"bdat@example.net"))


def test_no_accepted_recipient(lab: Signing) -> None:
    """The session lives on when Postfix refuses every recipient (D5)."""
    with lab.client(ALICE) as client:
        assert client.command(b"MAIL FROM:<%b>" % ALICE.encode()).code == 250
        assert client.command(b"RCPT TO:<not an address>").code >= 500
        assert client.command(b"DATA").code >= 500
        client.command(b"RSET")
        client.send(letter(), mail_from=ALICE, rcpt_to=["after-none@example.net"])
    lab.verified(lab.sink.wait_for(b"after-none@example.net"))


def test_a_thousand_recipients(lab: Signing) -> None:
    """Each is counted: recipients_total grows by a thousand."""
    before = lab.postmeter.metrics().figure("recipients_total")
    with lab.client(ALICE) as client:
        rcpt = [b"RCPT TO:<thousand%d@example.net>" % number for number in range(1000)]
        answers = client.pipeline(b"MAIL FROM:<%b>" % ALICE.encode(), *rcpt)
        assert {answer.code for answer in answers} == {250}
        assert client.data(letter()).code == 250
    lab.verified(lab.sink.wait_for(b"thousand0@example.net"))
    lab.postmeter.wait_figure(before + 1000, "recipients_total")


def test_a_helo_that_is_no_utf_8(lab: Signing) -> None:
    """D28: it would raise inside pymilter, so it is never asked for."""
    with Client(lab.postfix.ports["submission"], login=(ALICE, LOGINS[ALICE]), helo=b"h\xe9llo.\xff") as client:
        client.send(letter(), mail_from=ALICE, rcpt_to=["helo@example.net"])
    lab.verified(lab.sink.wait_for(b"helo@example.net"))


def test_eight_bit_fields(lab: Signing) -> None:
    """Octets that are no UTF-8, in a subject and a display name (D28)."""
    message = letter().replace(b"a letter", b"Gr\xfc\xdfe \xff\xfe").replace(b"From: ", b"From: J\xf6rg ")
    message = message.replace(b"alice@example.com\r\n", b"<alice@example.com>\r\n", 1)
    with lab.client(ALICE) as client:
        client.send(message, mail_from=ALICE, rcpt_to=["eight@example.net"])
    delivery = lab.sink.wait_for(b"eight@example.net")
    assert b"Gr\xfc\xdfe \xff\xfe" in delivery.data
    lab.verified(delivery)


def test_eight_bit_addresses(lab: Signing) -> None:
    """SMTPUTF8 addresses, and the journal takes them."""
    with lab.client(ALICE) as client:
        client.envelope("jörg@example.com", ["grüße@example.net"], args=b"SMTPUTF8")
        assert client.data(letter()).code == 250
    lab.verified(lab.sink.wait_for("grüße@example.net".encode()))


def test_folded_empty_and_spaced_fields(lab: Signing) -> None:
    """Leading space stays as it came (D14), folds too."""
    odd = ["Keywords: one\r\n two\r\n\tthree", "Comments:", "X-Wide:     four   ", "X-Tab:\tfive", "X-None:six"]
    lab.verified(lab.deliver(letter(fields=odd)))


@pytest.mark.parametrize("length", [998, 20_000, 59_000])
def test_long_header_lines(lab: Signing, length: int) -> None:
    """Up to Postfix's 60,000 octets a field arrives whole and is signed as it arrives (D15)."""
    words = " ".join(["word" + "x" * 60] * (length // 65))
    delivery = lab.deliver(letter(subject=words.replace(" word", "\r\n word")))
    lab.verified(delivery)


def test_a_header_line_that_postfix_cuts_is_signed_as_it_arrives(lab: Signing) -> None:
    """Beyond 60,000 octets a milter sees the beginning only (D15): what arrives at the sink decides."""
    words = "\r\n ".join(["word" + "x" * 60] * 1100)
    assert len(words) > 70_000
    message = letter(fields=[f"X-Long: {words}"])
    lab.verified(lab.deliver(message))


@pytest.mark.parametrize(
    "body",
    [b"", b"no final line end", b"bare\nline\nfeeds\n", b"\r\n\r\n\r\n", b"blanks \t \r\n\r\n", b".\r\n..\r\n"],
)
def test_odd_bodies(lab: Signing, body: bytes) -> None:
    """Empty, unfinished, bare LF (D36), trailing blanks, dots."""
    lab.verified(lab.deliver(letter("") + body))


def test_fifty_megabytes(lab: Signing) -> None:
    body = (b"x" * 76 + b"\r\n") * (50_000_000 // 78)
    delivery = lab.deliver(letter("") + body)
    assert delivery.body == body
    lab.verified(delivery)


def test_sendmail_is_signed_for_a_domain_of_ours(lab: Signing) -> None:
    message = letter().replace(b"\r\n", b"\n")
    done = lab.postfix.sendmail(message, "-f", ALICE, "sendmail@example.net")
    assert done.returncode == 0, done.stderr
    lab.verified(lab.sink.wait_for(b"sendmail@example.net"))


def test_sendmail_for_a_foreign_domain_is_left_alone(lab: Signing) -> None:
    message = letter(sender="someone@elsewhere.example").replace(b"\r\n", b"\n")
    lab.postfix.sendmail(message, "-f", "someone@elsewhere.example", "foreign@example.net")
    assert lab.sink.wait_for(b"foreign@example.net").values(b"dkim-signature") == []


def test_the_null_sender_is_signed_and_never_refused(lab: Signing) -> None:
    lab.verified(lab.deliver(letter(), mail_from=""))


@pytest.mark.parametrize("stage", ["mail", "rcpt", "header", "body"])
def test_a_client_that_vanishes_leaves_nothing(lab: Signing, stage: str) -> None:
    client = lab.client(ALICE)
    client.command(b"MAIL FROM:<%b>" % ALICE.encode())
    if stage != "mail":
        client.command(b"RCPT TO:<vanished@example.net>")
    if stage in ("header", "body"):
        client.command(b"DATA")
        client.write(letter()[:120])
    if stage == "body":
        client.write(letter() + b"half a line")
    client.vanish()
    lab.verified(lab.deliver(letter()))
    assert not any(b"vanished@example.net" in delivery.rcpt_to for delivery in lab.sink.deliveries)


def test_a_worker_killed_in_the_middle_of_a_message(lab: Signing) -> None:
    """The client is told 4xx, sends again over a new connection, and is served by the workers' successors."""
    with lab.client(ALICE) as client:
        client.envelope(ALICE, ["killed@example.net"])
        client.command(b"DATA")
        client.write(letter()[:150])
        for worker in lab.postmeter.workers():
            os.kill(worker, signal.SIGKILL)
        client.write(letter()[150:] + b".\r\n")
        assert client.answer().code in (421, 451)
    _send_until_taken(lab, "again@example.net")
    lab.verified(lab.sink.wait_for(b"again@example.net"))
    assert not any(b"killed@example.net" in delivery.rcpt_to for delivery in lab.sink.deliveries)


def _send_until_taken(lab: Lab, recipient: str) -> None:
    until = time.monotonic() + 20
    while True:
        try:
            lab.send(letter(), rcpt_to=[recipient])
        except (RefusedError, ConnectionError):
            assert time.monotonic() < until, "never taken again"
            time.sleep(0.1)  # between two tries of a bounded wait
        else:
            return
