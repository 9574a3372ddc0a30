"""A mark is believed where, and only where, it was made for: secret, use, Message-ID and every bit of it must fit."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter import token
from postmeter.token import Mark, Marker, Mint, domain_digest

OLD, NEW = (bytes([number]) * 32 for number in (1, 2))
ID = b"<1@example.com>"
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
MARK = Mark(
    reference=b"referenc",
    time=1_793_000_000,
    signable=True,
    domain=domain_digest("example.com"),
    queue_id="4jXbYW2KrJz2J76t",
    login="Alice@example.com",
    sender="alice@example.com",
)

texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=30)
marks = st.builds(
    Mark,
    reference=st.binary(min_size=8, max_size=8),
    time=st.integers(0, 2**64 - 1),
    signable=st.booleans(),
    domain=st.builds(domain_digest, texts),
    queue_id=st.text(ALPHABET, max_size=32),
    login=st.just(""),
    sender=texts,
) | st.builds(lambda login: replace(MARK, login=login, sender=login.lower()), texts.filter(bool))


def made(mark: Mark = MARK, secret: bytes = NEW) -> str:
    return Marker([secret]).mark(mark, message_id=ID)


def opened(text: str, message_id: bytes = ID) -> Mark | None:
    return Marker([NEW]).open_mark(text, message_id=message_id)


def by_hand(mark: Mark, *, use: bytes = b"m", version: bytes = b"\x01") -> str:
    """The mark as the module's docstring lays it out, made without the module."""
    name = (mark.login or mark.sender).encode()
    content = version + hashlib.blake2b(key=NEW, digest_size=2, person=b"postmeter key id").digest()
    content += mark.reference + mark.time.to_bytes(8, "big") + bytes([mark.signable + 2 * bool(mark.login)])
    content += mark.domain + bytes([len(mark.queue_id)]) + mark.queue_id.encode() + bytes([len(name)]) + name
    key = hashlib.blake2b(use, key=NEW, digest_size=32, person=b"postmeter use").digest()
    bound = len(ID).to_bytes(4, "big") + ID + content
    mac = hashlib.blake2b(bound, key=key, digest_size=16, person=b"postmeter token").digest()
    return base64.urlsafe_b64encode(content + mac).decode().rstrip("=")


@given(marks)
def test_what_was_marked_comes_back(mark: Mark) -> None:
    assert opened(made(mark)) == mark


@given(marks)
def test_a_mark_has_the_layout_that_is_written_down(mark: Mark) -> None:
    assert made(mark) == by_hand(mark)


@given(st.text(max_size=400), st.text(max_size=400), st.text(max_size=60))
def test_a_mark_is_short_and_of_one_line_whatever_the_names(login: str, sender: str, queue_id: str) -> None:
    text = made(replace(MARK, login=login, sender=sender, queue_id=queue_id))
    assert len(text) < 300
    assert set(text) <= set(ALPHABET)
    assert opened(text) is not None


def test_a_name_that_is_too_long_is_left_out_and_not_cut() -> None:
    found = opened(made(replace(MARK, login="a" * 500 + "@example.com", sender="a" * 500 + "@example.com")))
    assert found is not None
    assert (found.login, found.sender) == ("", "")
    assert found.queue_id == MARK.queue_id


def test_every_flipped_bit_is_refused() -> None:
    good = made()
    raw = base64.urlsafe_b64decode(good + "=" * (-len(good) % 4))
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        assert opened(base64.urlsafe_b64encode(flipped).decode().rstrip("=")) is None, bit


def test_every_cut_is_refused() -> None:
    good = made()
    for at in range(len(good)):
        assert opened(good[:at]) is None
        assert opened(good[at + 1 :]) is None


@pytest.mark.parametrize("tail", ["=", "==", "A", "AA", "AAAA", "\n", " ", "\u00e9"])
def test_there_is_one_spelling(tail: str) -> None:
    assert opened(made() + tail) is None
    assert opened(tail + made()) is None


@given(st.permutations(range(8)))
def test_pieces_in_another_order_are_refused(order: list[int]) -> None:
    good = made()
    size = -(-len(good) // 8)
    shuffled = "".join(good[at * size : (at + 1) * size] for at in order)
    assert (opened(shuffled) is not None) == (shuffled == good)


@given(st.text(max_size=300) | st.text(ALPHABET, max_size=300), st.binary(max_size=40))
def test_noise_is_refused_and_never_raises(noise: str, message_id: bytes) -> None:
    assert opened(noise, message_id) is None


@given(st.binary(max_size=40))
def test_another_message_id_is_refused(message_id: bytes) -> None:
    assert (opened(made(), message_id) is None) == (message_id != ID)


def test_octets_may_not_move_between_message_id_and_mark() -> None:
    """What the MAC is over says where the one ends and the other begins."""
    assert opened(made(), ID + token._decode(made())[:1]) is None


@pytest.mark.parametrize("use", [b"c", b"o", b"u", b"M", b""])
def test_a_token_of_another_use_is_refused(use: bytes) -> None:
    assert opened(by_hand(MARK, use=use)) is None
    assert opened(by_hand(MARK)) == MARK


def test_a_link_is_no_mark_and_a_mark_no_link() -> None:
    base = "https://click.example.com"
    target = "https://shop.example/" + "x" * 80
    link = Mint([NEW]).link_url(base, reference=b"referenc", link=1, target=target).rpartition("/")[2]
    assert opened(link) is None
    assert Mint([NEW]).open_link("click.example.com", made()) is None


def test_another_version_is_refused_even_with_its_mac_right() -> None:
    assert opened(by_hand(MARK, version=b"\x02")) is None


def test_older_secrets_are_known_and_the_newest_makes_marks() -> None:
    both = Marker([NEW, OLD])
    assert both.open_mark(made(secret=OLD), message_id=ID) == MARK
    assert opened(both.mark(MARK, message_id=ID)) == MARK
    assert opened(made(secret=OLD)) is None


@pytest.mark.parametrize("wrong", [{"reference": b"short"}, {"domain": b""}, {"time": -1}, {"time": 2**64}])
def test_what_does_not_fit_the_layout_is_a_value_error(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (the type is the promise; the texts differ)
        made(replace(MARK, **wrong))  # type: ignore[arg-type]


def test_a_marker_needs_a_secret() -> None:
    with pytest.raises(ValueError, match="secret"):
        Marker([])


def test_a_domain_is_told_whatever_its_length_and_case() -> None:
    assert domain_digest("Example.COM") == domain_digest("example.com") != domain_digest("")
    assert len(domain_digest("x" * 253)) == 16
    assert domain_digest("\udcff")
