"""Keys in real DNS: what resolvers and name servers say, and how they fail, each told apart."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from postmeter.config.values import resolver
from postmeter.submission import keyrecord, keys, newkeys
from postmeter.submission.dnskeys import Dns
from postmeter.submission.keyrecord import Expected, Finding
from postmeter.submission.keys import SigningKey
from tests.lab.dns import SILENCE, NameServer
from tests.lab.zones import Zones

DOMAIN = "example.com"
NAME = f"pm1._domainkey.{DOMAIN}"
TEXT = SigningKey(DOMAIN, "pm1", keys.parse(Path("pm1.pem"), newkeys.generate("rsa"))).record()
_TAGS = keyrecord.parse(TEXT)


def judge(found: Sequence[bytes]) -> Finding:
    return keyrecord.judge(found, Expected("rsa", base64.b64decode(_TAGS["p"]), 2048))


@pytest.fixture
def zones() -> Iterator[Zones]:
    with Zones(DOMAIN, "provider.example", servers=2) as zones:
        yield zones


def look(zones: Zones) -> Finding:
    return Dns([resolver(zones.address)], port=zones.port).look(NAME, judge)


def everywhere(zones: Zones) -> Finding:
    return Dns([resolver(zones.address)], port=zones.port).everywhere(NAME, judge)


# --- the resolver


def test_a_record_in_several_strings_over_tcp_is_right(zones: Zones) -> None:
    """It is longer than 255 octets, and with it the answer longer than UDP may bring without EDNS."""
    zones.resolver.rdata[NAME, "TXT"] = [" ".join(f'"{TEXT[at : at + 20]}"' for at in range(0, len(TEXT), 20))]
    assert len(TEXT) > 255
    assert look(zones).word == "right"


def test_aliases_are_followed(zones: Zones) -> None:
    zones.resolver.rdata[NAME, "CNAME"] = ["k1.provider.example."]
    zones.resolver.rdata["k1.provider.example", "CNAME"] = ["k2.provider.example."]
    assert look(zones).word == "missing"
    assert "k2.provider.example, to which" in look(zones).what
    zones.resolver.records["k2.provider.example"] = TEXT
    assert look(zones).word == "right"


def test_several_records_are_seen_as_several(zones: Zones) -> None:
    zones.resolver.records[NAME] = TEXT
    zones.resolver.rdata[NAME, "TXT"] = ['"v=DKIM1; p="']
    assert look(zones).word == "several"


def test_no_such_name_and_no_such_record_are_told_apart(zones: Zones) -> None:
    assert look(zones).what == f"{NAME}: there is no such name"
    zones.resolver.rdata[NAME, "A"] = ["127.0.0.1"]
    assert look(zones).what == f"{NAME}: there is no TXT record"


def test_a_resolver_that_sends_in_a_circle_says_nothing_about_a_key(zones: Zones) -> None:
    """Whatever strangers' zones hold, it is an answer about one key, and no end of looking for the others."""
    zones.resolver.rdata[NAME, "CNAME"] = [f"{NAME}."]
    found = look(zones)
    assert (found.ok, found.word) == (None, "unknown")
    assert "CNAME" in found.what


def test_a_name_server_whose_address_leads_in_a_circle_leaves_it_open(zones: Zones) -> None:
    zones.publish(NAME, TEXT)
    del zones.resolver.rdata[f"ns1.{DOMAIN}", "A"]
    zones.resolver.rdata[f"ns1.{DOMAIN}", "CNAME"] = [f"ns1.{DOMAIN}."]
    assert everywhere(zones).ok is None


@pytest.mark.parametrize(
    ("fault", "told"),
    [("SERVFAIL", "answered SERVFAIL"), ("REFUSED", "answered REFUSED"), (SILENCE, "did not answer within 2 s")],
)
def test_a_resolver_that_does_not_tell_says_nothing_about_a_key(zones: Zones, fault: str, told: str) -> None:
    zones.resolver.records[NAME] = TEXT
    zones.resolver.faults["*"] = fault
    finding = look(zones)
    assert (finding.word, finding.ok) == ("unknown", None)
    assert told in finding.what


def test_the_second_resolver_answers_for_a_silent_first(zones: Zones) -> None:
    with NameServer({NAME: TEXT}) as second:
        zones.resolver.faults["*"] = SILENCE
        dns = Dns([resolver(zones.address), resolver(f"127.0.0.1:{second.port}")])
        assert dns.look(NAME, judge).word == "right"


def test_waiting_is_bounded_in_all(zones: Zones) -> None:
    """Ten resolvers of which none answers, and a clock that runs: the question ends after ten seconds of it."""
    zones.resolver.faults["*"] = SILENCE
    begun = time.monotonic()
    clock = lambda: (time.monotonic() - begun) * 5  # noqa: E731
    finding = Dns([resolver(zones.address)] * 10, clock=clock).look(NAME, judge)
    assert finding.ok is None
    assert time.monotonic() - begun < 6


def test_nobody_listens(zones: Zones) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    assert Dns([resolver(f"127.0.0.1:{port}")]).look(NAME, judge).ok is None


# --- every server of a zone


def test_all_servers_are_asked_directly(zones: Zones) -> None:
    zones.publish(NAME, TEXT, resolver=False)
    assert everywhere(zones).word == "right"
    assert all(NAME in zones.servers[f"ns{nth}.{DOMAIN}"].asked for nth in (1, 2))


def test_one_server_that_lags_is_named(zones: Zones) -> None:
    zones.publish(NAME, TEXT, on=[f"ns1.{DOMAIN}"])
    finding = everywhere(zones)
    assert (finding.word, finding.ok) == ("missing", False)
    assert f"ns2.{DOMAIN} ({zones.servers[f'ns2.{DOMAIN}'].address})" in finding.what


def test_all_addresses_of_a_server_are_asked(zones: Zones) -> None:
    """But for those to which this host has no way at all."""
    zones.publish(NAME, TEXT)
    with NameServer(address="127.9.9.9", port=zones.port, authority=True) as third:
        zones.resolver.rdata[f"ns2.{DOMAIN}", "A"].append(third.address)
        assert everywhere(zones).word == "missing"
        third.records[NAME] = TEXT
        assert everywhere(zones).word == "right"
        zones.resolver.rdata[f"ns2.{DOMAIN}", "AAAA"] = ["2001:db8::53"]
        if not _has_way_to("2001:db8::53"):
            assert everywhere(zones).word == "right"


def _has_way_to(address: str) -> bool:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 53))
        except OSError:
            return False
    return True


@pytest.mark.parametrize("fault", ["SERVFAIL", SILENCE])
def test_a_server_that_does_not_tell_leaves_it_open(zones: Zones, fault: str) -> None:
    zones.publish(NAME, TEXT)
    zones.servers[f"ns1.{DOMAIN}"].faults["*"] = fault
    finding = everywhere(zones)
    assert (finding.word, finding.ok) == ("unknown", None)
    assert f"ns1.{DOMAIN}" in finding.what


def test_a_wrong_answer_weighs_more_than_none(zones: Zones) -> None:
    zones.publish(NAME, TEXT, on=[f"ns2.{DOMAIN}"])
    zones.servers[f"ns1.{DOMAIN}"].faults["*"] = "SERVFAIL"
    zones.servers[f"ns2.{DOMAIN}"].records[NAME] = "v=DKIM1; p="
    assert everywhere(zones).word == "revoked"


def test_a_server_without_authority_leaves_it_open(zones: Zones) -> None:
    """Its cache may hold what the zone has no more."""
    zones.publish(NAME, TEXT)
    zones.servers[f"ns2.{DOMAIN}"].authority = False
    assert "is no authority for" in everywhere(zones).what


def test_an_alias_leads_to_the_servers_of_its_target(zones: Zones) -> None:
    target = "k1.provider.example"
    for server in (zones.resolver, *(zones.servers[f"ns{nth}.{DOMAIN}"] for nth in (1, 2))):
        server.rdata[NAME, "CNAME"] = [target + "."]
    zones.publish(target, TEXT, on=["ns1.provider.example"])
    assert f"ns2.provider.example ({zones.servers['ns2.provider.example'].address})" in everywhere(zones).what
    zones.publish(target, TEXT, on=["ns2.provider.example"])
    assert everywhere(zones).word == "right"
    zones.servers[f"ns1.{DOMAIN}"].rdata[NAME, "CNAME"] = ["nowhere.provider.example."]
    assert everywhere(zones).word == "missing"


def test_aliases_in_a_circle_end(zones: Zones) -> None:
    for server in (zones.resolver, *zones.servers.values()):
        server.rdata[NAME, "CNAME"] = [f"x.{DOMAIN}."]
        server.rdata[f"x.{DOMAIN}", "CNAME"] = [f"{NAME}."]
    assert everywhere(zones).ok is None


def test_a_delegated_name_has_servers_of_its_own(zones: Zones) -> None:
    """_domainkey.example.com may be another's zone."""
    zones.publish(NAME, TEXT, on=["ns1.provider.example"])
    zones.resolver.rdata[f"_domainkey.{DOMAIN}", "NS"] = ["ns1.provider.example."]
    assert everywhere(zones).word == "right"


def test_a_zone_whose_servers_nobody_knows_is_open(zones: Zones) -> None:
    zones.resolver.rdata.pop((DOMAIN, "NS"))
    assert "no name server of" in everywhere(zones).what
    zones.resolver.rdata[DOMAIN, "NS"] = ["ns9.example.net."]
    assert "has no address" in everywhere(zones).what
