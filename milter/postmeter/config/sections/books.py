"""`notify`, `webhooks`, `report`, `metrics`, `journal`, `log`: where facts are kept and who is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from postmeter.config import forms, postgresql
from postmeter.config.amounts import HOUR
from postmeter.config.readers import choice, listing, optional, scalar
from postmeter.config.section import required, setting
from postmeter.config.values import InetAddress

_EVENTS = (
    "submitted",
    "refused",
    "released",
    "clicked",
    "opened",
    "rejudged",
    "unsubscribed",
    "quota_warning",
    "brake",
    "dkim_key",
    "suppressed",
    "mistrusted",
    "sent",
    "deferred",
    "bounced",
    "expired",
    "unknown",
    "untaken",
    "complained",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    smtp: InetAddress = setting(forms.inet, "127.0.0.1:25", "How our own mail leaves.")
    from_: str | None = setting(optional(forms.address), None, "Its sender; null is postmaster@ the host.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    url: str = required(forms.url, "Where events are posted.")
    events: tuple[str, ...] = required(listing(choice(*_EVENTS)), "Which events.")
    secret_file: Path | None = setting(optional(forms.path), None, "A file with the secret that signs them.")
    batch: int = setting(forms.whole(1), "100", "Events in one request.")
    retry_for: float = setting(forms.duration(), "3d", "How long a failed request is tried again.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    to: tuple[str, ...] = setting(forms.addresses, [], "Who gets the report, which postmeter-report.timer sends.")
    every: float = setting(forms.duration(HOUR), "7d", "How often, in whole days.")
    by: tuple[str, ...] = setting(
        listing(choice("domain", "login", "campaign", "provider", "day")),
        ["domain", "login", "provider"],
        "What it is broken down by.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    listen: InetAddress | None = setting(
        optional(forms.inet),
        "127.0.0.1:9587",
        "One page for the whole host, served by `postmeter books`; null is none.",
    )
    domains: int = setting(forms.whole(), "50", 'So many From domains by name, the rest as "other".')
    per_login: int = setting(forms.whole(), "0", "Label the N busiest logins; 0 is none.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    path: Path = setting(
        forms.path,
        "/var/lib/postmeter/journal.db",
        "What else postmeter writes lies beside it: spool/, webhook and shipping positions.",
    )
    host: str | None = setting(optional(forms.word), None, "Our name in events; null is the system's host name.")
    sync: str = setting(
        choice("normal", "full"),
        "normal",
        "normal: kill -9 loses nothing, a power cut the last second; full: nothing (fsync, shared by messages that "
        "wait together).",
    )
    on_error: str = setting(choice("tempfail", "accept"), "tempfail", "tempfail, or accept: counted, and unaccounted.")
    min_free: int = setting(forms.size(), "100M", "Free disk below which we warn.")
    keep: float = setting(forms.duration(), "400d", "How long events are kept; sums of a day stay.")
    keep_addresses: float = setting(
        forms.duration(),
        "60d",
        "Then recipients become keyed hashes; totals, uniques and suppression stay.",
    )
    ship_to: str | None = setting(
        optional(scalar("a PostgreSQL address", postgresql.address)),
        None,
        "A PostgreSQL database of all hosts, that events are shipped to; TLS as libpq has it: "
        "?sslmode=verify-full&sslrootcert=FILE.",
        example="postgresql://postmeter@db.example.com/postmeter",
    )
    ship_password_file: Path | None = setting(optional(forms.path), None, "A file with its password.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    level: str = setting(choice("debug", "info", "warning", "error"), "info", "debug, info, warning or error.")
    format: str = setting(choice("text", "json"), "text", "text or json.")
