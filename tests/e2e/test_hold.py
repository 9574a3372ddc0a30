"""Mail over a limit in Postfix's own hold queue: filled by the milter, let go by the command that a timer runs."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.lab.client import RefusedError
from tests.lab.lab import ALICE, BOB, Lab, letter
from tests.lab.product import Postmeter

QUICK = {"queue_run_delay": "1s", "minimal_backoff_time": "1s", "maximal_backoff_time": "2s"}
"""postsuper -H puts mail into the deferred queue, which Debian's Postfix looks through every five minutes."""


def held_lab(quota: Mapping[str, Any]) -> Lab:
    postmeter = Postmeter({"quota": {"over": "hold", **quota}, "senders": {"from": {"*": "any"}}})
    postmeter.key("example.com", "pm")
    return Lab(postmeter=postmeter, sendmail=True, postfix=QUICK)


@pytest.fixture
def lab(needs_postfix: None) -> Iterator[Lab]:
    """One message a day for everybody, three more on hold at most."""
    with held_lab({"limits": ["1 message/day"], "hold_at_most": 3}) as lab:
        yield lab


def send(lab: Lab, name: str, *, login: str = ALICE) -> str:
    """A message to a reader of that name; its queue id."""
    said = lab.send(letter(sender=login), login=login, rcpt_to=[f"{name}@example.net"])
    found = re.search(r"queued as (\w+)", said.text)
    assert found, said
    return found[1]


def on_hold(lab: Lab) -> list[str]:
    lines = lab.postfix.run("postqueue", "-j").stdout.decode().splitlines()
    return [re.findall(r'"queue_id": "(\w+)"', line)[0] for line in lines if '"queue_name": "hold"' in line]


def due(lab: Lab, *, path: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """What the timer runs; with programs of `path` instead of Postfix's, if given."""
    env = lab.postfix.environment()
    if path is not None:
        env["PATH"] = f"{path}:{env['PATH']}"
    arguments = ("quota", "release", "--due", "--postfix", str(lab.postfix.config))
    return lab.postmeter.run(*arguments, user="root", env=env)


def explain(lab: Lab) -> subprocess.CompletedProcess[bytes]:
    """What would become of one more message of Alice's."""
    return lab.postmeter.run("explain", "-", "--login", ALICE, "--rcpt", "a@example.net", "--json", stdin=letter())


def used(lab: Lab, login: str = ALICE) -> str:
    """What the login has used of its day, as people see it."""
    return lab.postmeter.run("quota", "show", login).stdout.decode().split("\n")[0]


def room(lab: Lab, login: str = ALICE) -> None:
    """As if a day had passed."""
    assert lab.postmeter.run("quota", "reset", login).returncode == 0


def order(lab: Lab, kind: str, login: str) -> None:
    """As the brake gives one; workers know of it a second later."""
    with closing(sqlite3.connect(lab.postmeter.state / "journal.db")) as link, link:
        link.execute("INSERT INTO orders VALUES (?, ?, '', ?, NULL)", (kind, login, time.time()))


def test_the_hold_queue_is_filled_and_let_go_without_a_person(needs_postfix: None) -> None:
    """Three a second: of eight sent at once five wait, and all have arrived some runs of the timer later, in order."""
    with held_lab({"limits": ["3 messages/second"]}) as lab:
        with lab.client() as client:
            for number in range(8):
                client.send(letter(), mail_from=ALICE, rcpt_to=[f"reader{number}@example.net"])
        ids = [event["queue_id"] for event in lab.postmeter.events()]
        assert sorted(on_hold(lab)) == sorted(ids[3:])
        lab.postmeter.wait_figure(5, "messages_total", result="held")
        lab.postmeter.wait_figure(5, "held_messages")
        lab.postmeter.wait_until(lambda: due(lab).returncode == 0 and not on_hold(lab))
        for number in range(8):
            lab.sink.wait_for(f"reader{number}@example.net".encode())
        released = lab.postmeter.events("released")
        assert [event["queue_id"] for event in released] == ids[3:]
        assert {(event["action"], event["by"]) for event in released} == {("released", "due")}
        lab.postmeter.wait_figure(0, "held_messages")
        assert (due(lab).stdout, due(lab).stderr) == (b"", b"")


def test_held_mail_leaves_as_any_other_and_is_charged_then(lab: Lab) -> None:
    """Signed when it came, charged when it goes: in between its sender is at 1 of 1, and stays there."""
    send(lab, "first")
    send(lab, "second")
    assert "1 of 1 " in used(lab)
    [event] = [event for event in lab.postmeter.events() if event["facts"].get("held")]
    assert event["facts"]["held"] == "quota"
    why = "alice@example.com: 1 of 1 message in the last day"
    lab.postmeter.wait_for(rf"{event['queue_id']}: to the hold queue: {why}")
    assert b"released" not in due(lab).stdout
    assert len(on_hold(lab)) == 1
    room(lab)
    assert due(lab).stdout == b"1 held message: 1 released\n"
    assert "1 of 1 " in used(lab)
    arrived = lab.sink.wait_for(b"second@example.net")
    assert len(arrived.values(b"dkim-signature")) == 1


def test_more_than_hold_at_most_is_deferred(lab: Lab) -> None:
    """And what sendmail(1) brings is held too, or comes back at once: pickup(8) must not bring it for ever (D42)."""
    for name in ("first", "second", "third", "fourth"):
        send(lab, name)
    told = json.loads(explain(lab).stdout)
    with pytest.raises(RefusedError) as caught:
        send(lab, "fifth")
    assert (caught.value.step, caught.value.answer.code) == ("end of DATA", 451)
    assert "1 of 1 message in the last day; room for 1 at" in caught.value.answer.text
    assert (told["verdict"], told["reply"][:9]) == ("refuse", "451 4.7.1")
    assert "1 of 1 message in the last day; room for 1 at" in told["reply"]
    assert {"step": "hold", "text": f"{ALICE} has 3 messages on hold already (quota.hold_at_most)"} in told["notes"]
    assert len(on_hold(lab)) == 3
    for number in range(5):
        done = lab.postfix.sendmail(letter(), "-f", ALICE, f"local{number}@example.net")
        assert done.returncode == 0, done
        lab.postmeter.wait_until(lambda: not list((lab.postfix.queue / "maildrop").iterdir()))
    lab.postfix.wait_for(r"milter-reject: END-OF-MESSAGE from localhost\[.*1 of 1 message")
    lab.postmeter.wait_until(lambda: len(on_hold(lab)) == 6)
    lab.sink.wait_for(b"local0@example.net")


def test_the_oldest_goes_first_and_who_has_room_waits_for_nobody(lab: Lab) -> None:
    for login, name in ((ALICE, "a1"), (ALICE, "a2"), (ALICE, "a3"), (BOB, "b1"), (BOB, "b2")):
        send(lab, name, login=login)
    assert len(on_hold(lab)) == 3
    room(lab, BOB)
    assert due(lab).stdout == b"3 held messages: 1 released, 2 waiting for room\n"
    lab.sink.wait_for(b"b2@example.net")
    room(lab)
    due(lab)
    lab.sink.wait_for(b"a2@example.net")
    assert len(on_hold(lab)) == 1


def test_what_somebody_else_deleted_is_struck_off_and_not_charged(lab: Lab) -> None:
    """What was let go by hand likewise; a message that Postfix does not show yet may still be on its way."""
    send(lab, "first")
    deleted, let_go = send(lab, "second"), send(lab, "third")
    assert lab.postfix.run("postsuper", "-d", deleted).returncode == 0
    assert lab.postfix.run("postsuper", "-H", let_go).returncode == 0
    lab.sink.wait_for(b"third@example.net")
    room(lab)
    assert due(lab).stdout == b""
    with closing(sqlite3.connect(lab.postmeter.state / "journal.db")) as link, link:
        link.execute("UPDATE held SET time = time - 1000")
    assert due(lab).stdout == b"2 held messages: 2 no longer there\n"
    assert [event["action"] for event in lab.postmeter.events("released")] == ["gone", "gone"]
    assert "0 of 1 " in used(lab)
    lab.postmeter.wait_figure(0, "held_messages")


@pytest.mark.parametrize("script", ["kill -9 $PPID", '"$REAL" "$@"; kill -9 $PPID'])
def test_a_release_killed_in_between_charges_once_and_loses_nothing(lab: Lab, tmp_path: Path, script: str) -> None:
    """Before postsuper has done its work, and just after it."""
    real = lab.postfix.tree / "usr/sbin/postsuper"
    (tmp_path / "postsuper").write_text(f"#!/bin/sh\nREAL={real}\n{script}\n")
    (tmp_path / "postsuper").chmod(0o755)
    send(lab, "first")
    send(lab, "second")
    room(lab)
    assert due(lab, path=tmp_path).returncode == -9
    assert "1 of 1 " in used(lab)
    room(lab)  # whoever charged it again would leave a trace
    assert due(lab).returncode == 0
    assert "0 of 1 " in used(lab)
    lab.sink.wait_for(b"second@example.net")
    assert not on_hold(lab)
    assert [event["action"] for event in lab.postmeter.events("released")] == ["released"]
    lab.postmeter.wait_figure(0, "held_messages")


def test_a_person_lets_all_of_a_login_go_whatever_its_limits_say(lab: Lab) -> None:
    """Charged all the same, so that what comes next waits."""
    for name in ("first", "second", "third"):
        send(lab, name)
    done = lab.as_root("quota", "release", "Alice@example.com")
    assert (done.returncode, done.stdout) == (0, b"Alice@example.com: 2 held messages: 2 released\n")
    lab.sink.wait_for(b"third@example.net")
    assert "3 of 1 " in used(lab)
    assert {event["by"] for event in lab.postmeter.events("released")} == {"person"}
    assert lab.as_root("quota", "release", ALICE).returncode == 1


def test_only_root_may_release(lab: Lab) -> None:
    done = lab.postmeter.run("quota", "release", "--due")
    assert (done.returncode, b"run it as root" in done.stderr) == (1, True)


@pytest.fixture
def braked(needs_postfix: None) -> Iterator[Lab]:
    """Nobody is over a limit; the brake has stopped alice, and holds her mail."""
    with held_lab({"over": "defer", "limits": ["99 messages/day"], "brake": {"mode": "on", "action": "hold"}}) as lab:
        order(lab, "brake", ALICE)
        lab.postmeter.wait_until(lambda: send(lab, "held") in on_hold(lab))
        yield lab


def test_what_the_brake_holds_is_released_by_a_person_only(braked: Lab) -> None:
    """And with it the brake ends. Others are not concerned."""
    send(braked, "other", login=BOB)
    braked.sink.wait_for(b"other@example.net")
    ids = on_hold(braked)
    assert due(braked).stdout == b""
    assert on_hold(braked) == ids
    assert "stopped by the brake" in braked.postmeter.run("quota", "show", ALICE).stdout.decode()
    braked.postmeter.wait_figure(1, "brake_logins")
    done = braked.as_root("quota", "release", ALICE)
    assert done.stdout.decode().startswith(f"{ALICE}: the brake is off; {len(ids)} held message"), done
    braked.sink.wait_for(b"held@example.net")
    braked.postmeter.wait_until(lambda: send(braked, "after") not in on_hold(braked))
    braked.postmeter.wait_figure(0, "brake_logins")


def test_what_the_brake_holds_can_be_deleted(braked: Lab) -> None:
    """Nothing of it leaves, nothing of it is charged."""
    before = used(braked)
    count = len(on_hold(braked))
    done = braked.as_root("quota", "release", ALICE, "--delete")
    assert f"{count} deleted" in done.stdout.decode(), done
    assert not on_hold(braked)
    assert used(braked) == before
    assert {event["action"] for event in braked.postmeter.events("released")} == {"deleted"}
    assert not [arrived for arrived in braked.sink.deliveries if b"held@example.net" in arrived.rcpt_to]


def test_what_was_deleted_here_or_by_hand_was_not_taken_and_nothing_about_it_is_unknown(needs_postfix: None) -> None:
    """Postfix's log says that it was removed, and the report knows why."""
    with held_lab({"limits": ["1 message/day"]}) as lab:
        lab.postmeter.settings["delivery"] = {"log": str(lab.postfix.log_file)}
        lab.postmeter.write()
        lab.postmeter.reload("books")
        lab.postmeter.wait_for("log is read from", daemon="books")
        ids = [send(lab, name) for name in ("first", "second", "third")]
        lab.postmeter.wait_figure(2, "queue_recipients", state="held")
        assert lab.postfix.run("postsuper", "-d", ids[2]).returncode == 0
        assert lab.as_root("quota", "release", ALICE, "--delete").returncode == 0

        def told() -> list[int]:
            total = json.loads(lab.postmeter.run("report", "--format", "json").stdout)["total"]
            return [total[name] for name in ("accepted", "delivered", "waiting", "untaken", "unknown")]

        lab.postmeter.wait_until(lambda: told()[2] == 0 and len(lab.postmeter.events("released")) == 1)
        assert told() == [1, 1, 0, 2, 0]
        assert lab.postmeter.metrics().figure("deliveries_total", status="unknown") == 0


def test_a_braked_login_is_deferred_at_mail(needs_postfix: None) -> None:
    """Bounces are no way out: a login has none to bring."""
    with held_lab({"over": "defer", "brake": {"mode": "on"}}) as lab:
        order(lab, "brake", ALICE)

        def refusal(mail_from: str) -> RefusedError | None:
            try:
                lab.send(letter(), mail_from=mail_from)
            except RefusedError as error:
                return error
            return None

        lab.postmeter.wait_until(lambda: refusal(ALICE) is not None)
        for mail_from in (ALICE, ""):
            error = refusal(mail_from)
            assert error is not None
            assert (error.step, error.answer.code, error.answer.status) == ("MAIL", 451, "4.7.1")
            assert "waits for the administrator" in error.answer.text


def test_a_bounce_is_never_held(lab: Lab) -> None:
    for _ in range(3):
        lab.deliver(letter(), mail_from="")
    assert not on_hold(lab)
