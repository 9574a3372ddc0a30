"""`postmeter web`: the daemon that answers tracked links, wired from its configuration.

As root it reads its secrets, makes its spool and binds its port first, and then becomes `web.user` for good. Decides
nothing about links.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import resource
import secrets
import signal
import socket
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from postmeter.cli.command import OK, Command, no_arguments
from postmeter.config.check import cannot_bind, check
from postmeter.config.load import Loaded, load_with_lines
from postmeter.config.problem import ConfigError, Problem
from postmeter.config.schema import Config
from postmeter.runtime import heartbeat, logs, spool
from postmeter.runtime.logs import OnceAMinute
from postmeter.runtime.notify import Notifier
from postmeter.runtime.privileges import become

if TYPE_CHECKING:
    from postmeter.tracking.desk import Site

log = logging.getLogger(__name__)
once = OnceAMinute(log)

_BACKLOG = 1024


def run(args: Namespace) -> int:
    """Until a stop signal. What is wrong shows before the first connection is accepted."""
    loaded = load_with_lines(args.config)
    logs.set_up(loaded.config.log, daemon="web")
    run_web(loaded, args.config)
    return OK


def run_web(loaded: Loaded, file: Path) -> None:
    errors = [problem for problem in check(loaded, daemon="web") if problem.severity == "error"]
    if errors:
        raise ConfigError(errors)
    keeper = Keeper(loaded, file)
    listener = _bind(loaded)
    _allow_connections()
    directory = _spool(loaded)
    if loaded.config.web.user and os.geteuid() == 0:
        become(loaded.config.web.user)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigError([_closed(loaded, directory)])
    log.info("answering links at http://%s for %s", loaded.config.web.listen, ", ".join(keeper.hosts) or "no host")
    with listener:
        asyncio.run(keeper.serve(listener, directory))


class Keeper:
    """What the daemon has to see to besides requests: secrets, blocks, hits that wait, signals, signs of life."""

    def __init__(self, loaded: Loaded, file: Path) -> None:
        self._file = file
        self._loaded = loaded
        self._beaten = 0.0
        self._notifier = Notifier.from_environment()
        self._site = self._read()

    @property
    def hosts(self) -> list[str]:
        return sorted(self._site.hosts)

    async def serve(self, listener: socket.socket, directory: Path) -> None:
        from postmeter.tracking import blocked, desk, hits, web

        config = self._loaded.config
        self._state = config.journal.path.parent
        self._blocklist = blocked.Blocklist(blocked.place(self._state))
        self._hits = hits.Hits(spool.Writer(directory, name=hits.SPOOL, now=time.time))
        self._desk = desk.Desk(self._site, self._blocklist, self._hits)
        server = web.Server(self._desk, max_request=config.web.max_request, timeout=config.web.timeout)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGUSR1, self._reload)
        self._tend()
        self._notifier.ready()
        try:
            await web.serve(listener, server, stop=stop, tend=self._tend)
        finally:
            self._notifier.stopping()
            self._hits.close()

    def _tend(self) -> None:
        """Once a second. Nothing that fails here may end the redirects."""
        try:
            self._blocklist.look()
        except OSError as error:
            once.log(logging.ERROR, "blocked", "what is blocked cannot be read, the last reading holds: %s", error)
        if self._changed():
            self._renew()
        self._hits.retry()
        if time.monotonic() - self._beaten >= heartbeat.EVERY:
            heartbeat.beat(heartbeat.place(self._state, "web"))
            self._beaten = time.monotonic()

    def _reload(self) -> None:
        """Hosts, proxies and secrets of the configuration as it is now; a bad one changes nothing."""
        self._notifier.reloading()
        try:
            self._loaded = load_with_lines(self._file)
            logs.set_up(self._loaded.config.log, daemon="web")
            self._renew()
        except ConfigError as error:
            log.error("not reloaded, the old configuration goes on: %s", error)
        self._notifier.ready()

    def _changed(self) -> bool:
        return _stamp(self._loaded.config.tracking.secrets) not in (None, self._stamp)

    def _renew(self) -> None:
        try:
            site = self._read()
        except ConfigError as error:
            once.log(logging.ERROR, "secrets", "the old secrets go on: %s", error)
            return
        self._site = site
        self._desk.take(site)
        log.info("secrets and hosts read again: %s", ", ".join(self.hosts))

    def _read(self) -> Site:
        from postmeter.token import Mint, parse_secrets
        from postmeter.tracking.clients import Clients
        from postmeter.tracking.desk import Site, hosts

        config = self._loaded.config
        path = config.tracking.secrets
        ours = hosts(config)
        self._stamp = _stamp(path)
        try:  # without a host there may be no file: a secret that nobody knows opens nothing
            known = parse_secrets(path.read_text("ascii")) if ours else (secrets.token_bytes(32),)
        except (OSError, ValueError) as error:
            problem = self._loaded.problem("tracking.secrets", f"{path}: {error}", "see `postmeter check-config`")
            raise ConfigError([problem]) from None
        return Site(Mint(known), ours, Clients(config.web.proxies))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What tells one content of a file from the next; None when there is none to read."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_ctime_ns, state.st_size


def _bind(loaded: Loaded) -> socket.socket:
    address = loaded.config.web.listen
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(_BACKLOG)
    except OSError as error:
        raise ConfigError([cannot_bind(loaded, "web.listen", address, error)]) from None
    return listener


def _allow_connections() -> None:
    """As many open files as we may have: a shell gives 1,024, fewer than a flood of connections in `web.timeout`."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _spool(loaded: Loaded) -> Path:
    """The spool of hits, which belongs to whom we are about to become, and is readable for the state's group."""
    from postmeter.tracking.hits import SPOOL

    state = loaded.config.journal.path.parent
    directory = state / "spool" / SPOOL
    try:
        directory.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        directory.mkdir(mode=0o770, exist_ok=True)
        if os.geteuid() == 0:
            _give(directory, loaded.config, state.stat())
    except OSError:
        raise ConfigError([_closed(loaded, directory)]) from None
    return directory


def _give(directory: Path, config: Config, state: os.stat_result) -> None:
    os.chown(directory.parent, state.st_uid, state.st_gid)
    owner = pwd.getpwnam(config.web.user).pw_uid if config.web.user else state.st_uid
    os.chown(directory, owner, state.st_gid)
    directory.chmod(0o2770)  # books, of the state's group, deletes what it has read


def _closed(loaded: Loaded, directory: Path) -> Problem:
    from postmeter.config import permissions

    me = permissions.myself()
    fault = permissions.barrier(directory, me)
    what = fault.what if fault else f"{directory} cannot be written by {me.name}"
    fix = fault.fix if fault else f"install -d -o {me.name} -m 2770 {directory}"
    return loaded.problem("journal.path", what, fix)


COMMANDS = (
    Command(
        "web",
        "the server behind tracked links: redirects to their targets and records the clicks",
        "postmeter web -c postmeter.yaml",
        no_arguments,
        run,
    ),
)
