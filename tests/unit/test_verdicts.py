"""What several hits of a message say together, and what may be kept of one."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.books import verdicts
from postmeter.books.discretion import Origin, clicked, opened, rejudged, strictest, unique_key
from postmeter.books.robotfile import RobotFile
from postmeter.books.spooled import Seen
from postmeter.books.verdicts import About, Judge, Judged
from postmeter.config.load import loads
from postmeter.tracking.robots import Verdict
from tests.unit.test_robots import CHROME, FOLLOWED

ROBOTS = RobotFile(None).robots
START = 1_700_000_000.0


def seen(at: float, link: int, *, address: str = "93.184.216.34", method: str = "GET", kind: str = "click") -> Seen:
    return Seen(
        source=f"hit:f:{at}:{link}:{hash(address)}:{method}",
        kind=kind,
        time=START + at,
        reference="7265666572656e63",
        link=link,
        recipient="aa" * 8,
        target="https://u:p@shop.example/personal/4711?who=alice",
        host="click.example.com",
        method=method,
        address=address,
        agent=CHROME,
        secure=True,
        fields=FOLLOWED,
    )


def judge(*rounds: list[Seen], single: bool = True, ahead: tuple[Seen, ...] = ()) -> list[list[tuple[int, str, str]]]:
    """Of each round: link, verdict and reason; of a verdict that was changed the former before it."""
    court = Judge(ROBOTS, lambda reference: About(START - 3600, single=single))
    found = []
    for number, hits in enumerate(rounds):
        judged = court.judge(hits, ahead if number == 0 else ())
        found.append([(one.seen.link, changed(one), one.verdict.reason) for one in judged])
    return found


def changed(judged: Judged) -> str:
    return f"{judged.before.by}>{judged.verdict.by}" if judged.before else judged.verdict.by


def test_one_click_after_another_is_a_person_s() -> None:
    assert judge([seen(0, 1), seen(5, 2), seen(9, 1)]) == [
        [(1, "human", "browser"), (2, "human", "browser"), (1, "human", "browser")]
    ]


def test_many_links_within_a_second_are_a_machine_s_whoever_asks() -> None:
    """From three networks, as scanners do; the same link three times is somebody's impatience."""
    addresses = ["93.184.216.34", "8.8.8.8", "9.9.9.9"]
    swarm = [seen(0.4 * n, n + 1, address=address) for n, address in enumerate(addresses)]
    assert {by for _, by, _ in judge(swarm)[0]} == {"machine"}
    assert {by for _, by, _ in judge([seen(0.1 * n, 1) for n in range(5)])[0]} == {"human"}


def test_readers_of_a_shared_message_do_not_make_a_machine_of_each_other() -> None:
    addresses = ["93.184.216.34", "8.8.8.8", "9.9.9.9", "1.1.1.1"]
    crowd = [seen(0.1 * n, n + 1, address=address) for n, address in enumerate(addresses)]
    assert {by for _, by, _ in judge(crowd, single=False)[0]} == {"human"}
    one = [seen(0.1 * n, n + 1) for n in range(4)]
    assert {by for _, by, _ in judge(one, single=False)[0]} == {"machine"}


def test_what_waits_to_be_judged_counts_already() -> None:
    assert judge([seen(0, 1)], ahead=(seen(0.2, 2), seen(0.3, 3)))[0] == [(1, "machine", "many_links")]


def test_what_comes_later_makes_a_verdict_harder_and_is_told_as_a_change() -> None:
    first, second = judge([seen(0, 1)], [seen(0.2, 2), seen(0.3, 3)])
    assert first == [(1, "human", "browser")]
    assert second[:2] == [(2, "machine", "many_links"), (3, "machine", "many_links")]
    assert second[2:] == [(1, "human>machine", "many_links")]


def test_the_hidden_link_colours_its_network_for_a_minute_and_no_other() -> None:
    hits = [seen(0, 1), seen(2, 2, address="8.8.8.8")]
    trap = [seen(30, 0), seen(80, 4), seen(91, 5)]
    first, second = judge(hits, trap)
    assert [by for _, by, _ in first] == ["human", "human"]
    assert second == [
        (0, "machine", "honeypot"),
        (4, "machine", "honeypot"),
        (5, "human", "browser"),
        (1, "human>machine", "honeypot"),
    ]


def test_a_get_behind_a_head_is_a_machine_s() -> None:
    assert judge([seen(0, 1, method="HEAD"), seen(1, 1), seen(5, 2), seen(70, 1)])[0] == [
        (1, "machine", "head"),
        (1, "machine", "head_first"),
        (2, "human", "browser"),
        (1, "human", "browser"),
    ]


@given(
    st.lists(
        st.tuples(st.floats(0, 200), st.integers(0, 4), st.sampled_from(["93.184.216.34", "8.8.8.8"]), st.booleans()),
        max_size=25,
        unique_by=lambda hit: hit[:3],
    ),
    st.lists(st.integers(1, 5), max_size=6),
)
def test_every_hit_is_judged_once_and_changes_only_harden(
    hits: list[tuple[float, int, str, bool]], sizes: list[int]
) -> None:
    """However the hits are cut into rounds."""
    made = (seen(at, link, address=who, method="HEAD" if head else "GET") for at, link, who, head in hits)
    order = sorted(made, key=lambda hit: hit.time)
    court = Judge(ROBOTS, lambda reference: About(START - 3600))
    hardness = {"human": 0, "unsure": 1, "machine": 2}
    known: dict[str, str] = {}
    while order:
        size = sizes.pop() if sizes else len(order)
        now, order = order[:size], order[size:]
        for one in court.judge(now, ()):
            if one.before is None:
                assert one.seen.source not in known
            else:
                assert known[one.seen.source] == one.before.by
                assert hardness[one.verdict.by] > hardness[one.before.by]
            known[one.seen.source] = one.verdict.by
    assert len(known) == len(hits)


HUMAN = Judged(seen(0, 1), Verdict("human", "browser"))
REFERENCE, PSEUDONYM, NETWORK, WHO, PROGRAM, WHEN, LINE = LEADS = (
    "7265666572656e63", "aa" * 8, "93.184.216.0/24", "alice", CHROME, "17000000", "hit:f:"
)  # fmt: skip
"""What could lead to a person, as it would stand in an event."""


@pytest.mark.parametrize(
    ("privacy", "recipients", "kept"),
    [
        ("totals", 1, set()),
        ("pseudonymous", 1, {PSEUDONYM}),
        ("recipients", 1, set(LEADS)),
        ("totals", 2, {REFERENCE, WHO, WHEN, LINE}),
        ("pseudonymous", 2, {REFERENCE, WHO, WHEN, LINE}),
        ("recipients", 2, {REFERENCE, WHO, WHEN, LINE, NETWORK, PROGRAM}),
    ],
)
def test_nothing_is_kept_that_leads_to_a_person_unless_privacy_allows_it(
    privacy: str, recipients: int, kept: set[str]
) -> None:
    """The target of a shared message is the same for all. When a line was written says when somebody clicked."""
    origin = Origin(START - 3600, privacy, recipients, "spring", "example.com")
    again = replace(HUMAN, before=Verdict("unsure", "soon"))
    first = (clicked(HUMAN, origin, unique=None), opened(HUMAN, origin, unique=None))
    made = (*first, rejudged(again, origin, unique=None))
    text = json.dumps([asdict(event) for event in made])
    assert {lead for lead in LEADS if lead in text} == kept
    assert HUMAN.seen.address not in text
    assert text.count('"campaign": "spring"') == text.count('"from_domain": "example.com"') == 3


def test_a_private_hit_is_kept_by_the_hour_and_by_its_host() -> None:
    event = clicked(HUMAN, Origin(START, "totals"), unique=None)
    assert (event.time % 3600, event.target) == (0, "https://shop.example/")
    assert START - 3600 < event.time <= START


def test_repeats_are_told_by_what_is_kept_and_not_at_all_where_nothing_is() -> None:
    single, shared = Origin(START, "recipients"), Origin(START, "totals", 5)
    pseudonymous = Origin(START, "pseudonymous", 1, "spring", "example.com")
    again = Judged(seen(4000, 1), HUMAN.verdict)
    other_link = Judged(seen(1, 2), HUMAN.verdict)
    other_message = Judged(replace(seen(1, 1), reference="ff" * 8), HUMAN.verdict)
    machine = Judged(HUMAN.seen, Verdict("machine", "head"))
    for origin in (single, shared, pseudonymous):
        key = unique_key(HUMAN, origin, "click")
        assert key
        assert key == unique_key(again, origin, "click")
        assert key != unique_key(other_link, origin, "click")
        assert key != unique_key(machine, origin, "click")
        assert unique_key(HUMAN, origin, "open") == unique_key(other_link, origin, "open") != key
        same = unique_key(other_message, origin, "click") == key
        assert same is (origin is pseudonymous)
    assert unique_key(HUMAN, Origin(START, "totals"), "click") == b""


def test_without_a_campaign_a_pseudonym_s_repeats_are_those_of_a_day() -> None:
    day, campaign = Origin(START, "pseudonymous"), Origin(START, "pseudonymous", 1, "spring")
    begun = START // 86_400 * 86_400 - START
    hits = [Judged(seen(begun + at, 1), HUMAN.verdict) for at in (0, 86_399, 86_400)]
    first, last, next_day = (unique_key(hit, day, "click") for hit in hits)
    assert first == last != next_day
    assert len({unique_key(hit, campaign, "click") for hit in hits}) == 1


@pytest.mark.parametrize(("kind", "ending", "reason"), [("open", "", "browser"), ("click", ":open", "click")])
def test_an_open_says_whether_it_was_seen_or_shown_by_a_click(kind: str, ending: str, reason: str) -> None:
    """Else the two would be one event, for their sources would be one."""
    judged = Judged(seen(0, 1, kind=kind), HUMAN.verdict)
    event = opened(judged, Origin(START, "recipients"), unique=True)
    assert (event.source, event.reason) == (judged.seen.source + ending, reason)


def test_for_a_message_that_nobody_knows_the_strictest_section_counts() -> None:
    text = "tracking: {privacy: recipients, domains: {a.example: {privacy: pseudonymous}}}"
    assert strictest(loads("").tracking) == "totals"
    assert strictest(loads("tracking: {privacy: recipients}").tracking) == "recipients"
    assert strictest(loads(text).tracking) == "pseudonymous"


def test_what_is_remembered_is_bounded_however_many_hits_each_message_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has the links of many messages repeats them all."""
    monkeypatch.setattr(verdicts, "_HITS", 50)
    court = Judge(ROBOTS, lambda reference: About(START - 3600, START - 3600))
    for number in range(20):
        reference = f"{number:016x}"
        court.judge([replace(seen(number + n / 100, 1), reference=reference) for n in range(10)], ())
        assert sum(len(recent.judged) for recent in court._recent.values()) <= 50
        assert reference in court._recent
