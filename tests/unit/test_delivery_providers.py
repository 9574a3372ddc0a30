"""A relay's name tells whose mailboxes are behind it, by a list that is ours or the operator's, within bounds."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.delivery.providers import DEFAULT, MOST, OTHER, Providers, parse, read

OURS = read(None)


@pytest.mark.parametrize(
    ("relay", "to", "provider"),
    [
        ("gmail-smtp-in.l.google.com[2607:f8b0:400e:c04::1b]:25", "a@gmail.com", "google"),
        ("ASPMX.L.GOOGLE.COM.[192.0.2.1]:25", "a@example.com", "google"),
        ("hotmail-com.olc.protection.outlook.com[104.47.55.161]:25", "a@hotmail.com", "microsoft"),
        ("example-com.mail.protection.outlook.com[104.47.55.161]:25", "a@example.com", "microsoft"),
        ("mta7.am0.yahoodns.net[98.136.216.22]:25", "a@example.com", "yahoo"),
        ("mx01.mail.icloud.com[17.0.0.1]:25", "a@example.com", "apple"),
        ("mx00.emig.gmx.net[212.227.15.9]:25", "a@gmx.de", "united-internet"),
        ("mx.example.com[192.0.2.1]:25", "a@example.com", OTHER),
        ("google.com.example.net[192.0.2.1]:25", "a@example.com", OTHER),
        ("notgoogle.com[192.0.2.1]:25", "a@example.com", OTHER),
        ("none", "a@GMAIL.com", "google"),
        ("none", "a@example.com", OTHER),
        ("smarthost.example.com[192.0.2.1]:587", "a@icloud.com", "apple"),
        ("1.example.com.si[private/dovecot-lmtp]", "a@example.com", OTHER),
        ("mx0a-001.pphosted.com[192.0.2.1]:25", "a@gmail.com", "proofpoint"),
    ],
)
def test_a_relay_tells_the_provider_and_else_the_address(relay: str, to: str, provider: str) -> None:
    assert OURS({"relay": relay, "to": to}) == provider


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_relay_and_address_have_a_provider(relay: str, to: str) -> None:
    assert OURS({"relay": relay, "to": to}) in OURS.names


def test_nothing_said_is_other() -> None:
    assert OURS({}) == OTHER


def test_our_list_is_dated_and_within_its_bound() -> None:
    assert "As of 20" in DEFAULT.read_text()
    assert len(OURS.names) <= MOST
    assert OTHER in OURS.names


def test_the_longest_pattern_that_fits_counts() -> None:
    found = parse("*.com, a\n*.example.com, b\nmx.example.com, c\n*.mx.example.com, d")
    hosts = ("x.com", "y.example.com", "mx.example.com", "z.mx.example.com", "example.com", "com")
    assert [found({"relay": host}) for host in hosts] == ["a", "b", "c", "d", "a", OTHER]


def oracle(patterns: dict[str, str], host: str) -> str:
    fitting = [each for each in patterns if each == host or (each[0] == "*" and host.endswith(each[1:]))]
    return patterns[max(fitting, key=lambda each: (each == host, len(each)))] if fitting else OTHER


HOSTS = st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map(".".join)


@given(st.dictionaries(HOSTS | HOSTS.map("*.{}".format), st.sampled_from("xyz")), HOSTS)
def test_a_plain_search_finds_the_same(patterns: dict[str, str], host: str) -> None:
    assert Providers(patterns)({"relay": host}) == oracle(patterns, host)


def test_an_operator_s_list_takes_the_place_of_ours_or_adds_to_it(tmp_path: Path) -> None:
    path = tmp_path / "providers"
    path.write_text("# ours\nmx.example.com ,  House  # here\n\n*.google.com, gmail\n")
    own = read(path)
    assert own({"relay": "mx.example.com[::1]:25"}) == "house"
    assert own({"relay": "mx01.mail.icloud.com"}) == OTHER
    path.write_text(path.read_text() + "default\n")
    both = read(path)
    assert both({"relay": "mx01.mail.icloud.com"}) == "apple"
    assert both({"relay": "x.l.google.com"}) == "gmail"
    assert len(both.names) <= MOST


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x.example\n", "line 1: it takes a pattern, a comma and a provider"),
        ("\n# x\n*.a.b, \n", "line 3: it takes"),
        ("*, all\n", r"line 1: '\*' is no pattern"),
        ("*x.com, a\n", "line 1: .* is no pattern"),
        ("mx com, a\n", "line 1: .* is no pattern"),
        ("/mx/, a\n", "line 1: .* is no pattern"),
        ("a.b, c d\n", "line 1: 'c d' is no name"),
        (f"a.b, {'c' * 31}\n", "line 1: .* is no name"),
        ("a.b, c\nA.B, d\n", "line 2: a.b stands there twice"),
        (
            "".join(f"a{number}.b, p{number}\n" for number in range(MOST)),
            f"line {MOST}: more than {MOST - 1} providers",
        ),
    ],
)
def test_a_mistake_is_named_by_its_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(text)


@given(st.text(max_size=200))
def test_any_text_is_a_list_or_a_mistake(text: str) -> None:
    said = ""
    try:
        parse(text)
    except ValueError as error:
        said = str(error)
    assert not said or said.startswith("line ")
