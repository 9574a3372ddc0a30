"""The metrics page: GET /metrics answers with what a collector gives, as text or OpenMetrics, as the client asks.

Knows nothing of what the figures mean or where they come from. One thread serves, one more a request, none of them
outlives the process. https://prometheus.io/docs/instrumenting/exposition_formats/; RFC 9110 for the rest.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any, TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from postmeter.books.families import Collector
from postmeter.config.schema import InetAddress
from postmeter.runtime.logs import OnceAMinute

_PATIENCE = 10.0  # seconds for a client to send its request and take the answer; Prometheus' own scrape_timeout
_MOST = 50  # connections at a time; of more the oldest goes, however slowly it goes on asking
_FIGURES = re.compile(r"((?i:https?)://[^/?]+)?/metrics(\?.*)?")  # a target may name its host: RFC 9112 section 3.2.2
_ODD = re.compile(  # within Accept; a group repeated by `*+` goes wrong in Debian 12's Python (gh-106052)
    r"version=(?! *(?:[0-9]{1,9}(?:\.[0-9]{1,9}){0,9} *)?(?:[;,]|\Z))"
)
_STOP = 0.1  # seconds between two looks at whether to stop

Render: TypeAlias = Callable[[str], tuple[bytes, str]]
"""From an Accept header to the page and its content type."""

once = OnceAMinute(logging.getLogger(__name__))


class Page:
    """Listens from the moment it is made (OSError: in use, no such address), answers once something is shown."""

    def __init__(self, address: InetAddress) -> None:
        self._lock = threading.Lock()
        self._registry = CollectorRegistry()
        self.address, self._server = address, self._open(address)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def show(self, collector: Collector) -> None:
        """Answer with this collector from now on."""
        registry = CollectorRegistry()
        registry.register(collector)
        with self._lock:
            self._registry = registry

    def move(self, address: InetAddress) -> None:
        """Listen there instead. OSError when that cannot be: then as before."""
        if address == self.address:
            return
        try:
            server = self._open(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or address.port != self.address.port:
                raise
            server = self._open_instead(address)
        else:
            self._server.stop()
        self.address, self._server = address, server

    def close(self) -> None:
        self._server.stop()

    def _open(self, address: InetAddress) -> _Server:
        return _Server(address, lambda accept: self._render(accept))

    def _open_instead(self, address: InetAddress) -> _Server:
        """At another address of our own port, where it may be we who are in the way: 0.0.0.0 takes in 127.0.0.1."""
        self._server.stop()
        try:
            return self._open(address)
        except OSError:
            self._server = self._open(self.address)
            raise

    def _render(self, accept: str) -> tuple[bytes, str]:
        """One at a time: a collector remembers which names it has shown.

        A version that is none would be repeated in the answer's header, or fail: who asks for it gets plain text.
        """
        encode, content_type = choose_encoder("" if _ODD.search(accept) else accept)
        with self._lock:
            return encode(self._registry), content_type


class _Server(ThreadingTCPServer):
    """Not http.server's own class: that one asks the name servers for our name before it listens."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: InetAddress, render: Render) -> None:
        family, _, _, _, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        self.address_family = family
        self.render = render
        self._served: dict[socket.socket, None] = {}
        super().__init__(place, _Handler)  # type: ignore[arg-type]  # an IPv6 place has four parts, and may need all
        self._thread = threading.Thread(target=self.serve_forever, args=(_STOP,), name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more requests."""
        self.shutdown()
        self.server_close()
        self._thread.join()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Or else whoever reaches the page takes every descriptor and thread of the books."""
        for oldest in list(self._served)[: 1 - _MOST]:
            self._served.pop(oldest, None)
            with contextlib.suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
        self._served[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._served.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        once.log(logging.WARNING, "handler", "metrics: a request could not be answered", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE
    server_version = "postmeter"
    sys_version = ""

    def do_GET(self) -> None:
        if not _FIGURES.fullmatch(self.path):
            self._answer(404, b"The figures are at /metrics.\n", "text/plain; charset=utf-8")
            return
        body, content_type = self.server.render(self.headers.get("Accept", ""))
        self._answer(200, body, content_type)

    do_HEAD = do_GET  # noqa: N815  (http.server wants this name)

    def _answer(self, code: int, body: bytes, content_type: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """A scrape every 15 seconds is nothing to tell."""
