"""A backup made under load is one moment; put back elsewhere by the documented steps, everything goes on."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import random
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from postmeter.cli import backup
from postmeter.cli.main import main
from postmeter.store import database, veil
from postmeter.store.journal import Journal
from tests.lab.mta import Mta, Taken
from tests.lab.product import Postmeter
from tests.lab.waiting import wait_for
from tests.session.test_erase import told

DOCS = Path(__file__).parents[2] / "docs" / "operations.md"
LOGIN = "alice@news.example"


def steps() -> list[str]:
    """The commands that the documentation names for putting a backup back."""
    section = DOCS.read_text("utf-8").partition("## Backup\n")[2].partition("\n## ")[0]
    return str(re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[1]).splitlines()


@contextlib.contextmanager
def product(folder: Path | None = None) -> Iterator[Postmeter]:
    made = Postmeter(daemons=("milter", "books", "web"), folder=folder)
    made.settings["quota"] = {"limits": ["3 recipients/day"]}
    made.settings["senders"] = {"authenticated": True}
    made.secrets()
    made.key("news.example", "s1")  # List-Unsubscribe comes with a signature only
    url = {"url": "https://click.example", "mail": "all", "unsubscribe": True, "links": "html"}
    made.settings["tracking"] |= url
    with made:
        yield made


def send(at: Postmeter, number: int, recipient: str = "bob@shop.example") -> Taken:
    fields = [
        ("From", f" {LOGIN}".encode()), ("To", f" {recipient}".encode()), ("X-Postmeter-Campaign", b" spring"),
        ("Message-ID", f" <{number}@news.example>".encode()), ("Content-Type", b" text/html; charset=utf-8"),
        ("MIME-Version", b" 1.0"),
    ]  # fmt: skip
    with Mta(at.folder / "socket" / "milter.sock") as mta:
        assert mta.negotiate().code == "O"
        mta.connect(service="submission")
        answer = mta.mail(LOGIN, login=LOGIN)
        answer = mta.rcpt(recipient) if answer.code == "c" else answer
        if answer.code != "c":
            return Taken(answer)
        return mta.message(fields, b'<a href="https://shop.example/spring">x</a>\r\n', queue_id=f"4Q{number}")


def ask(at: Postmeter, path: str, method: str = "GET", body: bytes = b"") -> int:
    link = http.client.HTTPConnection("127.0.0.1", at.ports["web"], timeout=10)
    kind = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
    link.request(method, path, body=body or None, headers={"Host": "click.example", **kind})
    status = link.getresponse().status
    link.close()
    return status


def paths(taken: Taken) -> tuple[str, str]:
    """Of the link and of the unsubscribe that a message bears."""
    body = re.sub(rb"=\r?\n", b"", taken.body() or b"").replace(b"=3D", b"=")
    link = re.search(rb"(/c/[A-Za-z0-9_-]+)", body)
    [leave] = taken.inserted("List-Unsubscribe")
    unsubscribe = re.search(r"(/u/[A-Za-z0-9_-]+)", re.sub(r"\s", "", leave))
    assert link is not None
    assert unsubscribe is not None
    return link[1].decode(), unsubscribe[1]


def numbers(at: Postmeter) -> list[int]:
    with contextlib.closing(sqlite3.connect(f"file:{at.state / 'journal.db'}?mode=ro", uri=True)) as link:
        return [number for (number,) in link.execute("SELECT seq FROM events ORDER BY seq")]


@pytest.mark.skipif(os.geteuid() != 0, reason="the daemons run as another user")
def test_put_back_elsewhere_by_the_documented_steps_everything_goes_on(tmp_path: Path) -> None:
    with product() as first:
        link, leave = paths(send(first, 1))
        assert send(first, 2).verdict.code in "ac"
        assert ask(first, leave, "POST", b"List-Unsubscribe=One-Click") == 200
        first.wait_figure(1, "unsubscribes_total")
        assert (first.state / "journal.db-wal").exists()
        made = first.run("backup", str(tmp_path), "--keys", user="root")
        assert made.returncode == 0, made.stderr
        assert send(first, 3).verdict.code in "ac"  # what comes later is lost
        lost = max(numbers(first))
        for daemon in first.daemons:
            first.kill(daemon)
        [folder] = tmp_path.glob("postmeter-*")
        with Postmeter(daemons=(), folder=None) as place:
            restore(folder, first, place)
            second = Postmeter(daemons=("milter", "books", "web"), folder=place.folder)
            second.settings = moved(first, second)
            with second:
                goes_on(second, link, leave, lost)


def restore(folder: Path, first: Postmeter, place: Postmeter) -> None:
    """As documented, but for the path, and the start, which the lab does itself."""
    for line in steps():
        if not line.startswith(("systemctl", "cd ")):
            line = line.replace("/var/lib/postmeter", str(place.state))
            line = line.replace("files/. /", f"files{first.folder}/. {place.folder}")
            subprocess.run(shlex.split(line), cwd=folder, check=True)


def moved(first: Postmeter, second: Postmeter) -> dict[str, Any]:
    """The configuration that was put back, with the places of this lab."""
    text = second.config.read_text().replace(str(first.folder), str(second.folder))
    settings: dict[str, Any] = yaml.safe_load(text)
    for section in ("milter", "metrics", "web"):
        settings[section] |= second.settings[section]
    return settings


def goes_on(second: Postmeter, link: str, leave: str, lost: int) -> None:
    second.wait_figure(2, "recipients_total")
    second.wait_figure(1, "unsubscribes_total")
    assert ask(second, link) == 302
    assert ask(second, leave) == 200
    assert send(second, 4).verdict.code in "ac"
    second.wait_figure(3, "recipients_total")
    assert "4.7.1" in send(second, 5).reply, "charged before the backup, and still"
    with contextlib.closing(Journal(second.state / "journal.db", readonly=True)) as journal:
        [row] = journal.database.query("SELECT address, reason FROM suppressions")
        assert row == ("bob@shop.example", "unsubscribed")
    assert max(numbers(second)) > lost
    second.wait_figure(1, "clicks_total", by="machine")


class Small:
    """A journal, and a configuration that names secrets and keys."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config, self.target = folder / "etc", folder / "etc/postmeter.yaml", folder / "copies"
        self.folder.mkdir(mode=0o750)
        settings: dict[str, Any] = {"journal": {"path": str(self.folder / "journal.db"), "host": "h"}}
        for section, name, mode in (("tracking", "tracking.secrets", 0o640), ("bounces", "bounces.secrets", 0o600)):
            path = self.folder / name
            path.write_text(f"{'00' * 32}\n")
            path.chmod(mode)
            settings[section] = {"secrets": str(path)}
        keys = self.folder / "keys"
        (keys / "news.example").mkdir(parents=True)
        (keys / "news.example" / "s.pem").write_text("a private key\n")
        settings["dkim"] = {"keys_dir": str(keys)}
        self.config.write_text(yaml.safe_dump(settings))
        self.journal = Journal(self.folder / "journal.db", host="h")

    def backup(self, *more: str, to: str = "copies") -> Path:
        """A backup is named by its second: two of them go to two places."""
        target = self.folder.with_name(to)
        before = set(target.glob("*"))
        assert main(["backup", str(target), "-c", str(self.config), *more]) == 0
        [made] = set(target.glob("*")) - before
        return made


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path)


def inside(made: Path, original: Path) -> Path:
    return made / "files" / original.relative_to("/")


def test_private_keys_come_only_when_asked_for(small: Small) -> None:
    key = small.folder / "keys" / "news.example" / "s.pem"
    assert not inside(small.backup(), key).exists()
    assert inside(small.backup("--keys", to="with keys"), key).read_text() == "a private key\n"


def test_an_empty_name_is_no_directory(small: Small, capsys: pytest.CaptureFixture[str]) -> None:
    """As where a script's variable was never set: no secrets lie about wherever it runs."""
    assert main(["backup", "", "-c", str(small.config)]) == 64
    assert "DIR: it is empty" in capsys.readouterr().err


def test_nobody_else_gets_in_and_modes_are_kept(small: Small) -> None:
    made = small.backup()
    assert made.stat().st_mode & 0o777 == 0o700
    modes = {name: inside(made, small.folder / name).stat().st_mode & 0o777 for name in os.listdir(small.folder)
             if inside(made, small.folder / name).is_file()}  # fmt: skip
    assert modes["tracking.secrets"] == 0o640
    assert modes["bounces.secrets"] == 0o600
    assert modes["journal.db"] == 0o640
    assert inside(made, small.folder).stat().st_mode & 0o777 == 0o750


def test_the_manifest_names_every_file_with_its_digest(small: Small) -> None:
    small.journal.record(told(1))
    made = small.backup()
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["last_event"] == small.journal.last()
    there = {path for path in made.rglob("*") if path.is_file()} - {made / "manifest.json"}
    assert {inside(made, Path(file["path"])) for file in manifest["files"]} == there
    for file in manifest["files"]:
        content = inside(made, Path(file["path"])).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["size"], file["sha256"])


def test_what_waits_in_the_spools_comes_with_it_and_a_link_does_not(small: Small, tmp_path: Path) -> None:
    hits = small.folder / "spool" / "hits"
    hits.mkdir(parents=True)
    (hits / "hits-1.jsonl").write_text("{}\n")
    (tmp_path / "secret").write_text("of somebody else")
    (hits / "hits-2.jsonl").symlink_to(tmp_path / "secret")
    made = small.backup()
    assert [path.name for path in inside(made, hits).iterdir()] == ["hits-1.jsonl"]


def test_directories_without_end_among_the_hits_keep_nobody_from_a_backup(small: Small, tmp_path: Path) -> None:
    """The tracking server's user may make them there."""
    hits = small.folder / "spool" / "hits"
    hits.mkdir(parents=True)
    (hits / "hits-1.jsonl").write_text("{}\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "secret").write_text("of somebody else")
    try:
        deep = hits
        for _ in range(1100):
            deep = deep / "d"
            deep.mkdir()
        (hits / "away").symlink_to(elsewhere)
        (hits / "d" / "away").symlink_to(elsewhere / "secret")
        made = small.backup()
    finally:
        subprocess.run(["rm", "-rf", str(hits)], check=True)
    assert [path.name for path in inside(made, hits).iterdir()] == ["hits-1.jsonl"]


def test_a_failure_leaves_nothing_behind(small: Small, capsys: pytest.CaptureFixture[str]) -> None:
    small.journal.close()
    for path in small.folder.glob("journal.db*"):
        path.unlink()
    (small.folder / "journal.db").write_text("no database")
    assert main(["backup", str(small.target), "-c", str(small.config)]) == 1
    assert "not a database" in capsys.readouterr().err
    assert list(small.target.iterdir()) == []


@pytest.mark.parametrize("there", [True, False])
def test_what_the_disk_does_not_give_is_named_and_what_goes_meanwhile_is_left_out(
    small: Small, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, there: bool
) -> None:
    waiting = small.folder / "spool" / "returns" / "new"
    waiting.mkdir(parents=True)
    (waiting / "bounce").write_text("From: a@b\n\n")
    take = backup._take

    def meanwhile(source: Path, files: Path) -> dict[str, object]:
        if source == waiting / "bounce":
            source.unlink()
            if there:
                source.symlink_to("/proc/self/mem")  # EIO, proc(5)
            else:
                waiting.rmdir()
        return take(source, files)

    monkeypatch.setattr(backup, "_take", meanwhile)
    assert main(["backup", str(small.target), "-c", str(small.config)]) == there
    assert capsys.readouterr().err == (f"postmeter backup: {waiting}/bounce: Input/output error\n" if there else "")
    assert [path.name[:9] for path in small.target.iterdir()] == ([] if there else ["postmeter"])


def test_two_that_begin_within_a_second_do_not_undo_each_other(
    small: Small, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("postmeter.cli.backup.time.strftime", lambda form, when: "20261122T200000Z")
    begun = small.target / ".postmeter-20261122T200000Z.partial"
    begun.mkdir(parents=True)
    (begun / "manifest.json").write_text("{}")
    assert main(["backup", str(small.target), "-c", str(small.config)]) == 1
    assert "File exists" in capsys.readouterr().err
    assert (begun / "manifest.json").exists()


def test_killed_at_any_moment_it_leaves_no_backup_that_is_not_whole(small: Small) -> None:
    for number in range(300):
        small.journal.record(told(number))
    chance, kills = random.Random(5), 0
    for number in range(8):  # each to a place of its own, for what was killed holds its name for that second
        target = small.target / str(number)
        command = [sys.executable, "-m", "postmeter", "backup", str(target), "-c", str(small.config)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={"PYTHONPATH": "milter"})
        while process.poll() is None and not list(target.glob(".*.partial")):
            time.sleep(0.001)  # bounded: it ends
        time.sleep(chance.uniform(0, 0.03))  # at any moment
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills >= 3
    for made in [*small.target.glob("*/postmeter-*"), small.backup(to="afterwards")]:
        for file in json.loads((made / "manifest.json").read_text())["files"]:
            content = inside(made, Path(file["path"])).read_bytes()
            assert hashlib.sha256(content).hexdigest() == file["sha256"]


def test_a_copy_made_while_others_write_is_one_moment(small: Small) -> None:
    """Each transaction counts its event: in the copy both are equal, whenever it was made."""
    stop = threading.Event()

    def write() -> None:
        journal, number = Journal(small.folder / "journal.db", host="h"), 0
        while not stop.is_set():
            number += 1
            journal.record(told(number)[:1], figures={("recipients_total", ()): 1})
        journal.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_for(lambda: small.journal.last() >= 50)
        made = small.backup()
        assert writer.is_alive()
    finally:
        stop.set()
        writer.join()
    with contextlib.closing(Journal(inside(made, small.folder / "journal.db"), readonly=True)) as copy:
        events = copy.events(limit=1_000_000)
        assert copy.totals() == {("recipients_total", ()): len(events)}
        assert 50 <= len(events) < small.journal.last()
        assert copy.database.query("PRAGMA integrity_check") == [("ok",)]


def next_second() -> None:
    """SQLite's clock has no parts of one."""
    now = int(time.time())
    wait_for(lambda: int(time.time()) > now)


def test_a_copy_goes_on_behind_all_numbers_and_two_copies_apart(small: Small, tmp_path: Path) -> None:
    small.journal.record(told(1))
    made = inside(small.backup(), small.folder / "journal.db")
    firsts = []
    for name in ("one", "two"):
        shutil.copy(made, tmp_path / name)
        journal = Journal(tmp_path / name, host="h")
        assert journal.events() == small.journal.events()
        journal.record(told(2))
        firsts.append(journal.events(after=5)[0].seq)
        journal.record(told(3))
        assert journal.last() == firsts[-1] + 9
        journal.close()
        assert Journal(tmp_path / name, host="h").database.query(
            "SELECT seq FROM sqlite_sequence WHERE name = 'events'"
        ) == [(firsts[-1] + 9,)]
        next_second()
    assert time.time() * 1e6 > firsts[1] >= firsts[0] + 1_000_000 > 1e15
    assert firsts[1] < 2**53, "every JSON reader takes it"


def test_hashes_are_known_again_in_a_copy(small: Small) -> None:
    small.journal.record(told(1))
    assert main(["erase", "bob.ross@shop.example", "-c", str(small.config)]) == 0
    copy = database.open(inside(small.backup(), small.folder / "journal.db"))
    with copy.transaction() as link:
        forms = veil.known_as(link, "Bob.Ross@shop.example")
    assert copy.query("SELECT count(*) FROM suppressions WHERE address IN (?, ?)", forms) == [(1,)]
    assert b"bob.ross" not in copy.path.read_bytes().lower().replace(b"xbob.ross", b"")
