"""Through a real Postfix, postmeter leaves mail alone when it was not told to do anything, or only to watch."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import OpenLab
from tests.lab.client import RefusedError
from tests.lab.lab import ALICE, Lab, letter
from tests.lab.postfix import LOGINS
from tests.lab.product import Postmeter

LINK = '<p>See <a href="https://shop.example/?a=1&amp;b=2">our offers</a>.</p>\r\n'


@pytest.fixture(scope="module")
def empty(open_lab: OpenLab) -> Lab:
    """The empty configuration."""
    return open_lab(Lab(sendmail=True))


@pytest.fixture(scope="module")
def observing(open_lab: OpenLab) -> Lab:
    """A key, tracking and a limit that is already used up, all only observed."""
    postmeter = Postmeter(
        {
            "mode": "observe",
            "quota": {"limits": ["1 message/day"]},
            "tracking": {"url": "https://click.example.com", "mail": "all"},
        }
    )
    postmeter.key("example.com", "pm")
    postmeter.secrets()
    return open_lab(Lab(postmeter=postmeter))


@pytest.mark.parametrize(
    "message",
    [
        letter(),
        letter(LINK, html=True),
        letter("Grüße, alles gut\r\n", subject="Grüße"),
        letter("dots:\r\n.\r\n..\r\n"),
        letter("long " * 900 + "\r\n"),
        letter("", fields=["X-Folded: one\r\n two\r\n\tthree", "X-Empty:", "X-Spaced:    four"]),
    ],
    ids=["plain", "html", "utf-8", "dots", "long-line", "odd-fields"],
)
@pytest.mark.parametrize("which", ["empty", "observing"])
def test_arrives_as_through_postfix_alone(which: str, message: bytes, request: pytest.FixtureRequest) -> None:
    """Header and body equal, byte for byte, what the same message is after Postfix without a milter."""
    lab: Lab = request.getfixturevalue(which)
    assert lab.deliver(message).as_sent == lab.deliver_bare(message).as_sent


def test_observe_counts_what_it_would_have_done(observing: Lab) -> None:
    """Over the limit and yet accepted; the figures tell that there was mail."""
    before = observing.postmeter.metrics().figure("messages_total", service="ORIGINATING")
    observing.deliver(letter())
    observing.postmeter.wait_figure(before + 1, "messages_total", service="ORIGINATING")


def test_sendmail_is_taken_and_untouched(empty: Lab) -> None:
    """A local program's mail goes through the milter too (D20) and arrives."""
    done = empty.postfix.sendmail(letter().replace(b"\r\n", b"\n"), "-f", ALICE, "local-program@example.net")
    assert done.returncode == 0, done.stderr
    delivery = empty.sink.wait_for(b"local-program@example.net")
    assert delivery.mail_from == ALICE.encode()
    assert delivery.values(b"dkim-signature") == []


def test_several_messages_one_session_tls(empty: Lab) -> None:
    """One connection, STARTTLS, a reset in between, three messages."""
    with empty.client(ALICE, tls=True) as client:
        for nth in range(3):
            client.envelope(ALICE, [f"reset{nth}@example.net"])
            client.command(b"RSET")
            client.send(letter(), mail_from=ALICE, rcpt_to=[f"session{nth}@example.net"])
    for nth in range(3):
        assert empty.sink.wait_for(f"session{nth}@example.net".encode()).rcpt_to


def test_the_login_that_the_lab_uses_is_one(empty: Lab) -> None:
    """A wrong password is refused, so that every other test's login means something."""
    with empty.client("") as client, pytest.raises(RefusedError, match="535"):
        client.login(ALICE, LOGINS[ALICE] + "x")
