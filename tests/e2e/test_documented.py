"""Every command line that a document shows is run as typed, on a host of its own, or stands here with a reason."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys

import pytest

from postmeter.cli.main import Parser, build_parser, load_all
from tests.lab import postgres, redis
from tests.lab.documented import DOCUMENTS, Line, blocks, mentions, shell
from tests.lab.folder import CLONE, new_folder

NOT_RUN = {
    "make run": "the demonstration: tests/e2e/test_demo.py",
    "make test": "what runs this",
    "make deb && apt install ./build/postmeter_*_all.deb": "packaging/try.sh, in a bare Debian",
    "docker build -f packaging/container/Containerfile -t postmeter .": "packaging/container/try.sh, line by line",
    "apt install ./postmeter_1.0.0_all.deb": "packaging/try.sh, which upgrades",
    "apt install gcc libmilter-dev python3-dev python3-venv": "tests/lab/install.sh, and test_what_is_installed below",
    "python3 -m venv /opt/postmeter && /opt/postmeter/bin/pip install .": "tests/test_package.py, without a network",
}
"""Commands that would change the machine itself, and who runs them instead."""

EXITS = {"postmeter doctor": (0, 1)}
"""1 is an answer: of this host's clock, and of DNS, which has little more than keys."""

LANGUAGES = {"sh", "yaml", "cf", "nginx", "text", "json", "python"}
LINES = [line for document in DOCUMENTS for block in shell(document) for line in block]
MENTIONS = [line for document in DOCUMENTS for line in mentions(document)]
_NAMESPACES = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


@pytest.fixture(scope="module")
def told(needs_postfix: None, needs_postgres: None, needs_redis: None) -> dict[str, dict[str, object]]:
    """What each line said, and its exit code."""
    assert not postgres.missing()
    assert not redis.missing()
    folder = new_folder("world")
    command = [*_NAMESPACES, sys.executable, "-m", "tests.lab.world", str(folder), json.dumps(list(NOT_RUN))]
    try:
        done = subprocess.run(command, cwd=CLONE, capture_output=True, text=True, check=False, timeout=900)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert done.returncode == 0, done.stderr + done.stdout
    return {result["line"]: result for result in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("line", [line for line in LINES if line.command not in NOT_RUN], ids=str)
def test_a_command_line_does_as_the_document_says(told: dict[str, dict[str, object]], line: Line) -> None:
    assert told[str(line)]["code"] in EXITS.get(line.command, (0,)), told[str(line)]["said"]


def test_what_is_not_run_is_in_a_document() -> None:
    assert set(NOT_RUN) | set(EXITS) <= {line.command for line in LINES}


def test_a_block_says_what_it_is() -> None:
    """Else a command might stand in one that nobody runs."""
    untold = [block for document in DOCUMENTS for block in blocks(document) if block.language not in LANGUAGES]
    assert [f"{block.document.name}:{block.number}" for block in untold] == []


def test_no_command_stands_outside_of_a_block_for_commands() -> None:
    others = [block for document in DOCUMENTS for block in blocks(document) if block.language != "sh"]
    assert [block for block in others if re.search(r"^postmeter [a-z]", block.text, re.MULTILINE)] == []


def test_what_is_installed_from_source_is_what_the_tests_install() -> None:
    (line,) = [line for line in NOT_RUN if line.startswith("apt install gcc")]
    installed = re.findall(r"[\w-]+", (CLONE / "tests/lab/install.sh").read_text())
    assert set(line.split()[2:]) <= set(installed)


@pytest.mark.parametrize("line", MENTIONS, ids=str)
def test_a_command_in_running_text_exists_with_its_options(line: Line) -> None:
    """What stands for something of the reader's is in capitals, or left out; words between bars are each a command."""
    words = line.text.split()[1:]
    path: list[str] = []
    while words and words[0][:1].islower() and words[0].rstrip("…").isalpha() | ("-" in words[0]):
        path.append(words.pop(0))
    parser: argparse.ArgumentParser = build_parser(load_all())
    for word in path:
        below = _below(parser)
        if below is None:
            break
        assert word in below, line.text
        parser = below[word]
    options = [word for word in words + path if word.startswith("--")]
    assert set(options) <= set(parser._option_string_actions), line.text


@pytest.mark.parametrize("line", [line for document in DOCUMENTS for line in mentions(document, "systemctl")], ids=str)
def test_a_unit_in_running_text_is_one_of_ours(line: Line) -> None:
    """Or of Postfix's, or of Prometheus."""
    ours = {path.name for path in (CLONE / "packaging/systemd").iterdir()}
    _, *units = [word.strip("'") for word in line.text.split()[1:] if not word.startswith("-")]
    others = ("postfix", "postfix@-.service", "prometheus", "postmeter-*")
    assert [unit for unit in units if not {unit, f"{unit}.service"} & ours and unit not in others] == []


def _below(parser: argparse.ArgumentParser) -> dict[str, Parser] | None:
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found[0].choices) if found else None
