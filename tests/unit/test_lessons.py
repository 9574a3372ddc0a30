"""What hard bounces and complaints teach, against an oracle that looks at all of them at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection, connect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.config.schema import Suppression as Settings
from postmeter.store import suppression, veil
from postmeter.store.database import Database
from postmeter.store.fates import Transition
from postmeter.store.lessons import LAST, LEAST, Rules, learn, reached, share
from postmeter.store.migrations import MIGRATIONS
from postmeter.store.suppression import Choice, Suppression

DAY, HOUR = 86_400.0, 3600.0
NOW = 1_800_000_000.0
_numbers = itertools.count(1)


@contextmanager
def book() -> Iterator[Connection]:
    """The tables as a fresh journal has them, in memory."""
    link = connect(":memory:")
    for _, step in MIGRATIONS:
        if callable(step):
            step(link)
        else:
            link.executescript(step)
    yield link
    link.close()


def rules(**settings: object) -> Rules:
    return Rules(Settings(**settings), "host")  # type: ignore[arg-type]


def change(
    *,
    time: float = NOW,
    recipient: str = "bob@example.net",
    reference: str = "",
    was: str = "accepted",
    now: str = "bounced",
    hard: bool = True,
    complained: bool = False,
    provider: str = "other",
    from_domain: str = "example.com",
    login: str = "alice@example.com",
    evidence: str = "550 5.1.1 unknown",
) -> Transition:
    return Transition(
        time=time,
        reference=reference or f"{next(_numbers):016x}",
        recipient=recipient,
        from_domain=from_domain,
        login=login,
        campaign="",
        provider=provider,
        was=was,
        now=now,
        hard=hard,
        complained=complained,
        evidence=evidence,
        dsn="5.1.1",
    )


def known(link: Connection) -> list[Suppression]:
    sql = "SELECT address, scope, reason, since, until, evidence, count, provider FROM suppressions ORDER BY 1, 2, 3"
    return [Suppression(*row) for row in link.execute(sql)]


moments = st.one_of(
    st.integers(0, 40).map(lambda day: NOW + day * DAY / 4),
    st.floats(NOW, NOW + 60 * DAY),
    st.sampled_from([0.0, NOW + 3650 * DAY]),  # a clock that was set wrong for a while
)
bounces = st.lists(
    st.tuples(
        moments, st.sampled_from(["a@x.example", "b@x.example"]), st.sampled_from(["one.example", "two.example"])
    ),
    max_size=14,
)


@given(
    bounces, st.integers(1, 4), st.sampled_from([DAY / 2, 3 * DAY, 14 * DAY]), st.sampled_from(["domain", "everywhere"])
)
def test_who_is_suppressed_is_what_all_bounces_together_say(
    happened: list[tuple[float, str, str]], hard: int, within: float, scope: str
) -> None:
    """In whatever order they are read, one by one or several at a time, clocks wrong or right."""
    wanted: dict[tuple[str, str], tuple[float, int]] = {}
    for address, domain in {(one[1], one[2]) for one in happened}:
        named = "everywhere" if scope == "everywhere" else f"domain:{domain}"
        times = [when for when, who, of in happened if who == address and (scope == "everywhere" or of == domain)]
        for end in times:
            count = sum(end - within <= when <= end for when in times)
            if count >= hard:
                wanted[address, named] = max(wanted.get((address, named), (end, count)), (end, count))
    with book() as link:
        settings = rules(hard=hard, within=within, scope=scope, for_=30 * DAY)
        told = [change(time=when, recipient=who, from_domain=of) for when, who, of in happened]
        for at in range(0, len(told), 3):
            learn(link, told[at : at + 3], settings)
        found = {(one.address, one.scope): (one.since, one.count) for one in known(link)}
        assert found == wanted
        assert all(one.until == one.since + 30 * DAY and one.reason == "bounced" for one in known(link))


@given(st.lists(st.floats(0, 100, allow_nan=False), max_size=20).map(sorted), st.integers(1, 5), st.floats(0, 30))
def test_the_last_moment_is_found_by_looking_once(times: list[float], hard: int, within: float) -> None:
    counts = [(at, sum(times[at] - when <= within for when in times[: at + 1])) for at in range(len(times))]
    enough = [found for found in counts if found[1] >= hard]
    assert reached(times, hard=hard, within=within) == (enough[-1] if enough else None)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (change(hard=False), "a soft bounce"),
        (change(now="expired", hard=False), "one that expired"),
        (change(now="deferred", hard=False), "a deferral"),
        (change(from_domain=""), "mail without a From domain that could be named"),
    ],
)
def test_what_is_no_hard_bounce_suppresses_nobody(told: Transition, why: str) -> None:
    with book() as link:
        learn(link, [told], rules(hard=1))
        assert known(link) == [], why


def test_one_message_bounces_once() -> None:
    """Told twice of the same recipient of the same message, it is one bounce."""
    told = change(reference="00" * 8)
    with book() as link:
        learn(link, [told], rules())
        learn(link, [told], rules())
        assert known(link) == []


def test_mail_that_arrives_later_lifts_nothing() -> None:
    with book() as link:
        learn(link, [change(), change(time=NOW + 1)], rules())
        learn(link, [change(time=NOW + 2, now="sent", hard=False)], rules())
        assert [one.reason for one in known(link)] == ["bounced"]


def test_evidence_is_the_last_bounces_on_one_line() -> None:
    with book() as link:
        learn(link, [change(time=NOW + 9, evidence="550 5.1.1\r\nlast\x00"), change(evidence="first")], rules())
        assert known(link)[0].evidence == "550 5.1.1  last"


def test_a_complaint_suppresses_at_once_and_for_long() -> None:
    told = change(was="sent", now="sent", hard=False, complained=True, evidence="a provider")
    with book() as link:
        learn(link, [told], rules())
        learn(link, [change(was="sent", now="sent", hard=False, complained=True, time=NOW + 5)], rules())
        [one] = known(link)
        assert (one.reason, one.scope, one.since, one.count) == ("complained", "domain:example.com", NOW + 5, 2)
        assert one.until == NOW + 5 + 400 * DAY
    with book() as link:
        learn(link, [told], rules(complaint=0.0))
        assert known(link) == []


def test_a_recipient_known_by_hash_is_counted_with_the_same_address() -> None:
    with book() as link:
        hashed = veil.hashed("bob@example.net", veil.key(link))
        learn(link, [change(recipient=hashed)], rules())
        learn(link, [change(time=NOW + 1)], rules())
        assert [one.address for one in known(link)] == ["bob@example.net"]


def crowd(count: int, *, hard: int, provider: str = "Google", start: float = NOW) -> list[Transition]:
    """Recipients of one provider, the hard bounces among them last."""
    sent = [change(time=start + at, now="sent", hard=False, provider=provider) for at in range(count - hard)]
    return sent + [
        change(time=start + count + at, recipient=f"r{at}@example.net", provider=provider) for at in range(hard)
    ]


def test_a_provider_that_refuses_everybody_is_not_believed_and_told_once() -> None:
    with book() as link:
        learn(link, crowd(300, hard=200), rules(hard=1))
        assert known(link) == []
        learn(link, crowd(300, hard=200, start=NOW + 600), rules(hard=1))
        assert known(link) == []
        [(data,)] = link.execute("SELECT data FROM events WHERE kind = 'mistrusted'").fetchall()
        assert '"provider":"Google"' in data
        totals = link.execute("SELECT value FROM totals WHERE name = 'provider_mistrusted_total'").fetchall()
        assert totals == [(1,)]


def test_it_is_believed_again_an_hour_after() -> None:
    with book() as link:
        learn(link, crowd(300, hard=200), rules(hard=1))
        learn(link, [change(provider="Google", time=NOW + 3 * HOUR)], rules(hard=1))
        assert [one.address for one in known(link)] == ["bob@example.net"]


@pytest.mark.parametrize("provider", ["other", ""])
def test_those_that_are_no_one_provider_are_believed(provider: str) -> None:
    """A bad list of small domains is a bad list."""
    with book() as link:
        learn(link, crowd(40, hard=40, provider=provider), rules(hard=1))
        assert len(known(link)) == 40


def test_a_few_bounces_say_nothing_of_a_provider() -> None:
    with book() as link:
        learn(link, crowd(LEAST, hard=LEAST - 1), rules(hard=1))
        assert len(known(link)) == LEAST - 1


def test_what_was_sent_and_came_back_is_one_recipient() -> None:
    """Else a provider that takes first and bounces later would look half as bad as it is."""
    with book() as link:
        sent = [change(time=NOW, now="sent", hard=False, provider="Google", reference=f"{at:016x}") for at in range(60)]
        back = [change(time=NOW + 9, was="sent", provider="Google", reference=f"{at:016x}") for at in range(60)]
        learn(link, [*sent, *back], rules(hard=1, provider_limit=0.99))
        assert known(link) == []


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=260))
def test_the_share_of_a_login_is_that_of_its_last_recipients(happened: list[tuple[bool, bool]]) -> None:
    """Each recipient counts once, as it turned out: what was sent may bounce after all."""
    outcomes: list[str] = []
    told: list[Transition] = []
    for hard, late in happened:
        if late and hard and "0" in outcomes[-LAST:]:
            told.append(change(was="sent"))
            outcomes[len(outcomes) - 1 - outcomes[::-1].index("0")] = "1"
        else:
            told.append(change(now="bounced" if hard else "sent", hard=hard))
            outcomes.append("1" if hard else "0")
    with book() as link:
        for at in range(0, len(told), 7):
            learn(link, told[at : at + 7], rules())
        rows = link.execute("SELECT fates FROM bounced_lately").fetchall()
    kept = rows[0][0] if rows else ""
    assert kept == "".join(outcomes[-LAST:])
    assert share(kept) == (kept.count("1") / len(kept) if len(kept) >= LEAST else 0.0)


def test_a_login_counts_in_any_spelling() -> None:
    with book() as link:
        learn(link, [change(login="Alice@example.com"), change(login="alice@EXAMPLE.com")], rules())
        assert link.execute("SELECT login, fates FROM bounced_lately").fetchall() == [("alice@example.com", "11")]


def test_to_undo_takes_the_counted_bounces_too() -> None:
    """Else the next bounce would bring back at once what a person has lifted."""
    with book() as link:
        learn(link, [change(), change(time=NOW + 1)], rules())
        assert suppression.remove(link, Choice(addresses=("BOB@example.net",))) == 1
        learn(link, [change(time=NOW + 2)], rules())
        assert known(link) == []


def test_what_ended_long_ago_is_forgotten_and_what_has_no_end_stays(tmp_path: Path) -> None:
    database = Database(tmp_path / "journal.db", sync="normal", readonly=False)
    never = Suppression("a@x.example", "everywhere", "manual", NOW - 900 * DAY)
    ended = Suppression("b@x.example", "everywhere", "bounced", NOW - 900 * DAY, NOW - 800 * DAY)
    with database.transaction() as link:
        suppression.replace(link, [never, ended])
        learn(link, [change(time=NOW - 300 * DAY)], rules())
        assert suppression.sweep(link, NOW, within=14 * DAY, most=10) == 2
        assert [one.address for one in known(link)] == ["a@x.example"]
    database.close()


def test_nothing_that_somebody_says_can_break_the_learning() -> None:
    odd = change(
        recipient="\udce4@x.example", provider="\udce4", evidence="\udce4" * 900, login="\udce4", from_domain="\udce4"
    )
    with book() as link:
        learn(link, [odd], rules(hard=1))
        assert len(known(link)) == 1
