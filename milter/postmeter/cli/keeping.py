"""The wiring of `postmeter books`: which chores it has, what it shows, and what a reload changes.

Decides nothing about facts or figures.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from postmeter.books import baselines, disk, unsubscribes
from postmeter.books.baselines import Baselines
from postmeter.books.blocking import Blocking
from postmeter.books.daemon import Chore
from postmeter.books.discretion import strictest
from postmeter.books.families import Collector, Scope
from postmeter.books.hits import HitReader
from postmeter.books.host import Host
from postmeter.books.page import Page
from postmeter.cli import ageing, followed, robots, shipping, suppressing
from postmeter.cli.delivering import Delivering
from postmeter.cli.receiving import Receiving
from postmeter.cli.telling import Telling, tidy
from postmeter.config.check import cannot_bind, check
from postmeter.config.load import Loaded, load_with_lines
from postmeter.config.problem import ConfigError
from postmeter.config.schema import Config
from postmeter.runtime import heartbeat, logs, notify
from postmeter.runtime.notify import Notifier
from postmeter.store import accounting, ledger, orders, uniques
from postmeter.store.accounts import StoreDownError
from postmeter.store.database import StoreError
from postmeter.store.journal import Journal
from postmeter.store.settle import Settler
from postmeter.tracking.hits import SPOOL

if TYPE_CHECKING:
    from postmeter.store.redis_ledger import RedisLedger
    from postmeter.store.redis_orders import RedisOrders

log = logging.getLogger(__name__)
once = logs.OnceAMinute(log)

_PATIENCE = 1.0  # seconds to wait for a locked journal: a stop must not take longer than two
_HITS = 0.5  # seconds between two looks for clicks
_BLOCKED = 1.0  # seconds; the tracking server looks each second too, and a block must take effect within five
_LEDGER = 600.0  # seconds between two looks for accounts that nobody uses any more
_TIDY = 3600.0  # seconds between two looks for positions that nobody needs; the first is at the start
_SWEEP = 500  # accounts forgotten in one transaction
_DISK = 60.0  # seconds between two looks at the free disk


class Books:
    """What the daemon is made of under one configuration; `reload` puts another one in its place."""

    def __init__(self, loaded: Loaded, file: Path, notifier: Notifier) -> None:
        _refuse(loaded)
        self._robots = robots.opened(loaded)
        self._file, self._notifier = file, notifier
        self._page = _paged(loaded, None)
        self._settler = _settler(loaded.config)
        self._settler.add({})  # from now on it also replays what the journal could not take
        self._journal: Journal | None = None
        self._reader: HitReader | None = None
        self._blocking: Blocking | None = None
        self._baselines: Baselines | None = None
        self._telling = Telling(failed=self.failed)
        self._delivering = Delivering()
        self._receiving = Receiving(failed=self.failed)
        self._receiving.take(loaded, host=_name(loaded.config))
        self._orders: RedisOrders | None = None
        self._remote: RedisLedger | None = None
        self._take(loaded)

    def chores(self) -> list[Chore]:
        journal = self._config.journal
        state = journal.path.parent
        beat = heartbeat.place(state, "books")
        interval = notify.watchdog_interval(os.environ, os.getpid()) or heartbeat.EVERY
        return [
            Chore("heartbeat", lambda: heartbeat.beat(beat), heartbeat.EVERY),
            Chore("hits", self._read_hits, _HITS),
            Chore("blocked", self._refresh_blocked, _BLOCKED),
            *self._delivering.chores(self._config, self._open_journal, lambda: self._remote),
            *followed.chores(self._config, self._open_journal),
            *suppressing.chores(self._config, self._open_journal),
            *self._receiving.chores(self._config, self._open_journal),
            Chore("ledger", self._sweep_ledger, _LEDGER),
            Chore("repeats", self._sweep_hits, _TIDY),
            Chore("watchdog", self._notifier.watchdog, interval),
            *self._learning(),
            *([Chore("orders", self._exchange_orders, orders.EVERY)] if self._orders else []),
            Chore("tidy", lambda: tidy(self._config, self._open_journal()), _TIDY),
            *ageing.chores(self._config, self._open_journal),
            Chore("disk", lambda: disk.check(state, journal.min_free), _DISK),
        ]

    def reload(self) -> list[Chore] | None:
        """A bad configuration changes nothing, nor does one that only a restart can take over."""
        try:
            loaded = load_with_lines(self._file)
            if loaded.config.journal.path != self._config.journal.path:
                raise ConfigError([loaded.problem("journal.path", "changes with a restart only", "restart postmeter")])
            _refuse(loaded)
            found = robots.opened(loaded)
            self._listen(loaded)
        except ConfigError as error:
            log.error("not reloaded, the old configuration goes on: %s", error)
            return None
        self._robots = found
        self._take(loaded)
        logs.set_up(loaded.config.log, daemon="books")
        log.info("reloaded %s", self._file)
        return self.chores()

    def failed(self, chore: str) -> None:
        self._settler.add({("errors_total", (chore,)): 1})

    def close(self) -> None:
        self._telling.close()
        self._delivering.close()
        self._receiving.close()
        self._leave_redis()
        if self._page is not None:
            self._page.close()
        try:
            if self._journal is not None:
                self._journal.close()
            self._settler.close()
        except StoreError as error:
            log.error("last figures lost: %s", error)

    def _read_hits(self) -> bool:
        """What a hit says about a person is kept as its message, or else the strictest of our sections, wants it."""
        if self._reader is None:
            directory = self._config.journal.path.parent / "spool" / SPOOL
            self._reader = HitReader(
                directory,
                self._open_journal(),
                robots=self._robots.robots,
                privacy=strictest(self._config.tracking),
                clock=time.time,
                others=unsubscribes.OTHERS,
            )
        if self._robots.look():
            self._reader.use(self._robots.robots)
        return self._reader.work()

    def _sweep_hits(self) -> bool:
        return uniques.sweep(self._open_journal().database, time.time(), most=_SWEEP) == _SWEEP

    def _refresh_blocked(self) -> None:
        if self._blocking is None:
            self._blocking = Blocking(self._open_journal().database, self._config.journal.path.parent)
        self._blocking.refresh()

    def _learning(self) -> list[Chore]:
        brake = self._config.quota.brake
        if brake.mode == "off":
            return []
        return [
            Chore("baselines", lambda: self._open_baselines().work(), baselines.EVERY),
            Chore("forget", lambda: self._open_baselines().sweep(), baselines.SWEEP_EVERY),
        ]

    def _open_baselines(self) -> Baselines:
        if self._baselines is None:
            learn = self._config.quota.brake.learn
            self._baselines = Baselines(self._open_journal(), learn=learn, clock=time.time)
        return self._baselines

    def _exchange_orders(self) -> None:
        """Hosts that share quotas share orders."""
        if self._orders is None:
            return
        try:
            self._orders.exchange(self._open_journal().database, time.time())
        except StoreDownError as error:
            once.log(logging.WARNING, "orders", "orders do not reach other hosts, nor theirs us: %s", error)

    def _sweep_ledger(self) -> bool:
        return ledger.sweep(self._open_journal().database, time.time(), most=_SWEEP) == _SWEEP

    def _open_journal(self) -> Journal:
        """Made where it is missing. StoreError when that is impossible just now: the chore that asked tries again."""
        if self._journal is None:
            journal = self._config.journal
            self._journal = Journal(journal.path, sync=journal.sync, host=_name(self._config))
        return self._journal

    def _take(self, loaded: Loaded) -> None:
        self._loaded, config = loaded, loaded.config
        self._config = config
        self._reader = None
        self._leave_redis()
        self._orders, self._remote = accounting.orders(config.quota), accounting.redis(config.quota)
        self._telling.take(config, host=_name(config), check=(self._remote or self._settler).check)
        self._show()

    def _show(self) -> None:
        if self._page is None:
            return
        config = self._config
        host = Host(
            lambda: Journal(config.journal.path, readonly=True),
            state=config.journal.path.parent,
            loaded=time.time(),
            brakes=config.quota.brake.mode == "on",
            store=self._orders.answers if self._orders else None,
            domains=_scope(config).domains,
            looks=[self._delivering.look, *followed.looks(config), *shipping.looks(config)],
        )
        self._page.show(Collector(_scope(config), totals=host.totals, gauges=host.gauges))
        log.info("figures at http://%s/metrics", self._page.address)

    def _leave_redis(self) -> None:
        for part in (self._orders, self._remote):
            if part is not None:
                part.close()

    def _listen(self, loaded: Loaded) -> None:
        """Where it says. ConfigError when one place cannot be had: then in all of them as before."""
        self._page = _paged(loaded, self._page)
        try:
            self._receiving.take(loaded, host=_name(loaded.config))
        except ConfigError:
            self._page = _paged(self._loaded, self._page)
            self._show()
            raise


def _refuse(loaded: Loaded) -> None:
    errors = [problem for problem in check(loaded, daemon="books") if problem.severity == "error"]
    if errors:
        raise ConfigError(errors)


def _settler(config: Config) -> Settler:
    """For figures of our own, for the disk, and for the emergency spool when no worker is there to replay it."""
    journal = config.journal
    return Settler(journal.path, sync=journal.sync, host=_name(config), patience=_PATIENCE, syncs=True)


def _name(config: Config) -> str:
    return config.journal.host or socket.gethostname()


def _paged(loaded: Loaded, page: Page | None) -> Page | None:
    """The page where it is to be, if anywhere. ConfigError when it cannot be there: then it is where it was."""
    address = loaded.config.metrics.listen
    if address is None:
        if page is not None:
            page.close()
        return None
    try:
        if page is None:
            return Page(address)
        page.move(address)
    except OSError as error:
        raise ConfigError([cannot_bind(loaded, "metrics.listen", address, error)]) from None
    return page


def _scope(config: Config) -> Scope:
    """The From domains that we hold keys for, in the order of the file, and the services that are ours."""
    domains = dict.fromkeys(entry.domain for entry in config.dkim.sign)
    services = dict.fromkeys([*config.senders.daemon_names, "local"])
    shown = tuple(domains)[: config.metrics.domains]
    return Scope(domains=shown, services=tuple(services), providers=followed.names(config))
