"""`postmeter run`: all daemons as children of one foreground process: for a first try, and for containers.

Does nothing that the daemons could do themselves; systemd needs none of it.
"""

from __future__ import annotations

import logging
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from postmeter.cli.command import Command, no_arguments
from postmeter.config.schema import Config

if TYPE_CHECKING:
    from postmeter.runtime.children import Program

log = logging.getLogger(__name__)

_PATIENCE = 10.0  # seconds for web and books to stop; they need two
_GRACE = 10.0  # seconds that the milter gets beyond its drain


def run(args: Namespace) -> int:
    """Until a stop signal, or until a child says that the configuration is wrong."""
    from postmeter.config.load import load
    from postmeter.runtime import logs
    from postmeter.runtime.children import Children
    from postmeter.runtime.notify import Notifier
    from postmeter.runtime.signals import Signals

    config = load(args.config)
    logs.set_up(config.log, daemon="run")
    notifier = Notifier.from_environment()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WATCHDOG_")}
    with Signals() as signals:
        code = Children(
            programs(config, args.config),
            environment=environment,
            signals=signals,
            notifier=notifier,
            more=lambda: _more(args.config),
        ).run()
        notifier.stopping()
    return code


def programs(config: Config, file: Path) -> list[Program]:
    """The milter first: it is stopped before the others, and they still serve what its last messages need."""
    from postmeter.config.secret_files import tracked_urls
    from postmeter.runtime.children import Program

    found = [Program("milter", _command("milter", file), config.milter.drain + _GRACE)]
    if any(tracked_urls(config)):
        found.append(Program("web", _command("web", file), _PATIENCE))
    return [*found, Program("books", _command("books", file), _PATIENCE)]


def _more(file: Path) -> Sequence[Program]:
    """What a reload may add: the tracking server, when links are to be tracked from now on."""
    from postmeter.config.load import load
    from postmeter.config.problem import ConfigError

    try:
        return programs(load(file), file)
    except ConfigError:
        return ()  # the daemons say what is wrong with it


def _command(name: str, file: Path) -> tuple[str, ...]:
    """-P: a folder that happens to be the current one must not put modules in our way."""
    return (sys.executable, "-P", "-m", "postmeter", name, "-c", str(file))


COMMANDS = (
    Command(
        "run",
        "milter, web and books together in the foreground, for a first try and for containers",
        "postmeter run -c postmeter.yaml",
        no_arguments,
        run,
    ),
)
