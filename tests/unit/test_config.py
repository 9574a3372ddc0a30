"""The contract: what a file may say, what it means, and what stands for a key that it leaves out."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postmeter.config.load import ConfigError, Problem, load, load_with_lines, loads, read
from postmeter.config.schema import Config, InetAddress, KeyEntry, Limit, SignEntry, UnixAddress
from postmeter.config.section import Key, keys

ROOT = Path(__file__).parents[2]


def contract() -> Path:
    """The contract that stands beside the corpora, outside this project."""
    corpora = Path(os.environ.get("POSTMETER_CORPORA") or ROOT.parent / "shared" / "corpora")
    found = corpora.parent / "postmeter.example.yaml"
    if not found.exists():
        pytest.skip(f"no {found}: the contract lies outside this project")
    return found


def all_keys(kind: type[Any] = Config, path: str = "") -> dict[str, Key]:
    found: dict[str, Key] = {}
    for key in keys(kind):
        found |= all_keys(key.section, f"{path}{key.name}.") if key.section else {f"{path}{key.name}": key}
    return found


def value(config: object, path: str) -> object:
    for name in path.split("."):
        config = getattr(config, name if hasattr(config, name) else f"{name}_")
    return config


@pytest.mark.parametrize(
    "text", ["", "\n", "# only a comment\n", "---\n", "{}", "null", "\ufeff", "milter:\nquota: {}\n"]
)
def test_a_file_that_says_nothing_is_the_default(text: str) -> None:
    assert loads(text) == Config()


ADDED = {"milter.linger"}
"""Keys that are younger than the contract."""


def test_the_contract_is_the_default_key_by_key() -> None:
    """Every key of the contract stands there with our default, and we have no key that it lacks but those added."""
    loaded = load_with_lines(contract())
    assert not ADDED & set(loaded.lines)
    for path in set(all_keys()) - ADDED:
        assert path in loaded.lines
        assert value(loaded.config, path) == value(Config(), path), path
    assert loaded.config == Config()


def outcome(content: str | bytes) -> tuple[Problem, ...]:
    """What is wrong with it. Any other exception than ConfigError fails the test that calls."""
    try:
        read(content, "any")
    except ConfigError as error:
        return error.problems
    return ()


def check_outcome(content: str | bytes) -> None:
    assert all(str(problem).count("\n") == 0 and problem.what for problem in outcome(content))


def examples() -> list[tuple[str, str]]:
    return [(path, key.example) for path, key in all_keys().items() if key.example]


@pytest.mark.parametrize(("path", "example"), examples())
def test_an_example_of_a_key_is_read_and_says_something_else_than_the_default(path: str, example: str) -> None:
    section, _, name = path.rpartition(".")
    text = f"{name}: {example}" if not section else f"{section}:\n  {name}: {example}"
    assert value(loads(text), path) != value(Config(), path)


def test_the_examples_in_the_contracts_comments_are_read() -> None:
    """Each `e.g.` behind a key."""
    section = ""
    seen = 0
    for line in contract().read_text("utf-8").splitlines():
        section = match[1] if (match := re.match(r"(\w+):", line)) else section
        match = re.match(r"  (\w+): [^#]*#.*?e\.g\. ([\[{].*[\]}]|[\w@.:/]*\w)", line)
        if match:
            seen += 1
            assert outcome(f"{section}:\n  {match[1]}: {match[2]}") == (), line
    assert seen >= 12


def test_words_of_yaml_are_what_the_key_makes_of_them() -> None:
    config = loads("""
        senders: {authenticated: off, certificates: on, daemon_names: [on, 123, no]}
        tracking: {links: off, opens: no, logins: {no: {links: off}, 0123: {max_links: 5}}}
        quota: {brake: {mode: off}, rules: [{login: yes, limits: unlimited}, {login: null, limits: [1 messages/day]}]}
        milter: {socket_mode: 0640, socket_group: null}
        journal: {host: 12:30:00}
        """)
    assert (config.senders.authenticated, config.senders.certificates) == (False, True)
    assert config.senders.daemon_names == ("on", "123", "no")
    assert config.tracking.links == "off"
    assert config.tracking.logins == {"no": {"links": "off"}, "0123": {"max_links": 5}}
    assert [rule.login for rule in config.quota.rules] == ["yes", None]
    assert (config.milter.socket_mode, config.milter.socket_group) == (0o640, None)
    assert config.journal.host == "12:30:00"


def test_limits_keep_unit_window_and_text() -> None:
    limits = loads(
        "quota: {limits: [500 recipients/day, 1 message/second, 1G/month, 50 recipients/message, 9 bytes/hour]}"
    )
    assert limits.quota.limits == (
        Limit(500, "recipients", 86400, "500 recipients/day"),
        Limit(1, "messages", 1, "1 message/second"),
        Limit(2**30, "bytes", 30 * 86400, "1G/month"),
        Limit(50, "recipients", 0, "50 recipients/message"),
        Limit(9, "bytes", 3600, "9 bytes/hour"),
    )


def test_rules_take_every_condition_of_this_version() -> None:
    (rule,) = loads("""
        quota:
          rules:
            - {login: "*@example.org", network: 192.0.2.0/24, service: SUBMISSION, from_domain: Example.org,
               limits: [1G/day], over: reject}
        """).quota.rules
    assert (rule.login, rule.service, rule.from_domain, rule.over) == (
        "*@example.org",
        "SUBMISSION",
        "example.org",
        "reject",
    )
    assert rule.network == ipaddress.ip_network("192.0.2.0/24")
    assert rule.limits == (Limit(2**30, "bytes", 86400, "1G/day"),)


def test_signing_entries_and_header_lists() -> None:
    dkim = loads("""
        dkim:
          sign:
            - domain: Bücher.example
              subdomains: true
              keys: [{selector: PM1, file: /k/1.pem}, {selector: pm2.a, file: /k/2.pem}]
          headers: ["(o)From", "(x)date", list-unsubscribe-post]
        """).dkim
    listed = (KeyEntry(selector="pm1", file=Path("/k/1.pem")), KeyEntry(selector="pm2.a", file=Path("/k/2.pem")))
    assert dkim.sign == (SignEntry(domain="xn--bcher-kva.example", keys=listed, subdomains=True),)
    assert not isinstance(dkim.headers, str)
    assert [(rule.name, rule.mark) for rule in dkim.headers] == [
        ("from", "o"),
        ("date", "x"),
        ("list-unsubscribe-post", ""),
    ]


def test_tracking_of_a_domain_or_login_holds_what_was_written() -> None:
    tracking = loads("""
        tracking:
          url: https://Click.Example.com/
          domains: {Shop.Example: {url: "https://go.shop.example:8443", links: off}, plain.example: {url: null}}
          logins: {a@example.com: {mail: all, skip_links: [reset]}}
        """).tracking
    assert tracking.url == "https://click.example.com"
    assert tracking.domains == {
        "shop.example": {"url": "https://go.shop.example:8443", "links": "off"},
        "plain.example": {"url": None},
    }
    assert tracking.logins == {"a@example.com": {"mail": "all", "skip_links": ("reset",)}}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/milter.sock", UnixAddress(Path("/run/milter.sock"))),
        ("inet:127.0.0.1:8891", InetAddress("127.0.0.1", 8891)),
        ("inet:[::1]:8891", InetAddress("::1", 8891)),
        ("inet:localhost:8891", InetAddress("localhost", 8891)),
    ],
)
def test_sockets_are_written_as_in_main_cf(text: str, address: object) -> None:
    assert loads(f"milter: {{listen: '{text}'}}").milter.listen == address


def test_a_problem_found_later_has_the_line_of_its_key_or_the_nearest_around_it() -> None:
    loaded = read(
        "mode: enforce\ndkim:\n  sign:\n  - domain: example.com\n    keys:\n    - {selector: a, file: /a}\n", "x"
    )
    paths = ("dkim.sign[0].keys[0].file", "dkim.sign[0].subdomains", "dkim.headers")
    assert [loaded.line(path) for path in paths] == [6, 4, 2]
    assert (loaded.line("journal.path"), loaded.line("")) == (0, 0)
    assert str(loaded.problem("dkim.sign[0].domain", "bad", "mend it")) == "x:4: dkim.sign[0].domain: bad; mend it"
    assert str(loaded.warning("journal.path", "bad", "mend it")) == "x: journal.path: warning: bad; mend it"


def test_thousands_of_logins_are_read_exactly(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_text("senders:\n  from:\n" + "".join(f"    u{n}@a.example: [d{n}.example]\n" for n in range(5000)))
    assert load(path).senders.from_ == {f"u{n}@a.example": (f"d{n}.example",) for n in range(5000)}


def test_defaults_are_not_shared_between_configurations() -> None:
    Config().senders.from_["x"] = "any"
    assert Config().senders.from_ == {}


def test_sections_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().milter.workers = 3  # type: ignore[misc]


_WORDS = st.sampled_from([*all_keys(), *(path.rpartition(".")[2] for path in all_keys()), *Config.__slots__])
_SCALARS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "off",
            "null",
            "auto",
            "1G/day",
            "5 messages/hour",
            "unix:/x",
            "9" * 400,
            "1e999",
            "::",
            "[",
            "@",
            "//[",
            "80%",
        ]
    ),
)
_TREES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_WORDS, inner, max_size=3)),
    max_leaves=12,
)


def as_yaml(tree: object) -> str:
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{name}: {as_yaml(inner)}" for name, inner in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(map(as_yaml, tree)) + "]"
    return "'" + str(tree).replace("'", "''") + "'"


@given(st.text())
def test_no_text_raises_anything_but_config_error(text: str) -> None:
    check_outcome(text)


@given(st.binary())
def test_no_bytes_raise_anything_but_config_error(content: bytes) -> None:
    check_outcome(content)


@given(
    st.lists(
        st.sampled_from([*"ab:-?[]{}&*!|>'\"%@`#,\\ \n\t", "\n  ", ": ", "- ", "mode", "quota", "<<", "---\n", "...\n"])
    )
)
def test_no_scramble_of_yaml_raises_anything_but_config_error(pieces: list[str]) -> None:
    check_outcome("".join(pieces))


@settings(max_examples=5 * settings().max_examples)
@given(st.dictionaries(st.sampled_from(sorted(Config.__slots__)), _TREES, max_size=3))
def test_no_tree_raises_anything_but_config_error(tree: dict[str, object]) -> None:
    check_outcome(as_yaml(tree))


@settings(max_examples=5 * settings().max_examples)
@given(st.sampled_from(sorted(all_keys())), _SCALARS)
def test_no_text_for_any_key_raises_anything_but_config_error(path: str, text: str) -> None:
    *sections, name = path.split(".")
    tree: dict[str, object] = {name: text}
    for section in reversed(sections):
        tree = {section: tree}
    check_outcome(as_yaml(tree))
