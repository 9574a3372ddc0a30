"""What a worker of `postmeter web` has to see to besides requests: secrets, certificate, blocks, hits that wait.

Decides nothing about links. What its parent read as root is handed over; what has changed since it reads as the user
that it is, and keeps the old where it may not or cannot.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from postmeter import sealed  # noqa: F401  before workers are forked, for it takes one of them 0.1 s
from postmeter.config.load import Loaded
from postmeter.config.problem import ConfigError
from postmeter.runtime import heartbeat, spool
from postmeter.runtime.certificate import Certificate
from postmeter.runtime.logs import OnceAMinute
from postmeter.runtime.prefork import Post
from postmeter.token import Mint, parse_secrets
from postmeter.tracking import blocked, hits, leaving, pages, web
from postmeter.tracking.clients import Clients
from postmeter.tracking.desk import Desk, Site, hosts

log = logging.getLogger(__name__)
once = OnceAMinute(log)


@dataclass(frozen=True, slots=True)
class Material:
    """What workers are made of: a configuration, and what its files held. `stamp` tells when the secrets change."""

    loaded: Loaded
    site: Site
    certificate: Certificate | None
    stamp: tuple[int, int, int] | None
    directory: Path
    """The spool of hits."""


def prepare(loaded: Loaded, directory: Path) -> Material:
    """Raises ConfigError for what cannot be read."""
    files = loaded.config.web.certificate, loaded.config.web.key
    try:
        certificate = Certificate(files[0], files[1]) if files[0] and files[1] else None
    except OSError as error:
        raise ConfigError([loaded.problem("web.certificate", str(error), "see `postmeter check-config`")]) from None
    stamp = _stamp(loaded.config.tracking.secrets)
    return Material(loaded, _site(loaded), certificate, stamp, directory)


def serve(material: Material, post: Post) -> None:
    """In a worker: until the parent closes its pipe."""
    asyncio.run(Keeper(material).serve(post))


class Keeper:
    """One a worker."""

    def __init__(self, material: Material) -> None:
        self._loaded = material.loaded
        self._certificate = material.certificate
        self._stamp = material.stamp
        self._state = material.loaded.config.journal.path.parent
        self._beaten = float("-inf")
        self._blocklist = blocked.Blocklist(blocked.place(self._state))
        writer = spool.Writer(material.directory, name=hits.SPOOL, now=time.time, spare=spool.SPARE)
        self._hits = hits.Hits(writer)
        unsubscribing = {leaving.PREFIX: leaving.page(self._hits, now=time.time)}
        self._desk = Desk(material.site, self._blocklist, self._hits, pages=unsubscribing, plain=pages.plain)

    async def serve(self, post: Post) -> None:
        config = self._loaded.config.web
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(post.control, stop.set)
        _mind_the_parent(loop, stop.set)
        self._tend()
        server = web.Server(self._desk, max_request=config.max_request, timeout=config.timeout)
        try:
            await web.serve(
                post.listener,
                server,
                stop=stop,
                tend=self._tend,
                tls=self._certificate.context if self._certificate else None,
                shared=config.workers > 1,
                came=post.ready,
                left=post.left,
            )
        finally:
            self._hits.close()

    def _tend(self) -> None:
        """Once a second. Nothing that fails here may end the redirects."""
        try:
            self._blocklist.look()
        except OSError as error:
            once.log(logging.ERROR, "blocked", "what is blocked cannot be read, the last reading holds: %s", error)
        self._renew_secrets()
        self._renew_certificate()
        self._hits.retry()
        if time.monotonic() - self._beaten >= heartbeat.EVERY:
            heartbeat.beat(heartbeat.place(self._state, "web"))
            self._beaten = time.monotonic()

    def _renew_secrets(self) -> None:
        stamp = _stamp(self._loaded.config.tracking.secrets)
        if stamp in (None, self._stamp):
            return
        try:
            self._desk.take(_site(self._loaded))
        except ConfigError as error:
            once.log(logging.ERROR, "secrets", "the old secrets go on: %s", error)
            return
        self._stamp = stamp
        log.info("secrets read again")

    def _renew_certificate(self) -> None:
        try:
            if self._certificate is not None and self._certificate.renew():
                log.info("the renewed certificate serves")
        except OSError as error:
            log.error("the old certificate goes on, the new one is no good: %s", error)


def _mind_the_parent(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """A stop signal to the whole group means us too; a reload is the parent's business."""
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _site(loaded: Loaded) -> Site:
    config = loaded.config
    path = config.tracking.secrets
    ours = hosts(config)
    try:  # without a host there may be no file: a secret that nobody knows opens nothing
        known = parse_secrets(path.read_text("ascii")) if ours else (secrets.token_bytes(32),)
    except (OSError, ValueError) as error:
        problem = loaded.problem("tracking.secrets", f"{path}: {error}", "see `postmeter check-config`")
        raise ConfigError([problem]) from None
    return Site(Mint(known), ours, Clients(config.web.proxies))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What tells one content of a file from the next; None when there is none to read."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_ctime_ns, state.st_size
