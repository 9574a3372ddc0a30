"""What a content filter that gives mail back needs is told by `check-config`: secrets, and a service of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from postmeter.config.check import Daemon, check
from postmeter.config.load import Loaded, read

SECRET = "0123456789abcdef" * 4 + "\n"


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everyone may enter, which pytest's own are not."""
    with TemporaryDirectory(prefix="postmeter-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def loaded(place: Path, senders: str = "{refiltered: [REFILTERED]}", more: str = "") -> Loaded:
    """`senders` is line 3, `bounces` line 4."""
    head = f"milter: {{listen: 'unix:{place}/a.sock', socket_mode: '0666'}}\njournal: {{path: {place}/journal.db}}\n"
    return read(f"{head}senders: {senders}\nbounces: {{secrets: {place}/secrets}}\n{more}", "pm.yaml")


def look(config: Loaded, daemon: Daemon = "milter") -> list[str]:
    return [str(problem) for problem in check(config, daemon=daemon, mail_owner="nobody")]


def secrets(place: Path, text: str = SECRET, mode: int = 0o600) -> Path:
    path = place / "secrets"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_secret_that_the_web_server_knows_is_warned_of(place: Path) -> None:
    """A copy of tracking.secrets, or that file itself: from a secret every kind of token is made, marks too."""
    other = "f" * 64 + "\n"
    (place / "links").write_text(f"# a comment\n{other}{SECRET}")
    tracking = f"tracking: {{secrets: {place}/links}}"
    secrets(place)
    (line,) = look(loaded(place, more=tracking))
    what = f"a secret of {place}/secrets is in tracking.secrets too"
    assert line.startswith(f"pm.yaml:4: bounces.secrets: warning: {what}")
    secrets(place, "e" * 64)
    assert look(loaded(place, more=tracking)) == []
    assert len(look(loaded(place, more=f"tracking: {{secrets: {place}/secrets}}"))) == 1


def test_marks_need_secrets_and_nothing_else_does(place: Path) -> None:
    (line,) = look(loaded(place))
    what, fix = f"{place}/secrets: No such file or directory", f"make it: mkdir -p {place} && (umask 077"
    assert line.startswith(f"pm.yaml:4: bounces.secrets: {what}; {fix}")
    assert look(loaded(place, "{}")) == []
    secrets(place)
    assert look(loaded(place)) == []


@pytest.mark.parametrize("daemon", ["web", "books"])
def test_only_the_milter_needs_them(place: Path, daemon: Daemon) -> None:
    assert look(loaded(place), daemon) == []


@pytest.mark.parametrize(("mode", "good"), [(0o600, True), (0o640, True), (0o644, False), (0o660, False)])
def test_they_are_open_to_nobody_else(place: Path, mode: int, good: bool) -> None:
    path = secrets(place, mode=mode)
    told = f"pm.yaml:4: bounces.secrets: {path} is open to others (mode {mode:04o}); chmod 0600 {path}"
    assert look(loaded(place)) == ([] if good else [told])


def test_malformed_ones_are_told_with_their_line(place: Path) -> None:
    secrets(place, SECRET + "0123\n")
    (line,) = look(loaded(place))
    assert "bounces.secrets" in line
    assert "line 2: not 64 hexadecimal digits" in line


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to another group")
def test_the_web_servers_user_may_not_read_them(place: Path) -> None:
    """Who makes marks has mail signed; whoever answers browsers needs the secrets of links alone."""
    path = secrets(place, mode=0o640)
    web = "web: {user: nobody}\n"
    assert look(loaded(place, more=web)) == []
    os.chown(path, -1, 65534)
    told = f"pm.yaml:4: bounces.secrets: nobody, the web server's user, may read {path}; chmod 0600 {path}"
    assert look(loaded(place, more=web)) == [told]


def test_a_service_cannot_be_where_mail_is_submitted_and_where_it_is_given_back(place: Path) -> None:
    secrets(place)
    (line,) = look(loaded(place, "{refiltered: [BACK, ORIGINATING]}"))
    assert line.startswith("pm.yaml:3: senders.refiltered: ORIGINATING stands in senders.daemon_names too")
