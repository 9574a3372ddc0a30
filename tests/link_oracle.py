"""A judge of changed messages that shares no code with what changed them: the email package and html.parser.

Knows only what may differ: the `href` of `a` and `area` in HTML parts, transfer encodings, and line ends within fields.
"""

from __future__ import annotations

import email
import html
import re
from email.message import Message as Parsed
from html.parser import HTMLParser

from postmeter.token import Mint

HOST = "click.example.com"
BASE = f"https://{HOST}"
MINT = Mint([bytes(range(32))])
_CODING = ("content-transfer-encoding", "mime-version")
_OURS = re.compile(rb"https://click\.example\.com/c/([A-Za-z0-9_-]+)")


def assert_only_links_differ(before: bytes, after: bytes) -> int:
    """How many links are tracked in `after`; an AssertionError when anything else differs."""
    old, new = list(_parts(before)), list(_parts(after))
    assert len(old) == len(new)
    total = 0
    for one, other in zip(old, new, strict=True):
        total += _compare(one, other)
    return total


def hrefs(document: bytes) -> list[str]:
    """The `href` values of `a` and `area` as html.parser understands them, first one of each tag."""
    parser = _Hrefs()
    parser.feed(document.decode("latin-1"))
    parser.close()
    return parser.found


def _parts(raw: bytes) -> list[Parsed]:
    return list(email.message_from_bytes(raw).walk())


def _compare(one: Parsed, other: Parsed) -> int:
    assert _header(one) == _header(other)
    assert (one.preamble, one.epilogue) == (other.preamble, other.epilogue)
    if one.is_multipart() or one.get_payload() == other.get_payload():
        return 0
    before, after = _decoded(one), _decoded(other)
    if before == after:
        return 0
    assert one.get_content_type() == "text/html"
    return compare_documents(before, after)


def _header(part: Parsed) -> list[tuple[str, str]]:
    """The header without what says how the part is encoded."""
    left = [(name, value) for name, value in part.items() if name.lower() not in _CODING]
    return [(name, re.sub(r"\r?\n(?=[ \t])", "", str(value))) for name, value in left]


def _decoded(part: Parsed) -> bytes:
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload


def compare_documents(old: bytes, new: bytes) -> int:
    """Decoded HTML: equal but for href values, and each tracked link leads where the old value led."""
    pieces = _OURS.split(new)
    literal, tokens = pieces[::2], pieces[1::2]
    pattern = b"([^>\"]*?)".join(re.escape(piece) for piece in literal)
    found = re.fullmatch(pattern, old, re.DOTALL)
    assert found, "more than href values changed"
    was = hrefs(old)
    for token, value in zip(tokens, found.groups(), strict=True):
        link = MINT.open_link(HOST, token.decode())
        assert link is not None
        plain = html.unescape(value.decode("latin-1"))
        assert plain in was, value
        if value.isascii() and " " not in plain.strip():
            assert link.target == plain.strip().translate(dict.fromkeys(map(ord, "\t\r\n")))
    left = [href for href in hrefs(new) if not href.startswith(BASE + "/c/")]
    assert len(left) + len(tokens) == len(was)
    return len(tokens)


class _Hrefs(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = [value for name, value in attrs if name == "href"]
        if tag in ("a", "area") and values:
            self.found.append(values[0] or "")
