"""A name server on loopback that serves the records it is given, over UDP and TCP (RFC 1035), or fails as it is told.

Knows nothing of DKIM: whoever wants keys published puts them into `records`, at any time.
"""

from __future__ import annotations

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

from tests.lab.ports import free_port as free_port

_TXT_PIECE = 255  # RFC 1035 section 3.3: a character-string
_UDP_SIZE = 512  # RFC 1035 section 4.2.1; more than that goes over TCP
_ALIASES = 8

SILENCE = "silence"


class NameServer:
    """TXT from `records` (name without final dot → text); all else from `rdata` ((name, type) → values of a zone file).

    With an `address` and a `port` of its own it may stand for one server of a zone, which speaks with `authority`.
    `faults`, by name or "*" for all: a code such as SERVFAIL, or SILENCE.
    """

    def __init__(
        self, records: Mapping[str, str] | None = None, *, address: str = "127.0.0.1", port: int = 0,
        authority: bool = False,
    ) -> None:  # fmt: skip
        self.records = dict(records or {})
        self.rdata: dict[tuple[str, str], list[str]] = {}
        self.faults: dict[str, str] = {}
        self.authority = authority
        self.asked: list[str] = []
        self.address = address
        self._tcp = _Tcp((address, port), _TcpQuestion)
        self.port: int = self._tcp.server_address[1]
        self._udp = _Udp((address, self.port), _UdpQuestion)
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
        """The answer to a question; cut and marked as such when longer than `limit`. Nothing where there is a fault."""
        query = dns.message.from_wire(wire)
        reply = dns.message.make_response(query, recursion_available=not self.authority)
        if self.authority:
            reply.flags |= dns.flags.AA
        for question in query.question:
            name = question.name.to_text(omit_final_dot=True).lower()
            self.asked.append(name)
            fault = self.faults.get(name, self.faults.get("*", ""))
            if fault == SILENCE:
                return b""
            if fault:
                reply.set_rcode(dns.rcode.from_text(fault))
            else:
                self._add(reply, name, question.rdtype)
        if limit and len(reply.to_wire()) > limit:
            reply.answer.clear()
            reply.flags |= dns.flags.TC
        return reply.to_wire()

    def _add(self, reply: dns.message.Message, name: str, kind: dns.rdatatype.RdataType) -> None:
        """The records of that name, behind the names that lead to it."""
        alias = self.rdata.get((name, "CNAME"))
        if alias and kind != dns.rdatatype.CNAME and len(reply.answer) < _ALIASES:
            reply.answer.append(dns.rrset.from_text(name + ".", 60, "IN", "CNAME", *alias))
            self._add(reply, alias[0].rstrip("."), kind)
            return
        values = self.rdata.get((name, dns.rdatatype.to_text(kind)), [])
        if kind == dns.rdatatype.TXT and name in self.records:
            values = [*values, _quoted(self.records[name])]
        if values:
            reply.answer.append(dns.rrset.from_text(name + ".", 60, "IN", kind, *values))
        elif not self._exists(name):
            reply.set_rcode(dns.rcode.NXDOMAIN)

    def _exists(self, name: str) -> bool:
        known = {*self.records, *(owner for owner, _ in self.rdata)}
        return any(owner == name or owner.endswith("." + name) for owner in known)


class _Tcp(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    lab: NameServer


class _Udp(socketserver.ThreadingUDPServer):
    daemon_threads = True
    lab: NameServer


class _UdpQuestion(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _Udp)
        question, sock = self.request
        if reply := self.server.lab.answer(question, limit=_UDP_SIZE):
            sock.sendto(reply, self.client_address)


class _TcpQuestion(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _Tcp)
        while len(size := self.rfile.read(2)) == 2:
            if reply := self.server.lab.answer(self.rfile.read(int.from_bytes(size, "big"))):
                self.wfile.write(len(reply).to_bytes(2, "big") + reply)


def _quoted(text: str) -> str:
    """A TXT value as master-file text: character-strings of at most 255 octets, quotes and backslashes escaped."""
    pieces = [text[at : at + _TXT_PIECE] for at in range(0, max(len(text), 1), _TXT_PIECE)]
    return " ".join('"' + piece.replace("\\", "\\\\").replace('"', '\\"') + '"' for piece in pieces)
