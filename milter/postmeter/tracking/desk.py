"""The desk of the tracking server: gives every request its answer and has the hit written down.

Needs no database and fetches nothing: a token holds its target, and only those who know a secret can make one. Whatever
is not a token of ours on a host of ours gets the same small 404. Knows no connections, which are `web`'s, and judges
nobody: it writes what it saw, and `books` tells people from robots. Pages that a person reads and acts on are others'
business: they are registered by the first letters of their path, and only there a request may carry a body (POST).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeAlias
from urllib.parse import unquote

from postmeter.config.schema import Config
from postmeter.token import Link, Mint, host_name, host_of
from postmeter.tracking import answers
from postmeter.tracking.answers import Answer
from postmeter.tracking.blocked import Blocklist
from postmeter.tracking.clients import Clients
from postmeter.tracking.hits import SEEN, Hit, Hits

_HOSTS = 1024  # spellings of host names that are remembered
_LONGEST = 300  # characters of one; a name has 253 at most, and there may be a port
_BEHIND = ".,:;!?'\"*~|()[]<>{}\\`"  # what programs may take for the end of a URL in text; none of it is in a token
_ABSOLUTE = re.compile(r"(?i:https?)://([^/?]*)([^?]*)")  # RFC 9112 section 3.2.2; no host of ours has an @


class Fields(Protocol):
    """A request's header, in which case does not matter."""

    def __contains__(self, name: object) -> bool: ...

    def __getitem__(self, name: str) -> str: ...

    def get(self, name: str, default: str) -> str: ...

    def getall(self, name: str, default: tuple[str, ...]) -> list[str] | tuple[str, ...]: ...


class Request(Protocol):
    """As much of a request as an answer depends on; aiohttp's has it."""

    @property
    def method(self) -> str: ...

    @property
    def raw_path(self) -> str: ...

    @property
    def headers(self) -> Fields: ...

    @property
    def remote(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Site:
    """What a configuration makes of us: our secrets, the hosts we answer for, the proxies we believe."""

    mint: Mint
    hosts: frozenset[str]
    clients: Clients


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A request for a page. `token` is what follows the page's prefix, `host` one of ours, `languages` the field
    Accept-Language, `kind` the body's Content-Type; `secure` when it came by TLS as far as we know."""

    method: str
    host: str
    token: str
    languages: str
    kind: str
    body: bytes
    address: str
    secure: bool


Page: TypeAlias = Callable[[Visit, Site], Answer]
Plain: TypeAlias = Callable[[Answer, str], Answer]
"""Makes of an answer that says no a page in one of these languages (Accept-Language), for who can show one (Accept)."""


def hosts(config: Config) -> frozenset[str]:
    """The hosts of every tracking.url, and those of earlier days."""
    overrides = [*config.tracking.domains.values(), *config.tracking.logins.values()]
    urls = [config.tracking.url, *(keys.get("url") for keys in overrides)]
    return frozenset([*(host_of(str(url)) for url in urls if url), *(host_name(name) for name in config.web.hosts)])


class Desk:
    """Gives every request its answer. `pages` by the first letters of their path, such as `/u/`."""

    def __init__(
        self,
        site: Site,
        blocklist: Blocklist,
        hits: Hits,
        *,
        pages: Mapping[str, Page] | None = None,
        plain: Plain = lambda answer, languages: answer,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._blocklist = blocklist
        self._hits = hits
        self._pages = dict(pages or {})
        self._plain = plain
        self.now = now
        self.take(site)

    def take(self, site: Site) -> None:
        """From now on answer as this site."""
        self._site = site
        self._known = lru_cache(maxsize=_HOSTS)(self._own_host)

    def reads(self, request: Request) -> bool:
        """Whether this request's body matters."""
        return request.method == "POST" and _asked(request)[1][:3] in self._pages

    def answer(self, request: Request, *, secure: bool = False, body: bytes = b"") -> Answer:
        """`secure`: it came by TLS; `body`: all of it, where it matters."""
        answer = self._answer(request, secure, body)
        nowhere = answer is answers.NOT_FOUND or answer is answers.GONE
        if nowhere and "text/html" in request.headers.get("Accept", ""):
            return self._plain(answer, request.headers.get("Accept-Language", ""))
        return answer

    def _answer(self, request: Request, secure: bool, body: bytes) -> Answer:
        name, path = _asked(request)
        prefix = path[:3]
        if prefix in self._pages:
            return self._page(request, name, path, secure=secure, body=body)
        if request.method not in ("GET", "HEAD"):
            return answers.NOT_FOUND
        if prefix == "/c/":
            return self._link(request, self._host(name), path[3:], secure=secure)
        if prefix == "/o/":
            return self._open(request, self._host(name), path[3:], secure=secure)
        return answers.HEALTHY if path == "/healthz" else answers.NOT_FOUND

    def _link(self, request: Request, host: str, token: str, *, secure: bool) -> Answer:
        token = (unquote(token) if "%" in token else token).rstrip(_BEHIND)
        link = self._site.mint.open_link(host, token) if host else None
        if link is None:
            return answers.NOT_FOUND
        if self._blocklist.now.covers(link.reference, link.target):
            return answers.GONE
        answer = answers.redirect(link.target)
        if answer is not answers.NOT_FOUND:
            self._keep("click", request, link, host, secure)
        return answer

    def _open(self, request: Request, host: str, token: str, *, secure: bool) -> Answer:
        opened = self._site.mint.open_open(host, unquote(token) if "%" in token else token) if host else None
        if opened is None:
            return answers.NOT_FOUND
        if self._blocklist.now.covers(opened.reference, ""):
            return answers.GONE
        self._keep("open", request, opened, host, secure)
        return answers.IMAGE

    def _page(self, request: Request, name: str, path: str, *, secure: bool, body: bytes) -> Answer:
        host = self._host(name)
        if not host or request.method not in ("GET", "HEAD", "POST"):
            return answers.NOT_FOUND
        headers = request.headers
        visit = Visit(
            method=request.method,
            host=host,
            token=unquote(path[3:]),
            languages=headers.get("Accept-Language", ""),
            kind=headers.get("Content-Type", ""),
            body=body,
            address=self._address(request),
            secure=self._secure(request, secure),
        )
        return self._pages[path[:3]](visit, self._site)

    def _keep(self, kind: str, request: Request, link: Link, host: str, secure: bool) -> None:
        headers = request.headers
        hit = Hit(
            kind=kind,
            time=self.now(),
            reference=link.reference,
            link=link.link,
            recipient=link.recipient,
            target=link.target,
            host=host,
            method=request.method,
            address=self._address(request),
            agent=headers.get("User-Agent", ""),
            secure=self._secure(request, secure),
            fields=tuple([(name, headers[name]) for name in SEEN if name in headers]),
        )
        self._hits.keep(hit)

    def _address(self, request: Request) -> str:
        forwarded = ",".join(request.headers.getall("X-Forwarded-For", ()))
        return self._site.clients.address(request.remote or "", forwarded)

    def _secure(self, request: Request, secure: bool) -> bool:
        proto = request.headers.get("X-Forwarded-Proto", "")
        return self._site.clients.secure(request.remote or "", proto, secure) if proto else secure

    def _host(self, name: str) -> str:
        """The name of a host of ours, or nothing. What strangers make up is remembered, so no more than it may have."""
        return self._known(name) if len(name) <= _LONGEST else ""

    def _own_host(self, header: str) -> str:
        try:
            name = host_name(header)
        except ValueError:
            return ""
        return name if name in self._site.hosts else ""


def _asked(request: Request) -> tuple[str, str]:
    """The host that is asked, as it was written, and the path without parameters: gateways add some, a token has none.

    A target that names its host is asked of that one, and what the field Host says of it is not heard. Two such fields
    name none: a proxy may have looked at the other one.
    """
    target = request.raw_path
    absolute = None if target.startswith("/") else _ABSOLUTE.match(target)
    if absolute:
        return absolute[1], absolute[2]
    names = request.headers.getall("Host", ())
    return names[0] if len(names) == 1 else "", target.partition("?")[0]
