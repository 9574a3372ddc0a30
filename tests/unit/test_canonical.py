"""Canonical forms equal what RFC 6376 section 3.4 says, line by line, and what dkimpy makes of the same octets."""

from __future__ import annotations

import base64
import hashlib
import random
from unittest import mock

import pytest
from dkim.canonicalization import Relaxed, Simple
from hypothesis import given
from hypothesis import strategies as st

from postmeter.mail import canonical

# Chosen so that every boundary comes up: lone CR, bare LF, tabs, trailing space, empty lines, vertical tab.
octets = st.lists(
    st.sampled_from([b"\r\n", b"\n", b"\r", b" ", b"  ", b"\t", b"a", b"bc", b"\xff", b"\x0b", b"\x00"]), max_size=30
).map(b"".join)
texts = st.lists(st.sampled_from([b"\r\n", b"\r\n ", b" ", b"\t", b"a", b"\xc3\xa9", b":"]), max_size=20).map(b"".join)


def lines(body: bytes) -> list[bytes]:
    """The lines that the next hop will get: LF ends one, with or without CR; what is left over becomes one."""
    found = [line.removesuffix(b"\r") for line in body.split(b"\n")[:-1]]
    rest = body.rpartition(b"\n")[2]
    return [*found, rest] if rest else found


def relaxed_by_line(body: bytes) -> bytes:
    done = []
    for line in lines(body):
        line = line.replace(b"\t", b" ")
        while b"  " in line:
            line = line.replace(b"  ", b" ")
        done.append(line[:-1] if line.endswith(b" ") else line)
    while done and not done[-1]:
        done.pop()
    return b"".join(line + b"\r\n" for line in done)


def simple_by_line(body: bytes) -> bytes:
    done = lines(body)
    while done and not done[-1]:
        done.pop()
    return b"".join(line + b"\r\n" for line in done) or b"\r\n"


def relaxed(body: bytes) -> bytes:
    return b"".join(canonical.relaxed_body(body))


def simple(body: bytes) -> bytes:
    return b"".join(canonical.simple_body(body))


@given(octets, st.integers(1, 12))
def test_bodies_equal_the_rules_applied_line_by_line_wherever_they_are_cut(body: bytes, piece: int) -> None:
    with mock.patch.multiple(canonical, _PIECE=piece, _TAIL=piece):
        assert relaxed(body) == relaxed_by_line(body)
        assert simple(body) == simple_by_line(body)


def test_a_long_body_equals_the_rules_applied_line_by_line() -> None:
    """Longer than the pieces it is worked in, with a white tail longer than what is looked at first."""
    chance = random.Random(6376)
    parts = [b"word", b" ", b"  ", b"\t", b" \r\n", b"\r\n", b"\n", b"x" * 300, b"\r"]
    body = b"".join(chance.choices(parts, k=80_000)) + b" \t\r\n" * 3000
    assert relaxed(body) == relaxed_by_line(body)
    assert simple(body) == simple_by_line(body)


@given(octets)
def test_a_canonical_body_is_its_own_canonical_form(body: bytes) -> None:
    assert relaxed(relaxed(body)) == relaxed(body)
    assert simple(simple(body)) == simple(body)


@given(octets.map(lambda body: b"".join(line + b"\r\n" for line in lines(body) if b"\r" not in line)))
def test_bodies_of_whole_lines_equal_dkimpys(body: bytes) -> None:
    assert relaxed(body) == Relaxed.canonicalize_body(body)
    assert simple(body) == Simple.canonicalize_body(body)


@given(st.sampled_from([b"Subject", b"SUBJECT", b"Subject \t"]), texts)
def test_relaxed_fields_equal_dkimpys(name: bytes, value: bytes) -> None:
    [(expected_name, expected)] = Relaxed.canonicalize_headers([(name, value + b"\r\n")])
    assert canonical.relaxed_field(name, value) + b"\r\n" == expected_name + b":" + expected


@given(texts)
def test_it_is_all_one_how_folded_lines_are_ended(value: bytes) -> None:
    """Postfix hands over LF and sends CRLF (D14)."""
    bare = value.replace(b"\r\n", b"\n")
    assert canonical.relaxed_field(b"X", bare) == canonical.relaxed_field(b"X", value)
    assert canonical.simple_field(b"X", bare) == canonical.simple_field(b"X", value) == b"X:" + value


def test_only_space_and_tab_are_white() -> None:
    """RFC 5234 WSP; str.strip and \\s would take more, as dkimpy's header does."""
    assert canonical.relaxed_field(b"X", b" \x0ba\x0c\r ") == b"x:\x0ba\x0c\r"
    assert relaxed(b"a \x0b\x0c \r\n") == b"a \x0b\x0c\r\n"


@pytest.mark.parametrize(
    ("body", "relaxed_form", "simple_form"),
    [
        (b"", b"", b"\r\n"),
        (b"\r\n\r\n", b"", b"\r\n"),
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n", b" C \r\nD \t E\r\n"),  # RFC 6376 section 3.4.5
        (b"no end", b"no end\r\n", b"no end\r\n"),
        (b"a\nb\n", b"a\r\nb\r\n", b"a\r\nb\r\n"),
        (b"a\r\r\n\r\n", b"a\r\r\n", b"a\r\r\n"),
    ],
)
def test_cases_of_the_standard_and_of_postfix(body: bytes, relaxed_form: bytes, simple_form: bytes) -> None:
    assert (relaxed(body), simple(body)) == (relaxed_form, simple_form)


def test_fields_of_the_standard() -> None:
    """RFC 6376 section 3.4.5."""
    assert canonical.relaxed_field(b"A", b" X") == b"a:X"
    assert canonical.relaxed_field(b"B ", b" Y\t\r\n\tZ  ") == b"b:Y Z"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"This is a test!\r\n", "3VWGQGY+cSNYd1MGM+X6hRXU0stl8JCaQtl4mbX/j2I="),  # OpenDKIM's t-sign tests
        (b"", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),  # RFC 6376 section 3.4.4
    ],
)
def test_known_body_hashes(body: bytes, expected: str) -> None:
    assert base64.b64encode(hashlib.sha256(relaxed(body)).digest()).decode() == expected
