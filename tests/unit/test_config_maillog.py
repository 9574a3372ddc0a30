"""Who may read Postfix's log: told where the books' user may not, and silent where its unit gives it the group."""

from __future__ import annotations

import grp
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from postmeter.config.load import Loaded, loads
from postmeter.config.maillog import of_log
from postmeter.config.permissions import Person
from postmeter.config.problem import Problem

ADM = grp.getgrnam("adm").gr_gid
BOOKS = Person("books", 61001, 61001, frozenset({61001}))


def told(where: str, tmp_path: Path, *, me: Person = BOOKS, unit: str = "", auto: str = "none") -> list[Problem]:
    units = tmp_path / "units"
    units.mkdir(exist_ok=True)
    if unit:
        (units / "postmeter-books.service").write_text(unit)
    loaded = Loaded(loads(f"delivery: {{log: {where}}}"), "f")
    return list(of_log(loaded, me, units=[units], mail_log=tmp_path / auto))


def _open(place: Path) -> None:
    """For everybody to enter, as far up as it is ours."""
    for folder in (place, *place.parents[:2]):
        with suppress(PermissionError):
            folder.chmod(folder.stat().st_mode | 0o055)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """As Debian's rsyslog writes it: for adm."""
    _open(tmp_path)
    path = tmp_path / "mail.log"
    path.touch()
    if os.geteuid() == 0:
        os.chown(path, 0, ADM)
    path.chmod(0o640)
    return path


def test_a_file_of_adm_is_for_whoever_is_in_it(log: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    (problem,) = told(str(log), tmp_path)
    assert (problem.path, problem.severity) == ("delivery.log", "warning")
    assert problem.fix.startswith("usermod -a -G adm books")
    assert told(str(log), tmp_path, me=replace(BOOKS, gids=frozenset({ADM}))) == []
    assert told(str(log), tmp_path, me=replace(BOOKS, uid=0)) == []
    assert "adm" in told("auto", tmp_path, auto="mail.log")[0].fix


@pytest.mark.parametrize(
    ("unit", "quiet"),
    [
        ("[Service]\nUser=books\nSupplementaryGroups=adm systemd-journal\n", True),
        ("[Service]\nUser=somebody\nSupplementaryGroups=adm\n", False),
        ("[Service]\nUser=books\n", False),
    ],
)
def test_a_unit_gives_its_groups_to_its_own_user(log: Path, tmp_path: Path, unit: str, quiet: bool) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    assert (told(str(log), tmp_path, unit=unit) == []) is quiet


def test_a_drop_in_gives_groups_too(log: Path, tmp_path: Path) -> None:
    drop = tmp_path / "units" / "postmeter-books.service.d"
    drop.mkdir(parents=True)
    (drop / "log.conf").write_text("[Service]\nSupplementaryGroups=adm\n")
    assert told(str(log), tmp_path, unit="[Service]\nUser=books\n") == []


def test_who_may_not_enter_its_directory_is_told_who_may_not(tmp_path: Path) -> None:
    """`check-config` by somebody else than root, and a log in a directory of Postfix's own."""
    if os.geteuid() != 0:
        pytest.skip("only root becomes somebody else")
    _open(tmp_path)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (tmp_path / "units").mkdir()
    (closed / "mail.log").touch()
    os.seteuid(61001)
    try:
        (problem,) = told(str(closed / "mail.log"), tmp_path)
    finally:
        os.seteuid(0)
    assert problem.what.startswith(f"books may not enter {closed} (mode 0700)")


def test_a_file_that_is_not_there_is_told_and_no_mistake(tmp_path: Path) -> None:
    _open(tmp_path)
    (problem,) = told(str(tmp_path / "later.log"), tmp_path)
    assert (problem.severity, "until something writes it" in problem.what) == ("warning", True)
    assert told("auto", tmp_path, me=replace(BOOKS, gids=frozenset({ADM}))) == []
