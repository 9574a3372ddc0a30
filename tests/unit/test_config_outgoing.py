"""What would keep events from a webhook is told at its line before the books begin; the milter begins all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from postmeter.config import permissions
from postmeter.config.check import Daemon, check
from postmeter.config.load import read

URL = "https://crm.example.com/mail"


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everyone may enter, which pytest's own are not."""
    with TemporaryDirectory(prefix="postmeter-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def look(place: Path, *hooks: str, daemon: Daemon = "books", user: str = "") -> list[str]:
    text = f"journal: {{path: {place}/journal.db}}\nwebhooks:\n" + "".join(f"  - {{{hook}}}\n" for hook in hooks)
    me = permissions.person(user) if user else permissions.myself()
    found = check(read(text, "pm.yaml"), daemon=daemon, me=me, mail_owner="nobody")
    return [str(problem) for problem in found if "webhooks" in problem.path]


def hook(secret: Path | None = None, url: str = URL) -> str:
    return f"url: {url}, events: [quota_warning]" + (f", secret_file: {secret}" if secret else "")


def test_a_webhook_that_names_no_event_is_warned_of(place: Path) -> None:
    (line,) = look(place, f"url: {URL}, events: []")
    assert line.startswith("pm.yaml:3: webhooks[0].events: warning: with none nothing is ever posted there")


def test_a_webhook_without_a_secret_is_fine(place: Path) -> None:
    assert look(place, hook()) == []


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("0123456789abcdef\n", 0o600, ""),
        ("0123456789abcdef\n", 0o640, ""),
        ("0123456789abcdef\n", 0o644, "is open to others (mode 0644); chmod 0640"),
        ("0123456789abcde\n", 0o600, "holds 15 octets, which is too short for a secret"),
        ("\n", 0o600, "holds 0 octets"),
    ],
)
def test_a_secret_is_long_and_not_for_others(place: Path, text: str, mode: int, said: str) -> None:
    secret = place / "crm.secret"
    secret.write_text(text)
    secret.chmod(mode)
    found = look(place, hook(secret))
    assert len(found) == bool(said)
    assert all(line.startswith("pm.yaml:3: webhooks[0].secret_file: ") and said in line for line in found)


def test_a_secret_that_is_not_there_is_told_with_the_command_that_makes_it(place: Path) -> None:
    (line,) = look(place, hook(place / "crm.secret"))
    assert f"openssl rand -hex 32 > {place}/crm.secret" in line


def test_a_secret_of_somebody_else_is_told(place: Path) -> None:
    secret = place / "crm.secret"
    secret.write_text("0123456789abcdef\n")
    secret.chmod(0o600)
    (line,) = look(place, hook(secret), user="nobody")
    assert f"nobody may not read {secret}" in line


def test_the_milter_starts_without_it(place: Path) -> None:
    assert look(place, hook(place / "crm.secret"), daemon="milter") == []


def test_a_url_stands_there_once(place: Path) -> None:
    """Both would save their position under its name."""
    assert look(place, hook(), hook()) == [
        "pm.yaml:4: webhooks[1].url: stands there twice; put all of its events into one entry"
    ]


@pytest.mark.parametrize(
    ("url", "warned"),
    [("http://crm.example.com/", 1), ("http://127.0.0.1:8000/", 0), ("http://localhost/", 0), (URL, 0)],
)
def test_http_is_warned_of_where_it_leaves_this_host(place: Path, url: str, warned: int) -> None:
    found = look(place, hook(url=url))
    assert len(found) == warned
    assert all("warning: events sent by http can be read and changed" in line for line in found)
