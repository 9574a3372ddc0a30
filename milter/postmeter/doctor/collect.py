"""Facts of this host, collected: its disks, clock, stores, log, and the way from Postfix to our socket.

Looks and tries, changes nothing, judges nothing.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic

from postmeter.config.schema import Config, Journal, Quota, RedisStore
from postmeter.doctor import attachment, reaching
from postmeter.doctor.facts import Disk, Trial
from postmeter.doctor.mailer import Mailer
from postmeter.store import database

_STORE = 5.0  # seconds for a store that is asked by hand
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronized
_TIMEX = 512  # octets, more than any struct timex has
_JOURNALD = ("/usr/lib/systemd", "/run/systemd", "/etc/systemd")


def sockets(mailer: Mailer, config: Config) -> Iterator[Trial]:
    """Each different way once: smtpd(8) as it is chrooted, cleanup(8) for sendmail(1)'s mail."""
    cleanup = next((each for each in mailer.services if each.name == "cleanup/unix"), None)
    ways: dict[tuple[str, bool], str] = {}
    for service, _, ours in attachment.with_ours(mailer, config):
        runs = service or cleanup
        ways.setdefault((ours.address, runs is not None and runs.chroot), attachment.place(service))
    for (address, chroot), place in ways.items():
        about = f"postmeter answers Postfix at {address} ({place}{', chrooted' if chroot else ''})"
        queue, user = mailer.value("queue_directory"), mailer.value("mail_owner")
        yield reaching.reach(about, address, queue=queue, user=user, chroot=chroot)


def stores(config: Config) -> Iterator[Trial]:
    yield _sqlite(config.journal.path)
    if config.quota.store is not None:
        yield _redis(config.quota, config.quota.store)
    if config.journal.ship_to is not None:
        yield _postgresql(config.journal, config.journal.ship_to)


def _sqlite(path: Path) -> Trial:
    about = f"the journal {path} can be read"
    if not path.exists():
        return Trial(about, None, "it is not there yet, or nobody may see it: postmeter makes it when it starts")
    try:
        book = database.open(path, readonly=True)
        try:
            book.query("SELECT 1 FROM events LIMIT 1")
        finally:
            book.close()
    except database.StoreError as error:
        return Trial(about, False, str(error))
    return Trial(about, True)


def _redis(quota: Quota, store: RedisStore) -> Trial:
    from postmeter.store.accounts import StoreDownError
    from postmeter.store.redis_server import RedisServer

    about, ca, begun = f"the quota store {store} answers", quota.store_ca, monotonic()
    server = RedisServer(store, password_file=quota.store_password_file, ca=ca, timeout=_STORE)
    try:
        server.ask("EXISTS", f"{quota.store_prefix}:doctor")
    except StoreDownError as error:
        return Trial(about, False, str(error))
    took = monotonic() - begun
    late = took > 2 * quota.store_timeout  # the connection is made once, and an answer is one way there and back
    return Trial(about, not late, f"it took {took:.2f} s, and quota.store_timeout is {quota.store_timeout:g} s")


def _postgresql(journal: Journal, url: str) -> Trial:
    from postmeter.store.accounts import StoreDownError

    about = "PostgreSQL (journal.ship_to) answers"
    try:
        from postmeter.store.postgres import Postgres

        link = Postgres(url, password_file=journal.ship_password_file, patience=_STORE)
        with link.transaction() as cursor:
            cursor.execute("SELECT 1")
        link.close()
    except (StoreDownError, ImportError) as error:
        return Trial(about, False, str(error))
    return Trial(about, True)


def disks(config: Config, mailer: Mailer | None) -> Iterator[Disk]:
    """Postfix refuses mail below half as much again as its largest message (postconf(5), queue_minfree)."""
    yield from _disk(str(config.journal.path.parent), config.journal.min_free, "journal.min_free")
    if mailer is not None:
        size = mailer.value("message_size_limit")
        least = max(int(size) * 3 // 2 if size.isdigit() else 0, config.journal.min_free)
        yield from _disk(mailer.value("queue_directory"), least, "1.5 times message_size_limit")


def _disk(path: str, least: int, key: str) -> Iterator[Disk]:
    try:
        state = os.statvfs(path)
    except OSError:
        return  # what is not there is told where paths are checked
    yield Disk(path, state.f_bavail * state.f_frsize, least, key)


def clock() -> bool | None:
    """Whether the kernel's clock is kept right by anybody."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def journald(config: Config) -> Mapping[str, str] | None:
    """The settings of journald, where Postfix's log is read from it."""
    auto = config.delivery.log == "auto" and Path("/run/systemd/journal/socket").exists()
    if config.delivery.log != "journald" and not (auto and not Path("/var/log/mail.log").exists()):
        return None
    found: dict[str, str] = {}
    for file in _journald_files():
        lines = (line.partition("=") for line in file.read_text(errors="replace").splitlines() if line[:1] not in "#;[")
        found.update({name.strip(): value.strip() for name, equals, value in lines if equals})
    return found


def _journald_files() -> list[Path]:
    main = [path for folder in _JOURNALD if (path := Path(folder, "journald.conf")).is_file()][-1:]
    dropped = {path.name: path for folder in _JOURNALD for path in Path(folder, "journald.conf.d").glob("*.conf")}
    return [*main, *(dropped[name] for name in sorted(dropped))]
