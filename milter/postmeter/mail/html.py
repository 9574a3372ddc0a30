"""What a page of HTML holds for tracking: where the values of `href` lie, as a browser's tokenizer would find them.

Knows nothing of where a link leads. Works on octets of any charset that keeps ASCII where it is, and follows the HTML
standard's tokenization (html.spec.whatwg.org, section 13.2.5). What a browser takes for text, for a comment or for the
value of another attribute holds no link, but for what Outlook reads: conditional comments, and VML (the element
`v:roundrect` and its like). Where browsers and mail programs could differ it finds fewer links. Linear in the input,
whatever the input: a tag, a comment and a text are each read once, and no pattern repeats a repetition without a bound.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from html.entities import html5
from typing import NamedTuple

from postmeter.mail.coding import content_end

_WS = rb"[\t\n\f\r ]"
_AT_ONCE = rb"{0,500}"  # the matcher keeps a frame for each repetition: this bounds them
_NAME = rb"(?=[\t\n\f\r />])"
_RAW = rb"(?i:script|style|title|textarea|xmp|iframe|noembed|noframes|plaintext)" + _NAME
_LINK = rb"(?:[aA]|[aA][rR][eE][aA]|[vV]:[a-zA-Z]+)" + _NAME
_VALUE = rb"(?:\"[^\"]*+\"|'[^']*+'|[a-zA-Z0-9#%_.:-]++(?=[\t\n\f\r >]))"
_PLAIN_NAME = (  # end tags, and start tags whose first letters tell that they are none of those in _TOKEN
    rb"(?:/[ac-zAC-Z]|/[bB](?![oO])|[tT](?![iIeE])|[c-hj-loqruwyzC-HJ-LOQRUWYZ]|[pP](?![lL])|[sS](?![cCvV]|[tT][yY])"
    rb"|[iI](?![fF])|[mM](?![aA])|[nN](?![oO])|[aA](?![\t\n\f\r />rR])|[bB](?![aA][sS])|[vV](?!:))[a-zA-Z0-9:-]*+"
)
_PLAIN_END = rb"(?:" + _WS + rb"++[a-zA-Z:_-]++=" + _VALUE + rb")" + _AT_ONCE + rb"[\t\n\f\r /]*+>"
_PLAIN = (  # text and tags as most are written; whatever it does not match is read at leisure
    rb"[^<]*+(?:<(?:/[ac-zAC-Z][a-zA-Z0-9]*+>|" + _PLAIN_NAME
    + rb"(?:>|" + _WS + rb"++[a-zA-Z:_-]++=\"[^\"]*+\"(?:>|" + _PLAIN_END + rb")|" + _PLAIN_END + rb")"
    + rb"|(?![a-zA-Z/!?]))[^<]*+)" + _AT_ONCE
)
_OTHER = (  # an attribute beside the `href` of a link, and none of _SWITCHES
    rb"(?:" + _WS + rb"++(?!(?i:href|ses:no-track|data-pm-no-track|clicktracking)=)[a-zA-Z:_-]++=" + _VALUE + rb")"
    + _AT_ONCE
)
_PLAIN_LINK = (  # a link as most are written, and its text where nothing else stands before the end tag
    rb"(<[aA]" + _OTHER + _WS + rb"++(?i:href)=(?:\"([^\"]*+)\"|'([^']*+)')" + _OTHER + _WS + rb"*+>)"
    + rb"(?:([^<&]{0,4000}+)</[aA]>)?"
)
_TO_LINK = re.compile(_PLAIN + rb"(?:" + _PLAIN_LINK + rb")?")
_TOKEN = re.compile(
    rb"<(?:(?P<link>" + _LINK + rb")|(?P<raw>" + _RAW + rb")|(?P<comment>!--)|(?P<cdata>!\[CDATA\[)"
    rb"|(?P<foreign>(?i:svg|math)" + _NAME + rb")|(?P<base>(?i:base)" + _NAME + rb")|(?P<body>/(?i:body)" + _NAME
    + rb")|/?(?P<tag>[a-zA-Z])|(?P<bogus>[!?/]))"
)
_TAG_NAME = re.compile(rb"</?[^\t\n\f\r />]++")
_ATTRIBUTE = re.compile(
    rb"[\t\n\f\r /]*+(?:(?P<end>>)|(?P<name>[^\t\n\f\r />][^\t\n\f\r />=]*+)"
    rb"(?:" + _WS + rb"*+=" + _WS + rb"*+"
    rb"(?:\"(?P<double>[^\"]*+)(?:\"|\Z)|'(?P<single>[^']*+)(?:'|\Z)|(?P<bare>[^\t\n\f\r \"'>][^\t\n\f\r >]*+))?)?)"
)
_SCRIPT = re.compile(rb"<(?i:script)" + _NAME)
_COMMENT_START = re.compile(rb"<!---?>")
_COMMENT_END = re.compile(rb"--!?>")
_CONDITION = re.compile(rb"<!--\[(?i:if)[\t\n\r (!][^\]<>]{1,200}+\]>")
_CONDITION_END = b"<![endif]"
_UNSURE = re.compile(rb"<(?i:svg|math|template|select|noscript|frameset)" + _NAME)  # within them a base may be none
_SWITCHES = (b"ses:no-track", b"data-pm-no-track", b"clicktracking")
_TEXT_END = re.compile(rb"</?[aA]" + _NAME)
_SHAPE_END = re.compile(rb"</[vV]:|</?[aA]" + _NAME)
_MARKUP = re.compile(rb"<[^<>]*+>")
_LONGEST_TEXT = 4096  # nobody shows a longer URL

_REFERENCE = re.compile(
    r"&(?:#(?P<decimal>[0-9]+);?|#[xX](?P<hex>[0-9a-fA-F]+);?|(?P<name>[0-9A-Za-z]+)(?P<mark>;?)(?P<equals>=?))"
)


class Link(NamedTuple):  # one a link, of which a page has many: made in a third of a dataclass's time
    """A start tag, html[tag:after], and where the value of its first `href` is, without quotes."""

    tag: int
    value: tuple[int, int]
    after: int
    text_end: int = -1
    """Where the text behind the tag ends, if that is text alone and then the end tag; else -1."""
    switches: tuple[tuple[int, int], ...] = ()
    """Attributes by which senders tell services like this one not to track the link: what is to be removed of them."""


@dataclass(slots=True)
class Page:
    """What one reading found, in order. `base` is the value of the document's `base`, none where that is not sure."""

    links: list[Link] = field(default_factory=list)
    base: tuple[int, int] | None = None
    end: int = -1
    """Where something can be put that shall come last: before the last `</body>`, or before the document's last line
    ends; -1 where that would be within a comment, a tag or a text."""


def read(document: bytes, *, most: int) -> Page:
    """The links of `a`, `area` and VML tags, `most` of them, and where the page ends."""
    reader = _Reader(document, most)
    ends = reader.read(0, len(document))
    if ends and reader.page.end < 0:
        reader.page.end = content_end(document, 0, len(document))
    return reader.page


class _Reader:
    """One reading. Places are -1 where what begins there does not end."""

    __slots__ = ("_bases", "_document", "_foreign", "_most", "page")

    def __init__(self, document: bytes, most: int) -> None:
        self._document = document
        self._most = most
        self._bases = 0
        self._foreign = False
        self.page = Page()

    def read(self, at: int, end: int, *, hidden: bool = False) -> bool:
        """From one place to another; whether the last thing there ends. `hidden`: only Outlook reads this."""
        document, links = self._document, self.page.links
        while at < end:
            plain = _TO_LINK.match(document, at, end)
            at = plain.end() if plain else end
            if plain and plain.lastindex:
                _, (tag, after), double, single, (_, text_end) = plain.regs
                if len(links) < self._most:
                    links.append(Link(tag, single if double[0] < 0 else double, after, text_end))
                continue
            token = _TOKEN.match(document, at, end)
            if token is None:  # the end, or the bound on repetitions
                continue
            at = self._link(token, end) if token["link"] else self._other(token, end, hidden=hidden)
            if at < 0:
                return False
        return True

    def _link(self, tag: re.Match[bytes], end: int) -> int:
        """Behind the tag, whose link is kept if it has one."""
        after, href, switches = self._attributes(tag.end(), end)
        if after >= 0 and href and len(self.page.links) < self._most:
            self.page.links.append(Link(tag.start(), href, after, switches=tuple(switches)))
        return after

    def _attributes(self, at: int, end: int) -> tuple[int, tuple[int, int] | None, list[tuple[int, int]]]:
        """Behind the tag; the value of its first `href`; its switches. A tag that does not end, a browser drops."""
        href: tuple[int, int] | None = None
        switches: list[tuple[int, int]] = []
        while found := _ATTRIBUTE.match(self._document, at, end):
            at = found.end()
            if found["end"]:
                return at, href, switches
            name = found["name"].lower()
            if name in _SWITCHES:
                if name != b"clicktracking" or _value(found).lower() == b"off":
                    switches.append(_switch_span(found))
            elif name == b"href" and href is None:
                href = _value_span(found)
        return -1, None, []

    def _other(self, token: re.Match[bytes], end: int, *, hidden: bool) -> int:
        """Where the reading goes on behind a token that is no link."""
        at = token.start()
        if token["comment"]:
            return self._comment(at, end, hidden=hidden)
        if token["cdata"]:  # text in HTML, one piece in SVG: skipped to the later of the two ends
            return self._behind(b"]]>", at, end)
        if token["bogus"]:
            return self._behind(b">", at, end)
        if token["base"]:
            return self._base(token, end, hidden=hidden)
        if token["body"] and not hidden:
            self.page.end = at
        self._foreign = self._foreign or token["foreign"] is not None
        after = self._tag_end(at, end)
        return self._raw_end(token["raw"], after, end) if token["raw"] and after >= 0 else after

    def _comment(self, at: int, end: int, *, hidden: bool) -> int:
        """Behind the comment; what stands under a condition in it is read, where all readers see its end."""
        document = self._document
        if empty := _COMMENT_START.match(document, at, end):
            return empty.end()
        close = _COMMENT_END.search(document, at + 4, end)
        if not close:
            return -1
        condition = None if hidden else _CONDITION.match(document, at, close.start())
        if condition:
            stop = close.start() - len(_CONDITION_END)
            within = document[condition.end() : stop].find(b"<!--") < 0
            if within and document[stop : close.start()].lower() == _CONDITION_END:
                self.read(condition.end(), stop, hidden=True)
        return close.end()

    def _base(self, tag: re.Match[bytes], end: int, *, hidden: bool) -> int:
        """Browsers take the first one (section 4.2.3); of two, or where they may see none, none is sure."""
        after, href, _ = self._attributes(tag.end(), end)
        if after >= 0 and href:
            sure = not (self._bases or hidden or _UNSURE.search(self._document, 0, tag.start()))
            self.page.base = href if sure else None
            self._bases += 1
        return after

    def _tag_end(self, at: int, end: int) -> int:
        name = _TAG_NAME.match(self._document, at, end)
        at = name.end() if name else at
        while found := _ATTRIBUTE.match(self._document, at, end):
            at = found.end()
            if found["end"]:
                return at
        return -1

    def _raw_end(self, name: bytes, at: int, end: int) -> int:
        """Behind the end tag of an element that holds only text; a script that holds `<!-- <script` may end later.

        In SVG and MathML they hold markup (section 13.2.6.5): where that differs, what follows is not read.
        """
        document = self._document
        if name.lower() == b"plaintext":
            return -1
        found = re.compile(rb"</" + name + _NAME, re.IGNORECASE).search(document, at, end)
        if not found:
            return -1
        comment = document.find(b"<!--", at, found.start()) if name.lower() == b"script" else -1
        if comment >= 0 and _SCRIPT.search(document, comment, found.start()):
            return -1
        if self._foreign and document.find(b"<", at, found.start()) >= 0:
            return -1
        return self._tag_end(found.start(), end)

    def _behind(self, mark: bytes, at: int, end: int) -> int:
        found = self._document.find(mark, at, end)
        return -1 if found < 0 else found + len(mark)


def _value_span(attribute: re.Match[bytes]) -> tuple[int, int]:
    for kind in ("double", "single", "bare"):
        if attribute[kind] is not None:
            return attribute.span(kind)
    return attribute.end(), attribute.end()


def _switch_span(attribute: re.Match[bytes]) -> tuple[int, int]:
    """With the space before it, which stays where the two neighbours would become one."""
    start, end = attribute.span()
    apart = attribute.string[end : end + 1] in b"\t\n\f\r >"
    return start if apart else attribute.start("name"), end


def _value(attribute: re.Match[bytes]) -> bytes:
    start, end = _value_span(attribute)
    return attribute.string[start:end]


def visible_text(document: bytes, link: Link) -> bytes:
    """What a reader sees of the link, as far as it matters: no markup, references decoded, into UTF-8."""
    if link.text_end >= 0:
        return document[link.after : link.text_end].strip()
    name = document[link.tag + 1 : link.tag + 3].lower()
    if name == b"ar":  # area
        return b""
    stop = min(len(document), link.after + _LONGEST_TEXT)
    found = (_SHAPE_END if name == b"v:" else _TEXT_END).search(document, link.after, stop)
    stop = found.start() if found else stop
    text = document[link.after : stop]
    text = _MARKUP.sub(b"", text) if b"<" in text else text
    if b"&" in text:
        text = html.unescape(text.decode("ascii", "surrogateescape")).encode("utf-8", "surrogateescape")
    return text.strip()


def attribute_text(value: str) -> str:
    """An attribute's value with its character references decoded (section 13.2.5.73).

    Unlike in text, a name without ";" is none when "=" or a letter or digit follows: `&copy=1` is a parameter.
    """
    references = value.count("&")
    if references == value.count("&amp;"):  # as most are, or none
        return value.replace("&amp;", "&")
    return _REFERENCE.sub(_decoded, value)


def _decoded(found: re.Match[str]) -> str:
    name = found["name"]
    if name is None:
        digits = found["decimal"] or found["hex"]
        return _numbered(digits, 10 if found["decimal"] else 16)
    if found["mark"]:
        return html5[name + ";"] + found["equals"] if name + ";" in html5 else found[0]
    return html5[name] if not found["equals"] and name in html5 else found[0]


def _numbered(digits: str, base: int) -> str:
    """The character of a numeric reference (section 13.2.5.80); html.unescape drops some that browsers keep."""
    digits = digits.lstrip("0") or "0"
    number = int(digits, base) if len(digits) < 8 else 0
    if number == 0 or number > 0x10FFFF or 0xD800 <= number < 0xE000:
        return "\ufffd"
    return (bytes([number]).decode("cp1252", "ignore") if 0x80 <= number < 0xA0 else "") or chr(number)
