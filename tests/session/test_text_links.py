"""Links of plain text, followed over HTTP: each leads where a reader's program would have led before.

The judge finds links as GitHub's extended autolinks are defined (github.github.com/gfm, section 6.9) in text that it
joins itself (RFC 3676 section 4), and shares no code with what rewrites; the answers are those of a real `postmeter
web`. With POSTMETER_ALL=1 every message of the corpora, else a sample.
"""

from __future__ import annotations

import base64
import binascii
import email
import re
import string
from collections.abc import Iterator
from email.message import Message as Parsed
from http.client import HTTPConnection

import pytest

from postmeter.config.schema import Tracking
from tests import corpora
from tests.lab import clicks
from tests.link_oracle import BASE
from tests.session.test_tracking_corpora import MESSAGES, rewrite

TEXTS = Tracking(url=BASE, mail="all", skip_links=(), links="html+text")
_START = re.compile(r"(?<![A-Za-z0-9])https?://[^\s<]+", re.IGNORECASE)
_TRAILING = "?!.,:*_~'\""
_MORE = "]>;"  # by that definition of the URL, and not by others: such a click must not be lost, that is all

ODD = [
    "See http://example.com/a, (https://example.com/b_(c)) and [http://example.com/d].",
    "<http://example.com/a> <URL:http://example.com/b> \"http://example.com/c\" 'http://example.com/d'",
    "HTTP://EXAMPLE.com:80/A?b=c&d=e#f; http://example.com/?q=a&copy;=1 http://example.com/x&amp;y=1;",
    "http://example.com http://example.com/, http://user:pw@example.com/ http://[::1]/x http://1.2.3/",
    "*http://example.com/* _http://example.com/_ ~http://example.com/~ |http://example.com/|",
    "http://example.com/a'b http://example.com/a\"b http://example.com/a\"b\" http://example.com/(a",
    "http://example.com/a{b} http://example.com/a|b http://example.com/a^b http://example.com/a`b` http://example.com/a\\b",
    "[text](http://example.com/a) [1]: http://example.com/b \u00abhttp://example.com/c\u00bb \u201chttp://example.com/d\u201d",
    "http://example.com/\u00e4 http://ex\u00e4mple.com/ \u00e4http://example.com/b http://example.com/\u3002",
    "a=http://example.com/?u=http://other.example/ http://example.com/#a#b http://example.com/%zz",
    "http://example.com/*a*b http://example.com/a_ http://example.com/a-- http://example.com/a... http://example.com/a?!",
    "http://example.com/a;b http://example.com/a; http://example.com/a) http://example.com/a)) (http://example.com/a)).",
    "http://a.example/1,http://b.example/2;http://c.example/3 http://a.example/http://b.example/",
    "> http://example.com/quoted\r\n >http://example.com/q\r\n>>http://example.com/q",
    "A sentence goes on until http://example.com/long/er/than/the \r\nline and \r\nhttp://example.com/next \r\none",
    "\"http://example.com/a\"-- \"http://example.com/b\"\u2014 (\"http://example.com/c\")- \"http://example.com/d\"/",
    "-- not yet\r\n--\r\nhttp://example.com/a\r\n-- \r\nhttp://example.com/signature",
]
FORMS = ["", "; format=flowed", "; format=flowed; delsp=yes"]
CHARSETS = ["utf-8", "windows-1252", "iso-2022-jp", "utf-16le", "us-ascii"]
ENCODINGS = ["8bit", "quoted-printable", "base64"]


@pytest.fixture(scope="module")
def web() -> Iterator[HTTPConnection]:
    with clicks.open_server() as connection:
        yield connection


def follow(raw: bytes, web: HTTPConnection) -> int:
    """How many links of the texts of a message are tracked, when each leads where it led and the others stay."""
    before, after, draft = rewrite(raw, TEXTS)
    if not draft.facts.get("links"):
        return 0
    tracked = 0
    for old, new in zip(_texts(before), _texts(after), strict=True):
        was, now = links(old), links(new)
        assert len(was) == len(now), (was, now)
        for one, other in zip(was, now, strict=True):
            if one != other:
                assert clicks.target(other, web) == one.rstrip(_MORE), (one, other)
                tracked += 1
    return tracked


def _texts(raw: bytes) -> list[Parsed]:
    return [part for part in email.message_from_bytes(raw).walk() if part.get_content_type() == "text/plain"]


def links(part: Parsed) -> list[str]:
    """What a program that shows this part makes links of."""
    octets = part.get_payload(decode=True)
    assert isinstance(octets, bytes)
    try:
        text = octets.decode(part.get_content_charset("latin-1"))
    except (LookupError, UnicodeDecodeError):
        text = octets.decode("latin-1")
    flowed = str(part.get_param("format", "")).lower() == "flowed"
    delsp = str(part.get_param("delsp", "")).lower() == "yes"
    shown = _joined(text, delsp=delsp) if flowed else text
    return [_ended(found[0]) for found in _START.finditer(shown)]


def _joined(text: str, *, delsp: bool) -> str:
    """The paragraphs of a flowed text; the signature's line is fixed, and quoted lines stay by themselves."""
    shown = ""
    for line in text.splitlines():
        body = line.removeprefix(" ")
        if line.startswith(">") or line == "-- " or not body.endswith(" "):
            shown += body + "\n"
        else:
            shown += body.removesuffix(" ") if delsp else body
    return shown


def _ended(url: str) -> str:
    """Without trailing punctuation, unpaired brackets and what looks like a character reference."""
    while True:
        if url[-1] in _TRAILING or (url[-1] == ")" and url.count(")") > url.count("(")):
            url = url[:-1]
        elif reference := re.search(r"&[A-Za-z0-9]+;$", url):
            url = url[: reference.start()]
        else:
            return url


def test_a_mark_behind_a_quoted_url_costs_no_click(web: HTTPConnection) -> None:
    """Programs that take it for the URL's end, and the quotation mark before it, get where the others get."""
    tracked = 0
    for mark in f"{string.punctuation}\u2014\u2026\u201d\u3002":
        head = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        before, after, _ = rewrite(head + f'"http://example.com/a"{mark} and on'.encode(), TEXTS)
        if before != after:
            (link,) = links(_texts(after)[0])
            assert clicks.target(link, web) == "http://example.com/a"
            tracked += 1
    assert tracked > 15


def test_the_judge_finds_links_as_its_definition_shows() -> None:
    """Examples of section 6.9."""
    for text, found in {
        "Visit http://commonmark.org/help for more": "http://commonmark.org/help",
        "(http://google.com/search?q=Markup+(business)))": "http://google.com/search?q=Markup+(business)",
        "http://google.com/search?q=commonmark&hl;": "http://google.com/search?q=commonmark",
        "http://commonmark.org/he<lp": "http://commonmark.org/he",
        "Visit https://commonmark.org/a.b.": "https://commonmark.org/a.b",
    }.items():
        part = email.message_from_string(f"Content-Type: text/plain\n\n{text}")
        assert links(part) == [found]


def test_links_of_texts_nobody_here_wrote_lead_where_they_led(web: HTTPConnection) -> None:
    corpora.need()
    assert sum(follow(sample.raw(), web) for sample in MESSAGES) > 10


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("charset", CHARSETS)
@pytest.mark.parametrize("form", FORMS)
def test_odd_links_of_texts_lead_where_they_led(form: str, charset: str, encoding: str, web: HTTPConnection) -> None:
    """What people write around URLs, in every charset and transfer encoding, flowed or not."""
    text = "\r\n".join(ODD).encode(charset, "replace")
    head = f"Content-Type: text/plain; charset={charset}{form}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    count = follow(head.encode() + _encoded(text, encoding), web)
    assert count > 10 or (charset == "utf-16le" and encoding == "8bit")  # line ends are octets there


def _encoded(text: bytes, encoding: str) -> bytes:
    if encoding == "base64":
        return base64.encodebytes(text).replace(b"\n", b"\r\n")
    if encoding == "quoted-printable":
        return binascii.b2a_qp(text, istext=False).replace(b"=\n", b"=\r\n")
    return text
