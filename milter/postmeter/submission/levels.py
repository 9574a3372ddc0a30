"""The levels of quotas: in each the first rule whose conditions all hold decides, or else what the level says itself.

Four levels, each with accounts of its own: the sender, the From domain, the client's network, and everything together.
All that apply must have room. Knows nothing of amounts, charges or replies. Made before the fork, used by any thread.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from postmeter.config.problem import ConfigError, MistakeError, Problem
from postmeter.config.schema import Limit, Network, Quota, Ramp, Rule
from postmeter.mail.message import Envelope
from postmeter.submission import ramp
from postmeter.submission.logins import Names, NamesInFile
from postmeter.submission.network import of_address

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_Set: TypeAlias = Names | NamesInFile

_SHORT = 500  # characters of names that a decision is remembered for; a longer one is nobody's, and costs memory
_CONDITIONS = ("login", "logins_file", "group", "network", "service", "from_domain", "domains_file")


@dataclass(frozen=True, slots=True)
class Allowance:
    """What may be sent: `over` is what happens to more, `by` the rule that says so, empty for the level's own."""

    limits: tuple[Limit, ...]
    over: str
    by: str = ""
    ramp: Ramp | None = None

    def __str__(self) -> str:
        limits = ", ".join(limit.text for limit in self.limits) or "none"
        return f"{self.by}: {limits}" if self.by else limits

    def on(self, day: int) -> Allowance:
        """With that day's limit of a ramp, if there is one."""
        return self if self.ramp is None else _grown(self, self.ramp, day)


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What one level says about a message, and whose account of that level is charged. Equal to itself alone, so that
    what follows from remembered ones can be looked up by them."""

    level: str
    key: str
    allowance: Allowance

    def __str__(self) -> str:
        nameless = " (no From domain of its own)" if self.level == "domain" else ""
        return f"{self.level}{f' {self.key}' if self.key else nameless}: {self.allowance}"


@dataclass(frozen=True, slots=True)
class _Subject:
    """What conditions ask about. `domain` is that of From, empty without one of its own, None before it is known."""

    login: str
    service: str
    address: _Address | None
    domain: str | None


@dataclass(frozen=True, slots=True)
class _Ready:
    """A rule made ready: every condition that it has must hold."""

    logins: tuple[_Set, ...]
    domains: tuple[_Set, ...]
    service: str | None
    network: Network | None
    allowance: Allowance

    def holds(self, subject: _Subject) -> bool:
        """All conditions but those on the From domain."""
        if self.service is not None and self.service != subject.service:
            return False
        if self.network is not None and (subject.address is None or subject.address not in self.network):
            return False
        return _in_all(subject.login, self.logins)

    def covers(self, domain: str) -> bool:
        """The conditions on the From domain: mail without one of its own meets none."""
        return bool(domain) and _in_all(domain, self.domains)


@dataclass(frozen=True, slots=True)
class _Level:
    """Rules in their order, and what holds without one."""

    rules: tuple[_Ready, ...]
    own: Allowance

    def decide(self, subject: _Subject) -> Allowance | None:
        """None where the From domain would decide and is not known yet."""
        for rule in self.rules:
            if not rule.holds(subject):
                continue
            if not rule.domains:
                return rule.allowance
            if subject.domain is None:
                return None
            if rule.covers(subject.domain):
                return rule.allowance
        return self.own

    def by_login(self, login: str) -> Allowance:
        found = (
            rule.allowance
            for rule in self.rules
            if (rule.domains, rule.service, rule.network) == ((), None, None) and _in_all(login, rule.logins)
        )
        return next(found, self.own)

    def by_domain(self, domain: str) -> Allowance:
        found = (
            rule.allowance
            for rule in self.rules
            if (rule.logins, rule.service, rule.network) == ((), None, None)
            and (not rule.domains or rule.covers(domain))
        )
        return next(found, self.own)

    def by_network(self, key: str) -> Allowance:
        found = (
            rule.allowance
            for rule in self.rules
            if (rule.logins, rule.domains, rule.service) == ((), (), None)
            and (rule.network is None or _within(key, rule.network))
        )
        return next(found, self.own)


class Levels:
    """Built once for all workers of a configuration. ConfigError when a file of names cannot be used."""

    def __init__(self, quota: Quota) -> None:
        ready = _Maker(quota)
        self._sender = ready.level(quota.rules, quota.limits)
        self._domain = ready.level(quota.domains.rules, quota.domains.limits)
        self._network = ready.level(quota.networks.rules, quota.networks.limits)
        self._total = ready.level((), quota.total.limits).own
        self._prefix = quota.networks.prefix
        self._known = self._decide if ready.reads else lru_cache(maxsize=4096)(self._decide)

    def of(self, envelope: Envelope, *, sender: str, domain: str | None, now: float) -> tuple[Decision, ...]:
        """What every level that applies says: `domain` is that of From, empty without one of its own.

        None for a domain is MAIL, where it is not known: then only what does not depend on it. Remembered, since a
        message asks twice, unless a rule depends on a file.
        """
        client, login, day = envelope.client, envelope.name, int(now // ramp.DAY)
        short = len(login) + len(sender) + len(domain or "") < _SHORT
        decide = self._known if short else self._decide
        return decide(login, envelope.service, client.address, client.local, sender, domain, day)

    def _decide(
        self, login: str, service: str, client: str, local: bool, sender: str, domain: str | None, day: int
    ) -> tuple[Decision, ...]:
        subject = _Subject(login, service, _address(client), domain)
        found: list[Decision] = []
        if allowance := self._sender.decide(subject):
            found.append(Decision("sender", sender, allowance.on(day)))
        if domain is not None and (allowance := self._domain.decide(subject)):
            found.append(Decision("domain", domain, allowance.on(day)))
        if not local and (allowance := self._network.decide(subject)):
            found.append(Decision("network", of_address(client, self._prefix) or "unknown", allowance.on(day)))
        found.append(Decision("total", "", self._total))
        return tuple(found)

    def by_name(self, level: str, key: str, now: float) -> Allowance:
        """What a key has by its name alone, for people who look: rules that ask for anything else are left out."""
        found = {
            "sender": lambda: self._sender.by_login(_login(key)),
            "domain": lambda: self._domain.by_domain(key),
            "network": lambda: self._network.by_network(key),
            "total": lambda: self._total,
        }
        return found[level]().on(int(now // ramp.DAY)) if level in found else Allowance((), "observe")


class _Maker:
    """Makes rules ready; a file or a group that several of them name is one set."""

    def __init__(self, quota: Quota) -> None:
        self._over = quota.over
        self._groups = {name: Names(globs) for name, globs in quota.groups.items()}
        self._files: dict[tuple[str, Path], NamesInFile] = {}

    def level(self, rules: Iterable[Rule], limits: tuple[Limit, ...]) -> _Level:
        ready = tuple(self._ready(rule, number) for number, rule in enumerate(rules, 1))
        return _Level(ready, Allowance(limits, self._over))

    def _ready(self, rule: Rule, number: int) -> _Ready:
        limits = () if isinstance(rule.limits, str) else rule.limits
        return _Ready(
            logins=self._sets(rule.login, "logins_file", rule.logins_file, rule.group),
            domains=self._sets(rule.from_domain, "domains_file", rule.domains_file, None),
            service=rule.service,
            network=rule.network,
            allowance=Allowance(limits, rule.over or self._over, _title(rule, number), rule.ramp),
        )

    @property
    def reads(self) -> bool:
        """Whether some rule depends on a file, which may change at any time."""
        return bool(self._files)

    def _sets(self, glob: str | None, kind: str, path: Path | None, group: str | None) -> tuple[_Set, ...]:
        """The one that costs least is asked first."""
        found: list[_Set] = []
        if group is not None:
            found.append(self._groups[group])
        if glob is not None:
            found.append(Names((glob,)))
        if path is not None:
            found.append(self._in_file(kind, path))
        return tuple(found)

    def _in_file(self, kind: str, path: Path) -> NamesInFile:
        try:
            return self._files.setdefault((kind, path), NamesInFile(path, kind=kind))
        except OSError as error:
            what, fix = f"cannot be read: {error.strerror}", "name a file that we may read"
        except MistakeError as wrong:
            what, fix = wrong.what, wrong.fix
        raise ConfigError([Problem(str(path), 0, kind, what, fix)])


def may_hold(quota: Quota) -> bool:
    """Whether any mail can be sent to Postfix's hold queue: only then it is asked for leave to (SMFIF_QUARANTINE)."""
    braked = quota.brake.mode == "on" and quota.brake.action == "hold"
    return braked or quota.over == "hold" or any(rule.over == "hold" for _, rule in quota.all_rules())


def _in_all(name: str, sets: tuple[_Set, ...]) -> bool:
    for names in sets:  # noqa: SIM110  # twice as fast as all(), and asked several times a message
        if not names.hold(name):
            return False
    return True


@lru_cache(maxsize=4096)
def _grown(allowance: Allowance, growing: Ramp, day: int) -> Allowance:
    return replace(allowance, limits=(*allowance.limits, ramp.on_day(growing, day)), ramp=None)


@lru_cache(maxsize=4096)
def _address(client: str) -> _Address | None:
    try:
        ip = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return None
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip


def _within(key: str, wider: Network) -> bool:
    try:
        found = ipaddress.ip_network(key)
    except ValueError:
        return False
    return found.version == wider.version and found.subnet_of(wider)  # type: ignore[arg-type]


def _login(sender: str) -> str:
    """The login that a sender's name is; empty for an address and for sendmail(1): those have none."""
    if sender in ("local", "unknown"):
        return ""
    try:
        ipaddress.ip_network(sender)
    except ValueError:
        return sender
    return ""


def _title(rule: Rule, number: int) -> str:
    asked = [f"{name} {value}" for name in _CONDITIONS if (value := getattr(rule, name)) is not None]
    return f"rule {number} ({', '.join(asked) or 'everyone'})"
