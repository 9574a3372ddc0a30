"""One HTTP call of a webhook: a signed POST, and the status of its answer.

RFC 9110 by http.client: certificates are verified, redirects are not followed, proxies are not used, and of the answer
nothing but its status is read. Knows nothing of events or of when a call is made.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, parse_headers
from socket import SHUT_RDWR, socket
from threading import Event, Timer
from urllib.parse import quote, urlsplit

from postmeter import __version__

CONTENT_TOO_LARGE = 413  # RFC 9110 section 15.5.14

_PATIENCE = 10.0  # seconds for each step
_LONGEST = 30.0  # seconds for the whole call; a server that sends a byte now and then is cut off
_BEFORE = range(102, 200)  # 101 is an answer: the server changes to another protocol
_URL = "!#$%&'()*+,/:;=?@[]~"  # what a path may hold already (RFC 3986 section 2.2)


class CallError(Exception):
    """The call did not arrive, or was not answered with a status."""


class _Answer(HTTPResponse):
    """Passes over what a server says before it answers (RFC 9110 section 15.2), as http.client does with 100 alone."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            said: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]  # typeshed does not tell of it
            if said[1] not in _BEFORE:
                return said
            parse_headers(self.fp)


def headers(body: bytes, *, secret: bytes, now: float) -> dict[str, str]:
    """With a signature over time stamp, a dot and body, where there is a secret."""
    named = {
        "Content-Type": "application/json",
        "User-Agent": f"postmeter/{__version__}",
        "X-Postmeter-Timestamp": str(int(now)),
    }
    if secret:
        mac = hmac.new(secret, f"{int(now)}.".encode() + body, hashlib.sha256).hexdigest()
        named["X-Postmeter-Signature"] = f"sha256={mac}"
    return named


def post(url: str, body: bytes, named: dict[str, str]) -> int:
    """The status of the answer, whatever it is."""
    parts = urlsplit(url)
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_URL)
    link = _connection(parts.scheme, parts.hostname or "", parts.port)
    link.response_class = _Answer
    late, status = Event(), 0
    end = Timer(_LONGEST, _cut, (link, late))
    end.daemon = True
    end.start()
    try:
        link.connect()
        if not late.is_set():  # or else nobody would cut it off any more
            status = _ask(link, target, body, named)
    except (OSError, HTTPException, UnicodeError) as error:
        raise CallError(str(error) or type(error).__name__) from error
    finally:
        end.cancel()
        link.close()
    if late.is_set():  # or else what was cut off would pass for an answer
        raise CallError(f"no whole answer within {_LONGEST:g} s")
    return status


def _ask(link: HTTPConnection, target: str, body: bytes, named: dict[str, str]) -> int:
    """Who takes no such body may say so and hang up before it has all of it (RFC 9110 section 15.5.14)."""
    try:
        link.request("POST", target, body, named)
    except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
        status = _status(link.getresponse())
        if 200 <= status < 300:
            raise
        return status
    return _status(link.getresponse())


def _status(answer: HTTPResponse) -> int:
    """With Retry-After a 413 is no word on this body: less is taken just now (RFC 9110 section 15.5.14)."""
    if answer.status == CONTENT_TOO_LARGE and answer.getheader("Retry-After") is not None:
        raise CallError(f"answered {answer.status}, for a while (Retry-After)")
    return answer.status


def _connection(scheme: str, host: str, port: int | None) -> HTTPConnection:
    """The port is given in any case: http.client would look for one in an IPv6 address."""
    if scheme == "https":
        context = ssl.create_default_context()
        return HTTPSConnection(host, port or HTTPSConnection.default_port, timeout=_PATIENCE, context=context)
    return HTTPConnection(host, port or HTTPConnection.default_port, timeout=_PATIENCE)


def _cut(link: HTTPConnection, late: Event) -> None:
    """Not by close(2), which would leave another thread waiting, nor with a TLS farewell, which would wait itself."""
    late.set()
    with suppress(OSError):
        if link.sock is not None:
            socket.shutdown(link.sock, SHUT_RDWR)
