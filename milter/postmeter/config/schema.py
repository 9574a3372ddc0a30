"""The whole configuration: a frozen dataclass a section, of which every part gets the one it needs.

`Config()` is the empty file. An attribute is named as its key; `from_`, `except_` and `for_` carry an underscore
because Python reserves the word. Knows nothing of YAML, files or the machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from postmeter.config.amounts import Limit
from postmeter.config.readers import choice, listing
from postmeter.config.section import part, section, setting
from postmeter.config.sections.books import Journal, Log, Metrics, Notify, Report, Webhook
from postmeter.config.sections.dkim import Dkim, HeaderRule, KeyEntry, OpendkimTables, SignEntry, agrees
from postmeter.config.sections.feedback import Bounces, Delivery, Suppression
from postmeter.config.sections.limits import DomainLimits, NetworkLimits, Ramp, Rule, TotalLimits
from postmeter.config.sections.milter import Milter, Senders
from postmeter.config.sections.quota import Brake, Quota, groups_known
from postmeter.config.sections.tracking import Tracking, Web
from postmeter.config.stores import RedisStore
from postmeter.config.values import InetAddress, Network, SocketAddress, UnixAddress

__all__ = [
    "Bounces",
    "Brake",
    "Config",
    "Delivery",
    "Dkim",
    "DomainLimits",
    "HeaderRule",
    "InetAddress",
    "Journal",
    "KeyEntry",
    "Limit",
    "Log",
    "Metrics",
    "Milter",
    "Network",
    "NetworkLimits",
    "Notify",
    "OpendkimTables",
    "Quota",
    "Ramp",
    "RedisStore",
    "Report",
    "Rule",
    "Senders",
    "SignEntry",
    "SocketAddress",
    "Suppression",
    "TotalLimits",
    "Tracking",
    "UnixAddress",
    "Web",
    "Webhook",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    mode: str = setting(
        choice("enforce", "observe"),
        "enforce",
        "observe refuses, changes and signs nothing, and records what would have been.",
    )
    milter: Milter = part(Milter, "The socket and its workers.")
    senders: Senders = part(
        Senders,
        "Which mail is ours to meter, sign and track: one match is enough; all other mail passes untouched.",
    )
    quota: Quota = part(Quota, "How much a sender may send.", look=groups_known)
    dkim: Dkim = part(Dkim, "Signatures.", look=agrees)
    tracking: Tracking = part(Tracking, "Tracked links.")
    web: Web = part(Web, "The server behind tracked links.")
    bounces: Bounces = part(Bounces, "What comes back.")
    suppression: Suppression = part(Suppression, "Recipients that are not written to again.")
    delivery: Delivery = part(Delivery, "Postfix's log.")
    notify: Notify = part(Notify, "Mail of our own.")
    webhooks: tuple[Webhook, ...] = setting(
        listing(section(Webhook)),
        [],
        "Where events are posted to.",
        example="[{url: https://crm.example.com/mail, events: [quota_warning, brake], secret_file: "
        "/etc/postmeter/crm.secret}]",
    )
    report: Report = part(Report, "The regular report.")
    metrics: Metrics = part(Metrics, "Figures for Prometheus.")
    journal: Journal = part(Journal, "Where all facts are kept.")
    log: Log = part(Log, "Our own log.")
