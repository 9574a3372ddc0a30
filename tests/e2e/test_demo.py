"""`make run`, what a newcomer sees: it holds, says so by its exit status, and leaves nothing running."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.folder import CLONE

pytestmark = pytest.mark.usefixtures("needs_postfix", "needs_verifiers")
BOUND = 120.0


def start(*, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.lab.demo"]
    env = {**os.environ, "PYTHONPATH": "milter:."}
    return subprocess.Popen(command, cwd=CLONE, env=env, stdin=stdin, stdout=stdout, stderr=subprocess.STDOUT)


def pids_of(folder: str, program: str = "") -> list[int]:
    """Living processes whose environment names the demonstration's folder, and their command line the program."""
    return [pid for pid, line in _processes(folder) if program in line]


def left_of(folder: str) -> list[str]:
    """Living processes of the demonstration by their command lines."""
    return [line for _, line in _processes(folder)]


def _processes(folder: str) -> Iterator[tuple[int, str]]:
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone by now
            if folder.encode() in (path / "environ").read_bytes():
                yield int(path.name), (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()


def folder_in(output: str) -> str:
    named = re.search(r"(/var/tmp/postmeter-demo-\w+)/socket", output)
    assert named, output
    return named[1]


def test_without_a_terminal_it_shows_everything_and_exits_0() -> None:
    """A diff, other people's verdicts, a redirect, a refusal, a bounce, a report, the figures; no escape sequences."""
    process = start()
    output = process.communicate(timeout=BOUND)[0].decode()
    assert process.returncode == 0, output
    for part in (
        r"\+DKIM-Signature: v=1; a=rsa-sha256",
        r"OpenDKIM: rsa-sha256 \S+: pass; ed25519-sha256 \S+: pass",
        r"302 Location: https://garden\.example/",
        r"451 4\.7\.1 bob@example\.org: 3 of 3 recipients",
        r"gone@example\.net: bounced hard",
        r"bounced hard +1 +16\.7% of decided",
        r'postmeter_messages_total\{result="accepted",service="ORIGINATING"\} 6\.0',
    ):
        assert re.search(part, output), f"no {part} in\n{output}"
    assert "\033" not in output
    assert left_of(folder_in(output)) == []
    assert not Path(folder_in(output)).exists()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_in_the_middle_leaves_nothing(how: signal.Signals) -> None:
    process = start()
    assert process.stdout
    seen = b""
    while b"DKIM-Signature" not in seen and (line := process.stdout.readline()):
        seen += line
    folder = folder_in(seen.decode())
    assert left_of(folder), "nothing ran, so nothing could be left"
    process.send_signal(how)
    process.communicate(timeout=BOUND)
    assert process.returncode == 128 + how
    assert left_of(folder) == []
    assert not Path(folder).exists()


@pytest.mark.parametrize("program", ["postmeter run", "lib/postfix/sbin/master"])
def test_a_step_that_does_not_hold_is_named_and_leaves_nothing(program: str) -> None:
    """Whatever died in the middle; the reason says where it was, the log of postmeter stands above it."""
    process = start()
    assert process.stdout
    seen = b""
    while b"What other people" not in seen and (line := process.stdout.readline()):
        seen += line
    folder = folder_in(seen.decode())
    for pid in pids_of(folder, program):
        os.kill(pid, signal.SIGKILL)
    output = process.communicate(timeout=BOUND)[0].decode()
    assert process.returncode == 1, output
    assert "2 workers ready" in output
    assert re.search(r"(?m)^FAILED  (A reader follows a link|Bob may write to 3 recipients .*): \S", output), output
    assert left_of(folder) == []
    assert not Path(folder).exists()


def test_on_a_terminal_it_stays_until_ctrl_c() -> None:
    """It says how to send mail of one's own, and ends well."""
    ours, theirs = pty.openpty()
    process = start(stdin=theirs, stdout=theirs)
    os.close(theirs)
    try:
        output = read_until(ours, lambda text: "Ctrl-C stops everything" in text)
        assert re.search(r"swaks --server 127\.0\.0\.1:\d+ --auth", output)
        assert re.search(r"http://127\.0\.0\.1:\d+/metrics", output)
        assert "\033[" in output
        asked = re.search(r"PYTHONPATH=milter .* -m postmeter report -c \S+", output)
        assert asked
        assert "alice@example.com" in subprocess.check_output(f"{asked[0]} --by login", shell=True, text=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(BOUND) == 0
    finally:
        process.kill()
        os.close(ours)
    assert left_of(folder_in(output)) == []


def read_until(fd: int, enough: Callable[[str], bool]) -> str:
    seen = b""
    until = time.monotonic() + BOUND
    while not enough(text := seen.decode("utf-8", "replace")):
        assert time.monotonic() < until, text
        try:
            piece = os.read(fd, 65536)
        except OSError:  # how a pseudo terminal says that its other end is closed
            piece = b""
        assert piece, text
        seen += piece
    return seen.decode("utf-8", "replace")
