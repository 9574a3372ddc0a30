"""`make bench` works: any row alone, its figures in a file, its accounts in order."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.folder import CLONE


def run_bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    env = {"PYTHONPATH": "milter:.", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    command = [sys.executable, "-m", "tests.bench", *arguments]
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
    sent = told["what it left"]["messages sent"]
    assert [(each["row"], each["mail"]) for each in told["results"]] == [("postmeter", "newsletter")]
    assert told["what it left"]["postmeter"] == {
        "messages sent": sent,
        "messages in the journal": sent,
        "refusals in the journal": 0,
        "signatures": sent,
        "links": 25 * sent,
        "ledger, messages in 3600 s": sent,
        "ledger, recipients in 86400 s": sent,
    }


def test_unknown_row_is_told() -> None:
    """A row that does not exist is named, and nothing is run."""
    done = run_bench("--only", "sendmail")
    assert done.returncode == 1
    assert "sendmail" in done.stderr
