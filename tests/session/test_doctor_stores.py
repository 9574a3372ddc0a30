"""What the doctor tells of real stores, well and unwell, by the command itself; and that it prints no secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab.dns import NameServer
from tests.lab.folder import CLONE
from tests.lab.postgres import Postgres
from tests.lab.redis import Redis

_WORD = "open-sesame-4711"


@pytest.fixture(scope="module")
def store(needs_redis: None) -> Iterator[Redis]:
    with Redis(password=_WORD) as server:
        yield server


@pytest.fixture(scope="module")
def database(needs_postgres: None) -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


def examined(folder: Path, *, about: str = "stores", **sections: Any) -> list[dict[str, str]]:
    """What `postmeter doctor --json` says of them; nothing of it holds a password."""
    with NameServer() as names:
        config = {"dkim": {"resolvers": [f"{names.address}:{names.port}"]}, **sections}
        config["journal"] = {"path": str(folder / "journal.db"), **sections.get("journal", {})}
        (folder / "postmeter.yaml").write_text(yaml.safe_dump(config))
        command = [sys.executable, "-P", "-m", "postmeter", "doctor", "-c", str(folder / "postmeter.yaml"), "--json"]
        env = {**os.environ, "PYTHONPATH": str(CLONE / "milter")}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=env)
    assert done.returncode in (0, 1), done.stderr
    for secret in (_WORD, "correct horse", "another word"):
        assert secret not in done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["version"] == 1
    assert all(set(each) == {"level", "about", "what", "known", "fix"} for each in told["findings"])
    return [each for each in told["findings"] if each["about"] == about and "journal.db" not in each["what"]]


def secret(folder: Path, text: str) -> str:
    path = folder / "password"
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def test_a_redis_that_is_well_is_not_mentioned(store: Redis, tmp_path: Path) -> None:
    quota = {"store": store.inet, "store_password_file": secret(tmp_path, _WORD)}
    assert examined(tmp_path, quota=quota) == []


@pytest.mark.parametrize(
    ("command", "back", "words"),
    [
        ("CONFIG SET requirepass correct-horse", "CONFIG SET requirepass " + _WORD, "invalid username-password pair"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "it is a replica"),
        ("CONFIG SET maxmemory 50mb maxmemory-policy allkeys-lru", "CONFIG SET maxmemory 0", "quotas begin anew"),
    ],
)
def test_a_redis_that_is_not(store: Redis, tmp_path: Path, command: str, back: str, words: str) -> None:
    quota = {"store": store.inet, "store_password_file": secret(tmp_path, _WORD)}
    store.cli(*command.split())
    store.password = "correct-horse" if "correct-horse" in command else _WORD
    try:
        (finding,) = examined(tmp_path, quota=quota)
    finally:
        store.cli(*back.split())
        store.password = _WORD
    assert (finding["level"], words in finding["known"]) == ("wrong", True), finding
    assert finding["fix"]


def test_a_redis_that_hangs_is_told_within_seconds(store: Redis, tmp_path: Path) -> None:
    store.pause()
    try:
        quota = {"store": store.inet, "store_password_file": secret(tmp_path, _WORD)}
        (finding,) = examined(tmp_path, quota=quota)
    finally:
        store.resume()
    assert (finding["level"], "answers: it does not" in finding["what"]) == ("wrong", True)


def test_a_postgresql_that_is_well_is_not_mentioned(database: Postgres, tmp_path: Path) -> None:
    shipped = {"ship_to": database.inet, "ship_password_file": secret(tmp_path, "correct horse")}
    assert examined(tmp_path, journal=shipped) == []


@pytest.mark.parametrize(
    ("statement", "back", "password", "words"),
    [
        ("", "", "another word", "password authentication failed"),
        ("ALTER ROLE postmeter NOLOGIN", "ALTER ROLE postmeter LOGIN", "correct horse", "not permitted to log in"),
        ("ALTER ROLE postmeter SET default_transaction_read_only = on",
         "ALTER ROLE postmeter RESET default_transaction_read_only", "correct horse", "transaction_read_only is on"),
    ],
)  # fmt: skip
def test_a_postgresql_that_is_not(
    database: Postgres, tmp_path: Path, statement: str, back: str, password: str, words: str
) -> None:
    if statement:
        database.sql(statement, database="postgres")
    try:
        shipped = {"ship_to": database.inet, "ship_password_file": secret(tmp_path, password)}
        (finding,) = examined(tmp_path, journal=shipped)
    finally:
        if back:
            database.sql(back, database="postgres")
    assert (finding["level"], words in finding["known"]) == ("wrong", True), finding


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]).returncode != 0:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_file_system_that_has_become_read_only_is_told(locked: Path, tmp_path: Path) -> None:
    told = [
        {each["what"] for each in examined(tmp_path, about="disk", journal={"path": f"{folder}/journal.db"})}
        for folder in (tmp_path, locked)
    ]
    assert [f"{locked} cannot be written to" in each for each in told] == [False, True]
