"""What `pip install` gives: the program, its modules and its licence, and nothing of how they are tested."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from postmeter import __version__
from tests.lab.ports import free_port

ROOT = Path(__file__).resolve().parents[1]
_BUILD = "from setuptools import build_meta as b; b.build_wheel('dist'); b.build_sdist('dist')"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel and a source distribution of a copy of the clone: a build leaves files behind."""
    copy = tmp_path_factory.mktemp("package") / "clone"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "build", "__pycache__", "*.egg-info"))
    (copy / "dist").mkdir()
    built = subprocess.run([sys.executable, "-c", _BUILD], cwd=copy, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return copy / "dist"


def modules() -> set[str]:
    """Programs in Python, those that Redis runs, the lists of robots and of providers, and a page's looks."""
    found = (path for kind in ("py", "lua", "txt", "css") for path in (ROOT / "milter/postmeter").rglob(f"*.{kind}"))
    return {path.relative_to(ROOT / "milter").as_posix() for path in found}


def test_a_wheel_holds_every_module_and_nothing_else(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    described = {name for name in names if name.startswith(f"postmeter-{__version__}.dist-info/")}
    assert names - described == modules()
    assert any(name.endswith("LICENSE") for name in described)


def test_a_source_distribution_holds_no_tests(dist: Path) -> None:
    (source,) = dist.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    described = {name for name in names if ".egg-info/" in name} | {"PKG-INFO"}
    needed = {"README.md", "LICENSE", "setup.cfg", "pyproject.toml"}
    assert names - described - {"MANIFEST.in"} == needed | {f"milter/{name}" for name in modules()}


def test_the_installed_program_runs(dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--prefix", str(tmp_path)]
    subprocess.run([*pip, "--disable-pip-version-check", str(wheel)], check=True, timeout=120)
    (packages,) = tmp_path.glob("lib/python*/site-packages")
    config = tmp_path / "postmeter.yaml"
    config.write_text(f"milter: {{listen: 'inet:127.0.0.1:{free_port()}'}}\njournal: {{path: {tmp_path}/journal.db}}\n")
    for arguments, told in ((["--version"], __version__), (["check-config", "-c", str(config)], "OK")):
        done = subprocess.run([tmp_path / "bin/postmeter", *arguments], cwd="/", capture_output=True, text=True,
                              env={**os.environ, "PYTHONPATH": str(packages)}, check=False, timeout=60)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert told in done.stdout
