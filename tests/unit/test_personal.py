"""What is forgotten of an event: every field is thought of, every address goes, and what tells people apart stays."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.events import KINDS, Bounced, Clicked, Submitted, Suppressed
from postmeter.store import database, rows
from postmeter.store.personal import AGED, KEPT, KEPT_OF, PLACES, aged
from postmeter.store.veil import hashed

KEY = bytes(32)
BOB = "Bob.Ross@example.com"

NO_ADDRESS = {
    "migrations", "sqlite_sequence", "totals", "positions", "replayed", "blocks", "notice_ids", "outbox", "told",
    "profile_house", "profile_logins", "profile_hours", "profile_networks", "profile_contacts", "orders", "folios",
    "held", "key_checks", "key_sightings", "hit_keys", "fate_groups", "message_ids", "figures", "veil",
    "provider_bounces", "mistrusted", "bounced_lately", "awaited", "refunds", "shipping", "unshipped",
}  # fmt: skip
"""Tables of senders, domains, keys, numbers and hashes."""


@pytest.mark.parametrize("kind", KINDS)
def test_of_every_field_it_is_said_what_becomes_of_it(kind: str) -> None:
    every = {field.name for field in fields(KINDS[kind])}
    treated, kept = set(AGED.get(kind, ())), KEPT | KEPT_OF.get(kind, frozenset())
    assert every - treated - kept == set(), "in personal.AGED, or in personal.KEPT"
    assert treated <= every


def test_of_every_table_it_is_said_whether_it_can_hold_an_address(tmp_path: Path) -> None:
    link = database.open(tmp_path / "journal.db")
    tables = {name for (name,) in link.query("SELECT name FROM sqlite_master WHERE type = 'table'")}
    places = {place.table: set(place.columns) for place in PLACES}
    assert tables - NO_ADDRESS - places.keys() == set(), "in personal.PLACES, or above"
    for table, columns in places.items():
        assert columns <= {row[1] for row in link.query(f"PRAGMA table_info({table})")}


@given(st.lists(st.emails()))
def test_a_message_keeps_its_number_of_people_and_none_of_their_names(recipients: list[str]) -> None:
    event = Submitted(
        source="eom:4X:1", time=1.0, queue_id="4X", reference="00" * 8, message_id="<1@example.com>", login="alice",
        sender="alice", service="submission", mail_from="alice@example.com", from_domain="example.com",
        recipients=tuple(recipients), size=1, facts={"campaign": "spring", "metadata": {"customer": "4711"}},
    )  # fmt: skip
    kind, source, data = _stored(event)
    found = json.loads(aged(kind, source, data, KEY)[1])
    assert found["recipients"] == [hashed(one, KEY) for one in recipients]
    assert found["facts"] == {"campaign": "spring"}
    assert found["mail_from"] == "alice@example.com"


def test_of_a_bounce_the_words_of_the_other_side_go_too() -> None:
    event = Bounced(
        source="log:1:2:0", time=1.0, queue_id="4X", reference="00" * 8, login="alice", from_domain="example.com",
        recipient=BOB, final="other@example.com", text=f"550 5.1.1 <{BOB}> unknown", dsn="5.1.1", hard=True,
    )  # fmt: skip
    kind, source, data = _stored(event)
    again = aged(kind, *aged(kind, source, data, KEY), KEY)
    found = json.loads(again[1])
    assert (found["recipient"], found["final"]) == (hashed(BOB, KEY), hashed("other@example.com", KEY))
    assert (found["text"], found["dsn"], found["hard"]) == ("", "5.1.1", True)
    assert again[0] == source


def test_a_source_that_names_a_person_is_hashed_as_well() -> None:
    event = Suppressed(
        source=f"suppressed:{'00' * 8}:{BOB.lower()}", time=1.0, queue_id="4X", reference="00" * 8, login="alice",
        from_domain="example.com", recipient=BOB, reason="bounced", scope="everywhere",
    )  # fmt: skip
    kind, source, data = _stored(event)
    assert aged(kind, source, data, KEY)[0] == f"suppressed:{'00' * 8}:{hashed(BOB, KEY)}"


def test_of_a_click_the_person_goes_and_the_pseudonym_stays() -> None:
    event = Clicked(
        source="hit:f:0", time=1.0, reference="00" * 8, link=1, recipient="0011223344556677", host="click.example.com",
        target="https://bob@shop.example/for?u=bob", method="GET", address="192.0.2.0/24", agent="Firefox", unique=True,
    )  # fmt: skip
    kind, source, data = _stored(event)
    found = json.loads(aged(kind, source, data, KEY)[1])
    assert found["target"] == "https://shop.example/"
    assert (found["address"], found["agent"], found["recipient"]) == ("", "", "0011223344556677")


def _stored(event: Submitted | Bounced | Suppressed | Clicked) -> tuple[str, str, str]:
    row = rows.encode(event, "host")
    return str(row[1]), rows.source(row), str(row[-1])
