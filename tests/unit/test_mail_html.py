"""Where links lie in HTML: documents whose links are known because they were put there, and html.parser on layouts."""

from __future__ import annotations

import html as stdlib
from html.entities import html5

import html5lib
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postmeter.mail import html
from tests import corpora
from tests.link_oracle import hrefs


def values(document: bytes) -> list[bytes]:
    return [document[start:end] for _, (start, end), *_ in html.read(document, most=1000).links]


URL = st.sampled_from([b"http://example.com/", b"https://example.com/?a=1&amp;b=2", b"#", b"", b"mailto:a@example.com"])
SPACE = st.sampled_from([b" ", b"\n", b"\t ", b"\r\n  ", b"/", b" / "])
EQUALS = st.sampled_from([b"=", b" = ", b"\r\n=\r\n", b"=\t"])
OTHERS = st.sampled_from(
    [
        b"title='<a href=\"http://no.example/\">'",
        b'alt="> <a href=\'http://no.example/\'>"',
        b"data-href=http://no.example/",
        b"nowrap",
        b"CLASS=\"it's\"",
        b"x='\"'",
        b"width=100",
        b'y""',
        b'z="a=',
    ]
)
HIDDEN = st.sampled_from(
    [
        b"text <3 & <- ",
        b"plain \" text ' with quotes =",
        b"<!-- <a href='http://no.example/'> -->",
        b"<!--><!--->",
        b"<!--[if mso]><a href='http://no.example/'></a><!-- --><![endif]-->",
        b"<!--[if mso]><a href='http://no.example/'></a>-->",
        b"<!--[if mso]><a href='http://no.example/'></a><!--[if gte mso 9]><![endif]-->",
        b"<!--[if]><a href='http://no.example/'></a><![endif]-->",
        b"<!--[if mso><a href='http://no.example/'></a>]><![endif]-->",
        b"<!--[if mso]><p title='<a href=x>'><style><a href=x></style><a href='http://no.example/'<![endif]-->",
        b"<!--[if !mso]><!-->",
        b"<![if !mso]>",
        b"<!--<![endif]-->",
        b"<v href=http://no.example/><vv:rect href=http://no.example/></v:rect href=x>",
        b"<base64 href=x><body href=x></bod></bodyx>",
        b"<!--a--!>",
        b"<!DOCTYPE html PUBLIC '-//W3C'>",
        b"<?xml <a href='http://no.example/'?>",
        b"<![CDATA[ <a href='http://no.example/'> ]]>",
        b"<script>'<a href=\"http://no.example/\">' < 1</ScripT >",
        b"<STYLE type='>'><a href=\"http://no.example/\"></style>",
        b"<title><a href='http://no.example/'></titles></title\n>",
        b"<textarea><a href='http://no.example/'></textarea/>",
        b"<abbr href='http://no.example/'>",
        b"<link href=http://no.example/>",
        b"<areas href=http://no.example/><as href=http://no.example/>",
        b"<p =\"x\" y>",
        b"<p x=\"1\"y='2'>",
        b"</a href='http://no.example/'>",
        b"<br/><td nowrap width=1 height='2'>",
        b"</>",
        b"</ <a href='http://no.example/'>",
    ]
)


@st.composite
def tag(draw: st.DrawFn) -> tuple[bytes, bytes | None]:
    """A link as somebody might write it, and its value."""
    name, value = draw(st.sampled_from([b"a", b"A", b"area", b"AreA"])), draw(URL)
    quote = draw(st.sampled_from([b'"', b"'"] + ([b""] if value else [])))
    attributes = draw(st.lists(OTHERS.filter(lambda other: other != b'z="a='), max_size=3))
    out = b"<" + name
    for other in attributes:
        out += draw(SPACE.filter(lambda space: b"/" not in space)) + other
    out += draw(SPACE.filter(lambda space: b"/" not in space)) + draw(st.sampled_from([b"href", b"HREF", b"Href"]))
    out += draw(EQUALS) + quote + value + quote
    end = draw(st.sampled_from([b">", b" >", b" href='http://second.example/'>", b"\n/>", b" x='>'>"]))
    return out + end, value


hidden = HIDDEN.map(lambda piece: (piece, None))


@given(st.lists(st.one_of(tag(), hidden), max_size=12))
def test_links_are_found_where_they_were_put(pieces: list[tuple[bytes, bytes | None]]) -> None:
    """And nothing is found in text, comments, scripts, other attributes or other tags."""
    document = b"".join(piece for piece, _ in pieces)
    assert values(document) == [value for _, value in pieces if value is not None]


NOISE = [*b"<>/=\"'!-ahref s\n&[]?", b"<a href=", b"<a href='x'>", b'<area y href="', b"<!--", b"-->", b"script"]


@given(st.lists(st.sampled_from(NOISE), max_size=60))
@example([b"<a href=", *b"s>&", b"<a href='x'>", b'<area y href="', *b'h">'])
def test_anything_is_read_to_its_end(pieces: list[int | bytes]) -> None:
    """Spans are in order, within the document, and none holds the end of its tag."""
    document = b"".join(piece if isinstance(piece, bytes) else bytes([piece]) for piece in pieces)
    at = 0
    for link in html.read(document, most=1000).links:
        start, end = link.value
        assert at <= start <= end < link.after <= len(document)
        assert document[link.after - 1 : link.after] == b">"
        at = link.after


@given(st.lists(st.sampled_from([*b"<>/=\"' xahrefp\n", b"<p a=\"", b" b='", b"<a href=\"u\">", b"=\""]), max_size=60))
def test_common_and_careful_reading_agree(pieces: list[int | bytes]) -> None:
    """The pattern for tags as most are written finds what reading each attribute finds."""
    document = b"".join(piece if isinstance(piece, bytes) else bytes([piece]) for piece in pieces)
    assert values(document) == carefully(document)


def carefully(document: bytes) -> list[bytes]:
    """The standard's states one octet at a time, for documents of tags and text only."""
    found: list[bytes] = []
    at = 0
    while (at := document.find(b"<", at)) >= 0:
        after = document[at + 1 : at + 2]
        start = at + 2 if after == b"/" else at + 1
        if not document[start : start + 1].isalpha():
            at = start
            if after == b"/":  # a bogus comment
                end = document.find(b">", start)
                at = end + 1 if end >= 0 else len(document)
            continue
        name, attributes, at = attributes_of(document, start)
        if at < 0:
            break
        if after != b"/" and name in (b"a", b"area"):
            found += [value for key, value in attributes if key == b"href"][:1]
    return found


def attributes_of(document: bytes, at: int) -> tuple[bytes, list[tuple[bytes, bytes]], int]:
    spaces = b"\t\n\f\r "
    name = b""
    while at < len(document) and document[at] not in spaces + b"/>":
        name, at = name + document[at : at + 1], at + 1
    attributes: list[tuple[bytes, bytes]] = []
    while True:
        while at < len(document) and document[at] in spaces + b"/":
            at += 1
        if at >= len(document):
            return name, attributes, -1
        if document[at] == ord(">"):
            return name.lower(), attributes, at + 1
        key, at = document[at : at + 1], at + 1
        while at < len(document) and document[at] not in spaces + b"/>=":
            key, at = key + document[at : at + 1], at + 1
        look = at
        while look < len(document) and document[look] in spaces:
            look += 1
        value = b""
        if document[look : look + 1] == b"=":
            value, at = value_of(document, look + 1)
        attributes.append((key.lower(), value))


def value_of(document: bytes, at: int) -> tuple[bytes, int]:
    spaces = b"\t\n\f\r "
    while at < len(document) and document[at] in spaces:
        at += 1
    if document[at : at + 1] in (b'"', b"'"):
        end = document.find(document[at : at + 1], at + 1)
        return (document[at + 1 : end], end + 1) if end >= 0 else (b"", len(document))
    start = at
    while at < len(document) and document[at] not in spaces + b">":
        at += 1
    return document[start:at], at


def test_layouts_hold_the_links_that_html_parser_finds() -> None:
    corpora.need()
    layouts = [found for found in corpora.messages() if found.corpus == "html-mailchimp-blueprints"]
    assert layouts
    for layout in layouts:
        document = layout.path.read_bytes()
        assert [stdlib.unescape(value.decode("latin-1")) for value in values(document)] == hrefs(document)


def test_a_tag_that_does_not_end_is_dropped() -> None:
    assert values(b"<a href='http://example.com/'><a href='http://example.net/' x='>") == [b"http://example.com/"]


def test_a_script_within_a_comment_of_a_script_ends_the_search() -> None:
    """Such a script may go on behind its first end tag (script data double escaped state)."""
    assert values(b"<a href=x><script><!--<script></script><a href=y>--></script><a href=z>") == [b"x"]


SCRIPT = [b"<!--", b"-->", b"<SCRIPT", b"</script", b">", b" ", b"//-", b"<a href=y>"]


@given(st.lists(st.sampled_from(SCRIPT), max_size=9))
def test_a_script_hidden_from_old_browsers_ends_where_browsers_see_its_end(pieces: list[bytes]) -> None:
    """As pages of FrontPage and Dreamweaver have it; html5lib says where."""
    text = b"".join(pieces)
    document = b"<a href=x></a><script><!-- " + text + b"</script ><a href=z>"
    tree = html5lib.parse(document, namespaceHTMLElements=False)
    seen = [link.attrib["href"].encode() for link in tree.iter("a") if "href" in link.attrib]
    found = values(document)
    assert found == seen[: len(found)]
    assert b"<SCRIPT" in text or found == seen


@pytest.mark.parametrize("name", [b"style", b"title", b"ScriPt"])
@pytest.mark.parametrize("around", [b"svg", b"MATH"])
def test_text_elements_within_drawings_hold_markup(name: bytes, around: bytes) -> None:
    """In SVG the end tag of this style is the value of an attribute, and so is what looks like a link behind it."""
    document = b"<a href=x><%s><%s><p title='</%s><a href=y>'></svg><a href=z>" % (around, name, name)
    assert values(document) == [b"x"]


def test_text_elements_without_markup_read_the_same_within_drawings() -> None:
    assert values(b"<svg viewBox=x><title>Logo</title></svg><a href=x>") == [b"x"]
    assert values(b"<map><mark><sv><svgs><maths><style><b></style><a href=y>") == [b"y"]


@pytest.mark.parametrize(
    ("inside", "text"),
    [
        (b"Read <b>more</b>", b"Read more"),
        (b" \r\n www.example.com ", b"www.example.com"),
        (b"http&#58;//a<wbr>b&period;example", b"http://ab.example"),
        (b"<img src='x'>", b""),
        (b"one <a name=x>two", b"one"),
        (b"b&uuml;cher&period;example", "bücher.example".encode()),
        (b"exam&shy;ple&#46;&#1088;&#1092;", "exam\u00adple.рф".encode()),
        (b"\xfc &amp; \xc3\xbc &#xDCFC;", b"\xfc & \xc3\xbc \xef\xbf\xbd"),
    ],
)
def test_the_visible_text_of_a_link(inside: bytes, text: bytes) -> None:
    document = b"<p><a href='http://example.com/'>" + inside + b"</A><p>behind"
    (link,) = html.read(document, most=1000).links
    assert html.visible_text(document, link) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("?a=1&amp;b=2", "?a=1&b=2"),
        ("?a&copy=1&copy2&copy;=&copy", "?a&copy=1&copy2©=©"),
        ("&#38;&#x26;&#38&#X26", "&&&&"),
        ("&notit;&not;&notin;&nosuch;", "&notit;¬∉&nosuch;"),
        ("&amp=1&amp", "&amp=1&"),
        ("&#0;&#x110000;&#" + "0" * 5000 + "38;&#" + "9" * 5000, "\ufffd\ufffd&\ufffd"),
        ("&#128;&#x81;&#13;&#7;&#xD800;", "\u20ac\x81\r\x07\ufffd"),
        ("&;&#;&#x;&", "&;&#;&#x;&"),
        ("&amp;amp;", "&amp;"),
    ],
)
def test_references_in_attributes_follow_the_standard(value: str, text: str) -> None:
    assert html.attribute_text(value) == text


NAMES = [f"&{name}" for name in sorted(html5) if name.endswith(";")][::40]


@given(st.lists(st.sampled_from([*NAMES, "a", ";", "&amp;"])))
def test_references_that_end_are_decoded_as_in_text(pieces: list[str]) -> None:
    value = " ".join(pieces)
    assert html.attribute_text(value) == stdlib.unescape(value)
