"""Debian's opendkim and postmeter read the same two tables: the same keys sign for the same addresses.

Two differences are wanted, both where MultipleSignatures is on: of more than two lines that match opendkim signs with
the first and the last, against its own page, and postmeter with all; and postmeter signs once with one key.
"""

from __future__ import annotations

import itertools
import random
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from postmeter.config.schema import Dkim, OpendkimTables
from postmeter.config.tablefile import table_file
from postmeter.submission.auid import auid
from postmeter.submission.keyfiles import KeyProblem
from postmeter.submission.keyring import Keyring
from tests.lab.keys import DkimKey
from tests.lab.mta import Taken
from tests.lab.opendkim import OpenDkim

pytestmark = pytest.mark.usefixtures("needs_verifiers")

Signed = list[tuple[str, str, str]] | str
"""d=, s= and i= of each signature; or `unsigned`, or `failed` where a key is missing."""


class Tables(OpenDkim):
    """opendkim with two tables in its folder; DIR in them stands for that folder, and DIR/key is a key."""

    def __init__(self, folder: Path, keys: str, signing: str, *, kinds: Sequence[str], multiple: bool) -> None:
        unused = DkimKey("example.com", "unused", folder / "key", "")
        super().__init__(folder, unused, form="relaxed/relaxed", judge=False)
        (folder / "key.table").write_text(keys.replace("DIR", str(folder)))
        (folder / "signing.table").write_text(signing)
        (folder / "key.table").chmod(0o600)
        self.specs = [f"{kinds[0]}{folder}/key.table", f"{kinds[1]}{folder}/signing.table"]
        self.multiple = multiple
        self._settings = {
            "Mode": "s", "Socket": f"local:{self.address}", "Syslog": "no", "RequireSafeKeys": "no",
            "KeyTable": self.specs[0], "SigningTable": self.specs[1], "MultipleSignatures": "yes" if multiple else "no",
        }  # fmt: skip

    def ours(self) -> Keyring:
        key_table, signing_table = (table_file(spec) for spec in self.specs)
        tables = OpendkimTables(key_table=key_table, signing_table=signing_table, multiple_signatures=self.multiple)
        return Keyring(Dkim(opendkim_tables=tables))


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key"
    subprocess.run(["/usr/bin/openssl", "genrsa", "-out", path, "1024"], check=True, capture_output=True)
    path.chmod(0o600)
    return path


def theirs(taken: Taken) -> Signed:
    if taken.verdict.code not in "ac":
        return "failed"
    found = []
    for value in taken.inserted("DKIM-Signature"):
        tags = dict(tag.split("=", 1) for tag in re.sub(r"\s+", "", value).split(";") if tag)
        found.append((tags["d"].lower(), tags["s"], tags.get("i", "")))
    return found or "unsigned"


def ours(ring: Keyring, address: str) -> Signed:
    local, _, domain = address.rpartition("@")
    try:
        keys = ring.for_domain(domain, local)
    except KeyProblem:
        return "failed"
    return [(key.domain, key.selector, auid(key.identity, key.domain).decode()) for key in keys] or "unsigned"


def agree(mine: Signed, other: Signed) -> bool:
    """opendkim leaves the first and the last of more than two, also where that is twice the same key."""
    if isinstance(mine, str) or isinstance(other, str) or len(mine) < 2 or len(other) < 2:
        same_key = not isinstance(other, str) and len({(domain, selector) for domain, selector, _ in other}) == 1
        return mine == (other[:1] if same_key else other)
    keys = [(domain, selector) for domain, selector, _ in other]
    return mine[0] == other[0] and (other[1] in mine or keys[0] == keys[1])


def compare(
    folder: Path,
    key: Path,
    keys: str,
    signing: str,
    addresses: Iterable[str],
    *,
    kinds: Sequence[str] = ("", ""),
    multiple: bool = False,
) -> list[Signed]:
    (folder / "key").write_bytes(key.read_bytes())
    (folder / "key").chmod(0o600)
    (folder / "example.com.key").write_bytes(key.read_bytes())
    (folder / "example.com.key").chmod(0o600)
    said = []
    opendkim = Tables(folder, keys, signing, kinds=kinds, multiple=multiple)
    ring = opendkim.ours()
    with opendkim:
        for address in addresses:
            with opendkim.session() as mta:
                mta.mail("x@example.net", login="x", queue_id="Q")
                mta.rcpt("r@example.net", queue_id="Q")
                taken = mta.message([("From", f" {address}".encode()), ("Subject", b" x")], b"x\r\n")
            said.append(ours(ring, address))
            assert agree(said[-1], theirs(taken)), (address, said[-1], theirs(taken))
    return said


KEYS = """\
# names may be anything
a            example.com:sa:DIR/key
b._dk.x      example.org:sb:DIR/key     # a comment
\tt\t%:st:DIR/key
p            %:sp:DIR/%.key
q            example.com:sq:DIR/%.key
example.com  example.com:own:DIR/key
a            example.net:never:DIR/key
"""
ADDRESSES = [
    "bob@example.com", "al@example.com", "BOB@EXAMPLE.com", "bob@sub.example.com", "al@a.b.example.com",
    "bob@other.test", "al@other.test", "al@notexample.com", "bob+x@example.com", "bobbx@example.com",
    "al@example.org", "al@com",
]  # fmt: skip


@pytest.mark.parametrize("multiple", [False, True])
@pytest.mark.parametrize(
    "signing",
    [
        "bob@example.com a\nexample.com b._dk.x\n",
        "example.com b._dk.x\nbob@example.com a\n.com t\n* a\n",
        ".example.com a\nbob@.example.com t\nbob@* b._dk.x\n",
        "*  a   # everybody\n.com b._dk.x\nal@.com t\n\n",
        "example.com a\nexample.com b._dk.x\n",
        "example.com %\n.example.com a\n",
        "* %\n",
        "example.com p\n.example.com q\nother.test p\n",
        "example.com a:x@example.com\n.example.com t:x@%\n*  a:x@example.org\n",
        "Example.COM a\nBob@Example.COM b._dk.x\n",
    ],
)
def test_files(tmp_path: Path, key: Path, signing: str, multiple: bool) -> None:
    compare(tmp_path, key, KEYS, signing, ADDRESSES, multiple=multiple)


@pytest.mark.parametrize("multiple", [False, True])
@pytest.mark.parametrize(
    "signing",
    [
        "*@example.com a\n*@*.example.com b._dk.x\n",
        "*@*.example.com b._dk.x\n*@sub.example.com a\nbob@* t\n",
        "*example.com a\nal@* b._dk.x\n",
        "* t\n*@example.com a\n",
        "bob+*@example.com a\nb.b@example.com b._dk.x\nexample.com a\n",
        "*@EXAMPLE.com a\nBOB@sub.example.com t\n",
        "  *@example.com a\n*@other.test t # end\n",
        "*@example.com %\n*@*.example.com p\n*@other.test t:x@%\n",
        "bo?bx@example.com a\n[ab]l@example.(com|org) b._dk.x\n*@*.(com|test) t\n",
        "*@*com a\n*l@com t\n*@*.* b._dk.x\n",
    ],
)
def test_files_of_patterns(tmp_path: Path, key: Path, signing: str, multiple: bool) -> None:
    compare(tmp_path, key, KEYS, signing, ADDRESSES, kinds=("", "refile:"), multiple=multiple)


def test_a_key_table_of_patterns(tmp_path: Path, key: Path) -> None:
    """People write refile: for both tables."""
    keys = "first example.com:s1:DIR/key\n indented example.com:s2:DIR/key\n*st example.com:s3:DIR/key\n"
    said = compare(tmp_path, key, keys, "example.com first\nother.test last\n", ADDRESSES, kinds=("refile:", "refile:"))
    assert set(map(str, said)) == {"unsigned"}
    for kinds in (("refile:", "file:"), ("REFILE:", "FILE:")):
        folder = tmp_path / kinds[0]
        folder.mkdir()
        compare(folder, key, keys, "example.com first\nother.test last\n", ADDRESSES, kinds=kinds)


def test_a_key_that_is_missing_stops_that_mail_only(tmp_path: Path, key: Path) -> None:
    keys = KEYS + "m example.com:sm:DIR/missing\n"
    said = compare(tmp_path, key, keys, "bob@example.com m\nexample.com a\n", ADDRESSES[:2])
    assert said == ["failed", [("example.com", "sa", "")]]


@pytest.mark.parametrize("globs", [False, True])
def test_tables_made_by_chance(tmp_path: Path, key: Path, globs: bool) -> None:
    chance = random.Random(4)
    locals_, hosts = ["a", "b", "a.b", "a+b"], ["x", "y.x", "z.y.x", "xx", "y-x", "x.y"]
    addresses = [f"{local}@{host}" for local, host in itertools.product(locals_, hosts)]
    plain = ["{l}@{h}", "{h}", ".{h}", "{l}@.{h}", "{l}@*", "*"]
    forms = ["{l}@{h}", "{l}@*", "*@{h}", "*@*.{h}", "*{h}", "*", "{l}*@{h}"] if globs else plain
    names = ["a", "b._dk.x", "t"]
    said: list[Signed] = []
    for nth in range(4):
        lines = [
            f"{chance.choice(forms).format(l=chance.choice(locals_), h=chance.choice(hosts))} {chance.choice(names)}\n"
            for _ in range(12)
        ]
        folder = tmp_path / str(nth)
        folder.mkdir()
        said += compare(
            folder, key, KEYS, "".join(lines), addresses, kinds=("", "refile:" if globs else ""), multiple=bool(nth % 2)
        )
    assert len(set(map(str, said))) > 5  # the comparison has something to compare
