"""URLs in plain text: which are seen, and which of them by all programs alike."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postmeter.tracking.text import urls
from tests.growth import growth


def clear(text: str, *, delsp: bool = False) -> list[str]:
    octets = text.encode()
    return [octets[one.start : one.end].decode() for one in urls(octets, delsp=delsp) if one.clear]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see http://example.com/a, and HTTPS://example.net.", ["http://example.com/a", "HTTPS://example.net"]),
        ("(http://example.com/a) [http://example.com/b]!", ["http://example.com/a", "http://example.com/b"]),
        ("http://a.example/X_(Y) (http://b.example/X_(Y))", ["http://a.example/X_(Y)", "http://b.example/X_(Y)"]),
        ("<http://example.com/a> <URL:http://example.com/b>", ["http://example.com/a", "http://example.com/b"]),
        ('"http://example.com/a" [text](http://example.com/b)', ["http://example.com/a", "http://example.com/b"]),
        ("Link:\thttp://example.com/?a=b&c=d#e\r\n", ["http://example.com/?a=b&c=d#e"]),
        ("http://example.com/a?!...\n", ["http://example.com/a"]),
        ("http://example.com/a; http://example.com/?a&b=c;", ["http://example.com/a", "http://example.com/?a&b=c"]),
        (" http://example.com/stuffed \r\n", ["http://example.com/stuffed"]),
        ("http://example.com/1 \r\nhttp://example.com/2", ["http://example.com/1", "http://example.com/2"]),
    ],
)
def test_urls_end_where_programs_end_them(text: str, found: list[str]) -> None:
    assert clear(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "> http://example.com/quoted",
        " > http://example.com/quoted",
        ">> http://example.com/quoted",
        "bye\r\n-- \r\nhttp://example.com/signature",
        "www.example.com ftp://example.com mailto:a@example.com",
        "xhttp://example.com/ and.http://example.com/",
        "*http://example.com/* _http://example.com/_ ~http://example.com/~",
        "<http://example.com/a\r\nb>",
        "http://example.com/ä http://example.com/a。",
        "http://example.com/" + "x" * 2000,
        "http://example.com/a\\",
        "<http://example.com/a.>",
        'http://example.com/a"b',
        'http://example.com/a."http://example.com/b',
        "http://example.com/a&nbsp; http://example.com/?a=1&copy;, http://example.com/?a&b;",
        '<a href="http://example.com/a">http://example.com/b',
        "http://example.com/a>http://example.com/b",
        "http://example.com/a_ http://example.com/a- http://example.com/a~",
        "(http://example.com/a)b http://example.com/a),http://example.com/b",
        "http://example.com/(a http://example.com/)a(b",
    ],
)
def test_what_programs_could_read_differently_is_not_clear(text: str) -> None:
    assert clear(text) == []


def test_a_url_that_goes_on_in_the_next_line_is_not_clear() -> None:
    """RFC 3676 section 4.5: with DelSp the space before a break is not there."""
    assert clear("http://example.com/a \r\nb", delsp=True) == []
    assert clear("http://example.com/a and \r\nb", delsp=True) == ["http://example.com/a"]
    assert clear("http://example.com/a\r\nb", delsp=True) == ["http://example.com/a"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("http://a.example/web/ \r\nhttp://b.example/", []),
        ("http://a.example/web/ \r\n;(http://b.example/", []),
        ("(see \r\n http://b.example/)", []),  # stuffed: the space in front of it is not there, either
        ("http://a.example/ \r\n; http://b.example/", ["http://b.example/"]),
        ("see  \r\nhttp://b.example/", ["http://b.example/"]),
        ("see \r\n  http://b.example/", ["http://b.example/"]),
        ("see\r\nhttp://b.example/", ["http://b.example/"]),
        ("> quoted \r\nhttp://b.example/", ["http://b.example/"]),  # what is not quoted goes on with nothing quoted
    ],
)
def test_a_url_that_may_go_on_from_the_line_before_is_not_clear(text: str, found: list[str]) -> None:
    """With DelSp; a URL within another one is part of it."""
    assert clear(text, delsp=True) == found
    assert "http://b.example/" in clear(text)


def test_two_dashes_without_a_space_are_no_signature() -> None:
    assert clear("--\nhttp://example.com/a\n --\n") == ["http://example.com/a"]


def test_what_is_said_of_a_url_is_on_its_line_or_above_it_where_it_stands_alone() -> None:
    alone, beside = urls(b"To unsubscribe:\r\n\r\n  http://a.example/\r\nnews http://b.example/ here")
    assert alone.around == b"To unsubscribe:"
    assert beside.around == b"news  here"


def test_brackets_at_the_end_of_urls_cost_no_more_than_reading_them() -> None:
    """To count them anew for each took sixteen times as long for four times the brackets."""

    def read(brackets: int) -> None:
        text = (b"http://a.example/" + b")" * brackets + b"\r\n") * 10
        assert sum(found.end - found.start for found in urls(text)) == 10 * len("http://a.example/")

    assert growth(read, 475, 1900) < 10


PIECES = ["http://", "a.example/", "x", ".", ")", "(", "<", ">", " ", "\r\n", "ä", "-- ", "*", ","]


@given(st.lists(st.sampled_from(PIECES)))
@example(["x", " ", "http://", "a.example/", "x", ".", " ", "<", "http://", "a.example/", ">", "\r\n", "ä", "http://"])
def test_any_text_is_read_in_order(pieces: list[str]) -> None:
    """What is clear is ASCII without white space, begins with its scheme, and none overlaps another."""
    octets = "".join(pieces).encode()
    at = 0
    for one in urls(octets):
        assert max(at, one.line) <= one.start < one.end <= len(octets)
        url = octets[one.start : one.end]
        if one.clear:
            assert url.startswith(b"http://")
            assert url.isascii()
            assert not url.split(None, 1)[1:]
        at = one.end
