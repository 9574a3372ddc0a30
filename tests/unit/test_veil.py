"""A hashed address is known again, is no address, and says nothing without the key."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from postmeter.mail import address
from postmeter.mail.scope import canonical
from postmeter.store import database, veil

KEY = bytes(range(32))
NAMES = st.text(min_size=1)


@given(NAMES)
def test_a_hash_is_recognised_and_is_no_address(name: str) -> None:
    found = veil.hashed(name, KEY)
    assert veil.is_hashed(found)
    assert not address.domain(found)


@given(NAMES)
def test_hashing_twice_is_hashing_once(name: str) -> None:
    once = veil.hashed(name, KEY)
    assert veil.hashed(once, KEY) == once


@given(NAMES, NAMES)
def test_two_addresses_share_a_hash_only_where_they_are_one(one: str, other: str) -> None:
    assert (veil.hashed(one, KEY) == veil.hashed(other, KEY)) == (canonical(one) == canonical(other))


@given(st.emails())
def test_the_case_is_no_difference(name: str) -> None:
    assert veil.hashed(name.upper(), KEY) == veil.hashed(name, KEY)
    veiled = veil.hashed(name, KEY)
    assert veil.named(name.upper(), ["x", name, veiled], KEY) == name
    assert veil.named(name.upper(), ["x", veiled], KEY) == veiled
    assert veil.named(name, ["x", "@".join(reversed(name.split("@")))], KEY) == ""


@given(NAMES)
def test_another_key_gives_another_hash(name: str) -> None:
    assert veil.hashed(name, KEY) != veil.hashed(name, KEY[::-1])


def test_each_database_has_a_key_of_its_own_and_keeps_it(tmp_path: Path) -> None:
    first, other = (database.open(tmp_path / name) for name in ("a.db", "b.db"))
    assert len(veil.read_key(first)) == 32
    assert veil.read_key(first) != veil.read_key(other)
    with database.open(tmp_path / "a.db").transaction() as link:
        assert veil.key(link) == veil.read_key(first)
        assert veil.known_as(link, "Bob@Example.COM")[0] == "bob@example.com"
