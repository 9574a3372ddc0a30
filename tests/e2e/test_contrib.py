"""The fragments in contrib/postfix are what Postfix understands, and do what their comments say."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.lab.folder import CLONE
from tests.lab.postfix import find_tree

FRAGMENTS = CLONE / "contrib" / "postfix"


@pytest.fixture
def config(needs_postfix: None, tmp_path: Path) -> Path:
    """A configuration that is nothing but the fragments."""
    base = f"compatibility_level = 3.6\nqueue_directory = {tmp_path}\n"
    (tmp_path / "main.cf").write_text(base + (FRAGMENTS / "main.cf.fragment").read_text())
    (tmp_path / "master.cf").write_text((FRAGMENTS / "master.cf.fragment").read_text())
    return tmp_path


def _postconf(config: Path, *arguments: str) -> list[str]:
    """Its answer; a warning of postconf fails the test."""
    tree = find_tree()
    environment = {"LD_LIBRARY_PATH": str(tree / "usr/lib/postfix")} if tree != Path("/") else {}
    command = [str(tree / "usr/sbin/postconf"), "-c", str(config), *arguments]
    asked = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert asked.stderr == ""
    return asked.stdout.splitlines()


def test_main_cf_has_no_unknown_parameter(config: Path) -> None:
    assert "enable_long_queue_ids = yes" in _postconf(config, "-n")
    (milter,) = _postconf(config, "-xh", "non_smtpd_milters")
    assert milter.startswith("{ unix:postmeter/milter.sock, default_action=tempfail,")


@pytest.mark.parametrize("service", ["submission", "submissions"])
def test_submission_services_get_the_milter_and_a_name(config: Path, service: str) -> None:
    options = _postconf(config, "-P", f"{service}/inet")
    assert f"{service}/inet/smtpd_milters = $postmeter_milter" in options
    assert f"{service}/inet/milter_macro_daemon_name = ORIGINATING" in options


def test_port_25_is_left_alone(config: Path) -> None:
    assert all(not line.startswith("smtp ") for line in _postconf(config, "-M"))
    assert _postconf(config, "-dh", "smtpd_milters") == _postconf(config, "-h", "smtpd_milters")
