"""What real shells complete behind `postmeter`: its commands, their words, options, a few values, and else files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from postmeter.cli.main import COMMANDS
from tests.lab import shell
from tests.lab.folder import CLONE
from tests.lab.shell import Zsh

ALL = {name for name, _ in COMMANDS}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As packaging/debian/rules makes them."""
    folder = tmp_path_factory.mktemp("completion")
    env = {**os.environ, "PYTHONPATH": str(CLONE / "milter")}
    for name in ("bash", "zsh", "fish"):
        command = [sys.executable, str(CLONE / "packaging" / "completion.py"), name]
        made = subprocess.run(command, check=True, capture_output=True, env=env)
        (folder / name).write_bytes(made.stdout)
    return folder


def needs(name: str) -> None:
    if shell.missing(name):
        if os.environ.get("POSTMETER_ALL"):
            pytest.fail(shell.missing(name))
        pytest.skip(shell.missing(name))


def test_bash(scripts: Path) -> None:
    needs("bash")

    def completed(*words: str) -> list[str]:
        return shell.bash(scripts / "bash", "postmeter", *words)

    assert set(completed("")) >= ALL
    assert completed("quo") == ["quota"]
    assert completed("quota", "s") == ["show", "set"]
    assert completed("-c", "/etc/postmeter/postmeter.yaml", "links", "b") == ["block"]
    assert "--once" in completed("books", "--")
    assert completed("report", "--format", "") == ["text", "csv", "json", "html"]
    assert completed("-c", "") == []  # then bash takes files


def test_fish(scripts: Path) -> None:
    needs("fish")

    def completed(text: str) -> dict[str, str]:
        return shell.fish(scripts / "fish", "postmeter", text)

    commands = completed("")
    assert set(commands) >= ALL
    assert commands["doctor"].startswith("tell what is wrong")
    assert set(completed("quo")) == {"quota"}
    assert set(completed("quota s")) == {"show", "set"}
    assert set(completed("-c /etc/hosts links b")) == {"block"}
    assert completed("books --on")["--once"].startswith("read these old logs")
    assert set(completed("report --format ")) == {"text", "csv", "json", "html"}
    assert "/etc/hosts" in completed("-c /etc/host")
    assert "/etc/hosts" in completed("explain /etc/host")
    assert "/etc/hosts" not in completed("quota /etc/host")


@pytest.fixture(scope="module")
def zsh(scripts: Path) -> Iterator[Zsh]:
    needs("zsh")
    with Zsh(scripts / "zsh") as typed:
        yield typed


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("postmeter quo", "postmeter quota "),
        ("postmeter quota rel", "postmeter quota release "),
        ("postmeter books --on", "postmeter books --once "),
        ("postmeter report --format j", "postmeter report --format json "),
        ("postmeter -c /etc/hosts links bl", "postmeter -c /etc/hosts links block "),
        ("postmeter -c /etc/passw", "postmeter -c /etc/passwd"),
        ("postmeter explain /etc/passw", "postmeter explain /etc/passwd"),
    ],
)
def test_zsh_completes_what_is_the_only_one(zsh: Zsh, typed: str, line: str) -> None:
    assert zsh.line(typed).startswith(line)


def test_zsh_shows_what_each_is_for(zsh: Zsh) -> None:
    listed = zsh.listed("postmeter ")
    assert all(name in listed for name in ALL)
    assert "-- used, limit and when there is room again" in zsh.listed("postmeter quota ")
    assert "--json" in zsh.listed("postmeter doctor --")
