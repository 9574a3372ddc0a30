"""What a power cut must not take is on the disk before anybody is told: first the content, then the name."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from postmeter.feedback.arrivals import Arrivals, Envelope
from postmeter.store import database
from postmeter.store.batch import Job
from postmeter.store.emergency import Spool
from postmeter.submission.keydir import KeyState, write_state


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was given to the disk, and what got its name, in the order of the calls; all of them are made."""
    told: list[str] = []

    def noted(name: str, say: Callable[..., str]) -> None:
        call = getattr(os, name)

        def noting(*given: object, **more: object) -> object:
            told.append(say(*given))
            return call(*given, **more)

        monkeypatch.setattr(os, name, noting)

    noted("fsync", lambda fd: "folder" if os.path.isdir(f"/proc/self/fd/{fd}") else "content")
    noted("replace", lambda old, new: "name")
    noted("rename", lambda old, new: "name")
    return told


@pytest.mark.parametrize(("sync", "expected"), [("full", ["content", "name", "folder"]), ("normal", ["name"])])
def test_an_event_of_the_emergency_spool(tmp_path: Path, calls: list[str], sync: str, expected: list[str]) -> None:
    """With `journal.sync: full`."""
    Spool(tmp_path, durable=sync == "full").put(Job((), None, {}, 0.0))
    assert calls == expected


@pytest.fixture(params=["folder", "content"])
def failing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes no names, or nothing that stands in files."""
    sync = os.fsync

    def fsync(fd: int) -> None:
        if request.param == ("folder" if os.path.isdir(f"/proc/self/fd/{fd}") else "content"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(fd)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.usefixtures("failing")
def test_an_event_whose_client_is_refused_does_not_come_back(tmp_path: Path) -> None:
    """Else a message that got 451 is charged and counted as accepted, beside the one that the client sends again."""
    with pytest.raises(OSError, match="Input/output"):
        Spool(tmp_path, durable=True).put(Job((), None, {}, 0.0))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("failing")
def test_what_came_back_and_was_put_off_is_not_kept(tmp_path: Path) -> None:
    """Else Postfix brings it again, and a vacation reply goes to the sender twice."""
    with pytest.raises(OSError, match="Input/output"):
        Arrivals(tmp_path).put(Envelope(time=0.0), b"Subject: on vacation\r\n\r\n")
    assert list(tmp_path.iterdir()) == []


def test_a_message_that_came_back(tmp_path: Path, calls: list[str]) -> None:
    Arrivals(tmp_path).put(Envelope(time=0.0), b"Subject: undelivered\r\n\r\n")
    assert calls == ["content", "name", "folder"]


def test_the_state_of_a_rotation(tmp_path: Path, calls: list[str]) -> None:
    write_state(tmp_path, {"a": KeyState("active", 0.0)})
    assert calls == ["content", "name", "folder"]


@pytest.mark.parametrize(("sync", "level"), [("normal", 1), ("full", 2)])
def test_the_journal(tmp_path: Path, sync: str, level: int) -> None:
    """As sqlite.org/pragma.html numbers them: 2 gives each commit to the disk, 1 what is copied back."""
    with closing(database.open(tmp_path / "journal.db", sync=sync)) as book, book.transaction() as link:
        assert isinstance(link, sqlite3.Connection)
        assert link.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert link.execute("PRAGMA synchronous").fetchone() == (level,)
