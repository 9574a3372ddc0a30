"""Real small programs as children: who is started again, who is stopped first, what ends everything."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from postmeter.runtime.children import Program
from tests.lab.waiting import wait_for

PATIENCE = 20.0


def _parent(tmp_path: Path, *scripts: str, more: int = 0) -> subprocess.Popen[bytes]:
    """A process that runs `scripts`, shell programs named a, b, c …, as its children; the last `more` from a reload."""
    programs = [Program(chr(97 + n), ("/bin/sh", "-c", text), 1.0) for n, text in enumerate(scripts)]
    source = f"""
        import logging, os
        from postmeter.runtime.children import Children, Program
        from postmeter.runtime.notify import Notifier
        from postmeter.runtime.signals import Signals
        logging.basicConfig()
        with Signals() as signals:
            notifier = Notifier(os.environ["NOTICES"])
            children = Children(
                {programs[: len(programs) - more]!r}, environment=os.environ, signals=signals, notifier=notifier,
                delay=0.05, more=lambda: {programs!r},
            )
            raise SystemExit(children.run())
    """
    command = [sys.executable, "-c", textwrap.dedent(source)]
    places = {"LOG": str(tmp_path / "log"), "NOTICES": str(tmp_path / "notices")}
    environment = {**os.environ, **places, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


def _lines(tmp_path: Path) -> list[str]:
    log = tmp_path / "log"
    return log.read_text().splitlines() if log.exists() else []


def _wait_for(tmp_path: Path, line: str, *, times: int = 1) -> None:
    def failed() -> str:
        return f"no {line!r} among {_lines(tmp_path)}"

    wait_for(lambda: _lines(tmp_path).count(line) >= times, within=PATIENCE, else_=failed)


LIVE = 'trap "echo {0} stops >>$LOG; exit 0" TERM; echo {0} lives >>$LOG; while :; do sleep 0.05; done'


def test_the_first_is_stopped_before_the_others(tmp_path: Path) -> None:
    slow = 'trap "sleep 0.3; echo a stops >>$LOG; exit 0" TERM; echo a lives >>$LOG; while :; do sleep 0.05; done'
    with _parent(tmp_path, slow, LIVE.format("b")) as parent:
        _wait_for(tmp_path, "a lives")
        _wait_for(tmp_path, "b lives")
        parent.terminate()
        assert parent.wait(PATIENCE) == 0
    assert _lines(tmp_path)[-2:] == ["a stops", "b stops"]


def test_who_dies_is_started_again(tmp_path: Path) -> None:
    with _parent(tmp_path, LIVE.format("a"), "echo b dies >>$LOG; exit 3") as parent:
        _wait_for(tmp_path, "b dies", times=3)
        parent.terminate()
        assert parent.wait(PATIENCE) == 0
        assert parent.stderr is not None
        assert b"b ended with code 3; again in" in parent.stderr.read()


def test_a_wrong_configuration_ends_everything(tmp_path: Path) -> None:
    with _parent(tmp_path, LIVE.format("a"), "while ! grep -q 'a lives' $LOG; do sleep 0.05; done; exit 78") as parent:
        assert parent.wait(PATIENCE) == 78
    assert _lines(tmp_path) == ["a lives", "a stops"]


def test_a_reload_is_passed_on(tmp_path: Path) -> None:
    with _parent(tmp_path, 'trap "echo reloads >>$LOG" USR1; ' + LIVE.format("a")) as parent:
        _wait_for(tmp_path, "a lives")
        parent.send_signal(signal.SIGUSR1)
        _wait_for(tmp_path, "reloads")
        parent.send_signal(signal.SIGINT)
        assert parent.wait(PATIENCE) == 0


SAY = f"{sys.executable} -c 'from postmeter.runtime.notify import Notifier as N; N.from_environment().ready()'"


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(tmp_path / "notices"))
        notices.settimeout(PATIENCE)
        yield notices


def test_all_are_ready_when_the_last_of_them_is(tmp_path: Path, systemd: socket.socket) -> None:
    """Each says so to a socket of its own, as to systemd; a child that dies before is waited for."""
    late = f"test -e $LOG.again || {{ touch $LOG.again; exit 1; }}; echo b says >>$LOG; {SAY}; exec sleep 60"
    with _parent(tmp_path, f"echo a says >>$LOG; {SAY}; exec sleep 60", late) as parent:
        assert systemd.recv(1000) == b"READY=1"
        assert sorted(_lines(tmp_path)) == ["a says", "b says"]
        parent.terminate()
        assert parent.wait(PATIENCE) == 0


def test_a_reload_is_done_when_all_have_said_so(tmp_path: Path, systemd: socket.socket) -> None:
    script = f'trap "echo reloads >>$LOG; {SAY}" USR1; {SAY}; while :; do sleep 0.05; done'
    with _parent(tmp_path, script) as parent:
        assert systemd.recv(1000) == b"READY=1"
        parent.send_signal(signal.SIGUSR1)
        assert systemd.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert systemd.recv(1000) == b"READY=1"
        assert _lines(tmp_path) == ["reloads"]
        parent.terminate()
        assert parent.wait(PATIENCE) == 0


def test_a_reload_starts_what_was_not_wanted_before_and_nothing_twice(tmp_path: Path) -> None:
    first = LIVE.format("a").replace('trap "', 'trap "echo reloaded >>$LOG" USR1; trap "', 1)
    with _parent(tmp_path, first, LIVE.format("b"), more=1) as parent:
        _wait_for(tmp_path, "a lives")
        parent.send_signal(signal.SIGUSR1)
        _wait_for(tmp_path, "b lives")
        parent.terminate()
        assert parent.wait(PATIENCE) == 0
    assert [line for line in _lines(tmp_path) if line != "reloaded"] == ["a lives", "b lives", "a stops", "b stops"]


def test_who_does_not_stop_is_killed(tmp_path: Path) -> None:
    with _parent(tmp_path, 'trap "" TERM; echo a lives >>$LOG; while :; do sleep 0.05; done') as parent:
        _wait_for(tmp_path, "a lives")
        parent.terminate()
        assert parent.wait(PATIENCE) == 0


def test_nobody_outlives_a_killed_parent(tmp_path: Path) -> None:
    with _parent(tmp_path, LIVE.format("a")) as parent:
        _wait_for(tmp_path, "a lives")
        parent.kill()
        _wait_for(tmp_path, "a stops")
