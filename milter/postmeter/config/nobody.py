"""Names in a configuration that can be nobody's: what was meant for a whole domain would hold for no one, unseen.

Logins are named by globs, `*@example.com`, addresses by their domain, `@example.com`, and some lists take neither. A
word such as `default` stands for much where it is alone, and for itself in a list. Told as a warning: whoever has it
runs with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from postmeter.config.load import Loaded
from postmeter.config.problem import Problem, quoted
from postmeter.config.schema import Config

_ALONE = {"skip_links": frozenset({"default"}), "switches": frozenset({"all", "none"})}


def problems(loaded: Loaded) -> Iterator[Problem]:
    for path, name in _globs(loaded.config):
        if name.startswith("@"):
            yield loaded.warning(path, f"nobody's login is {quoted(name)}", f'write "*{name}" for all logins there')
    for path, name in _logins(loaded.config):
        if name.startswith("@") or "*" in name:
            yield loaded.warning(path, f"nobody's login is {quoted(name)}", "name each login: here are no patterns")
    for path, name in _addresses(loaded.config):
        if name.startswith("*@"):
            yield loaded.warning(path, f"nobody's address is {quoted(name)}", f'write "{name[1:]}" for all of them')
    for path, names, words in _lists(loaded.config):
        for word in words & set(names):
            what = f"in a list {quoted(word)} is a name like any other"
            yield loaded.warning(path, what, f"write {word} alone and without brackets, or leave it out")


def _globs(config: Config) -> Iterator[tuple[str, str]]:
    """Where a pattern of logins may stand."""
    for login in config.senders.from_:
        yield f"senders.from.{login}", login
    for path, rule in config.quota.all_rules():
        if rule.login is not None:
            yield f"quota.{path}.login", rule.login
    for group, logins in config.quota.groups.items():
        yield from _each(f"quota.groups.{group}", logins)
    yield from _each("quota.brake.except", config.quota.brake.except_)


def _logins(config: Config) -> Iterator[tuple[str, str]]:
    """Where a login alone may stand."""
    for login in config.tracking.logins:
        yield f"tracking.logins.{login}", login
    switches = config.tracking.switches
    yield from _each("tracking.switches", () if isinstance(switches, str) else switches)
    yield from _each("suppression.bypass", config.suppression.bypass)


def _addresses(config: Config) -> Iterator[tuple[str, str]]:
    """Where an address, or `@` and a domain, may stand."""
    yield from _each("quota.exempt", config.quota.exempt)
    yield from _each("tracking.bulk_senders", config.tracking.bulk_senders)


def _lists(config: Config) -> Iterator[tuple[str, tuple[str, ...], frozenset[str]]]:
    """Lists in whose place a word may stand."""
    for login, allowed in config.senders.from_.items():
        if not isinstance(allowed, str):
            yield f"senders.from.{login}", allowed, frozenset({"any"})
    tracking = config.tracking
    sections: list[tuple[str, Mapping[str, object]]] = [("tracking", {key: getattr(tracking, key) for key in _ALONE})]
    for kind, overrides in (("domains", tracking.domains), ("logins", tracking.logins)):
        sections += [(f"tracking.{kind}.{name}", known) for name, known in overrides.items()]
    for path, known in sections:
        for key, words in _ALONE.items():
            if isinstance(names := known.get(key), tuple):
                yield f"{path}.{key}", names, words


def _each(path: str, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    return ((f"{path}[{index}]", name) for index, name in enumerate(names))
