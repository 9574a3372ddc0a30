"""The systemd journal is read entry by entry from a kept cursor: a real journald writes, a real journalctl reads it.

Only what journald says of a unit that logs too fast comes from us: its limit is a unit's, and a test has none.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postmeter.delivery.postfixlog import entry
from postmeter.runtime.journald import Batch, Entry, Journal
from tests.lab.waiting import wait_for

JOURNALD = Path("/lib/systemd/systemd-journald")
pytestmark = [
    pytest.mark.skipif(shutil.which("journalctl") is None, reason="no journalctl"),
    pytest.mark.skipif(not JOURNALD.exists() or os.geteuid() != 0, reason="no journald, or not root to run one"),
]


class Daemon:
    """A journald of a namespace of its own (systemd-journald.service(8)); it takes syslog's datagrams."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._run = Path("/run/systemd") / f"journal.{name}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        shutil.rmtree(self._run, ignore_errors=True)  # sockets of one that ended
        self._process = subprocess.Popen([JOURNALD, self.name], stderr=subprocess.DEVNULL)
        wait_for((self._run / "dev-log").exists)
        wait_for(lambda: any((each / "system.journal").exists() for each in self.folders))  # else nobody can follow it

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
        self._process = None

    @property
    def folders(self) -> list[Path]:
        return [
            found for root in ("/run/log/journal", "/var/log/journal") for found in Path(root).glob(f"*.{self.name}")
        ]

    def remove(self) -> None:
        self.stop()
        for folder in (*self.folders, self._run):
            shutil.rmtree(folder, ignore_errors=True)

    def log(self, *messages: bytes) -> None:
        self._send("dev-log", *(b"<22>Nov 22 12:00:00 " + message for message in messages))

    def suppressed(self, count: int) -> None:
        fields = "MESSAGE_ID=a596d6fe7bfa4994828e72309e95d61e\nSYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER=systemd-journald\n"
        self._send("socket", f"{fields}MESSAGE=Suppressed {count} messages from postfix@-.service\n".encode())

    def _send(self, name: str, *datagrams: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(str(self._run / name))
            for datagram in datagrams:
                sender.send(datagram)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    found = Daemon(f"pm{os.getpid()}x{abs(hash(tmp_path)) % 10**6}")
    found.start()
    yield found
    found.remove()


@pytest.fixture
def opened(daemon: Daemon) -> Iterator[Callable[..., Journal]]:
    journals: list[Journal] = []

    def journal(start: str | None = None, **options: object) -> Journal:
        journals.append(Journal(start, options=[f"--namespace={daemon.name}"], **options))  # type: ignore[arg-type]
        return journals[-1]

    yield journal
    for each in journals:
        each.close()


def take(journal: Journal, count: int, limit: float = 20.0) -> list[Entry]:
    """Read and accept until so many have come."""
    found: list[Entry] = []
    end = time.monotonic() + limit
    while len(found) < count:
        assert time.monotonic() < end, f"{len(found)} of {count} came"
        batch = journal.read(0.2)
        found += batch.entries
        journal.accept(batch)
    return found


def texts(entries: list[Entry]) -> list[str | bytes]:
    return [each.message for each in entries]


def test_what_came_to_the_mail_facility_is_read_with_who_when_and_where(
    daemon: Daemon, opened: Callable[..., Journal]
) -> None:
    before = time.time()
    daemon.log(b"postfix/submission/smtpd[77]: 0F5383D: client=h[::1]")
    daemon._send("dev-log", b"<30>Nov 22 12:00:00 sshd[1]: not mail")
    daemon.log(b"postfix/smtp[78]: \xff\xfe", b"postfix/smtp[78]: " + b"x" * 6000, "postfix/smtp[78]: ü".encode())
    found = take(opened(), 4)
    assert texts(found) == ["0F5383D: client=h[::1]", b"\xff\xfe", "x" * 6000, "ü"]
    first = found[0]
    assert (first.identifier, first.pid, first.host) == ("postfix/submission/smtpd", 77, socket.gethostname())
    assert before - 1 <= first.time <= time.time() + 1
    line = entry(first.time, first.host, first.identifier, first.pid, first.message)
    assert line is not None
    assert (line.what, line.service, line.queue_id) == ("client", "submission", "0F5383D")


def test_a_cursor_goes_on_where_it_was_and_repeats_nothing(daemon: Daemon, opened: Callable[..., Journal]) -> None:
    daemon.log(*(b"postfix/smtp[1]: %d" % number for number in range(3)))
    first = opened()
    kept = take(first, 3)[1].cursor
    first.close()
    daemon.log(b"postfix/smtp[1]: 3")
    again = opened(kept)
    assert texts(take(again, 2)) == ["2", "3"]
    daemon.log(b"postfix/smtp[1]: 4")  # while it follows
    assert texts(take(again, 1)) == ["4"]
    assert again.gaps == 0


def test_what_was_not_accepted_is_read_again(daemon: Daemon, opened: Callable[..., Journal]) -> None:
    daemon.log(b"postfix/smtp[1]: one")
    journal = opened()
    wait_for(lambda: journal.read(0.2).entries)
    assert texts(list(journal.read().entries)) == ["one"]
    assert journal.position is None
    journal.close()  # and so after a restart
    assert texts(take(opened(journal.position), 1)) == ["one"]


def test_nothing_is_lost_when_the_child_or_journald_dies(daemon: Daemon, opened: Callable[..., Journal]) -> None:
    now = [0.0]
    daemon.log(b"postfix/smtp[1]: one")
    journal = opened(clock=lambda: now[0])
    assert texts(take(journal, 1)) == ["one"]
    assert journal._child is not None
    journal._child.kill()
    wait_for(lambda: not journal.read(0.1).entries and journal._child is None)
    daemon.stop()
    daemon.start()
    daemon.log(b"postfix/smtp[1]: two")
    assert journal.read(0.1).entries == ()  # not at once again
    now[0] += 10
    assert texts(take(journal, 1)) == ["two"]
    assert journal.gaps == 0


def test_a_journal_cut_off_behind_the_cursor_is_a_gap(daemon: Daemon, opened: Callable[..., Journal]) -> None:
    daemon.log(b"postfix/smtp[1]: old")
    first = opened()
    kept = take(first, 1)[0].cursor
    first.close()
    daemon.stop()
    for folder in daemon.folders:
        for file in folder.iterdir():
            file.unlink()
    daemon.start()
    daemon.log(b"postfix/smtp[1]: new")
    journal = opened(kept)
    assert texts(take(journal, 1)) == ["new"]
    assert journal.gaps == 1


def test_a_cursor_that_is_none_begins_anew_and_is_a_gap(daemon: Daemon, opened: Callable[..., Journal]) -> None:
    now = [0.0]
    daemon.log(b"postfix/smtp[1]: one")
    journal = opened("12:34", clock=lambda: now[0])
    wait_for(lambda: not journal.read(0.1).entries and journal.position is None)
    now[0] += 10
    assert texts(take(journal, 1)) == ["one"]
    assert journal.gaps == 1


def test_what_journald_dropped_is_read_too(daemon: Daemon, opened: Callable[..., Journal]) -> None:
    daemon.suppressed(4567)
    found = take(opened(), 1)[0]
    line = entry(found.time, found.host, found.identifier, found.pid, found.message)
    assert line is not None
    assert (line.what, line.values["count"]) == ("suppressed", "4567")


def test_a_flood_comes_in_bounded_batches_and_whole(daemon: Daemon, opened: Callable[..., Journal]) -> None:
    daemon.log(*(b"postfix/smtp[1]: %d" % number for number in range(5000)))
    journal = opened()
    found: list[Entry] = []
    end = time.monotonic() + 30
    while len(found) < 5000:
        assert time.monotonic() < end
        batch = journal.read(0.2)
        assert len(batch.entries) <= 2000
        found += batch.entries
        journal.accept(batch)
    assert texts(found) == [str(number) for number in range(5000)]


def test_reading_what_has_not_come_takes_no_longer_than_it_may(opened: Callable[..., Journal]) -> None:
    journal = opened()
    for _ in range(5):
        begin = time.monotonic()
        assert journal.read(0.05).entries == ()
        assert time.monotonic() - begin < 1.0


def test_without_journalctl_nothing_comes_and_nothing_breaks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, opened: Callable[..., Journal]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert opened().read(0.01) == Batch((), None)


def stand_in(tmp_path: Path, text: bytes) -> None:
    """A journalctl that says just this, for what journald never writes."""
    (tmp_path / "said").write_bytes(text)
    program = tmp_path / "journalctl"
    program.write_text(f"#!/bin/sh\nexec /bin/cat {tmp_path / 'said'}\n")
    program.chmod(0o755)


GOOD = (
    b'{"__CURSOR":"c","__REALTIME_TIMESTAMP":"1795381532047621","MESSAGE":"good","SYSLOG_IDENTIFIER":"postfix/smtp"}\n'
)


@pytest.mark.parametrize(
    "bad",
    [
        b"no json\n",
        b"[]\n",
        b"{}\n",
        b"[" * 100_000 + b"\n",
        b'{"MESSAGE":' + b"x" * 3_000_000 + b"}\n",
        b'{"__CURSOR":"c","__REALTIME_TIMESTAMP":"soon","MESSAGE":"x"}\n',
        b'{"__CURSOR":"c","__REALTIME_TIMESTAMP":"' + b"9" * 400 + b'","MESSAGE":"x"}\n',
        b"\xff\xfe\n",
    ],
    ids=["text", "list", "empty", "deep", "long", "time", "far", "bytes"],
)
def test_an_entry_that_cannot_be_read_is_a_gap(bad: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, bad + GOOD)
    monkeypatch.setenv("PATH", str(tmp_path))
    journal = Journal(None)
    with contextlib.closing(journal):
        assert texts(take(journal, 1)) == ["good"]
    assert journal.gaps == 1


def test_fields_of_any_shape_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = b'{"__CURSOR":"c","__REALTIME_TIMESTAMP":"1",'
    lines = (
        b'"MESSAGE":["a","b"],"SYSLOG_PID":["7","8"]}',
        b'"MESSAGE":null,"SYSLOG_PID":[255],"_PID":"9"}',
        b'"MESSAGE":"x","SYSLOG_PID":"seven","SYSLOG_IDENTIFIER":[112,255],"_HOSTNAME":{}}',
        b'"MESSAGE":[],"_PID":9}',
    )
    stand_in(tmp_path, b"".join(head + line + b"\n" for line in lines))
    monkeypatch.setenv("PATH", str(tmp_path))
    journal = Journal(None)
    with contextlib.closing(journal):
        found = take(journal, 4)
    assert [(each.message, each.pid, each.identifier) for each in found] == [
        (b"a", 7, ""),
        ("", 0, ""),
        ("x", 0, "p\\xff"),
        (b"", 0, ""),
    ]
