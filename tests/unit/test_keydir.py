"""The directories of `keys: auto`: which files are keys, and which of them sign."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from postmeter.submission import keydir
from postmeter.submission.keydir import KeyState
from postmeter.submission.keyfiles import KeyProblem


def folder(tmp_path: Path, *names: str) -> Path:
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def test_a_key_is_a_file_named_by_its_selector(tmp_path: Path) -> None:
    names = ["pm2026a.pem", "a.b-c.pem", "Upper.pem", "dns.txt", "sp ace.pem", ".pem", ".new.pem", "-.pem"]
    made = folder(tmp_path, *names)
    assert list(keydir.key_files(made)) == ["a.b-c", "pm2026a"]
    assert [path.name for path in keydir.strays(made)] == ["-.pem", "Upper.pem", "dns.txt", "sp ace.pem"]


def test_only_active_keys_sign_and_those_no_rotation_has_touched(tmp_path: Path) -> None:
    made = folder(tmp_path, "a.pem", "b.pem", "c.pem", "d.pem")
    assert list(keydir.active(made)) == ["a", "b", "c", "d"]
    keydir.write_state(
        made,
        {"a": KeyState("pending", 1.0), "b": KeyState("active", 2.0), "c": KeyState("retired", 3.5)},
    )
    assert keydir.active(made) == {"b": made / "b.pem", "d": made / "d.pem"}
    assert keydir.read_state(made)["c"] == KeyState("retired", 3.5)
    assert keydir.strays(made) == []


@pytest.mark.parametrize(
    ("states", "what"),
    [
        ({"a": "pending"}, "says that no key here is active"),
        ({"a": "retired", "gone": "active"}, "no such file, but state.json says that it signs"),
    ],
)
def test_a_directory_whose_states_leave_nothing_to_sign_with_is_told(
    tmp_path: Path, states: dict[str, keydir.State], what: str
) -> None:
    made = folder(tmp_path, "a.pem")
    keydir.write_state(made, {name: KeyState(state, 1.0) for name, state in states.items()})
    with pytest.raises(KeyProblem, match=what):
        keydir.active(made)


def test_an_empty_or_missing_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(KeyProblem, match="holds no key"):
        keydir.active(tmp_path)
    with pytest.raises(KeyProblem, match="no such directory; postmeter dkim new absent makes it"):
        keydir.active(tmp_path / "absent")
    with pytest.raises(KeyProblem, match="is not a directory"):
        keydir.active(folder(tmp_path, "file") / "file")


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "{}", "[" * 100_000, "\xff",
        '{"keys": []}', '{"keys": {"a": 1}}', '{"keys": {"a": {"state": "gone", "since": 1}}}',
        '{"keys": {"a": {"state": "active"}}}', '{"keys": {"a": {"state": "active", "since": "1"}}}',
    ],
)  # fmt: skip
def test_a_state_that_cannot_be_read_lets_no_key_sign(tmp_path: Path, text: str) -> None:
    """Were it taken for no state, a key would sign that is not in DNS yet."""
    made = folder(tmp_path, "a.pem")
    (made / keydir.STATE).write_text(text, "latin-1")
    with pytest.raises(KeyProblem) as caught:
        keydir.active(made)
    assert (caught.value.path, caught.value.fatal) == (made / keydir.STATE, True)


def test_members_of_a_later_version_are_left_alone(tmp_path: Path) -> None:
    entry = {"state": "active", "since": 1, "seen": 2}
    (tmp_path / keydir.STATE).write_text(json.dumps({"version": 3, "keys": {"a": entry}}))
    assert keydir.read_state(tmp_path) == {"a": KeyState("active", 1.0)}


def test_a_state_is_replaced_whole(tmp_path: Path) -> None:
    """Whoever reads meanwhile finds the old or the new one; nothing else is left behind."""
    states = [{"a": KeyState("active", float(nth))} for nth in range(2)]
    keydir.write_state(tmp_path, states[0])
    done = threading.Event()
    seen: list[dict[str, KeyState]] = []

    def read() -> None:
        while not done.is_set():
            seen.append(keydir.read_state(tmp_path))

    reader = threading.Thread(target=read)
    reader.start()
    for nth in range(40):
        keydir.write_state(tmp_path, states[nth % 2])
    done.set()
    reader.join()
    assert all(found in states for found in seen)
    assert os.listdir(tmp_path) == [keydir.STATE]


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which only root may")
def test_what_root_writes_the_daemon_can_read(tmp_path: Path) -> None:
    keydir.write_state(tmp_path, {})
    assert (tmp_path / keydir.STATE).stat().st_mode & 0o777 == 0o644
