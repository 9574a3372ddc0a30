"""A login frozen on a real Postfix: refused at once, however its mail comes, and what is queued told for postsuper."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.client import RefusedError
from tests.lab.lab import ALICE, BOB, Lab, letter
from tests.lab.product import Postmeter

FROZEN = "550 5.7.1 alice@example.com is frozen by the administrator"


@pytest.fixture
def lab(needs_postfix: None) -> Iterator[Lab]:
    postmeter = Postmeter()
    postmeter.key("example.com", "pm")
    with Lab(postmeter=postmeter, sendmail=True) as lab:
        yield lab


def refusal(lab: Lab, *, mail_from: str | None = None) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        lab.send(letter(), mail_from=mail_from)
    return caught.value


def test_a_frozen_login_is_refused_at_mail_once_the_command_has_returned(lab: Lab) -> None:
    """Both workers know, others send on; refusals are counted and on record; lifted, mail flows again."""
    lab.deliver(letter())
    done = lab.postmeter.run("freeze", "Alice@example.com")
    assert (done.returncode, b"every message of it is refused from now on" in done.stdout) == (0, True), done
    for _ in range(8):
        refused = refusal(lab)
        assert (refused.step, str(refused.answer)) == ("MAIL", FROZEN)
    lab.deliver(letter(sender=BOB), login=BOB)
    lab.postmeter.wait_figure(8, "messages_total", result="rejected")
    [event] = lab.postmeter.events("refused")[:1]
    assert (event["login"], event["reason"], event["reply"]) == (ALICE, "frozen", FROZEN)
    assert lab.postmeter.run("unfreeze", ALICE).returncode == 0
    lab.postmeter.wait_until(lambda: _taken(lab))


def _taken(lab: Lab) -> bool:
    try:
        lab.send(letter())
    except RefusedError:
        return False
    return True


def test_the_null_sender_is_no_way_out(lab: Lab) -> None:
    """A login is no mail server: what it sends with MAIL FROM:<> are no bounces."""
    lab.postmeter.run("freeze", ALICE)
    refused = refusal(lab, mail_from="")
    assert (refused.step, str(refused.answer)) == ("MAIL", FROZEN)


def test_mail_of_sendmail_comes_back_at_once(lab: Lab) -> None:
    """`local` can be frozen as well; 550 and not 451, which pickup(8) would try again for ever (D42)."""
    lab.postmeter.run("freeze", "local")
    done = lab.postfix.sendmail(letter(), "-f", ALICE, "reader@example.net")
    assert done.returncode == 0, done
    lab.postfix.wait_for(r"milter-reject: END-OF-MESSAGE from localhost\[.*local is frozen by the administrator")
    returned = lab.sink.wait_for(ALICE.encode())
    assert b"local is frozen by the administrator" in returned.data
    assert not list((lab.postfix.queue / "maildrop").iterdir())


def test_what_is_queued_of_a_login_is_listed_for_postsuper(lab: Lab) -> None:
    """Its own mail alone, one id a line and nothing else on stdout; deleted by the pipe of the manual."""
    lab.sink.answer = lambda recipient: "450 4.2.0 later"
    for login in (ALICE, BOB, ALICE):
        lab.send(letter(sender=login), login=login)
    lab.postfix.wait_for(r"(?s)(status=deferred.*){3}")
    theirs = {event["queue_id"] for event in lab.postmeter.events() if event["login"] == ALICE}
    done = lab.as_root("freeze", ALICE, "--queue")
    assert done.returncode == 0, done
    assert set(done.stdout.decode().splitlines()) == theirs
    assert len(theirs) == 2
    assert b"is refused from now on" in done.stderr
    assert lab.postfix.run("postsuper", "-d", "-", stdin=done.stdout).returncode == 0
    [left] = lab.postfix.queued()
    assert left not in theirs


def test_while_observing_nobody_is_told_that_a_login_was_stopped(needs_postfix: None) -> None:
    with Lab({"mode": "observe"}) as lab:
        done = lab.postmeter.run("freeze", ALICE)
        assert (done.returncode, b"nothing is refused" in done.stdout) == (1, True)
        lab.deliver(letter())
