"""New keys: names, modes, states, and what a directory is like when somebody is killed at any moment."""

from __future__ import annotations

import itertools
import os
import stat
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.submission import keydir, keyfiles, keylist, keyrecord, newkeys
from postmeter.submission.keydir import KeyState
from postmeter.submission.keyfiles import KeyProblem
from postmeter.submission.newkeys import Owner
from tests.lab.killed import Killer, killed_at

NOW = 1_795_327_000.0  # 2026-11-22
ME = Owner(os.geteuid(), os.getegid())


def folder(tmp_path: Path) -> Path:
    return newkeys.open_folder(tmp_path / "keys", "example.com", ME)


def add(path: Path, *algorithms: str, signs: bool = False) -> list[str]:
    return list(newkeys.add(path, algorithms or ("ed25519",), now=NOW, signs=signs, owner=ME))


def test_a_pair_has_dated_selectors_and_closed_files(tmp_path: Path) -> None:
    path = folder(tmp_path)
    assert add(path, "rsa", "ed25519", signs=True) == ["pm20261122r", "pm20261122e"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.glob("*.pem")} == {0o600}
    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    keys = {key.selector: key.expected() for key in keylist.of_folder(tmp_path / "keys", "example.com")}
    assert [keys["pm20261122r"].kind, keys["pm20261122r"].bits, keys["pm20261122e"].kind] == ["rsa", 2048, "ed25519"]
    keyfiles.Guard().check(path / "pm20261122r.pem")
    assert all(keyrecord.judge([key.text.encode()], key).word == "right" for key in keys.values())
    assert set(keydir.active(path)) == {"pm20261122r", "pm20261122e"}


def test_a_second_key_of_a_day_gets_a_letter_and_waits(tmp_path: Path) -> None:
    path = folder(tmp_path)
    add(path, signs=True)
    assert add(path) == ["pm20261122be"]
    assert set(keydir.active(path)) == {"pm20261122e"}
    assert newkeys.own_keys(path)["pm20261122be"].state == KeyState("pending", NOW)
    assert add(path) == ["pm20261122ce"]


@given(st.sets(st.sampled_from([f"pm20261122{letter}r" for letter in ["", *"bcdefghij"]])))
def test_a_selector_is_never_one_that_is_taken(taken: set[str]) -> None:
    name = newkeys.selector("rsa", day="20261122", taken=taken)
    assert name not in taken
    assert name.startswith("pm20261122")
    assert name.endswith("r")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """Not even what was put there in between."""
    path = folder(tmp_path)
    (path / "pm20261122e.pem").write_text("precious")
    with pytest.raises(KeyProblem, match="cannot be written: File exists"):
        newkeys._write(path / "pm20261122e.pem", b"new", ME)
    assert (path / "pm20261122e.pem").read_text() == "precious"
    assert sorted(each.name for each in path.iterdir()) == ["pm20261122e.pem"]


def test_whoever_has_the_lock_is_alone(tmp_path: Path) -> None:
    path = folder(tmp_path)
    with (
        newkeys.locked(path, patience=0.0),
        pytest.raises(KeyProblem, match="somebody else is changing keys there"),
        newkeys.locked(path, patience=0.0),
    ):
        pass
    with newkeys.locked(path, patience=0.0):
        pass


def test_killed_at_any_system_call_no_new_key_signs(tmp_path: Path) -> None:
    """A child adds a key and is ended at its nth call that changes files; then the same is tried again, and works."""
    for nth in itertools.count(1):
        path = newkeys.open_folder(tmp_path / str(nth), "example.com", ME)
        add(path, signs=True)
        before = set(keydir.active(path))
        ended = killed_at(nth, partial(_add, path))
        assert set(keydir.active(path)) == before, f"killed at call {nth}"
        again = add(path)
        assert set(keydir.active(path)) == before
        assert newkeys.own_keys(path)[again[0]].state.state == "pending"
        assert not list(path.glob(".*.new"))
        if not ended:
            break
    assert nth > 5


_CALLS = ("link", "unlink", "fsync", "replace", "rename", "fchmod", "open")


def _add(path: Path, killer: Killer) -> None:
    """In a child."""
    killer.arm(_CALLS)
    add(path)
