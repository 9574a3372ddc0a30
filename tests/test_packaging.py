"""What packages install besides the program says what the program does."""

from __future__ import annotations

import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

UNITS = Path(__file__).parent.parent / "packaging" / "systemd"


def _unit(name: str) -> RawConfigParser:
    unit = RawConfigParser(strict=False, delimiters=("=",))
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # configparser's own way to keep the case of keys
    unit.read(UNITS / name)
    return unit


def test_the_unit_that_runs_as_root_does_nothing_but_release() -> None:
    """Root for postsuper(1) alone: no daemon, no shell, nothing that takes input."""
    from postmeter.cli.main import _parse

    service = _unit("postmeter-release.service")["Service"]
    program, *words = service["ExecStart"].split()
    command, args = _parse(words)
    assert (program, command.name, args.due, args.delete) == ("/usr/bin/postmeter", "quota", True, False)
    assert [key for key in service if key.startswith("Exec")] == ["ExecStart"]
    assert set(service["CapabilityBoundingSet"].split()) <= {
        "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID", "CAP_CHOWN",
    }  # fmt: skip


def test_nothing_is_released_before_somebody_enables_the_timer() -> None:
    """The service has no [Install] section; the timer has one, and names the service by its own name."""
    assert not _unit("postmeter-release.service").has_section("Install")
    assert _unit("postmeter-release.timer")["Install"]["WantedBy"] == "timers.target"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not there")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    for path in UNITS.iterdir():
        (tmp_path / path.name).write_text(path.read_text().replace("/usr/bin/postmeter", "/bin/true"))
    command = ["systemd-analyze", "verify", *map(str, tmp_path.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
