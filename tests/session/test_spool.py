"""A spool: what was appended is read once, whoever died meanwhile, and a file goes only when nobody writes it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postmeter.runtime import spool
from postmeter.runtime.spool import SpoolError, Writer
from postmeter.runtime.tail import Position, Tail

NOW = 1_800_000_000.0


def writer(directory: Path, *, limit: int = spool.LIMIT) -> Writer:
    return Writer(directory, name="hits", now=lambda: NOW, limit=limit)


def drain(directory: Path, places: dict[str, Position], *, delete: bool = True) -> list[bytes]:
    """Read all there is, and delete what is finished, as books does; `places` stands for the journal's positions."""
    found = []
    for path in spool.files(directory, "hits"):
        tail = Tail(path, places.get(path.name))
        while (batch := tail.read()).lines:
            found += [line.data for line in batch.lines]
            assert batch.end
            places[path.name] = batch.end
            tail.accept(batch)
        tail.close()
        if delete:
            spool.discard(path, places[path.name].offset if path.name in places else 0)
    return found


def test_lines_come_back_in_order_and_once(tmp_path: Path) -> None:
    places: dict[str, Position] = {}
    out = writer(tmp_path)
    out.append([b"one", b"two"])
    assert drain(tmp_path, places) == [b"one", b"two"]
    out.append([b"three"])
    assert drain(tmp_path, places) == [b"three"]
    assert drain(tmp_path, places) == []


def test_a_file_that_is_written_stays_and_one_that_was_closed_and_read_goes(tmp_path: Path) -> None:
    places: dict[str, Position] = {}
    out = writer(tmp_path)
    out.append([b"one"])
    drain(tmp_path, places)
    assert len(spool.files(tmp_path, "hits")) == 1
    out.close()
    drain(tmp_path, places)
    assert spool.files(tmp_path, "hits") == []


def test_a_file_with_an_unread_line_stays(tmp_path: Path) -> None:
    out = writer(tmp_path)
    out.append([b"one", b"two"])
    out.close()
    (path,) = spool.files(tmp_path, "hits")
    assert spool.discard(path, len(b"one\n")) is None
    assert path.exists()


def test_a_line_that_its_writer_never_finished_goes_with_the_file_and_is_told(tmp_path: Path) -> None:
    path = tmp_path / "hits-x.jsonl"
    path.write_bytes(b"one\nhal")
    assert spool.discard(path, 4) == 3
    assert not path.exists()


def test_a_full_file_is_followed_by_another(tmp_path: Path) -> None:
    out = writer(tmp_path, limit=10)
    for number in range(10):
        out.append([b"line %d" % number])
    assert len(spool.files(tmp_path, "hits")) == 5
    assert drain(tmp_path, {}) == [b"line %d" % number for number in range(10)]
    assert len(spool.files(tmp_path, "hits")) == 1


def test_a_file_deleted_under_its_writer_is_replaced(tmp_path: Path) -> None:
    out = writer(tmp_path)
    out.append([b"one"])
    spool.files(tmp_path, "hits")[0].unlink()
    out.append([b"two"])
    assert drain(tmp_path, {}) == [b"two"]


def test_whoever_reads_may_whatever_the_umask(tmp_path: Path) -> None:
    """The books, of another user and the directory's group."""
    before = os.umask(0o077)
    try:
        writer(tmp_path).append([b"one"])
    finally:
        os.umask(before)
    (path,) = spool.files(tmp_path, "hits")
    assert path.stat().st_mode & 0o777 == 0o640


def test_links_in_a_spool_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"root's own\n")
    (tmp_path / "hits-1.jsonl").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "hits-2.jsonl")
    assert spool.files(tmp_path, "hits") == []


@pytest.mark.parametrize("name", [b"hits-\xff.jsonl", b"hits-\n.jsonl", b"hits-\x1b[2J.jsonl"])
def test_a_file_whose_name_no_database_or_log_can_hold_is_none_of_the_spool_s(tmp_path: Path, name: bytes) -> None:
    (tmp_path / os.fsdecode(name)).write_bytes(b"{}\n")
    (tmp_path / "hits-1.jsonl").write_bytes(b"{}\n")
    assert spool.files(tmp_path, "hits") == [tmp_path / "hits-1.jsonl"]


@contextlib.contextmanager
def disk_full_at(size: int) -> Iterator[None]:
    """No file of this process can grow beyond this: write(2) takes what fits and then fails, like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", range(32))
def test_what_a_full_disk_cut_off_is_told_and_can_be_appended_again(tmp_path: Path, room: int) -> None:
    """Wherever the cut falls, the lines told to be unwritten come once when appended again, on lines of their own."""
    lines = [b'{"n":%d}' % number for number in range(4)]
    out = writer(tmp_path)
    out.append([b'"first"'])
    with disk_full_at(8 + room):
        for already in (room // 8, 0):  # the second time there is no room at all
            with pytest.raises(SpoolError) as caught:
                out.append(lines[room // 8 - already :])
            assert caught.value.written == already
    out.append(lines[room // 8 :])
    found = drain(tmp_path, {})
    assert [line for line in found if not line.endswith(b" <torn>")] == [b'"first"', *lines]
    assert len(found) - 5 == bool(room % 8)


def test_a_spool_that_is_not_there_is_an_error_and_works_when_it_is(tmp_path: Path) -> None:
    out = writer(tmp_path / "spool")
    with pytest.raises(SpoolError, match="No such file"):
        out.append([b"one"])
    (tmp_path / "spool").mkdir()
    out.append([b"one"])
    assert drain(tmp_path / "spool", {}) == [b"one"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.binary(max_size=300).map(lambda data: data.replace(b"\n", b""))), max_size=8), st.data())
def test_any_bytes_survive_whatever_the_batches(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[bytes]], data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("spool")
    out = writer(directory, limit=data.draw(st.integers(1, 2000)))
    places: dict[str, Position] = {}
    found = []
    for batch in batches:
        out.append(batch)
        if data.draw(st.booleans()):
            found += drain(directory, places)
    out.close()
    found += drain(directory, places)
    assert found == [line for batch in batches for line in batch]
    assert spool.files(directory, "hits") == []


_WRITES_FOR_EVER = """
import os, sys, time
from pathlib import Path
from postmeter.runtime.spool import Writer
out = Writer(Path(sys.argv[1]), name="hits", now=time.time, limit=20_000)
number = 0
while True:
    out.append([b"%s %d" % (sys.argv[2].encode(), number + more) for more in range(3)])
    number += 3
    os.write(1, b"%d\\n" % number)
"""


def start(directory: Path, name: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _WRITES_FOR_EVER, str(directory), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env={"PYTHONPATH": "milter"})


def test_kill_9_of_writers_loses_no_line_that_was_acknowledged_and_doubles_none(tmp_path: Path) -> None:
    """Three writers at once, each killed in the middle, read meanwhile; the finished files are gone at the end."""
    places: dict[str, Position] = {}
    found: list[bytes] = []
    acknowledged: dict[bytes, int] = {}
    for turn in range(2):
        running = {f"w{turn}{number}": start(tmp_path, f"w{turn}{number}") for number in range(3)}
        for name, process in running.items():
            assert process.stdout
            for _ in range(300):
                process.stdout.readline()
            found += drain(tmp_path, places)
            process.send_signal(signal.SIGKILL)
            acknowledged[name.encode()] = int((process.stdout.read().split() or [b"900"])[-1])
            process.stdout.close()
            process.wait()
    found += drain(tmp_path, places)
    assert spool.files(tmp_path, "hits") == []
    for writer_name, at_least in acknowledged.items():
        numbers = [int(line.split()[1]) for line in found if line.startswith(writer_name + b" ")]
        assert numbers == list(range(len(numbers)))
        assert at_least >= 900
        assert at_least <= len(numbers) <= at_least + 3


def test_a_reader_that_is_quicker_than_a_new_writer_costs_no_line(tmp_path: Path) -> None:
    """The reader may delete a new file between its creation and its lock: the writer must notice."""
    stop = threading.Event()
    places: dict[str, Position] = {}
    found: list[bytes] = []

    def read() -> None:
        while not stop.is_set():
            found.extend(drain(tmp_path, places))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(400):
            out = Writer(tmp_path, name="hits", now=time.time)
            out.append([b"%d" % number])
            out.close()
    finally:
        stop.set()
        reader.join()
    found.extend(drain(tmp_path, places))
    assert sorted(map(int, found)) == list(range(400))


def test_the_lock_is_shared_so_that_a_reader_can_tell(tmp_path: Path) -> None:
    out = writer(tmp_path)
    out.append([b"one"])
    (path,) = spool.files(tmp_path, "hits")
    with path.open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
