"""A return path's tag names its message, survives what mail servers do to addresses, and cannot be made by others."""

from __future__ import annotations

import base64
import string
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.tag import LENGTH, Tagger, fits, tagged, untagged
from postmeter.token import MARK, derive, key_id

SECRET, OLDER = bytes(range(32)), b"\x07" * 32
TAGGER = Tagger([SECRET])
references = st.binary(min_size=8, max_size=8)
cases = st.lists(st.booleans(), min_size=LENGTH, max_size=LENGTH)


def spelled(text: str, upper: list[bool]) -> str:
    return "".join(char.upper() if up else char for char, up in zip(text, upper, strict=True))


@given(references, cases, st.sampled_from("+-=_."))
def test_a_tag_comes_back_in_any_case_and_behind_any_delimiter(
    reference: bytes, upper: list[bool], delimiter: str
) -> None:
    tag = TAGGER.tag(reference)
    assert len(tag) == LENGTH
    assert set(tag) <= set(string.ascii_lowercase + "234567")
    assert TAGGER.open(spelled(tag, upper)) == reference
    address = tagged("bounces@example.com", spelled(tag, upper), delimiter=delimiter)
    assert TAGGER.open_address(address) == reference
    assert untagged(address) == "bounces@example.com"


@given(references, st.integers(0, 159))
def test_one_bit_that_differs_makes_it_nothing(reference: bytes, bit: int) -> None:
    raw = bytearray(base64.b32decode(TAGGER.tag(reference).upper()))
    raw[bit // 8] ^= 1 << bit % 8
    assert TAGGER.open(base64.b32encode(raw).decode().lower()) is None


@given(st.text(max_size=80))
def test_noise_is_no_tag(text: str) -> None:
    assert TAGGER.open(text) is None
    assert TAGGER.open_address(text) is None
    assert untagged(text + "@example.com") in (text + "@example.com", text[:-33] + "@example.com")


def test_older_secrets_open_what_they_made_and_others_do_not() -> None:
    tag = Tagger([OLDER]).tag(b"12345678")
    assert Tagger([SECRET, OLDER]).open(tag) == b"12345678"
    assert TAGGER.open(tag) is None


def test_no_other_use_of_the_secret_makes_a_tag() -> None:
    """The key is derived for this use: a MAC by the secret itself is none."""
    content = b"\x01" + key_id(SECRET) + b"12345678"
    for key in (SECRET, derive(SECRET, MARK)):
        mac = blake2b(content, key=key, digest_size=9, person=b"postmeter token").digest()
        assert TAGGER.open(base64.b32encode(content + mac).decode().lower()) is None


def test_the_layout_is_kept_for_ever() -> None:
    """Tags of mail on its way must open after an upgrade."""
    assert TAGGER.open("aehcamjsgm2dknrxhc2dv2di3peuqg3m") == TAGGER.open(TAGGER.tag(b"12345678")) == b"12345678"


def test_a_local_part_has_at_most_64_octets() -> None:
    longest = "b" * 31 + "@example.com"
    assert fits(longest)
    assert len(tagged(longest, TAGGER.tag(b"12345678"), delimiter="+").partition("@")[0]) == 64
    assert not fits("b" + longest)
    assert not fits("ü" * 16 + "@example.com")


def test_a_login_is_not_to_be_read_from_its_pseudonym() -> None:
    assert TAGGER.pseudonym("Alice@example.com") == TAGGER.pseudonym("alice@example.com")
    assert TAGGER.pseudonym("alice@example.com") != Tagger([OLDER]).pseudonym("alice@example.com")
    assert len(TAGGER.pseudonym("bob")) == 8


def test_nothing_is_made_without_a_secret_or_of_half_a_reference() -> None:
    with pytest.raises(ValueError, match="no secret"):
        Tagger([])
    with pytest.raises(ValueError, match="eight bytes"):
        TAGGER.tag(b"1234567")
