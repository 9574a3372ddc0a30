"""A TLS server's certificate and key, and their renewal while connections go on (RFC 8446, ssl.SSLContext).

Knows nothing of who serves what. A new certificate serves the handshakes that begin after it was read; files that
cannot be read, or do not fit together, change nothing.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from time import monotonic

_AGAIN = 60.0  # seconds after which files that were no good are tried again

Stamp = tuple[tuple[int, int, int], ...]


class Certificate:
    """`context` is for a listener and stays the same object; `renew` is to be called about once a second."""

    def __init__(self, certificate: Path, key: Path, *, clock: Callable[[], float] = monotonic) -> None:
        """OSError, of which ssl.SSLError is one, when they are no good."""
        self._files = (certificate, key)
        self._clock = clock
        self._failed = float("-inf")
        self._seen = self._stamp()
        self.context = self._now = load(certificate, key)
        self.context.sni_callback = self._present  # called whether the client names a host or not

    def renew(self) -> bool:
        """True when new files serve from now on. OSError when there are new ones that are no good."""
        seen = self._stamp()
        failed, now = self._failed, self._clock()
        if seen == self._seen and (failed == float("-inf") or now - failed < _AGAIN):
            return False
        self._seen, self._failed = seen, now
        self._now = load(*self._files)
        self._failed = float("-inf")
        return True

    def _present(self, link: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        link.context = self._now

    def _stamp(self) -> Stamp:
        """What tells one content of the files from the next; empty while one of them is not there."""
        try:
            states = [path.stat() for path in self._files]
        except OSError:
            return ()
        return tuple((state.st_ino, state.st_ctime_ns, state.st_size) for state in states)


def load(certificate: Path, key: Path) -> ssl.SSLContext:
    """A server's context as of now: TLS 1.2 and later, HTTP/1.1. Nobody is asked for a key's password."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate, key, password=str)
    return context
