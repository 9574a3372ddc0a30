"""From addresses: what is written plainly is read, what could be read in two ways is not read at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.mail import address
from postmeter.mail.message import Field

ATEXT = "abcXYZ019!#$%&'*+-/=?^_`{|}~"
GAPS = st.sampled_from(["", " ", "\t", "\n ", " (a comment) ", "(nested (one) \\) here)", " (a@evil.example)\n\t"])

words = st.text(ATEXT + "é漢", min_size=1, max_size=8)
domains = st.lists(st.text("abc019-é", min_size=1, max_size=6), min_size=1, max_size=4).map(".".join)
quoted = st.text('ab @<>,;:()."\\é', max_size=8).map(
    lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
)
plain = st.lists(words, min_size=1, max_size=3).map(".".join).filter(lambda text: "=?" not in text)  # no encoded words
locals_ = st.one_of(plain, quoted.filter(lambda text: "@" not in text))
specs = st.builds("{}@{}".format, locals_, st.one_of(domains, st.just("[192.0.2.1]"), st.just("[IPv6:2001:db8::1]")))
names = st.lists(st.one_of(words, quoted, st.just("=?utf-8?q?a=40evil.example?="), st.just("J.")), max_size=4)


@st.composite
def mailboxes(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A mailbox as it may be written, and the address in it."""
    spec = draw(specs)
    before, inside, behind = draw(GAPS), draw(GAPS), draw(GAPS)
    if draw(st.booleans()):
        return f"{before}{spec}{behind}", [spec]
    name = " ".join(draw(names))
    return f"{before}{name}{draw(GAPS)}<{inside}{spec}{behind}>{draw(GAPS)}", [spec]


@st.composite
def groups(draw: st.DrawFn) -> tuple[str, list[str]]:
    members = draw(st.lists(mailboxes(), max_size=3))
    text = ",".join(text for text, _ in members)
    return f"{draw(words)}{draw(GAPS)}:{text};{draw(GAPS)}", [spec for _, found in members for spec in found]


elements = st.lists(st.one_of(mailboxes(), groups()), min_size=1, max_size=4)


@given(elements)
def test_every_address_that_the_grammar_allows_is_read_as_it_was_written(built: list[tuple[str, list[str]]]) -> None:
    value = ",".join(text for text, _ in built).encode()
    assert address.mailboxes(value) == [spec for _, found in built for spec in found]


@given(st.binary(max_size=60))
def test_nothing_that_a_client_sends_raises(value: bytes) -> None:
    assert all("@" in found for found in address.mailboxes(value))


@given(elements, st.sampled_from([b'"', b"(", b"<", b">", b"@", b"\\", b")", b"\x00", b"]"]), st.integers(0, 1000))
def test_a_stray_mark_never_makes_another_domain(built: list[tuple[str, list[str]]], mark: bytes, at: int) -> None:
    """Either the list is in doubt, or the mark went into a name, a comment or a local part."""
    value = ",".join(text for text, _ in built).encode()
    at %= len(value) + 1
    domains = {spec.rpartition("@")[2] for _, found in built for spec in found}
    found = address.mailboxes(value[:at] + mark + value[at:])
    assert {spec.rpartition("@")[2] for spec in found} <= domains


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b' "a@evil.example" <b@good.example>', ["b@good.example"]),
        (b" <a@x.example>, <b@y.example>", ["a@x.example", "b@y.example"]),
        (b" =?utf-8?q?Ren=C3=A9_=40_Shop?= <b@good.example>", ["b@good.example"]),
        (b" Ren\xe9 (Latin-1, unencoded) <b@good.example>", ["b@good.example"]),
        (b" [The Shop] J. Q. Public\n <b@good.example>", ["b@good.example"]),
        (b" b@good.example (Bob)", ["b@good.example"]),
        (b" B@GOOD.Example.", ["B@GOOD.Example."]),
        (" b@bücher.example".encode(), ["b@bücher.example"]),
        (b" Sales: a@x.example, <b@x.example>;", ["a@x.example", "b@x.example"]),
        (b" b@good.example <b@good.example>", ["b@good.example"]),  # as scripts write it: both say the same
        (b" B@Good.example\n (Bob) <b@good.example>", ["b@good.example"]),
    ],
)
def test_what_real_mail_has_in_from(value: bytes, expected: list[str]) -> None:
    assert address.mailboxes(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b" undisclosed-sender:;",
        b" Mailer Daemon",
        b" a@evil.example <b@good.example>",  # which one is shown depends on the program
        b" a@good.example <b@good.example>",
        b" b@good.example b@good.example <b@good.example>",
        b" b@good.example, <b@good.example>, x <b@good.example",
        b" <a@evil.example> <b@good.example>",
        b" b@good.example <a@evil.example>, c@good.example",
        b" Public, John <b@good.example>",
        b' "a@evil.example <b@good.example>',  # the quote is never closed
        b" (a@evil.example <b@good.example>",
        b" <b@good.example",
        b" b@good.example>",
        b" <b@good.example> junk",
        b" <@evil.example:b@good.example>",  # a route (RFC 5322 4.4)
        b" b@good .example",
        b" b@good.example\r\revil",
        b" (\rFrom: a@evil.example\r) b@good.example",  # to some programs a bare CR ends the line
        b" b@good.example\x00evil",
        b" b@evil.example@good.example",
        b" b@",
        b" @good.example",
        b" b@good..example",
        b" b@\xff.example",  # neither ASCII nor UTF-8
        b" Sales: b@good.example",
        b" a: b: c@good.example;",
        b" Sales: a@good.example; b@good.example",  # behind a group only a comma may stand
        b" nobody:; b@good.example",
        b" nobody:; all: b@good.example;",
        b" =?utf-8?q?a=40evil.example=00?=@good.example",  # no encoded words there (RFC 2047 5), and programs show them
        b" Bob <=?UTF-8*en?B?YUBldmlsLmV4YW1wbGU=?=@good.example>",
        b' "=?utf-8?q?a=40evil.example?="@good.example',
        b" b@=?utf-8?q?evil.example=00?=.good.example",
        b" =?utf-8?q?a=40evil.example=00?x?=@good.example",  # some programs take a ? for text
        b" =?utf-8?q?a=40evil.example=00@x?=.good.example",
        b' "=?utf-8?q\\?a=40evil.example?="@good.example',
        b' "a@evil.example"@good.example',  # programs have taken the first @, or what is quoted, for the address
        b' "a@evil.example x"@good.example',
        b' Bob <"a@evil.example "@good.example>',
        b' "a\\@evil.example"@good.example',
    ],
)
def test_what_could_be_read_in_two_ways_is_not_read(value: bytes) -> None:
    assert address.mailboxes(value) == []


def test_all_from_fields_count_and_one_in_doubt_spoils_them() -> None:
    good, broken, other = (
        Field(b"FROM", b" a@x.example"),
        Field(b"From", b" a@x <b@y>"),
        Field(b"From", b" c@z.example"),
    )
    assert address.from_addresses([Field(b"To", b" t@t.example"), good]) == ["a@x.example"]
    assert address.from_addresses([good, other]) == ["a@x.example", "c@z.example"]
    assert address.from_addresses([good, broken]) == []
    assert address.from_addresses([good, Field(b"From", b" nobody:;")]) == []
    assert address.from_addresses([]) == []


def test_what_is_kept_of_senders_is_bounded_in_number_and_length() -> None:
    """Read like all else, and the same, however often it is asked for."""
    known = address._known.cache_info
    long, before = b" " + b"x" * 300 + b"@example.com", known().currsize
    assert address.mailboxes(long) == address.mailboxes(long) == [long.strip().decode()]
    assert known().currsize == before
    for number in range(2000):
        address.mailboxes(b" a%d@example.com" % number)
    assert known().currsize == known().maxsize == 1024
    address.mailboxes(b" a@example.com").append("b@example.com")
    assert address.mailboxes(b" a@example.com") == ["a@example.com"]
