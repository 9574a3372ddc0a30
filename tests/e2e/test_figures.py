"""/metrics and the journal tell what was sent through a real Postfix: no more, no less, and across restarts."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import OpenLab
from tests.lab.client import RefusedError
from tests.lab.figures import Metrics
from tests.lab.lab import ALICE, BOB, Lab, letter
from tests.lab.product import Postmeter

PER_HOUR = 5


@pytest.fixture(scope="module")
def lab(open_lab: OpenLab) -> Lab:
    """Alice signs for her domain; bob, without a key, leaves unsigned, and is soon over his limit."""
    rules = [{"login": BOB, "limits": [f"{PER_HOUR} recipients/hour"]}]
    postmeter = Postmeter({"quota": {"rules": rules}})
    postmeter.key("example.com", "r")
    postmeter.key("example.com", "e", "ed25519")
    return open_lab(Lab(postmeter=postmeter))


@pytest.fixture(scope="module")
def page(lab: Lab) -> Metrics:
    """After 4 messages of alice's to 3 recipients each, 5 of bob's, 2 refusals of his, and 1 that is not ours."""
    for nth in range(4):
        lab.send(letter(), rcpt_to=[f"{name}{nth}@example.net" for name in "abc"])
    for nth in range(PER_HOUR):
        lab.send(letter(sender=BOB), login=BOB, rcpt_to=[f"bob{nth}@example.net"])
    for _ in range(2):
        with pytest.raises(RefusedError):
            lab.send(letter(sender=BOB), login=BOB, rcpt_to=["late@example.net"])
    lab.postmeter.wait_figure(4 + PER_HOUR, "messages_total", result="accepted")
    lab.postmeter.wait_figure(2, "quota_refusals_total")
    return lab.postmeter.metrics()


def test_messages_and_recipients(page: Metrics) -> None:
    assert page.figure("messages_total", service="ORIGINATING", result="accepted") == 4 + PER_HOUR
    assert page.figure("recipients_total") == 4 * 3 + PER_HOUR


def test_refusals_by_window_and_unit(page: Metrics) -> None:
    assert page.figure("quota_refusals_total", window="hour", unit="recipients") == 2
    assert page.figure("quota_refusals_total") == 2


def test_signatures_by_algorithm_and_what_was_not_signed(page: Metrics) -> None:
    assert page.figure("dkim_signatures_total", domain="example.com", algorithm="rsa-sha256") == 4
    assert page.figure("dkim_signatures_total", domain="example.com", algorithm="ed25519-sha256") == 4
    assert page.figure("dkim_unsigned_total", reason="no_key") == PER_HOUR


def test_no_login_and_no_address_is_a_label(page: Metrics) -> None:
    assert ALICE not in page.page
    assert "example.net" not in page.page


def test_totals_survive_kill_nine_of_every_daemon(lab: Lab, page: Metrics) -> None:
    """Totals come from the journal: new processes show the old ones' figures."""
    for daemon in ("milter", "books"):
        lab.postmeter.kill(daemon)
        lab.postmeter.start(daemon)
    lab.send(letter(), rcpt_to=["after@example.net"])
    lab.postmeter.wait_figure(page.figure("messages_total", result="accepted") + 1, "messages_total", result="accepted")
