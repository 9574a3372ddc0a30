"""Unsubscribing on the web (RFC 8058): GET shows a page and changes nothing, POST acts, as often as it comes.

The token is the right to leave, and all that is needed: no cookie, no login, no second question. A POST is thanked for
when the spool has it, and never otherwise: unlike a click, it is the person's own will. Knows nothing of HTML or of
what becomes of a line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from urllib.parse import parse_qsl

from postmeter.mail.address import text
from postmeter.mail.scope import shown
from postmeter.token import Unsubscribe
from postmeter.tracking import answers, pages
from postmeter.tracking.answers import Answer
from postmeter.tracking.desk import Page, Site, Visit
from postmeter.tracking.hits import Hits

PREFIX = "/u/"
KIND = "unsubscribe"
"""Of a line in the spool."""

_ONE_CLICK = ("list-unsubscribe", "one-click")  # RFC 8058 section 3.2
_MOST_PAIRS = 100
_BOUNDARY = re.compile(r'(?i:;\s*boundary=)"?([^";\s]+)')  # RFC 2046 section 5.1.1
_NAME = re.compile(rb'(?im:^content-disposition:[^\r\n]*[;\s]name=)"?([^";\r\n]*)')  # RFC 7578 section 4.2


def page(hits: Hits, *, now: Callable[[], float]) -> Page:
    """Answers for every unsubscribe's token, whether or not the message's links are blocked."""

    def leave(visit: Visit, site: Site) -> Answer:
        said = site.mint.open_unsubscribe(visit.host, visit.token)
        if said is None:
            return answers.NOT_FOUND
        left = shown(said.scope)
        if visit.method != "POST":
            return pages.ask(visit.languages, left)
        if not one_click(visit.kind, visit.body):
            return pages.ask(visit.languages, left, sure=False)
        if not hits.put(line(said, host=visit.host, now=now())):
            return pages.again(visit.languages, left)
        return pages.done(visit.languages, left)

    return leave


def line(said: Unsubscribe, *, host: str, now: float) -> bytes:
    """JSON in ASCII."""
    told = {
        "kind": KIND,
        "time": round(now, 3),
        "reference": said.reference.hex(),
        "recipient": text(said.recipient),
        "scope": said.scope,
        "host": host,
    }
    return json.dumps(told, separators=(",", ":")).encode("ascii")


def one_click(kind: str, body: bytes) -> bool:
    """Whether a body of this Content-Type says List-Unsubscribe=One-Click, in either form that RFC 8058 allows."""
    return any((name.strip().lower(), value.strip().lower()) == _ONE_CLICK for name, value in _pairs(kind, body))


def _pairs(kind: str, body: bytes) -> Iterable[tuple[str, str]]:
    """As a form sends it, also without a Content-Type or with one that says otherwise; or as parts."""
    boundary = _BOUNDARY.search(kind)
    if boundary and kind.strip().lower().startswith("multipart/"):
        return map(_part, body.split(b"--" + boundary[1].encode("utf-8", "replace")))
    try:
        return parse_qsl(body.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_PAIRS)
    except ValueError:  # more than we look at
        return []


def _part(piece: bytes) -> tuple[str, str]:
    head, _, content = piece.partition(b"\r\n\r\n")
    name = _NAME.search(head)
    return name[1].decode("latin-1") if name else "", content.decode("latin-1")
