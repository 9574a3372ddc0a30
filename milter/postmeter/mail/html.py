"""Links in HTML: where the values of `href` lie, found as a browser's tokenizer would find them.

Knows nothing of where a link leads. Works on octets of any charset that keeps ASCII where it is, and follows the HTML
standard's tokenization (html.spec.whatwg.org, section 13.2.5). What a browser takes for text, for a comment or for the
value of another attribute holds no link. Where browsers and mail programs could differ it finds fewer links. Linear in
the input, whatever the input: a tag, a comment and a text are each read once, and no pattern repeats a repetition
without a bound.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.entities import html5

_WS = rb"[\t\n\f\r ]"
_AT_ONCE = rb"{0,500}"  # the matcher keeps a frame for each repetition: this bounds them
_HAS_LINK = re.compile(rb"<[aA]")
_NAME = rb"(?=[\t\n\f\r />])"
_RAW = rb"(?i:script|style|title|textarea|xmp|iframe|noembed|noframes|plaintext)" + _NAME
_LINK = rb"(?:[aA]|[aA][rR][eE][aA])" + _NAME
_VALUE = rb"(?:\"[^\"]*+\"|'[^']*+'|[a-zA-Z0-9#%_.:-]++(?=[\t\n\f\r >]))"
_PLAIN_NAME = (  # end tags, and start tags whose first letters tell that they are none of those in _TOKEN
    rb"(?:/[a-zA-Z]|[tT](?![iIeE])|[b-hj-loqru-wyzB-HJ-LOQRU-WYZ]|[pP](?![lL])|[sS](?![cCvV]|[tT][yY])|[iI](?![fF])"
    rb"|[mM](?![aA])|[nN](?![oO])|[aA](?![\t\n\f\r />rR]))[a-zA-Z0-9:-]*+"
)
_PLAIN = re.compile(  # text and tags as most are written; whatever it does not match is read at leisure
    rb"[^<]*+(?:<(?:" + _PLAIN_NAME + rb"(?:" + _WS + rb"++[a-zA-Z:_-]++=" + _VALUE + rb")" + _AT_ONCE
    + rb"[\t\n\f\r /]*+>|(?![a-zA-Z/!?]))[^<]*+)" + _AT_ONCE
)
_OTHER = rb"(?:" + _WS + rb"++(?!(?i:href)=)[a-zA-Z:_-]++=" + _VALUE + rb")" + _AT_ONCE
_PLAIN_LINK = re.compile(  # a link as most are written
    rb"<[aA]" + _OTHER + _WS + rb"++(?i:href)=(?:\"([^\"]*+)\"|'([^']*+)')" + _OTHER + _WS + rb"*+>"
)
_TOKEN = re.compile(
    rb"<(?:(?P<link>" + _LINK + rb")|(?P<raw>" + _RAW + rb")|(?P<comment>!--)|(?P<cdata>!\[CDATA\[)"
    rb"|(?P<foreign>(?i:svg|math)" + _NAME + rb")|/?(?P<tag>[a-zA-Z])|(?P<bogus>[!?/]))"
)
_TAG_NAME = re.compile(rb"</?[^\t\n\f\r />]++")
_ATTRIBUTE = re.compile(
    rb"[\t\n\f\r /]*+(?:(?P<end>>)|(?P<name>[^\t\n\f\r />][^\t\n\f\r />=]*+)"
    rb"(?:" + _WS + rb"*+=" + _WS + rb"*+"
    rb"(?:\"(?P<double>[^\"]*+)(?:\"|\Z)|'(?P<single>[^']*+)(?:'|\Z)|(?P<bare>[^\t\n\f\r \"'>][^\t\n\f\r >]*+))?)?)"
)
_COMMENT_START = re.compile(rb"<!---?>")
_COMMENT_END = re.compile(rb"--!?>")
_TEXT_END = re.compile(rb"</?[aA]" + _NAME)
_MARKUP = re.compile(rb"<[^<>]*+>")
_LONGEST_TEXT = 4096  # nobody shows a longer URL

_REFERENCE = re.compile(
    r"&(?:#(?P<decimal>[0-9]+);?|#[xX](?P<hex>[0-9a-fA-F]+);?|(?P<name>[0-9A-Za-z]+)(?P<mark>;?)(?P<equals>=?))"
)


@dataclass(frozen=True, slots=True)
class Link:
    """The value of the first `href` of a start tag: html[start:end], without quotes. `after` is behind the tag."""

    start: int
    end: int
    after: int
    area: bool


def links(document: bytes) -> Iterator[Link]:
    """The `href` values of `a` and `area` start tags, in order."""
    if not _HAS_LINK.search(document):
        return
    at, size, foreign = 0, len(document), False
    while at < size:
        plain = _PLAIN.match(document, at)
        at = plain.end() if plain else size
        token = _TOKEN.match(document, at)
        if token is None:  # the end, or the bound on repetitions
            continue
        if token["link"]:
            link, at = _link(document, token)
            if link:
                yield link
        else:
            foreign = foreign or token["foreign"] is not None
            at = _skip(document, token, foreign=foreign)


def _link(document: bytes, tag: re.Match[bytes]) -> tuple[Link | None, int]:
    """The tag's link, if it has one, and where the tag ends."""
    plain = _PLAIN_LINK.match(document, tag.start())
    if plain:
        return Link(*plain.span(plain.lastindex or 1), plain.end(), False), plain.end()
    href: tuple[int, int] | None = None
    at = tag.end()
    while found := _ATTRIBUTE.match(document, at):
        at = found.end()
        if found["end"]:
            area = tag.end("link") - tag.start("link") > 1
            return (Link(*href, at, area) if href else None), at
        if href is None and found["name"].lower() == b"href":
            href = _value_span(found)
    return None, len(document)  # the tag does not end: a browser drops it


def _value_span(attribute: re.Match[bytes]) -> tuple[int, int]:
    for kind in ("double", "single", "bare"):
        if attribute[kind] is not None:
            return attribute.span(kind)
    return attribute.end(), attribute.end()


def _skip(document: bytes, token: re.Match[bytes], *, foreign: bool) -> int:
    """Where the reading goes on behind a token that holds no link."""
    at = token.start()
    if token["comment"]:
        return _comment_end(document, at)
    if token["cdata"]:  # text in HTML, one piece in SVG: skipped to the later of the two ends
        return _behind(document, b"]]>", at)
    if token["bogus"]:
        return _behind(document, b">", at)
    end = _tag_end(document, at)
    return _raw_end(document, token["raw"], end, foreign=foreign) if token["raw"] else end


def _tag_end(document: bytes, at: int) -> int:
    name = _TAG_NAME.match(document, at)
    at = name.end() if name else at
    while found := _ATTRIBUTE.match(document, at):
        at = found.end()
        if found["end"]:
            return at
    return len(document)


def _raw_end(document: bytes, name: bytes, at: int, *, foreign: bool) -> int:
    """Behind the end tag of an element that holds only text; a script with a comment may end later than it seems.

    In SVG and MathML, `foreign`, they hold markup (section 13.2.6.5): where that differs, what follows is not read.
    """
    if name.lower() == b"plaintext":
        return len(document)
    found = re.compile(rb"</" + name + _NAME, re.IGNORECASE).search(document, at)
    if not found or (name.lower() == b"script" and document.find(b"<!--", at, found.start()) >= 0):
        return len(document)
    if foreign and document.find(b"<", at, found.start()) >= 0:
        return len(document)
    return _tag_end(document, found.start())


def _comment_end(document: bytes, at: int) -> int:
    found = _COMMENT_START.match(document, at) or _COMMENT_END.search(document, at + 4)
    return found.end() if found else len(document)


def _behind(document: bytes, mark: bytes, at: int) -> int:
    """Behind the mark; the end of the document without one."""
    found = document.find(mark, at)
    return len(document) if found < 0 else found + len(mark)


def visible_text(document: bytes, link: Link) -> bytes:
    """What a reader sees of the link, as far as it matters: no markup, references decoded if they are ASCII."""
    if link.area:
        return b""
    found = _TEXT_END.search(document, link.after)
    stop = min(found.start() if found else len(document), link.after + _LONGEST_TEXT)
    text = _MARKUP.sub(b"", document[link.after : stop])
    if b"&" in text:
        text = html.unescape(text.decode("latin-1")).encode("ascii", "replace")
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
