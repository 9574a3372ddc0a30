"""Who made a hit, case by case: one thing alone speaks for a machine, and only all things together for a person."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postmeter.tracking.robotlist import DEFAULT, RobotList, parse
from postmeter.tracking.robots import MANY, SOON, Robots, Sight

KNOWN = parse(DEFAULT.read_text())
ROBOTS = Robots(KNOWN)
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:133.0) Gecko/20100101 Firefox/133.0"
SAFARI = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.5 Mobile/15E148 Safari/604.1"
)
FOLLOWED = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-User": "?1"}
LOADED = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
CLICK = Sight(kind="click", method="GET", agent=CHROME, address="93.184.216.34", fields=FOLLOWED, since=3600.0)
OPEN = replace(CLICK, kind="open", fields=LOADED)


def by(sight: Sight) -> tuple[str, str]:
    verdict = ROBOTS.judge(sight)
    return verdict.by, verdict.reason


@pytest.mark.parametrize("agent", [CHROME, FIREFOX, SAFARI])
def test_a_browser_that_follows_a_link_alone_and_late_is_a_person_s(agent: str) -> None:
    assert by(replace(CLICK, agent=agent)) == ("human", "browser")
    assert by(replace(OPEN, agent=agent)) == ("human", "browser")


def test_safari_does_not_say_that_somebody_clicked_and_others_must() -> None:
    by_itself = {name: value for name, value in FOLLOWED.items() if name != "Sec-Fetch-User"}
    assert by(replace(CLICK, agent=SAFARI, fields=by_itself)) == ("human", "browser")
    assert by(replace(CLICK, fields=by_itself)) == ("unsure", "no_navigation")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"method": "HEAD"}, "head"),
        ({"trapped": True}, "honeypot"),
        ({"links": MANY}, "many_links"),
        ({"asked": True}, "head_first"),
        ({"agent": ""}, "no_agent"),
        ({"agent": "  "}, "no_agent"),
        ({"delivered": True, "since": -0.5}, "before_delivery"),
        ({"fields": {**FOLLOWED, "Purpose": "prefetch"}}, "prefetch"),
        ({"fields": {**FOLLOWED, "X-Purpose": "preview"}}, "prefetch"),
        ({"fields": {**FOLLOWED, "Sec-Purpose": "prefetch;prerender"}}, "prefetch"),
        ({"fields": {**FOLLOWED, "X-Moz": "Prefetch"}}, "prefetch"),
        ({"agent": CHROME.replace("Chrome/", "HeadlessChrome/")}, "robot:headless-browser"),
        ({"agent": "Mozilla/5.0 Barracuda Sentinel (EE)"}, "robot:barracuda"),
        ({"agent": "python-requests/2.32.3"}, "robot:program"),
        ({"agent": "Microsoft Office Existence Discovery"}, "robot:microsoft-office-discovery"),
        ({"address": "40.107.3.4"}, "robot:microsoft-protection"),
        ({"address": "2a01:111:f403:c000::1"}, "robot:microsoft-protection"),
        ({"address": "209.222.87.255"}, "robot:barracuda"),
    ],
)
def test_one_thing_is_enough_for_a_machine(changes: dict[str, object], reason: str) -> None:
    assert by(replace(CLICK, **changes)) == ("machine", reason)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"since": None}, "no_message"),
        ({"since": SOON - 1}, "soon"),
        ({"since": -5.0}, "soon"),
        ({"deferred": True}, "not_delivered"),
        ({"links": 2}, "two_links"),
        ({"address": ""}, "no_address"),
        ({"address": "10.0.0.1"}, "no_address"),
        ({"address": "nonsense"}, "no_address"),
        ({"agent": "Thunderbird"}, "no_browser"),
        ({"agent": "Mozilla/5.0"}, "no_browser"),
        ({"agent": CHROME + " (+https://scanner.example/)"}, "no_browser"),
        ({"fields": {}}, "no_navigation"),
        ({"fields": {}, "secure": False}, "plain_http"),
        ({"fields": {**FOLLOWED, "Sec-Fetch-Mode": "cors"}}, "no_navigation"),
        ({"fields": {**FOLLOWED, "Sec-Fetch-Dest": "empty"}}, "no_navigation"),
        ({"address": "67.231.152.9"}, "robot:proofpoint"),
    ],
)
def test_one_thing_that_is_missing_leaves_it_unsure(changes: dict[str, object], reason: str) -> None:
    assert by(replace(CLICK, **changes)) == ("unsure", reason)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("agent", "verdict"),
    [
        ("Mozilla/5.0", ("machine", "robot:apple-mail-privacy")),
        (
            "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
            ("unsure", "robot:google-image-proxy"),
        ),
        (
            "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html",
            ("unsure", "robot:yahoo-mail-proxy"),
        ),
        ("Mozilla/4.0 (compatible; ms-office; MSOffice 16)", ("unsure", "no_browser")),
    ],
)
def test_what_loads_images_for_people_is_known(agent: str, verdict: tuple[str, str]) -> None:
    assert by(replace(OPEN, agent=agent, fields={})) == verdict


def test_microsoft_s_network_is_a_machine_s_on_links_and_may_be_a_person_s_on_images() -> None:
    assert by(replace(OPEN, address="40.107.3.4")) == ("unsure", "robot:microsoft-protection-images")


# One thing or two are otherwise: with all of them by chance nobody would ever be taken for a person.
OTHERWISE = st.one_of(
    st.tuples(st.just("kind"), st.sampled_from(["click", "open"])),
    st.tuples(st.just("method"), st.sampled_from(["GET", "HEAD"])),
    st.tuples(st.just("agent"), st.text(max_size=40) | st.sampled_from([CHROME, FIREFOX, SAFARI])),
    st.tuples(st.just("address"), st.text(max_size=20) | st.ip_addresses().map(str)),
    st.tuples(st.just("fields"), st.dictionaries(st.sampled_from(sorted(FOLLOWED)), st.text(max_size=9))),
    st.tuples(st.just("fields"), st.sampled_from([FOLLOWED, LOADED])),
    st.tuples(st.just("since"), st.none() | st.floats(-1e6, 1e6) | st.floats(SOON - 1, SOON + 1)),
    st.tuples(st.just("links"), st.integers(1, 5)),
    st.tuples(st.sampled_from(["secure", "delivered", "deferred", "asked", "trapped"]), st.booleans()),
)


@given(st.sampled_from([CLICK, OPEN]), st.lists(OTHERWISE, max_size=2).map(dict))
@example(CLICK, {})
@example(OPEN, {"since": SOON})
def test_nobody_is_a_person_for_the_lack_of_a_reason(first: Sight, otherwise: dict[str, Any]) -> None:
    """Whatever is seen: human means that everything was there."""
    sight = replace(first, **otherwise)
    verdict = ROBOTS.judge(sight)
    assert verdict.by in ("human", "machine", "unsure")
    assert verdict.reason
    if verdict.by == "human":
        assert (sight.method, sight.links) == ("GET", 1)
        assert not any((sight.asked, sight.trapped, sight.deferred))
        assert sight.since is not None
        assert sight.since >= SOON
        assert sight.agent in (CHROME, FIREFOX, SAFARI)
        assert ipaddress.ip_address(sight.address).is_global
        wanted = LOADED if sight.kind == "open" else FOLLOWED
        assert all(sight.fields[name] == wanted[name] for name in ("Sec-Fetch-Mode", "Sec-Fetch-Dest"))
    assert bool(otherwise) or verdict.by == "human"


def test_our_list_is_dated_and_every_robot_has_its_source() -> None:
    assert KNOWN.date >= datetime.date(2026, 11, 1)
    assert len(KNOWN.robots) > 10
    assert all(source.startswith("https://") for robot in KNOWN.robots for source in robot.sources)


LIST = """# comment
date 2026-01-02
robot one
  source https://example.com/a
  on click
  verdict machine
  agent = Exact/1
  agent ~ PaRt
  network 192.0.2.0/24
  network 2001:db8::/32

robot two
  source http://example.com/b
  on open click
  verdict unsure
  network 192.0.2.128/25
"""


def test_a_list_is_read_as_its_form_says() -> None:
    known = parse(LIST)
    assert known.date == datetime.date(2026, 1, 2)

    def names(kind: str, agent: str, address: str) -> list[str]:
        return [found.name for found in (known.by_agent(kind, agent), known.by_address(kind, address)) if found]

    assert names("click", "Exact/1", "192.0.2.200") == ["one", "one"]
    assert names("click", "xx part xx", "2001:db8:ffff::1") == ["one", "one"]
    assert names("open", "Exact/1", "192.0.2.200") == ["two"]
    assert names("click", "exact/1", "192.0.3.1") == []
    assert names("open", "", "nonsense") == []


def test_a_list_may_write_ipv4_within_ipv6() -> None:
    found = parse(LIST.replace("192.0.2.0/24", "::ffff:192.0.2.0/120")).by_address("click", "192.0.2.1")
    assert found is not None
    assert found.name == "one"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("date 2026-01-02", "date yesterday", 2),
        ("date 2026-01-02\n", "", 1),
        ("robot one", "robot One!", 3),
        ("robot two", "robot one", 12),
        ("  source https://example.com/a\n", "", 3),
        ("  source https://example.com/a", "  source somebody", 4),
        ("  on click\n", "", 3),
        ("on click", "on clicks", 5),
        ("verdict machine", "verdict human", 6),
        ("agent ~ PaRt", "agent ~ Pa", 8),
        ("agent ~ PaRt", "agent ! PaRt", 8),
        ("agent = Exact/1", "agent =", 7),
        ("192.0.2.0/24", "192.0.2.1/24", 9),
        ("192.0.2.0/24", "0.0.0.0/0", 9),
        ("2001:db8::/32", "::/0", 10),
        ("2001:db8::/32", "::ffff:0:0/96", 10),
        ("  network 192.0.2.128/25\n", "", 12),
        ("# comment", "comment", 1),
        ("verdict unsure", "verdict unsure\n  fetch https://example.com/", 16),
    ],
)
def test_a_mistake_is_told_by_its_line_and_nothing_of_the_list_is_used(old: str, new: str, line: int) -> None:
    assert old in LIST
    with pytest.raises(ValueError, match=rf"^line {line}: "):
        parse(LIST.replace(old, new, 1))


@given(st.text(max_size=200) | st.lists(st.sampled_from(LIST.splitlines())).map("\n".join))
def test_any_text_is_a_list_or_a_mistake_with_its_line(text: str) -> None:
    try:
        found: RobotList | str = parse(text)
    except ValueError as error:
        found = str(error)
    assert isinstance(found, RobotList) or found.startswith("line ")
