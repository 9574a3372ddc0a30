"""What has to change in Postfix to have our milter, or to have it no more: a list of postconf(1) commands.

Our element of a list is always `$postmeter_milter`, and the name we give a service `$postmeter_daemon_name`: so detach
knows what is ours and takes nothing else. All other milters keep their order; ours is the last, because it signs. Pure:
Postfix's configuration in, commands out. contrib/postfix/README.md has the reasons for each value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from postmeter.config.schema import Config, InetAddress, SocketAddress
from postmeter.doctor.mailer import Mailer, Service, entry, is_ours, split

MILTER, NAME = "postmeter_milter", "postmeter_daemon_name"
_OPTIONS = "default_action=tempfail, connect_timeout=10s, command_timeout=30s, content_timeout=300s"
_COMMA = "\0"  # stands for a comma while a line of master.cf is taken apart
_REFERENCE = re.compile(r"\$[({]?(\w+)", re.ASCII)
NAMED = "milter_macro_daemon_name"
_PUBLIC = frozenset({"smtp", "25", "smtpd"})  # port 25, and what postscreen(8) passes on
_RESTRICTIONS = tuple(f"smtpd_{stage}_restrictions" for stage in ("client", "helo", "sender", "relay", "recipient"))


class PlanError(Exception):
    """What keeps a change from being made; its text is for people."""


@dataclass(frozen=True, slots=True)
class Step:
    """One run of postconf(1). `was` is the value as it was written, None where there was none.

    `line` is a whole line for master.cf, for a value that `postconf -P` does not take.
    """

    options: tuple[str, ...]
    name: str
    value: str | None
    was: str | None
    line: str = ""

    @property
    def arguments(self) -> tuple[str, ...]:
        if self.line:
            return ("-M", "-e", f"{self.name.rpartition('/')[0]}={self.line}")
        return (*self.options, self.name if self.value is None else f"{self.name}={self.value}")


def attach(mailer: Mailer, config: Config, *, wanted: Sequence[str] = ()) -> list[Step]:
    """`wanted` are services as postconf -P names them; without any, those on which users submit mail.

    Where no service is for submission alone, the list of all of them in main.cf gets the milter. Raises PlanError.
    """
    services = _chosen(mailer, wanted)
    everywhere = not services and not any(has(mailer, config, each) for each in mailer.smtpd())
    _guard(mailer, config, mailer.smtpd() if everywhere else services)
    local = mailer.own.get("non_smtpd_milters", "")
    steps = [*_defined(mailer, config.milter.listen)]
    if not has(mailer, config, None) and not (everywhere and _holds(mailer, local, "smtpd_milters")):
        _part(mailer, services)
        steps += _set(mailer, "non_smtpd_milters", _appended(local))
    named = [service for service in services if _needs_name(mailer, config, service)]
    if named:
        steps += _set(mailer, NAME, config.senders.daemon_names[0])
    if everywhere:
        steps += _set(mailer, "smtpd_milters", _appended(mailer.own.get("smtpd_milters", "")))
    for service in services:
        if not has(mailer, config, service):
            old = service.raw.get("smtpd_milters", mailer.own.get("smtpd_milters", ""))
            steps += _give(service, "smtpd_milters", _appended(old))
        if service in named:
            steps += _give(service, NAMED, f"${NAME}")
    return steps


def detach(mailer: Mailer) -> list[Step]:
    """Takes off what `attach` put there, and what says the same by hand."""
    steps: list[Step] = []
    for service in mailer.services:
        old = service.raw.get("smtpd_milters")
        if old is not None and _mentions(old):
            left = _without(old)
            same = split(left) == split(mailer.own.get("smtpd_milters", ""))
            steps += _give(service, "smtpd_milters", None if same else left)
        if service.raw.get(NAMED) in (f"${NAME}", f"${{{NAME}}}"):
            steps += _give(service, NAMED, None)
    for name in ("smtpd_milters", "non_smtpd_milters"):
        old = mailer.own.get(name)
        if old is not None and _mentions(old):
            steps += _set(mailer, name, _without(old) or None)
    steps += [step for name in (MILTER, NAME) if name in mailer.own for step in _set(mailer, name, None)]
    return steps


def has(mailer: Mailer, config: Config, service: Service | None) -> bool:
    """Whether a service, or sendmail(1)'s mail, has our milter, in whatever words."""
    queue = mailer.value("queue_directory")
    return any(is_ours(each.address, config.milter.listen, queue) for each in mailer.entries(service))


def open_to_all(mailer: Mailer, config: Config, service: Service) -> bool:
    """Whether a milter there would take strangers' mail for ours, because its name says so (`senders.daemon_names`)."""
    if service.inside or mailer.alone() or mailer.value(NAMED, service) not in config.senders.daemon_names:
        return False
    return not any(split(mailer.value(name, service).lower())[-1:] == ["reject"] for name in _RESTRICTIONS)


def public(service: Service) -> bool:
    """Whether strangers' mail comes in there."""
    return service.port in _PUBLIC


def remaining(mailer: Mailer, config: Config) -> list[str]:
    """Where our socket is named in other words than ours: by hand, and to be taken off by hand."""
    queue, found = mailer.value("queue_directory"), []
    for service in [*mailer.smtpd(), None]:
        name = f"{service.name}/smtpd_milters" if service else "non_smtpd_milters"
        for each, text in zip(mailer.entries(service), raw(mailer, service), strict=False):
            if is_ours(each.address, config.milter.listen, queue) and not _mentions(text):
                found.append(name)
    return found


def raw(mailer: Mailer, service: Service | None) -> list[str]:
    """The elements of a list of milters as they are written."""
    if service is None:
        return split(mailer.own.get("non_smtpd_milters", ""))
    return split(service.raw.get("smtpd_milters", mailer.own.get("smtpd_milters", "")))


def put(mailer: Mailer, service: Service | None, name: str, value: str) -> list[Step]:
    """A value where it stands now, with the service or in main.cf."""
    if service is not None and (name in service.raw or name not in mailer.own):
        return give(service, name, value)
    return list(_set(mailer, name, value))


def give(service: Service, name: str, value: str) -> list[Step]:
    """A value for that service alone."""
    return list(_give(service, name, value))


def _defined(mailer: Mailer, listen: SocketAddress) -> Iterator[Step]:
    """What `$postmeter_milter` is; one that names our socket already stays, with what the administrator chose."""
    place = _place(mailer, listen)
    if not is_ours(entry(mailer.value(MILTER)).address, listen, mailer.value("queue_directory")):
        yield from _set(mailer, MILTER, f"{{ {place}, {_OPTIONS} }}")


def _chosen(mailer: Mailer, wanted: Sequence[str]) -> list[Service]:
    if not wanted:
        return mailer.submissions()
    known = {service.name: service for service in mailer.smtpd()}
    missing = [name for name in wanted if name not in known]
    if missing:
        raise PlanError(f"no smtpd is called {missing[0]} in master.cf; there are {', '.join(known) or 'none'}")
    return [known[name] for name in wanted]


def _guard(mailer: Mailer, config: Config, services: Sequence[Service]) -> None:
    """Whoever writes to port 25 would have any From signed in our name."""
    for service in services:
        if public(service) and not has(mailer, config, service) and open_to_all(mailer, config, service):
            name = mailer.value(NAMED, service)
            what = f"{service.name} is called {name}, and strangers' mail would be signed as yours"
            fix = f"postconf -X {NAMED}" if NAMED not in service.raw else f"postconf -P -X {service.name}/{NAMED}"
            raise PlanError(f"{what}: {fix}, and try again")


def _part(mailer: Mailer, services: Sequence[Service]) -> None:
    """Lists of smtpd(8) must not get the milter by way of sendmail(1)'s: port 25 unasked, or submission twice."""
    lists = {"smtpd_milters": mailer.own.get("smtpd_milters", "")}
    lists |= {f"{each.name}/smtpd_milters": each.raw.get("smtpd_milters", "") for each in services}
    for name, text in lists.items():
        if _holds(mailer, text, "non_smtpd_milters"):
            raise PlanError(f"{name} holds $non_smtpd_milters: write there what that stands for, and try again")


def _holds(mailer: Mailer, text: str, name: str) -> bool:
    """Whether a list has another parameter's in it, by its name or by way of a third."""
    seen: set[str] = set()
    rest = [text]
    while rest:
        found = set(_REFERENCE.findall(rest.pop())) - seen
        seen |= found
        rest += [mailer.own.get(each, "") for each in found]
    return name in seen


def _place(mailer: Mailer, listen: SocketAddress) -> str:
    """Relative to the queue directory: right whether smtpd(8) is chrooted or not."""
    if isinstance(listen, InetAddress):
        return f"inet:{listen}"
    queue = mailer.value("queue_directory")
    path = os.path.normpath(listen.path)
    inside = os.path.relpath(path, queue)
    if not inside.startswith(".."):
        return f"unix:{inside}"
    chrooted = [each.name for each in mailer.smtpd() if each.chroot]
    if chrooted:
        what = f"{chrooted[0]} runs chrooted to {queue} and cannot see {path}"
        raise PlanError(f"{what}: set milter.listen to unix:{queue}/postmeter/milter.sock")
    return f"unix:{path}"


def _needs_name(mailer: Mailer, config: Config, service: Service) -> bool:
    """Unless the administrator has called it something: then that name stays. On port 25 a login alone tells."""
    free = NAMED not in service.raw and NAMED not in mailer.own and not public(service)
    return bool(config.senders.daemon_names) and free


def _set(mailer: Mailer, name: str, value: str | None) -> Iterator[Step]:
    was = mailer.own.get(name)
    if was != value:
        yield Step(("-X",) if value is None else ("-e",), name, value, was)


def _give(service: Service, name: str, value: str | None) -> Iterator[Step]:
    was = service.raw.get(name)
    words = split(value or "")
    if value is not None and not any(each.startswith("{") for each in words):
        value = ",".join(words)  # postconf -P takes no white space
    if was == value:
        return
    options = ("-P", "-X") if value is None else ("-P", "-e")
    bare = value is None or not any(map(str.isspace, value))
    yield Step(options, f"{service.name}/{name}", value, was, "" if bare else _line(service, name, f"{value}"))


def _line(service: Service, name: str, value: str) -> str:
    """The service's line with that option as its last: a value with white space, as braces have it (master(5))."""
    return f"{' '.join(_others(service.line, name))} -o {{ {name} = {value} }}"


def _others(line: str, name: str) -> Iterator[str]:
    """All words but the option of that name; here white space alone parts words."""
    rest = iter(split(line.replace(",", _COMMA)))
    for word in rest:
        option = next(rest, "") if word == "-o" else ""
        if option.strip("{} ").partition("=")[0].strip() == name:
            continue
        yield from (each.replace(_COMMA, ",") for each in (word, option) if each)


def _appended(old: str) -> str:
    return ", ".join([*(each for each in split(old) if not _mentions(each)), f"${MILTER}"])


def _without(old: str) -> str:
    return ", ".join(each for each in split(old) if not _mentions(each))


def _mentions(text: str) -> bool:
    return any(word in (f"${MILTER}", f"${{{MILTER}}}", f"$({MILTER})") for word in split(text))
