"""`make bench` works: any row alone, its figures in a file, its accounts in order."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.folder import CLONE


def run_bench(*arguments: str, module: str = "tests.bench") -> subprocess.CompletedProcess[str]:
    env = {"PYTHONPATH": "milter:.", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=CLONE, env=env, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(autouse=True)
def _postfix(needs_postfix: None) -> None:
    pass


def test_one_row_alone(tmp_path: Path) -> None:
    """Journal, ledger, signatures and links equal the messages sent, and the figures are in the JSON file."""
    file = tmp_path / "bench.json"
    done = run_bench("--only", "postmeter:newsletter", "--rounds", "1", "--messages", "20", "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(file.read_text())
    left = told["what it left"]["speed"]
    sent = left["messages through Postfix"]
    assert (sent > 20, left["Postfix's sent lines"], left["messages lost"], told["wrong"]) == (True, sent, 0, [])
    assert [(each["row"], each["mail"]) for each in told["results"]] == [("postmeter", "newsletter")]
    left["postmeter"].pop("CPU of the books beside")
    assert left["postmeter"] == {
        "messages sent": sent,
        "messages in the journal": sent,
        "refusals in the journal": 0,
        "signatures": sent,
        "links": 25 * sent,
        "not ours": 0,
        "ledger, messages in 3600 s": sent,
        "ledger, recipients in 86400 s": sent,
    }


def test_unknown_row_is_told() -> None:
    """A row that does not exist is named, and nothing is run."""
    done = run_bench("--only", "sendmail")
    assert done.returncode == 1
    assert "sendmail" in done.stderr


def test_profile_names_every_step() -> None:
    """Each step of the pipeline has its line, and together they are no more than the end of the message."""
    done = run_bench("--profile", "--messages", "10")
    assert done.returncode == 0, done.stdout + done.stderr
    table = done.stdout.split("\n\n")[0].splitlines()
    rows = [re.fullmatch(r" +(\D+?) +([0-9.]+) +([0-9.]+)", line) for line in table[2:]]
    least = {row[1]: float(row[2]) for row in rows if row}
    steps = ["identity", "from", "quota", "links", "signing", "edits", "settle", "rest of eom"]
    assert all(least[step] > 0 for step in steps), least
    assert sum(least[step] for step in steps) <= least["eom"] + 1


def test_wire_runs_without_postfix() -> None:
    """Both messages over the bare protocol are taken, by postmeter and by the milter that does nothing."""
    done = run_bench("--messages", "40", "--clients", "2", module="tests.bench.wire")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [
        ["nothing-signer", "plain"],
        ["nothing-signer", "newsletter"],
        ["postmeter", "plain"],
        ["postmeter", "newsletter"],
    ]
