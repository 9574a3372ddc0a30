"""`journal.ship_to`: addresses of libpq are taken as they are, passwords in them are not, and open roads are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from postmeter.config import check, postgresql, shipping
from postmeter.config.load import read
from postmeter.config.permissions import myself
from postmeter.config.problem import MistakeError, Problem

GOOD = (
    "postgresql://postmeter@db.example.com/postmeter",
    "postgres://db.example.com",
    "postgresql:///postmeter?host=/run/postgresql",
    "postgresql://postmeter@[::1]:5433/postmeter",
    "postgresql://a@one.example,two.example:5433/x?target_session_attrs=read-write&sslmode=verify-full",
)
SECRET = "hunter2"


@pytest.mark.parametrize("text", GOOD)
def test_what_libpq_understands_is_taken_as_it_is(text: str) -> None:
    assert postgresql.address(text) == text


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://postmeter:{SECRET}@db.example.com/x",
        f"postgresql://db.example.com/x?user=a&password={SECRET}",
        f"postgresql://db.example.com/x?sslpassword={SECRET}",
        f"mysql://a:{SECRET}@db.example.com",
        f"postgresql:a:{SECRET}@db.example.com",
        f"postgresql://a:{SECRET}@[db.example.com",
        f"postgresql://db.example.com/x?password={SECRET} &",
    ],
)
def test_a_password_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(MistakeError) as refused:
        postgresql.address(text)
    assert SECRET not in f"{refused.value.what} {refused.value.fix}"


@pytest.mark.parametrize(
    ("text", "leaves"),
    [
        (GOOD[0], True),
        (GOOD[1], True),
        (GOOD[2], False),
        (GOOD[3], False),
        (GOOD[4], True),
        ("postgresql://127.0.0.1:5432/x", False),
        ("postgresql://localhost,db.example.com/x", True),
        ("postgresql://a@%2Frun%2Fpostgresql/x", False),
        ("postgresql://a@localhost/x?hostaddr=192.0.2.1", True),
    ],
)
def test_who_leaves_the_host(text: str, leaves: bool) -> None:
    assert postgresql.leaves_this_host(text) is leaves


def problems(tmp_path: Path, *lines: str) -> list[Problem]:
    text = "\n".join(["journal:", f"  path: {tmp_path}/journal.db", *(f"  {line}" for line in lines)])
    return list(shipping.of_shipping(read(text, "test"), myself()))


def test_an_open_road_is_told_and_a_verified_one_is_not(tmp_path: Path) -> None:
    [told] = problems(tmp_path, f"ship_to: {GOOD[0]}")
    assert (told.severity, told.path) == ("warning", "journal.ship_to")
    assert problems(tmp_path, f"ship_to: {GOOD[4]}") == []
    assert problems(tmp_path, f"ship_to: {GOOD[2]}") == []


def test_the_file_of_the_password_must_be_there_and_closed_and_hold_something(tmp_path: Path) -> None:
    file = tmp_path / "password"
    lines = (f"ship_to: {GOOD[2]}", f"ship_password_file: {file}")
    assert [told.path for told in problems(tmp_path, *lines)] == ["journal.ship_password_file"]
    file.touch(0o600)
    assert "is empty" in problems(tmp_path, *lines)[0].what
    file.write_text("secret\n")
    assert problems(tmp_path, *lines) == []
    file.chmod(0o644)
    assert "open to others" in problems(tmp_path, *lines)[0].what


def test_a_password_without_a_database_is_told(tmp_path: Path) -> None:
    [told] = problems(tmp_path, f"ship_password_file: {tmp_path}/password")
    assert (told.severity, told.path) == ("warning", "journal.ship_password_file")


def test_without_the_library_the_books_do_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "find_spec", lambda name: None)
    text = f"journal: {{path: {tmp_path}/journal.db, ship_to: '{GOOD[2]}'}}"
    [told] = [told for told in check.check(read(text, "test"), daemon="books") if "psycopg" in told.what]
    assert (told.severity, told.fix) == ("error", "apt-get install python3-psycopg")
