"""i= names the login or the author where a verifier will accept it, and is left out elsewhere."""

from __future__ import annotations

import quopri
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postmeter.submission.auid import auid


@pytest.mark.parametrize(
    ("identity", "value"),
    [
        ("alice@example.com", "alice@example.com"),
        ("Alice.B+tag@Example.COM.", "Alice.B+tag@example.com"),
        ("a@sub.example.com", "a@sub.example.com"),
        ("a=b@example.com", "a=3Db@example.com"),
        ('"a;b c"@example.com', '"a=3Bb=20c"@example.com'),
        ('"a\\"b"@example.com', '"a\\"b"@example.com'),
        ('"a@b"@example.com', ""),
        ('"a\\@b"@example.com', ""),
        ("ä@example.com", "=C3=A4@example.com"),
        ("a@bücher.example.com", "a@xn--bcher-kva.example.com"),
        ("a@example.org", ""),
        ("a@badexample.com", ""),
        ("a@com", ""),
        ("alice", ""),
        ("", ""),
        ("@example.com", ""),
        ("a b@example.com", ""),
        ("a@b@example.com", ""),
        ("a\n@example.com", ""),
        ("a\\xff@example.com", ""),
        ("a;d=evil.example@example.com", ""),
        ("a@x;b=.example.com", ""),
        ("a..b@example.com", ""),
        ("a" * 65 + "@example.com", ""),
        ("ä" * 33 + "@example.com", ""),
    ],
)
def test_an_identity_is_quoted_or_left_out(identity: str, value: str) -> None:
    assert auid(identity, "example.com") == value.encode()


ALPHABET = 'aZ0.=;:@"\\ \t\n<>é€😀\x00\x7f-_+'
HOSTS = ["example.com", "a.example.com", "example.org", "EXAMPLE.com", "x;y.example.com", "=.example.com"]
hosts = st.sampled_from(HOSTS)


@given(st.text(ALPHABET, max_size=20), hosts)
@example("a;Z=é +", "a.example.com")
def test_what_is_written_is_one_tag_value_and_reads_back(local: str, host: str) -> None:
    """RFC 6376 section 2.11 for the grammar; quopri, which knows nothing of DKIM, reads it back."""
    value = auid(f"{local}@{host}", "example.com")
    if value:
        quoted, _, domain = value.rpartition(b"@")
        assert re.fullmatch(rb"(?:[!-:<>-~]|=[0-9A-F]{2})+", quoted)
        assert b"@" not in quoted
        assert domain in (b"example.com", b"a.example.com")
        assert quopri.decodestring(quoted).decode() == local
