"""What is settled for mail that there is no room for: held and on record, or refused, and never both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from postmeter.config.load import loads
from postmeter.events import Submitted
from postmeter.mail.draft import Draft
from postmeter.mail.message import Client, Envelope, Message
from postmeter.store import held
from postmeter.store.accounts import Held
from postmeter.store.journal import Journal
from postmeter.store.settle import Settler
from postmeter.submission.quota import Quotas
from postmeter.submission.record import LOST, Recorder

NOW = 1_800_000_000.0
ALICE = "alice@example.com"


class Desk:
    """A store, and a recorder for `over: hold` with two recipients a day."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settler = Settler(path)
        self.settler.open()
        self.numbers = 0

    def take(
        self, recipients: int = 1, *, most: int = 2, observe: bool = False, waits: bool = True, hold: str = "",
        mail_from: bytes = b"a@example.com",
    ) -> tuple[str, str]:  # fmt: skip
        """One message; why it is held, and the reply, both empty when it goes out."""
        config = loads("quota: {over: hold, limits: [2 recipients/day]}")
        quotas = Quotas(config.quota, self.settler, look=observe, observe=observe)
        recorder = Recorder(self.settler, quotas, observe=observe, tolerant=False, hold_at_most=most)
        self.numbers += 1
        client = Client("c", "192.0.2.1", 9) if waits else Client()
        rcpt_to = tuple(f"r{number}@example.net".encode() for number in range(recipients))
        envelope = Envelope(mail_from, rcpt_to=rcpt_to, login=ALICE, client=client, service="s", waits=waits)
        draft = Draft(Message(envelope, (), b"", f"4Q{self.numbers}", NOW, bytes(8)), sender=ALICE, hold=hold)
        reply = recorder.accepted(draft)
        return draft.hold, str(reply or "")

    def held(self) -> list[Held]:
        return held.waiting(Journal(self.path, readonly=True).database)

    def figures(self) -> dict[str, int]:
        self.settler.close()
        totals = Journal(self.path, readonly=True).totals()
        return {labels[1]: value for (name, labels), value in totals.items() if name == "messages_total"}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "journal.db")
    yield made
    made.settler.close()


def test_what_has_no_room_is_held_with_what_it_will_be_charged(desk: Desk) -> None:
    assert [desk.take(), desk.take(), desk.take()] == [("", ""), ("", ""), ("quota", "")]
    [row] = desk.held()
    assert (row.queue_id, row.sender, row.reason, row.recipients) == ("4Q3", ALICE, "quota", 1)
    assert [(charge.unit, charge.amount, charge.limit) for charge in row.charges] == [("recipients", 1, 2)]
    events = [entry.event for entry in Journal(desk.path).events()]
    facts = [event.facts for event in events if isinstance(event, Submitted)]
    assert [told.get("held") for told in facts] == [None, None, "quota"]
    charge = [["sender", ALICE, "recipients", 86_400, 1]]
    assert [(told.get("charged"), told.get("owed")) for told in facts] == [(charge, None)] * 2 + [(None, charge)]
    assert desk.figures() == {"accepted": 2, "held": 1}


def test_what_a_step_wanted_held_goes_out_where_there_is_room_by_now(desk: Desk) -> None:
    assert desk.take(hold="quota") == ("", "")
    assert desk.held() == []


@pytest.mark.parametrize(("waits", "code"), [(True, "451"), (False, "550")])
def test_beyond_hold_at_most_it_is_deferred_or_rejected_where_nobody_waits(desk: Desk, waits: bool, code: str) -> None:
    for _ in range(4):
        desk.take()
    why, reply = desk.take(waits=waits)
    assert (why, reply[:3], "2 of 2 recipients" in reply) == ("", code, True)
    assert len(desk.held()) == 2
    assert desk.figures() == {"accepted": 2, "held": 2, "deferred" if waits else "rejected": 1}


def test_none_at_all_may_be_held(desk: Desk) -> None:
    desk.take(2)
    assert desk.take(most=0)[1].startswith("451")
    assert desk.take(most=0, hold="brake")[1].startswith("451 4.7.1 alice@example.com: 0 messages wait")


def test_what_can_never_fit_is_refused_for_good_and_not_held(desk: Desk) -> None:
    assert desk.take(3)[1].startswith("550 5.5.3")
    assert desk.held() == []


def test_what_the_brake_stops_is_held_though_there_is_room(desk: Desk) -> None:
    assert desk.take(hold="brake") == ("brake", "")
    assert [row.reason for row in desk.held()] == ["brake"]
    assert desk.take() == ("", "")


@pytest.mark.parametrize("hold", ["", "quota", "brake"])
def test_while_observing_nothing_is_held(desk: Desk, hold: str) -> None:
    for _ in range(4):
        assert desk.take(observe=True, hold=hold) == ("", "")
    assert desk.held() == []
    assert desk.figures() == {"observed": 4}


def test_a_bounce_is_never_held(desk: Desk) -> None:
    for _ in range(4):
        assert desk.take(mail_from=b"") == ("", "")
    assert desk.held() == []


def test_what_cannot_be_put_on_record_is_not_held_either(tmp_path: Path) -> None:
    """Nobody would ever let it go."""
    (tmp_path / "file").touch()
    desk = Desk.__new__(Desk)
    desk.path, desk.numbers = tmp_path / "file/journal.db", 0
    desk.settler = Settler(desk.path, tick=0.01)
    assert desk.take(hold="brake") == ("", str(LOST))
