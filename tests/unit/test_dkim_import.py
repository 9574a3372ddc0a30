"""`postmeter dkim import-opendkim` and `import-rspamd`: what is printed passes check-config and tells what is missing.

`data/signers` has a folder a case: the other signer's files, and what must come of them. DIR in them is that folder.
With POSTMETER_REWRITE=1 the latter are written anew, to be read through.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import example, given
from hypothesis import strategies as st

from postmeter.cli import import_opendkim, import_rspamd, opendkimreasons, ucl
from postmeter.cli.carried import Carried
from postmeter.cli.main import main
from postmeter.cli.opendkimconf import Setting
from postmeter.config.problem import MistakeError
from tests.lab.keys import any_rsa_key

CASES = Path(__file__).parent.parent / "data" / "signers"
PRIVATE = any_rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
SAMPLE = Path("/usr/share/doc/opendkim/examples/opendkim.conf.sample")


@pytest.fixture
def place() -> Iterator[Path]:
    with TemporaryDirectory(prefix="postmeter-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def lay_out(place: Path, case: str) -> Path:
    """The case's files where its paths say, with keys; the file to be imported."""
    for file in (CASES / case).iterdir():
        (place / file.name).write_text(file.read_text().replace("DIR", str(place)))
    (place / "keys").mkdir()
    for name in ("one.private", "example.com.b.private"):
        (place / "keys" / name).write_bytes(PRIVATE)
        (place / "keys" / name).chmod(0o600)
    return next(place / name for name in ("opendkim.conf", "dkim_signing.conf") if (place / name).exists())


@pytest.mark.parametrize(
    ("case", "tables"),
    [
        ("one_key", False),
        ("tables", False),
        ("tables", True),
        ("several", False),
        ("several", True),
        ("rspamd_domains", False),
        ("rspamd_found", False),
    ],
)
def test_what_is_printed_is_as_it_should_be_and_passes_check_config(
    place: Path, case: str, tables: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    file = lay_out(place, case)
    word = "import-rspamd" if file.name == "dkim_signing.conf" else "import-opendkim"
    assert main(["dkim", word, str(file), *["--tables"] * tables]) == 0
    printed = capsys.readouterr().out
    expected = CASES / case / f"expected{'-tables' * tables}.yaml"
    if os.environ.get("POSTMETER_REWRITE"):
        expected.write_text(unwrapped(printed.replace(str(place), "DIR")))
    assert unwrapped(printed.replace(str(place), "DIR")) == expected.read_text()
    here = f'milter: {{listen: "unix:{place}/milter.sock", socket_mode: "0666"}}\n'
    (place / "postmeter.yaml").write_text(f"{printed}\n{here}journal: {{path: {place}/journal.db}}\n")
    code = main(["check-config", str(place / "postmeter.yaml")])
    assert (code, [line for line in capsys.readouterr().err.splitlines() if " warning: " not in line]) == (0, [])


def unwrapped(text: str) -> str:
    """Comments as one line each: where they are folded depends on how long the folder's name is."""
    text = re.sub(r"\n#   (?=\S)", " ", text)
    return re.sub(r"(\n# [^-\n][^\n]*)\n# (?=[^-\s])", r"\1 ", text)


def test_every_parameter_of_the_sample_is_known() -> None:
    if not SAMPLE.exists():
        pytest.skip("Debian's opendkim is not installed")
    names = set(re.findall(r"^#? ?([A-Z][A-Za-z-]+)[ \t]+\S", SAMPLE.read_text(), re.MULTILINE))
    assert len(names) > 60
    told = {name: opendkimreasons.why_not(Setting(name, "yes", "")) for name in names}
    assert [name for name, reason in told.items() if reason.startswith("not known")] == []


def carried(tmp_path: Path, text: str) -> Carried:
    (tmp_path / "opendkim.conf").write_text(text)
    return import_opendkim.carry(tmp_path / "opendkim.conf", tables=False)


def put(out: Carried, section: str, key: str) -> object:
    return out.sections.get(section, {}).get(key, (None, ""))[0]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("", "relaxed/relaxed"),
        ("Canonicalization relaxed", "relaxed/simple"),
        ("canonicalization SIMPLE/relaxed", "simple/relaxed"),
        ("Canonicalization simple\nCanonicalization relaxed/relaxed", "relaxed/relaxed"),
        ("Canonicalization nowsp", None),
    ],
)
def test_canonicalization(tmp_path: Path, text: str, form: str | None) -> None:
    assert put(carried(tmp_path, text), "dkim", "canonicalization") == form


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("OversignHeaders From", None),
        ("SignHeaders *,+List-Unsubscribe-Post", None),
        ("SignHeaders From,Subject\nOversignHeaders From", ["(o)from", "subject"]),
        ("SignHeaders Subject,Received,DKIM-Signature", ["from", "subject"]),
        ("SignHeaders From,X-A\nOmitHeaders X-A", ["from"]),
    ],
)
def test_header_lists(tmp_path: Path, text: str, rules: list[str] | None) -> None:
    assert put(carried(tmp_path, text), "dkim", "headers") == rules


def test_names_are_added_to_our_list_and_taken_from_it(tmp_path: Path) -> None:
    rules = put(carried(tmp_path, "SignHeaders *,+X-Shop,-Sender\nOversignHeaders X-Shop"), "dkim", "headers")
    assert isinstance(rules, list)
    assert {"(o)from", "(o)x-shop", "list-unsubscribe-post"} <= set(rules)
    assert "(x)sender" not in rules


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("MTA refile:/nowhere", "No such file or directory"),
        ("InternalHosts dsn:mysql://u@h/d/table=t", "an SQL database"),
        ("KeyTable dsn:mysql://u@h/d/t\nSigningTable /x", "an SQL database"),
        ("KeyTable /x", "SigningTable: it is missing"),
        ("KeyTable /nowhere\nSigningTable /nowhere", "no such file"),
        ("Domain *\nSelector s\nKeyFile /k", "list those that are yours"),
        ("Domain example.com", "without Selector and KeyFile"),
        ("Mode v", "postmeter signs only"),
        ("NoSuchThing 1", "not known to postmeter"),
        ("RequireSafeKeys no", "always on here"),
        ("SenderHeaders Sender", "by the From field"),
    ],
)
def test_what_is_left_out_is_told_with_the_reason(tmp_path: Path, text: str, why: str) -> None:
    told = [f"{each.what}: {each.why}" for each in carried(tmp_path, text).left]
    assert any(why in each for each in told), told


@pytest.mark.parametrize(
    "text",
    [
        "KeyTable dsn:mysql://mail:S3cret@db/dkim/table=keys?keycol=id\nSigningTable erlang:n@h:S3cret:m:f",
        "InternalHosts dsn:mysql://mail:S3cret@db/dkim/table=hosts",
        "ResignMailTo dsn:mysql://mail:S3cret@db/dkim/table=hosts",
        "LDAPBindPassword S3cret",
    ],
)
def test_no_password_is_repeated(tmp_path: Path, text: str) -> None:
    """What is printed becomes a configuration that others may read."""
    out = carried(tmp_path, text)
    assert text.split()[0] in out.text("import")
    assert "S3cret" not in out.text("import")


def test_a_data_set_begins_at_the_base_directory(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("192.0.2.0/24\n")
    out = carried(tmp_path, f"BaseDirectory {tmp_path}\nInternalHosts refile:hosts")
    assert put(out, "senders", "networks") == ["192.0.2.0/24"]


@given(st.data())
def test_inside_are_the_networks_without_their_exceptions(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """As dkimf_checkip does it: the longest prefix that says something decides, and its ! first."""
    numbers = st.integers(0, 255)
    entries = data.draw(st.lists(st.tuples(st.booleans(), numbers, st.integers(25, 32)), max_size=6))
    hosts = ",".join(f"{'!' * out}192.0.2.{number}/{bits}" for out, number, bits in entries) or "203.0.113.1"
    found = put(carried(tmp_path_factory.mktemp("conf"), f"InternalHosts {hosts}"), "senders", "networks")
    assert isinstance(found, list)
    networks = [ipaddress.ip_network(each) for each in found]
    number = data.draw(numbers)
    address = ipaddress.ip_address(f"192.0.2.{number}")
    says = [(bits, out) for out, other, bits in entries if number >> (32 - bits) == other >> (32 - bits)]
    assert any(address in network for network in networks) is (not max(says, default=(0, True))[1])


@pytest.mark.parametrize("hosts", ["0.0.0.0/0", "localhost"])
def test_this_host_stays_inside(tmp_path: Path, hosts: str) -> None:
    """An empty list would leave the mail of local programs unsigned."""
    out = carried(tmp_path, f"InternalHosts {hosts}")
    assert put(out, "senders", "networks") == ["127.0.0.0/8", "::1/128"]


def test_this_host_stays_inside_where_the_list_cannot_be_read(tmp_path: Path) -> None:
    assert put(carried(tmp_path, "InternalHosts lua:/etc/hosts.lua"), "senders", "networks") is None


def signed(folder: Path, text: str) -> dict[str, list[str]]:
    """Selectors by domain, as rspamd's configuration is read; DIR in it is the folder."""
    (folder / "dkim_signing.conf").write_text(text.replace("DIR", str(folder)))
    entries = put(import_rspamd.carry(folder / "dkim_signing.conf"), "dkim", "sign")
    return {each["domain"]: [key["selector"] for key in each["keys"]] for each in entries or ()}  # type: ignore


def test_a_domain_with_keys_of_its_own_is_signed_by_those_alone(tmp_path: Path) -> None:
    """Maps and default paths are for domains that have none: an old key may lie there, and its record be gone."""
    (tmp_path / "example.com.mail.key").write_bytes(PRIVATE)
    (tmp_path / "example.net.mail.key").write_bytes(PRIVATE)
    (tmp_path / "selectors").write_text("example.com old\nexample.org map\n")
    text = """selector = "mail"; path = "DIR/$domain.$selector.key"; selector_map = "DIR/selectors";
        domain { Example.com { selectors [ { selector = "a", path = "/a" }, { selector = "b", path = "/b" } ] } }"""
    assert signed(tmp_path, text) == {"example.com": ["a", "b"], "example.org": ["map"], "example.net": ["mail"]}


def test_tables_that_are_not_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "conf").write_text('signing_table = "glob;/etc/s.map"; key_table = ["/a", "/b"];')
    out = import_rspamd.carry(tmp_path / "conf")
    assert sorted(each.what for each in out.left) == ["key_table", "signing_table"]
    assert "dkim" not in out.sections


@pytest.mark.parametrize(("seconds", "expire"), [("864000", "864000s"), ("604800", "7d"), ("86400", "7d"), ("0", None)])
def test_a_signature_outlives_its_mail(tmp_path: Path, seconds: str, expire: str | None) -> None:
    out = carried(tmp_path, f"SignatureTTL {seconds}")
    assert put(out, "dkim", "expire") == expire
    assert bool(out.left) is (seconds == "86400")


def test_files_that_include_themselves_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MistakeError, match="Include within Include"):
        carried(tmp_path, "Include opendkim.conf")


def test_a_file_that_is_not_there_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("import-opendkim", "import-rspamd"):
        assert main(["dkim", word, "/nowhere/conf"]) == 64
        assert "/nowhere/conf: No such file or directory" in capsys.readouterr().err


scalars = st.text(max_size=20) | st.booleans() | st.integers(-5, 10**6) | st.none()
settings = st.recursive(
    scalars, lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=8), each, max_size=3)
)


@given(settings, st.text(max_size=200))
def test_what_is_put_is_read_back_and_no_comment_ends_early(value: object, comment: str) -> None:
    out = Carried()
    out.put("a", "key", value, comment)  # type: ignore[arg-type]
    out.leave(comment, comment, comment)
    out.advise(comment)
    text = out.text(comment).encode("utf-8", "replace").decode()
    assert yaml.safe_load(text) == {"a": {"key": value}}


names = st.text("abc_", min_size=1, max_size=6)
trees = st.recursive(
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=10),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(names, each, max_size=3),
    max_leaves=8,
)


def spelt(value: object, chance: int) -> str:
    """The same in one of the ways in which UCL lets people write it."""
    if isinstance(value, str):
        bare = re.fullmatch(r"[a-z0-9/._$-]+", value) and chance % 2
        return value if bare else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list):
        return f"[ {', '.join(spelt(each, chance) for each in value)} ]"
    assert isinstance(value, dict)
    equals, end = ((" = ", ";\n"), (": ", ",\n"), (" = ", "\n"))[chance % 3]
    pairs = (f"{name}{equals}{spelt(each, chance)}{end}" for name, each in value.items())
    return f"{{ # }}\n{''.join(pairs)}/* {{ */ }}"


def plain(value: ucl.Value) -> object:
    if isinstance(value, ucl.Section):
        return {name: plain(each) for name, each in value.values.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


@given(st.dictionaries(names, trees, max_size=4), st.integers(0, 5))
@example({"_": ["._"], "a": "._"}, 1)
def test_ucl_is_read_however_it_is_written(tree: dict[str, object], chance: int) -> None:
    assert plain(ucl.read(spelt(tree, chance))) == tree
    assert plain(ucl.read(f"dkim {spelt(tree, chance)}")) == {"dkim": tree}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('a = 1;\n.include "/x"', "line 2: .include is not read"),
        ("a = 1;\n\n}", "line 3: '}' where a name should stand"),
        ("a {\n b = ;\n}", "line 2: ';' where a value should stand"),
        ("a {\n b = 1;\n", "line 3: 'the end of the file' where a name should stand"),
        ('a = "b', "line 1: '\"b' is not understood"),
    ],
)
def test_ucl_that_is_not_read_is_named_with_its_line(text: str, told: str) -> None:
    with pytest.raises(ucl.UclError) as raised:
        ucl.read(text)
    assert told in str(raised.value)
