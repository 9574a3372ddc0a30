"""What an order about a login does to its mail, and to nobody else's."""

from __future__ import annotations

import pytest

from postmeter.config.schema import Brake as Settings
from postmeter.mail.draft import Draft
from postmeter.mail.message import Client, Envelope, Message
from postmeter.submission.identity import sender
from postmeter.submission.standing import Brake, Freeze, too_many

ALICE = "alice@example.com"
SMTP, LOCAL = Client("c", "192.0.2.1", 9), Client()


def envelope(login: str = "Alice@example.com", *, mail_from: bytes = b"a@example.com", waits: bool = True) -> Envelope:
    return Envelope(mail_from, login=login, client=SMTP if waits else LOCAL, waits=waits)


def draft(whose: Envelope, *, free: str = "") -> Draft:
    return Draft(Message(whose, (), b"", "4Q", 0.0, bytes(8)), sender=sender(whose), free=free)


def alice(name: str) -> bool:
    return name == ALICE


@pytest.mark.parametrize("mail_from", [b"a@example.com", b""])
def test_frozen_is_frozen_however_the_login_is_spelt_and_whoever_it_says_sends(mail_from: bytes) -> None:
    found = Freeze(alice).gate(envelope(mail_from=mail_from), None)
    assert str(found) == f"550 5.7.1 {ALICE} is frozen by the administrator"
    assert Freeze(alice).gate(envelope("bob@example.org", mail_from=mail_from), None) is None


def test_mail_of_a_frozen_login_is_refused_at_its_end_too_for_good_though_nobody_waits() -> None:
    """For what MAIL did not tell, and for sendmail(1), which `local` is."""
    assert Freeze(alice).step(draft(envelope())) is not None
    reply = Freeze(lambda name: name == "local").step(draft(envelope("", waits=False)))
    assert reply is not None
    assert reply.permanent


def test_what_was_taken_before_is_not_refused_behind_the_content_filter() -> None:
    """A refusal there would send a bounce; what is queued is the administrator's to delete."""
    again = draft(envelope(), free="marked")
    assert Freeze(alice).step(again) is None
    assert Brake(alice, hold=True).step(again) is None
    assert again.hold == ""


@pytest.mark.parametrize(("waits", "code"), [(True, 451), (False, 550)])
def test_a_braked_login_is_deferred_but_never_where_nobody_waits(waits: bool, code: int) -> None:
    reply = Brake(alice, hold=False).step(draft(envelope(waits=waits)))
    assert reply is not None
    assert reply.code == code
    assert too_many(draft(envelope(waits=waits)), 7).code == code


def test_held_mail_of_a_braked_login_passes_mail_and_is_held_at_its_end() -> None:
    """The null sender's cannot be held: it is deferred at once."""
    brake, mail = Brake(alice, hold=True), draft(envelope())
    assert brake.gate(mail.message.envelope, None) is None
    assert brake.step(mail) is None
    assert mail.hold == "brake"
    empty = envelope(mail_from=b"")
    reply = brake.gate(empty, None)
    assert reply is not None
    assert reply.code == 451
    bounce = draft(empty)
    assert brake.step(bounce) is None
    assert bounce.hold == ""


def test_orders_of_a_brake_that_is_off_stop_nobody() -> None:
    from postmeter.submission import standing

    class Orders:
        def frozen(self, login: str) -> None: ...

        def braked(self, login: str) -> bool:
            return True

    names = {
        mode: [name for name, _ in standing.rules(Orders(), Settings(mode=mode))]  # type: ignore[arg-type]
        for mode in ("off", "observe", "on")
    }
    assert names == {"off": ["frozen"], "observe": ["frozen"], "on": ["frozen", "brake"]}
