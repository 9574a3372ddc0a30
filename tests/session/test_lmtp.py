"""What a client says over LMTP, well-formed or not: a message is kept as smtplib would have sent it, no bug shows."""

from __future__ import annotations

import io
import smtplib
import stat
import tempfile
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postmeter.cli.receiving import Receiving
from postmeter.config.load import Loaded, load_with_lines
from postmeter.feedback.arrivals import Arrivals
from postmeter.feedback.lmtp import Conversation
from postmeter.store.journal import Journal
from tests.lab.ports import free_port

ENVELOPE = b"LHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n"
pieces = st.lists(st.sampled_from([b"\r\n", b".", b"\r", b"\n", b"x", b"\xff", b"y" * 70_000]) | st.binary(max_size=9))


def say(said: bytes) -> tuple[list[bytes], bytes]:
    """The messages that were kept, and what was answered."""
    told: list[bytes] = []
    with tempfile.TemporaryDirectory() as folder:
        arrivals = Arrivals(Path(folder))
        with suppress(ConnectionAbortedError):
            Conversation(io.BytesIO(said), told.append, arrivals, host="mx.example.com").run()
        kept = [arrival.raw for name in arrivals.names() if (arrival := arrivals.read(name))]
        assert len(list(Path(folder).iterdir())) == len(kept)
        return kept, b"".join(told)


@settings(max_examples=100, deadline=None)
@given(pieces.map(b"".join))
def test_a_message_is_kept_as_it_was(raw: bytes) -> None:
    """With its dots stuffed by Python's own client."""
    raw = raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") + b"\r\n"
    wire = smtplib._quote_periods(raw)  # type: ignore[attr-defined]
    kept, told = say(ENVELOPE + wire + b".\r\nQUIT\r\n")
    assert kept == [raw]
    assert told.endswith(b"\r\n221 2.0.0 bye\r\n")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(ENVELOPE.splitlines(keepends=True)) | st.binary(max_size=40)).map(b"".join))
def test_whatever_is_said_is_answered_in_ascii_and_never_fails(said: bytes) -> None:
    _, told = say(said)
    assert told.isascii()
    assert all(line[:3].isdigit() for line in told.split(b"\r\n") if line)


@settings(max_examples=50, deadline=None)
@given(pieces.map(b"".join))
def test_only_a_dot_alone_between_crlf_ends_a_message(raw: bytes) -> None:
    kept, _ = say(ENVELOPE + raw)
    ends = (b"\r\n" + raw).find(b"\r\n.\r\n")
    assert len(kept) >= (ends >= 0)
    assert bool(kept) == (ends >= 0)


# --- the listener


def configured(folder: Path, lmtp: str, *, mode: str = "0660") -> Loaded:
    file, secrets = folder / "postmeter.yaml", folder / "bounces.secrets"
    secrets.write_text("00" * 32 + "\n")
    secrets.chmod(0o600)
    file.write_text(
        f"journal: {{path: {folder}/journal.db}}\nmilter: {{socket_group: null, socket_mode: '{mode}'}}\n"
        f"bounces: {{domains: {{example.com: b@example.com}}, lmtp: '{lmtp}', secrets: {secrets}}}\n"
    )
    return load_with_lines(file)


@pytest.mark.parametrize("inet", [False, True])
def test_a_reload_may_give_the_same_address_another_mode(tmp_path: Path, *, inet: bool) -> None:
    """We are not in our own way there, and a connection that there is goes on."""
    path, port = tmp_path / "feedback.sock", free_port()
    where, place = (f"inet:127.0.0.1:{port}", ("127.0.0.1", port)) if inet else (f"unix:{path}", (str(path), 0))
    receiving = Receiving(failed=lambda chore: None)
    receiving.take(configured(tmp_path, where), host="mx.example.com")
    with closing(receiving), smtplib.LMTP(*place, local_hostname="x") as held:
        receiving.take(configured(tmp_path, where, mode="0600"), host="mx.example.com")
        with smtplib.LMTP(*place, local_hostname="x") as link:
            assert link.noop()[0] == 250
        assert held.noop()[0] == 250
        assert inet or stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_socket_that_somebody_removed_is_there_again(tmp_path: Path) -> None:
    """And a connection that there is goes on."""
    path = tmp_path / "feedback.sock"
    loaded = configured(tmp_path, f"unix:{path}")
    receiving = Receiving(failed=lambda chore: None)
    receiving.take(loaded, host="mx.example.com")
    with closing(receiving), closing(Journal(tmp_path / "journal.db")) as journal:
        returns = next(chore for chore in receiving.chores(loaded.config, lambda: journal) if chore.name == "returns")
        with smtplib.LMTP(str(path), local_hostname="x") as held:
            path.unlink()
            returns.work()
            with smtplib.LMTP(str(path), local_hostname="x") as link:
                assert link.noop()[0] == 250
            assert held.noop()[0] == 250
    assert not path.exists()
