"""`quota`: how much a sender may send, where it is counted, and what happens to more."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from pathlib import Path

from postmeter.config import forms, values
from postmeter.config.amounts import DAY, Limit
from postmeter.config.problem import MistakeError, quoted
from postmeter.config.readers import Place, Reader, choice, listing, optional, scalar, table, word_or
from postmeter.config.section import part, required, section, setting
from postmeter.config.tree import Node, Scalar
from postmeter.config.values import Network

_STORES = ("redis", "rediss", "redis+cluster", "rediss+cluster", "redis+unix")
_OVER = ("defer", "reject", "hold", "observe")


def _store(text: str) -> str:
    if text == "sqlite":
        return text
    if values.scheme(text) not in _STORES:
        raise MistakeError(f"{quoted(text)} is not a store", "write sqlite, redis://HOST:6379/0 or redis+unix:///PATH")
    raise MistakeError(f"{quoted(text)} is not available in this version", "write sqlite")


def _date(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise MistakeError(f"{quoted(text)} is not a date", "write it like 2026-12-01") from None


def _prefix(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", text):
        raise MistakeError(
            f"{quoted(text)} cannot begin a key", "write letters, digits, dots, dashes, colons or underscores"
        )
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp:
    """A limit that grows day by day, to warm up a new address."""

    start: Limit = required(forms.limit, "The limit on the first day.")
    factor: float = required(forms.decimal, "What each day's limit is of the day before.")
    end: Limit = required(forms.limit, "The limit it grows to.")
    since: datetime.date = required(scalar("a date", _date), "The first day.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The first rule whose conditions all hold decides; a rule without conditions holds for everyone."""

    login: str | None = setting(optional(forms.word), None, "A login, or a glob of logins.", example='"*@example.org"')
    logins_file: Path | None = setting(
        optional(forms.path), None, "A file with one glob of logins a line, reread when it changes.", built=False
    )
    group: str | None = setting(optional(forms.word), None, "A group of quota.groups.", built=False)
    network: Network | None = setting(optional(forms.network), None, "The client's network.", example="192.0.2.0/24")
    service: str | None = setting(
        optional(forms.word), None, "The smtpd service (milter_macro_daemon_name); local for sendmail(1)."
    )
    from_domain: str | None = setting(
        optional(forms.domain),
        None,
        "The domain of the From address, where the login may use it (senders.from; with from_mismatch report, always).",
    )
    limits: tuple[Limit, ...] | str = setting(
        word_or("unlimited", other=forms.limits), [], "The limits, or unlimited, which lifts this level only."
    )
    over: str | None = setting(
        optional(choice(*_OVER, later=("hold",))), None, "As quota.over, for this rule; null is quota.over."
    )
    ramp: Ramp | None = setting(optional(section(Ramp)), None, "A limit that grows day by day.", built=False)


def _checked(rule: Reader[Rule]) -> Reader[Rule]:
    def take(node: Node, place: Place) -> Rule:
        found = rule.take(node, place)
        if not found.limits and found.ramp is None:
            raise place.complain(node.line, "a rule without limits", "add limits: [...] or limits: unlimited")
        _refuse_twice(found.limits, node, place.key(Scalar("limits")))
        return found

    return Reader(rule.form, take)


def _refuse_twice(limits: tuple[Limit, ...] | str, node: Node, place: Place) -> None:
    seen: set[tuple[str, int]] = set()
    for index, limit in enumerate(limits if not isinstance(limits, str) else ()):
        if (limit.unit, limit.window) in seen:
            line = place.reading.lines.get(place.item(index).path, node.line)
            raise place.complain(line, f"{limit.text!r} limits what another limit of this list limits", "keep one")
        seen.add((limit.unit, limit.window))


def _distinct(limits: Reader[tuple[Limit, ...]]) -> Reader[tuple[Limit, ...]]:
    def take(node: Node, place: Place) -> tuple[Limit, ...]:
        found = limits.take(node, place)
        _refuse_twice(found, node, place)
        return found

    return Reader(limits.form, take)


_limits = _distinct(forms.limits)
_rules = listing(_checked(section(Rule)))


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainLimits:
    limits: tuple[Limit, ...] = setting(_limits, [], "For each From domain that no rule names.", built=False)
    rules: tuple[Rule, ...] = setting(_rules, [], "As quota.rules.", built=False)


def _prefixes(inner: Reader[tuple[int, ...]]) -> Reader[tuple[int, ...]]:
    def take(node: Node, place: Place) -> tuple[int, ...]:
        found = inner.take(node, place)
        if len(found) != 2 or found[0] > 32:
            raise place.complain(node.line, "must be two prefix lengths", "write it like [24, 56], IPv4 and IPv6")
        return found

    return Reader("two prefix lengths", take)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkLimits:
    limits: tuple[Limit, ...] = setting(_limits, [], "For each client network that no rule names.", built=False)
    rules: tuple[Rule, ...] = setting(_rules, [], "As quota.rules.", built=False)
    prefix: tuple[int, ...] = setting(
        _prefixes(listing(forms.whole(1, 128))),
        ["24", "56"],
        "How many bits make a network, IPv4 and IPv6.",
        built=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TotalLimits:
    limits: tuple[Limit, ...] = setting(_limits, [], "For all mail of ours together.", built=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Brake:
    """Stops a login that suddenly sends as it never did: a stolen account."""

    mode: str = setting(choice("off", "observe", "on", later=("observe", "on")), "off", "off, observe or on.")
    action: str = setting(
        choice("defer", "hold"), "defer", "defer, or hold (then released or deleted by a person only).", built=False
    )
    learn: float = setting(
        forms.duration(DAY), "30d", "How far back the same hour of the week is looked at.", built=False
    )
    deviations: float = setting(forms.decimal, "8", "Median absolute deviations above the median.", built=False)
    least: int = setting(forms.whole(1), "20", "Recipients in the hour below which nothing happens.", built=False)
    signs: tuple[str, ...] = setting(
        listing(choice("network", "bounces", "strangers")),
        ["network", "bounces", "strangers"],
        "And one of these besides: a network never seen, hard bounces, recipients never written to.",
        built=False,
    )
    bounced: float = setting(forms.percent, "30%", "Hard bounces of the last 100 recipients.", built=False)
    except_: tuple[str, ...] = setting(forms.words, [], "Logins that are never braked.", built=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    store: str = setting(
        scalar("sqlite or a Redis address", _store),
        "sqlite",
        "sqlite (in the journal's own database, one transaction), or redis://HOST:6379/0, rediss://…, "
        "redis+cluster://…, redis+unix:///PATH.",
    )
    store_password_file: Path | None = setting(optional(forms.path), None, "A file with Redis's password.", built=False)
    store_ca: Path | None = setting(
        optional(forms.path), None, "Certificate authority for rediss; null is the system's.", built=False
    )
    store_prefix: str = setting(scalar("a prefix", _prefix), "postmeter", "Before every key in Redis.", built=False)
    store_timeout: float = setting(forms.duration(0.001), "250ms", "How long Redis is waited for.", built=False)
    on_store_down: str = setting(
        choice("accept", "tempfail"), "accept", "When Redis is gone (a lost SQLite is a lost journal).", built=False
    )
    over: str = setting(
        choice(*_OVER, later=("hold",)),
        "defer",
        "What happens to more: defer (451 4.7.1), reject (550 5.7.1), hold (Postfix's hold queue, charged when "
        "released) or observe (accept and count). What could never fit is refused for good; mail of sendmail(1) is "
        "never deferred.",
    )
    hold_at_most: int = setting(forms.whole(), "100", "Messages of a login on hold; then defer.", built=False)
    exempt: tuple[str, ...] = setting(
        listing(forms.address_or_domain),
        [],
        "Recipients that do not count.",
        example='["@example.com", postmaster@example.net]',
    )
    limits: tuple[Limit, ...] = setting(
        _limits,
        [],
        "For every sender that no rule names. A sender is the login, or else the certificate's name, or else the "
        "client's address (/64 for IPv6), or else local for sendmail(1).",
        example="[500 recipients/day, 100 recipients/hour, 50 recipients/message]",
    )
    rules: tuple[Rule, ...] = setting(
        _rules,
        [],
        "The first whose conditions all hold decides the sender's limits; unlimited lifts this level only.",
        example='[{login: "*@example.org", limits: [2000 messages/day, 200 messages/hour, 1G/day], over: reject}]',
    )
    groups: dict[str, tuple[str, ...]] = setting(
        table(values.word, forms.words, "a mapping of groups to lists of logins"),
        {},
        "Names for several logins.",
        built=False,
        example="{sales: [a@example.com, b@example.com]}",
    )
    domains: DomainLimits = part(DomainLimits, "Besides the sender's: per From domain. Every level must have room.")
    networks: NetworkLimits = part(NetworkLimits, "Per client network.")
    total: TotalLimits = part(TotalLimits, "All mail of ours.")
    warn_at: tuple[float, ...] = setting(
        listing(forms.percent),
        ["80%", "100%"],
        "Warn once per limit, window and threshold, over all workers and hosts.",
        built=False,
    )
    warn_to: tuple[str, ...] = setting(
        forms.addresses, [], "Who is warned.", built=False, example="[postmaster@example.com]"
    )
    warn_sender: bool = setting(forms.boolean, "false", "Whether the sender is warned too.", built=False)
    brake: Brake = part(Brake, "Stolen accounts.")
