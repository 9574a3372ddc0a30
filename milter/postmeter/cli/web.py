"""`postmeter web`: the daemon that answers tracked links, wired from its configuration.

As root it reads its secrets and its certificate, makes its spool and binds its port first, and then becomes `web.user`
for good. A parent owns the listener, and workers share it; a reload starts new workers before the old ones drain.
Decides nothing about links.
"""

from __future__ import annotations

import logging
import os
import pwd
import resource
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from postmeter.cli import robots
from postmeter.cli.command import FOUND_A_PROBLEM, OK, Command
from postmeter.config.check import cannot_bind, check
from postmeter.config.load import Loaded, load_with_lines
from postmeter.config.problem import ConfigError, Problem
from postmeter.config.schema import Config
from postmeter.runtime import logs, signals
from postmeter.runtime.kept import Kept, KeptError
from postmeter.runtime.listener import Listener, listen_inet
from postmeter.runtime.prefork import Generation, Prefork
from postmeter.runtime.privileges import become

if TYPE_CHECKING:
    from postmeter.cli.webworker import Material

log = logging.getLogger(__name__)

_DRAIN = 5.0  # seconds for answers in flight; they take a millisecond


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--update-robots",
        metavar="FILE",
        help="put this list of robots, - for standard input, in place of that of web.robots, and end",
    )


def run(args: Namespace) -> int:
    """Until a stop signal. What is wrong shows before the first connection is accepted."""
    loaded = load_with_lines(args.config)
    if args.update_robots:
        return robots.update(loaded, args.update_robots)
    logs.set_up(loaded.config.log, daemon="web")
    return FOUND_A_PROBLEM if run_web(loaded, args.config) else OK


def run_web(loaded: Loaded, file: Path) -> int:
    from postmeter.cli import webworker

    _refuse(loaded)
    directory = _spool_path(loaded.config)
    material = webworker.prepare(loaded, directory)
    listener = _bind(loaded)
    _allow_connections()
    _spool(loaded)
    config = loaded.config.web
    if config.user and os.geteuid() == 0:
        become(config.user)
    if os.geteuid() == 0:
        log.warning("what answers the world runs as root: name another user, web.user")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigError([_closed(loaded, directory)])
    scheme, names = "https" if material.certificate else "http", ", ".join(sorted(material.site.hosts))
    log.info("answering links at %s://%s for %s", scheme, config.listen, names or "no host")
    reload = _reloader(loaded.config, file, directory)
    hangup = frozenset({signals.RELOAD, signals.HANGUP})
    return Prefork(listener, _generation(material), reload=reload, beat=_nothing, reload_by=hangup).run()


def _generation(material: Material) -> Generation:
    from postmeter.cli import webworker

    workers = material.loaded.config.web.workers
    return Generation(lambda post: webworker.serve(material, post), workers, _DRAIN)


def _reloader(first: Config, file: Path, directory: Path) -> Callable[[], Generation | None]:
    """A bad configuration changes nothing, nor does one that only a restart can take over."""
    from postmeter.cli import webworker

    def reload() -> Generation | None:
        try:
            loaded = load_with_lines(file)
            material = webworker.prepare(loaded, directory)
        except ConfigError as error:
            log.error("not reloaded, the old configuration goes on: %s", error)
            return None
        if _fixed(loaded.config) != _fixed(first):
            log.error("not reloaded: web.listen, web.user and journal.path change by a restart only")
            return None
        logs.set_up(loaded.config.log, daemon="web")
        log.info("reloaded %s: hosts %s", file, ", ".join(sorted(material.site.hosts)) or "none")
        return _generation(material)

    return reload


def _fixed(config: Config) -> tuple[object, ...]:
    """What is made once, by the parent, perhaps as root."""
    return config.web.listen, config.web.user, config.journal.path


def _nothing() -> None:
    """The workers beat: a parent that lives answers no link."""


def _refuse(loaded: Loaded) -> None:
    errors = [problem for problem in check(loaded, daemon="web") if problem.severity == "error"]
    if errors:
        raise ConfigError(errors)


def _bind(loaded: Loaded) -> Listener:
    address = loaded.config.web.listen
    try:
        return listen_inet(address, Kept.from_environment())
    except KeptError as error:
        raise ConfigError([loaded.problem("web.listen", str(error), "let both name one address")]) from None
    except OSError as error:
        raise ConfigError([cannot_bind(loaded, "web.listen", address, error)]) from None


def _allow_connections() -> None:
    """As many open files as we may have: a shell gives 1,024, fewer than a flood of connections in `web.timeout`."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _spool_path(config: Config) -> Path:
    from postmeter.tracking.hits import SPOOL

    return config.journal.path.parent / "spool" / SPOOL


def _spool(loaded: Loaded) -> None:
    """The spool of hits, which belongs to whom we are about to become, and is readable for the state's group."""
    directory, state = _spool_path(loaded.config), loaded.config.journal.path.parent
    try:
        directory.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        directory.mkdir(mode=0o770, exist_ok=True)
        if os.geteuid() == 0:
            _give(directory, loaded.config, state.stat())
    except OSError:
        raise ConfigError([_closed(loaded, directory)]) from None


def _give(directory: Path, config: Config, state: os.stat_result) -> None:
    """Not through links: whoever owns the state could have another directory for one."""
    os.chown(directory.parent, state.st_uid, state.st_gid, follow_symlinks=False)
    owner = pwd.getpwnam(config.web.user).pw_uid if config.web.user else state.st_uid
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(handle, owner, state.st_gid)
        os.fchmod(handle, 0o2770)  # books, of the state's group, deletes what it has read
    finally:
        os.close(handle)


def _closed(loaded: Loaded, directory: Path) -> Problem:
    from postmeter.config import permissions

    me = permissions.myself()
    fault = permissions.barrier(directory, me)
    other = f"{directory} is a link" if directory.is_symlink() else f"{directory} cannot be written by {me.name}"
    what = fault.what if fault else other
    fix = fault.fix if fault else f"install -d -o {me.name} -m 2770 {directory}"
    return loaded.problem("journal.path", what, fix)


COMMANDS = (
    Command(
        "web",
        "the server behind tracked links: redirects to their targets and records the clicks",
        "postmeter web -c postmeter.yaml",
        arguments,
        run,
    ),
)
