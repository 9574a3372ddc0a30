"""No line is lost or read twice by any way in which logrotate(8) turns logs over, whoever slept meanwhile."""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postmeter.runtime import oldlogs
from postmeter.runtime.packed import PackedError
from postmeter.runtime.tail import LONGEST, Position, Tail, position
from tests.unit.test_tail import append, take


def text(first: int, count: int) -> bytes:
    return b"".join(b"Nov 22 12:00:00 mx postfix/smtp[1]: line %d\n" % number for number in range(first, first + count))


def numbers(lines: list[bytes]) -> list[int]:
    return [int(line.rsplit(b" ", 1)[1]) for line in lines]


def packed(kind: str, path: Path) -> Path:
    """Compress as logrotate does, under its name: the old file goes when the new one is whole."""
    if path.name == "mail.log":
        path = path.rename(path.with_name("mail.log.1"))
    target = path.with_name(f"{path.name}.{kind}")
    if kind == "gz":
        target.write_bytes(gzip.compress(path.read_bytes()))
    elif kind == "xz":
        target.write_bytes(lzma.compress(path.read_bytes(), preset=0))
    else:
        subprocess.run(["zstd", "-q", str(path), "-o", str(target)], check=True)
    path.unlink()
    return target


zstd = pytest.param("zst", marks=pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd"))


@pytest.mark.parametrize("kind", ["gz", "xz", zstd])
def test_a_file_compressed_while_nobody_read_is_read_on_in_its_compressed_form(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    append(path, text(0, 20))
    tail = Tail(path, None)
    assert numbers(take(tail)) == list(range(20))
    tail.close()
    append(path, text(20, 5))
    packed(kind, path)
    append(path, text(25, 5))
    again = Tail(path, position(str(tail.position)))
    assert numbers(take(again)) == list(range(20, 30))
    assert again.gaps == 0


def test_a_place_in_a_compressed_file_is_taken_up_by_another_reader(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    append(path, text(0, 5000))
    tail = Tail(path, None, longest=100, chunk=1000)
    tail.accept(tail.read())
    packed("gz", path)
    append(path, text(5000, 5))
    second = Tail(path, tail.position, longest=100, chunk=1000)
    second.accept(second.read())
    second.accept(second.read())
    third = Tail(path, position(str(second.position)))
    rest = numbers(take(third))
    assert rest == list(range(rest[0], 5005))
    assert 0 < rest[0] < 200
    assert third.gaps == 0


def test_what_was_not_accepted_of_a_compressed_file_is_read_again(tmp_path: Path) -> None:
    append(tmp_path / "mail.log", text(0, 20))
    tail = Tail(tmp_path / "mail.log", None, longest=100, chunk=150)
    tail.accept(tail.read())
    packed("gz", tmp_path / "mail.log")
    again = Tail(tmp_path / "mail.log", tail.position, longest=100, chunk=150)
    first, second = again.read().lines, again.read().lines
    assert first == second
    assert numbers([line.data for line in first])[0] > 0


def test_a_compressed_file_that_is_gone_too_is_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    append(path, text(0, 20))
    tail = Tail(path, None)
    take(tail)
    tail.close()
    path.rename(tmp_path / "gone")
    append(path, text(30, 2))
    append(tmp_path / "mail.log.1.gz", gzip.compress(text(20, 10)))
    again = Tail(path, tail.position)
    assert numbers(take(again)) == [30, 31]
    assert again.gaps == 1


def test_a_damaged_compressed_file_gives_what_can_be_read_and_is_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    append(path, text(0, 20))
    tail = Tail(path, None)
    take(tail)
    tail.close()
    append(path, text(20, 20_000))
    target = packed("gz", path)
    target.write_bytes(target.read_bytes()[:-2000])
    append(path, text(90_000, 1))
    again = Tail(path, tail.position)
    found = numbers(take(again))
    assert found[-1] == 90_000
    assert found[:-1] == list(range(20, 19 + len(found)))
    assert len(found) > 1000
    assert again.gaps == 1


@pytest.mark.parametrize("named", ["{}", "-2026112{}"], ids=["numbers", "dates"])
def test_several_rotations_while_nobody_read_are_read_in_their_order(named: str, tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    append(path, text(0, 3))
    tail = Tail(path, None)
    assert numbers(take(tail)) == [0, 1, 2]
    tail.close()
    for day in range(1, 5):
        append(path, text(day * 10, 3))
        if named == "{}":
            rotate_numbers(path)
        else:
            path.rename(path.with_name(path.name + named.format(day)))
    append(path, text(50, 2))
    os.utime(tmp_path / ("mail.log.3" if named == "{}" else "mail.log-20261122"), (0, 0))  # mtimes say nothing
    again = Tail(path, position(str(tail.position)))
    assert numbers(take(again)) == [10, 11, 12, 20, 21, 22, 30, 31, 32, 40, 41, 42, 50, 51]
    assert again.gaps == 0


def rotate_numbers(path: Path) -> None:
    for number in range(9, 0, -1):
        old = path.with_name(f"{path.name}.{number}")
        if old.exists():
            old.rename(path.with_name(f"{path.name}.{number + 1}"))
    path.rename(path.with_name(f"{path.name}.1"))


def test_rotated_files_older_than_the_place_and_other_people_s_copies_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    append(tmp_path / "mail.log.2.gz", gzip.compress(text(500, 5)))
    append(path, text(0, 3))
    tail = Tail(path, None)
    assert numbers(take(tail)) == [0, 1, 2]
    path.rename(tmp_path / "mail.log.1")
    append(tmp_path / "mail.log.copy", text(600, 3))
    append(tmp_path / "mail.log.offset", b"12\n")
    append(path, text(10, 1))
    assert numbers(take(tail)) == [10]
    assert tail.gaps == 0


def test_copytruncate_loses_nothing_that_was_copied(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    append(path, text(0, 20))
    tail = Tail(path, None)
    take(tail)
    append(path, text(20, 5))
    shutil.copy(path, tmp_path / "mail.log.1")
    os.truncate(path, 0)
    append(path, text(25, 3))
    assert numbers(take(tail)) == list(range(20, 28))
    assert tail.gaps == 0


def test_copytruncate_is_seen_though_the_file_has_grown_past_the_place_again(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    append(path, text(0, 20))
    tail = Tail(path, None)
    take(tail)
    shutil.copy(path, tmp_path / "mail.log.1")
    os.truncate(path, 0)
    append(path, text(20, 100))
    assert numbers(take(tail)) == list(range(20, 120))
    assert tail.gaps == 0


def test_an_inode_used_again_by_another_file_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    append(path, text(100, 50))
    stranger = Position(path.stat().st_ino, 90, "00000000")
    tail = Tail(path, stranger)
    assert numbers(take(tail)) == list(range(100, 150))
    assert tail.gaps == 1


def test_a_place_written_down_before_beginnings_were_known_still_holds(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    append(path, text(0, 20))
    tail = Tail(path, position(f"{path.stat().st_ino}:{len(text(0, 15))}"))
    assert numbers(take(tail)) == list(range(15, 20))
    assert tail.position is not None
    assert tail.position.head


# -- any order of things ----------------------------------------------------------------------------------------------

STEPS = ["write", "read", "restart", "rename", "copytruncate", "compress"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(STEPS), max_size=25))
def test_whatever_happens_in_whatever_order_every_line_is_read_once(steps: list[str]) -> None:
    """The oracle counts what was written. Writers here write between the steps of logrotate, never within one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mail.log"
        tail = Tail(path, None)
        written = 0
        found: list[int] = []
        for step in steps:
            if step == "write":
                append(path, text(written, 7))
                written += 7
            elif step == "read":
                found += numbers(take(tail))
            elif step == "restart":
                tail.close()
                tail = Tail(path, tail.position and position(str(tail.position)))
            elif path.exists() and path.stat().st_size and tail.position is not None:
                turn(step, path)
        append(path, text(written, 1))
        found += numbers(take(tail))
        tail.close()
        assert found == list(range(written + 1))
        assert tail.gaps == 0


def turn(step: str, path: Path) -> None:
    """One run of logrotate."""
    first = path.with_name("mail.log.1")
    for number in range(30, 0, -1):
        for end in ("", ".gz"):
            old = path.with_name(f"mail.log.{number}{end}")
            if old.exists():
                old.rename(path.with_name(f"mail.log.{number + 1}{end}"))
    if step == "copytruncate":
        shutil.copy(path, first)
        os.truncate(path, 0)
        return
    path.rename(first)
    if step == "compress":
        packed("gz", first)


# -- old logs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["", "gz", "xz", zstd])
def test_an_old_log_gives_the_same_lines_at_the_same_offsets_however_it_was_kept(kind: str, tmp_path: Path) -> None:
    data = text(0, 20_000) + b"x" * (LONGEST + 5) + b"\n" + text(7, 1) + b"no end"
    path = tmp_path / "mail.log.1"
    path.write_bytes(data)
    path = packed(kind, path) if kind else path
    lines = list(oldlogs.read(path))
    assert b"".join(line.data + b"\n" * line.whole for line in lines) == data + b"\n"
    assert all(data[line.offset : line.offset + len(line.data)] == line.data for line in lines)


@pytest.mark.parametrize("kind", ["gz", "xz", zstd])
def test_a_damaged_old_log_gives_its_lines_and_then_says_what_is_wrong(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "mail.log.1"
    path.write_bytes(os.urandom(200_000).hex().encode() + b"\n" + text(0, 5))
    path = packed(kind, path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(PackedError, match=path.name):
        list(oldlogs.read(path))


def test_without_zstd_its_absence_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mail.log.zst").write_bytes(b"\x28\xb5\x2f\xfd....")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PackedError, match="takes the program zstd"):
        list(oldlogs.read(tmp_path / "mail.log.zst"))


@pytest.mark.parametrize("data", [b"", b"\n", b"one", b"one\n"])
def test_small_logs_are_read(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(data)
    assert [line.data for line in oldlogs.read(tmp_path / "log")] == data.splitlines()
