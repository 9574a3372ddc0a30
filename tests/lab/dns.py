"""A name server on loopback that serves the TXT records it is given, over UDP and TCP (RFC 1035).

Knows nothing of DKIM: whoever wants keys published puts them into `records`, at any time.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Mapping
from types import TracebackType

import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

_TXT_PIECE = 255  # RFC 1035 section 3.3: a character-string
_UDP_SIZE = 512  # RFC 1035 section 4.2.1; more than that goes over TCP


class NameServer:
    """Answers TXT questions from `records` (name without final dot → text); all other names are NXDOMAIN."""

    def __init__(self, records: Mapping[str, str] | None = None) -> None:
        self.records = dict(records or {})
        self.asked: list[str] = []
        self._tcp = _Tcp(("127.0.0.1", 0), _TcpQuestion)
        self.port: int = self._tcp.server_address[1]
        self._udp = _Udp(("127.0.0.1", self.port), _UdpQuestion)
        self._tcp.lab = self._udp.lab = self
        serve = [server.serve_forever for server in (self._tcp, self._udp)]
        self._threads = [threading.Thread(target=each, args=(0.05,), daemon=True) for each in serve]

    def __enter__(self) -> NameServer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for server in (self._tcp, self._udp):
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()

    def answer(self, wire: bytes, *, limit: int = 0) -> bytes:
        """The answer to a question; cut and marked as such when longer than `limit`."""
        query = dns.message.from_wire(wire)
        reply = dns.message.make_response(query, recursion_available=True)
        for question in query.question:
            self._add(reply, question.name.to_text(omit_final_dot=True).lower(), question)
        if limit and len(reply.to_wire()) > limit:
            reply.answer.clear()
            reply.flags |= dns.flags.TC
        return reply.to_wire()

    def _add(self, reply: dns.message.Message, name: str, question: dns.rrset.RRset) -> None:
        self.asked.append(name)
        found = self.records.get(name)
        if found is None:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        elif question.rdtype == dns.rdatatype.TXT:
            reply.answer.append(dns.rrset.from_text(question.name, 60, "IN", "TXT", _quoted(found)))


class _Tcp(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    lab: NameServer


class _Udp(socketserver.UDPServer):
    lab: NameServer


class _UdpQuestion(socketserver.DatagramRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _Udp)
        self.wfile.write(self.server.lab.answer(self.rfile.read(), limit=_UDP_SIZE))


class _TcpQuestion(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _Tcp)
        while len(size := self.rfile.read(2)) == 2:
            reply = self.server.lab.answer(self.rfile.read(int.from_bytes(size, "big")))
            self.wfile.write(len(reply).to_bytes(2, "big") + reply)


def _quoted(text: str) -> str:
    """A TXT value as master-file text: character-strings of at most 255 octets, quotes and backslashes escaped."""
    pieces = [text[at : at + _TXT_PIECE] for at in range(0, max(len(text), 1), _TXT_PIECE)]
    return " ".join('"' + piece.replace("\\", "\\\\").replace('"', '\\"') + '"' for piece in pieces)


def free_port() -> int:
    """A TCP port on loopback that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
