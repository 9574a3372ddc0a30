"""What `check` tells about quotas: rules that nothing reaches, files of names that cannot be used, an idle brake."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import translate
from pathlib import Path

from postmeter.config import namelist
from postmeter.config.load import Loaded
from postmeter.config.permissions import Person, unreadable
from postmeter.config.problem import MistakeError, Problem
from postmeter.config.schema import Rule

_CONDITIONS = ("login", "logins_file", "group", "network", "service", "from_domain", "domains_file")
_NONE = (None,) * (len(_CONDITIONS) - 1)
_COMPARED = 500  # rules of a level: each is compared with all before it


def problems(loaded: Loaded, me: Person) -> Iterator[Problem]:
    yield from _unreached(loaded)
    yield from files(loaded, me)
    yield from _idle_brake(loaded)


def files(loaded: Loaded, me: Person) -> Iterator[Problem]:
    """Whether `me` can read each file of names, and what in it makes no sense."""
    for path, rule in loaded.config.quota.all_rules():
        for key in namelist.KINDS:
            file: Path | None = getattr(rule, key)
            if file is not None:
                yield from _file(loaded, f"quota.{path}.{key}", file, key, me)


def _file(loaded: Loaded, path: str, file: Path, key: str, me: Person) -> Iterator[Problem]:
    fault = unreadable(file, me, f"name another, or make it: touch {file}")
    if fault is not None:
        yield loaded.problem(path, fault.what, fault.fix)
        return
    try:
        namelist.read(file, namelist.KINDS[key])
    except MistakeError as wrong:
        yield loaded.problem(path, wrong.what, wrong.fix)
    except OSError as error:
        yield loaded.problem(path, f"{file}: {error.strerror}", "name a file that we may read")


def _unreached(loaded: Loaded) -> Iterator[Problem]:
    """The first rule whose conditions all hold decides: what an earlier one is for reaches no later one."""
    quota = loaded.config.quota
    for name, rules in (("", quota.rules), ("domains.", quota.domains.rules), ("networks.", quota.networks.rules)):
        for index, rule in enumerate(rules[:-1]):
            if _unconditional(rule):
                what = "this rule has no conditions, so that those behind it are never reached"
                yield loaded.warning(f"quota.{name}rules[{index}]", what, "move it to the end")
        for index, before in covered(rules[:_COMPARED]):
            what = f"this rule is never reached: all that it is for is for quota.{name}rules[{before}]"
            yield loaded.warning(f"quota.{name}rules[{index}]", what, "move it above that one, or leave it out")


def covered(rules: Sequence[Rule]) -> Iterator[tuple[int, int]]:
    """Rules with the conditions of an earlier one, or for logins that an earlier one is for; and which that is."""
    seen: dict[tuple[object, ...], int] = {}
    globs: list[tuple[re.Pattern[str], int]] = []
    for index, rule in enumerate(rules):
        login = rule.login.lower() if rule.login else ""
        others = tuple(getattr(rule, condition) for condition in _CONDITIONS if condition != "login")
        before = seen.get((login, *others))
        if before is None and login:
            before = seen.get((login, *_NONE), _first(globs, login))
        if before is not None and (login or others != _NONE):
            yield index, before
        seen.setdefault((login, *others), index)
        if others == _NONE and "*" in login and not set("?[") & set(login):
            globs.append((re.compile(translate(login)), index))


def _first(globs: Sequence[tuple[re.Pattern[str], int]], login: str) -> int | None:
    """That whose `*` stand for whatever is in the login, a glob's own signs too; what brackets hold is no text."""
    return next((index for pattern, index in globs if "[" not in login and pattern.match(login)), None)


def _idle_brake(loaded: Loaded) -> Iterator[Problem]:
    brake = loaded.config.quota.brake
    if brake.mode != "off" and not brake.signs:
        what = "without any the brake stops nobody"
        yield loaded.warning("quota.brake.signs", what, "write [network, bounces, strangers], or some of them")


def _unconditional(rule: Rule) -> bool:
    return all(getattr(rule, condition) is None for condition in _CONDITIONS)
