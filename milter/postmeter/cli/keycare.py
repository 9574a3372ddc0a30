"""The wiring of those of the books' chores that look after DKIM keys: the watch over DNS, and rotations.

Each has a thread of its own, since name servers may take their time, and its own connection to the journal.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial

from postmeter.books.apart import Apart
from postmeter.books.keyrotation import Rotations, RotationWork
from postmeter.books.keywatch import KeyWatch
from postmeter.config.schema import Config
from postmeter.store import keychecks
from postmeter.store.journal import Journal
from postmeter.submission.dnskeys import Dns
from postmeter.submission.newkeys import Owner

OpenJournal = Callable[[], Journal]

WATCH, ROTATION = "keys", "rotation"


def threads(
    config: Config, *, host: str, opened: OpenJournal, failed: Callable[[str], None], old: Mapping[str, Apart]
) -> dict[str, Apart]:
    """By name; those that the configuration needs."""
    wanted: dict[str, Callable[[], KeyWatch | RotationWork]] = {}
    if _watches(config):
        wanted[WATCH] = partial(_watch, config, host, opened)
    if any(entry.keys == "auto" for entry in config.dkim.sign):
        wanted[ROTATION] = partial(_rotation, config, host, opened)
    return {name: Apart(name, make, failed=failed, after=old.get(name)) for name, make in wanted.items()}


def tidy(config: Config, journal: Journal) -> None:
    """Where nobody watches, nobody knows."""
    if not _watches(config):
        keychecks.forget_others(journal.database, ())


def _watches(config: Config) -> bool:
    return bool(config.dkim.check_every and (config.dkim.sign or config.dkim.opendkim_tables))


def _watch(config: Config, host: str, opened: OpenJournal) -> KeyWatch:
    journal = opened()
    return KeyWatch(
        config.dkim,
        Dns(config.dkim.resolvers),
        journal.database,
        host=host,
        now=time.time,
        ticks=time.monotonic,
        close=journal.close,
    )


def _rotation(config: Config, host: str, opened: OpenJournal) -> RotationWork:
    journal = opened()
    owner = Owner(os.geteuid(), os.getegid())
    dns = Dns(config.dkim.resolvers)
    rotations = Rotations(config.dkim, dns, journal.database, host, owner, time.time)
    return RotationWork(rotations, ticks=time.monotonic, close=journal.close)
