"""The spool of what came back: what strangers and accidents put there is no message, and no descriptor stays open."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from postmeter.feedback.arrivals import LARGEST, Arrivals, Envelope


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def arrivals(tmp_path: Path) -> Arrivals:
    return Arrivals(tmp_path)


def test_what_is_no_file_of_ours_is_not_read(arrivals: Arrivals, tmp_path: Path) -> None:
    """A link to what only we may open, a pipe that would hold us, a socket, a folder; and what has no name of ours."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link.eml").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe.eml")
    (tmp_path / "folder.eml").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.eml"))
    before = open_files()
    names = ("link.eml", "pipe.eml", "folder.eml", "socket.eml", "gone.eml", "secret", ".hidden.eml", "../secret.eml")
    assert [arrivals.read(name) for name in names] == [None] * len(names)
    assert arrivals.names() == []
    assert open_files() == before


def test_what_cannot_be_read_is_told_and_not_taken_for_gone(arrivals: Arrivals) -> None:
    with pytest.raises(OSError, match="File name too long"):
        arrivals.read("x" * 300 + ".eml")


def test_a_message_larger_than_we_take_is_none_of_ours(arrivals: Arrivals, tmp_path: Path) -> None:
    arrivals.put(Envelope(time=1.0), b"x" * LARGEST)
    [name] = arrivals.names()
    kept = arrivals.read(name)
    assert kept is not None
    assert len(kept.raw) == LARGEST
    with (tmp_path / name).open("ab") as file:
        file.write(b"x")
    assert arrivals.read(name) is None


def test_keeping_reading_and_dropping_leaves_no_descriptor_open(arrivals: Arrivals) -> None:
    before = open_files()
    for _ in range(3):
        arrivals.put(Envelope(time=1.0), b"Subject: undelivered\r\n\r\n")
    for name in arrivals.names():
        assert arrivals.read(name)
        arrivals.drop(name)
    with pytest.raises(OSError, match="larger than we take"):
        arrivals.put(Envelope(time=1.0), b"x" * (LARGEST + 1))
    assert (arrivals.names(), open_files()) == ([], before)
