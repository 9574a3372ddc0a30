"""Who unsubscribes leaves one list, or the bulk mail of one address, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postmeter.mail.message import Field
from postmeter.mail.scope import as_mail_has_it, canonical, from_domain, scope, shown


def fields(*values: tuple[str, str]) -> list[Field]:
    return [Field(name.encode(), value.encode()) for name, value in values]


FROM = ("From", " Shop <News@Shop.Example>")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ([FROM], "from:news@shop.example"),
        ([FROM, ("List-Id", " Weekly <Weekly.Shop.Example>")], "list:shop.example/weekly.shop.example"),
        ([FROM, ("list-id", "<newsletter>")], "list:shop.example/newsletter"),
        ([FROM, ("LIST-ID", ' "a <b>"\n <weekly.shop.example> \n ')], "list:shop.example/weekly.shop.example"),
        ([FROM, ("List-Id", " <a/b.shop.example>")], "list:shop.example/a/b.shop.example"),
        # What names no list leaves the address.
        ([FROM, ("List-Id", "")], "from:news@shop.example"),
        ([FROM, ("List-Id", " weekly.shop.example")], "from:news@shop.example"),
        ([FROM, ("List-Id", " <>")], "from:news@shop.example"),
        ([FROM, ("List-Id", " <a b>")], "from:news@shop.example"),
        ([FROM, ("List-Id", " <a@b>")], "from:news@shop.example"),
        ([FROM, ("List-Id", " <a> <b> c")], "from:news@shop.example"),
        ([FROM, ("List-Id", " <\u00e4>")], "from:news@shop.example"),
        ([FROM, ("List-Id", f" <{'x' * 256}>")], "from:news@shop.example"),
        ([FROM, ("List-Id", " <a>"), ("List-Id", " <b>")], "from:news@shop.example"),
        ([("From", "J\u00f6rg <j\u00f6rg@b\u00fccher.example>")], "from:j\u00f6rg@xn--bcher-kva.example"),
        # No author, several, or one in doubt: nobody knows what is left.
        ([], ""),
        ([("List-Id", "<a>")], ""),
        ([("From", "a@a.example, b@b.example"), ("List-Id", "<a>")], ""),
        ([FROM, FROM], ""),
        ([("From", "nobody")], ""),
    ],
)
def test_the_scope_of_a_message(header: list[tuple[str, str]], expected: str) -> None:
    assert scope(fields(*header)) == expected


def test_lists_of_one_name_under_two_domains_are_two_lists() -> None:
    other = ("From", "x@other.example")
    assert scope(fields(FROM, ("List-Id", "<news>"))) != scope(fields(other, ("List-Id", "<news>")))


@pytest.mark.parametrize(
    ("text", "domain", "name"),
    [
        ("from:news@shop.example", "shop.example", "news@shop.example"),
        ("list:shop.example/weekly.shop.example", "shop.example", "weekly.shop.example"),
        ("list:shop.example/shop.example", "shop.example", "shop.example"),
        ("list:shop.example/newsletter", "shop.example", "newsletter (shop.example)"),
        ("list:shop.example/weekly.bookshop.example", "shop.example", "weekly.bookshop.example (shop.example)"),
        ("list:shop.example/a/b.shop.example", "shop.example", "a/b.shop.example"),
        ("from:a@b@shop.example", "shop.example", "a@b@shop.example"),
    ],
)
def test_how_a_scope_is_told(text: str, domain: str, name: str) -> None:
    assert (from_domain(text), shown(text)) == (domain, name)


@example("A <u\u0308.x@u\u0308.example>".encode(), b"")
@example(b"a@b/c.example", b"<x/y>")
@example(b'"<a@b>"@c.example', b"")
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_header_has_a_scope_or_none(author: bytes, named: bytes) -> None:
    found = scope([Field(b"From", author), Field(b"List-Id", named)])
    assert found == "" or (found.startswith(("from:", "list:")) and found == found.lower() and from_domain(found))
    assert as_mail_has_it(found) == found


@pytest.mark.parametrize(
    "spelling",
    [
        "Odd.One@Example.NET.",
        '"odd.one"@example.net',
        '"odd\\.one"@example.net',
        '"odd".one@example.net',
        "odd.one(of them)@example.net",
        "@relay.example,@other.example:odd.one@example.net",
        "<odd.one@example.net>",
    ],
)
def test_an_address_is_the_same_whatever_a_client_puts_around_it(spelling: str) -> None:
    """Postfix delivers all of them to one mailbox."""
    assert canonical(spelling) == "odd.one@example.net"


@pytest.mark.parametrize(
    "other", ['"\\"odd.one\\""@example.net', '"<odd.one@example.net>"@example.org', '"odd.one@example.net']
)
def test_marks_that_are_part_of_a_name_are_nobody_elses_name(other: str) -> None:
    assert canonical(other) != "odd.one@example.net"


@given(st.text(alphabet='ab@.:,"\\()<> ', max_size=30))
@example("@<.")
@example("<@a>.")
def test_the_one_spelling_stays_as_it_is(mailbox: str) -> None:
    """What was compared once is compared again, on this host and on others."""
    assert canonical(canonical(mailbox)) == canonical(mailbox)
