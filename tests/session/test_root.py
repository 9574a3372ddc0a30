"""What is done, perhaps as root, in directories of less trusted users: nothing elsewhere, wherever a link points."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from postmeter.cli import robots, web
from postmeter.config.load import load_with_lines
from postmeter.config.problem import ConfigError
from postmeter.feedback.arrivals import Arrivals, Envelope
from postmeter.runtime import spool
from postmeter.store.batch import Job
from postmeter.store.emergency import Spool
from postmeter.tracking import blocked
from tests.lab.folder import CLONE, for_everybody, give, new_folder

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, which only root may")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Somebody else's file, which must stay as it is."""
    path = tmp_path / "secret"
    path.write_text("root's own\n", "utf-8")
    path.chmod(0o600)
    return path


def untouched(secret: Path) -> bool:
    state = secret.stat()
    said = secret.read_text("utf-8")
    return (said, state.st_mode & 0o7777, state.st_uid) == ("root's own\n", 0o600, os.geteuid())


def test_the_list_of_blocks_is_written_through_no_link(tmp_path: Path, secret: Path) -> None:
    """`postmeter links block` by root, where the daemons' user has guessed the name of its draft."""
    path = blocked.place(tmp_path)
    path.parent.mkdir()
    path.with_name(f".blocked-{os.getpid()}").symlink_to(secret)
    blocked.write(path, messages=[], hosts=["evil.example"])
    assert untouched(secret)
    assert path.read_text("utf-8") == "host evil.example\n"
    assert not path.is_symlink()


def test_the_tracking_server_may_read_the_list_of_blocks_whatever_the_umask(tmp_path: Path) -> None:
    """As another user: else nothing that is blocked would be."""
    path = blocked.place(tmp_path)
    before = os.umask(0o077)
    try:
        blocked.write(path, messages=[], hosts=["evil.example"])
    finally:
        os.umask(before)
    assert [made.stat().st_mode & 0o7777 for made in (path.parent, path)] == [0o755, 0o644]


@needs_root
def test_a_list_of_blocks_that_root_made_belongs_to_who_owns_the_state(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    path = blocked.place(tmp_path)
    blocked.write(path, messages=[], hosts=["evil.example"])
    for made in (path.parent, path):
        assert made.stat().st_uid == NOBODY
    assert path.stat().st_mode & 0o7777 == 0o644


@needs_root
def test_the_tracking_server_gives_away_no_directory_that_a_link_leads_to(tmp_path: Path) -> None:
    """Started by root, in a state directory whose owner would like to have another one."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    state = tmp_path / "state"
    (state / "spool").mkdir(parents=True)
    os.chown(state, NOBODY, NOBODY)
    (state / "spool" / "hits").symlink_to(elsewhere)
    file = tmp_path / "postmeter.yaml"
    file.write_text(f"journal: {{path: {state}/journal}}\nweb: {{user: nobody}}\n", "utf-8")
    loaded = load_with_lines(file)
    with pytest.raises(ConfigError, match="hits is a link"):
        web._spool(loaded)
    assert (elsewhere.stat().st_uid, elsewhere.stat().st_mode & 0o7777) == (0, 0o700)
    (state / "spool" / "hits").unlink()
    web._spool(loaded)
    assert ((state / "spool" / "hits").stat().st_uid, (state / "spool").stat().st_uid) == (NOBODY, NOBODY)
    assert (state / "spool" / "hits").stat().st_mode & 0o7777 == 0o2770


@needs_root
def test_an_event_that_root_erases_from_gives_away_nothing_else(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`postmeter erase`, while the spool's owner puts a link where the draft was."""
    folder = tmp_path / "events"
    waiting = Spool(folder, durable=True)
    waiting.put(Job((), ("a",), {}, 1.0))
    (kept,) = folder.glob("*.json")
    os.chown(kept, NOBODY, NOBODY)
    sync = os.fsync

    def swap(file: int) -> None:
        sync(file)
        draft = kept.with_suffix(".tmp")
        draft.rename(tmp_path / "draft")
        draft.symlink_to(secret)

    monkeypatch.setattr(os, "fsync", swap)
    waiting.rewrite(lambda row: ("b",), now=1.0)
    assert untouched(secret)
    assert (tmp_path / "draft").stat().st_uid == NOBODY


def test_a_pipe_in_the_place_of_a_spool_s_file_holds_nobody(tmp_path: Path) -> None:
    """The tracking server's user may put one there between two looks of the books."""
    path = tmp_path / "hits-1.jsonl"
    os.mkfifo(path)
    assert spool.discard(path, 0) is None
    assert path.exists()


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A folder that everybody may enter, in it the state of a user that is not root, and a configuration."""
    folder = new_folder("root")
    state = give(folder / "state", "nobody")
    (folder / "postmeter.yaml").write_text(f"journal: {{path: {state}/journal}}\n", "utf-8")
    yield folder
    shutil.rmtree(folder)


def by_root(folder: Path, *words: str, mail: str = "") -> subprocess.CompletedProcess[str]:
    place = {**os.environ, "PYTHONPATH": str(for_everybody(CLONE / "milter"))}
    command = [sys.executable, "-m", "postmeter", *words, "-c", str(folder / "postmeter.yaml")]
    return subprocess.run(command, env=place, input=mail, capture_output=True, text=True, check=False, timeout=60)


@needs_root
def test_root_erases_nothing_where_the_daemons_user_has_put_a_link(theirs: Path) -> None:
    """Else that user chooses which of root's files names somebody who asks to be forgotten."""
    elsewhere = theirs / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "aliases").write_text("root: bob@example.com\n", "utf-8")
    returns = theirs / "state" / "spool" / "returns"
    returns.mkdir(parents=True)
    (returns / "kept").symlink_to(elsewhere)
    done = by_root(theirs, "erase", "bob@example.com")
    assert (elsewhere / "aliases").exists()
    assert (done.returncode, "Permission denied" in done.stderr) == (1, True), done


@needs_root
def test_root_writes_nothing_where_the_daemons_user_has_put_a_link(theirs: Path) -> None:
    """Mail that came back says what its sender wants, and some directories' files are programs' orders."""
    elsewhere = theirs / "elsewhere"
    elsewhere.mkdir()
    returns = theirs / "state" / "spool" / "returns"
    Arrivals(returns / "kept").put(Envelope(time=1.0), b"/var/log/*.log { }\n", name="one.eml")
    (returns / "new").symlink_to(elsewhere)
    for words, code in ((["feedback", "retry", "one"], 1), (["feedback"], 75)):
        done = by_root(theirs, *words, mail="From: bob@example.net\n\n/var/log/*.log { }\n")
        assert list(elsewhere.iterdir()) == []
        assert (done.returncode, "Permission denied" in done.stderr) == (code, True), done


@needs_root
def test_root_blocks_nothing_where_the_daemons_user_has_put_a_link(theirs: Path) -> None:
    elsewhere = theirs / "elsewhere"
    elsewhere.mkdir()
    (theirs / "state" / "web").symlink_to(elsewhere)
    done = by_root(theirs, "links", "block", "--host", "evil.example")
    assert list(elsewhere.iterdir()) == []
    assert (done.returncode, "Permission denied" in done.stderr) == (1, True), done


@needs_root
def test_what_root_erases_and_tries_again_goes_on_belonging_to_whose_state_it_is(theirs: Path) -> None:
    kept = give(theirs / "state" / "spool" / "returns" / "kept", "nobody")
    for name, text in (("one.eml", b"x"), ("two.eml", b"bob@example.com")):
        Arrivals(kept).put(Envelope(time=1.0), text, name=name)
    give(theirs / "state" / "spool", "nobody")
    give(theirs / "state" / "spool" / "returns", "nobody")
    assert by_root(theirs, "erase", "bob@example.com").returncode == 0
    assert by_root(theirs, "feedback", "retry", "one").returncode == 0
    assert list(kept.iterdir()) == []
    assert {path.stat().st_uid for path in (theirs / "state").rglob("*")} == {NOBODY}


def test_everybody_may_read_a_list_of_robots_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        robots._put(tmp_path / "robots.txt", "date 2026-11-01\n")
    finally:
        os.umask(before)
    assert (tmp_path / "robots.txt").stat().st_mode & 0o7777 == 0o644


def test_a_list_of_robots_is_written_through_no_link(tmp_path: Path, secret: Path) -> None:
    path = tmp_path / "robots.txt"
    path.with_name(f".robots.txt-{os.getpid()}").symlink_to(secret)
    robots._put(path, "date 2026-11-01\n")
    assert untouched(secret)
    assert (path.read_text("utf-8"), path.is_symlink()) == ("date 2026-11-01\n", False)
    assert path.stat().st_mode & 0o7777 == 0o644
