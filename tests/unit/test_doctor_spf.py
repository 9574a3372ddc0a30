"""SPF of an address, worked out as RFC 7208 has it, on zones that are dictionaries."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.doctor import spf, spfterms
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
    ("1.2.0.192.in-addr.list.example.com", "A"): ("127.0.0.2",),
    ("com.helo.example", "TXT"): ("v=spf1 ip4:192.0.2.1 -all",),
    ("some.example", "TXT"): ("v=spf1 exists:%{l}.x -all",),
    ("1.2.0.192.in-addr.arpa", "PTR"): ("forged.ample.com", "example.com"),
    ("dead.example", "MX"): ("10 no1.example", "10 no2.example", "10 no3.example"),
    ("null.example", "MX"): ("0 ",),
    ("many.example", "MX"): tuple(f"10 mx{number}.example" for number in range(11)),
}


def evaluate(record: str, address: str = HERE) -> Sender:
    zone: Mapping[tuple[str, str], tuple[str, ...]] = {**ZONE, ("example.com", "TXT"): ("unrelated", record)}

    def ask(name: str, kind: str) -> Answer:
        if name == "silent.example":
            return Answer(silent="nobody answers")
        return Answer(zone.get((name, kind), ()))

    return spf.evaluate("example.com", address, ask, helo="helo.example")


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
        # Macros: those that no message changes are put in (RFC 7208 section 7)
        ("v=spf1 exists:%{ir}.%{v}.list.%{d} -all", "pass"),
        ("v=spf1 a:%{d2}.%{o1r}%%.x ip4:192.0.2.1 -all", "pass"),
        ("v=spf1 include:%{d1}.%{h} -all", "pass"),
        ("v=spf1 redirect=inner.%{d-}", "permerror"),
        ("v=spf1 exists:%{l}.users.example.com -all", "depends"),
        ("v=spf1 exists:%{l}.users.example.com ip4:192.0.2.1 -all", "pass"),
        ("v=spf1 -exists:%{s}.spam.example ip4:192.0.2.1 -all", "depends"),
        ("v=spf1 include:some.example ip4:192.0.2.1 -all", "pass"),
        ("v=spf1 -include:some.example ip4:192.0.2.1 -all", "depends"),
        ("v=spf1 redirect=%{l}.example.com", "depends"),
        ("v=spf1 exists:%{p}.example -all", "depends"),
        ("v=spf1 exists:%{x}.example -all", "permerror"),
        ("v=spf1 exists:%{d0}.example -all", "permerror"),
        ("v=spf1 exists:100%.example -all", "permerror"),
        # ptr (section 5.5)
        ("v=spf1 ptr -all", "pass"),
        ("v=spf1 ptr:EXAMPLE.com -all", "pass"),
        ("v=spf1 ptr:ample.com -all", "fail"),
        # Two questions may find nothing, a third one not (section 4.6.4)
        ("v=spf1 a:no1.example exists:no2.example -all", "fail"),
        ("v=spf1 a:no1.example exists:no2.example mx:no3.example -all", "permerror"),
        ("v=spf1 mx:dead.example -all", "permerror"),
        ("v=spf1 mx:null.example ip4:192.0.2.1 -all", "pass"),
        ("v=spf1 mx:many.example ip4:192.0.2.1 -all", "permerror"),
        # A mistake anywhere spoils the whole (section 4.6)
        ("v=spf1 ip4:192.0.2.1 ipv6:x -all", "permerror"),
        ("v=spf1 ip4:192.0.2.1 -all redirect=a redirect=b", "permerror"),
        ("v=spf1 ip4:192.0.2.1 include: -all", "permerror"),
        ("v=spf1 ip4:192.0.2.1 all:x", "permerror"),
        ("v=spf1 ip4:192.0.2.1 a/33", "permerror"),
        ("v=spf1 ip4:192.0.2.1 exists:x/24", "permerror"),
        ("v=spf1 ip4:192.0.2.1 ip4:192.0.2.0//24", "permerror"),
        ("v=spf1 ip4:192.0.2.1 redirect=", "permerror"),
        ("v=spf1 ip4:192.0.2.1 exp=-all", "permerror"),
        ("v=spf1 ip4:192.0.2.1 exp=%{r}.example.com", "permerror"),
        ("v=spf1 ip4:192.0.2.1 foo=%abc", "permerror"),
        ("v=spf1 ip4:192.0.2.1 ip4:192.0.2.0/032", "permerror"),
        ("v=spf1 ip4:192.0.2.1 a:museum", "permerror"),
        ("v=spf1 ip4:192.0.2.1 a:abc.123", "permerror"),
        ("v=spf1 ip4:192.0.2.1 a:example.-com", "permerror"),
        ("v=spf1 ip4:192.0.2.1 a:mail.example:8080", "permerror"),
        ("v=spf1 ip4:192.0.2.1\n -all", "permerror"),
        ("v=spf1 ip4:192.0.2.1 a:m\u00e4il.example", "permerror"),
        ("v=spf1 ip4:192.0.2.1 a:mail.example. a:foo-.bar.xn--p1ai %{d}=", "permerror"),
        ("v=spf1 ip4:192.0.2.1 a:mail.example. a:foo.xn--p1ai a:%{d}", "pass"),
        ("v=spf1 redirect=nothing.example", "permerror"),
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


def test_an_ipv4_address_in_clothes_of_ipv6_is_one_of_ipv4() -> None:
    assert evaluate("v=spf1 ip4:192.0.2.1 -all", "::ffff:192.0.2.1").result == "pass"
    assert evaluate("v=spf1 ip6:::ffff:0:0/96 -all", "::ffff:192.0.2.1").result == "fail"


def test_the_eleventh_question_is_one_too_many() -> None:
    """And a record that asks itself for ever ends there too."""
    ten = " ".join(["a:mail.example"] * 10)
    assert evaluate(f"v=spf1 {ten} ip4:{HERE} -all").result == "pass"
    assert evaluate(f"v=spf1 {ten} a ip4:{HERE} -all").result == "permerror"
    assert evaluate("v=spf1 include:example.com").result == "permerror"
    assert evaluate("v=spf1 redirect=example.com").lookups == spf.MOST_LOOKUPS + 1


@pytest.mark.parametrize(
    ("record", "fix"),
    [
        ("v=spf1 include:nothing.example -all", "take include:nothing.example out"),
        ("v=spf1 redirect=nothing.example", "take redirect=nothing.example out"),
        ("v=spf1 include:twice.example -all", "into one record at twice.example"),
        ("v=spf1 ipv4:192.0.2.1 -all", "mend that word of the record at example.com"),
        ("v=spf1 a:no1.example a:no2.example a:no3.example -all", "take 'a:no3.example'"),
        ("v=spf1 include:example.com", "name networks"),
    ],
)
def test_what_receivers_cannot_use_is_told_with_what_mends_it(record: str, fix: str) -> None:
    assert fix in evaluate(record).fix


def test_what_depends_on_the_message_is_named() -> None:
    assert evaluate("v=spf1 exists:%{l}.users.example.com -all").why == "exists:%{l}.users.example.com"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        # The examples of RFC 7208 section 7.4, but for those with a local part.
        ("%{o}", "email.example.com"),
        ("%{d}", "email.example.com"),
        ("%{d4}", "email.example.com"),
        ("%{d3}", "email.example.com"),
        ("%{d2}", "example.com"),
        ("%{d1}", "com"),
        ("%{dr}", "com.example.email"),
        ("%{d2r}", "example.email"),
        ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
        ("%%%_%-", "% %20"),
        ("%{l}", None),
        ("%{s}", None),
    ],
)
def test_macros_as_the_rfc_shows_them(text: str, name: str | None) -> None:
    known = {"o": "email.example.com", "d": "email.example.com", "i": "192.0.2.3", "v": "in-addr"}
    assert spfterms.expand(text, known) == name


def test_a_name_that_is_too_long_loses_its_first_labels() -> None:
    name = spfterms.expand("%{d}.example", {"d": ".".join(["a" * 60] * 5)})
    assert name is not None
    assert (len(name) <= 253, name.endswith(".example"), set(name.split(".")[0])) == (True, True, {"a"})


@given(st.text("v=spf1 %{}ialr3.:/+-?~mxdep", max_size=60))
def test_nothing_in_a_record_makes_it_raise(noise: str) -> None:
    assert evaluate(f"v=spf1 {noise}").result in {*spfterms.RESULTS.values(), "permerror", "none", "depends"}
