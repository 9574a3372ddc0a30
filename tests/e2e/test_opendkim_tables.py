"""OpenDKIM's tables through a real Postfix: the local part decides, verifiers agree, a reload reads them again."""

from __future__ import annotations

import re

import pytest

from tests.e2e.conftest import OpenLab
from tests.lab import verify
from tests.lab.keys import DkimKey, make_key, records
from tests.lab.lab import BOB, Lab, letter
from tests.lab.product import Postmeter

SIGNING = "news@example.com news:news@%\nexample.com all\n"


@pytest.fixture(scope="module")
def keys() -> list[DkimKey]:
    return []


@pytest.fixture(scope="module")
def lab(open_lab: OpenLab, needs_verifiers: None, keys: list[DkimKey]) -> Lab:
    postmeter = Postmeter({"milter": {"workers": 2}})
    tables = postmeter.folder / "tables"
    tables.mkdir(mode=0o755)
    for selector in ("news", "all"):
        keys.append(make_key(postmeter.folder / "keys", domain="example.com", selector=selector, user=postmeter.user))
    rows = "".join(f"{key.selector} {key.domain}:{key.selector}:{key.file}\n" for key in keys)
    write(postmeter, "key.table", rows)
    write(postmeter, "signing.table", SIGNING)
    both = {"key_table": str(tables / "key.table"), "signing_table": f"file:{tables}/signing.table"}
    postmeter.settings["dkim"] = {"check_every": 0, "opendkim_tables": both}
    return open_lab(Lab(postmeter=postmeter))


def write(postmeter: Postmeter, name: str, text: str) -> None:
    (postmeter.folder / "tables" / name).write_text(text)
    (postmeter.folder / "tables" / name).chmod(0o644)


def signature(raw: bytes) -> str:
    found = re.search(rb"^DKIM-Signature:.*?\r\n(?![ \t])", raw, re.DOTALL | re.MULTILINE)
    return re.sub(r"\s+", "", found[0].decode()) if found else ""


@pytest.mark.parametrize(("sender", "selector"), [("news@example.com", "news"), ("alice@example.com", "all")])
def test_the_local_part_decides_and_verifiers_agree(lab: Lab, keys: list[DkimKey], sender: str, selector: str) -> None:
    raw = lab.deliver(letter(sender=sender)).data
    assert f";s={selector};" in signature(raw)
    assert ("i=news@example.com" in signature(raw)) is (selector == "news")
    verdicts = verify.verify_all([raw], records(*keys))
    assert [str(verdict) for verdict in verdicts if not verdict.accepted] == []


def test_a_login_of_another_domain_is_not_signed_for(lab: Lab) -> None:
    """Tables say which key, `senders.from` says who may."""
    assert signature(lab.deliver(letter(sender="news@example.com"), login=BOB).data) == ""
    lab.postmeter.wait_figure(1, "dkim_unsigned_total", reason="from_mismatch")


def test_a_reload_reads_the_tables_again_and_a_broken_one_changes_nothing(lab: Lab) -> None:
    write(lab.postmeter, "signing.table", "example.com all\n")
    lab.postmeter.reload()
    assert ";s=all;" in signature(lab.deliver(letter(sender="news@example.com")).data)
    write(lab.postmeter, "signing.table", "example.com nobody\n")
    lab.postmeter.reload()
    lab.postmeter.wait_for(r"not reloaded.*signing\.table: line 1: names the key 'nobody'")
    assert ";s=all;" in signature(lab.deliver(letter(sender="news@example.com")).data)
