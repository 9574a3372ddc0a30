"""The step that tracks links: which mail, which parts, what changes, what is counted."""

from __future__ import annotations

import base64
import binascii
import email
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter import metrics
from postmeter.config.load import loads
from postmeter.config.schema import Tracking
from postmeter.mail import reading
from postmeter.mail.apply import apply, undo
from postmeter.mail.draft import Draft, Wishes
from postmeter.mail.message import Envelope, Message, ReplaceBody
from postmeter.tracking import links, parts
from postmeter.tracking.bulk import CAMPAIGN_FIELDS, is_bulk
from postmeter.tracking.settings import Sections, effective
from tests.link_oracle import BASE, HOST, MINT, differences

LINK = '<a href="https://example.com/">Shop</a>'
HTML = "Content-Type: text/html; charset=utf-8"
REFERENCE = b"\1\2\3\4\5\6\7\x08"


def draft_of(
    raw: str | bytes, *, login: str = "", from_domain: str = "example.com", rcpt_to: tuple[bytes, ...] = ()
) -> Draft:
    fields, body = reading.read(raw.encode() if isinstance(raw, str) else raw)
    envelope = Envelope(b"news@example.com", rcpt_to=rcpt_to, login=login)
    return Draft(Message(envelope, fields, body, queue_id="4X", time=0.0, reference=REFERENCE), from_domain=from_domain)


def run(
    raw: str | bytes,
    *,
    login: str = "",
    from_domain: str = "example.com",
    rcpt_to: tuple[bytes, ...] = (),
    size_limit: int = 0,
    wishes: Wishes | None = None,
    **keys: Any,
) -> Draft:
    """The draft behind the step; every change is judged by other libraries and undone by its record on the way."""
    draft = draft_of(raw, login=login, from_domain=from_domain, rcpt_to=rcpt_to)
    draft.wishes = wishes or draft.wishes
    tracking = Tracking(**{"url": BASE, "mail": "all", **keys})
    links.step(tracking, MINT, size_limit=size_limit)(draft)
    before, after = apply(draft.message, ()), apply(draft.message, draft.changes)
    seen = differences(before, after)
    assert (seen.links, seen.images) == (draft.facts.get("links", 0), int(draft.facts.get("opens", False) is True))
    assert draft.body == after[len(after) - len(draft.body) :]
    for change in draft.changes:
        if isinstance(change, ReplaceBody):
            assert undo(change) == draft.message.body
    return draft


@pytest.mark.parametrize(("octets", "kept"), [(10, memoryview), (100_000, bytes)])
def test_the_record_keeps_a_body_only_where_most_of_it_was_written_anew(octets: int, kept: type) -> None:
    """A part that is less than half of it is copied: a view would keep the other parts too."""
    page = base64.encodebytes(b'<a href="https://shop.example.com/x">go</a>' + b"text " * 10_000).decode()
    html = f"Content-Type: text/html\nContent-Transfer-Encoding: base64\n\n{page}"
    draft = run(multipart("mixed", html, "Content-Type: application/pdf\n\n" + "word " * octets))
    [change] = [change for change in draft.changes if isinstance(change, ReplaceBody)]
    assert [type(span.old) for part in change.parts for span in part.spans] == [kept]


def skipped(draft: Draft) -> dict[str, int]:
    return {labels[0]: count for (name, labels), count in draft.figures.items() if name == "rewrite_skipped_total"}


def multipart(kind: str, *parts: str) -> str:
    lines = "".join(f"--b\r\n{part}\r\n" for part in parts)
    return f"Content-Type: multipart/{kind}; boundary=b\r\n\r\n{lines}--b--\r\n"


def test_links_are_numbered_over_the_parts_and_carry_the_message() -> None:
    page = f"{HTML}\r\n\r\n{LINK}<A HREF = 'http://example.net/?a=1&amp;b'>x</a><area href=http://example.org/y>"
    draft = run(multipart("mixed", page, "Content-Type: text/plain\r\n\r\nhttps://example.com/", page))
    assert draft.facts["links"] == 6
    assert draft.facts["parts"] == [{"path": path, "reason": "links", "count": 3} for path in ("1", "3")]
    assert draft.figures["links_rewritten_total", ()] == 6
    opened = [MINT.open_link(HOST, url.rpartition("/")[2]) for url in tracked(draft.body)]
    assert [(one.reference, one.link, one.recipient) for one in opened if one] == [
        (REFERENCE, number, b"") for number in range(1, 7)
    ]
    assert [one.target for one in opened if one][:3] == [
        "https://example.com/",
        "http://example.net/?a=1&b",
        "http://example.org/y",
    ]


PIECES = st.sampled_from(
    [
        LINK,
        "<A class=\"x\"\r\n HREF = 'http://example.net/?a=1&amp;b=2'>a</A>",
        "<area shape=rect href=http://example.org/y/?q=1>",
        "<a href=#x>no</a><a href='mailto:a@example.com'>no</a>",
        "words and = signs, ",
        "<p style='color: red' title=\"a > b\">",
        "\r\n",
        " \r\n",
        "\xe4\u20ac",
        "x" * 300,
        "<!-- <a href='http://no.example/'> -->",
        ".\r\n--b\r\n",
    ]
)
CODERS: dict[str, Callable[[bytes], bytes]] = {
    "7bit": bytes,
    "8bit": bytes,
    "quoted-printable": lambda page: binascii.b2a_qp(page, istext=True),
    "base64": lambda page: base64.encodebytes(page).replace(b"\n", b"\r\n"),
}


@given(st.lists(st.tuples(st.lists(PIECES, max_size=20).map("".join), st.sampled_from(sorted(CODERS))), max_size=3))
def test_decoded_parts_differ_only_in_href_values(pages: list[tuple[str, str]]) -> None:
    """Any page in any encoding, several in a message; `run` has the email package compare them."""
    parts = [
        f"{HTML}\r\nContent-Transfer-Encoding: {coding}\r\n\r\n".encode() + CODERS[coding](page.encode())
        for page, coding in pages
    ]
    body = b"".join(b"--boundary\r\n" + part + b"\r\n" for part in parts)
    draft = run(b"Content-Type: multipart/mixed; boundary=boundary\r\n\r\n" + body + b"--boundary--\r\nepilogue")
    number = sum(page.count("http") - page.count("no.example") for page, _ in pages)
    assert draft.facts.get("links", 0) == number
    assert draft.body.count(b"\r\n--boundary") == max(0, len(pages))


MESS = st.sampled_from(
    [
        LINK,
        "<a href=http://example.com/a clicktracking=off>",
        "<a href='https://example.com/?a=1&copy=2&amp;b'ses:no-track title=x>y</a>",
        "<a href=http://example.com/a data-pm-no-track/>",
        "<a clicktracking='off'href=http://example.com/a clicktracking=\"OFF\"id=b>z</a>",
        "<AREA\r\nHREF = 'http://example.com/&#x41;'>",
        "<!--[if mso]><v:rect href='http://example.com/v'><a href=\"http://example.com/w\">x</a></v:rect><![endif]-->",
        "<!--[if !mso]><!-->",
        "<!--<![endif]-->",
        "<v:shape href=http://example.com/s>",
        "<base href='http://example.org/d/'>",
        "<a href='rel/x?y'>z</a>",
        "<table><tr><td>",
        "</td></tr></table>",
        "<b><i><p>",
        "</p></b>",
        "<svg><a href='http://example.com/svg'>s</a></svg>",
        "<style>a{}</style>",
        "<title></title>",
        "<noscript><a href='http://example.com/n'>n</a></noscript>",
        "<!-- x </body> -->",
        "text < & > \" ' ",
        "<p class='",
        "'>",
        '"',
        "\r\n",
        "\xe4\u20ac",
        "<textarea>",
        "<script><!--",
        "<br",
    ]
)


@given(st.lists(MESS, max_size=15).map("".join), st.sampled_from(["utf-8", "utf-16le", "windows-1252", "x"]))
def test_any_page_stays_the_same_to_a_browser(page: str, charset: str) -> None:
    """Whatever it is made of: html5lib sees only what may differ, and the record undoes it."""
    octets = CODERS["base64"](f"<p>{page}</body></html>".encode("utf-8" if charset == "x" else charset))
    head = f"Content-Type: text/html; charset={'us-ascii' if charset == 'x' else charset}\r\n"
    run(f"{head}Content-Transfer-Encoding: base64\r\n\r\n".encode() + octets, opens=True, honeypot="<svg>" not in page)


def tracked(body: bytes) -> list[str]:
    return re.findall(r"/c/[A-Za-z0-9_-]+", body.decode())


def test_only_the_value_changes_and_keeps_its_quotes() -> None:
    before = "<p>\r\n<a  class=x\r\n HREF=\r\n'http://example.com/?a&#x3D;1'\r\n>&nbsp;</a><a href=http://example.com/?q=1>x</a>\r\n"
    draft = run(f"{HTML}\r\n\r\n{before}")
    one, two = (f"{BASE}{path}" for path in tracked(draft.body))
    after = before.replace("http://example.com/?a&#x3D;1", one).replace("http://example.com/?q=1", two)
    assert draft.body == after.encode()


@pytest.mark.parametrize("coding", ["7bit", "8bit", "binary", ""])
def test_a_line_that_would_pass_998_makes_the_part_quoted_printable(coding: str) -> None:
    """With its field changed, or one added; a short neighbour stays as it was."""
    field = f"\r\ncontent-transfer-encoding: {coding}" if coding else ""
    long = f"{HTML}{field}\r\n\r\n{'x' * 900}{LINK}\r\n"
    short = f"{HTML}{field}\r\n\r\n{LINK}\r\n"
    for raw, place in ((long, None), (multipart("mixed", short, long), 1), (multipart("mixed", long, short), 0)):
        draft = run(raw)
        parsed = email.message_from_bytes(apply(draft.message, draft.changes))
        codings = [str(part["Content-Transfer-Encoding"] or "") for part in parsed.walk() if not part.is_multipart()]
        assert codings == [("quoted-printable" if at == (place or 0) else coding) for at in range(len(codings))]
        assert max(map(len, draft.body.split(b"\r\n"))) <= 998


def test_quoted_printable_and_base64_stay_what_they_are() -> None:
    quoted = '<a href=3D"http://example.com/a=\r\nb">x</a>'
    for coding, page in (("quoted-printable", quoted), ("base64", "PGEgaHJlZj1odHRwOi8veC5leGFtcGxlLz4=")):
        draft = run(f"{HTML}\r\nContent-Transfer-Encoding: {coding}\r\n\r\n{page}")
        assert draft.facts["links"] == 1
        assert [type(change).__name__ for change in draft.changes] == ["ReplaceBody"]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (f"DKIM-Signature: v=1\r\n{HTML}\r\n\r\n{LINK}", parts.ALREADY_SIGNED),
        (f"ARC-Message-Signature: i=1\r\n{HTML}\r\n\r\n{LINK}", parts.ALREADY_SIGNED),
        (f"{HTML}\r\n\r\n{LINK}<pre>\r\n-----BEGIN PGP MESSAGE-----", parts.PGP),
        (
            multipart("alternative", "\r\n-----BEGIN PGP SIGNED MESSAGE-----", f"{HTML}\r\n\r\n{LINK}"),
            parts.PGP,
        ),
        (multipart("mixed", "Content-Type: application/pkcs7-mime\r\n\r\nx", f"{HTML}\r\n\r\n{LINK}"), parts.SMIME),
        (f"{HTML}\r\nContent-Type: text/html\r\n\r\n{LINK}", parts.STRUCTURE),
        (multipart("mixed", f"{HTML}\r\n\r\n{LINK}", "Content-Type: multipart/mixed\r\n\r\nx"), parts.STRUCTURE),
        (multipart("signed", f"{HTML}\r\n\r\n{LINK}", "Content-Type: application/x-sig\r\n\r\nx"), parts.SIGNED),
        (multipart("encrypted", f"{HTML}\r\n\r\n{LINK}"), parts.ENCRYPTED),
        (multipart("report", f"{HTML}\r\n\r\n{LINK}"), parts.REPORT),
        (f"{HTML}\r\nContent-Disposition: attachment\r\n\r\n{LINK}", parts.ATTACHMENT),
        (f"{HTML}\r\nContent-Disposition: inline; filename=x.html\r\n\r\n{LINK}", parts.ATTACHMENT),
        (f"{HTML}; name=x.html\r\n\r\n{LINK}", parts.ATTACHMENT),
        (f"Content-Type: text/html; charset=utf-7\r\n\r\n{LINK}", parts.CHARSET),
        (f"Content-Type: text/html; charset=x-unknown\r\n\r\n{LINK}", parts.CHARSET),
        (f"Content-Type: text/html; charset=utf-16le\r\n\r\n{LINK}", parts.CHARSET),
        (f"Content-Type: text/html; charset=us-ascii\r\n\r\n\x1b$B{LINK}", parts.CHARSET),
        (f"{HTML}\r\nContent-Transfer-Encoding: x-uuencode\r\n\r\n{LINK}", parts.ENCODING),
        (f"{HTML}\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n{LINK}", parts.ENCODING),
        (f"{HTML}\r\nContent-Transfer-Encoding: base64\r\n\r\n{LINK}", parts.ENCODING),
        (f"{HTML}\r\n\r\n{LINK.replace('https:', 'mailto:')}", "scheme"),
        (f"{HTML}\r\n\r\n{LINK.replace('Shop', 'example.com')}", "url_text"),
        (f"List-Unsubscribe: <mailto:a@b.example>, <https://\r\n example.com/>\r\n{HTML}\r\n\r\n{LINK}", "unsubscribe"),
    ],
)
def test_what_must_stay_as_it_is_stays_and_is_counted(raw: str, reason: str) -> None:
    draft = run(raw)
    assert draft.changes == []
    assert draft.facts in ({}, {"bulk": True})
    assert skipped(draft) == {reason: 1}


@pytest.mark.parametrize(
    "part",
    [
        f"Content-Type: message/rfc822\r\n\r\n{HTML}\r\n\r\n{LINK}",
        f"Content-Type: text/calendar\r\n\r\n{LINK}",
        f"Content-Type: text/plain\r\n\r\n{LINK}",
        f"Content-Type: application/xhtml+xml\r\n\r\n{LINK}",
    ],
)
def test_other_parts_are_not_looked_at(part: str) -> None:
    for raw in (part, multipart("mixed", part)):
        draft = run(raw)
        assert draft.changes == []
        assert skipped(draft) == {}


def test_below_a_multipart_that_says_it_is_encoded_only_parts_that_say_their_own_encoding_are_changed() -> None:
    """Nobody decodes such a multipart, but some take its encoding for that of parts which name none."""
    own = f"{HTML}\r\nContent-Transfer-Encoding: 7bit\r\n\r\n{LINK}"
    draft = run("Content-Transfer-Encoding: quoted-printable\r\n" + multipart("mixed", f"{HTML}\r\n\r\n{LINK}", own))
    assert [part["path"] for part in draft.facts["parts"]] == ["2"]  # type: ignore[attr-defined]
    assert skipped(draft) == {"structure": 1}


def test_the_neighbour_of_a_part_that_must_stay_is_changed() -> None:
    attached = f"{HTML}\r\nContent-Disposition: attachment\r\n\r\n{LINK}"
    draft = run(multipart("mixed", f"{HTML}\r\n\r\n{LINK}", attached))
    assert draft.facts["links"] == 1
    assert skipped(draft) == {"attachment": 1}


def test_too_many_links_or_too_large_leave_the_message_as_it_is() -> None:
    raw = f"{HTML}\r\n\r\n{LINK * 3}<a href=#>x</a>"
    assert skipped(run(raw, max_links=2)) == {parts.TOO_MANY_LINKS: 1}
    assert skipped(run(raw, max_links=3)) == {"relative": 1}
    size = len(LINK * 3 + "<a href=#>x</a>")
    assert skipped(run(raw, max_size=size - 1)) == {parts.TOO_LARGE: 1}
    assert skipped(run(raw, max_size=size)) == {"relative": 1}


@pytest.mark.parametrize("keys", [{"url": None}, {"links": "off"}])
def test_without_url_or_with_links_off_nothing_happens(keys: dict[str, Any]) -> None:
    draft = run(f"{HTML}\r\n\r\n{LINK}", **keys)
    assert (draft.changes, draft.figures, draft.notes) == ([], {}, [])


def test_a_login_beats_its_domain_and_both_the_section() -> None:
    keys: dict[str, Any] = {
        "domains": {"example.com": {"url": "https://go.example.com", "max_links": 5}},
        "logins": {"a@example.com": {"max_links": 7}},
    }
    tracking = Tracking(url=BASE, **keys)
    assert effective(tracking, "example.com", "a@example.com").max_links == 7
    assert effective(tracking, "example.com", "a@example.com").url == "https://go.example.com"
    assert effective(tracking, "example.com", "").max_links == 5
    assert effective(tracking, "", "").max_links == 1000
    sections = Sections(tracking, lambda section: section)
    assert sections.of("", "A@Example.COM").max_links == 7, "case makes no other login"
    page = f"{HTML}\r\n\r\n{LINK}"
    off: dict[str, Any] = {"domains": {"example.com": {"links": "off"}}, "logins": {"a@example.com": {"links": "html"}}}
    assert run(page, **off).facts == {}
    assert run(page, login="a@example.com", **off).facts["links"] == 1
    assert run(page, from_domain="example.net", **off).facts["links"] == 1


BULK = "List-Unsubscribe: <mailto:a@example.com>\r\n"


@pytest.mark.parametrize(
    ("header", "bulk"),
    [
        ("", False),
        (BULK, True),
        ("x-mailgun-TAG: a\r\n", True),
        ("Feedback-ID: a:b:c:d\r\n", True),
        ("X-Postmeter-Campaign: spring\r\n", True),
        (BULK + "In-Reply-To: <1@example.com>\r\n", False),
        (BULK + "References: <1@example.com>\r\n", False),
        (BULK + "Auto-Submitted: auto-generated\r\n", False),
        (BULK + "Auto-Submitted: No (by hand)\r\n", True),
        ("From: A <news@Example.com>\r\n", True),
        ("From: a@news.example.net\r\n", True),
        ("From: a@news.example.net, b@example.com\r\nSender: a@news.example.net\r\n", False),
        ("From: a@example.net\r\n", False),
        ("From: news@example.com\r\nReferences: <1@example.com>\r\n", False),
    ],
)
def test_bulk_is_what_headers_or_configuration_say_and_never_a_reply(header: str, bulk: bool) -> None:
    senders = ("news@example.com", "@news.example.net")
    draft = draft_of(f"{header}{HTML}\r\n\r\n{LINK}")
    assert is_bulk(draft, Tracking(bulk_senders=senders)) == bulk
    assert skipped(run(f"{header}{HTML}\r\n\r\n{LINK}", mail="bulk", bulk_senders=senders)) == (
        {} if bulk else {parts.NOT_BULK: 1}
    )


def test_the_fields_of_bulk_mail_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "tracking.md").read_text()
    listed = text.partition("<!-- bulk -->")[2].partition("; and")[0]
    assert set(re.findall("`(.*?)`", listed.lower())) == {field.decode() for field in CAMPAIGN_FIELDS}


@pytest.mark.parametrize(("login", "bulk"), [("news@example.com", True), ("x@news.example.net", True), ("shop", False)])
def test_a_login_can_be_a_bulk_sender(login: str, bulk: bool) -> None:
    tracking = Tracking(bulk_senders=("news@example.com", "@news.example.net"))
    assert is_bulk(draft_of(f"{HTML}\r\n\r\n", login=login), tracking) == bulk


@pytest.mark.parametrize("name", ["news@bücher.example", "NEWS@BÜCHER.example", "news@xn--bcher-kva.example"])
def test_a_bulk_sender_is_one_however_its_domain_is_written(name: str) -> None:
    tracking = loads("tracking: {bulk_senders: [news@bücher.example]}").tracking
    assert is_bulk(draft_of(f"From: {name}\r\n{HTML}\r\n\r\n"), tracking)
    assert is_bulk(draft_of(f"{HTML}\r\n\r\n", login=name), tracking)
    assert not is_bulk(draft_of(f"From: x{name}\r\n{HTML}\r\n\r\n", login=f"x{name}"), tracking)


def test_every_reason_is_a_name_of_its_own() -> None:
    assert len(set(links.REASONS)) == len(links.REASONS) == 28
    known = [meaning for meaning in metrics.METRICS if meaning.name == "rewrite_skipped_total"]
    assert known[0].labels == ("reason",)
    assert set(known[0].known["reason"]) == set(links.REASONS)


def opened(draft: Draft) -> list[str]:
    """The targets of the tracked links, in order."""
    return [one.target for url in tracked(draft.body) if (one := MINT.open_link(HOST, url.rpartition("/")[2]))]


VML = '<v:roundrect xmlns:v="urn:schemas-microsoft-com:vml" href="http://example.com/vml"><center>Go</center></v:roundrect>'


@pytest.mark.parametrize(
    ("page", "targets"),
    [
        (
            f"<!--[if mso]>{VML}<![endif]--><!--[if !mso]><!-->{LINK}<!--<![endif]-->",
            ["http://example.com/vml", "https://example.com/"],
        ),
        (
            f"<!--[if (gte mso 9)|(IE)]><a href=http://example.com/ie>x</a><![endif]-->{LINK}",
            ["http://example.com/ie", "https://example.com/"],
        ),
        (f"<![if !mso]>{LINK}<![endif]>", ["https://example.com/"]),
        (f"{VML}", ["http://example.com/vml"]),
        ('<map><AREA href="http://example.com/area"></map>', ["http://example.com/area"]),
        (f"<!--[if mso]>{VML.replace('Go', 'www.example.com')}<![endif]-->", []),
    ],
)
def test_what_outlook_follows_is_tracked_too(page: str, targets: list[str]) -> None:
    assert opened(run(f"{HTML}\r\n\r\n{page}")) == targets


@pytest.mark.parametrize(
    ("base", "href", "target"),
    [
        ("http://a.example/b/c?d", "e", "http://a.example/b/e"),
        ("http://a.example/b/c", "../e?f#g", "http://a.example/b/../e?f#g"),
        ("http://a.example", "e", "http://a.example/e"),
        ("http://a.example/b/", "/e", "http://a.example/e"),
        ("http://a.example/b/", "//x.example/e", "http://x.example/e"),
        ("http://a.example/b/c", "?q", "http://a.example/b/c?q"),
        ("http://a.example/b/c", "http://x.example/", "http://x.example/"),
    ],
)
def test_a_relative_link_is_relative_to_the_base(base: str, href: str, target: str) -> None:
    """A browser takes the dots away as it follows the link: `run` compares where it gets."""
    draft = run(f"{HTML}\r\n\r\n<head><BASE target=_blank HREF='{base}'></head><a href='{href}'>x</a>")
    assert opened(draft) == [target]


@pytest.mark.parametrize(
    "page",
    [
        "<a href='e'>x</a>",
        "<base href='http://a.example/'><a href='#e'>x</a>",
        "<base href='http://a.example/'><a href=''>x</a>",
        "<base href='http://a.example/'><base href='http://b.example/'><a href=e>x</a>",
        "<!--[if mso]><base href='http://a.example/'><![endif]--><a href=e>x</a>",
        "<svg><base href='http://a.example/'></svg><a href=e>x</a>",
        "<base href='http://a.example/b/..'><a href=e>x</a>",
        "<base href='http://a.example/b/%2E%2e'><a href=e>x</a>",
        "<base href='/b/'><a href=e>x</a>",
        "<base href='http://a.example/'><a href='///e'>x</a>",
        "<base href='http://a.example/'><a href='\\e'>x</a>",
    ],
)
def test_a_relative_link_that_leads_who_knows_where_is_left_alone(page: str) -> None:
    assert skipped(run(f"{HTML}\r\n\r\n{page}")) == {"relative": 1}


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ('<a data-pm-no-track href="https://a.example/">x</a>', '<a href="https://a.example/">x</a>', "switched_off"),
        ('<a href="https://a.example/" ClickTracking="OFF">', '<a href="https://a.example/">', "switched_off"),
        ("<a href=https://a.example/ ses:no-track>x</a>", "<a href=https://a.example/>x</a>", "switched_off"),
        ("<a clicktracking=off\r\nhref='mailto:a@a.example'>x</a>", "<a\r\nhref='mailto:a@a.example'>x</a>", "scheme"),
        ("<a href='https://a.example/'data-pm-no-track id=b>", "<a href='https://a.example/' id=b>", "switched_off"),
        ("<a href=https://a.example/ data-pm-no-track/>x</a>", "<a href=https://a.example/ />x</a>", "switched_off"),
        ("<a href=https://a.example/ clicktracking='off'id=b>", "<a href=https://a.example/ id=b>", "switched_off"),
        ("<a clicktracking='off'href=https://a.example/>x</a>", "<a href=https://a.example/>x</a>", "switched_off"),
        ("<a href=https://a.example/ data-pm-no-track\r\nses:no-track/>x</a>", "<a href=https://a.example/\r\n/>x</a>",
         "switched_off"),
    ],
)
def test_attributes_that_switch_a_link_off_are_understood_and_removed(before: str, after: str, reason: str) -> None:
    draft = run(f"{HTML}\r\n\r\n{before}")
    assert draft.body.decode() == after
    assert skipped(draft) == {reason: 1}
    assert draft.facts["parts"] == [{"path": "1", "reason": "switches", "count": 0}]


def test_a_switch_that_is_the_last_of_the_page_is_in_no_tag() -> None:
    assert not run(f"{HTML}\r\n\r\n<a href=https://a.example/ data-pm-no-track").changes


def test_other_values_of_a_switch_are_none() -> None:
    draft = run(f'{HTML}\r\n\r\n<a href="https://a.example/" clicktracking=on title="no-track">x</a>')
    assert draft.facts["links"] == 1
    assert b"clicktracking=on" in draft.body


def test_a_link_that_is_switched_off_is_off_in_the_text_too() -> None:
    page = f'{HTML}\r\n\r\n<a data-pm-no-track href="https://a.example/">x</a><a href="https://b.example/">x</a>'
    text = "Content-Type: text/plain\r\n\r\nhttps://a.example/ and https://b.example/"
    draft = run(multipart("alternative", text, page), links="html+text")
    assert opened(draft) == ["https://b.example/", "https://b.example/"]
    assert skipped(draft) == {"switched_off": 2}


AMP = "Content-Type: text/x-amp-html; charset=utf-8"


def test_both_alternatives_of_amp_mail_are_tracked() -> None:
    """A template of AMP is none that somebody forgot: its links stay."""
    amp = f'{AMP}\r\n\r\n<html amp4email><body>{LINK}<a [href]="x" href="https://b.example/{{{{id}}}}">x</a></body>'
    draft = run(multipart("alternative", amp, f"{HTML}\r\n\r\n{LINK}"), opens=True, honeypot=True)
    assert [part["path"] for part in draft.facts["parts"]] == ["1", "2"]  # type: ignore[attr-defined]
    assert skipped(draft) == {"template": 1}
    assert draft.body.index(b"/o/") > draft.body.index(b"text/html")


def test_amp_never_outgrows_what_is_shown_of_it() -> None:
    amp = f"{AMP}\r\n\r\n{LINK}{'x' * 158}\r\n" + f"{'x' * 998}\r\n" * 199 + "x" * 790
    draft = run(multipart("alternative", amp, f"{HTML}\r\n\r\n{LINK}"))
    assert skipped(draft) == {"amp_size": 1}
    assert draft.facts["parts"] == [{"path": "2", "reason": "links", "count": 1}]


@pytest.mark.parametrize("charset", ["utf-16le", "utf-16be", "utf-16", "iso-2022-jp", "shift_jis", "windows-1252", "x"])
@pytest.mark.parametrize("coding", ["quoted-printable", "base64"])
def test_pages_in_other_charsets(charset: str, coding: str) -> None:
    """UTF-7 and what nobody knows are left; a wrong label touches nothing but the links."""
    known = "utf-8" if charset == "x" else charset
    words = "Grüße" if charset == "windows-1252" else "日本語"
    octets = f"<p>{words}<a href='http://example.com/?a&amp;b'>{words}</a></body>".encode(known)
    head = f"Content-Type: text/html; charset={'us-ascii' if charset == 'x' else charset}"
    raw = f"{head}\r\nContent-Transfer-Encoding: {coding}\r\n\r\n".encode() + CODERS[coding](octets)
    draft = run(raw, opens=True)
    assert draft.facts["links"] == 1
    page = email.message_from_bytes(apply(draft.message, draft.changes)).get_payload(decode=True)
    assert isinstance(page, bytes)
    assert page.decode(known).endswith(f"{words}</a>" + page.decode(known).rpartition("</a>")[2])


def test_utf_16_is_left_alone_where_its_line_ends_are_octets() -> None:
    head = b"Content-Type: text/html; charset=utf-16le\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    assert skipped(run(head + LINK.encode("utf-16le"))) == {"charset": 1}


TEXT = "Content-Type: text/plain; charset=utf-8"


def test_text_is_tracked_only_where_that_was_asked_for() -> None:
    raw = f"{TEXT}\r\n\r\nRead http://example.com/a, or reply.\r\n"
    assert run(raw).changes == []
    draft = run(raw, links="html+text")
    assert opened_text(draft) == ["http://example.com/a"]
    assert draft.body.startswith(b"Read https://click.")
    assert draft.body.endswith(b", or reply.\r\n")


def opened_text(draft: Draft) -> list[str]:
    words = draft.body.decode().split()
    urls = [word.strip("<>(),.").rpartition("/c/")[2] for word in words if f"{BASE}/c/" in word]
    return [link.target for url in urls if (link := MINT.open_link(HOST, url))]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("To unsubscribe go to http://example.com/x", "unsubscribe"),
        ("Abmelden:\r\nhttp://example.com/x", "unsubscribe"),
        ("http://example.com/reset?x=1", "login_like"),
        ("http://example.com/{{id}}/x", "template"),
        ("*http://example.com/*", "malformed"),
        ("[http://example.com/a](http://example.com/a)", "malformed"),  # as mail made from Markdown has it
        ("![a](http://example.com/a.png)](http://example.com/b)", "malformed"),
        ("http://example.com/?a[]=1", "malformed"),
        ("http://example.com/a|b", "malformed"),
        ("http://example.com/{id}", "malformed"),
        ("x" * 930 + " http://example.com/", "long_line"),
    ],
)
def test_urls_in_text_that_stay(text: str, reason: str) -> None:
    assert skipped(run(f"{TEXT}\r\n\r\n{text}", links="html+text")) == {reason: 1}


def test_numbers_have_no_gaps_where_a_line_is_full() -> None:
    """The first URL of a line fits, the second does not, the next line starts anew."""
    raw = f"{TEXT}\r\n\r\n{'x' * 830} http://a.example/ http://b.example/\r\nhttp://c.example/"
    draft = run(raw, links="html+text")
    assert opened_text(draft) == ["http://a.example/", "http://c.example/"]
    assert skipped(draft) == {"long_line": 1}


def test_pgp_in_text_keeps_all_links() -> None:
    text = (
        f"{TEXT}\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + base64.b64encode(b"http://example.com/\r\n-----BEGIN PGP MESSAGE-----").decode()
    )
    assert skipped(run(text, links="html+text")) == {"pgp": 1}


IMAGE = ' alt="" width="1" height="1" '


@pytest.mark.parametrize(
    ("page", "before", "after"),
    [
        ("<body>x</BODY ></html>", "<body>x", "</BODY ></html>"),
        ("<body>x</body><!-- </body> --><script>'</body>'</script></html>", "<body>x", "</body><!-- </body>"),
        ("<!--[if mso]></body><![endif]--><p>x", "<p>x", ""),
        ("x</body>y</body>z", "x</body>y", "</body>z"),
        ("x", "x", ""),
    ],
)
def test_the_image_is_put_before_the_last_end_of_the_body(page: str, before: str, after: str) -> None:
    draft = run(f"{HTML}\r\n\r\n{page}", opens=True)
    body = draft.body.decode()
    assert body.partition("<img ")[0].endswith(before)
    assert body.partition('!important">')[2].startswith(after)
    assert IMAGE in body
    assert draft.facts["opens"] is True


@pytest.mark.parametrize("page", ["x<!-- ", "x<title>", "x<a href='", "x<plaintext>", 'x<p title="'])
def test_an_image_that_would_be_within_something_else_is_not_put(page: str) -> None:
    draft = run(f"{HTML}\r\n\r\n{page}", opens=True)
    assert draft.changes == []
    assert skipped(draft) == {"no_place": 1}


RELATED = f"Content-Type: multipart/related; boundary=c\r\n\r\n--c\r\n{HTML}\r\n\r\n2\r\n--c--"


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (multipart("alternative", f"{HTML}\r\n\r\n1", f"{HTML}\r\n\r\n2"), "2"),
        (multipart("mixed", f"{HTML}\r\n\r\n1", f"{HTML}\r\n\r\n2"), "1"),
        (multipart("related", f"{HTML}\r\n\r\n1", f"{HTML}\r\n\r\n2"), "1"),
        (multipart("mixed", f"{HTML}; name=a.html\r\n\r\n1", f"{HTML}\r\n\r\n2"), "2"),
        (multipart("alternative", TEXT + "\r\n\r\n1", RELATED), "2.1"),
    ],
)
def test_one_image_in_the_page_that_is_shown(raw: str, path: str) -> None:
    draft = run(raw, opens=True)
    assert draft.facts["parts"] == [{"path": path, "reason": "opens", "count": 0}]


def test_html_that_gmail_will_cut_is_counted_and_told() -> None:
    page = f"{HTML}\r\n\r\n{LINK}\r\n" + f"{'x' * 998}\r\n" * 102 + "x" * 300
    grown = run(page)
    assert grown.figures["html_clipped_total", ()] == 1
    assert grown.facts["clipped"] is True
    assert any("Gmail" in note.text for note in grown.notes)
    was = run(page + "x" * 300)
    assert ("html_clipped_total", ()) not in was.figures
    assert any("Gmail" in note.text for note in was.notes)


def test_the_hidden_link_has_number_0_and_leads_home() -> None:
    draft = run(f"{HTML}\r\n\r\n<body>{LINK}</body>", honeypot=True)
    token = draft.body.decode().split(f"{BASE}/c/")[2].split('"')[0]
    link = MINT.open_link(HOST, token)
    assert link is not None
    assert (link.link, link.target) == (0, f"{BASE}/")
    assert run(f"{HTML}\r\n\r\n<body>x</body>", honeypot=True).changes == []


ONE, TWO = (b"Reader@Example.net",), (b"a@example.net", b"b@example.net")


@pytest.mark.parametrize(
    ("privacy", "rcpt_to", "named"),
    [("totals", ONE, False), ("pseudonymous", ONE, True), ("recipients", ONE, True), ("recipients", TWO, False)],
)
def test_a_token_stands_for_a_person_only_where_that_is_allowed(
    privacy: str, rcpt_to: tuple[bytes, ...], named: bool
) -> None:
    draft = run(f"{HTML}\r\n\r\n{LINK}", rcpt_to=rcpt_to, privacy=privacy, opens=True)
    (url, pixel) = draft.body.decode().split(f"{BASE}/")[1:]
    link = MINT.open_link(HOST, url[2:].split('"')[0])
    image = MINT.open_open(HOST, pixel[2:].split('"')[0])
    assert link is not None
    assert image is not None
    person = MINT.pseudonym(b"Reader@example.net") if named else b""
    assert link.recipient == image.recipient == person
    assert draft.facts["privacy"] == privacy


@pytest.mark.parametrize(
    ("wishes", "keys", "links_", "opens_"),
    [
        (Wishes(), {}, 2, False),
        (Wishes(clicks="off"), {"opens": True}, 0, True),
        (Wishes(clicks="html+text", opens=True), {"links": "off"}, 3, True),
        (Wishes(clicks="html", opens=False), {"links": "html+text", "opens": True}, 2, False),
    ],
)
def test_what_a_sender_asks_for_is_done(wishes: Wishes, keys: dict[str, Any], links_: int, opens_: bool) -> None:
    raw = multipart("alternative", f"{TEXT}\r\n\r\nhttps://example.com/", f"{HTML}\r\n\r\n{LINK * 2}")
    draft = run(raw, wishes=wishes, **keys)
    assert (draft.facts.get("links", 0), draft.facts.get("opens", False)) == (links_, opens_)


def test_a_bulk_message_is_known_as_one() -> None:
    assert run(f"{BULK}{HTML}\r\n\r\n{LINK}").facts["bulk"] is True
    assert "bulk" not in run(f"{HTML}\r\n\r\n{LINK}").facts


def test_no_hidden_link_is_put_within_another() -> None:
    """It would end the other one, and move what comes behind."""
    ends = ("", "<!-- </a> -->", "<abbr>z</abbr>", "<title><a></a></title>", "<svg><a>z</a></svg>")
    for page in (f"{LINK}<A name=x>y{end}" for end in ends):
        draft = run(f"{HTML}\r\n\r\n{page}", honeypot=True)
        assert skipped(draft)["no_place"] == 1
        assert draft.facts["links"] == 1
    assert b"tabindex" in run(f"{HTML}\r\n\r\n{LINK}<a name=x>y</a>", honeypot=True).body
