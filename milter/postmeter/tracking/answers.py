"""What the tracking server answers: a redirect, an image, a small plain page, and the same few headers with each.

Bytes as they go over the wire, and knows nothing of aiohttp, whose own responses cost as much as all the rest of a
redirect and tell its version and Python's. RFC 9110, RFC 9111 (no-store), w3.org/TR/referrer-policy.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from urllib.parse import quote

_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_DROPPED = dict.fromkeys(map(ord, "\t\r\n"))  # as browsers drop them (url.spec.whatwg.org 4.4)
_ABSOLUTE = re.compile(r"(?i:https?)://[!-~]+")

# The address of a tracked link must reach neither the target's owner (Referer) nor a search engine.
_ALWAYS = (
    "\r\nCache-Control: no-store"
    "\r\nReferrer-Policy: no-referrer"
    "\r\nX-Robots-Tag: noindex, nofollow"
    "\r\nX-Content-Type-Options: nosniff"
)

CONTENT = "\r\nContent-Security-Policy: default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""For a page with nothing in it but text (w3.org/TR/CSP3)."""

# The smallest transparent GIF that every program shows: 43 bytes, 1x1 (w3.org/Graphics/GIF/spec-gif89a.txt).
_GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")


@dataclass(frozen=True, slots=True)
class Answer:
    """`fields` are whole header lines, each with CRLF before it."""

    status: int
    reason: str
    fields: str = ""
    page: bytes = b""

    def wire(self, now: float, *, stays: bool = False, old: bool = False, head: bool = False) -> bytes:
        """The bytes, for a connection that `stays`, a client that speaks HTTP/1.0 (`old`), one that asked by HEAD."""
        connection = ("\r\nConnection: keep-alive" if old else "") if stays else "\r\nConnection: close"
        text = (
            f"HTTP/1.1 {self.status} {self.reason}\r\nDate: {_date(int(now))}{_ALWAYS}{self.fields}"
            f"\r\nContent-Length: {len(self.page)}{connection}\r\n\r\n"
        ).encode("ascii")
        return text + self.page if self.page and not head else text


def _page(status: int, reason: str, text: str) -> Answer:
    return Answer(status, reason, f"\r\nContent-Type: text/plain; charset=utf-8{CONTENT}", f"{text}\n".encode())


NOT_FOUND = _page(404, "Not Found", "Not found.")
GONE = _page(410, "Gone", "This link has been disabled.")
HEALTHY = _page(200, "OK", "ok")
IMAGE = Answer(200, "OK", "\r\nContent-Type: image/gif\r\nCross-Origin-Resource-Policy: cross-origin", _GIF)


def redirect(target: str) -> Answer:
    """302 to a target of ours; 404 for what is no absolute http or https URL, whoever signed it."""
    location = located(target)
    return Answer(302, "Found", f"\r\nLocation: {location}") if location else NOT_FOUND


def located(target: str) -> str:
    """The target as a Location field can hold it: ASCII that is printable, everything else as a browser encodes it."""
    if not _ABSOLUTE.fullmatch(target):
        target = quote(target.translate(_DROPPED).strip(" "), safe=_PRINTABLE, errors="replace")
    return target if _ABSOLUTE.fullmatch(target) else ""


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
