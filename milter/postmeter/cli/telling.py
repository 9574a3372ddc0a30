"""The wiring of those of the books' chores that speak with other hosts: notices, webhooks, keys in DNS, PostgreSQL.

Each has a thread of its own, since it waits for others; each its own connection to the journal. A reload ends the old
ones and starts the new, each of which begins when its own predecessor is done. Decides nothing about what is told.
"""

from __future__ import annotations

import random
import re
import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from postmeter.books import notices, webhooks
from postmeter.books.apart import Apart
from postmeter.books.letters import Room
from postmeter.books.mailing import Mailer
from postmeter.cli import keycare, shipping, suppressing
from postmeter.config.schema import Config, Webhook
from postmeter.events import Warned
from postmeter.store.accounts import Charge, Overdrawn
from postmeter.store.database import StoreError
from postmeter.store.journal import Journal

# A stop takes two seconds at most.
_STOP = 0.5  # seconds to wait for threads at the end; what they are at is done again after a restart

OpenJournal = Callable[[], Journal]
Check = Callable[[Sequence[Charge], float], "Overdrawn | None"]
"""As `Accounts.check`."""


class Telling:
    """`failed` counts a failure by the name of its chore."""

    def __init__(self, *, failed: Callable[[str], None]) -> None:
        self._failed = failed
        self._threads: dict[str, Apart] = {}

    def take(self, config: Config, *, host: str, check: Check) -> None:
        """`check` asks the store of the quotas, from another thread than this one."""
        old = self._threads
        for thread in old.values():
            thread.stop()
        opened = partial(Journal, config.journal.path, sync=config.journal.sync, host=host)
        self._threads = {
            hook.url: Apart("webhooks", partial(_hook, hook, opened), failed=self._failed, after=old.get(hook.url))
            for hook in config.webhooks
        }
        if _wants_notices(config):
            make = partial(_notices, config, host, opened, _room(check), self._failed)
            self._threads[""] = Apart("notices", make, failed=self._failed, after=old.get(""))
        for others in (keycare, shipping, suppressing):
            self._threads |= others.threads(config, host=host, opened=opened, failed=self._failed, old=old)

    def close(self) -> None:
        for thread in self._threads.values():
            thread.stop()
        until = time.monotonic() + _STOP
        for thread in self._threads.values():
            thread.join(until)


def tidy(config: Config, journal: Journal) -> None:
    """Positions of those that are no longer told anything."""
    webhooks.forget_others(journal, [hook.url for hook in config.webhooks])
    if not _wants_notices(config):
        notices.forget(journal)
    keycare.tidy(config, journal)
    shipping.tidy(config, journal)
    suppressing.tidy(config, journal)


def _wants_notices(config: Config) -> bool:
    return bool(config.quota.warn_to) or config.quota.warn_sender


def _hook(hook: Webhook, opened: OpenJournal) -> webhooks.Hook:
    secret = _secret(hook.secret_file)
    return webhooks.Hook(hook, opened(), secret=secret, chance=random.random)


def _secret(path: Path | None) -> bytes:
    return path.read_bytes().strip() if path is not None else b""


def _notices(
    config: Config, host: str, opened: OpenJournal, room: Room, failed: Callable[[str], None]
) -> notices.Notices:
    name = host if re.fullmatch(r"[A-Za-z0-9.-]+", host) else "localhost"
    mailer = Mailer(config.notify.smtp, config.notify.from_ or f"postmaster@{name}", name)
    token = partial(secrets.token_hex, 16)
    journal = opened()
    return notices.Notices(journal, config.quota, mailer, room=room, failed=failed, token=token, chance=random.random)


def _room(check: Check) -> Room:
    def room(event: Warned) -> float | None:
        charge = Charge(
            level=event.level,
            key=event.key,
            unit=event.unit,
            window=event.window,
            limit=event.limit,
            amount=1,
            text=event.text,
        )
        try:
            over = check([charge], time.time())
        except StoreError:
            return None
        return 0.0 if over is None else over.room_at

    return room
