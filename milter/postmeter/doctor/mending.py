"""The exact commands that mend a list of milters, or another value of a service: postconf(1) with the whole new value.

Pure: Postfix's configuration in, a command line out; empty where a list is written in words that cannot be told apart
(`$other_list` for two milters), and then the finding says in words what to do. master(5), MILTER_README.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from functools import reduce

from postmeter.doctor import attaching
from postmeter.doctor.attaching import Step
from postmeter.doctor.mailer import Mailer, Service, split

_NAMED = re.compile(r"\$[({]?(\w+)[)}]?", re.ASCII)


def reordered(mailer: Mailer, service: Service | None, order: Sequence[int]) -> str:
    """The list of milters with those of its elements, in that order."""
    words = attaching.raw(mailer, service)
    if len(words) != len(mailer.entries(service)):
        return ""
    return _commands(attaching.put(mailer, service, _list(service), ", ".join(words[nth] for nth in order)))


def mended(mailer: Mailer, service: Service | None, nth: int, *, options: Sequence[str], order: Sequence[int]) -> str:
    """The list in that order, its `nth` milter with each `name=value` among its own options.

    One command for all that is wrong with a list: of two, each a whole new value, the second would undo the first.
    """
    words = attaching.raw(mailer, service)
    if len(words) != len(mailer.entries(service)):
        return ""
    steps: list[Step] = []
    before, named = list(words), _NAMED.fullmatch(words[nth])
    if named is None:
        words[nth] = reduce(_optioned, options, words[nth])
    elif options:
        value = mailer.own.get(named[1], "")
        if not value:
            return ""
        steps += attaching.put(mailer, None, named[1], reduce(_optioned, options, value))
    wanted = [words[each] for each in order]
    if wanted != before:
        steps += attaching.put(mailer, service, _list(service), ", ".join(wanted))
    return _commands(steps)


def _optioned(word: str, option: str) -> str:
    name = option.partition("=")[0]
    if not word.startswith("{"):
        return f"{{ {word}, {option} }}"
    changed, count = re.subn(rf"\b{name}\s*=\s*[^\s,}}]+", option, word)
    return changed if count else f"{word.rstrip('} ')}, {option} }}"


def switched(mailer: Mailer, service: Service, name: str, *, word: str, on: bool) -> str:
    """A list of words of a service with one more, or without one."""
    words = [each for each in split(mailer.value(name, service)) if each != word] + [word] * on
    return _commands(attaching.give(service, name, ",".join(words)))


def given(service: Service, name: str, value: str) -> str:
    """A value for that service alone."""
    return _commands(attaching.give(service, name, value))


def _list(service: Service | None) -> str:
    return "smtpd_milters" if service else "non_smtpd_milters"


def _commands(steps: Iterable[Step]) -> str:
    lines = [f"postconf {shlex.join(step.arguments)}" for step in steps]
    return " && ".join([*lines, "postfix reload"]) if lines else ""
