"""OpenDKIM's tables: which keys sign for an address, however many lines there are, and what is wrong said by line."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import example, given
from hypothesis import strategies as st

from postmeter.config.problem import MistakeError
from postmeter.config.schema import Dkim, OpendkimTables
from postmeter.config.tablefile import TableFile, table_file
from postmeter.submission import tablelines
from postmeter.submission.keyfiles import KeyProblem
from postmeter.submission.keyring import Keyring
from postmeter.submission.opendkim import Tables
from postmeter.submission.tablelines import Globs, Line
from tests.growth import growth

RSA = rsa.generate_private_key(65537, 1024)
KEYS = "a example.com:sa:/keys/a\nb example.org:sb:/keys/b\nt %:st:/keys/%/t\n"


def tables(folder: Path, keys: str, signing: str, *, globs: bool = False, multiple: bool = False) -> OpendkimTables:
    (folder / "key.table").write_text(keys)
    (folder / "signing.table").write_text(signing)
    return OpendkimTables(
        key_table=TableFile(folder / "key.table"),
        signing_table=TableFile(folder / "signing.table", globs),
        multiple_signatures=multiple,
    )


def selectors(found: Tables, address: str) -> list[str]:
    local, _, domain = address.rpartition("@")
    return [key.selector for key in found.for_address(local, domain)]


def matches(pattern: str, text: str) -> bool:
    """The oracle: * is anything, every other character itself."""
    if not pattern or not text:
        return pattern.strip("*") == text == ""
    if pattern[0] == "*":
        return matches(pattern[1:], text) or matches(pattern, text[1:])
    return pattern[0] == text[0] and matches(pattern[1:], text[1:])


names = st.text("ab.-+", min_size=1, max_size=5)
patterns = st.text("ab.+*@", min_size=1, max_size=8)


@given(st.lists(patterns, max_size=12), names, names)
@example(["*."], "a", ".")
def test_what_matches_is_found_in_the_order_of_the_file(written: list[str], local: str, domain: str) -> None:
    lines = [Line(number, pattern, "") for number, pattern in enumerate(written, 1)]
    subject = f"{local}@{domain}"
    expected = [line.number for line in lines if matches(line.key, subject)]
    assert [line.number for line in Globs(lines, path=Path("t")).matches(subject)] == expected


@given(patterns, names, names)
@example("a*@*b", "ab", "ab")
@example("*b", "ab", "a.b")
def test_a_pattern_that_matches_an_address_reaches_its_domain(pattern: str, local: str, domain: str) -> None:
    if matches(pattern, f"{local}@{domain}"):
        near = Globs([Line(1, pattern, "")], path=Path("t"))
        assert tablelines.is_exact(pattern) or [*near.near(f"@{domain}")]
        assert tablelines.is_exact(pattern) or tablelines.reaches(pattern, domain)


@given(patterns, st.text("ab.-", min_size=1, max_size=5))
@example("a*@*.b", "a.b")
@example("a*b", "ab")
def test_a_pattern_that_reaches_a_domain_matches_some_address_of_it(pattern: str, domain: str) -> None:
    if not tablelines.is_exact(pattern) and tablelines.reaches(pattern, domain):
        local = pattern.rpartition("@")[0] if "@" in pattern else pattern[: pattern.rindex("*")]
        assert matches(pattern, f"{local.replace('*', '')}@{domain}")


@pytest.mark.parametrize(
    ("address", "multiple", "found"),
    [
        ("bob@example.com", False, ["sa"]),
        ("al@example.com", False, ["sb"]),
        ("BOB@Example.COM", False, ["sa"]),
        ("bob@x.y.example.com", False, ["sa"]),
        ("al@x.example.com", False, ["sb"]),
        ("bob@other.test", False, ["st"]),
        ("bob@example.com", True, ["sa", "sb", "st"]),
        ("al@x.example.com", True, ["sb", "st"]),
        ("al@bücher.example", False, ["st"]),
        ("al@[192.0.2.1]", False, []),
        ("al@a/b.example", False, []),
    ],
)
def test_keys_of_a_file_are_looked_up_in_opendkims_order(
    tmp_path: Path, address: str, multiple: bool, found: list[str]
) -> None:
    signing = "* t\nbob@* t\n.example.com b\nbob@.example.com a\nexample.com b\nbob@example.com a\n"
    assert selectors(Tables(tables(tmp_path, KEYS, signing, multiple=multiple)), address) == found


def test_the_first_of_two_lines_with_one_key_counts(tmp_path: Path) -> None:
    keys = KEYS + "a example.com:other:/keys/other\n"
    assert selectors(Tables(tables(tmp_path, keys, "example.com a\nexample.com b\n")), "x@example.com") == ["sa"]


def test_percent_stands_for_the_domain(tmp_path: Path) -> None:
    keys = "example.com %:own:/keys/%/own\nb example.org:sb:/keys/%.pem\n"
    found = Tables(tables(tmp_path, keys, "example.com %:news@%\n.example.com b\n"))
    [own] = found.for_address("x", "Example.com")
    assert (own.domain, own.file, own.identity) == ("example.com", Path("/keys/example.com/own"), "news@example.com")
    [other] = found.for_address("x", "sub.example.com")
    assert (other.domain, other.file) == ("example.org", Path("/keys/example.org.pem"))


def test_a_name_that_only_the_address_tells_may_be_missing(tmp_path: Path) -> None:
    found = Tables(tables(tmp_path, "example.com example.com:s:/k\n", "* %\n"))
    assert selectors(found, "x@example.com") == ["s"]
    with pytest.raises(KeyProblem, match=r"line 1: names the key 'example\.org', which .*key\.table has"):
        found.for_address("x", "example.org")


def test_comments_blank_lines_and_white_space(tmp_path: Path) -> None:
    keys = "# a\n\n \t a \t example.com : sa : /k # b\n\r\n"
    assert selectors(Tables(tables(tmp_path, keys, "\texample.com\ta\r\n# *\n")), "x@example.com") == ["sa"]


def test_a_line_of_a_refile_that_begins_with_white_space_says_nothing_and_that_is_told(tmp_path: Path) -> None:
    found = Tables(tables(tmp_path, KEYS, "  *@example.com a\n*@example.org b\n", globs=True))
    assert selectors(found, "x@example.com") == []
    assert [str(problem).partition(": ")[2][:31] for problem in found.oddities()] == ["line 1: begins with white space"]


def test_other_marks_of_a_refile_mean_what_a_regular_expression_makes_of_them(tmp_path: Path) -> None:
    signing = "[ab]+x@example.com a\n*@(example|test).org b\n"
    found = Tables(tables(tmp_path, KEYS, signing, globs=True))
    assert [selectors(found, f"{address}") for address in ("a+x@example.com", "c+x@example.com", "q@test.org")] == [
        ["sa"],
        [],
        ["sb"],
    ]


@pytest.mark.parametrize(
    ("signing", "glob", "domain", "ours"),
    [
        ("example.com a", "*@example.com a", "example.com", True),
        ("bob@example.com a", "bob@example.com a", "example.com", True),
        (".example.com a", "*@*.example.com a", "sub.example.com", True),
        ("bob@.example.com a", "bob@*.example.com a", "sub.example.com", True),
        ("* a", "* a", "example.com", True),
        ("* a", "*@* a", "sub.example.com", True),
        ("example.com a", "*example.com a", "example.com", True),
        ("* a", "* a", "example.org", False),
        ("bob@* a", "bob@* a", "example.org", False),
        ("example.org a", "*@example.org a", "example.org", False),
        ("example.com a", "*@example.com a", "sub.example.com", False),
        ("* t", "* t", "example.org", False),
    ],
)
def test_a_domain_is_ours_when_its_own_key_signs_for_some_address_of_it(
    tmp_path: Path, signing: str, glob: str, domain: str, ours: bool
) -> None:
    """A key for everybody does not make everybody's mail ours, nor does the path of a key that is not there."""
    assert Tables(tables(tmp_path, KEYS, signing)).holds(domain) is ours
    assert Tables(tables(tmp_path, KEYS, glob, globs=True)).holds(domain) is ours


def test_with_percent_in_the_path_a_domain_is_ours_where_that_key_exists(tmp_path: Path) -> None:
    (tmp_path / "example.com.key").touch()
    found = Tables(tables(tmp_path, f"t %:st:{tmp_path}/%.key\n", "* t\n"))
    assert found.holds("example.com")
    assert not found.holds("example.org")


@pytest.mark.parametrize(
    ("keys", "signing", "told"),
    [
        (KEYS, "example.com", "signing.table: line 1: example.com names no key"),
        (KEYS, "\nexample.com zz", "signing.table: line 2: names the key 'zz', which "),
        (KEYS, "example.com A", "signing.table: line 1: names the key 'A', which "),
        ("a example.com:sa", "example.com a", "key.table: line 1: a is not DOMAIN:SELECTOR:PATH"),
        ("a example.com", "example.com a", "key.table: line 1: a is not DOMAIN:SELECTOR:PATH"),
        ("a exa mple:sa:/k", "example.com a", "key.table: line 1: 'exa mple' is no domain"),
        ("a example.com:s a:/k", "example.com a", "key.table: line 1: 's a' is no selector"),
        ("a example.com:sa:./k", "example.com a", "key.table: line 1: ./k depends on a directory"),
        ("a example.com:sa:k.pem", "example.com a", "key.table: line 1: holds neither a path nor a key"),
    ],
)
def test_what_cannot_be_understood_is_told_with_its_line(tmp_path: Path, keys: str, signing: str, told: str) -> None:
    with pytest.raises(KeyProblem) as raised:
        Tables(tables(tmp_path, keys, signing))
    assert told in str(raised.value)


@pytest.mark.parametrize("pattern", ["[ab@example.com", "(@example.com", r"\d@example.com", "[[:alpha:]]@example.com"])
def test_a_pattern_that_is_broken_or_understood_in_two_ways_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(KeyProblem, match=r"line 2: the pattern "):
        Tables(tables(tmp_path, KEYS, f"*@example.org b\n{pattern} a\n", globs=True))


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    both = OpendkimTables(key_table=TableFile(tmp_path / "k"), signing_table=TableFile(tmp_path / "s"))
    assert [(told.path, told.what, told.key) for told in Keyring(Dkim(opendkim_tables=both)).examine()] == [
        (tmp_path / "k", "no such file", "dkim.opendkim_tables")
    ]


def test_keys_that_stand_in_the_table_itself_sign(tmp_path: Path) -> None:
    def inline() -> Iterator[str]:
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
            yield base64.b64encode(RSA.private_bytes(Encoding.DER, form, NoEncryption())).decode()

    for text in inline():
        dkim = Dkim(opendkim_tables=tables(tmp_path, f"a example.com:sa:{text}\n", "example.com a\n"))
        (tmp_path / "key.table").chmod(0o600)
        [key] = Keyring(dkim).for_domain("example.com", "x")
        assert key.private.private_numbers() == RSA.private_numbers()  # type: ignore[union-attr]


def test_a_table_with_a_key_in_it_that_others_can_read_is_refused(tmp_path: Path) -> None:
    text = base64.b64encode(RSA.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())).decode()
    dkim = Dkim(opendkim_tables=tables(tmp_path, f"a example.com:sa:{text}\n", "example.com a\n"))
    (tmp_path / "key.table").chmod(0o644)
    with pytest.raises(KeyProblem, match=r"others can read or write it .*chmod o-rwx .*key\.table"):
        Keyring(dkim).for_domain("example.com", "x")


@pytest.mark.parametrize("globs", [False, True])
def test_a_table_of_many_lines_answers_at_once(tmp_path: Path, globs: bool) -> None:
    """To try every line would take a hundred times as long in the larger table."""

    def read(many: int) -> Tables:
        keys = "".join(f"k{n} d{n}.example:s{n}:/keys/{n}\n" for n in range(many))
        signing = "".join(f"{'*@' * globs}d{n}.example k{n}\n" for n in range(many))
        folder = tmp_path / str(many)
        folder.mkdir()
        return Tables(tables(folder, keys, signing, globs=globs))

    def ask(found: Tables) -> None:
        assert all(selectors(found, f"x@d{n}.example") == [f"s{n}"] for n in range(50))

    assert growth(ask, read(50), read(5000)) < 20


def test_files_are_named_as_opendkim_conf_names_them() -> None:
    assert table_file("/etc/t") == table_file("file:/etc/t") == table_file("FILE:/etc/t") == TableFile(Path("/etc/t"))
    assert table_file("refile:/etc/t") == TableFile(Path("/etc/t"), globs=True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("csl:a,b", "a list in the configuration itself"),
        ("db:/etc/t.db", "a Berkeley DB"),
        ("/etc/t.db", "a Berkeley DB by its name"),
        ("dsn:mysql://u@h/d/table=t", "an SQL database"),
        ("ldap://h/dc=example", "an LDAP directory"),
        ("lua:/etc/t.lua", "a Lua script"),
        ("key.table", "is not an absolute path"),
        ("refile:key.table", "is not an absolute path"),
    ],
)
def test_tables_that_are_no_text_file_are_refused_by_what_they_are(text: str, told: str) -> None:
    with pytest.raises(MistakeError, match=told):
        table_file(text)
