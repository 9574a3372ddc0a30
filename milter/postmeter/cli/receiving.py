"""The wiring of what comes back: the LMTP listener, the chores that read its spool, the thread that passes answers on.

Decides nothing about messages.
"""

from __future__ import annotations

import errno
import logging
import random
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from socket import socket

from postmeter.books import returns
from postmeter.books.apart import Apart
from postmeter.books.daemon import Chore
from postmeter.books.forwarding import Forwarding
from postmeter.books.returns import AWAY, FORWARD, KEPT, NEW, Leave, Returns, place
from postmeter.cli import daemons, delivering
from postmeter.config.check import cannot_bind
from postmeter.config.load import Loaded
from postmeter.config.problem import ConfigError
from postmeter.config.schema import Config, InetAddress, Milter, SocketAddress
from postmeter.config.secret_files import tags_returns, tracked_urls
from postmeter.feedback.arrivals import Arrivals
from postmeter.feedback.lmtp import Lmtp
from postmeter.mail.scope import canonical
from postmeter.runtime.listener import Listener, listen
from postmeter.store.journal import Journal
from postmeter.tag import Tagger
from postmeter.token import Mint, host_of, parse_secrets

log = logging.getLogger(__name__)


class Receiving:
    """`failed` counts a failure by the name of its chore."""

    def __init__(self, *, failed: Callable[[str], None]) -> None:
        self._failed = failed
        self._milter: Milter | None = None  # its address is ours, and so are the mode and group of a path
        self._listener: Listener | None = None
        self._lmtp: Lmtp | None = None
        self._serve: Callable[[socket], Lmtp]
        self._thread: Apart | None = None
        self._tagger: Tagger | None = None

    def take(self, loaded: Loaded, *, host: str) -> None:
        """What a configuration wants. ConfigError when it cannot be had: then all goes on as before."""
        self._tagger = daemons.tagger(loaded)
        self._listen(loaded, host)
        self._pass_on(loaded.config, host)

    def chores(self, config: Config, journal: Callable[[], Journal]) -> list[Chore]:
        """Also without a listener: `postmeter feedback` writes the same spool."""
        tagger, leave = self._tagger, _leave(config)
        made: list[Returns] = []

        def opened() -> Returns:
            if not made:
                state, bounces = config.journal.path.parent, config.bounces
                away = Arrivals(place(state, AWAY)) if config.journal.ship_to is not None else None
                named = delivering.providers_of(config)
                desk = partial(Returns, bounces=bounces, tagger=tagger, leave=leave, away=away, provider=named)
                made.append(desk(journal(), state, clock=time.time))
            return made[0]

        def work() -> bool:
            more = opened().work()
            self._listen_again()
            return more

        return [
            Chore("returns", work, returns.EVERY),
            Chore("kept", lambda: opened().sweep(), returns.SWEEP_EVERY),
        ]

    def close(self) -> None:
        self._hang_up()
        if self._thread is not None:
            self._thread.stop()
            self._thread.join(time.monotonic() + 1.0)

    def _listen(self, loaded: Loaded, host: str) -> None:
        """At a new address before the old one is left, unless it is we who are in the way there."""
        address = loaded.config.bounces.lmtp
        wanted = None if address is None else replace(loaded.config.milter, listen=address)
        if _place(wanted) == _place(self._milter):
            return
        if wanted is None:
            self._hang_up()
            return
        try:
            listener = self._bound(wanted)
        except OSError as error:
            raise ConfigError([cannot_bind(loaded, "bounces.lmtp", wanted.listen, error)]) from None
        self._hang_up()
        arrivals = Arrivals(place(loaded.config.journal.path.parent, NEW))
        self._serve = partial(Lmtp, arrivals=arrivals, host=_name(host))
        self._begin(wanted, listener)

    def _bound(self, wanted: Milter) -> Listener:
        """OSError when that cannot be: then we listen as before."""
        old = self._milter
        try:
            return listen(wanted)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or old is None or not _may_meet(old.listen, wanted.listen):
                raise
        self._hang_up()
        try:
            return listen(wanted)
        except OSError:
            self._begin(old, listen(old))
            raise

    def _begin(self, milter: Milter, listener: Listener) -> None:
        self._milter, self._listener = milter, listener
        self._lmtp = self._serve(listener.socket)

    def _listen_again(self) -> None:
        """At a path that somebody removed; connections that there are go on."""
        old = self._listener
        if old is None or old.again is None or not old.lost():
            return
        self._listener = old.again()
        log.warning("%s was removed, and is there again", old.path)
        if self._lmtp is not None:
            self._lmtp.close()
        old.forget()
        self._lmtp = self._serve(self._listener.socket)

    def _hang_up(self) -> None:
        if self._lmtp is not None:
            self._lmtp.close()
        if self._listener is not None:
            self._listener.forget()
        self._lmtp = self._listener = self._milter = None

    def _pass_on(self, config: Config, host: str) -> None:
        """Begins when its predecessor has ended."""
        old, state = self._thread, config.journal.path.parent
        if old is not None:
            old.stop()

        def make() -> Forwarding:
            waiting, kept = Arrivals(place(state, FORWARD)), Arrivals(place(state, KEPT))
            smtp, name = config.notify.smtp, _name(host)
            return Forwarding(waiting, kept, smtp, host=name, failed=self._failed, chance=random.random)

        self._thread = Apart("returns", make, failed=self._failed, after=old) if tags_returns(config) else None


def _place(milter: Milter | None) -> tuple[object, ...]:
    return () if milter is None else (milter.listen, milter.socket_mode, milter.socket_group)


def _may_meet(one: SocketAddress, other: SocketAddress) -> bool:
    """Whether who listens at one may keep us from the other: the same path, or any two addresses of one port."""
    if isinstance(one, InetAddress) and isinstance(other, InetAddress):
        return one.port == other.port
    return one == other


def _name(host: str) -> str:
    """What a server may call itself."""
    return host if re.fullmatch(r"[A-Za-z0-9.-]+", host) else "localhost"


def _leave(config: Config) -> Leave:
    """Secrets that cannot be read open nothing: the mail is kept, and check-config tells."""
    tracking = config.tracking
    others = [*tracking.domains.values(), *tracking.logins.values()]
    addresses = [tracking.unsubscribe_mailto, *(keys.get("unsubscribe_mailto") for keys in others)]
    known = frozenset(canonical(str(address)) for address in addresses if address)
    if not known:
        return Leave()
    mint = None
    with suppress(OSError, ValueError):
        mint = Mint(parse_secrets(tracking.secrets.read_text("ascii")))
    hosts = dict.fromkeys([*(host_of(url) for _, url in tracked_urls(config)), *config.web.hosts])
    return Leave(known, mint, tuple(hosts))
