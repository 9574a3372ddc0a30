"""Facts of this host, collected: its disks, clock, stores, and the way from Postfix to our socket.

Looks and tries, changes nothing, judges nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from time import monotonic

from postmeter.config.schema import Config, Journal, Quota, RedisStore
from postmeter.doctor import attachment, reaching
from postmeter.doctor.facts import Disk, Trial
from postmeter.doctor.mailer import Mailer, MailerError, run, split
from postmeter.store import database, ledger, migrations
from postmeter.store.accounts import mended

_SHOWN = 10  # accounts that cannot be read; `quota show` names all
_STORE = 5.0  # seconds for a store that is asked by hand
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronized
_TIMEX = 512  # octets, more than any struct timex has


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
    yield from _sqlite(config.journal.path, ours=config.quota.store is None)
    if config.quota.store is not None:
        yield from _redis(config.quota, config.quota.store)
    if config.journal.ship_to is not None:
        yield from _postgresql(config.journal, config.journal.ship_to)


def _sqlite(path: Path, *, ours: bool) -> Iterator[Trial]:
    """`ours`: quotas are kept there."""
    about = f"the journal {path} answers a query"
    if not os.path.exists(path):
        why = "it is not there yet, or not to be seen by us: postmeter makes it when it starts"
        yield Trial(about, None, why, "start postmeter; run doctor as root")
        return
    try:
        with contextlib.closing(database.open(path, readonly=True)) as book:
            book.query("SELECT 1 FROM events LIMIT 1")
            newer = migrations.newer(str(name) for (name,) in book.query("SELECT name FROM migrations"))
            dark = list(islice(ledger.damaged(book), _SHOWN)) if ours else []
    except database.StoreError as error:
        yield Trial(about, False, error.what, error.fix)
        return
    yield Trial(about, True)
    if newer:
        why = f"a newer version has been at work with it: {', '.join(newer)}"
        fix = "install that version again, or put back the backup from before it"
        yield Trial(f"this version knows the journal {path}", False, why, fix)
    for name in dark:
        about = f"the account {name.partition(':')[2] or 'of all mail'} in the journal {path} makes sense"
        why = "its use is not known, and quota.on_store_down decides about its mail"
        yield Trial(about, False, why, mended(name))


def _redis(quota: Quota, store: RedisStore) -> Iterator[Trial]:
    from postmeter.store.accounts import StoreDownError
    from postmeter.store.redis_server import RedisServer

    about, ca, begun = f"the quota store {store} answers", quota.store_ca, monotonic()
    server = RedisServer(store, password_file=quota.store_password_file, ca=ca, timeout=_STORE)
    try:
        server.ask("EXISTS", f"{quota.store_prefix}:doctor")
        took = monotonic() - begun
        late = took > 2 * quota.store_timeout  # the connection is made once, and an answer is one way there and back
        yield Trial(about, not late, f"it took {took:.2f} s, and quota.store_timeout is {quota.store_timeout:g} s")
        with contextlib.suppress(StoreDownError):  # who may not ask for INFO is not told what it says
            yield from _keeps(store, server.ask("INFO"))
    except StoreDownError as error:
        yield Trial(about, False, str(error))
    finally:
        server.close()


def _keeps(store: RedisStore, info: object) -> Iterator[Trial]:
    """What Redis says of itself: whether it takes writes, and forgets nothing before its time."""
    text = info.decode("utf-8", "replace") if isinstance(info, bytes) else str(info)
    has = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    if has.get("role") == "slave" and not store.cluster:
        why = "role:slave (INFO): it is a replica, which refuses to be written to"
        yield Trial(f"the quota store {store} takes charges", False, why, "name its master in quota.store")
    policy = has.get("maxmemory_policy", "noeviction")
    if has.get("maxmemory", "0") != "0" and policy != "noeviction":
        why = f"maxmemory_policy:{policy} (INFO): when its memory is full it throws windows away, and quotas begin anew"
        fix = "redis-cli CONFIG SET maxmemory-policy noeviction, and the same in redis.conf"
        yield Trial(f"the quota store {store} keeps what it counts", False, why, fix)


def _postgresql(journal: Journal, url: str) -> Iterator[Trial]:
    from postmeter.store.accounts import StoreDownError

    about = "PostgreSQL (journal.ship_to) answers"
    try:
        from postmeter.store.postgres import Postgres

        link = Postgres(url, password_file=journal.ship_password_file, patience=_STORE)
        with contextlib.closing(link):
            with link.transaction() as cursor:
                cursor.execute("SELECT 1")
            yield Trial(about, True)
            with contextlib.suppress(StoreDownError), link.transaction() as cursor:
                if cursor.execute("SHOW transaction_read_only").fetchone() == ("on",):
                    why = "transaction_read_only is on: it is a standby, or the role may only read"
                    fix = "name the primary in journal.ship_to (?target_session_attrs=read-write)"
                    yield Trial("PostgreSQL (journal.ship_to) takes events", False, why, fix)
    except (StoreDownError, ImportError) as error:
        yield Trial(about, False, str(error))


def routes(mailer: Mailer, config: Config, postfix: Path | None) -> dict[str, str]:
    """Where transport(5) sends what comes back, by the whole address and by its domain, as Postfix asks."""
    found: dict[str, str] = {}
    tables = split(mailer.value("transport_maps"))
    for base in sorted(set(config.bounces.domains.values())):
        keys = (base, base.rpartition("@")[2])
        found[base] = next(filter(None, (_mapped(postfix, key, table) for key in keys for table in tables)), "")
    return found


def _mapped(postfix: Path | None, key: str, table: str) -> str:
    try:
        return run("postmap", postfix, "-q", key, table).strip()
    except MailerError:  # postmap(1) ends with 1 where there is no entry
        return ""


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
    inodes = state.f_favail if state.f_files else None  # some file systems do not count
    yield Disk(path, state.f_bavail * state.f_frsize, least, key, inodes, bool(state.f_flag & os.ST_RDONLY))


def clock() -> bool | None:
    """Whether the kernel's clock is kept right by anybody."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR
