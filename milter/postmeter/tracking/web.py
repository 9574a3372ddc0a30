"""`postmeter web`: answers tracked links with a redirect to what their tokens say, and writes down that it did.

Needs no database and fetches nothing: a token holds its target, and only those who know a secret can make one. Knows
nothing of messages, DKIM keys or the journal; runs as a user who may read none of them. Whatever is not a link of ours
on a host of ours gets the same small 404. No request is logged, for a token is as good as the link.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from aiohttp import web

from postmeter.config.schema import Config
from postmeter.runtime.logs import OnceAMinute
from postmeter.token import Link, Mint, host_name, host_of
from postmeter.tracking import answers
from postmeter.tracking.answers import Answer
from postmeter.tracking.blocked import Blocklist
from postmeter.tracking.clients import Clients
from postmeter.tracking.hits import Hit, Hits

log = logging.getLogger(__name__)
once = OnceAMinute(log)

_TEND = 1.0  # seconds; a block must take effect within five
_DRAIN = 5.0  # seconds for answers in flight at the end; they take a millisecond
_HOSTS = 1024  # spellings of host names that are remembered
_MOST_UNSENT = 64 * 1024  # bytes that may wait for a client that does not read

_SILENT = logging.getLogger(f"{__name__}.aiohttp")
_SILENT.disabled = True  # it would log parts of requests


@dataclass(frozen=True, slots=True)
class Site:
    """What a configuration makes of us: our secrets, the hosts we answer for, the proxies we believe."""

    mint: Mint
    hosts: frozenset[str]
    clients: Clients


def hosts(config: Config) -> frozenset[str]:
    """The hosts of every tracking.url, and those of earlier days."""
    overrides = [*config.tracking.domains.values(), *config.tracking.logins.values()]
    urls = [config.tracking.url, *(keys.get("url") for keys in overrides)]
    return frozenset([*(host_of(str(url)) for url in urls if url), *(host_name(name) for name in config.web.hosts)])


class Desk:
    """Gives every request its answer."""

    def __init__(self, site: Site, blocklist: Blocklist, hits: Hits, *, now: Callable[[], float] = time.time) -> None:
        self._blocklist = blocklist
        self._hits = hits
        self._now = now
        self.take(site)

    def take(self, site: Site) -> None:
        """From now on answer as this site."""
        self._site = site
        self._host = lru_cache(maxsize=_HOSTS)(self._own_host)

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if isinstance(request.protocol, Connection):
            request.protocol.asked()
        return Response(self.answer(request), self._now())

    def answer(self, request: web.BaseRequest) -> Answer:
        if request.method not in ("GET", "HEAD"):
            return answers.NOT_FOUND
        path = request.raw_path.partition("?")[0]  # gateways add parameters; a token needs none
        if path.startswith("/c/"):
            return self._link(request, path[3:])
        return answers.HEALTHY if path == "/healthz" else answers.NOT_FOUND

    def _link(self, request: web.BaseRequest, token: str) -> Answer:
        host = self._host(request.headers.get("Host", ""))
        link = self._site.mint.open_link(host, unquote(token) if "%" in token else token) if host else None
        if link is None:
            return answers.NOT_FOUND
        if self._blocklist.now.covers(link.reference, link.target):
            return answers.GONE
        answer = answers.redirect(link.target)
        if answer is not answers.NOT_FOUND:
            self._keep(request, link, host)
        return answer

    def _keep(self, request: web.BaseRequest, link: Link, host: str) -> None:
        forwarded = ",".join(request.headers.getall("X-Forwarded-For", ()))
        hit = Hit(
            time=self._now(),
            reference=link.reference,
            link=link.link,
            recipient=link.recipient,
            target=link.target,
            host=host,
            method=request.method,
            address=self._site.clients.address(request.remote or "", forwarded),
            agent=request.headers.get("User-Agent", ""),
        )
        self._hits.keep(hit)

    def _own_host(self, header: str) -> str:
        """The name of a host of ours, or nothing."""
        try:
            name = host_name(header)
        except ValueError:
            return ""
        return name if name in self._site.hosts else ""


class Response(web.StreamResponse):
    """An answer in aiohttp's hands; it writes itself and leaves aiohttp nothing to add."""

    def __init__(self, answer: Answer, now: float) -> None:
        super().__init__(status=answer.status)
        self._answer = answer
        self._now = now
        self._stays = False

    @property
    def keep_alive(self) -> bool:
        return self._stays

    async def prepare(self, request: web.BaseRequest) -> None:
        transport = request.transport
        if transport is None:
            return
        self._stays = request.keep_alive and not request.can_read_body
        old = request.version < (1, 1)
        transport.write(self._answer.wire(self._now, stays=self._stays, old=old, head=request.method == "HEAD"))
        if transport.get_write_buffer_size() > _MOST_UNSENT:
            await request.writer.drain()

    async def write_eof(self, data: bytes = b"") -> None:
        return


class Connection(web.RequestHandler):
    """aiohttp's connection with bounds: so many bytes, and so much time, for each request."""

    __slots__ = ("got", "limit", "since")

    def __init__(self, server: Server, *, limit: int, timeout: float) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # None is what switches it off
            keepalive_timeout=timeout,
            lingering_time=0,  # a body is not read
            logger=_SILENT,
        )
        self.limit = limit

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.asked()
        super().connection_made(transport)

    def asked(self) -> None:
        """A whole request has come: bytes and time count anew."""
        self.got = 0
        self.since = time.monotonic()

    def data_received(self, data: bytes) -> None:
        self.got += len(data)
        if self.got > self.limit:
            self._refuse()
            return
        try:
            super().data_received(data)
        except Exception as error:  # boundary: asyncio would log the request, once for each; aiohttp 3.8 on `//[`
            self._refuse(error)

    async def start(self) -> None:
        """aiohttp's loop over a connection's requests, which a target that is no URL (`http://xn--/`) can end."""
        try:
            await super().start()
        except Exception as error:  # boundary: as above
            self._refuse(error)

    def _refuse(self, error: Exception | None = None) -> None:
        """The same 404 for what aiohttp cannot be left to answer, and the end of the connection."""
        if error is not None:
            once.log(logging.WARNING, "unreadable", "a request could not be read: %s", type(error).__name__)
        if self.transport is not None:
            self.transport.write(answers.NOT_FOUND.wire(time.time()))
        self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What aiohttp could not read, or a bug of ours: the same 404 to the client, and no word of a request's own."""
        self.close()  # behind this answer
        if status >= 500:
            once.log(logging.ERROR, "request", "a request failed: %r", type(exc).__name__)
        return Response(answers.NOT_FOUND, time.time())


class Server(web.Server):
    """Makes connections with our bounds."""

    def __init__(self, desk: Desk, *, max_request: int, timeout: float) -> None:
        super().__init__(desk.serve)
        self._limit = max_request
        self._timeout = timeout

    def __call__(self) -> Connection:
        return Connection(self, limit=self._limit, timeout=self._timeout)

    def sweep(self) -> None:
        """Cut off who has been asking, or reading, for too long."""
        oldest = time.monotonic() - self._timeout
        for connection in self.connections:
            transport = connection.transport
            if isinstance(connection, Connection) and connection.since < oldest and transport is not None:
                transport.abort()

    async def drain(self) -> None:
        """Answers in flight are finished; who has not asked for anything is let go at once."""
        for connection in self.connections:
            connection.close()
        await self.shutdown(_DRAIN)


async def serve(
    listener: socket.socket, server: Server, *, stop: asyncio.Event, tend: Callable[[], None]
) -> None:
    """Until `stop` is set: then no new connection, and those in flight get their answers. `tend` runs every second."""
    listening = await asyncio.get_running_loop().create_server(server, sock=listener)
    try:
        while not stop.is_set():
            server.sweep()
            tend()
            await _wait(stop)
    finally:
        listening.close()
        await server.drain()


async def _wait(stop: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stop.wait(), _TEND)
    except TimeoutError:
        return
