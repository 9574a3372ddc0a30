"""What `dkim` lets one choose, over a real Postfix, as OpenDKIM, Mail::DKIM and dkimpy judge it.

Keys lie in directories (`keys: auto`); x= and i= are asked for; mail goes out for a domain, one below it, one that no
entry covers, and one of other letters.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.conftest import OpenLab
from tests.lab import verify
from tests.lab.client import RefusedError
from tests.lab.keys import DkimKey, make_key, records
from tests.lab.lab import ALICE, Lab, letter
from tests.lab.product import Postmeter
from tests.lab.sink import Delivery

IDN = "bücher.example"
A_LABEL = "xn--bcher-kva.example"
FORMS = ("relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple")


def auto_key(postmeter: Postmeter, domain: str, selector: str, algorithm: str) -> DkimKey:
    """A key where `keys: auto` looks for it."""
    folder = postmeter.folder / "keys" / domain
    made = make_key(folder, domain=domain, selector=selector, algorithm=algorithm, user=postmeter.user)
    made.file.rename(folder / f"{selector}.pem")
    return made


class Signing:
    """One lab for all."""

    def __init__(self, open_lab: OpenLab) -> None:
        self.postmeter = Postmeter()
        self.keys = [auto_key(self.postmeter, "example.com", name, name) for name in ("rsa", "ed25519")]
        self.keys.append(auto_key(self.postmeter, A_LABEL, "idn", "rsa"))
        self.postmeter.settings["senders"] = {"from": {ALICE: "any"}}
        self.postmeter.settings["dkim"] = {
            "keys_dir": str(self.postmeter.folder / "keys"),
            "sign": [
                {"domain": "example.com", "keys": "auto", "subdomains": True},
                {"domain": IDN, "keys": "auto"},
            ],
            "default_domain": "example.com",
            "expire": "30d",
            "identity": "from",
        }
        self.lab = open_lab(Lab(postmeter=self.postmeter))

    def send(self, author: str, *, body: str = "Good  morning. \r\n\r\n") -> Delivery:
        utf8 = not author.isascii()
        args = b"SMTPUTF8 BODY=8BITMIME" if utf8 else b""
        return self.lab.deliver(letter(body, sender=author, subject="a  letter"), args=args)

    def accepted(self, *messages: bytes, keys: list[DkimKey] | None = None) -> list[str]:
        """What no verifier may say."""
        verdicts = verify.verify_all(messages, records(*(keys or self.keys)))
        return [str(verdict) for verdict in verdicts if not verdict.accepted]


@pytest.fixture(scope="module")
def signing(open_lab: OpenLab, needs_verifiers: None) -> Signing:
    return Signing(open_lab)


def tags(message: bytes) -> list[dict[str, str]]:
    """The tags of each DKIM-Signature, from the top down."""
    found = re.findall(rb"^DKIM-Signature:((?:[^\r\n]|\r\n[ \t])*)", message, re.MULTILINE)
    return [
        dict(part.partition("=")[::2] for part in re.sub(r"\s", "", value.decode()).rstrip(";").split(";"))
        for value in found
    ]


@pytest.mark.parametrize(
    ("author", "domain", "selectors", "identity"),
    [
        ("alice@example.com", "example.com", ["rsa", "ed25519"], "alice@example.com"),
        ("a=b@news.example.com", "example.com", ["rsa", "ed25519"], "a=3Db@news.example.com"),
        ('"a; and b"@example.com', "example.com", ["rsa", "ed25519"], '"a=3B=20and=20b"@example.com'),
        ("x@customer.example", "example.com", ["rsa", "ed25519"], None),
        (f"info@{IDN}", A_LABEL, ["idn"], f"info@{A_LABEL}"),
        (f"jörg@{IDN}", A_LABEL, ["idn"], f"j=C3=B6rg@{A_LABEL}"),
    ],
)
def test_every_author_is_signed_for_as_asked(
    signing: Signing, author: str, domain: str, selectors: list[str], identity: str | None
) -> None:
    message = signing.send(author).data
    assert signing.accepted(message) == []
    made = tags(message)
    assert [(each["d"], each["s"], each.get("i")) for each in made] == [
        (domain, selector, identity) for selector in selectors
    ]
    assert all(int(each["x"]) == int(each["t"]) + 30 * 86400 for each in made)


def test_an_author_with_an_at_in_quotes_is_signed_for_by_nobody(signing: Signing) -> None:
    """Some programs show what is quoted as the address."""
    assert tags(signing.send('"boss@bank.example"@example.com').data) == []


@pytest.mark.parametrize("form", FORMS)
def test_every_canonicalization_survives_postfix(signing: Signing, form: str) -> None:
    signing.postmeter.settings["dkim"]["canonicalization"] = form
    signing.postmeter.write()
    signing.postmeter.reload()
    messages = [signing.send(author).data for author in (ALICE, f"jörg@{IDN}")]
    assert {each["c"] for message in messages for each in tags(message)} == {form}
    assert signing.accepted(*messages) == []


def test_a_key_file_that_changes_signs_without_a_reload_and_a_bad_one_leaves_the_old(signing: Signing) -> None:
    place: Path = signing.postmeter.folder / "keys" / "example.com"
    (place / "pm2.pem").write_text("-----BEGIN PRIVATE KEY-----\nMII")
    signing.postmeter.wait_until(lambda: "pm2.pem" in _after_mail(signing))
    assert f"{place}/pm2.pem: " in signing.postmeter.log()
    assert [each["s"] for each in tags(signing.send(ALICE).data)] == ["rsa", "ed25519"]
    (place / "pm2.pem").unlink()
    signing.keys.append(auto_key(signing.postmeter, "example.com", "pm3", "rsa"))

    def signed() -> bool:
        return "pm3" in [each["s"] for each in tags(signing.send(ALICE).data)]

    signing.postmeter.wait_until(signed)
    assert signing.accepted(signing.send(ALICE).data) == []


def test_a_key_that_is_bad_at_first_use_costs_its_own_domain_a_451_until_it_is_mended(signing: Signing) -> None:
    """The thousand before it are looked at when the milter starts, this one is not."""
    made = auto_key(signing.postmeter, "late.example", "late", "rsa")
    file = signing.postmeter.folder / "keys/late.example/late.pem"
    many = [{"domain": f"c{nth}.example", "keys": [{"selector": "s", "file": str(file)}]} for nth in range(1000)]
    before = signing.postmeter.settings["dkim"]["sign"]
    signing.postmeter.settings["dkim"]["sign"] = [*before, *many, {"domain": "late.example", "keys": "auto"}]
    signing.postmeter.write()
    signing.postmeter.reload()
    file.chmod(0o644)
    with pytest.raises(RefusedError) as caught:
        signing.send("x@late.example")
    assert str(caught.value.answer).startswith("451 4.7.5 ")
    assert f"{file}: others can read or write it (mode 0644); chmod o-rwx {file}" in signing.postmeter.log()
    assert [each["d"] for each in tags(signing.send(ALICE).data)][:1] == ["example.com"]
    file.chmod(0o600)
    assert signing.accepted(signing.send("x@late.example").data, keys=[made]) == []


def _after_mail(signing: Signing) -> str:
    signing.send(ALICE)
    return signing.postmeter.log()
