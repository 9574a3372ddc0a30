"""Asking DNS for the records of keys: the resolver that this host uses, or every server of a zone, each by itself.

RFC 1035, RFC 2308. Tells "no" from "no answer": a resolver that is silent says nothing about a key. All waiting is
bounded. Knows nothing of what is in a record, and keeps nothing: a cache would hide what is to be seen.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.rrset

from postmeter.config.schema import InetAddress
from postmeter.submission.keyrecord import Finding

Judge = Callable[[Sequence[bytes]], Finding]

PORT = 53

_TRY = 2.0  # seconds for one server to answer; the RFC names none, resolvers take between 2 and 5
_TRIES = 2
_LOOK = 10.0  # seconds for one question to the resolver, all tries
_ALL = 30.0  # seconds for all servers of a zone
_PAYLOAD = 1232  # octets of a UDP answer that no network fragments (DNS flag day 2020)
_ALIASES = 8  # names that lead to one another
_NO_WAY = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EACCES})


class SilentError(Exception):
    """Nobody told; the text says who did not, and how."""


class _NoWayError(SilentError):
    """This host has no way to that address, as to IPv6 where there is none."""


@dataclass(frozen=True, slots=True)
class _Server:
    name: str
    address: InetAddress

    def __str__(self) -> str:
        return f"{self.name} ({self.address.host})" if self.name != self.address.host else self.name


class Dns:
    """`resolvers` empty are the system's; `port` is where a zone's servers listen, 53. Safe to share by threads."""

    def __init__(
        self, resolvers: Sequence[InetAddress] = (), *, port: int = 0, clock: Callable[[], float] = monotonic
    ) -> None:
        self._resolvers = tuple(_Server(address.host, address) for address in resolvers)
        self._port, self._clock = port or PORT, clock

    def look(self, name: str, judge: Judge) -> Finding:
        """What the resolver shows under that name; aliases are followed."""
        try:
            reply = self._resolve(_name(name), dns.rdatatype.TXT, self._clock() + _LOOK)
        except SilentError as error:
            return _unknown(error)
        chain = reply.resolve_chaining()
        alias = f", to which {name} leads" if chain.cnames else ""
        at = f"{chain.canonical_name.to_text(omit_final_dot=True)}{alias}"
        return _judged(judge, _strings(chain.answer), nothing=_nothing(reply), at=at)

    def everywhere(self, name: str, judge: Judge) -> Finding:
        """What all servers of the zone show, each asked itself: a fault, if one shows it, or who said nothing."""
        until = self._clock() + _ALL
        try:
            return self._everywhere(_name(name), judge, until, _ALIASES)
        except SilentError as error:
            return _unknown(error)

    def _everywhere(self, name: dns.name.Name, judge: Judge, until: float, aliases: int) -> Finding:
        targets: set[dns.name.Name] = set()
        silent: SilentError | None = None
        for servers in self._servers(self._zone(name, until), until):
            try:
                for reply, server in self._ask_each(name, servers, until):
                    target = _alias(reply, name)
                    if target is not None:
                        targets.add(target)
                        continue
                    found = _texts(reply, name)
                    finding = _judged(judge, _strings(found), nothing=_nothing(reply), at=str(server))
                    if finding.ok is False:
                        return finding
            except SilentError as error:
                silent = silent or error
        if silent is not None:
            raise silent
        if targets and not aliases:
            raise SilentError(f"more than {_ALIASES} names lead to one another")
        found_there = [self._everywhere(target, judge, until, aliases - 1) for target in sorted(targets)]
        return next((finding for finding in found_there if not finding.ok), Finding("right", ok=True))

    def _ask_each(
        self, name: dns.name.Name, servers: Sequence[_Server], until: float
    ) -> Iterator[tuple[dns.message.QueryMessage, _Server]]:
        """Every address of one server; those to which there is no way count only where there is a way to none."""
        no_way: list[SilentError] = []
        for server in servers:
            try:
                reply = self._ask(name, dns.rdatatype.TXT, [server], until, recursive=False)
            except _NoWayError as error:
                no_way.append(error)
                continue
            if not reply.flags & dns.flags.AA:
                raise SilentError(f"{server} is no authority for {name.to_text(omit_final_dot=True)}")
            yield reply, server
        if len(no_way) == len(servers):
            raise no_way[0]

    def _zone(self, name: dns.name.Name, until: float) -> dns.rrset.RRset:
        """The NS records of the zone that `name` is in, found by walking up (RFC 1034 section 4.2)."""
        above = name
        while above != dns.name.root:
            reply = self._resolve(above, dns.rdatatype.NS, until)
            found = _own(reply, above, dns.rdatatype.NS)
            if found is not None:
                return found
            above = above.parent()
        raise SilentError(f"no name server of {name.to_text(omit_final_dot=True)} could be found")

    def _servers(self, zone: dns.rrset.RRset, until: float) -> Iterator[list[_Server]]:
        """Every name server of the zone with all of its addresses."""
        for record in sorted(zone, key=str):
            name = record.target.to_text(omit_final_dot=True)
            addresses = [
                address.to_text()
                for kind in (dns.rdatatype.A, dns.rdatatype.AAAA)
                for address in self._resolve(record.target, kind, until).resolve_chaining().answer or ()
            ]
            if not addresses:
                raise SilentError(f"{name}, a server of {zone.name.to_text(omit_final_dot=True)}, has no address")
            yield [_Server(name, InetAddress(address, self._port)) for address in addresses]

    def _resolve(self, name: dns.name.Name, kind: dns.rdatatype.RdataType, until: float) -> dns.message.QueryMessage:
        return self._ask(name, kind, self._resolvers or _system(), until, recursive=True)

    def _ask(
        self,
        name: dns.name.Name,
        kind: dns.rdatatype.RdataType,
        servers: Sequence[_Server],
        until: float,
        *,
        recursive: bool,
    ) -> dns.message.QueryMessage:
        """The first answer that is one: NOERROR or NXDOMAIN."""
        trouble: SilentError | None = None
        for _ in range(_TRIES):
            for server in servers:
                patience = min(_TRY, until - self._clock())
                if patience <= 0:
                    raise trouble or SilentError(f"no time was left to ask {server}")
                try:
                    return _exchange(name, kind, server, patience, recursive=recursive)
                except SilentError as error:
                    trouble = error
        raise trouble or SilentError("there is no resolver to ask")


def _exchange(
    name: dns.name.Name, kind: dns.rdatatype.RdataType, server: _Server, patience: float, *, recursive: bool
) -> dns.message.QueryMessage:
    reply = _send(_query(name, kind, recursive=recursive), server, patience)
    if reply.rcode() == dns.rcode.FORMERR:  # a server that does not know EDNS (RFC 6891 section 7)
        reply = _send(_query(name, kind, recursive=recursive, extended=False), server, patience)
    if reply.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        hint = ": often broken DNSSEC, or servers out of reach" if reply.rcode() == dns.rcode.SERVFAIL else ""
        raise SilentError(f"{server} answered {dns.rcode.to_text(reply.rcode())}{hint}")
    try:
        reply.resolve_chaining()
    except dns.exception.DNSException as error:
        raise SilentError(f"{server} answered what is no answer: {error}") from None
    return reply


def _query(
    name: dns.name.Name, kind: dns.rdatatype.RdataType, *, recursive: bool, extended: bool = True
) -> dns.message.QueryMessage:
    query = dns.message.make_query(name, kind, use_edns=0 if extended else False, payload=_PAYLOAD)
    if not recursive:
        query.flags &= ~dns.flags.RD
    return query


def _send(query: dns.message.QueryMessage, server: _Server, patience: float) -> dns.message.QueryMessage:
    try:
        reply, _ = dns.query.udp_with_fallback(
            query, server.address.host, patience, server.address.port, ignore_unexpected=True
        )
    except dns.exception.Timeout:
        raise SilentError(f"{server} did not answer within {patience:.0f} s") from None
    except (dns.exception.DNSException, EOFError) as error:
        raise SilentError(f"{server} answered what is no answer: {error or type(error).__name__}") from None
    except OSError as error:
        kind = _NoWayError if error.errno in _NO_WAY else SilentError
        raise kind(f"{server} cannot be asked: {error.strerror or error}") from None
    if not isinstance(reply, dns.message.QueryMessage):
        raise SilentError(f"{server} answered what is no answer")
    return reply


def _system() -> list[_Server]:
    """As /etc/resolv.conf has them now: a laptop, or DHCP, changes it."""
    try:
        addresses = dns.resolver.Resolver().nameservers
    except dns.exception.DNSException:
        raise SilentError("/etc/resolv.conf names no resolver; give dkim.resolvers") from None
    return [_Server(str(address), InetAddress(str(address), PORT)) for address in addresses]


def _name(text: str) -> dns.name.Name:
    try:
        return dns.name.from_text(text)
    except dns.exception.DNSException:
        raise SilentError(f"{text} is no name that DNS knows") from None


def _own(reply: dns.message.QueryMessage, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.rrset.RRset | None:
    """The records of that very name, and not of one to which it leads."""
    return next((each for each in reply.answer if each.name == name and each.rdtype == kind), None)


def _texts(reply: dns.message.QueryMessage, name: dns.name.Name) -> dns.rrset.RRset | None:
    return _own(reply, name, dns.rdatatype.TXT)


def _alias(reply: dns.message.QueryMessage, name: dns.name.Name) -> dns.name.Name | None:
    found = _own(reply, name, dns.rdatatype.CNAME)
    return found[0].target if found is not None else None


def _strings(found: dns.rrset.RRset | None) -> list[bytes]:
    """Each record's strings joined (RFC 6376 section 3.6.2.2)."""
    return [b"".join(record.strings) for record in found or ()]


def _nothing(reply: dns.message.QueryMessage) -> str:
    return "there is no such name" if reply.rcode() == dns.rcode.NXDOMAIN else "there is no TXT record"


def _judged(judge: Judge, found: Sequence[bytes], *, nothing: str, at: str) -> Finding:
    finding = judge(found)
    what = finding.what if found else nothing
    return Finding(finding.word, f"{at}: {what}" if what else "", finding.fix, finding.ok)


def _unknown(error: SilentError) -> Finding:
    return Finding("unknown", str(error), "look at the resolver and at the zone's servers", ok=None)
