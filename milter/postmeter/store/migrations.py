"""The schema of the database, step by step. A step once released is never changed, only followed by another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from sqlite3 import Connection
from struct import pack


def _to_folios(link: Connection) -> None:
    """A row an account becomes one of all accounts of its key: a unit's number, no warnings, size and length, state."""
    numbers = {"messages": 0, "recipients": 1, "bytes": 2}
    packed: dict[str, bytes] = {}
    ends: dict[str, int] = {}
    for key, unit, window, empty_at, state in link.execute("SELECT key, unit, window, empty_at, state FROM ledger"):
        packed[key] = packed.get(key, b"") + pack("<BBHI", numbers[unit], 0, len(state), window) + state
        ends[key] = max(ends.get(key, 0), empty_at)
    rows = ((key, ends[key] // 86_400_000_000 + 2, state) for key, state in packed.items())
    link.executemany("INSERT INTO folios (name, idle, state) VALUES (?, ?, ?)", rows)


MIGRATIONS: list[tuple[str, str | Callable[[Connection], None]]] = [
    (
        "2026-11 events",
        """
        CREATE TABLE events (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            time REAL NOT NULL,
            host TEXT NOT NULL,
            kind TEXT NOT NULL,
            source TEXT NOT NULL UNIQUE,
            reference TEXT NOT NULL,
            queue_id TEXT NOT NULL,
            login TEXT NOT NULL,
            from_domain TEXT NOT NULL,
            data TEXT NOT NULL
        );
        CREATE INDEX events_reference ON events (reference) WHERE reference != '';
        CREATE INDEX events_queue_id ON events (queue_id) WHERE queue_id != '';
        CREATE INDEX events_login ON events (login, time) WHERE login != '';
        """,
    ),
    (
        "2026-11 totals",
        """
        CREATE TABLE totals (
            name TEXT NOT NULL,
            labels TEXT NOT NULL,
            value INTEGER NOT NULL,
            PRIMARY KEY (name, labels)
        ) WITHOUT ROWID;
        CREATE TABLE positions (name TEXT PRIMARY KEY, position TEXT NOT NULL) WITHOUT ROWID;
        CREATE TABLE replayed (name TEXT PRIMARY KEY) WITHOUT ROWID;
        """,
    ),
    (
        "2026-11 ledger",
        """
        CREATE TABLE ledger (
            key TEXT NOT NULL,
            unit TEXT NOT NULL,
            window INTEGER NOT NULL,
            empty_at INTEGER NOT NULL,
            state BLOB NOT NULL,
            PRIMARY KEY (key, unit, window)
        ) WITHOUT ROWID;
        """,
    ),
    (
        "2026-11 blocks",
        """
        CREATE TABLE blocks (
            kind TEXT NOT NULL,
            value TEXT NOT NULL,
            since REAL NOT NULL,
            PRIMARY KEY (kind, value)
        ) WITHOUT ROWID;
        """,
    ),
    ("2026-11 levels of the ledger", "UPDATE ledger SET key = 'sender:' || key"),
    (
        "2026-11 notices",
        """
        CREATE TABLE notice_ids (id TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
        CREATE TABLE outbox (topic TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (topic, seq)) WITHOUT ROWID;
        CREATE TABLE told (topic TEXT PRIMARY KEY, time REAL NOT NULL) WITHOUT ROWID;
        """,
    ),
    (
        "2026-11 profiles",
        """
        CREATE TABLE profile_house (
            key BLOB NOT NULL, since REAL NOT NULL, networks REAL NOT NULL, learned REAL NOT NULL
        );
        INSERT INTO profile_house VALUES (randomblob(32), 0, 0, 0);
        CREATE TABLE profile_logins (
            id INTEGER PRIMARY KEY, login TEXT NOT NULL UNIQUE, first REAL NOT NULL, last REAL NOT NULL
        );
        CREATE TABLE profile_hours (
            login INTEGER NOT NULL,
            hour INTEGER NOT NULL,
            recipients INTEGER NOT NULL,
            strangers INTEGER NOT NULL,
            PRIMARY KEY (login, hour)
        ) WITHOUT ROWID;
        CREATE TABLE profile_networks (
            network TEXT NOT NULL,
            login INTEGER NOT NULL,
            first REAL NOT NULL,
            last REAL NOT NULL,
            PRIMARY KEY (network, login)
        ) WITHOUT ROWID;
        CREATE TABLE profile_contacts (
            recipient INTEGER NOT NULL,
            login INTEGER NOT NULL,
            first REAL NOT NULL,
            last REAL NOT NULL,
            PRIMARY KEY (recipient, login)
        ) WITHOUT ROWID
        """,
    ),
    (
        "2026-11 orders",
        """
        CREATE TABLE orders (
            kind TEXT NOT NULL,
            login TEXT NOT NULL,
            value TEXT NOT NULL,
            since REAL NOT NULL,
            until REAL,
            PRIMARY KEY (kind, login)
        ) WITHOUT ROWID
        """,
    ),
    (
        "2026-11 folios",
        """
        CREATE TABLE folios (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            idle INTEGER NOT NULL,
            state BLOB NOT NULL
        );
        CREATE INDEX folios_idle ON folios (idle)
        """,
    ),
    ("2026-11 from the ledger to folios", _to_folios),
    (
        "2026-11 held",
        """
        DROP TABLE ledger;
        CREATE TABLE held (
            queue_id TEXT PRIMARY KEY,
            time REAL NOT NULL,
            sender TEXT NOT NULL,
            login TEXT NOT NULL,
            reason TEXT NOT NULL,
            charges TEXT NOT NULL,
            recipients INTEGER NOT NULL,
            going INTEGER NOT NULL
        ) WITHOUT ROWID;
        CREATE INDEX held_sender ON held (sender)
        """,
    ),
    (
        "2026-11 keys",
        """
        CREATE TABLE key_checks (
            domain TEXT NOT NULL,
            selector TEXT NOT NULL,
            ok INTEGER,
            what TEXT NOT NULL,
            since REAL NOT NULL,
            checked REAL NOT NULL,
            looked REAL NOT NULL,
            signs INTEGER NOT NULL,
            PRIMARY KEY (domain, selector)
        ) WITHOUT ROWID;
        CREATE INDEX key_faults ON key_checks (domain) WHERE ok = 0;
        CREATE TABLE key_sightings (
            domain TEXT NOT NULL,
            selector TEXT NOT NULL,
            record TEXT NOT NULL,
            since REAL NOT NULL,
            last REAL NOT NULL,
            PRIMARY KEY (domain, selector)
        ) WITHOUT ROWID
        """,
    ),
    (
        "2026-11 hits",
        """
        CREATE TABLE hit_keys (key BLOB PRIMARY KEY, since REAL NOT NULL) WITHOUT ROWID;
        CREATE INDEX hit_keys_since ON hit_keys (since)
        """,
    ),
    (
        "2026-11 suppressions",
        """
        CREATE TABLE suppressions (
            address TEXT NOT NULL,
            scope TEXT NOT NULL,
            reason TEXT NOT NULL,
            since REAL NOT NULL,
            PRIMARY KEY (address, scope, reason)
        ) WITHOUT ROWID
        """,
    ),
    (
        "2026-11 fates",
        """
        CREATE TABLE fate_groups (
            id INTEGER PRIMARY KEY,
            from_domain TEXT NOT NULL,
            login TEXT NOT NULL,
            campaign TEXT NOT NULL,
            UNIQUE (from_domain, login, campaign)
        );
        CREATE TABLE fates (
            reference TEXT NOT NULL,
            recipient TEXT NOT NULL,
            sender INTEGER NOT NULL,
            time REAL NOT NULL,
            status TEXT NOT NULL,
            at REAL NOT NULL,
            provider TEXT NOT NULL,
            provider_at REAL,
            flags INTEGER NOT NULL,
            PRIMARY KEY (reference, recipient)
        ) WITHOUT ROWID;
        CREATE INDEX fates_recipient ON fates (recipient);
        CREATE TABLE message_ids (
            digest INTEGER NOT NULL,
            reference TEXT NOT NULL,
            PRIMARY KEY (digest, reference)
        ) WITHOUT ROWID
        """,
    ),
    (
        "2026-11 figures",
        """
        CREATE TABLE figures (
            day INTEGER NOT NULL,
            from_domain TEXT NOT NULL,
            login TEXT NOT NULL,
            campaign TEXT NOT NULL,
            provider TEXT NOT NULL,
            what TEXT NOT NULL,
            value INTEGER NOT NULL,
            PRIMARY KEY (day, from_domain, login, campaign, provider, what)
        ) WITHOUT ROWID
        """,
    ),
    (
        "2026-11 veil",
        """
        CREATE TABLE veil (key BLOB NOT NULL);
        INSERT INTO veil VALUES (randomblob(32))
        """,
    ),
    (
        "2026-11 suppressions with evidence",
        """
        ALTER TABLE suppressions ADD COLUMN until REAL;
        ALTER TABLE suppressions ADD COLUMN evidence TEXT NOT NULL DEFAULT '';
        ALTER TABLE suppressions ADD COLUMN count INTEGER NOT NULL DEFAULT 1;
        ALTER TABLE suppressions ADD COLUMN provider TEXT NOT NULL DEFAULT '';
        CREATE INDEX suppressions_since ON suppressions (since);
        CREATE TABLE hard_bounces (
            address TEXT NOT NULL,
            scope TEXT NOT NULL,
            reference TEXT NOT NULL,
            time REAL NOT NULL,
            provider TEXT NOT NULL,
            evidence TEXT NOT NULL,
            PRIMARY KEY (address, scope, reference)
        ) WITHOUT ROWID;
        CREATE INDEX hard_bounces_time ON hard_bounces (time);
        CREATE TABLE provider_bounces (
            provider TEXT NOT NULL,
            slot INTEGER NOT NULL,
            recipients INTEGER NOT NULL,
            hard INTEGER NOT NULL,
            PRIMARY KEY (provider, slot)
        ) WITHOUT ROWID;
        CREATE TABLE mistrusted (
            provider TEXT PRIMARY KEY, since REAL NOT NULL, until REAL NOT NULL
        ) WITHOUT ROWID;
        CREATE TABLE bounced_lately (
            login TEXT PRIMARY KEY, fates TEXT NOT NULL, last REAL NOT NULL
        ) WITHOUT ROWID
        """,
    ),
    (
        "2026-11 lives",
        """
        CREATE TABLE lives (
            host TEXT NOT NULL,
            instance TEXT NOT NULL,
            queue_id TEXT NOT NULL,
            arrival REAL NOT NULL,
            data TEXT NOT NULL,
            PRIMARY KEY (host, instance, queue_id, arrival)
        ) WITHOUT ROWID;
        CREATE TABLE awaited (
            reference TEXT PRIMARY KEY,
            time REAL NOT NULL,
            service TEXT NOT NULL,
            watched INTEGER NOT NULL
        ) WITHOUT ROWID;
        CREATE TABLE refunds (reference TEXT PRIMARY KEY, at REAL NOT NULL, charges TEXT NOT NULL)
        """,
    ),
    (
        "2026-11 shipping",
        """
        CREATE TABLE shipping (
            instance TEXT NOT NULL,
            prior TEXT NOT NULL,
            began INTEGER NOT NULL,
            claimed INTEGER NOT NULL,
            shipped INTEGER NOT NULL,
            whole INTEGER NOT NULL
        );
        CREATE TABLE unshipped (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            what TEXT NOT NULL,
            key TEXT NOT NULL,
            time REAL NOT NULL,
            UNIQUE (what, key)
        )
        """,
    ),
]


def newer(made: Iterable[str]) -> list[str]:
    """Of the steps that a database has seen, those that only a newer version knows."""
    return sorted(set(made) - {name for name, _ in MIGRATIONS})
