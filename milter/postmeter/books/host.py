"""What the metrics page says about this host right now: totals as the journal has them, daemons as they were seen.

Knows nothing of how a page is served. The journal is opened for each scrape: safe from any thread, about a
millisecond, and a database that was locked, moved or not there yet is found again without anybody's help.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import time
from typing import TypeAlias

from postmeter import __version__
from postmeter.books import keyfigures
from postmeter.books.families import Gauges
from postmeter.mail.draft import Figure
from postmeter.runtime import heartbeat
from postmeter.runtime.logs import OnceAMinute
from postmeter.runtime.spool import free_bytes
from postmeter.store import held, orders
from postmeter.store.database import Database, StoreError
from postmeter.store.journal import Journal

DAEMONS = ("milter", "web", "books")

Look: TypeAlias = Callable[[Database], Gauges]

once = OnceAMinute(logging.getLogger(__name__))


class Host:
    """`journal` opens one to be read and closed again; `loaded` is when the configuration was taken over.

    `brakes`: the brake is on; orders of one that is not stop nobody. `store` tells whether a store of the quotas
    beside the journal answers; `domains` are those whose keys are shown by name; `looks` tell what else is so now.
    """

    def __init__(
        self, journal: Callable[[], Journal], *, state: Path, loaded: float, brakes: bool = False,
        store: Callable[[], bool] | None = None, domains: Sequence[str] = (), clock: Callable[[], float] = time,
        looks: Sequence[Look] = (),
    ) -> None:  # fmt: skip
        self._journal, self._state, self._loaded = journal, state, loaded
        self._brakes, self._store, self._domains, self._clock = brakes, store, tuple(domains), clock
        self._looks = tuple(looks)
        self._readable = False
        self._kept: dict[Figure, float] = {}

    def totals(self) -> Mapping[Figure, int] | None:
        """Every total, or None when the journal cannot be read just now; what is stopped is counted with them."""
        self._readable, self._kept = False, {}
        try:
            with contextlib.closing(self._journal()) as journal:
                totals = journal.totals()
                self._kept = self._look(journal.database)
        except StoreError as error:
            once.log(logging.WARNING, "totals", "metrics without totals: %s", error)
            return None
        self._readable = True
        return totals

    def gauges(self) -> Gauges:
        """What is true now; where quotas are in the journal, `quota_store_up` tells of the last `totals`."""
        gauges: dict[Figure, float] = {
            ("quota_store_up", ()): float(self._store() if self._store else self._readable),
            ("config_reload_timestamp_seconds", ()): self._loaded,
            ("build_info", (__version__,)): 1.0,
            **self._kept,
        }
        with contextlib.suppress(OSError):  # not there yet, or not for us: then the rest is told all the same
            gauges["disk_free_bytes", ()] = float(free_bytes(self._state))
        for daemon in DAEMONS:
            seen = heartbeat.last_beat(heartbeat.place(self._state, daemon))
            if seen is not None:
                gauges["daemon_seen_timestamp_seconds", (daemon,)] = seen
        return gauges

    def _look(self, database: Database) -> dict[Figure, float]:
        braked = [order for order in orders.read(database, self._clock()) if order.kind == "brake"]
        return {
            ("held_messages", ()): float(held.everything(database)),
            ("brake_logins", ()): float(len(braked) if self._brakes else 0),
            **keyfigures.of_keys(database, self._domains),
            **{figure: value for look in self._looks for figure, value in look(database).items()},
        }
