"""What comes back is sent by strangers: they hold up nobody, reach no other file, and steer no terminal."""

from __future__ import annotations

import os
import pty
import smtplib
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postmeter.books import forwarding, returns
from postmeter.books.returns import FORWARD, KEPT
from postmeter.events import Bounced
from postmeter.feedback import lmtp
from postmeter.feedback.arrivals import Arrivals, Envelope
from postmeter.feedback.lmtp import Lmtp
from tests.lab.product import python_environment
from tests.lab.reports import dsn, vacation
from tests.lab.sink import Sink
from tests.session.test_returns import ALICE, BASE, NOW, RETURN_PATH, Desk, Place, command, open_desk, passing_on

__all__ = ["command"]

BOUNCE = dsn("reader@example.net", to=RETURN_PATH)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return open_desk(tmp_path)


# --- the spool


def test_strangers_fill_what_is_kept_and_bounces_are_still_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returns, "_MOST_KEPT", 5)
    monkeypatch.setattr("postmeter.feedback.arrivals._LOOK", 0.0)
    desk = open_desk(tmp_path)
    for number in range(30):
        desk.new.put(Envelope(time=NOW, recipients=(BASE,)), b"Subject: %d\r\n\r\n" % number)
    desk.come(BOUNCE)
    assert [type(event) for event in desk.events()] == [Bounced]
    kept = [arrival.raw for name in desk.kept.names() if (arrival := desk.kept.read(name))]
    assert len(kept) <= 10
    assert kept[-1] == b"Subject: 29\r\n\r\n"
    assert desk.figures() == {"untrusted": 30, "bounce": 1, "dropped": 30 - len(kept)}


def test_answers_that_no_server_takes_do_not_stop_bounces(desk: Desk) -> None:
    desk.returns._forward = Arrivals(desk.forward.directory, most=0)
    desk.come(vacation(to=RETURN_PATH))
    desk.come(BOUNCE)
    assert len(desk.events()) == 1
    assert desk.new.names() == []
    assert desk.why() == ["not passed on: too many wait for that"]


def test_links_and_pipes_in_the_spool_are_not_read(desk: Desk, tmp_path: Path) -> None:
    """An alias's program runs as another user, who may write here."""
    secret = tmp_path / "secret"
    secret.write_text("{}\nsecret\n")
    desk.new.directory.mkdir(parents=True)
    (desk.new.directory / "0.eml").symlink_to(secret)
    os.mkfifo(desk.new.directory / "1.eml")
    (desk.new.directory / "2.eml").mkdir()
    desk.come(BOUNCE)
    assert len(desk.events()) == 1
    assert desk.kept.names() == []
    assert desk.new.read("0.eml") is desk.new.read("1.eml") is desk.new.read("2.eml") is None
    assert desk.new.move("0.eml", desk.kept) is False
    assert secret.read_text() == "{}\nsecret\n"


def test_a_file_that_may_not_be_read_is_set_aside(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    name = desk.new.put(Envelope(time=NOW, recipients=(RETURN_PATH,)), b"x")
    real = Arrivals.read

    def read(self: Arrivals, asked: str) -> object:
        if asked == name:
            raise PermissionError(13, "Permission denied", asked)
        return real(self, asked)

    monkeypatch.setattr(Arrivals, "read", read)
    desk.come(BOUNCE)
    assert len(desk.events()) == 1
    assert [path.name for path in desk.new.directory.iterdir()] == [f".{name}.unreadable"]


def test_an_envelope_as_large_as_a_client_can_make_it_is_read_back(desk: Desk) -> None:
    envelope = Envelope(time=NOW, sender="", recipients=("\u00e9" * 500 + "@example.net",) * 1000)
    name = desk.new.put(envelope, b"Subject: x\r\n\r\n")
    arrival = desk.new.read(name)
    assert arrival
    assert (arrival.envelope, arrival.raw) == (envelope, b"Subject: x\r\n\r\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_makes_belongs_to_who_reads_it(tmp_path: Path) -> None:
    """`postmeter feedback` by hand, before books ever ran."""
    os.chown(tmp_path, 65534, 65534)
    arrivals = Arrivals(tmp_path / "spool" / "returns" / "new")
    name = arrivals.put(Envelope(time=NOW), b"x")
    for path in (tmp_path / "spool", tmp_path / "spool" / "returns", arrivals.directory, arrivals.directory / name):
        assert path.stat().st_uid == 65534


def test_what_is_written_can_be_read_by_the_group_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        arrivals = Arrivals(tmp_path / "new")
        name = arrivals.put(Envelope(time=NOW), b"x")
    finally:
        os.umask(before)
    assert (arrivals.directory / name).stat().st_mode & 0o777 == 0o640


# --- the listener


@pytest.fixture
def crowded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(lmtp, "_SESSIONS", 3)
    bound = socket.create_server(("127.0.0.1", 0))
    served = Lmtp(bound, Arrivals(tmp_path / "new"), host="mx.example.com")
    yield bound.getsockname()[1]
    served.close()
    bound.close()


def test_connections_that_bring_nothing_make_room(crowded: int, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = [socket.create_connection(("127.0.0.1", crowded), timeout=10) for _ in range(3)]
    for link in idle:
        assert link.recv(100).startswith(b"220")
        link.sendall(b"LHLO me\r\n")
    with socket.create_connection(("127.0.0.1", crowded), timeout=10) as one:
        assert one.recv(100).startswith(b"421")
    monkeypatch.setattr(lmtp, "_HURRY", 0.0)
    for _ in range(5):
        with smtplib.LMTP("127.0.0.1", crowded, timeout=10) as client:
            client.sendmail("", ["a@b"], b"Subject: x\r\n\r\n")
    for link in idle:
        link.close()


def test_a_host_without_threads_for_a_moment_still_takes_what_comes_then(
    crowded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TasksMax of the unit, or pids of a container, used up."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as without:
        without.setattr(threading.Thread, "start", start)
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", crowded), timeout=10) as one:
                assert one.recv(100).startswith(b"421")
    with smtplib.LMTP("127.0.0.1", crowded, timeout=10) as client:
        client.sendmail("", ["a@b"], b"Subject: x\r\n\r\n")


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        (b"<a\0b@c>", b"501"),
        (b"<a\x1bb@c>", b"501"),
        (b'<"a>b c"@d>', b"250"),
        (b'<"a\\">b"@d>', b"250"),
        (b"<" + b"a" * 1025 + b">", b"501"),
        (b"<" + b'"' * 3000 + b">", b"501"),
        ("<jörg@bücher.example>".encode(), b"250"),
    ],
)
def test_paths_are_read_as_they_may_be_written(tmp_path: Path, path: bytes, answer: bytes) -> None:
    """RFC 5321 section 4.1.2. A control character would stop the database of all hosts."""
    import io

    told: list[bytes] = []
    said = b"LHLO me\r\nMAIL FROM:<>\r\nRCPT TO:" + path + b"\r\n"
    lmtp.Conversation(io.BytesIO(said), told.append, Arrivals(tmp_path), host="mx.example.com").run()
    assert told[-1][:3] == answer


# --- passing on


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([b"\r\n", b".", b"\r", b"\0", b"\xff\xfe", b"From ", b"x" * 70_000]), max_size=20))
def test_octets_come_out_of_the_chain_as_they_went_in(pieces: list[bytes]) -> None:
    """Through the listener, the spool and notify.smtp; what a mail server may send, which is no LF alone."""
    raw = b"Subject: x\r\n\r\n" + b"".join(pieces) + b"\r\n"
    with tempfile.TemporaryDirectory() as folder, Sink() as sink:
        bound = socket.create_server(("127.0.0.1", 0))
        served = Lmtp(bound, Arrivals(Path(folder) / "new"), host="mx.example.com")
        with smtplib.LMTP("127.0.0.1", bound.getsockname()[1], timeout=10) as client:
            client.sendmail("", [ALICE], raw)
        served.close()
        bound.close()
        passing_on(Arrivals(Path(folder) / "new"), Arrivals(Path(folder) / KEPT), sink.port).work()
        [arrived] = sink.wait(1)
        assert arrived.data.partition(b"\r\n\t")[2].partition(b"\r\n")[2] == raw


def test_one_sender_whom_the_server_does_not_take_now_holds_up_no_other(tmp_path: Path) -> None:
    waiting, kept = Arrivals(tmp_path / FORWARD), Arrivals(tmp_path / KEPT)
    for number in range(30):
        to = ALICE if number in (7, 29) else f"busy{number}@example.com"
        waiting.put(Envelope(time=NOW, sender="", recipients=(to,)), vacation(to=to))
    with Sink() as sink:
        sink.answer = lambda asked: "450 4.2.1 later" if b"busy" in asked.lower() else "250 2.1.5 ok"
        passing = passing_on(waiting, kept, sink.port)
        assert passing.work() is True
        assert passing.work() is False
        assert {each.rcpt_to for each in sink.wait(2)} == {(ALICE.encode(),)}
    assert (len(waiting.names()), kept.names()) == (28, [])


def test_a_message_that_ends_the_connection_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "_FIRST", 0.0)
    monkeypatch.setattr(forwarding, "_MOST", 0.0)
    waiting, kept = Arrivals(tmp_path / FORWARD), Arrivals(tmp_path / KEPT)
    for to in ("poison@example.com", ALICE):
        waiting.put(Envelope(time=NOW, sender="", recipients=(to,)), vacation(to=to))
    with Sink() as sink:
        sink.answer = lambda asked: "421 4.3.2 bye" if b"poison" in asked else "250 2.1.5 ok"
        passing = passing_on(waiting, kept, sink.port)
        passing.work()
        passing.work()
        assert [each.rcpt_to for each in sink.wait(1)] == [(ALICE.encode(),)]
    assert len(waiting.names()) == 1


# --- the command


def test_what_is_shown_on_a_terminal_does_not_steer_it(command: Place) -> None:
    kept = Arrivals(returns.place(command.folder / "state", KEPT))
    raw = b"Subject: \x1b[2J\r\n\r\n\x9b \xc2\x9b31m Gr\xc3\xbc\xc3\x9fe\x07\r\n"
    kept.put(Envelope(time=NOW, recipients=("a\x1b@b",)), raw, name="1.eml")
    python, known = python_environment()
    ours, theirs = pty.openpty()
    done = subprocess.Popen(
        [python, "-s", "-P", "-m", "postmeter", "feedback", "show", "1", "-c", f"{command.folder}/postmeter.yaml"],
        stdout=theirs, env=known,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # the other side is gone
        pass
    os.close(ours)
    assert done.wait(timeout=60) == 0
    assert b"Subject: ?[2J" in shown
    assert "Grüße?".encode() in shown
    assert b"\x1b" not in shown
    assert b"\xc2\x9b" not in shown
    assert b"\x1b" not in command.run("list")[1]


def test_an_argument_that_is_no_text_makes_an_envelope_that_can_be_written(command: Place) -> None:
    assert command.run("--sender=\udcff@x", "--recipient=\udcfe@x", stdin=b"x", ORIGINAL_RECIPIENT="\udcfd")[0] == 0
    envelope = replace(command.envelope(), time=0.0)
    assert envelope == Envelope(time=0.0, sender="\\xff@x", recipients=("\\xfe@x",))


def test_a_header_of_three_million_lines_is_no_work(desk: Desk) -> None:
    """Only its beginning is looked at, for servers that it has been through."""
    begun = time.process_time()
    desk.come(b"Subject: Out of office\r\n" + b"X:\r\n" * 3_000_000 + b"\r\n")
    assert time.process_time() - begun < 3
    assert len(desk.forward.names()) == 1
