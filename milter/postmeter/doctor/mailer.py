"""Postfix's configuration as its own postconf(1) tells it, and the lists of milters in it.

Reads by `postconf`, whatever file a value stands in, and never a file of Postfix's itself. Knows nothing of what is
right. postconf(1), postconf(5), master(5), MILTER_README of Postfix 3.7.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from postmeter.config.schema import InetAddress, SocketAddress

_PATIENCE = 60.0  # seconds; a configuration may ask a slow file system
SUBMISSION = frozenset({"submission", "submissions", "smtps", "587", "465"})
_LOOPBACK = ("localhost", "[::1]", "::1", "loopback-only")
_TIME = re.compile(r"([0-9]+)([smhdw]?)", re.ASCII)
_OPTION = re.compile(r"(\w+)\s*=\s*([^\s,]*)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class MailerError(Exception):
    """A command of Postfix's that is missing or failed; its text is for people."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service of master.cf. `raw` are its -o options as written, `options` the same with all `$name` put in.

    `line` is all of it on one line, as `postconf -M` has it.
    """

    name: str
    program: str
    chroot: bool = False
    raw: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    line: str = ""

    @property
    def port(self) -> str:
        """The part of `127.0.0.1:587/inet` or `submission/inet` that tells the port."""
        return self.name.partition("/")[0].rpartition(":")[2]

    @property
    def inside(self) -> bool:
        """Whether its address is one that this host alone can reach."""
        host = self.name.rpartition(":")[0]
        return host in _LOOPBACK or host.startswith("127.")


@dataclass(frozen=True, slots=True)
class Mailer:
    """`values`: every parameter, with all `$name` put in; `own`: those that stand in main.cf, as written there."""

    values: Mapping[str, str]
    own: Mapping[str, str] = field(default_factory=dict)
    services: tuple[Service, ...] = ()

    def value(self, name: str, service: Service | None = None) -> str:
        if service is not None and name in service.options:
            return service.options[name]
        return self.values.get(name, "")

    def alone(self) -> bool:
        """Whether nobody but this host can reach any service."""
        where = split(self.value("inet_interfaces"))
        return bool(where) and all(each in _LOOPBACK or each.startswith("127.") for each in where)

    def smtpd(self) -> list[Service]:
        return [each for each in self.services if each.program == "smtpd"]

    def submissions(self) -> list[Service]:
        """Where users submit mail: by the port's name, or by a login that this very service offers."""
        return [
            each
            for each in self.smtpd()
            if each.port in SUBMISSION or is_yes(each.options.get("smtpd_sasl_auth_enable", ""))
        ]

    def entries(self, service: Service | None = None) -> list[Entry]:
        """The milters of a service in their order; of sendmail(1)'s mail when there is no service."""
        return [entry(each) for each in split(self.value("smtpd_milters" if service else "non_smtpd_milters", service))]


@dataclass(frozen=True, slots=True)
class Entry:
    """One milter of a list, `unix:path`, or `{ unix:path, name=value … }`."""

    address: str
    options: Mapping[str, str] = field(default_factory=dict)


def read(config: Path | None) -> Mailer:
    """All that is asked of Postfix. Raises MailerError."""
    whole = _table(run("postconf", config, "-x"))
    own = _table(run("postconf", config, "-n"))
    raw, options = (_nested(run("postconf", config, *words)) for words in (("-P",), ("-P", "-x")))
    fields = _nested(run("postconf", config, "-F"))
    lines = {"/".join(line.split()[:2]): line for line in run("postconf", config, "-M").splitlines() if line.strip()}
    values = {**_table(run("postconf", config, "-nx")), **whole}
    jailed = ("y", "-") if values.get("compatibility_level") == "0" else ("y",)  # master(5): the default of old
    services = tuple(
        Service(
            name, (has.get("command", "").split() or [""])[0], has.get("chroot") in jailed, raw.get(name, {}),
            options.get(name, {}), lines.get(name, ""),
        )
        for name, has in fields.items()
    )  # fmt: skip
    return Mailer(values=values, own=own, services=services)


def run(name: str, config: Path | None, *arguments: str) -> str:
    """What one of Postfix's commands said. Raises MailerError."""
    program = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise MailerError(f"{name} is not there: is Postfix installed on this host?")
    where = ["-c", str(config)] if config else []
    try:
        done = subprocess.run(
            [program, *where, *arguments], capture_output=True, text=True, errors="replace", check=False,
            timeout=_PATIENCE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MailerError(f"{name}: {error}") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        why = f"ended with {done.returncode}; its log says why, and `postfix status` whether it runs"
        raise MailerError(f"{name}: {said[-1] if said else why}")
    return done.stdout


def split(text: str) -> list[str]:
    """The elements of a list that commas and white space part, braces kept together (postconf(5))."""
    found, word, depth = [], "", 0
    for char in text:
        depth += (char == "{") - (char == "}")
        if depth <= 0 and (char.isspace() or char == ","):
            found.append(word)
            word = ""
        else:
            word += char
    return [each for each in [*found, word] if each]


def entry(text: str) -> Entry:
    if not text.startswith("{"):
        return Entry(text)
    first, *rest = split(text.strip("{} \t")) or [""]
    return Entry(first, dict(_OPTION.findall(" ".join(rest))))


def is_ours(address: str, listen: SocketAddress, queue: str) -> bool:
    """Whether Postfix's word for a milter is the socket we listen on; a relative path is one in the queue directory."""
    kind, _, place = address.partition(":")
    if isinstance(listen, InetAddress):
        return kind == "inet" and _inet(place) == (listen.host, listen.port)
    if kind != "unix":
        return False
    paths = {os.path.normpath(os.path.join(queue, place)), os.path.normpath(queue + "/" + place)}
    return os.path.normpath(listen.path) in paths


def _inet(place: str) -> tuple[str, int]:
    host, _, port = place.rpartition(":")
    host = host.strip("[]")
    return ("127.0.0.1" if host == "localhost" else host), int(port) if port.isdigit() else 0


def is_yes(text: str) -> bool:
    """Postfix takes its booleans in any case."""
    return text.lower() == "yes"


def seconds(text: str) -> float:
    """A time of Postfix's; what is none counts as 0."""
    found = _TIME.fullmatch(text.strip())
    return float(int(found[1]) * _SECONDS[found[2]]) if found else 0.0


def _table(text: str) -> dict[str, str]:
    pairs = (line.partition(" =") for line in text.splitlines())
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def _nested(text: str) -> dict[str, dict[str, str]]:
    """`service/type/name = value`, grouped by service/type."""
    found: dict[str, dict[str, str]] = {}
    for path, value in _table(text).items():
        service, _, name = path.rpartition("/")
        found.setdefault(service, {})[name] = value
    return found
