"""`postmeter web` as a process: who it runs as, what it may read, when it notices a change, how it stops."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from postmeter.cli.main import main
from postmeter.runtime import spool
from postmeter.store.journal import Journal
from postmeter.tracking import blocked
from tests.bench import cpu
from tests.lab.redirects import Place, opened
from tests.lab.waiting import wait_for

ROOT = os.geteuid() == 0
USER = "nobody"


@pytest.fixture
def place() -> Iterator[Place]:
    with opened() as found:
        yield found


@pytest.fixture
def running(place: Place) -> Iterator[subprocess.Popen[bytes]]:
    with place.running() as process:
        yield process


def test_a_stop_signal_ends_it_in_order_and_at_once(place: Place, running: subprocess.Popen[bytes]) -> None:
    idle = socket.create_connection(("127.0.0.1", place.port))
    running.send_signal(signal.SIGTERM)
    assert running.wait(5) == 0

    idle.close()


def test_new_secrets_are_taken_up_and_old_ones_given_up(place: Place, running: subprocess.Popen[bytes]) -> None:
    new = secrets.token_bytes(32)
    place.keep_secrets(new, place.secret)
    wait_for(lambda: place.status(secret=new) == 302)
    assert place.status() == 302
    place.keep_secrets(new)
    wait_for(lambda: place.status() == 404)
    assert place.status(secret=new) == 302
    (place.path / "secrets").write_text("nonsense\n")
    running.send_signal(signal.SIGUSR1)
    assert place.status(secret=new) == 302


def test_a_reload_takes_up_new_hosts_and_a_bad_configuration_changes_nothing(
    place: Place, running: subprocess.Popen[bytes]
) -> None:
    (old,) = set(cpu.tree(running.pid)) - {running.pid}
    place.write(host="new.example")
    running.send_signal(signal.SIGUSR1)
    wait_for(lambda: old not in cpu.tree(running.pid))
    assert place.status(host="new.example") == 302
    assert place.status() == 404
    place.config.write_text("nonsense: 1\n")
    running.send_signal(signal.SIGUSR1)
    assert place.status(host="new.example") == 302


def test_a_port_in_use_is_a_configuration_error(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", place.port)):
        assert main(["web", "-c", str(place.config)]) == 78
    assert f"{place.config}:2: web.listen: 127.0.0.1:{place.port} is in use" in capfd.readouterr().err


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_as_root_it_becomes_the_web_user_who_can_read_neither_journal_nor_keys(place: Place) -> None:
    """Its code may lie where only root may enter: everything is loaded by then."""
    place.user = USER
    place.source = place.path / "source"
    shutil.copytree("milter", place.source, ignore=shutil.ignore_patterns("__pycache__"))
    place.source.chmod(0o700)
    place.write()
    place.keep_secrets(place.secret)
    Journal(place.state / "journal.db").close()
    (place.path / "key.pem").touch(0o600)
    process = place.start()
    try:
        entry = pwd.getpwnam(USER)
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert f"Uid:\t{entry.pw_uid}\t{entry.pw_uid}\t{entry.pw_uid}\t{entry.pw_uid}\n" in status
        assert f"Gid:\t{entry.pw_gid}\t{entry.pw_gid}\t{entry.pw_gid}\t{entry.pw_gid}\n" in status
        assert f"Groups:\t{' '.join(map(str, sorted(os.getgrouplist(USER, entry.pw_gid))))} \n" in status
        for forbidden in ("state/journal.db", "key.pem"):
            assert not _may_read(place.path / forbidden)
        assert _may_read(place.path / "secrets")
        (file,) = spool.files(place.state / "spool" / "hits", "hits")
        assert file.stat().st_uid == entry.pw_uid
        assert file.read_bytes().count(b"\n") == 1
        blocked.write(blocked.place(place.state), messages=[b"referenc".hex()], hosts=[])
        wait_for(lambda: place.status() == 410, within=5)
    finally:
        process.terminate()
        assert process.wait(5) == 0


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
@pytest.mark.parametrize("user", ["", USER])
def test_a_server_that_stays_root_says_so(place: Place, user: str, capfd: pytest.CaptureFixture[str]) -> None:
    place.user = user
    place.write()
    place.keep_secrets(place.secret)
    with place.running():
        pass
    assert ("warning web[" in (said := capfd.readouterr().err)) == (not user), said
    assert ("runs as root: name another user, web.user" in said) == (not user)


def _may_read(path: Path) -> bool:
    tried = subprocess.run(["/bin/cat", path], user=USER, group=pwd.getpwnam(USER).pw_gid, extra_groups=[],
                           capture_output=True, check=False)  # fmt: skip
    return tried.returncode == 0
