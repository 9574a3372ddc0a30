"""`quota`: how much a sender may send, where it is counted, and what happens to more."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from postmeter.config import forms, stores, values
from postmeter.config.amounts import DAY, Limit
from postmeter.config.problem import MistakeError, quoted
from postmeter.config.readers import Place, UnreadableError, choice, listing, optional, scalar, table
from postmeter.config.section import part, setting
from postmeter.config.sections.limits import LIMITS, OVER, RULES, DomainLimits, NetworkLimits, Rule, TotalLimits
from postmeter.config.stores import RedisStore


def _prefix(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", text):
        raise MistakeError(
            f"{quoted(text)} cannot begin a key", "write letters, digits, dots, dashes, colons or underscores"
        )
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Brake:
    """Stops a login that suddenly sends as it never did: a stolen account."""

    mode: str = setting(choice("off", "observe", "on"), "off", "off, observe (stop nobody, tell whom it would) or on.")
    action: str = setting(
        choice("defer", "hold"), "defer", "defer, or hold (then released or deleted by a person only)."
    )
    learn: float = setting(
        forms.duration(7 * DAY), "30d", "How far back the same hour of the week, and networks, are looked at."
    )
    deviations: float = setting(forms.decimal, "8", "Median absolute deviations above the median.")
    least: int = setting(forms.whole(1), "20", "Recipients in the hour below which nothing happens.")
    signs: tuple[str, ...] = setting(
        listing(choice("network", "bounces", "strangers")),
        ["network", "bounces", "strangers"],
        "And one of these besides: a network never seen, hard bounces, or recipients never written to.",
    )
    bounced: float = setting(forms.percent, "30%", "Hard bounces of the last 100 recipients.")
    except_: tuple[str, ...] = setting(forms.words, [], "Logins that are never braked, or globs of them.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    store: RedisStore | None = setting(
        scalar("sqlite or a Redis address", stores.store),
        "sqlite",
        "sqlite (in the journal's own database, one transaction), or Redis or Valkey: redis://HOST:6379/0, rediss://… "
        "(TLS), redis+cluster://HOST,HOST (and rediss+cluster), redis+unix:///PATH. A user goes in front of the host: "
        "redis://USER@HOST.",
    )
    store_password_file: Path | None = setting(optional(forms.path), None, "A file with Redis's password.")
    store_ca: Path | None = setting(
        optional(forms.path), None, "Certificate authority for rediss; null is the system's."
    )
    store_prefix: str = setting(
        scalar("a prefix", _prefix), "postmeter", "Before every key in Redis; in braces, so that all lie in one slot."
    )
    store_timeout: float = setting(
        forms.duration(0.001), "250ms", "How long a message waits for Redis, connecting included."
    )
    on_store_down: str = setting(
        choice("accept", "tempfail"),
        "accept",
        "When Redis is gone (a lost SQLite is a lost journal): accept, uncharged but recorded, or tempfail (451).",
    )
    over: str = setting(
        choice(*OVER),
        "defer",
        "What happens to more: defer (451 4.7.1), reject (550 5.7.1), hold (Postfix's hold queue, charged when "
        "released) or observe (accept and count). What could never fit is refused for good; mail of sendmail(1) is "
        "never deferred.",
    )
    hold_at_most: int = setting(forms.whole(), "100", "Messages of a sender on hold; then defer.")
    exempt: tuple[str, ...] = setting(
        listing(forms.address_or_domain),
        [],
        "Recipients that do not count.",
        example='["@example.com", postmaster@example.net]',
    )
    limits: tuple[Limit, ...] = setting(
        LIMITS,
        [],
        "For every sender that no rule names. A sender is the login, or else the certificate's name, or else the "
        "client's address (/64 for IPv6), or else local for sendmail(1).",
        example="[500 recipients/day, 100 recipients/hour, 50 recipients/message]",
    )
    rules: tuple[Rule, ...] = setting(
        RULES,
        [],
        "The first whose conditions all hold decides the sender's limits; unlimited lifts this level only.",
        example='[{login: "*@example.org", limits: [2000 messages/day, 200 messages/hour, 1G/day], over: reject}]',
    )
    groups: dict[str, tuple[str, ...]] = setting(
        table(values.word, forms.words, "a mapping of groups to lists of logins"),
        {},
        "Names for several logins, or globs of them.",
        example="{sales: [a@example.com, b@example.com]}",
    )
    domains: DomainLimits = part(DomainLimits, "Besides the sender's: per From domain. Every level must have room.")
    networks: NetworkLimits = part(NetworkLimits, "Per client network.")
    total: TotalLimits = part(TotalLimits, "All mail of ours.")
    warn_at: tuple[float, ...] = setting(
        listing(forms.percent),
        ["80%", "100%"],
        "Warn once per limit, window and threshold, over all workers and hosts.",
    )
    warn_to: tuple[str, ...] = setting(
        forms.addresses,
        [],
        "Who is warned by mail, at most once in ten minutes, and told at once of what the brake stops.",
        example="[postmaster@example.com]",
    )
    warn_sender: bool = setting(forms.boolean, "false", "Whether the sender is warned too.")
    brake: Brake = part(Brake, "Stolen accounts.")

    def all_rules(self) -> Iterator[tuple[str, Rule]]:
        """The rules of every level, each with its path below `quota`."""
        for name, level in (("", self.rules), ("domains.", self.domains.rules), ("networks.", self.networks.rules)):
            for index, rule in enumerate(level):
                yield f"{name}rules[{index}]", rule


def groups_known(quota: Quota, place: Place) -> None:
    """A rule that names a group which is not there would hold for nobody, and nobody would know."""
    unknown = [(path, rule.group) for path, rule in quota.all_rules() if rule.group and rule.group not in quota.groups]
    for path, group in unknown:
        key = Place(place.reading, f"{place.path}.{path}.group")
        close = difflib.get_close_matches(group or "", quota.groups, n=1)
        fix = f"did you mean {close[0]}?" if close else "name it below quota.groups"
        key.complain(key.line, f"there is no group {quoted(group or '')}", fix)
    if unknown:
        raise UnreadableError
