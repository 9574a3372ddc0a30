"""Who may do what to a path: the judge is the kernel, asked as that user; what is advised mends it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from postmeter.config import permissions
from postmeter.config.permissions import ENTER, READ, WRITE, Person
from tests.lab.child import code_of
from tests.lab.folder import new_folder

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")

WHO = Person("somebody", 61001, 61002, frozenset({61002, 61003}))
MODES = (
    0o700, 0o600, 0o500, 0o400, 0o070, 0o060, 0o050, 0o040, 0o007, 0o006, 0o005, 0o004, 0o001, 0o077, 0o707, 0o770, 0,
)  # fmt: skip
OWNERS = ((WHO.uid, 61009), (61008, 61002), (61008, 61003), (61008, 61009))


@pytest.fixture
def folder() -> Iterator[Path]:
    """Anybody may enter it."""
    made = new_folder("permissions")
    yield made
    shutil.rmtree(made)


def become() -> None:
    os.setgroups(sorted(WHO.gids))
    os.setgid(WHO.gid)
    os.setuid(WHO.uid)


def test_a_mode_grants_what_the_kernel_grants(folder: Path) -> None:
    """The first class that fits decides, though a later one would grant more."""
    places = []
    for nth, ((uid, gid), mode) in enumerate(product(OWNERS, MODES)):
        places.append(folder / str(nth))
        places[-1].mkdir()
        os.chown(places[-1], uid, gid)
        places[-1].chmod(mode)
    states = [place.stat() for place in places]

    def wrong() -> int:
        become()
        asked = list(product(zip(places, states, strict=True), (READ, WRITE, ENTER, READ | ENTER)))
        return sum(permissions.may(WHO, state, bits) != os.access(place, bits) for (place, state), bits in asked)

    assert code_of(wrong) == 0


@pytest.mark.parametrize("owners", OWNERS)
def test_what_is_said_of_a_file_is_so_and_what_is_advised_mends_it(folder: Path, owners: tuple[int, int]) -> None:
    inner, file = folder / "inner", folder / "inner" / "file"

    def reads() -> int:
        become()
        return os.access(file, os.R_OK)

    for outside, inside in product((0o700, 0o600, 0o070, 0o060, 0o007, 0o006, 0), (0o400, 0o040, 0o004, 0)):
        inner.mkdir()
        file.touch()
        for place, mode in ((file, inside), (inner, outside)):
            os.chown(place, *owners)
            place.chmod(mode)
        fault = permissions.unreadable(file, WHO, "make it")
        assert (fault is None) == bool(code_of(reads))
        for _ in ("the directory", "the file"):
            if (fault := permissions.unreadable(file, WHO, "make it")) is not None:
                subprocess.run(fault.fix.replace(WHO.name, str(WHO.uid)), shell=True, check=True)
        assert code_of(reads) == 1
        shutil.rmtree(inner)


def test_a_file_where_a_directory_should_be_and_what_is_missing(folder: Path) -> None:
    (folder / "file").touch()
    fault = permissions.unreadable(folder / "file" / "secret", WHO, "make it")
    assert fault is not None
    assert fault.what == f"{folder}/file is not a directory"
    gone = permissions.unreadable(folder / "no" / "secret", WHO, "make it")
    assert gone is not None
    assert (gone.path, gone.what, gone.fix) == (folder / "no", f"there is no directory {folder}/no", "make it")
