"""A judge of changed messages that shares no code with what changed them: the email package, html5lib and urllib.

Knows only what may differ: links of HTML and what stands around them for trackers, one image and one hidden link at
its end, URLs of plain text, transfer encodings, and line ends within fields.
"""

from __future__ import annotations

import codecs
import email
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message as Parsed
from html.parser import HTMLParser
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit
from xml.etree.ElementTree import Comment, Element

import html5lib

from postmeter.token import Mint

HOST = "click.example.com"
BASE = f"https://{HOST}"
SECRET = bytes(range(32))
MINT = Mint([SECRET])
_CODING = ("content-transfer-encoding", "mime-version")
_OURS = re.compile(r"https://click\.example\.com/c/([A-Za-z0-9_-]+(?:%2D|%5F)?)")
_CONDITION = re.compile(r"(\[if[^\]]*\]>)(.*)(<!\[endif\])", re.DOTALL | re.IGNORECASE)
_WHOLE = html5lib.getTreeBuilder("etree", fullTree=True)
_FORMATTING = {"a", "b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u"}
_PRINTABLE = "".join(map(chr, range(33, 127)))


@dataclass
class Seen:
    """What was found to differ, and is allowed to."""

    images: int = 0
    traps: int = 0
    numbers: set[int] = field(default_factory=set)
    """Of links; a parser repeats an `a` that is open where another element ends, and then it is there twice."""

    @property
    def links(self) -> int:
        return len(self.numbers)


def assert_only_links_differ(before: bytes, after: bytes) -> int:
    """How many links are tracked in `after`; an AssertionError when anything else differs."""
    return differences(before, after).links


def differences(before: bytes, after: bytes) -> Seen:
    seen = Seen()
    old, new = list(email.message_from_bytes(before).walk()), list(email.message_from_bytes(after).walk())
    assert len(old) == len(new)
    for one, other in zip(old, new, strict=True):
        _compare(one, other, seen)
    assert sorted(seen.numbers) == list(range(1, seen.links + 1))
    return seen


def hrefs(document: bytes) -> list[str]:
    """The `href` values of `a` and `area` as html.parser understands them, first one of each tag."""
    parser = _Hrefs()
    parser.feed(document.decode("latin-1"))
    parser.close()
    return parser.found


class _Hrefs(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = [value for name, value in attrs if name == "href"]
        if tag in ("a", "area") and values:
            self.found.append(values[0] or "")


def _compare(one: Parsed, other: Parsed, seen: Seen) -> None:
    assert _header(one) == _header(other)
    assert (one.preamble, one.epilogue) == (other.preamble, other.epilogue)
    if one.is_multipart() or one.get_payload() == other.get_payload():
        return
    before, after = _decoded(one), _decoded(other)
    if before == after:
        return
    kind, charset = one.get_content_type(), str(one.get_content_charset() or "latin-1")
    if kind == "text/plain":
        compare_texts(_text(before, charset), _text(after, charset), seen)
    else:
        assert kind in ("text/html", "text/x-amp-html")
        compare_documents(_text(before, charset), _text(after, charset), seen)


def _header(part: Parsed) -> list[tuple[str, str]]:
    """The header without what says how the part is encoded."""
    left = [(name, value) for name, value in part.items() if name.lower() not in _CODING]
    return [(name, re.sub(r"\r?\n(?=[ \t])", "", str(value))) for name, value in left]


def _decoded(part: Parsed) -> bytes:
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload


def _text(octets: bytes, charset: str) -> str:
    """Where octets are no text in that charset, or nobody knows it, each octet is a character."""
    try:
        return octets.decode(codecs.lookup(charset).name)
    except (LookupError, UnicodeDecodeError):
        return octets.decode("latin-1")


def compare_texts(old: str, new: str, seen: Seen) -> None:
    """Plain text: with its target in the place of each tracked URL it is the text that it was."""

    def original(found: re.Match[str]) -> str:
        return _opened(found[1], seen)

    assert _OURS.sub(original, new) == old


def _opened(token: str, seen: Seen) -> str:
    link = MINT.open_link(HOST, unquote(token))
    assert link is not None
    seen.numbers.add(link.link)
    return link.target


def compare_documents(old: str, new: str, seen: Seen) -> None:
    """HTML: the same trees but for what may differ, each tracked link leading where a browser went before."""
    one, other = _tree(old), _tree(new)
    bases = [element.attrib["href"] for element in one.iter("base") if "href" in element.attrib]
    _same(one, other, bases[0] if bases else "", seen)


def _tree(text: str) -> Element:
    """The whole document: what stands before and behind `html` too."""
    parser = html5lib.HTMLParser(tree=_WHOLE, namespaceHTMLElements=False)
    tree: Element = parser.parse(text)
    return tree


def _same(old: Element, new: Element, base: str, seen: Seen) -> None:
    assert old.tag == new.tag
    _same_attributes(old, new, base, seen)
    was, now = list(_content(old, Seen(), deep=False)), []
    for deep in (False, True):
        added = Seen()
        now = list(_content(new, added, deep=deep))
        if (added.images or added.traps) and now and isinstance(now[-1], str) and not now[-1].strip():
            now = now if was[-1:] == now[-1:] else now[:-1]  # the page's last line end, behind the image
        if len(was) == len(now):
            break
    assert len(was) == len(now), (was, now)
    seen.images += added.images
    seen.traps += added.traps
    for one, other in zip(was, now, strict=True):
        if isinstance(one, str) or isinstance(other, str):
            assert one == other
        elif _is_comment(one):
            _same_comments(one.text or "", other.text or "", base, seen)
        else:
            _same(one, other, base, seen)


def _content(parent: Element, seen: Seen, *, deep: bool) -> Iterator[Element | str]:
    """Text and elements without what was put at the end of the page; neighbouring texts are one.

    `deep`: without what stands only around that, either: formatting that was open there begins anew for it.
    """
    text = "" if _is_comment(parent) else parent.text or ""
    for child in parent:
        if not _added(child, seen, deep=deep):
            if text:
                yield text
                text = ""
            yield child
        text += child.tail or ""
    if text:
        yield text


def _is_comment(element: Element) -> bool:
    tag: object = element.tag
    return tag is Comment


def _added(element: Element, seen: Seen, *, deep: bool) -> bool:
    """Whether it is ours."""
    if element.tag == "img" and element.attrib.get("src", "").startswith(f"{BASE}/o/"):
        token = element.attrib["src"].removeprefix(f"{BASE}/o/")
        assert MINT.open_open(HOST, token) is not None
        assert element.attrib["alt"] == ""
        seen.images += 1
        return True
    trap = element.attrib.get("tabindex") == "-1" and not len(element) and not element.text
    if trap and str(element.tag).rpartition("}")[2] == "a":
        link = MINT.open_link(HOST, element.attrib.get("href", "").removeprefix(f"{BASE}/c/"))
        if link is not None and link.link == 0:
            seen.traps += 1
            return True
    if not deep:
        return False
    inner = Seen()
    children = [_added(child, inner, deep=True) for child in element]
    texts = (element.text or "") + "".join(child.tail or "" for child in element)
    if element.tag in _FORMATTING and children and all(children) and not texts.strip():
        seen.images += inner.images
        seen.traps += inner.traps
        return True
    return False


def _same_attributes(old: Element, new: Element, base: str, seen: Seen) -> None:
    was, now = dict(old.attrib), dict(new.attrib)
    for name in ("ses:no-track", "data-pm-no-track", "clicktracking"):
        if name in was and name not in now:
            assert name != "clicktracking" or was[name].lower() == "off"
            del was[name]
    tag = str(old.tag).rpartition("}")[2].lower()  # in SVG, too, an `a` is a link
    if (tag in ("a", "area") or tag.startswith("v:")) and "href" in was and was["href"] != now.get("href"):
        found = _OURS.fullmatch(now["href"])
        assert found, now["href"]
        assert len(was) == len(old.attrib), "this link was not to be tracked"
        assert same_place(_opened(found[1], seen), was["href"], base)
        del was["href"], now["href"]
    assert was == now


def _same_comments(old: str, new: str, base: str, seen: Seen) -> None:
    """What stands under a condition is a document of its own for Outlook."""
    if old == new:
        return
    one, other = _CONDITION.fullmatch(old), _CONDITION.fullmatch(new)
    assert one
    assert other
    assert one.group(1, 3) == other.group(1, 3)
    fragments = [html5lib.parseFragment(found[2], namespaceHTMLElements=False) for found in (one, other)]
    _same(fragments[0], fragments[1], base, seen)


def same_place(target: str, value: str, base: str) -> bool:
    """Whether a browser that was sent to the target is where the value of an `href` would have led it."""
    value = value.strip("".join(map(chr, range(33)))).translate(dict.fromkeys(map(ord, "\t\r\n")))
    if base and not re.match("[A-Za-z][A-Za-z0-9+.-]*:", value):
        value = urljoin(base, value)
    return _canonical(target) == _canonical(quote(value, safe=_PRINTABLE))


def _canonical(url: str) -> str:
    """Without segments of dots (url.spec.whatwg.org 4.4)."""
    parts = urlsplit(url)
    path: list[str] = []
    for segment in parts.path.split("/"):
        if segment == "..":
            path = path[:-1] if len(path) > 1 else path
        elif segment != ".":
            path.append(segment)
    end = "/" if parts.path.endswith(("/.", "/..")) else ""
    return urlunsplit(parts._replace(path="/".join(path).rstrip("/") + end if end else "/".join(path) or "/"))
