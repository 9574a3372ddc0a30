"""The wiring of Postfix's log: where the books read it, who runs which relay, how a charge is given back.

Decides nothing about lines. `delivery.log: auto` is the systemd journal where Postfix logs to it, else the file that
rsyslog writes in Debian, as soon as it is there.
"""

from __future__ import annotations

import json
import logging
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from postmeter.books import postlog
from postmeter.books.daemon import Chore
from postmeter.books.logsource import File, Journald, OldFiles, Source
from postmeter.books.postlog import PostLog, Rules
from postmeter.cli import postfix
from postmeter.config.schema import Config
from postmeter.delivery import providers
from postmeter.delivery.providers import Providers
from postmeter.mail.draft import Figure
from postmeter.runtime.logs import OnceAMinute
from postmeter.store import refunds
from postmeter.store.accounts import StoreDownError
from postmeter.store.database import Database
from postmeter.store.emergency import Spool
from postmeter.store.journal import Journal
from postmeter.store.refunds import Refund

if TYPE_CHECKING:
    from postmeter.store.redis_ledger import RedisLedger

log = logging.getLogger(__name__)
once = OnceAMinute(log)

MAIL_LOG = Path("/var/log/mail.log")

_EVERY = 1.0  # seconds between two looks at the log
_REPAY = 5.0  # seconds between two looks for charges to be given back elsewhere
_AGAIN = 60.0  # seconds after which an `auto` that found nothing looks again
_BEGIN = 86_400.0  # seconds of the systemd journal that are read at first; `books --once` reads what is older
_PATIENCE = 20.0  # seconds for journalctl(1)
_LINES = 100  # entries of the mail facility among which there is one of Postfix

Opened = Callable[[], Journal]


class Delivering:
    """`remote` is the store of the quotas, where that is not the journal."""

    def __init__(self) -> None:
        self._postlog: PostLog | None = None
        self._chosen = float("-inf")
        self._waits = False
        self._said = ""

    def chores(self, config: Config, opened: Opened, remote: Callable[[], RedisLedger | None]) -> list[Chore]:
        """`opened` gives the journal when it is needed; it may not be there yet. The log is found anew each time."""
        self.close()
        return [
            Chore("log", lambda: self._read(config, opened, remote), _EVERY),
            Chore("refunds", lambda: _repay(opened(), remote()), _REPAY),
        ]

    def look(self, database: Database) -> dict[Figure, float]:
        """What the metrics page shows of the queue and the log."""
        return dict(self._postlog.figures) if self._postlog is not None else {}

    def close(self) -> None:
        if self._postlog is not None:
            self._postlog.close()
        self._postlog = None

    def _read(self, config: Config, opened: Opened, remote: Callable[[], RedisLedger | None]) -> bool:
        if self._waits and time.monotonic() - self._chosen > _AGAIN:
            self.close()
        if self._postlog is None:
            self._chosen = time.monotonic()
            rules = _rules(config, remote=remote() is not None)
            self._postlog = PostLog(opened(), partial(self._source, config), rules, clock=time.time)
        return self._postlog.work()

    def _source(self, config: Config, name: str, place: str) -> Source:
        where, names = config.delivery.log, config.delivery.syslog_names
        self._waits = False
        if where == "auto":
            where = "journald" if in_journal(names) else MAIL_LOG
            self._waits = where == MAIL_LOG and not MAIL_LOG.exists()
        source: Source
        if isinstance(where, Path):
            source = File(where, place if name == f"file:{where}" else "", names=names)
        else:
            source = Journald(place if name == Journald.name else "", names=names, since=_BEGIN)
        if source.name != self._said:  # who fails begins anew each second
            self._said = source.name
            log.info("Postfix's log is read from %s", source.name)
        return source


def read_once(config: Config, paths: Sequence[Path]) -> str:
    """Old logs into the journal, and in words what that gave. OSError, PackedError or StoreError when it fails."""
    now = time.time()
    source = OldFiles(paths, names=config.delivery.syslog_names, now=now)
    rules = _rules(config, remote=config.quota.store is not None, awaits=False)
    host = config.journal.host or socket.gethostname()
    with closing(Journal(config.journal.path, sync=config.journal.sync, host=host)) as journal:
        reader = PostLog(journal, lambda name, place: source, rules, clock=lambda: now)
        while reader.work():
            pass
    found = f"{source.read_lines} lines, {source.of_postfix} of them Postfix's"
    return f"{found}: {reader.recorded} events about mail of ours that were not known"


def in_journal(names: Sequence[str]) -> bool:
    """Whether Postfix logs to the systemd journal, and we may read it."""
    program = shutil.which("journalctl")
    if program is None:
        return False
    command = [program, "--quiet", "--no-pager", "--output=json", f"--lines={_LINES}", "SYSLOG_FACILITY=2"]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_PATIENCE, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return any(_identifier(line).partition("/")[0] in names for line in done.stdout.splitlines())


def _identifier(line: bytes) -> str:
    try:
        return str(json.loads(line)["SYSLOG_IDENTIFIER"])
    except (ValueError, KeyError, TypeError):
        return ""


def _rules(config: Config, *, remote: bool, awaits: bool = True) -> Rules:
    """Where quotas are elsewhere, what is given back is noted for `_repay`."""
    spool = Spool(config.journal.path.parent / "spool" / "events", durable=False)
    return Rules(
        provider=providers_of(config),
        lifetime=postfix.queue_lifetime(),
        forget=config.delivery.forget,
        give=refunds.note if remote else refunds.give,
        late=spool.waits,
        awaits=awaits,
    )


def providers_of(config: Config) -> Providers:
    """A list that cannot be read is told of; the log goes on under the names of ours."""
    path = config.delivery.providers
    if isinstance(path, Path):
        try:
            return providers.read(path)
        except (OSError, ValueError) as error:
            log.error("delivery.providers: %s: %s; the default is used", path, error)
    return providers.read(None)


def _repay(journal: Journal, remote: RedisLedger | None) -> bool:
    if remote is None:
        return False
    try:
        return postlog.repay(journal.database, lambda each: _refund(remote, each))
    except StoreDownError as error:
        once.log(logging.WARNING, "refunds", "charges are not given back yet: %s", error)
        return False


def _refund(remote: RedisLedger, each: Refund) -> None:
    remote.refund(each.charges, each.at, time.time(), reference=each.reference)
