"""Everything that is known of this host before anything is judged: a value, so that each check is a plain function.

Knows nothing of where it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from postmeter.config.problem import Problem
from postmeter.config.schema import Config
from postmeter.doctor.mailer import Mailer


@dataclass(frozen=True, slots=True)
class Trial:
    """Something that was tried. `ok` is None where that could not be done; `why` is for people."""

    about: str
    ok: bool | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What DNS said: records, none of them, or nothing at all, and then `silent` says why."""

    records: tuple[str, ...] = ()
    silent: str = ""


@dataclass(frozen=True, slots=True)
class Sender:
    """What SPF says of an address for a domain: pass, fail, softfail, neutral, none, permerror, temperror."""

    domain: str
    address: str
    result: str
    lookups: int
    record: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """A DMARC record, and the domain at which it stands; `at` is empty where there is none, `silent` says why not."""

    domain: str
    at: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    silent: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True)
class Pointer:
    """Our address in DNS: its names, and the addresses of each."""

    address: str
    names: Answer
    forward: Mapping[str, Answer] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Site:
    """The host of tracked links. `expires` is a time, 0 where there is no certificate to see."""

    url: str
    addresses: Answer
    trouble: str = ""
    expires: float = 0.0


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A domain that gets mail of ours back: its MX hosts, else its own addresses."""

    address: str
    key: str
    hosts: Answer
    addresses: Answer = Answer()


@dataclass(frozen=True, slots=True)
class Key:
    """A DKIM key beside what DNS shows for it."""

    name: str
    ok: bool | None
    wrong: bool
    what: str
    fix: str


@dataclass(frozen=True, slots=True)
class Disk:
    """Octets free in a directory, and how many there should be."""

    path: str
    free: int
    least: int
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """`mailer` is None where there is no Postfix to ask, `mute` says why."""

    config: Config
    now: float
    mailer: Mailer | None = None
    mute: str = ""
    problems: tuple[Problem, ...] = ()
    sockets: tuple[Trial, ...] = ()
    stores: tuple[Trial, ...] = ()
    disks: tuple[Disk, ...] = ()
    clock: bool | None = None
    journald: Mapping[str, str] | None = None
    """journald.conf, where Postfix's log is read from journald."""
    keys: tuple[Key, ...] = ()
    senders: tuple[Sender, ...] = ()
    policies: tuple[Policy, ...] = ()
    pointers: tuple[Pointer, ...] = ()
    unclear: str = ""
    """Why the address that mail leaves from could not be found."""
    sites: tuple[Site, ...] = ()
    mailboxes: tuple[Mailbox, ...] = ()
