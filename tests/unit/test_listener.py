"""The listening socket: shared by workers, reached by Postfix, never taken from another program."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from postmeter.config.schema import InetAddress, Milter, UnixAddress
from postmeter.runtime.listener import listen


def milter(path: Path, mode: int = 0o660) -> Milter:
    return Milter(listen=UnixAddress(path), socket_group=None, socket_mode=mode)


def test_accepted_inet_sockets_do_not_wait_for_acknowledgements() -> None:
    """TCP_NODELAY is inherited from the listener: without it each added header waits 44 ms (D40)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    listener = listen(Milter(listen=InetAddress("127.0.0.1", port)))
    with listener.socket, socket.create_connection(("127.0.0.1", port)):
        accepted, _ = listener.socket.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_listener_does_not_block(tmp_path: Path) -> None:
    """Of several workers woken by one connection the losers must not hang in accept (D39)."""
    listener = listen(milter(tmp_path / "s"))
    with listener.socket, pytest.raises(BlockingIOError):
        listener.socket.accept()


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_the_mode_is_as_configured_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        with listen(milter(tmp_path / "s", mode)).socket:
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == mode
    finally:
        os.umask(before)


def test_a_leftover_is_replaced_and_a_live_one_never(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listen(milter(path)).socket, pytest.raises(OSError, match="another program listens here"):
        listen(milter(path))
    with listen(milter(path)).socket as bound:
        assert bound.getsockname() == str(path)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("mine")
    with pytest.raises(OSError, match="in use"):
        listen(milter(tmp_path / "s"))
    assert (tmp_path / "s").read_text() == "mine"


def test_forgetting_removes_our_name_and_nobody_elses(tmp_path: Path) -> None:
    """A successor may have bound the same path meanwhile (D23)."""
    path = tmp_path / "s"
    first = listen(milter(path))
    path.rename(tmp_path / "kept")  # the inode stays in use, so that the successor has another
    second = listen(milter(path))
    first.forget()
    assert path.is_socket()
    second.forget()
    assert not path.exists()
