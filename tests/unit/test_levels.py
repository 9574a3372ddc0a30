"""Which limits a message has at each level: the first rule whose conditions all hold, or the level's own."""

from __future__ import annotations

import ipaddress
import json
import random
from dataclasses import astuple
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.config.load import loads
from postmeter.config.schema import Quota
from postmeter.mail.message import Client, Envelope
from postmeter.submission import logins
from postmeter.submission.levels import Levels, may_hold

NOW = 1_795_355_580.0  # 2026-11-22 13:53:00 UTC
LOGINS = ["", "a@example.com", "B@example.com", "a@sub.example.com", "news", "local"]
DOMAINS = ["", "example.com", "sub.example.com", "shop.example", "xn--exmple-cua.com"]
SERVICES = ["submission", "BATCH", "local"]
ADDRESSES = ["192.0.2.9", "192.0.3.9", "2001:db8::9", "2001:db8:0:100::1", "::ffff:192.0.2.77", "", "unknown"]
GROUPS = {"staff": ["a@*", "NEWS"], "shop": ["*.com"], "none": []}
LOGIN_GLOBS = ["*", "*@example.com", "b@EXAMPLE.com", "*.example.com", "[ab]@*", "n?ws", "a@*example*", "x"]
DOMAIN_GLOBS = ["*", "example.com", "*.example.com", "*.com", "shop.*", "[es]*"]
NETWORKS = ["192.0.2.0/24", "192.0.0.0/16", "2001:db8::/32", "127.0.0.0/8"]


def quota(settings: dict[str, Any]) -> Quota:
    return loads(json.dumps({"quota": settings})).quota  # JSON is YAML


def rules() -> st.SearchStrategy[list[dict[str, Any]]]:
    """Limits tell the rule by their number."""
    conditions = st.fixed_dictionaries(
        {},
        optional={
            "login": st.sampled_from(LOGIN_GLOBS),
            "group": st.sampled_from(list(GROUPS)),
            "network": st.sampled_from(NETWORKS),
            "service": st.sampled_from(SERVICES),
            "from_domain": st.sampled_from(DOMAIN_GLOBS),
            "over": st.sampled_from(["defer", "reject", "hold", "observe"]),
        },
    )
    return st.lists(conditions, max_size=5).map(
        lambda found: [{**rule, "limits": [f"{number} messages/day"]} for number, rule in enumerate(found, 1)]
    )


def matches(glob: str, name: str) -> bool:
    return fnmatchcase(name.lower(), glob.lower())


def holds(rule: dict[str, Any], *, login: str, service: str, address: str, domain: str | None) -> bool | None:
    """The oracle: every condition by itself, as the documentation says it. None: nobody knows yet."""
    if "login" in rule and not matches(rule["login"], login):
        return False
    if "group" in rule and not any(matches(glob, login) for glob in GROUPS[rule["group"]]):
        return False
    if "service" in rule and rule["service"] != service:
        return False
    if "network" in rule:
        try:
            ip = ipaddress.ip_address(address.removeprefix("::ffff:"))
        except ValueError:
            return False
        if ip not in ipaddress.ip_network(rule["network"]):
            return False
    if "from_domain" not in rule:
        return True
    return None if domain is None else domain != "" and matches(rule["from_domain"], domain)


def first(found: list[dict[str, Any]], **subject: Any) -> tuple[list[int], str] | None:
    """Limits and what happens to more; None where the From domain would decide."""
    for rule in found:
        if (held := holds(rule, **subject)) is not False:
            return None if held is None else ([int(rule["limits"][0].split()[0])], rule.get("over", "reject"))
    return [99], "reject"


@given(
    levels=st.fixed_dictionaries({name: rules() for name in ("sender", "domain", "network")}),
    login=st.sampled_from(LOGINS),
    service=st.sampled_from(SERVICES),
    address=st.sampled_from(ADDRESSES),
    domain=st.sampled_from([None, *DOMAINS]),
)
def test_every_level_decides_as_the_first_rule_that_holds(
    levels: dict[str, list[dict[str, Any]]], login: str, service: str, address: str, domain: str | None
) -> None:
    """Against an oracle that asks every condition of every rule by itself."""
    own: dict[str, Any] = {"limits": ["99 messages/day"]}
    settings = {
        **own,
        "over": "reject",
        "groups": GROUPS,
        "rules": levels["sender"],
        "domains": {**own, "rules": levels["domain"]},
        "networks": {**own, "rules": levels["network"]},
        "total": own,
    }
    envelope = Envelope(mail_from=b"x", login=login, service=service, client=Client("pc", address, 1))
    decided = Levels(quota(settings)).of(envelope, sender="whoever", domain=domain, now=NOW)
    subject = {"login": login, "service": service, "address": address, "domain": domain}
    expected = {name: first(found, **subject) for name, found in levels.items()} | {"total": ([99], "reject")}
    if domain is None:
        expected["domain"] = None
    told = {one.level: ([limit.count for limit in one.allowance.limits], one.allowance.over) for one in decided}
    assert told == {name: found for name, found in expected.items() if found is not None}


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.200", "192.0.2.0/24"),
        ("::ffff:192.0.2.200", "192.0.2.0/24"),
        ("2001:db8:0:1ff::5", "2001:db8:0:100::/56"),
        ("2001:db8::5%eth0", "2001:db8::/56"),
        ("", "unknown"),
    ],
)
def test_a_networks_account_is_that_of_its_prefix_and_nobody_has_none(address: str, key: str) -> None:
    """A client whose address Postfix does not know must not escape the level."""
    envelope = Envelope(mail_from=b"x", client=Client("pc", address, 1))
    decided = Levels(Quota()).of(envelope, sender="s", domain="", now=NOW)
    keys = {one.level: one.key for one in decided}
    assert keys == {"sender": "s", "domain": "", "network": key, "total": ""}


@pytest.mark.parametrize(("domain", "limit"), [("any.example", 1), ("", 2)])
def test_mail_without_a_from_domain_of_its_own_is_in_no_glob_of_domains(domain: str, limit: int) -> None:
    """Not even in that of all domains: its rule would be for whoever gives none."""
    rule = {"from_domain": "*", "limits": ["1 message/day"]}
    levels = Levels(quota({"domains": {"rules": [rule], "limits": ["2 messages/day"]}}))
    decided = levels.of(Envelope(mail_from=b"x"), sender="s", domain=domain, now=NOW)
    assert [limit.count for one in decided for limit in one.allowance.limits] == [limit]


def test_sendmails_mail_comes_from_no_network() -> None:
    decided = Levels(Quota()).of(Envelope(mail_from=b"x"), sender="local", domain="d.example", now=NOW)
    assert [(one.level, one.key) for one in decided] == [("sender", "local"), ("domain", "d.example"), ("total", "")]


RULES = """quota:
  groups: {sales: ["*@sales.example"]}
  rules:
    - {login: boss@example.com, limits: unlimited}
    - {login: "*@example.com", service: batch, limits: [1 message/day]}
    - {login: "*", group: sales, limits: [2 messages/day]}
    - {login: "*@*", limits: [3 messages/day]}
  limits: [4 messages/day]
  domains:
    rules:
      - {from_domain: news.example, login: a, limits: [5 messages/day]}
      - {from_domain: "*.example", limits: [6 messages/day]}
    limits: [7 messages/day]
  networks:
    rules:
      - {network: 192.0.2.0/25, limits: [8 messages/day]}
      - {network: 192.0.0.0/16, limits: [9 messages/day]}
  total: {limits: [10 messages/day]}
"""


@pytest.mark.parametrize(
    ("level", "key", "limits"),
    [
        ("sender", "boss@example.com", []),
        ("sender", "x@example.com", [3]),
        ("sender", "x@sales.example", [2]),
        ("sender", "192.0.2.1", [4]),
        ("sender", "2001:db8::/64", [4]),
        ("sender", "local", [4]),
        ("domain", "news.example", [6]),
        ("domain", "example.com", [7]),
        ("domain", "", [7]),
        ("network", "192.0.2.0/24", [9]),
        ("network", "198.51.100.0/24", []),
        ("network", "2001:db8::/56", []),
        ("network", "unknown", []),
        ("total", "", [10]),
        ("brake", "x", []),
    ],
)
def test_by_name_alone_rules_that_ask_for_more_are_left_out(level: str, key: str, limits: list[int]) -> None:
    found = Levels(loads(RULES).quota).by_name(level, key, NOW)
    assert [limit.count for limit in found.limits] == limits


def test_a_ramp_stands_besides_the_rules_limits_and_grows_at_midnight_utc() -> None:
    ramp = {"start": "50 recipients/day", "factor": 1.5, "end": "100 recipients/day", "since": "2026-11-21"}
    levels = Levels(quota({"rules": [{"limits": ["9 messages/hour"], "ramp": ramp}]}))
    midnight = 1_795_305_600  # 2026-11-22

    def at(now: float) -> list[str]:
        return [limit.text for limit in levels.by_name("sender", "new@example.com", now).limits]

    assert at(midnight - 0.001) == ["9 messages/hour", "50 recipients/day"]
    assert at(midnight) == ["9 messages/hour", "75 recipients/day"]
    assert at(midnight + 86_400) == ["9 messages/hour", "100 recipients/day"]


@pytest.mark.parametrize("key", ["logins_file", "domains_file"])
def test_a_file_of_names_is_a_condition_like_any_other(tmp_path: Path, key: str) -> None:
    file = tmp_path / "names"
    file.write_text("# who\nExample.com  # its domain\n*.example.org\n")
    levels = Levels(quota({"rules": [{key: str(file), "limits": ["1 message/day"]}], "limits": ["2 messages/day"]}))

    def count(name: str) -> int:
        login, domain = (name, "x.example") if key == "logins_file" else ("x", name)
        envelope = Envelope(mail_from=b"x", login=login, client=Client("pc", "192.0.2.1", 1))
        return levels.of(envelope, sender="x", domain=domain, now=NOW)[0].allowance.limits[0].count

    assert [count(name) for name in ("example.com", "a.example.org", "example.org", "other")] == [1, 1, 2, 2]


def test_a_file_of_names_that_changed_decides_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decisions are remembered only where nothing but the message and the day decides."""
    monkeypatch.setattr(logins, "_LOOK", 0.0)
    monkeypatch.setattr(logins, "_STILL", 0.0)
    file = tmp_path / "names"
    file.write_text("somebody@example.com\n")
    rule = {"logins_file": str(file), "limits": ["1 message/day"]}
    levels = Levels(quota({"rules": [rule], "limits": ["2 messages/day"]}))
    envelope = Envelope(mail_from=b"x", login="other@example.com")

    def count() -> int:
        return levels.of(envelope, sender="x", domain="", now=NOW)[0].allowance.limits[0].count

    assert count() == 2
    file.write_text("other@example.com\n")
    assert count() == 1


def test_what_was_decided_for_one_is_not_taken_for_another() -> None:
    rules = [
        {"login": "a@example.com", "service": "BATCH", "limits": ["1 message/day"]},
        {"network": "192.0.2.0/24", "from_domain": "example.com", "limits": ["2 messages/day"]},
        {
            "login": "news",
            "limits": ["9 messages/hour"],
            "ramp": {"start": "50 messages/day", "factor": 1.5, "end": "900 messages/day", "since": "2026-11-20"},
        },
    ]
    shared = Levels(quota({"rules": rules, "networks": {"limits": ["7 messages/day"]}}))
    clients = [Client("pc", address, port) for address in ADDRESSES for port in (0, 1)]
    asked = list(product(LOGINS, SERVICES, clients, ["s", "t"], [None, *DOMAINS], [NOW, NOW + 86_400]))
    random.Random(1).shuffle(asked)
    for login, service, client, sender, domain, now in asked[:1500]:
        envelope = Envelope(mail_from=b"x", login=login, service=service, client=client)
        alone = shared._decide(login.lower(), service, client.address, client.local, sender, domain, int(now // 86_400))
        known = shared.of(envelope, sender=sender, domain=domain, now=now)
        assert list(map(astuple, known)) == list(map(astuple, alone))


@pytest.mark.parametrize(
    ("settings", "holding"),
    [
        ({}, False),
        ({"over": "hold"}, True),
        ({"rules": [{"limits": "unlimited", "over": "hold"}]}, True),
        ({"domains": {"rules": [{"limits": ["1 message/day"], "over": "hold"}]}}, True),
        ({"networks": {"rules": [{"limits": ["1 message/day"], "over": "reject"}]}}, False),
    ],
)
def test_the_hold_queue_is_asked_for_only_where_something_may_use_it(settings: dict[str, Any], holding: bool) -> None:
    assert may_hold(quota(settings)) is holding
