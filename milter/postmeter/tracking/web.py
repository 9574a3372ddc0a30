"""Connections of `postmeter web`: HTTP by aiohttp, each request with a bound on its bytes and its time.

Knows nothing of tokens, which are the desk's, of messages, DKIM keys or the journal; runs as a user who may read none
of them. No request is logged, for a token is as good as the link. Several processes may accept from one listener: each
takes some connections at a time, so that none of them gets all of a crowd.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress

from aiohttp import web

from postmeter.runtime.logs import OnceAMinute
from postmeter.tracking import answers
from postmeter.tracking.answers import Answer
from postmeter.tracking.desk import Desk

log = logging.getLogger(__name__)
once = OnceAMinute(log)

_TEND = 1.0  # seconds; a block must take effect within five
_NEW = 1.0  # seconds that somebody who was let in gets for the first request, also at the end
_LOOK = 0.02  # seconds between two looks at them
_DRAIN = 5.0  # seconds for answers in flight at the end; they take a millisecond
_AT_ONCE = 128  # connections let in before the next look at those who are in already
_SHARED = 8  # the same where other processes wait at this door
_MOST_UNSENT = 64 * 1024  # bytes that may wait for a client that does not read
_FULL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})  # accept(2)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"  # RFC 9110 section 10.1.1

_SILENT = logging.getLogger(f"{__name__}.aiohttp")
_SILENT.disabled = True  # it would log parts of requests


class Response(web.StreamResponse):
    """An answer in aiohttp's hands; it writes itself and leaves aiohttp nothing to add."""

    def __init__(self, answer: Answer, now: float, *, last: bool = False) -> None:
        super().__init__(status=answer.status)
        self._last = last
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
        self._stays = request.keep_alive and not request.can_read_body and not self._last
        old = request.version < (1, 1)
        transport.write(self._answer.wire(self._now, stays=self._stays, old=old, head=request.method == "HEAD"))
        if transport.get_write_buffer_size() > _MOST_UNSENT:
            await request.writer.drain()

    async def write_eof(self, data: bytes = b"") -> None:
        return


class Connection(web.RequestHandler):
    """aiohttp's connection with bounds: so many bytes, and so much time, for each request."""

    __slots__ = ("got", "limit", "mute", "secure", "since")

    def __init__(self, server: Server, *, limit: int, timeout: float) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # None is what switches it off
            keepalive_timeout=timeout,
            lingering_time=0,  # a body is not read
            auto_decompress=False,  # a body of a few bytes may say gigabytes, and no client of ours compresses
            max_line_size=limit,  # of all the bytes that a request may have any one line may have most:
            max_field_size=limit,  # cookies that a company sets for all of its hosts come here too
            logger=_SILENT,
        )
        self.limit = limit

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.asked()
        self.mute = True
        self.secure = transport.get_extra_info("sslcontext") is not None
        super().connection_made(transport)

    def asked(self) -> None:
        """A whole request has come: time counts anew, and bytes do where no other request waits behind it."""
        self.mute = False
        if not self._messages:
            self.got = 0
        self.since = time.monotonic()

    def is_new(self) -> bool:
        """It has just come, and has not asked for anything yet."""
        return self.mute and time.monotonic() - self.since < _NEW

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
        if status >= 500 and not isinstance(exc, ConnectionError):  # the client went away, or was cut off
            once.log(logging.ERROR, "request", "a request failed: %r", type(exc).__name__)
        return Response(answers.NOT_FOUND, time.time())


class Server(web.Server):
    """Makes connections with our bounds."""

    def __init__(self, desk: Desk, *, max_request: int, timeout: float) -> None:
        super().__init__(self._serve)
        self._desk = desk
        self._limit = max_request
        self.timeout = timeout
        self.leaving = False
        """From now on every answer is its connection's last."""

    def __call__(self) -> Connection:
        return Connection(self, limit=self._limit, timeout=self.timeout)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        secure = False
        if isinstance(connection, Connection):
            connection.asked()
            secure = connection.secure
        body = await self._body(request) if self._desk.reads(request) else b""
        return Response(self._desk.answer(request, secure=secure, body=body), self._desk.now(), last=self.leaving)

    async def _body(self, request: web.BaseRequest) -> bytes:
        """All of it: the connection's bounds hold for it as for the header, and none of aiohttp's."""
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(_CONTINUE)
        return await request.content.read()

    def sweep(self) -> None:
        """Cut off who has been asking, or reading, for too long."""
        oldest = time.monotonic() - self.timeout
        for connection in self.connections:
            transport = connection.transport
            if isinstance(connection, Connection) and connection.since < oldest and transport is not None:
                transport.abort()

    async def leave(self) -> None:
        """Every answer is its connection's last one; who has just been let in may still ask."""
        self.leaving = True
        await asyncio.sleep(_LOOK)  # for those at the door
        while any(isinstance(connection, Connection) and connection.is_new() for connection in self.connections):
            await asyncio.sleep(_LOOK)

    async def drain(self) -> None:
        """Answers in flight are finished; who has not asked for anything is let go at once."""
        for connection in self.connections:
            connection.close()
        await self.shutdown(_DRAIN)


class Door:
    """Lets connections in from a listener that other processes may share."""

    def __init__(
        self, listener: socket.socket, server: Server, *, tls: ssl.SSLContext | None = None, shared: bool = False
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._server = server
        self._tls = tls
        self._at_once = _SHARED if shared else _AT_ONCE
        self._loop = asyncio.get_running_loop()
        self._coming: set[asyncio.Task[None]] = set()
        self._open = False

    def open(self) -> None:
        self._open = True
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        """No more."""
        self._open = False
        self._loop.remove_reader(self._listener)

    def clear(self) -> None:
        """Those who are still at their handshake are let go."""
        for task in self._coming:
            task.cancel()

    def _accept(self) -> None:
        try:
            for _ in range(self._at_once):
                self._take(self._listener.accept()[0])
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # nobody waits any more, another process was quicker, or the client went away
        except OSError as error:
            if error.errno not in _FULL:
                raise
            once.log(logging.ERROR, "accept", "no more connections just now: %s", error.strerror)
            self._loop.remove_reader(self._listener)
            self._loop.call_later(_TEND, lambda: self.open() if self._open else None)

    def _take(self, link: socket.socket) -> None:
        link.setblocking(False)
        task = self._loop.create_task(self._let_in(link))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)

    async def _let_in(self, link: socket.socket) -> None:
        patience = self._server.timeout if self._tls else None
        try:
            await self._loop.connect_accepted_socket(
                self._server, link, ssl=self._tls, ssl_handshake_timeout=patience, ssl_shutdown_timeout=patience
            )
        except (OSError, EOFError):  # ssl.SSLError is one of them: a client that speaks no TLS, or went away
            link.close()


async def serve(
    listener: socket.socket,
    server: Server,
    *,
    stop: asyncio.Event,
    tend: Callable[[], None],
    tls: ssl.SSLContext | None = None,
    shared: bool = False,
    came: Callable[[], None] = lambda: None,
    left: Callable[[], None] = lambda: None,
) -> None:
    """Until `stop` is set: then no new connection, and those in flight get their answers. `tend` runs every second.

    `shared`: other processes accept from the same listener. `came` is called when we accept, `left` when no more.
    """
    door = Door(listener, server, tls=tls, shared=shared)
    door.open()
    came()
    try:
        while not stop.is_set():
            server.sweep()
            tend()
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _TEND)
    finally:
        door.close()
        left()
        await server.leave()
        door.clear()
        await server.drain()
