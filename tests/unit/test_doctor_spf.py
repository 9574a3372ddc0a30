"""SPF of an address, worked out as RFC 7208 has it, on zones that are dictionaries."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from postmeter.doctor import spf
from postmeter.doctor.facts import Answer, Sender

HERE = "192.0.2.1"
ZONE: dict[tuple[str, str], tuple[str, ...]] = {
    ("inner.example", "TXT"): ("v=spf1 ip4:192.0.2.0/28 -all",),
    ("outer.example", "TXT"): ("v=spf1 -all",),
    ("twice.example", "TXT"): ("v=spf1 -all", "v=spf1 +all"),
    ("mail.example", "A"): ("192.0.2.9",),
    ("mail.example", "AAAA"): ("2001:db8::9",),
    ("example.com", "A"): ("192.0.2.1",),
    ("example.com", "MX"): ("10 mail.example", "20 other.example"),
}


def evaluate(record: str, address: str = HERE) -> Sender:
    zone: Mapping[tuple[str, str], tuple[str, ...]] = {**ZONE, ("example.com", "TXT"): ("unrelated", record)}

    def ask(name: str, kind: str) -> Answer:
        if name == "silent.example":
            return Answer(silent="nobody answers")
        return Answer(zone.get((name, kind), ()))

    return spf.evaluate("example.com", address, ask)


@pytest.mark.parametrize(
    ("record", "result"),
    [
        ("v=spf1 ip4:192.0.2.1 -all", "pass"),
        ("v=spf1 ip4:192.0.2.0/24 -all", "pass"),
        ("v=spf1 ip4:198.51.100.0/24 -all", "fail"),
        ("v=spf1 ip4:198.51.100.0/24 ~all", "softfail"),
        ("v=spf1 ip4:198.51.100.0/24", "neutral"),
        ("v=spf1 ?all", "neutral"),
        ("V=SPF1 A -ALL", "pass"),
        ("v=spf1 -a +all", "fail"),
        ("v=spf1 a:mail.example -all", "fail"),
        ("v=spf1 a:mail.example/28 -all", "pass"),
        ("v=spf1 a:mail.example/32//64 -all", "fail"),
        ("v=spf1 mx/28 -all", "pass"),
        ("v=spf1 mx -all", "fail"),
        ("v=spf1 include:inner.example -all", "pass"),
        ("v=spf1 include:outer.example ~all", "softfail"),
        ("v=spf1 redirect=inner.example", "pass"),
        ("v=spf1 ip4:192.0.2.1 redirect=outer.example", "pass"),
        ("v=spf1 exists:mail.example -all", "pass"),
        ("v=spf1 exists:%{i}.example -all", "fail"),
        ("v=spf1 exp=why.example unknown=x -all", "fail"),
        ("v=spf1 include:nothing.example -all", "permerror"),
        ("v=spf1 include:twice.example -all", "permerror"),
        ("v=spf1 ipv4:192.0.2.1 -all", "permerror"),
        ("v=spf1 ip4:192.0.2.300 -all", "permerror"),
        ("v=spf1 include:silent.example -all", "temperror"),
        ("v=spf10 +all", "none"),
    ],
)
def test_what_a_record_says_of_our_address(record: str, result: str) -> None:
    assert evaluate(record).result == result


@pytest.mark.parametrize(
    ("record", "result"),
    [
        ("v=spf1 ip6:2001:db8::/32 -all", "pass"),
        ("v=spf1 ip4:192.0.2.0/24 -all", "fail"),
        ("v=spf1 a:mail.example//64 -all", "pass"),
        ("v=spf1 a:mail.example/24 -all", "fail"),
    ],
)
def test_the_families_do_not_mix(record: str, result: str) -> None:
    assert evaluate(record, "2001:db8::1").result == result


def test_the_eleventh_question_is_one_too_many() -> None:
    """And a record that asks itself for ever ends there too."""
    ten = " ".join(["a:other.example"] * 10)
    assert evaluate(f"v=spf1 {ten} ip4:{HERE} -all").result == "pass"
    assert evaluate(f"v=spf1 {ten} a ip4:{HERE} -all").result == "permerror"
    assert evaluate("v=spf1 include:example.com").result == "permerror"
    assert evaluate("v=spf1 redirect=example.com").lookups == spf.MOST_LOOKUPS + 1
