"""`postmeter dkim` from the command line: real keys, real name servers; what it says, and its exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from postmeter.cli import postfix
from postmeter.cli.main import main
from postmeter.config.load import load_with_lines
from postmeter.config.permissions import person
from postmeter.config.rotating import of_rotation
from postmeter.submission import keydir
from postmeter.submission.keydir import KeyState
from tests.lab.dns import SILENCE
from tests.lab.keys import make_key
from tests.lab.zones import Zones

TODAY = time.strftime("%Y%m%d", time.gmtime())


@dataclass
class Place:
    """A configuration, its directory of keys, and the DNS it asks."""

    folder: Path
    zones: Zones
    out: pytest.CaptureFixture[str]
    dkim: dict[str, Any] = field(default_factory=dict)
    mode: str = "enforce"
    said: str = ""
    complained: str = ""

    def configure(self) -> Path:
        (self.folder / "state").mkdir(exist_ok=True)
        settings = {
            "mode": self.mode,
            "journal": {"path": str(self.folder / "state" / "journal.db")},
            "dkim": {"keys_dir": str(self.folder / "keys"), "resolvers": [self.zones.address], **self.dkim},
        }
        config = self.folder / "postmeter.yaml"
        config.write_text(yaml.safe_dump(settings))
        return config

    def run(self, *words: str) -> int:
        code = main(["dkim", *words, "-c", str(self.configure())])
        self.said, self.complained = self.out.readouterr()
        return code

    def json(self, *words: str) -> Any:
        self.run(*words, "--json")
        return json.loads(self.said)

    def publish(self, domain: str = "") -> None:
        for key in self.json("dns", *([domain] if domain else []))["keys"]:
            self.zones.publish(key["name"], key["record"])

    @property
    def keys(self) -> Path:
        return self.folder / "keys" / "example.com"


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    # Zones here have no port 53, at which the command asks name servers.
    with Zones("example.com") as zones:
        monkeypatch.setattr("postmeter.submission.dnskeys.PORT", zones.port)
        yield Place(tmp_path, zones, capsys)


def test_three_commands_from_nothing_to_a_signing_domain(place: Place) -> None:
    assert place.run("new", "Example.com") == 0
    names = re.findall(rf"^(pm{TODAY}[re])\._domainkey\.example\.com\. IN TXT ", place.said, re.MULTILINE)
    assert names == [f"pm{TODAY}r", f"pm{TODAY}e"]
    assert "{domain: example.com, keys: auto}" in place.said
    assert "postmeter dkim check example.com" in place.said
    assert place.run("check", "example.com") == 1
    assert place.said.count("WRONG") == 2
    place.publish("example.com")
    assert place.run("check", "example.com") == 0
    assert place.said.count("ok ") == 2
    place.dkim["sign"] = [{"domain": "example.com", "keys": "auto"}]
    assert place.run("check") == 0
    assert sorted(keydir.active(place.keys)) == sorted(names)


@pytest.mark.parametrize(("mode", "when"), [("enforce", "from now on"), ("observe", "once mode is enforce")])
def test_first_keys_say_when_they_sign(place: Place, mode: str, when: str) -> None:
    """That is before anybody has published them, unless nothing is signed yet."""
    place.dkim, place.mode = {"sign": [{"domain": "example.com", "keys": "auto"}]}, mode
    steps = place.json("new", "example.com")["next"]
    assert steps[0].endswith(f"mail is signed with these keys {when}")


def test_both_forms_of_a_record_say_the_same(place: Place) -> None:
    place.run("new", "example.com")
    forms = re.findall(r"^(\S+_domainkey\S+[^.])\n(v=DKIM1; \S+ \S+)$", place.said, re.MULTILINE)
    assert len(forms) == 2
    for name, record in forms:
        zone = re.search(rf"^{re.escape(name)}\. IN TXT (.*?)$(?!\n    )", place.said, re.MULTILINE | re.DOTALL)
        assert zone is not None
        strings = re.findall(r'"([^"]*)"', zone[1])
        assert "".join(strings) == record
        assert max(map(len, strings)) <= 255


def test_programs_get_json(place: Place) -> None:
    made = place.json("new", "example.com")
    assert [key["algorithm"] for key in made["keys"]] == ["rsa", "ed25519"]
    assert made["keys"] == place.json("dns", "example.com")["keys"][::-1]
    assert [key["found"] for key in place.json("check", "example.com")["keys"]] == ["missing", "missing"]


def test_a_second_pair_of_a_day_gets_a_letter_and_the_first_is_kept(place: Place) -> None:
    place.run("new", "example.com")
    before = {path.name: path.read_bytes() for path in place.keys.glob("*.pem")}
    place.run("new", "example.com")
    assert f"pm{TODAY}br._domainkey" in place.said
    assert {name: (place.keys / name).read_bytes() for name in before} == before
    assert len(list(place.keys.glob("*.pem"))) == 4


def test_new_keys_of_a_domain_that_signs_by_auto_wait(place: Place) -> None:
    place.run("new", "example.com")
    signing = sorted(keydir.active(place.keys))
    place.dkim["sign"] = [{"domain": "example.com", "keys": "auto"}]
    assert place.run("new", "example.com") == 0
    assert sorted(keydir.active(place.keys)) == signing
    assert "they sign when every name server has shown them for 1d" in place.said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_makes_belongs_to_the_daemons_user(place: Place) -> None:
    (place.folder / "state").mkdir()
    shutil.chown(place.folder / "state", "nobody")
    place.run("new", "example.com")
    files = [place.keys, *place.keys.glob("*.pem")]
    assert {path.owner() for path in files} == {"nobody"}
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o750, 0o600, 0o600]


def test_a_listed_key_is_never_rotated(place: Place) -> None:
    key = make_key(place.folder / "listed", domain="example.com", selector="pm1", user="root")
    place.dkim["sign"] = [{"domain": "example.com", "keys": [key.entry]}]
    before = key.file.read_bytes()
    assert place.run("rotate", "example.com") == 1
    assert "no program of ours rewrites" in place.complained
    assert "write keys: auto" in place.complained
    assert (key.file.read_bytes(), (place.folder / "keys").exists()) == (before, False)
    assert place.run("rotate", "other.example") == 1
    assert "other.example is not in dkim.sign; add {domain: other.example, keys: auto} there" in place.complained


def test_to_rotate_twice_is_to_rotate_once(place: Place) -> None:
    place.run("new", "example.com")
    place.dkim["sign"] = [{"domain": "example.com", "keys": "auto"}]
    assert place.run("rotate", "example.com") == 0
    first = place.said
    assert len(list(place.keys.glob("*.pem"))) == 4
    assert place.run("rotate", "example.com") == 0
    assert sorted(place.said.splitlines()) == sorted(first.splitlines())
    assert len(list(place.keys.glob("*.pem"))) == 4


def test_check_says_how_a_rotation_stands(place: Place) -> None:
    """A key that is not published yet is no fault; one that is published wrong is."""
    place.run("new", "example.com")
    place.dkim["sign"] = [{"domain": "example.com", "keys": "auto"}]
    place.publish()
    place.run("rotate", "example.com")
    assert place.run("check") == 0
    assert place.said.count("pending; it signs when every name server has shown it for 1d") == 2
    place.zones.publish(f"pm{TODAY}br._domainkey.example.com", "v=DKIM1; p=")
    assert place.run("check") == 1
    assert "revoked: ns1.example.com (127." in place.said


def test_check_says_what_may_go(place: Place) -> None:
    place.run("new", "example.com")
    place.dkim["sign"] = [{"domain": "example.com", "keys": "auto"}]
    place.publish()
    long_ago, now = time.time() - 8 * 86_400, time.time()
    retired = {f"pm{TODAY}r": KeyState("retired", long_ago), f"pm{TODAY}e": KeyState("retired", now)}
    keydir.write_state(place.keys, retired)
    assert place.run("check") == 0
    assert f"take its record out of DNS, and delete {place.keys}/pm{TODAY}r.pem" in place.said
    assert "retired; its record must stay until" in place.said
    assert place.run("dns") == 0
    assert f"; pm{TODAY}r._domainkey.example.com is not needed any more" in place.said


def test_the_commonest_slip_is_told_by_name(place: Place) -> None:
    """The form that added the domain to a name which ended with it."""
    place.run("new", "example.com")
    for key in place.json("dns", "example.com")["keys"]:
        place.zones.publish(f"{key['name']}.example.com", key["record"])
    assert place.run("check", "example.com") == 1
    assert f"call it pm{TODAY}r._domainkey: the rest is added" in place.said


def test_a_resolver_that_is_silent_is_told_apart(place: Place) -> None:
    place.run("new", "example.com")
    place.zones.resolver.faults["*"] = SILENCE
    assert place.run("check", "example.com") == 1
    assert re.search(r"^\?      pm\S+  unknown: 127\S+ did not answer within 2 s$", place.said, re.MULTILINE)
    assert "WRONG" not in place.said


def test_a_key_that_cannot_be_read_is_told_with_the_others(place: Place) -> None:
    place.run("new", "example.com")
    place.publish("example.com")
    (place.keys / f"pm{TODAY}e.pem").write_text("nonsense")
    assert place.run("check", "example.com") == 1
    assert f"WRONG  pm{TODAY}e._domainkey.example.com  unusable: " in place.said
    assert f"ok     pm{TODAY}r._domainkey.example.com" in place.said


@pytest.mark.parametrize("word", ["check", "dns"])
def test_a_domain_that_is_broken_hides_no_other(place: Place, word: str) -> None:
    place.run("new", "example.com")
    place.publish("example.com")
    missing = [{"selector": "a", "file": str(place.folder / "none.pem")}]
    place.dkim["sign"] = [
        {"domain": "gone.example", "keys": "auto"},
        {"domain": "file.example", "keys": missing},
        {"domain": "example.com", "keys": "auto"},
    ]
    place.dkim["opendkim_tables"] = {"key_table": "/nowhere/keys", "signing_table": "/nowhere/signing"}
    assert place.run(word) == 1
    assert f"pm{TODAY}r._domainkey.example.com" in place.said
    assert "/keys/gone.example: no such directory" in place.complained
    assert "/nowhere/" in place.complained
    assert "none.pem: no such file" in place.said + place.complained


def test_keys_without_end_on_one_day_are_refused_in_words(place: Place) -> None:
    place.run("new", "example.com")
    for letter in "bcdefghijklmnopqrstuvwxyz":
        (place.keys / f"pm{TODAY}{letter}r.pem").touch()
    assert place.run("new", "example.com") == 1
    assert "no selector is free for rsa" in place.complained


def test_a_place_for_keys_that_is_not_there_is_named(place: Place) -> None:
    place.dkim["keys_dir"] = str(place.folder / "nowhere" / "keys")
    assert place.run("new", "example.com") == 1
    assert f"{place.folder / 'nowhere'}: no such directory; make it" in place.complained


def test_mail_may_not_outlive_its_record(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postfix, "_ask", lambda *names: ["10d" for _ in names])
    place.run("new", "example.com")
    place.publish("example.com")
    place.dkim["sign"] = [{"domain": "example.com", "keys": "auto"}]
    assert place.run("check") == 0
    assert "dkim.retire_after: warning: mail stays up to 10d in Postfix's queue" in place.complained
    assert "give 12d or more" in place.complained


@pytest.mark.skipif(os.geteuid() != 0, reason="root checks for the daemons' user")
def test_check_config_says_when_books_could_not_rotate(place: Place) -> None:
    (place.folder / "state").mkdir()
    shutil.chown(place.folder / "state", "nobody")
    place.run("new", "example.com")
    place.dkim |= {"sign": [{"domain": "example.com", "keys": "auto"}], "rotate_every": "180d"}
    loaded = load_with_lines(place.configure())
    nobody = person("nobody")
    assert nobody is not None
    assert list(of_rotation(loaded, nobody)) == []
    shutil.chown(place.keys, "root")
    [problem] = of_rotation(loaded, nobody)
    assert "nobody may not write in" in problem.what
    assert problem.fix == f"chown nobody {place.keys}"
    place.dkim["sign"] = []
    [problem] = of_rotation(load_with_lines(place.configure()), nobody)
    assert "no entry of dkim.sign says keys: auto" in problem.what


@pytest.mark.parametrize("word", ["dns", "check"])
def test_where_nothing_is_signed_that_is_said(place: Place, word: str) -> None:
    """Silence and 0 would look as if the keys just made were right."""
    assert place.run("new", "example.com") == 0
    assert (place.run(word), place.said) == (0, "")
    assert "dkim.sign is empty" in place.complained
    assert place.json(word) == {"keys": []}
    assert place.run("dns", "example.com") == 0
    assert place.complained == ""


@pytest.mark.parametrize("words", [("new", ""), ("rotate", " "), ("dns", ""), ("check", "")])
def test_an_empty_domain_is_none_and_makes_no_keys(place: Place, words: tuple[str, ...]) -> None:
    """As in a script whose variable was never set."""
    keys = place.folder / "keys"
    keys.mkdir()
    assert place.run(*words) == 64
    assert list(keys.iterdir()) == []


@pytest.mark.parametrize(("words", "code"), [(("new", "no domain"), 64), (("check", "nothing.example"), 1)])
def test_nonsense_is_refused(place: Place, words: tuple[str, ...], code: int) -> None:
    assert place.run(*words) == code
    assert place.complained.startswith("postmeter dkim: ")
