"""Postfix's queue as its own commands tell it; its commands for real are in e2e/test_hold."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from postmeter.runtime.mailqueue import MailQueue, Queued, QueueError

LINE = '{"queue_name": "hold", "queue_id": "%s", "arrival_time": %d, "sender": "a\\u00ff", "recipients": []}\n'


@pytest.fixture
def postfix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands that say what the file `queue` holds and write down what they are told."""
    for name, script in (("postqueue", 'cat "$0.says"'), ("postsuper", 'echo "$*" >> "$0.told"; cat >> "$0.told"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def test_everything_in_the_queue_is_told(postfix: Path) -> None:
    (postfix / "postqueue.says").write_text(LINE % ("4jXc8L3QHJz2J7kZ", 100) + LINE % ("0A1B2C3D4E", 200))
    assert MailQueue().look() == [
        Queued(queue_id="4jXc8L3QHJz2J7kZ", queue="hold", arrived=100.0),
        Queued(queue_id="0A1B2C3D4E", queue="hold", arrived=200.0),
    ]


def test_ids_go_to_postsuper_on_its_standard_input_and_to_the_hold_queue_alone(postfix: Path) -> None:
    queue = MailQueue(Path("/etc/postfix-out"))
    queue.release(["0A1B2C3D4E", "4jXc8L3QHJz2J7kZ"])
    queue.delete(iter(["0A1B2C3D4F"]))
    assert (postfix / "postsuper.told").read_text().splitlines() == [
        "-c /etc/postfix-out -H - hold", "0A1B2C3D4E", "4jXc8L3QHJz2J7kZ",
        "-c /etc/postfix-out -d - hold", "0A1B2C3D4F",
    ]  # fmt: skip


@pytest.mark.parametrize("bad", ["ALL", "", "-", "0A1B2C3D4E\nALL", "../../etc", "0A1B2C\u0660D4E"])
def test_what_is_no_queue_id_reaches_no_postsuper(postfix: Path, bad: str) -> None:
    """`postsuper -d ALL` empties the queue."""
    with pytest.raises(QueueError, match="is no queue id"):
        MailQueue().delete(["0A1B2C3D4E", bad])
    assert not (postfix / "postsuper.told").exists()


def test_nothing_is_asked_about_nothing(postfix: Path) -> None:
    MailQueue().release([])
    assert not (postfix / "postsuper.told").exists()


def test_what_fails_is_told_in_postfix_own_words(postfix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (postfix / "postsuper").write_text("#!/bin/sh\necho 'postsuper: fatal: for root alone' >&2; exit 1\n")
    with pytest.raises(QueueError, match="fatal: for root alone"):
        MailQueue().release(["0A1B2C3D4E"])
    (postfix / "postqueue.says").write_text("no JSON at all\n")
    with pytest.raises(QueueError, match="no message is told like this"):
        MailQueue().look()
    monkeypatch.setattr("shutil.which", lambda name, path: None)
    with pytest.raises(QueueError, match="is Postfix installed on this host"):
        MailQueue().look()


@pytest.mark.parametrize(
    ("arrived", "ended", "same"),
    [(100, 100.9, True), (101, 100.9, True), (100, 1300, True), (100, 90, False), (100, 100 + 86_400, True)],
)
def test_a_message_is_known_by_its_time_too(arrived: float, ended: float, same: bool) -> None:
    """Arrival is its begin, in whole seconds; what we know is its end. While it is there nobody else gets its id."""
    assert Queued(queue_id="0A1B2C3D4E", queue="hold", arrived=arrived).came(ended) is same
