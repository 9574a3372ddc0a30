"""What a reader sees and where his click leads, in Debian's Chromium: the same as before anything was tracked.

Only in `make all`. Newsletters and the HTML of other people's mail are shown to the browser as they were and as they
are sent, in their own charset and without a network; and each tracked link is followed over HTTP through the real
`postmeter web`.
"""

from __future__ import annotations

import base64
import email
import json
from collections.abc import Iterator
from email.message import Message as Parsed
from http.client import HTTPConnection
from pathlib import Path

import pytest

from postmeter.mail import reading
from postmeter.tracking.answers import IMAGE
from tests import corpora
from tests.lab import clicks
from tests.lab.chromium import Answer, Chromium
from tests.link_oracle import BASE
from tests.session.test_tracking_corpora import EVERYTHING, LINKS, rewrite

NEWSLETTER = Path(__file__).parents[1] / "lab" / "newsletter.eml"
KINDS = ("text/html", "text/x-amp-html")
HREFS = (Path(__file__).parents[1] / "lab" / "hrefs.js").read_text()
PICTURE = Answer("image/gif", IMAGE.page)

ODD = [
    "http://Example.COM", "HTTP://example.com:80/a/../b/./c", "https://example.com/a b", " https://example.com/x ",
    "https://example.com/&amp;&lt;&notit;&amp=1", "https://example.com/?a=1&copy=2&reg;&#x26;&#38;&#0;",
    "https://example.com/\u00e4?q=\u00e4#\u00e4", "https://example.com/?q=\u65e5\u672c", "ht\ttps://exa\nmple.com/",
    "https://ex\u00e4mple.com/", "https://example.com\\a\\b", "https:example.com", "https:/example.com",
    "//example.com/x", "/rooted?x=1", "path/./to/../it", "?query=1", "#fragment", "../up",
    "https://user:pw@example.com/", "https://[::1]/x", "https://1.2.3/", "https://example.com/%zz%41",
    "https://example.com/a|b^c`d{e}", "https://example.com/'x'", "https://example.com/#a b&quot;c",
    "https://example.com/?a'b&quot;c&lt;d", "mailto:a@example.com", "&#104;ttp://example.com/",
    "https://example.com/&ZeroWidthSpace;x", "https://example.com./", "https://example.com:443/",
    "https://example.com:99999/", "https://%65xample.com/", "https://example.com/?&#xE4;",
    "https://example.com/&bsol;x", "javascript:void(0)",
]  # fmt: skip
BASES = ["", "http://base.example/deep/page.html?q#f", "HTTPS://Base.Example:443", "/relative/", "mailto:x"]
CHARSETS = ["utf-8", "iso-8859-1", "windows-1252", "iso-2022-jp", "utf-16le", "us-ascii"]


@pytest.fixture(scope="module")
def chromium(needs_chromium: None) -> Iterator[Chromium]:
    with Chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def web(needs_chromium: None) -> Iterator[HTTPConnection]:
    with clicks.open_server() as connection:
        yield connection


def samples() -> list[bytes]:
    """Our newsletter, and every layout and a fixed sample of the messages that nobody here wrote."""
    corpora.need()
    found = [each.raw() for each in corpora.messages() if each.corpus == "html-mailchimp-blueprints"]
    found += [each.raw() for each in corpora.sample(60) if each.corpus != "html-mailchimp-blueprints"]
    return [reading.crlf(NEWSLETTER.read_bytes()), *found]


def pages(raw: bytes) -> list[Answer]:
    """The HTML of a message as a program would hand it to a browser."""
    return [_page(part) for part in email.message_from_bytes(raw).walk() if part.get_content_type() in KINDS]


def _page(part: Parsed) -> Answer:
    body = part.get_payload(decode=True)
    assert isinstance(body, bytes)
    charset = part.get_content_charset("")
    return Answer(f"text/html; charset={charset}" if charset else "text/html", body)


def test_pages_look_the_same(chromium: Chromium) -> None:
    """Pixel for pixel: with links; with the image and the hidden link too, whether the image is loaded or not.

    Nothing but that image is asked for which was not before.
    """
    seen = asked = 0
    for raw in samples():
        before, linked, _ = rewrite(raw, LINKS)
        _, everything, _ = rewrite(raw, EVERYTHING)
        for old, new, most in zip(pages(before), pages(linked), pages(everything), strict=True):
            if old == new == most:
                continue
            was = chromium.show(old, picture=True)
            assert chromium.show(new, picture=True) == was
            found = chromium.show(most, picture=True)
            ours = {url for url in found.asked if url.startswith(f"{BASE}/o/")}
            assert found.picture == was.picture
            assert found.asked - ours == was.asked
            assert chromium.show(most, others=dict.fromkeys(ours, PICTURE), picture=True).picture == was.picture
            seen, asked = seen + 1, asked + len(ours)
    assert seen > 60
    assert asked > 40


@pytest.mark.parametrize(
    "page",
    [
        "<html><table><td>%s</p>",  # a paragraph of no height is the last thing in a cell that does not end
        "<html><p>%s<p><b><table><td>x",
        "<!DOCTYPE html><body style='display:flex;gap:40px;flex-direction:column'><p>%s<p>two</p>",
        "<!DOCTYPE html><body style='display:grid;gap:40px'><p>%s<p>two</p>",
        "<!DOCTYPE html><html style='height:100%%'><body style='height:100%%;margin:0'><p>%s<p>two</p>",
        "<!DOCTYPE html><body style='position:relative;overflow:auto'><p>%s<p>two</p>",
        "<!DOCTYPE html><html dir=rtl><body><p>%s<p>two</p>",
        "<!DOCTYPE html><body style='column-count:2'><p>%s<p>two</p>",
        "<!DOCTYPE html><html style='writing-mode:vertical-rl'><body><p>%s<p>two</p>",
        "<!DOCTYPE html><style>img{display:block;width:100%%;height:90px;border:5px solid;margin:30px}</style>%s<p>two",
    ],
)
def test_no_page_is_pushed_apart(chromium: Chromium, page: str) -> None:
    """Not where its height hangs on what comes last, either: margins in quirks mode, gaps between boxes."""
    raw = f"Content-Type: text/html\r\n\r\n{page % '<img width=9 height=2000>'}".encode()
    (was,), (now,) = (pages(each) for each in rewrite(raw)[:2])
    assert was != now
    assert chromium.show(now, picture=True).picture == chromium.show(was, picture=True).picture


def test_a_difference_would_be_seen(chromium: Chromium) -> None:
    """One word more at the end of a page makes another picture."""
    (page,) = pages(reading.crlf(NEWSLETTER.read_bytes()))
    other = Answer(page.kind, page.body.replace(b"</body>", b"!</body>"))
    assert other != page
    assert chromium.show(page, picture=True).picture != chromium.show(other, picture=True).picture


def test_every_tracked_link_leads_where_the_browser_went_before(chromium: Chromium, web: HTTPConnection) -> None:
    """All links of all samples, those under conditions for Outlook too."""
    assert sum(follow(raw, chromium, web) for raw in samples()) > 100


@pytest.mark.parametrize("charset", CHARSETS)
@pytest.mark.parametrize("base", BASES)
def test_odd_links_lead_where_the_browser_went_before(
    base: str, charset: str, chromium: Chromium, web: HTTPConnection
) -> None:
    """What people write into `href`, in charsets that decide what a query means, relative to a `base`."""
    links = "".join(f'<a href="{value}">x</a><A HREF=\'{value}\'>x</A>\r\n' for value in ODD if "'" not in value)
    page = f'<html><head><base href="{base}"></head><body>{links}</body></html>'
    body = base64.encodebytes(page.encode(charset, "xmlcharrefreplace")).replace(b"\n", b"\r\n")
    head = f"Content-Type: text/html; charset={charset}\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    assert follow(head.encode() + body, chromium, web) > 10


def follow(raw: bytes, chromium: Chromium, web: HTTPConnection) -> int:
    """How many links of a message are tracked, when each leads where it led, and nothing else leads elsewhere."""
    before, after, draft = rewrite(raw, LINKS)
    if not draft.facts.get("links"):
        return 0
    expected: list[str] = []
    reached: list[str] = []
    tracked: set[str] = set()
    for old, new in zip(pages(before), pages(after), strict=True):
        was, now = (chromium.show(page, script=HREFS).value for page in (old, new))
        assert len(was) == len(now)
        for one, other in zip(was, now, strict=True):
            if one != other:
                tracked.add(other)
                expected.append(one)
                reached.append(clicks.target(other, web))
    assert normal(reached, chromium) == normal(expected, chromium)
    assert len(tracked) == draft.facts["links"]
    return len(tracked)


def normal(urls: list[str], chromium: Chromium) -> list[str]:
    """Each as the browser writes it; what is no URL for it stays."""
    script = f"{json.dumps(urls)}.map(url => {{ try {{ return new URL(url).href }} catch {{ return url }} }})"
    found = chromium.show(Answer("text/html", b""), script=script).value
    assert isinstance(found, list)
    return found
