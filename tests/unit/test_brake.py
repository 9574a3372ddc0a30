"""The brake's judgement: what is usual at an hour of the week, and what is a second sign."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.config.schema import Brake
from postmeter.mail.message import Client
from postmeter.store.profiles import House, Past
from postmeter.submission.brake import Look, evidence, signs, usual, usually, young
from postmeter.submission.network import network

HOUR, WEEK = 3600, 7 * 86_400
NOW = 1_700_000_000.0
OLD = House(since=NOW - 60 * 86_400, networks=NOW - 60 * 86_400, learned=NOW)
BRAKE = Brake(mode="on")


def past(hours: dict[int, int], *, first: float = NOW - 50 * 86_400) -> Past:
    """Recipients by how many hours ago."""
    return Past(first, {int(NOW // HOUR) - ago: count for ago, count in hours.items()}, {})


def middle(values: list[float]) -> float:
    """The median, without `statistics`."""
    while len(values) > 2:
        values = sorted(values)[1:-1]
    return sum(values) / len(values)


@given(
    counts=st.dictionaries(st.integers(1, 800), st.integers(1, 500)),
    near=st.dictionaries(
        st.sampled_from([week * 168 + off for week in range(1, 5) for off in (-1, 0, 1)]), st.integers(1, 500)
    ),
    least=st.integers(1, 100),
    deviations=st.floats(0, 20),
    age=st.integers(0, 40),
)
def test_what_is_usual_is_median_and_mad_of_the_same_hours_of_the_weeks_before(
    counts: dict[int, int], near: dict[int, int], least: int, deviations: float, age: int
) -> None:
    """Of the hour, or of its neighbours, whichever is more; weeks before the login was there do not count as none."""
    hours, first = counts | near, NOW - age * 86_400
    found = usual(
        past(hours, first=first), now=NOW, house=OLD, settings=replace(BRAKE, least=least, deviations=deviations)
    )
    best = 0.0
    for off in (-1, 0, 1):
        ago = [week * 168 + off for week in range(1, 5)]
        seen = [float(hours.get(hour, 0)) for hour in ago if int(NOW // HOUR) - hour >= first // HOUR]
        if seen:
            centre = middle(seen)
            best = max(best, centre + deviations * middle([abs(one - centre) for one in seen]))
    assert found == max(least - 1, int(best))


def test_below_the_least_nothing_is_unusual() -> None:
    """`least` recipients are the first that may be too many."""
    assert usual(past({}), now=NOW, house=OLD, settings=BRAKE) == 19


def test_a_weekly_newsletter_is_usual_at_its_time() -> None:
    weekly = past(dict.fromkeys((168, 336, 504, 672), 2000))
    assert usual(weekly, now=NOW, house=OLD, settings=BRAKE) == 2000
    assert usual(weekly, now=NOW + 5 * HOUR, house=OLD, settings=BRAKE) == 19


def test_summer_time_moves_a_newsletter_by_an_hour_only() -> None:
    weekly = past(dict.fromkeys((169, 337, 505, 673), 2000))
    assert usual(weekly, now=NOW, house=OLD, settings=BRAKE) == 2000


@pytest.mark.parametrize(
    ("look", "found"),
    [
        (Look(), ()),
        (Look(network_known=False), ("network",)),
        (Look(network_ours=False), ()),
        (Look(strangers=0.51), ("strangers",)),
        (Look(strangers=0.5), ()),
        (Look(strangers=1.0, usually=0.85), ()),
        (Look(bounced=0.3), ("bounces",)),
        (Look(network_known=False, strangers=0.9, usually=0.1), ("network", "strangers")),
        (Look(young=True, network_known=False, strangers=1.0), ()),
        (Look(young=True, network_known=False, network_ours=False), ()),
        (Look(young=True, strangers=1.0, strangers_ours=0.6, usually=0.9), ("strangers",)),
        (Look(young=True, network_ours=False, strangers_ours=0.6), ("network", "strangers")),
    ],
)
def test_second_signs(look: Look, found: tuple[str, ...]) -> None:
    """A shop always writes to strangers; to a login that is new itself everything is new, so the house is asked."""
    assert signs(look, BRAKE) == found
    assert all(evidence(look, [sign]) for sign in found)


def test_only_the_signs_that_are_asked_for_count() -> None:
    look = Look(network_known=False, strangers=1.0)
    assert signs(look, replace(BRAKE, signs=("network",))) == ("network",)
    assert signs(look, replace(BRAKE, signs=("bounces",))) == ()
    assert signs(Look(young=True, network_ours=False), replace(BRAKE, signs=("network",))) == ("network",)


def test_whoever_hardly_ever_writes_is_measured_like_a_new_login() -> None:
    assert young(past({}, first=0.0), NOW)
    assert young(past(dict.fromkeys(range(1, 50), 1), first=NOW - 6 * 86_400), NOW)
    assert young(past({5: 1, 700: 3}), NOW)
    assert not young(past(dict.fromkeys(range(100, 105), 1)), NOW)


def test_the_last_week_makes_nothing_usual_once_there_is_an_older_one() -> None:
    thief = dict.fromkeys(range(24), 1)
    old, new = past(thief | {300: 4}), past(thief, first=NOW - 10 * 86_400)
    known = replace(old, strangers=dict.fromkeys(old.hours, 1))
    assert usually(known, NOW) == 0.25
    assert usually(replace(new, strangers=new.hours), NOW) == 1.0


@given(address=st.ip_addresses(), bits=st.tuples(st.integers(0, 32), st.integers(0, 128)))
def test_a_network_holds_its_address(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, bits: tuple[int, int]
) -> None:
    found = ipaddress.ip_network(network(Client(address=str(address), port=1), bits))
    mapped = getattr(address, "ipv4_mapped", None) or address
    assert mapped in found
    assert found.prefixlen == bits[found.version == 6]


def test_what_is_no_address_has_no_network() -> None:
    assert network(Client(address="192.0.2.1", port=0), (24, 56)) == ""
    assert network(Client(address="unknown", port=1), (24, 56)) == ""
    assert network(Client(address="fe80::1%eth0", port=1), (24, 56)) == "fe80::/56"
