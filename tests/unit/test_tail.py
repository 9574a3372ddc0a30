"""A growing file is read line by line from a kept place, through rotation, and never half a line."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postmeter.runtime.tail import Line, Position, Tail, position


def take(tail: Tail) -> list[bytes]:
    """Read and accept everything that is there."""
    found: list[bytes] = []
    while (batch := tail.read()).lines:
        found += [line.data for line in batch.lines]
        tail.accept(batch)
    return found


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = Tail(path, None)
    append(path, b"one\ntw")
    assert take(tail) == [b"one"]
    assert take(tail) == []
    append(path, b"o\n")
    assert take(tail) == [b"two"]


def test_a_file_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "later" / "log", None)
    assert take(tail) == []
    (tmp_path / "later").mkdir()
    append(tmp_path / "later" / "log", b"one\n")
    assert take(tail) == [b"one"]


def test_what_was_not_accepted_is_read_again(tmp_path: Path) -> None:
    append(tmp_path / "log", b"one\n")
    tail = Tail(tmp_path / "log", None)
    assert tail.read() == tail.read()
    assert [line.data for line in tail.read().lines] == [b"one"]


def test_a_line_knows_where_it_began(tmp_path: Path) -> None:
    append(tmp_path / "log", b"one\n\nthree\n")
    inode = (tmp_path / "log").stat().st_ino
    lines = Tail(tmp_path / "log", None).read().lines
    assert lines == (Line(inode, 0, b"one"), Line(inode, 4, b""), Line(inode, 5, b"three"))


def test_a_saved_place_is_taken_up_by_another_reader(tmp_path: Path) -> None:
    append(tmp_path / "log", b"one\n")
    first = Tail(tmp_path / "log", None)
    take(first)
    append(tmp_path / "log", b"two\n")
    assert take(Tail(tmp_path / "log", position(str(first.position)))) == [b"two"]


def test_bytes_that_are_no_text_survive(tmp_path: Path) -> None:
    line = bytes(byte for byte in range(256) if byte != 10)
    append(tmp_path / "log", line + b"\n")
    assert take(Tail(tmp_path / "log", None)) == [line]


@settings(max_examples=3 * settings().max_examples)
@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(1, 20), st.integers(1, 50))
def test_pieces_in_any_size_give_the_lines_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], longest: int, chunk: int
) -> None:
    """The oracle splits the whole file at once; a line over the bound comes in pieces of the bound."""
    path = tmp_path_factory.mktemp("tail") / "log"
    path.touch()
    tail = Tail(path, None, longest=longest, chunk=chunk)
    found: list[Line] = []
    for piece in pieces:
        append(path, piece)
        while (batch := tail.read()).lines:
            found += batch.lines
            tail.accept(batch)
    data = b"".join(pieces)
    again = b"".join(line.data + b"\n" * line.whole for line in found)
    assert data.startswith(again)
    assert b"\n" not in data[len(again) :]
    assert len(data) - len(again) <= longest
    assert all(b"\n" not in line.data and len(line.data) <= longest for line in found)
    assert all(len(line.data) == longest for line in found if not line.whole)
    for line in found:
        assert data[line.offset : line.offset + len(line.data)] == line.data


def test_a_line_without_end_costs_no_memory_without_end(tmp_path: Path) -> None:
    append(tmp_path / "log", b"x" * 5000 + b"\nnext\n")
    batch = Tail(tmp_path / "log", None, longest=1000, chunk=2000).read()
    assert [(len(line.data), line.whole) for line in batch.lines] == [(1000, False)]


def test_a_renamed_file_is_read_to_its_end_before_the_new_one(tmp_path: Path) -> None:
    """The writer may go on in the old file until it writes the first line of the new one (logrotate's `create`)."""
    path = tmp_path / "mail.log"
    append(path, b"one\n")
    tail = Tail(path, None)
    assert take(tail) == [b"one"]
    path.rename(tmp_path / "mail.log.1")
    path.touch()
    append(tmp_path / "mail.log.1", b"two\n")
    assert take(tail) == [b"two"]
    append(tmp_path / "mail.log.1", b"three\n")
    append(path, b"four\n")
    assert take(tail) == [b"three", b"four"]
    assert tail.gaps == 0


def test_a_file_renamed_while_nobody_read_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    append(path, b"one\ntwo\n")
    place = Position(path.stat().st_ino, 4)
    path.rename(tmp_path / "mail.log-20270115")
    append(path, b"three\n")
    tail = Tail(path, place)
    assert take(tail) == [b"two", b"three"]
    assert tail.gaps == 0


def test_a_file_that_is_gone_is_a_gap_and_the_new_one_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    append(tmp_path / "other", b"keeps the inode from being used again\n")
    append(path, b"three\n")
    tail = Tail(path, Position((tmp_path / "other").stat().st_ino, 4))
    assert take(tail) == [b"three"]
    assert tail.gaps == 1


def test_a_file_cut_short_is_a_gap_and_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    append(path, b"one\ntwo\n")
    tail = Tail(path, None)
    take(tail)
    os.truncate(path, 0)
    append(path, b"six\n")
    assert take(tail) == [b"six"]
    assert tail.gaps == 1


def test_lag_counts_the_files_that_came_after_the_one_in_hand(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    append(path, b"first\nsecond\n")
    tail = Tail(path, None, longest=8, chunk=6)
    tail.accept(tail.read())
    path.rename(path.with_name("mail.log.1"))
    append(path, b"third\n")
    path.with_name("mail.log.1").rename(path.with_name("mail.log.2"))
    path.rename(path.with_name("mail.log.1"))
    append(path, b"fourth\n")
    lags = [tail.lag()]
    while batch := tail.read():
        if not batch.lines:
            break
        tail.accept(batch)
        lags.append(tail.lag())
    assert lags == [7 + 6 + 7, 6 + 7, 7, 0]


def test_lag_is_what_has_not_been_accepted(tmp_path: Path) -> None:
    append(tmp_path / "log", b"one\ntwo\nth")
    tail = Tail(tmp_path / "log", None)
    tail.read()
    assert tail.lag() == 10
    take(tail)
    assert tail.lag() == 2


def test_a_pipe_in_the_file_s_place_holds_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    assert take(Tail(tmp_path / "log", None)) == []


def test_a_file_that_cannot_be_opened_for_a_moment_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of descriptors: no gap is told, and nothing is read twice."""
    append(tmp_path / "log", b"one\ntwo\n")
    first = Tail(tmp_path / "log", None)
    take(first)
    first.close()
    call, left = os.open, [errno.EMFILE]

    def scarce(path: Path, *given: int) -> int:
        if left:
            raise OSError(left.pop(), "Too many open files", str(path))
        return call(path, *given)

    monkeypatch.setattr(os, "open", scarce)
    tail = Tail(tmp_path / "log", first.position)
    with pytest.raises(OSError, match="Too many"):
        tail.read()
    assert take(tail) == []
    assert tail.gaps == 0
    tail.close()


def test_a_file_that_the_disk_does_not_give_is_named_and_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads it tries again each second."""
    append(tmp_path / "log", b"one\n")
    first = Tail(tmp_path / "log", None)
    take(first)
    first.close()

    def failing(*given: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", failing)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(OSError, match="Input/output") as told:
            Tail(tmp_path / "log", first.position).read()
        assert told.value.filename == str(tmp_path / "log")
    assert len(os.listdir("/proc/self/fd")) == before
