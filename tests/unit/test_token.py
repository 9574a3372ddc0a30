"""A token is accepted where, and only where, it was made for: host, use, secret and every bit of it must fit."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter import token
from postmeter.token import Link, Mint

OLD, NEW, FOREIGN = (bytes([number]) * 32 for number in (1, 2, 3))
BASE = "https://click.example.com"
HOST = "click.example.com"
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
LINK = Link(b"referenc", 7, b"rcpt", "https://shop.example/?a=1&b=ü")

links = st.builds(
    Link,
    st.binary(min_size=8, max_size=8),
    st.integers(0, 2**40),
    st.binary(max_size=255),
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=300),
)


def mint(link: Link, secret: bytes = NEW, base: str = BASE) -> str:
    url = Mint([secret]).link_url(
        base, reference=link.reference, link=link.link, recipient=link.recipient, target=link.target
    )
    assert url.startswith(base + "/c/")
    return url.removeprefix(base + "/c/")


def by_hand(link: Link, *, secret: bytes, host: bytes, use: bytes) -> str:
    """The token as the module's docstring lays it out, made without the module."""
    number, rest = bytearray(), link.link
    while rest > 127:
        number.append(rest % 128 + 128)
        rest //= 128
    number.append(rest)
    content = b"\x01" + hashlib.blake2b(key=secret, digest_size=2, person=b"postmeter key id").digest()
    content += link.reference + number + bytes([len(link.recipient)]) + link.recipient + link.target.encode()
    key = hashlib.blake2b(use, key=secret, digest_size=32, person=b"postmeter use").digest()
    mac = hashlib.blake2b(bytes([len(host)]) + host + content, key=key, digest_size=16, person=b"postmeter token")
    return base64.urlsafe_b64encode(content + mac.digest()).decode().rstrip("=")


@given(links)
def test_what_was_minted_comes_back(link: Link) -> None:
    assert Mint([NEW]).open_link(HOST, mint(link)) == link


@given(links)
def test_a_token_has_the_layout_that_is_promised_for_ever(link: Link) -> None:
    assert mint(link) == by_hand(link, secret=NEW, host=HOST.encode(), use=b"c")


def test_one_token_written_down_when_the_layout_was_settled_still_opens() -> None:
    kept = "AcEWcmVmZXJlbmMHBHJjcHRodHRwczovL3Nob3AuZXhhbXBsZS8_YT0xJmI9w7xUhjq-AAvSO9qWeOYfd1tu"
    assert Mint([NEW]).open_link(HOST, kept) == LINK


def test_every_flipped_bit_is_refused() -> None:
    good = mint(LINK)
    raw = base64.urlsafe_b64decode(good + "=" * (-len(good) % 4))
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        text = base64.urlsafe_b64encode(flipped).decode().rstrip("=")
        assert Mint([NEW]).open_link(HOST, text) is None, bit


def test_every_other_letter_at_every_place_is_refused() -> None:
    """Letters outside the alphabet, padding, and the last letter's unused bits are no second spelling."""
    good = mint(LINK)
    for at in range(len(good)):
        for letter in ALPHABET + "+/=. \n%é\0":
            if letter != good[at]:
                assert Mint([NEW]).open_link(HOST, good[:at] + letter + good[at + 1 :]) is None


@pytest.mark.parametrize("target", ["", "h", "ht", "htt"])
def test_there_is_one_spelling_whatever_the_length(target: str) -> None:
    good = mint(Link(b"referenc", 0, b"", target))
    assert Mint([NEW]).open_link(HOST, good)
    for tail in ("=", "==", "A", "AA", "AAA", "AAAA", "\n", " ", "."):
        assert Mint([NEW]).open_link(HOST, good + tail) is None
        assert Mint([NEW]).open_link(HOST, tail + good) is None
    others = [letter for letter in ALPHABET if Mint([NEW]).open_link(HOST, good[:-1] + letter)]
    assert others == [good[-1]]


def test_every_cut_is_refused() -> None:
    good = mint(LINK)
    for at in range(len(good)):
        assert Mint([NEW]).open_link(HOST, good[:at]) is None
        assert Mint([NEW]).open_link(HOST, good[at + 1 :]) is None


@given(st.permutations(range(8)))
def test_pieces_in_another_order_are_refused(order: list[int]) -> None:
    good = mint(LINK)
    size = -(-len(good) // 8)
    pieces = [good[at * size : (at + 1) * size] for at in range(8)]
    shuffled = "".join(pieces[at] for at in order)
    assert (Mint([NEW]).open_link(HOST, shuffled) is not None) == (shuffled == good)


@given(st.text(max_size=200) | st.text(ALPHABET, max_size=200))
def test_noise_is_refused_and_never_raises(noise: str) -> None:
    assert Mint([NEW]).open_link(HOST, noise) is None


@given(st.text(max_size=300))
def test_a_strange_host_is_refused_and_never_raises(host: str) -> None:
    assert (Mint([NEW]).open_link(host, mint(LINK)) is None) or token.host_name(host) == HOST


def test_another_host_is_refused() -> None:
    for host in ("example.com", "click.example.co", "xclick.example.com", "click.example.com.evil.example", "[::1]"):
        assert Mint([NEW]).open_link(host, mint(LINK)) is None


@pytest.mark.parametrize("host", ["CLICK.example.com", "click.example.com:8443", "click.example.com."])
def test_case_port_and_final_dot_do_not_make_another_host(host: str) -> None:
    assert Mint([NEW]).open_link(host, mint(LINK)) == LINK


@pytest.mark.parametrize("base", [BASE + "/", BASE + ":8443", "http://CLICK.example.com", BASE + "/go"])
def test_a_base_url_counts_by_its_host_alone(base: str) -> None:
    url = Mint([NEW]).link_url(base, reference=b"referenc", link=1, target="https://a.example/")
    assert url.startswith(base.rstrip("/") + "/c/")
    assert Mint([NEW]).open_link(HOST, url.rpartition("/")[2])


@pytest.mark.parametrize("use", [b"o", b"u", b"C", b""])
def test_a_token_of_another_use_is_refused(use: bytes) -> None:
    assert Mint([NEW]).open_link(HOST, by_hand(LINK, secret=NEW, host=HOST.encode(), use=use)) is None


def test_another_version_is_refused_even_with_its_mac_right(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(token, "_VERSION", 2)
        later = mint(LINK)
        assert Mint([NEW]).open_link(HOST, later) == LINK
    assert Mint([NEW]).open_link(HOST, later) is None


def test_older_secrets_open_old_links_and_the_newest_makes_new_ones() -> None:
    both = Mint([NEW, OLD])
    assert both.open_link(HOST, mint(LINK, OLD)) == LINK
    assert both.open_link(HOST, mint(LINK, NEW)) == LINK
    made = both.link_url(BASE, reference=b"referenc", link=1, target="https://a.example/").rpartition("/")[2]
    assert Mint([NEW]).open_link(HOST, made)
    assert Mint([OLD]).open_link(HOST, made) is None


def test_a_secret_taken_out_ends_its_links() -> None:
    assert Mint([NEW]).open_link(HOST, mint(LINK, OLD)) is None
    assert Mint([NEW, OLD]).open_link(HOST, mint(LINK, FOREIGN)) is None


def test_secrets_that_share_a_key_id_are_all_tried() -> None:
    seen: dict[bytes, bytes] = {}
    number = 0
    while True:
        secret = number.to_bytes(32, "big")
        twin = seen.setdefault(token.key_id(secret), secret)
        if twin != secret:
            break
        number += 1
    for first, second in ((secret, twin), (twin, secret)):
        assert Mint([first, second]).open_link(HOST, mint(LINK, secret)) == LINK
        assert Mint([first, second]).open_link(HOST, mint(LINK, twin)) == LINK
        assert Mint([first]).open_link(HOST, mint(LINK, second)) is None


@pytest.mark.parametrize(
    "link",
    [
        Link(b"short", 1, b"", "https://a.example/"),
        Link(b"nine octe", 1, b"", "https://a.example/"),
        Link(b"referenc", -1, b"", "https://a.example/"),
        Link(b"referenc", 1, b"x" * 256, "https://a.example/"),
        Link(b"referenc", 1, b"", "https://a.example/\ud800"),
    ],
)
def test_what_does_not_fit_the_layout_is_a_value_error(link: Link) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (the type is the promise; the texts differ)
        mint(link)


@pytest.mark.parametrize("base", ["https://", "https:///c", "https://münchen.example", "https://a b", "nonsense"])
def test_a_base_url_without_a_host_in_ascii_is_a_value_error(base: str) -> None:
    with pytest.raises(ValueError, match="host"):
        mint(LINK, base=base)


def test_secrets_are_read_newest_first_past_comments() -> None:
    text = f"# made today\n{'ab' * 32}\n\n  {'CD' * 32}  \n{'ab' * 32}\n"
    assert token.parse_secrets(text) == (b"\xab" * 32, b"\xcd" * 32)


@pytest.mark.parametrize(
    ("text", "line"),
    [("", 1), ("# only this\n", 1), ("ab" * 32 + "\n" + "ab" * 31, 2), ("\nxy" + "ab" * 31, 2), ("ab" * 33, 1)],
)
def test_a_bad_secret_is_told_by_line_and_not_shown(text: str, line: int) -> None:
    with pytest.raises(ValueError, match=f"line {line}:") as caught:
        token.parse_secrets(text)
    assert "abab" not in str(caught.value)


def test_a_mint_needs_a_secret() -> None:
    with pytest.raises(ValueError, match="secret"):
        Mint([])


@given(links, st.integers(0, 40))
def test_a_token_cut_off_behind_its_reference_still_names_its_message(link: Link, more: int) -> None:
    """Whoever reports phishing often has a part of the link only."""
    assert token.reference_of(mint(link)[: 15 + more]) == link.reference


@given(st.text(max_size=40) | st.text(ALPHABET, max_size=40))
def test_noise_names_no_message_or_eight_bytes_and_never_raises(noise: str) -> None:
    assert len(token.reference_of(noise)) in (0, 8)


def test_a_token_cut_off_within_its_reference_names_none() -> None:
    assert [token.reference_of(mint(LINK)[:at]) for at in range(15)] == [b""] * 15


@given(st.binary(min_size=8, max_size=8), st.binary(max_size=255))
def test_an_open_is_laid_out_as_a_link_that_has_no_target(reference: bytes, recipient: bytes) -> None:
    url = Mint([NEW]).open_url(BASE + "/", reference=reference, recipient=recipient)
    known = Link(reference, 0, recipient, "")
    assert url == f"{BASE}/o/{by_hand(known, secret=NEW, host=HOST.encode(), use=b'o')}"
    assert Mint([OLD, NEW]).open_open(HOST, url.removeprefix(f"{BASE}/o/")) == known


def test_a_link_is_no_open_and_an_open_no_link() -> None:
    """Even where both say the same: the keys differ."""
    bare = Link(b"referenc", 0, b"", "")
    opened = Mint([NEW]).open_url(BASE, reference=b"referenc").removeprefix(BASE + "/o/")
    assert Mint([NEW]).open_link(HOST, opened) is None
    assert Mint([NEW]).open_open(HOST, mint(bare)) is None
    assert Mint([NEW]).open_open("other.example", opened) is None


@given(links)
def test_the_urls_of_one_message_are_those_of_each_link(link: Link) -> None:
    made = Mint([NEW]).link_urls(BASE, reference=link.reference, recipient=link.recipient)
    assert made(link.link, link.target) == f"{BASE}/c/{mint(link)}".encode()


def test_a_pseudonym_is_stable_tells_no_address_and_needs_the_secret() -> None:
    first = Mint([NEW, OLD]).pseudonym(b"Alice@Example.com")
    assert first == Mint([NEW]).pseudonym(b"Alice@example.com")
    assert len(first) == 8
    others = [Mint([NEW]).pseudonym(b"alice@example.com"), Mint([OLD]).pseudonym(b"Alice@example.com")]
    assert len({first, *others}) == 3
