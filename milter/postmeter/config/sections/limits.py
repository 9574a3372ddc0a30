"""The levels of `quota`: limits of senders, From domains, networks and of everything, and the rules that choose them.

What a list of rules needs of the keys around it, such as groups, is looked at by the section `quota`.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from postmeter.config import amounts, forms
from postmeter.config.amounts import Limit
from postmeter.config.problem import MistakeError, quoted
from postmeter.config.readers import Place, Reader, choice, listing, optional, scalar, word_or
from postmeter.config.section import required, section, setting
from postmeter.config.tree import Node, Scalar
from postmeter.config.values import Network

OVER = ("defer", "reject", "hold", "observe")


def _date(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise MistakeError(f"{quoted(text)} is not a date", "write it like 2026-12-01") from None


def _growth(text: str) -> float:
    factor = amounts.decimal(text)
    if factor <= 1:
        raise MistakeError(f"{quoted(text)} lets nothing grow", "write more than 1, for example 1.5")
    return factor


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp:
    """A limit that grows day by day, to warm up a new address."""

    start: Limit = required(forms.limit, "The limit on the first day, and before it.")
    factor: float = required(
        scalar("a number above 1", _growth), "What each day's limit is of the day before; days are those of UTC."
    )
    end: Limit = required(forms.limit, "The limit it grows to, of the same unit and time.")
    since: datetime.date = required(scalar("a date", _date), "The first day.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The first rule whose conditions all hold decides; a rule without conditions holds for everyone."""

    login: str | None = setting(optional(forms.word), None, "A login, or a glob of logins.", example='"*@example.org"')
    logins_file: Path | None = setting(
        optional(forms.path),
        None,
        "A file of logins or globs, one a line, # begins a comment; reread when it changes.",
    )
    group: str | None = setting(optional(forms.word), None, "A group of quota.groups.")
    network: Network | None = setting(optional(forms.network), None, "The client's network.", example="192.0.2.0/24")
    service: str | None = setting(
        optional(forms.word), None, "The smtpd service (milter_macro_daemon_name); local for sendmail(1)."
    )
    from_domain: str | None = setting(
        optional(forms.domain_glob),
        None,
        "The domain of the From address, or a glob such as *.example.com, where the login may use it (senders.from; "
        "with from_mismatch report, always).",
    )
    domains_file: Path | None = setting(optional(forms.path), None, "As logins_file, of From domains or globs of them.")
    limits: tuple[Limit, ...] | str = setting(
        word_or("unlimited", other=forms.limits), [], "The limits, or unlimited, which lifts this level only."
    )
    over: str | None = setting(
        optional(choice(*OVER)), None, "As quota.over, for what this rule decides; null is quota.over."
    )
    ramp: Ramp | None = setting(optional(section(Ramp)), None, "A limit that grows day by day, besides the others.")


def _checked(rule: Reader[Rule]) -> Reader[Rule]:
    def take(node: Node, place: Place) -> Rule:
        found = rule.take(node, place)
        if not found.limits and found.ramp is None:
            raise place.complain(node.line, "a rule without limits", "add limits: [...] or limits: unlimited")
        _refuse_twice(found.limits, node, place.key(Scalar("limits")))
        if found.ramp is not None:
            _check_ramp(found.ramp, found.limits, node, place.key(Scalar("ramp")))
        return found

    return Reader(rule.form, take)


def _check_ramp(ramp: Ramp, limits: tuple[Limit, ...] | str, node: Node, place: Place) -> None:
    line = place.line or node.line
    if _kind(ramp.start) != _kind(ramp.end):
        what = f"{ramp.start.text!r} and {ramp.end.text!r} do not count the same in the same time"
        raise place.complain(line, what, "give start and end the same unit and time")
    if ramp.end.count < ramp.start.count:
        raise place.complain(line, f"ends with {ramp.end.text!r}, below its start", "let it end with more")
    if isinstance(limits, str):
        raise place.complain(line, "a ramp that `limits: unlimited` lifts", "leave one of them out")
    if _kind(ramp.start) in map(_kind, limits):
        raise place.complain(line, f"{ramp.start.text!r} limits what limits does already", "keep one")


def _kind(limit: Limit) -> tuple[str, int]:
    return limit.unit, limit.window


def _refuse_twice(limits: tuple[Limit, ...] | str, node: Node, place: Place) -> None:
    seen: set[tuple[str, int]] = set()
    for index, limit in enumerate(limits if not isinstance(limits, str) else ()):
        if _kind(limit) in seen:
            line = place.reading.lines.get(place.item(index).path, node.line)
            raise place.complain(line, f"{limit.text!r} limits what another limit of this list limits", "keep one")
        seen.add(_kind(limit))


def _distinct(limits: Reader[tuple[Limit, ...]]) -> Reader[tuple[Limit, ...]]:
    def take(node: Node, place: Place) -> tuple[Limit, ...]:
        found = limits.take(node, place)
        _refuse_twice(found, node, place)
        return found

    return Reader(limits.form, take)


LIMITS = _distinct(forms.limits)
RULES = listing(_checked(section(Rule)))


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainLimits:
    limits: tuple[Limit, ...] = setting(
        LIMITS,
        [],
        "For each From domain that no rule names. Mail without one of its own (no From address, several, or a domain "
        "that its login may not use) has one account together.",
    )
    rules: tuple[Rule, ...] = setting(RULES, [], "As quota.rules.")


def _prefixes(inner: Reader[tuple[int, ...]]) -> Reader[tuple[int, ...]]:
    def take(node: Node, place: Place) -> tuple[int, ...]:
        found = inner.take(node, place)
        if len(found) != 2 or found[0] > 32:
            raise place.complain(node.line, "must be two prefix lengths", "write it like [24, 56], IPv4 and IPv6")
        return found

    return Reader("two prefix lengths", take)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkLimits:
    limits: tuple[Limit, ...] = setting(
        LIMITS, [], "For each client network that no rule names; sendmail(1)'s mail comes from none."
    )
    rules: tuple[Rule, ...] = setting(RULES, [], "As quota.rules.")
    prefix: tuple[int, ...] = setting(
        _prefixes(listing(forms.whole(1, 128))), ["24", "56"], "How many bits make a network, IPv4 and IPv6."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TotalLimits:
    limits: tuple[Limit, ...] = setting(LIMITS, [], "For all mail of ours together.")
