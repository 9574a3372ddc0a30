"""A Redis or Valkey, or a cluster of them, that answers within a given time or counts as gone for a while.

One a process, made after the fork, called from any thread: connections wait in a stack for whoever needs one. After a
failure nobody is kept waiting for a second; then one caller tries, and the others go on without. All our keys lie in
one slot, so that a cluster is one node for us, followed when it moves (redis.io: cluster-spec, "Redirection").
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from postmeter.config.schema import InetAddress, RedisStore, SocketAddress
from postmeter.store.accounts import StoreDownError
from postmeter.store.redis_link import Link, LinkError, Login, RefusedError

log = logging.getLogger(__name__)

REST = 1.0
"""Seconds after a failure in which nobody is kept waiting."""

_CUT_OFF = ("CLUSTERDOWN", "MASTERDOWN")  # a node that its cluster has lost, and may have replaced
_NONSENSE = (ValueError, TypeError, AttributeError, LookupError, RecursionError)  # met in answers that are none
_HOPS = 4  # redirections of one command: moved, asked to go on, and one of each while slots are on their way
_IDLE = 16  # connections kept; more at a time are made, and closed again


class Script:
    """A program for the server: its text, and the name under which the server has it once it was sent."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_bytes()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()


class RedisServer:
    """Raises `StoreDownError` for everything that keeps it from answering: gone, hanging, loading, refusing us."""

    def __init__(
        self, store: RedisStore, *, password_file: Path | None = None, ca: Path | None = None, timeout: float = 0.25
    ) -> None:
        self._store, self._password_file, self._ca, self._timeout = store, password_file, ca, timeout
        self._login: Login | None = None
        self._nodes = list(store.places)  # the first is the one that holds our keys, as far as we know
        self._idle: defaultdict[SocketAddress, list[Link]] = defaultdict(list)
        self._mutex = threading.Lock()
        self._failure = ""
        self._rests_until = self._since = 0.0

    def ask(self, *command: Any) -> Any:
        """One command and its answer."""
        return self._guarded(lambda deadline: self._send(command, deadline))

    def run(
        self, script: Script, keys: Sequence[str], *arguments: str, read: Callable[[Any], Any] = lambda answer: answer
    ) -> Any:
        """A script and its answer; sent whole only where the server does not have it yet.

        `read` makes of the answer what it means: what it fails at is no answer of ours, and so the server is gone.
        """
        rest = (len(keys), *keys, *arguments)

        def send(deadline: float) -> Any:
            try:
                return self._send(("EVALSHA", script.sha, *rest), deadline)
            except RefusedError as error:
                if error.kind != "NOSCRIPT":
                    raise
                return self._send(("EVAL", script.text, *rest), deadline)

        return self._guarded(lambda deadline: read(send(deadline)))

    def deadline(self) -> float:
        """When, by `monotonic`, a call that begins now gives up."""
        return monotonic() + self._timeout

    def close(self) -> None:
        for links in self._idle.values():
            while links:
                links.pop().disconnect()

    def _guarded(self, send: Callable[[float], Any]) -> Any:
        self._look_rested()
        try:
            answer = send(self.deadline())
        except RefusedError as error:  # nobody was kept waiting, and it may be about this one message
            if error.kind in _CUT_OFF:
                self._ask_another()
            raise StoreDownError(f"{self._store}: {error}") from None
        except LinkError as error:
            raise self._failed(error) from None
        except _NONSENSE as error:
            said = f"{self._store}: answers as no Redis does: {' '.join(str(error).split())}"
            raise self._failed(LinkError(said)) from None
        if self._failure:
            self._recovered()
        return answer

    def _look_rested(self) -> None:
        if not self._failure:
            return
        with self._mutex:
            if monotonic() < self._rests_until:
                raise StoreDownError(f"{self._failure} (a moment ago)")
            self._rests_until = monotonic() + self._timeout + REST  # we try; the others go on without

    def _failed(self, error: LinkError) -> StoreDownError:
        self._ask_another()
        with self._mutex:
            self._login = None  # a new password takes effect
            if not self._failure:
                self._since = monotonic()
            self._failure = str(error)
            self._rests_until = monotonic() + REST
        return StoreDownError(self._failure)

    def _ask_another(self) -> None:
        """The next command begins with another node of a cluster, which may know better."""
        with self._mutex:
            self._nodes.append(self._nodes.pop(0))

    def _recovered(self) -> None:
        with self._mutex:
            since, failure = self._since, self._failure
            self._failure = ""
        if failure:
            log.warning("the quotas' store answers again, after %.0f s", monotonic() - since)

    def _send(self, command: Sequence[Any], deadline: float) -> Any:
        """Follows the slot that our keys are in: MOVED for good, ASK for this once."""
        link, asking = self._reach(deadline), False
        for _ in range(_HOPS):
            try:
                if asking:
                    link.ask(("ASKING",), deadline)
                answer = link.ask(command, deadline)
                self._put_back(link)
                return answer
            except RefusedError as error:
                place = self._elsewhere(error, link)
                if place is None:
                    raise
                asking = error.kind == "ASK"
            link = self._take(place, deadline)
            if not asking:
                self._settle_at(place, link, deadline)
        raise LinkError(f"{link.place}: sends us from one node to another")

    def _elsewhere(self, error: RefusedError, link: Link) -> SocketAddress | None:
        """Where the answer sends us. Whoever complains otherwise is connected to anew: that may be another server."""
        if error.kind in ("MOVED", "ASK") and self._store.cluster:
            self._put_back(link)
            host, _, port = error.rest.split()[-1].rpartition(":")
            here = link.place.host if isinstance(link.place, InetAddress) else ""
            return InetAddress(host or here, int(port))
        if error.kind == "NOSCRIPT":
            self._put_back(link)
        else:
            link.disconnect()
        return None

    def _reach(self, deadline: float) -> Link:
        """A connection to the node that holds our keys, or, while that cannot be reached, to one that can tell."""
        failure = LinkError("no node is known")
        nodes = list(self._nodes)
        for nth, place in enumerate(nodes):
            share = (deadline - monotonic()) / (len(nodes) - nth)
            try:
                return self._take(place, monotonic() + share)
            except LinkError as error:
                failure = error
        raise failure

    def _take(self, place: SocketAddress, deadline: float) -> Link:
        links = self._idle[place]
        with suppress(IndexError):
            while True:
                link = links.pop()
                if link.fresh():
                    return link
                link.disconnect()
        return Link(place, self._who(), deadline)

    def _put_back(self, link: Link) -> None:
        links = self._idle[link.place]
        if len(links) < _IDLE:
            links.append(link)
        else:
            link.disconnect()

    def _settle_at(self, place: SocketAddress, link: Link, deadline: float) -> None:
        """From now on `place` is asked first; the others are learned, should it vanish."""
        known = {*self._nodes, *self._store.places}
        with suppress(RefusedError):
            known |= set(_nodes(link.ask(("CLUSTER", "SLOTS"), deadline)))
        with self._mutex:
            self._nodes = [place, *sorted(known - {place}, key=str)]

    def _who(self) -> Login:
        login = self._login
        if login is None:
            store = self._store
            login = self._login = Login(
                user=store.user, password_file=self._password_file, database=store.database, tls=store.tls, ca=self._ca
            )
        return login


def _nodes(slots: Any) -> Iterator[InetAddress]:
    """Of an answer to CLUSTER SLOTS; a node that is not to be connected to has no name."""
    for _, _, *nodes in slots:
        for host, port, *_ in nodes:
            if host:
                yield InetAddress(host.decode(), int(port))
