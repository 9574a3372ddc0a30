"""An unsubscribe's token says nothing to anybody else, and is accepted where, and only where, it was made for."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from postmeter import token
from postmeter.token import Mint, Unsubscribe

OLD, NEW, FOREIGN = (bytes([number]) * 32 for number in (1, 2, 3))
BASE = "https://click.example.com"
HOST = "click.example.com"
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
NONCE = b"only used 1x"
SAID = Unsubscribe(b"referenc", b"bob@example.net", "list:shop.example/weekly.shop.example")

said = st.builds(
    Unsubscribe,
    st.binary(min_size=8, max_size=8),
    st.binary(max_size=400),
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=100),
)
nonces = st.binary(min_size=12, max_size=12)


def minted(what: Unsubscribe = SAID, *, secret: bytes = NEW, base: str = BASE, nonce: bytes = NONCE) -> str:
    url = Mint([secret]).unsubscribe_url(base, what, nonce=nonce)
    assert url.startswith(base.rstrip("/") + "/u/")
    return url.rpartition("/")[2]


def opened(text: str, *, host: str = HOST, secrets: tuple[bytes, ...] = (NEW,)) -> Unsubscribe | None:
    return Mint(secrets).open_unsubscribe(host, text)


def by_hand(what: Unsubscribe, *, nonce: bytes, use: bytes = b"u", version: bytes = b"\x01") -> str:
    """The token as the module's docstring lays it out, made without the module."""
    head = version + hashlib.blake2b(key=NEW, digest_size=2, person=b"postmeter key id").digest()
    key = hashlib.blake2b(use, key=NEW, digest_size=32, person=b"postmeter use").digest()
    content = what.reference + len(what.recipient).to_bytes(2, "big") + what.recipient + what.scope.encode()
    hidden = ChaCha20Poly1305(key).encrypt(nonce, content, head + HOST.encode())
    return base64.urlsafe_b64encode(head + nonce + hidden).decode().rstrip("=")


@given(said, nonces)
def test_what_was_minted_comes_back(what: Unsubscribe, nonce: bytes) -> None:
    assert opened(minted(what, nonce=nonce)) == what


@given(said, nonces)
def test_a_token_has_the_layout_that_is_promised_for_ever(what: Unsubscribe, nonce: bytes) -> None:
    assert minted(what, nonce=nonce) == by_hand(what, nonce=nonce)


def test_one_token_written_down_when_the_layout_was_settled_still_opens() -> None:
    kept = (
        "AcEWb25seSB1c2VkIDF4nHPhVOOAVMFipxt4NLfBt7XbzKNNVlXNCby02dtoaq701ev0RTD5JYhyTPfbeCp3yo8PCv"
        "oehAuOoyCdOyuRMbPBKWF29cpkC4ZWgHuN"
    )
    assert opened(kept) == SAID


def test_nobody_reads_in_it_who_leaves_what() -> None:
    raw = base64.urlsafe_b64decode(minted() + "=" * (-len(minted()) % 4))
    for part in (SAID.reference, b"bob", b"example", b"shop", b"list"):
        assert part not in raw


def test_another_nonce_makes_another_token() -> None:
    one, other = minted(), minted(nonce=b"used 1x only")
    assert one[20:] != other[20:]
    assert opened(one) == opened(other)


def test_every_flipped_bit_is_refused() -> None:
    raw = base64.urlsafe_b64decode(minted() + "=" * (-len(minted()) % 4))
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        assert opened(base64.urlsafe_b64encode(flipped).decode().rstrip("=")) is None, bit


def test_every_other_letter_at_every_place_is_refused() -> None:
    good = minted(Unsubscribe(b"referenc", b"", ""))
    for at in range(len(good)):
        for letter in ALPHABET + "+/=. \n%é\0":
            if letter != good[at]:
                assert opened(good[:at] + letter + good[at + 1 :]) is None


def test_every_cut_is_refused() -> None:
    good = minted()
    for at in range(len(good)):
        assert opened(good[:at]) is None
        assert opened(good[at + 1 :]) is None


@given(st.permutations(range(8)))
def test_pieces_in_another_order_are_refused(order: list[int]) -> None:
    good = minted()
    size = -(-len(good) // 8)
    shuffled = "".join(good[at * size : (at + 1) * size] for at in order)
    assert (opened(shuffled) is not None) == (shuffled == good)


@given(st.text(max_size=200) | st.text(ALPHABET, max_size=200) | st.binary(max_size=99))
def test_noise_is_refused_and_never_raises(noise: str | bytes) -> None:
    """Noise behind a head of ours too."""
    if isinstance(noise, bytes):
        noise = base64.urlsafe_b64encode(b"\x01" + token.key_id(NEW) + noise).decode().rstrip("=")
    assert opened(noise) is None


@given(st.text(max_size=300))
def test_a_strange_host_is_refused_and_never_raises(host: str) -> None:
    assert opened(minted(), host=host) is None or token.host_name(host) == HOST


def test_another_host_is_refused() -> None:
    for host in ("example.com", "click.example.co", "xclick.example.com", "click.example.com.evil.example", "[::1]"):
        assert opened(minted(), host=host) is None


@pytest.mark.parametrize("host", ["CLICK.example.com", "click.example.com:8443", "click.example.com."])
def test_case_port_and_final_dot_do_not_make_another_host(host: str) -> None:
    assert opened(minted(), host=host) == SAID


def test_an_older_secret_still_opens_and_a_removed_one_no_more() -> None:
    old = minted(secret=OLD)
    assert opened(old, secrets=(NEW, OLD)) == SAID
    assert opened(old) is None


def test_secrets_that_share_a_key_id_are_both_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token, "key_id", lambda secret: b"id")
    assert opened(minted(secret=OLD), secrets=(NEW, OLD)) == SAID


def test_uses_do_not_mix() -> None:
    """No reader of links or opens takes an unsubscribe, nor the other way round, nor another use's key or version."""
    mint = Mint([NEW])
    link = mint.link_url(BASE, reference=b"referenc", link=1, target="https://a.example/").rpartition("/")[2]
    image = mint.open_url(BASE, reference=b"referenc").rpartition("/")[2]
    assert opened(link) is opened(image) is None
    assert mint.open_link(HOST, minted()) is mint.open_open(HOST, minted()) is None
    for use in (b"c", b"o", b"m", b"r", b""):
        assert opened(by_hand(SAID, nonce=NONCE, use=use)) is None
    assert opened(by_hand(SAID, nonce=NONCE, version=b"\x02")) is None


@pytest.mark.parametrize(
    ("what", "nonce"),
    [
        (Unsubscribe(b"short", b"", ""), NONCE),
        (Unsubscribe(b"referenc", b"x" * 65536, ""), NONCE),
        (Unsubscribe(b"referenc", b"", "\ud800"), NONCE),
        (SAID, b"too short"),
        (SAID, b""),
        (SAID, b"thirteen long"),
    ],
)
def test_what_does_not_fit_the_layout_is_not_minted(what: Unsubscribe, nonce: bytes) -> None:
    with pytest.raises(ValueError, match=r"bytes|surrogates"):
        minted(what, nonce=nonce)
