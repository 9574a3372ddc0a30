"""Every figure that postmeter shows: its name, labels and meaning; and a stopwatch for those who count time.

Knows nothing of the journal that keeps the totals or of the page that shows them, nor of prometheus_client, which no
worker needs. Names are for ever: a metric may be added, none changes its meaning. No login, no address and no
recipient's domain is a label (https://prometheus.io/docs/practices/naming/).
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from postmeter.mail.draft import Figure

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
Known: TypeAlias = Mapping[str, tuple[str, ...]]
"""Label values that are known beforehand, by label: where every label has some, their series start at 0."""

PREFIX = "postmeter_"

# Seconds. An end of message takes 0.5 ms at best and Postfix waits 300 s for it (milter_content_timeout); what takes
# longer than 10 s is one bucket.
BUCKETS = ("0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10")
_BOUNDS = tuple(float(bound) for bound in BUCKETS)
_COUNTED = (*BUCKETS, "sum", "count")
_MANY = 100  # durations

DELAYS = ("1", "2", "5", "10", "30", "60", "300", "900", "3600", "14400", "86400", "432000")
"""Seconds until a message is delivered; 432000 is Postfix's maximal_queue_lifetime."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """One metric, and what is known of its labels before anything happens."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    known: Known = field(default_factory=dict)
    buckets: tuple[str, ...] = BUCKETS
    """Of a histogram."""


# Why links stay as they are; the rules are those of tracking.
_OF_MESSAGES = (
    "not_bulk",
    "too_large",
    "already_signed",
    "pgp",
    "smime",
    "structure",
    "too_many_links",
    "size_limit",
)
_OF_PARTS = ("attachment", "signed", "encrypted", "report", "charset", "encoding", "amp_size", "no_place")
_OF_LINKS = (
    "switched_off",
    "relative",
    "scheme",
    "template",
    "malformed",
    "too_long",
    "unsubscribe",
    "url_text",
    "skipped_host",
    "own_link",
    "login_like",
    "long_line",
)

# What became of fields by which senders ask something; the rules are those of tracking.
_SWITCHES = ("obeyed", "unused", "unreadable", "ignored", "disbelieved", "kept")

# What submission/safe.py could not make safe, and why.
_FRAGILE = (
    "already_signed",
    "signed",
    "encrypted",
    "smime",
    "pgp",
    "encoding",
    "structure",
    "size_limit",
    "header",
)

# Why mail of ours leaves unsigned; the rules are those of identity, of marks and of signing.
_UNSIGNED = (
    "no_from",
    "several_from",
    "unclear_from",
    "from_mismatch",
    "from_changed",
    "mark_expired",
    "no_key",
    "error",
)

# What became of a message that came back; the words are those of feedback.judging and books.returns.
_FEEDBACK = ("bounce", "complaint", "unsubscribe", "repeated", "passed_on", "elsewhere", "untrusted", "unclear",
             "dropped")  # fmt: skip

# Why somebody is suppressed; the rules are those of store.suppression.
_SUPPRESSED = ("bounced", "complained", "unsubscribed", "manual")

# Places that can fail: the callbacks and the steps of a message, the chores and the threads of the books.
_CALLBACKS = ("envfrom", "envrcpt", "eoh", "eom", "session")
_STEPS = ("identity", "from", "notice", "frozen", "brake", "switches", "suppression", "quota", "links", "unsubscribe",
          "return_path", "mark", "make_safe", "signing")  # fmt: skip
_CHORES: tuple[str, ...] = ("hits", "repeats", "blocked", "ledger", "disk", "tidy", "notices", "webhooks", "orders")
_CHORES += ("returns", "kept", "suppressions", "removed", "following", "shipping", "log", "refunds", "retention")
_CHORES += ("baselines", "forget", "keys", "rotation", "heartbeat", "watchdog")

METRICS: list[Meaning] = [
    Meaning(
        "messages_total",
        "counter",
        ("service", "result"),
        "Messages, by what was done: observed is mode observe, passed is mail that is not ours, refiltered was "
        "accepted before and came back from a content filter, discarded was a test that nobody should get.",
        {"result": ("accepted", "held", "discarded", "observed", "deferred", "rejected", "passed", "refiltered")},
    ),
    Meaning("recipients_total", "counter", (), "Recipients of accepted messages of ours."),
    Meaning(
        "quota_refusals_total",
        "counter",
        ("window", "unit"),
        "Messages refused for a quota, or over one that only observes, by the window and unit of its limit.",
        {
            "window": ("message", "second", "minute", "hour", "day", "month"),
            "unit": ("messages", "recipients", "bytes"),
        },
    ),
    Meaning("quota_store_up", "gauge", (), "1 when the store of the quotas could be read just now."),
    Meaning("quota_store_errors_total", "counter", (), "Failures to read or write the store of the quotas."),
    Meaning(
        "from_mismatch_total",
        "counter",
        ("action",),
        "Messages whose login may not use their From domain, by what senders.from_mismatch does then.",
        {"action": ("unsigned", "report", "reject")},
    ),
    Meaning("held_messages", "gauge", (), "Messages in Postfix's hold queue for a quota or the brake."),
    Meaning("brake_logins", "gauge", (), "Logins stopped by the brake."),
    Meaning(
        "dkim_signatures_total",
        "counter",
        ("domain", "algorithm"),
        "DKIM signatures made.",
        {"algorithm": ("rsa-sha256", "ed25519-sha256")},
    ),
    Meaning(
        "dkim_unsigned_total",
        "counter",
        ("reason",),
        "Messages of ours that left unsigned, by reason.",
        {"reason": _UNSIGNED},
    ),
    Meaning(
        "dkim_fragile_total",
        "counter",
        ("reason",),
        "Messages signed although a later hop may break the signature, by why dkim.make_safe left them as they are.",
        {"reason": _FRAGILE},
    ),
    Meaning("dkim_key_ok", "gauge", ("domain", "selector"), "1 when DNS shows the key that we sign with."),
    Meaning(
        "dkim_checked_timestamp_seconds",
        "gauge",
        (),
        "When DNS last told of the key that it has told nothing of for longest.",
    ),
    Meaning("links_rewritten_total", "counter", (), "Links turned into tracked links."),
    Meaning(
        "html_clipped_total", "counter", (), "HTML that tracking made longer than what Gmail shows (102,400 octets)."
    ),
    Meaning(
        "switches_total",
        "counter",
        ("result",),
        "Header fields of accepted mail by which senders ask something of us or of another service, by what became of "
        "them.",
        {"result": _SWITCHES},
    ),
    Meaning(
        "rewrite_skipped_total",
        "counter",
        ("reason",),
        "Links, parts and messages left as they were although tracking is on, by reason.",
        {"reason": _OF_MESSAGES + _OF_PARTS + _OF_LINKS},
    ),
    Meaning(
        "deliveries_total",
        "counter",
        ("status", "domain", "provider"),
        "Recipients of mail of ours, by what became of them: each counts once for every status that it comes to.",
        {"status": ("sent", "deferred", "bounced", "expired", "unknown")},
    ),
    Meaning("delivery_delay_seconds", "histogram", (), "From submission to delivery.", buckets=DELAYS),
    Meaning(
        "queue_recipients",
        "gauge",
        ("state", "provider"),
        "Recipients of mail of ours in Postfix's queue: active, deferred or held.",
    ),
    Meaning("queue_oldest_seconds", "gauge", ("state", "provider"), "How long the oldest of them has been there."),
    Meaning(
        "bounces_total",
        "counter",
        ("type", "provider"),
        "Recipients whose mail came back: hard when the address is at fault, soft when not, expired when Postfix gave "
        "up.",
        {"type": ("hard", "soft", "expired")},
    ),
    Meaning(
        "feedback_total",
        "counter",
        ("result",),
        "Messages that came back: recorded as bounce, complaint or unsubscribe, repeated, passed on to the sender, "
        "kept for a person as untrusted or unclear, dropped from there.",
        {"result": _FEEDBACK},
    ),
    Meaning("complaints_total", "counter", (), "Feedback reports about mail of ours."),
    Meaning(
        "suppressed_total",
        "counter",
        ("reason",),
        "Recipients not written to because they are suppressed.",
        {"reason": _SUPPRESSED},
    ),
    Meaning(
        "provider_mistrusted_total",
        "counter",
        ("provider",),
        "Times that a provider refused so many recipients for good that its bounces suppress nobody for a while.",
    ),
    Meaning(
        "suppression_observed_total",
        "counter",
        ("reason",),
        "Recipients that suppression.observe wrote to although they are suppressed.",
        {"reason": _SUPPRESSED},
    ),
    Meaning(
        "bounce_rate",
        "gauge",
        ("domain",),
        "Hard bounces of 7 days over the recipients whose delivery was decided, by From domain.",
    ),
    Meaning("complaint_rate", "gauge", ("domain",), "Complaints of 7 days over delivered recipients, by From domain."),
    Meaning(
        "rated_recipients",
        "gauge",
        ("domain",),
        "Recipients of 7 days whose delivery was decided, by From domain: what the rates are worth.",
    ),
    Meaning(
        "login_recipients",
        "gauge",
        ("login", "status"),
        "Recipients of 7 days of the metrics.per_login busiest logins, by what became of them.",
    ),
    Meaning(
        "opens_total",
        "counter",
        ("by",),
        "Opens of messages, by human, machine or unsure, as each looked at first.",
        {"by": ("human", "machine", "unsure")},
    ),
    Meaning(
        "clicks_total",
        "counter",
        ("by",),
        "Tracked links followed, by human, machine or unsure, as each looked at first.",
        {"by": ("human", "machine", "unsure")},
    ),
    Meaning("unsubscribes_total", "counter", (), "One-click unsubscriptions."),
    Meaning(
        "callback_seconds",
        "histogram",
        ("stage",),
        "Time that a stage of a message took in the milter.",
    ),
    Meaning(
        "errors_total",
        "counter",
        ("where",),
        "Bugs and failures of our own, by the place that failed.",
        {"where": (*_CALLBACKS, *_STEPS, "dkim", "journal", *_CHORES)},
    ),
    Meaning("log_gaps_total", "counter", (), "Times that Postfix's log was lost before it was read."),
    Meaning("log_lag_bytes", "gauge", (), "How much of Postfix's log is still unread."),
    Meaning("ship_lag_events", "gauge", (), "Events not yet shipped to PostgreSQL."),
    Meaning("disk_free_bytes", "gauge", (), "Free on the disk of the journal, for us."),
    Meaning("webhook_failures_total", "counter", (), "Webhook calls that failed."),
    Meaning(
        "webhook_dropped_total",
        "counter",
        (),
        "Events that a webhook did not take within retry_for, or too large for it: given up.",
    ),
    Meaning("daemon_seen_timestamp_seconds", "gauge", ("daemon",), "When a daemon of this host was last alive."),
    Meaning("config_reload_timestamp_seconds", "gauge", (), "When `postmeter books` last took over a configuration."),
    Meaning("build_info", "gauge", ("version",), "Always 1; the version of `postmeter books`."),
]


class Stopwatch:
    """Collects durations in a worker until its next transaction takes them along. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._durations: deque[tuple[str, float]] = deque()
        self._stages: dict[str, list[int]] = {}

    def observe(self, stage: str, seconds: float) -> None:
        """Remember one duration: many are counted in half the time that each takes by itself between two messages."""
        self._durations.append((stage, seconds))
        if len(self._durations) >= _MANY:
            with self._lock:
                self._count()

    def _count(self) -> None:
        """Each into the first bucket that it does not exceed, the sum in whole microseconds."""
        for _ in range(len(self._durations)):
            stage, seconds = self._durations.popleft()
            found = self._stages.get(stage) or self._stages.setdefault(stage, [0] * len(_COUNTED))
            at = bisect_left(_BOUNDS, seconds)
            if at < len(BUCKETS):
                found[at] += 1
            found[-2] += round(seconds * 1_000_000)
            found[-1] += 1

    def take(self) -> dict[Figure, int]:
        """What came together since the last time; whoever takes it must record it."""
        with self._lock:
            self._count()
            taken, self._stages = self._stages, {}
        return {
            ("callback_seconds", (stage, what)): count
            for stage, counts in taken.items()
            for what, count in zip(_COUNTED, counts, strict=True)
            if count or what == "sum"
        }
