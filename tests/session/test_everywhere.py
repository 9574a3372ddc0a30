"""What reports and traces read of all hosts is what each of them would tell by itself, together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from postmeter.events import Bounced, Released
from postmeter.store import figures, veil
from postmeter.store.everywhere import Everywhere
from postmeter.store.finding import Finder
from postmeter.trace import trace
from tests.lab.postgres import Postgres as Server
from tests.session.test_shipping import NOW, Host, ask, follow, sent, taken

pytestmark = pytest.mark.usefixtures("needs_postgres")

TODAY = figures.day(NOW)


@pytest.fixture(scope="module")
def server(needs_postgres: None) -> Iterator[Server]:
    with Server() as server:
        yield server


_numbers = iter(range(100))


@pytest.fixture
def hosts(tmp_path: Path, server: Server) -> list[Host]:
    url = server.new_database(f"everywhere{next(_numbers)}")
    return [Host(tmp_path, url, name) for name in ("one", "two")]


def everywhere(host: Host) -> Everywhere:
    key = veil.read_key(host.journal.database)
    return Everywhere(host.url, forms=lambda address: veil.forms(address, key))


@pytest.mark.parametrize("by", ["", *figures.BY])
def test_figures_of_all_hosts_are_the_sum_of_theirs(hosts: list[Host], by: str) -> None:
    whole: dict[str, Counter[str]] = {}
    for number, host in enumerate(hosts, 2):
        messages = [taken("bob@example.net", "eve@example.net", login=f"user{n % 3}") for n in range(3 * number)]
        host.journal.record([*messages, *(sent(message, "bob@example.net") for message in messages)])
        follow(host)
        host.ship()
        for name, counts in figures.read(host.journal.database, since=TODAY, until=TODAY + 1, by=by).items():
            whole.setdefault(name, Counter()).update(counts)
    with closing(everywhere(hosts[0])) as reader:
        found = reader.figures(since=TODAY, until=TODAY + 1, by=[by, "campaign"])
        assert reader.figures(since=TODAY + 1, until=TODAY + 9, by=[by]) == {}
    assert found[by] == whole
    assert found["campaign"][""]["accepted"] == 30


@pytest.mark.parametrize("at_once", [1, 2, 1000])
def test_a_message_is_traced_from_any_host_as_on_its_own(
    hosts: list[Host], monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """However many events are read at once."""
    monkeypatch.setattr("postmeter.store.everywhere._SLICE", at_once)
    one, two = hosts
    message = taken("Bob@Example.NET", "eve@example.net", facts={"held": "quota"})
    again = replace(taken(number=77), queue_id=message.queue_id, time=NOW + 500)
    released = Released(source="r:1", time=NOW + 2, queue_id=message.queue_id, login="a", sender="a",
                        action="released", by="due")  # fmt: skip
    later = replace(released, source="r:2", time=NOW + 501)
    bounced = Bounced(source="b:1", time=NOW + 9, queue_id=message.queue_id, reference=message.reference,
                      login="a", from_domain="example.com", recipient="eve@example.net", hard=True)  # fmt: skip
    one.journal.record([message, released, sent(message, "bob@example.net"), bounced, again, later])
    follow(one)
    one.ship()
    two.ship(taken("zoe@example.net"))
    for what in (message.queue_id, message.message_id, message.message_id[1:-1], "bob@EXAMPLE.net", message.reference):
        mine = trace(Finder(one.journal.database), what)
        with closing(everywhere(two)) as reader:
            theirs = trace(reader, what)
        assert mine
        assert [(story.reference, story.lines, story.message, story.entries) for story in theirs] == [
            (story.reference, story.lines, story.message, story.entries) for story in mine
        ], what
        assert [[(fate.recipient, fate.status, fate.hard) for fate in story.fates] for story in theirs] == [
            [(fate.recipient, fate.status, fate.hard) for fate in story.fates] for story in mine
        ], what


def test_a_held_message_that_a_person_deleted_was_not_taken_on_any_host(hosts: list[Host]) -> None:
    one, two = hosts
    message = taken("bob@example.net", "eve@example.net", facts={"held": "brake"})
    deleted = Released(source="r:1", time=NOW + 2, queue_id=message.queue_id, login="a", sender="a",
                       action="deleted", by="person")  # fmt: skip
    one.journal.record([message, deleted, replace(taken("kim@example.net"), queue_id=message.queue_id, time=NOW + 500)])
    follow(one)
    one.ship()
    mine = Finder(one.journal.database).fates(message.reference)
    with closing(everywhere(two)) as reader:
        theirs = reader.fates(message.reference)
    assert [(fate.recipient, fate.status) for fate in theirs] == [(fate.recipient, fate.status) for fate in mine]
    assert {fate.status for fate in theirs} == {"untaken"}


@pytest.mark.parametrize("odd", ["'; DROP TABLE events; --", "%s", "\0", "\ud83d@x", "x" * 10_000, "@", "<>", ""])
def test_whatever_is_asked_for_finds_nothing_and_does_no_harm(hosts: list[Host], odd: str) -> None:
    hosts[0].ship(taken())
    with closing(everywhere(hosts[0])) as reader:
        assert trace(reader, odd) == []
    assert len(ask(hosts[0].url, "SELECT seq FROM events")) == 1
