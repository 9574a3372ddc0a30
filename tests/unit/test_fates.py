"""What is told of recipients in any order, in any slices and however often comes to the same fates and figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.books import following
from postmeter.books.following import Follower
from postmeter.events import (
    Bounced,
    Clicked,
    Complained,
    Deferred,
    Event,
    Expired,
    Opened,
    Rejudged,
    Released,
    Sent,
    Submitted,
    Suppressed,
    Unknown,
    Unsubscribed,
    Untaken,
)
from postmeter.store import fates, figures, veil
from postmeter.store.following import POSITION
from postmeter.store.journal import Journal

DAY = 86_400.0
NOON = 20_000 * DAY + DAY / 2
WEIGHT = {"untaken": 1, "suppressed": 2, "deferred": 3, "unknown": 4, "sent": 5, "expired": 6, "bounced": 7}
"""What counts more, said once more and by hand."""


def submitted(reference: str, recipients: Sequence[str], *, time: float = NOON, **more: Any) -> Submitted:
    return Submitted(
        source=f"eom:{reference}", time=time, queue_id=f"Q{reference}", reference=reference,
        message_id=f"<{reference}@example.com>", login=more.pop("login", "ann@example.com"), sender="ann@example.com",
        service="smtpd", mail_from="ann@example.com", from_domain=more.pop("from_domain", "example.com"),
        recipients=tuple(recipients), size=1000, **more,
    )  # fmt: skip


def told(kind: Any, reference: str, recipient: str, time: float, *, login: str = "ann@example.com", **more: Any) -> Any:
    return kind(
        source=f"log:{kind.__name__}:{reference}:{recipient}:{time}:{more}", time=time, queue_id=f"Q{reference}",
        reference=reference, login=login, from_domain="example.com", recipient=recipient, **more,
    )  # fmt: skip


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.db", host="mx1")


def follow(journal: Journal, events: Iterable[Event] = ()) -> None:
    journal.record(events)
    follower = Follower(journal, domains=["example.com"])
    while follower.work():
        pass


def all_figures(journal: Journal) -> dict[tuple[Any, ...], int]:
    rows = journal.database.query("SELECT day, from_domain, login, campaign, provider, what, value FROM figures")
    return {row[:-1]: row[-1] for row in rows if row[-1]}


def status(journal: Journal, reference: str) -> dict[str, str]:
    return {fate.recipient: fate.status for fate in fates.of_reference(journal.database, reference)}


REFERENCES = {"a" * 16: ("x@example.net", "y@example.org"), "b" * 16: ("x@example.net",)}
pairs = st.sampled_from([(ref, rcpt) for ref, rcpts in REFERENCES.items() for rcpt in rcpts])
times = st.integers(min_value=0, max_value=5).map(lambda n: NOON + n * DAY / 3)


@st.composite
def one_event(draw: st.DrawFn) -> Any:
    (reference, recipient), time = draw(pairs), draw(times)
    named: dict[str, Any] = {"queue_id": "Q" + reference, "reference": reference, "login": "ann@example.com",
             "from_domain": "example.com", "time": time}  # fmt: skip
    kind = draw(st.sampled_from(["delivery", "bounced", "unknown", "untaken", "complained", "suppressed", "left"]))
    if kind == "delivery":
        provider = draw(st.sampled_from(["", "google", "yahoo"]))
        return told(draw(st.sampled_from([Sent, Deferred, Expired])), reference, recipient, time, provider=provider)
    if kind == "bounced":
        hard = draw(st.booleans())
        return told(Bounced, reference, recipient, time, hard=hard, provider="google" if hard else "")
    if kind == "unknown":
        return Unknown(source=f"unknown:{reference}:{recipient}", recipient=recipient, **named)
    if kind == "untaken":
        return Untaken(source=f"untaken:{reference}", recipients=REFERENCES[reference], **named)
    if kind == "complained":
        del named["queue_id"]
        return Complained(source=f"arf:{reference}:{time}", recipient=recipient.upper(), **named)
    if kind == "suppressed":
        return Suppressed(source=f"suppressed:{reference}:{recipient}", recipient=recipient, reason="bounced",
                          scope="x", observed=draw(st.booleans()), **named)  # fmt: skip
    return Unsubscribed(source=f"unsubscribed:{reference}", time=time, reference=reference, recipient=recipient,
                        scope="from:ann@example.com", from_domain="example.com", host="t")  # fmt: skip


def oracle(events: Iterable[Event]) -> dict[tuple[Any, ...], int]:
    """Every figure, from all events at once, each source once, by nothing of what the follower is made of."""
    found: Counter[tuple[Any, ...]] = Counter()
    for reference, recipients in REFERENCES.items():
        for recipient in recipients:
            of_message = [event for event in events if getattr(event, "reference", "") == reference]
            found.update(_oracle_of_one([event for event in of_message if recipient in _whom(event)]))
    for event in events:
        if isinstance(event, Suppressed) and event.observed:
            found[int(event.time // DAY), "example.com", "ann@example.com", "", "", "would_suppress"] += 1
    return {key: value for key, value in found.items() if value}


def _whom(event: Any) -> tuple[str, ...]:
    return getattr(event, "recipient", "").lower(), *getattr(event, "recipients", ())


def _oracle_of_one(mine: Sequence[Any]) -> list[tuple[Any, ...]]:
    if not mine:
        return []
    message = next((event for event in mine if isinstance(event, Submitted)), None)
    ends = [event for event in mine if type(event).__name__.lower() in WEIGHT and not getattr(event, "observed", False)]
    last = max(ends, key=lambda e: (WEIGHT[type(e).__name__.lower()], e.time, getattr(e, "hard", False)), default=None)
    flags = [event for event in mine if isinstance(event, Complained | Unsubscribed)]
    if not (message or ends or flags):
        return []
    what: list[str] = []
    if isinstance(last, Untaken | Suppressed):
        what = [type(last).__name__.lower()]
    elif last or message:
        where = {Sent: "delivered", Deferred: "deferred", Expired: "expired", Unknown: "unknown"}
        place = where.get(type(last)) or ("waiting" if last is None else "hard" if last.hard else "soft")
        what = ["accepted", place, *(["delayed"] if any(isinstance(event, Deferred) for event in mine) else [])]
    what += ["complained"] if any(isinstance(event, Complained) for event in mine) else []
    what += ["unsubscribed"] if any(isinstance(event, Unsubscribed) for event in mine) else []
    known = [event for event in mine if getattr(event, "provider", "")]
    provider = max(known, key=lambda event: (event.time, event.provider)).provider if known else ""
    counted = [message] if message else [*ends, *flags]
    day = int(min(event.time for event in counted) // DAY)
    login = "ann@example.com" if any(getattr(event, "login", "") for event in counted) else ""
    return [(day, "example.com", login, "", provider, one) for one in what]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Journal:
    return Journal(tmp_path_factory.mktemp("whole") / "journal.db", host="mx1")


@given(data=st.data())
def test_any_order_and_any_slices_come_to_what_all_events_say_together(whole: Journal, data: st.DataObject) -> None:
    events = data.draw(st.lists(one_event(), max_size=12))
    events += [submitted(ref, rcpts) for ref, rcpts in REFERENCES.items() if data.draw(st.booleans())]
    events = list({event.source: event for event in data.draw(st.permutations(events))}.values())
    cut = data.draw(st.integers(0, len(events)))
    _empty(whole)
    for part in (events[:cut], events[cut:], events):
        follow(whole, part)
    assert all_figures(whole) == oracle(events)


def _empty(journal: Journal) -> None:
    with journal.database.transaction() as link:
        for table in ("events", "positions", "totals", "fates", "fate_groups", "figures", "message_ids"):
            link.execute(f"DELETE FROM {table}")


def test_accepted_is_the_sum_of_where_they_are(journal: Journal) -> None:
    people = [f"p{number}@example.net" for number in range(6)]
    follow(journal, [
        submitted("a" * 16, people),
        told(Deferred, "a" * 16, people[0], NOON + 1),
        told(Sent, "a" * 16, people[1], NOON + 1),
        told(Bounced, "a" * 16, people[2], NOON + 1, hard=True),
        told(Bounced, "a" * 16, people[3], NOON + 1),
        told(Expired, "a" * 16, people[4], NOON + 1),
    ])  # fmt: skip
    [counts] = figures.read(journal.database, since=0, until=10**6).values()
    assert counts["accepted"] == sum(counts[where] for where in figures.WHERE_THEY_ARE) == 6
    assert {where: counts[where] for where in figures.WHERE_THEY_ARE} == {
        "waiting": 1, "deferred": 1, "delivered": 1, "hard": 1, "soft": 1, "expired": 1, "unknown": 0,
    }  # fmt: skip


def test_a_deferral_read_after_the_delivery_undoes_nothing(journal: Journal) -> None:
    follow(journal, [submitted("a" * 16, ["x@example.net"]), told(Sent, "a" * 16, "x@example.net", NOON + 9)])
    follow(journal, [told(Deferred, "a" * 16, "x@example.net", NOON + 5)])
    assert status(journal, "a" * 16) == {"x@example.net": "sent"}


def test_a_late_bounce_moves_what_was_sent_and_both_totals_stand(journal: Journal) -> None:
    follow(journal, [submitted("a" * 16, ["X@Example.net"]),
                     told(Sent, "a" * 16, "x@example.net", NOON + 9, provider="google", delay=9.0)])  # fmt: skip
    follow(journal, [told(Bounced, "a" * 16, "x@EXAMPLE.net", NOON + 5 * DAY, hard=True, by="dsn")])
    assert figures.read(journal.database, since=0, until=10**6) == {"": Counter(accepted=1, hard=1)}
    totals = journal.totals()
    assert totals["deliveries_total", ("sent", "example.com", "google")] == 1
    assert totals["deliveries_total", ("bounced", "example.com", "google")] == 1
    assert totals["bounces_total", ("hard", "google")] == 1
    assert totals["delivery_delay_seconds", ("10",)] == totals["delivery_delay_seconds", ("count",)] == 1


def test_a_test_that_nobody_gets_is_not_accepted_unless_it_was_delivered(journal: Journal) -> None:
    follow(journal, [submitted("a" * 16, ["x@example.net"], facts={"discarded": "X-Postmeter-Test"})])
    assert all_figures(journal) == {}
    follow(journal, [told(Sent, "a" * 16, "x@example.net", NOON + 1)])  # mode observe
    assert figures.read(journal.database, since=0, until=10**6)[""]["delivered"] == 1


def test_a_held_message_waits_and_one_deleted_by_a_person_is_no_longer_accepted(journal: Journal) -> None:
    follow(journal, [submitted("a" * 16, ["x@example.net"], facts={"held": "quota"})])
    assert figures.read(journal.database, since=0, until=10**6) == {"": Counter(accepted=1, waiting=1)}
    let = Released(source="released:1", time=NOON + 60, queue_id="Q" + "a" * 16, login="", sender="", action="deleted",
                   by="person")  # fmt: skip
    follow(journal, [let])
    assert figures.read(journal.database, since=0, until=10**6) == {"": Counter(untaken=1)}


def test_a_held_message_that_was_deleted_before_anybody_followed_is_not_accepted_either(journal: Journal) -> None:
    """The books were away: both are read at once."""
    gone = Released(source="released:1", time=NOON + 60, queue_id="Q" + "a" * 16, login="", sender="", action="deleted",
                    by="person")  # fmt: skip
    follow(journal, [submitted("a" * 16, ["X@example.net", "y@example.net"], facts={"held": "quota"}), gone])
    assert figures.read(journal.database, since=0, until=10**6) == {"": Counter(untaken=2)}


def test_a_recipient_whose_address_was_forgotten_is_known_by_its_hash(journal: Journal) -> None:
    follow(journal, [submitted("a" * 16, ["x@example.net"]), told(Sent, "a" * 16, "x@example.net", NOON + 1)])
    with journal.database.transaction() as link:
        link.execute("UPDATE fates SET recipient = ?", (veil.hashed("x@example.net", veil.key(link)),))
    follow(journal, [Complained(source="arf:1", time=NOON + 80 * DAY, reference="a" * 16, login="ann@example.com",
                                from_domain="example.com", recipient="X@example.net")])  # fmt: skip
    assert figures.read(journal.database, since=0, until=10**6) == {"": Counter(accepted=1, delivered=1, complained=1)}


def test_what_fails_half_way_is_done_again_from_the_start(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [submitted("a" * 16, ["x@example.net"]), told(Sent, "a" * 16, "x@example.net", NOON + 1)]
    journal.record(events)
    follower = Follower(journal, domains=())
    with monkeypatch.context() as broken:
        broken.setattr("postmeter.store.totals.add", lambda link, figures: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            follower.work()
    assert journal.position(POSITION) == ""
    assert all_figures(journal) == {}
    follower.work()
    assert figures.read(journal.database, since=0, until=10**6) == {"": Counter(accepted=1, delivered=1)}


def test_two_who_follow_at_once_count_once(journal: Journal) -> None:
    one, other = Follower(journal, domains=()), Follower(journal, domains=())
    journal.record([submitted("a" * 16, ["x@example.net"])])
    original = journal.of_kinds

    def late(*args: Any, **named: Any) -> Any:
        found = original(*args, **named)
        journal.of_kinds = original  # type: ignore[method-assign]
        other.work()
        return found

    journal.of_kinds = late  # type: ignore[method-assign]
    one.work()
    assert figures.read(journal.database, since=0, until=10**6) == {"": Counter(accepted=1, waiting=1)}


def test_names_that_senders_choose_are_bounded_and_moves_find_both_ends(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "Names", lambda: figures.Names(most=2))
    messages = [
        submitted(f"{n:016x}", ["x@example.net"], from_domain=f"d{n}.example", facts={"campaign": str(n)})
        for n in range(5)
    ]
    follow(journal, messages)
    follow(journal, [told(Sent, message.reference, "x@example.net", NOON + 1) for message in reversed(messages)])
    by_domain = figures.read(journal.database, since=0, until=10**6, by="domain")
    assert set(by_domain) == {"d0.example", "d1.example", figures.OTHERS}
    assert by_domain[figures.OTHERS] == Counter(accepted=3, delivered=3)


def test_a_recipient_may_hold_what_no_database_takes(journal: Journal) -> None:
    odd = "\udcff\x00@example.net"
    follow(journal, [submitted("a" * 16, [odd], facts={"campaign": "\ud800"}), told(Sent, "a" * 16, odd, NOON + 1)])
    assert figures.read(journal.database, since=0, until=10**6)[""]["delivered"] == 1


def hit(kind: type, source: str, *, reference: str = "", by: str = "human", unique: bool | None = True) -> Event:
    named: dict[str, Any] = {
        "source": source, "time": NOON + DAY, "reference": reference, "recipient": "", "host": "", "method": "GET",
        "address": "", "agent": "", "by": by, "reason": "", "campaign": "spring", "from_domain": "example.com",
        "recipients": 1, "unique": unique,
    }  # fmt: skip
    event: Event = kind(**named, **({"link": 1, "target": ""} if kind is Clicked else {}))
    return event


def test_hits_count_with_their_message_or_by_themselves_and_move_when_judged_anew(journal: Journal) -> None:
    named = "a" * 16
    follow(journal, [
        submitted(named, ["x@example.net"], facts={"campaign": "spring"}),
        hit(Opened, "1", reference=named),
        hit(Opened, "2", reference=named, unique=False),
        hit(Opened, "3", unique=None),
        hit(Clicked, "4", reference=named, by="unsure"),
        Rejudged(source="judged:4:machine", time=NOON + DAY, reference=named, hit="4", what="click", was="unsure",
                 by="machine", reason="many_links", campaign="spring", from_domain="example.com"),
    ])  # fmt: skip
    found = figures.read(journal.database, since=0, until=10**6, by="login")
    assert found["ann@example.com"] == Counter(
        accepted=1, waiting=1, opens_human=2, opened_human=1, clicks_machine=1, clicked_machine=1
    )
    assert found[""] == Counter(opens_human=1, opens_untold=1)
    assert figures.read(journal.database, since=0, until=10**6, by="day") == {
        "20000": found["ann@example.com"], "20001": found[""]
    }  # fmt: skip


def test_messages_are_found_by_their_id(journal: Journal) -> None:
    follow(journal, [submitted("a" * 16, ["x@example.net"])])
    assert fates.references(journal.database, f"<{'a' * 16}@example.com>") == ["a" * 16]
    with journal.database.transaction() as link:
        fates.forget(link, [submitted("a" * 16, ["x@example.net"])])
    assert fates.references(journal.database, f"<{'a' * 16}@example.com>") == []
    assert fates.of_reference(journal.database, "a" * 16) == []
