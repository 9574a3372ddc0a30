"""The LMTP listener of `bounces.lmtp`: takes messages that came back, and says so when they are on disk.

RFC 2033, RFC 5321; PIPELINING, SIZE, 8BITMIME, SMTPUTF8, ENHANCEDSTATUSCODES. A message ends with CRLF . CRLF and with
nothing else, so that nobody hides a second one in it. Every recipient is taken: who may be believed is decided later,
by those who read. Knows nothing of bounces. A thread a connection: each waits for its own disk, and they are bounded;
when all are taken, one that has brought nothing for a minute makes room.
"""

from __future__ import annotations

import contextlib
import logging
import re
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from postmeter.feedback.arrivals import LARGEST, Arrivals, Draught, Envelope, too_large
from postmeter.runtime.logs import OnceAMinute

once = OnceAMinute(logging.getLogger(__name__))

_SESSIONS = 40  # Postfix's default_destination_concurrency_limit is 20
_PATIENCE = 300.0  # seconds of silence (RFC 5321 section 4.5.3.2)
_HURRY = 60.0  # seconds without a message after which a connection makes room where there is no other
_ROOM = 1.0  # seconds that a new one waits for that
_COMMAND = 4096  # octets of a command line
_CHUNK = 65536
_RECIPIENTS = 1000
_ERRORS = 20  # since the last message; then it is no mail server
_PATH = re.compile(
    rb'(?:FROM|TO):\s*<((?:"(?:[^"\\\x00-\x1f\x7f]|\\[^\x00-\x1f\x7f])*+"|[^<>"\x00-\x1f\x7f])*+)>(.*)',
    re.IGNORECASE | re.DOTALL,
)
_LONGEST = 1024  # octets of a path; RFC 5321 section 4.5.3.1.3 has 256
_SIZE = re.compile(rb"\bSIZE=([0-9]{1,20})\b", re.IGNORECASE)


class Lmtp:
    """Serves until `close`. `bound` listens already and is closed by its owner."""

    def __init__(self, bound: socket.socket, arrivals: Arrivals, *, host: str) -> None:
        self._bound, self._arrivals, self._host = bound, arrivals, host
        self._room = threading.BoundedSemaphore(_SESSIONS)
        self._moved: dict[socket.socket, float] = {}  # when each connection began, or last brought a message
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="lmtp", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more connections. A message that is half here has not been acknowledged, and comes again."""
        self._stopped.set()
        self._thread.join()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                if not select.select([self._bound], [], [], 0.2)[0]:
                    continue
                link, _ = self._bound.accept()
            except OSError as error:  # the client has left, or there are no descriptors for a moment
                once.log(logging.WARNING, "lmtp", "lmtp: %s", error)
                self._stopped.wait(0.1)
                continue
            link.setblocking(True)
            if self._room.acquire(blocking=False) or self._make_room():
                self._begin(link)
            else:
                _refuse(link)

    def _begin(self, link: socket.socket) -> None:
        self._moved[link] = time.monotonic()
        try:
            threading.Thread(target=self._serve, args=(link,), name="lmtp session", daemon=True).start()
        except RuntimeError as error:  # no thread is to be had for a moment
            once.log(logging.WARNING, "threads", "lmtp: %s", error)
            self._end(link)
            _refuse(link)

    def _end(self, link: socket.socket) -> None:
        self._moved.pop(link, None)
        self._room.release()

    def _make_room(self) -> bool:
        """The one that has brought nothing for longest goes, however busy it looks; what it was sending comes again."""
        link, moved = min(dict(self._moved).items(), key=lambda each: each[1], default=(None, 0.0))
        if link is None or time.monotonic() - moved < _HURRY:
            return False
        with contextlib.suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)
        return self._room.acquire(timeout=_ROOM)

    def _serve(self, link: socket.socket) -> None:
        def moved() -> None:
            self._moved[link] = time.monotonic()

        try:
            with link, link.makefile("rb") as lines:
                link.settimeout(_PATIENCE)
                Conversation(lines, link.sendall, self._arrivals, host=self._host, moved=moved).run()
        except OSError:  # it went away, or was silent for too long: what it was not told it has still to do
            pass
        except Exception:  # a bug ends this connection and no other
            once.log(logging.ERROR, "lmtp", "lmtp: bug in a session", exc_info=True)
        finally:
            self._end(link)


def _refuse(link: socket.socket) -> None:
    with contextlib.suppress(OSError), link:
        link.sendall(b"421 4.3.2 too many connections\r\n")


@dataclass(slots=True)
class _LineEnd:
    """Seen in pieces: whether the last octets `ended` a line, so that the next one begins another."""

    tail: bytes = b"\r\n"

    @property
    def ended(self) -> bool:
        return self.tail == b"\r\n"

    def see(self, piece: bytes) -> None:
        self.tail = (self.tail + piece[-2:])[-2:]


class Conversation:
    """One connection. `send` may raise OSError, which ends it; `moved` is called when a message was taken."""

    def __init__(
        self,
        lines: BinaryIO,
        send: Callable[[bytes], None],
        arrivals: Arrivals,
        *,
        host: str,
        moved: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lines, self._send, self._arrivals, self._host, self._clock = lines, send, arrivals, host, clock
        self._moved = moved
        self._greeted = False
        self._errors = 0
        self._sender: str | None = None
        self._recipients: list[str] = []

    def run(self) -> None:
        self._say(f"220 {self._host} LMTP postmeter")
        while self._errors < _ERRORS:
            line = self._lines.readline(_COMMAND)
            if not line:
                return
            if not line.endswith(b"\n"):
                self._skip_line()
                self._wrong("500 5.5.2 line too long")
                continue
            verb, _, rest = line.strip().partition(b" ")
            if verb.upper() == b"QUIT":
                self._say("221 2.0.0 bye")
                return
            self._command(verb.upper(), rest)

    def _command(self, verb: bytes, rest: bytes) -> None:
        known = {b"LHLO": self._lhlo, b"MAIL": self._mail, b"RCPT": self._rcpt, b"DATA": self._data}
        if verb in known:
            known[verb](rest)
        elif verb == b"RSET":
            self._reset()
            self._say("250 2.0.0 ok")
        elif verb in (b"NOOP", b"VRFY"):
            self._say("250 2.0.0 ok" if verb == b"NOOP" else "252 2.0.0 send some mail")
        else:
            self._wrong("500 5.5.1 this is LMTP")  # HELO and EHLO too (RFC 2033 section 4.1)

    def _lhlo(self, rest: bytes) -> None:
        self._reset()
        self._greeted = True
        offers = ["PIPELINING", f"SIZE {LARGEST}", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"]
        self._say(f"250-{self._host}", *(f"250-{offer}" for offer in offers[:-1]), f"250 {offers[-1]}")

    def _mail(self, rest: bytes) -> None:
        found = _path(rest)
        if not self._greeted or self._sender is not None or found is None:
            self._wrong("503 5.5.1 not now" if found else "501 5.5.4 MAIL FROM:<address>")
            return
        size = _SIZE.search(found[2])
        if size and int(size[1]) > LARGEST:
            self._say("552 5.3.4 larger than we take")
            return
        self._sender = _text(found[1])
        self._say("250 2.1.0 ok")

    def _rcpt(self, rest: bytes) -> None:
        found = _path(rest)
        if self._sender is None or found is None or not found[1]:
            self._wrong("503 5.5.1 MAIL first" if self._sender is None else "501 5.5.4 RCPT TO:<address>")
        elif len(self._recipients) >= _RECIPIENTS:
            self._say("452 4.5.3 too many recipients")
        else:
            self._recipients.append(_text(found[1]))
            self._say("250 2.1.5 ok")

    def _data(self, rest: bytes) -> None:
        if not self._recipients:
            self._wrong("503 5.5.1 RCPT first")
            return
        self._say("354 end with a dot")
        envelope = Envelope(time=self._clock(), sender=self._sender, recipients=tuple(self._recipients))
        reply = self._take(envelope)
        self._say(*[reply] * len(self._recipients))  # one for each (RFC 2033 section 4.2)
        self._reset()

    def _take(self, envelope: Envelope) -> str:
        """The message to its end in any case, so that the conversation goes on; then what became of it."""
        draught, failed = None, None
        try:
            draught = self._arrivals.begin(envelope)
        except OSError as error:
            failed = error
        with contextlib.closing(draught) if draught is not None else contextlib.nullcontext():
            failed = self._receive(draught) or failed
            if draught is not None and failed is None:
                try:
                    name = draught.keep()
                except OSError as error:
                    failed = error
                else:
                    self._errors = 0
                    self._moved()
                    return f"250 2.0.0 kept as {name}"
        if failed is not None and too_large(failed):
            return "552 5.3.4 larger than we take"
        once.log(logging.ERROR, "kept", "a message that came back cannot be kept, it comes again: %s", failed)
        return "452 4.3.1 cannot keep it now"

    def _receive(self, draught: Draught | None) -> OSError | None:
        """Read up to the dot; what kept us from writing it all down."""
        line, failed = _LineEnd(), None
        while True:
            piece = self._lines.readline(_CHUNK)
            if not piece:
                raise ConnectionAbortedError("the client left in the middle of a message")
            if line.ended and piece == b".\r\n":
                return failed
            unstuffed = piece[1:] if line.ended and piece[:1] == b"." else piece
            line.see(piece)
            if draught is not None and failed is None:
                try:
                    draught.write(unstuffed)
                except OSError as error:
                    failed = error

    def _skip_line(self) -> None:
        while (piece := self._lines.readline(_CHUNK)) and not piece.endswith(b"\n"):
            pass

    def _wrong(self, reply: str) -> None:
        self._errors += 1
        self._say(reply)

    def _say(self, *replies: str) -> None:
        self._send("".join(f"{reply}\r\n" for reply in replies).encode("ascii", "replace"))

    def _reset(self) -> None:
        self._sender, self._recipients = None, []


def _path(rest: bytes) -> re.Match[bytes] | None:
    """What stands in the angle brackets, and what follows: control characters stand in no address."""
    found = _PATH.fullmatch(rest)
    return found if found and len(found[1]) <= _LONGEST else None


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
