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
    """Something that was tried. `ok` is None where that could not be done; `why` and `fix` are for people."""

    about: str
    ok: bool | None
    why: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What DNS said: records, none of them, or nothing at all, and then `silent` says why."""

    records: tuple[str, ...] = ()
    silent: str = ""


@dataclass(frozen=True, slots=True)
class Sender:
    """What SPF says of an address for a domain: pass, fail, softfail, neutral, none, permerror, temperror, depends."""

    domain: str
    address: str
    result: str
    lookups: int
    record: str = ""
    why: str = ""
    fix: str = ""


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
class Helo:
    """The name that Postfix greets with, its addresses, and what SPF says of it, which is all that bounces have."""

    name: str
    addresses: Answer
    senders: tuple[Sender, ...] = ()


@dataclass(frozen=True, slots=True)
class Site:
    """The host of tracked links. `expires` is a time, 0 where there is no certificate to see.

    `stranger` is what answered there where postmeter should have; `here` whether that is an address of this host, and
    None where nobody knows.
    """

    url: str
    addresses: Answer
    trouble: str = ""
    expires: float = 0.0
    stranger: str = ""
    here: bool | None = None


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A domain that gets mail of ours back: its MX hosts, else its own addresses; `dead` are hosts without address."""

    address: str
    key: str
    hosts: Answer
    addresses: Answer = Answer()
    dead: tuple[str, ...] = ()


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
    """Octets free in a directory, and how many there should be; `inodes` is how many files can still be made."""

    path: str
    free: int
    least: int
    key: str
    inodes: int | None = None
    readonly: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of Postfix's log journald takes: its own settings, and interval and burst of Postfix's units."""

    journald: Mapping[str, str]
    units: Mapping[str, tuple[str, str]] = field(default_factory=dict)


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
    log_limits: Limits | None = None
    routes: Mapping[str, str] = field(default_factory=dict)
    """What transport_maps say to addresses that bounces come back to; "" is nothing."""
    keys: tuple[Key, ...] = ()
    senders: tuple[Sender, ...] = ()
    policies: tuple[Policy, ...] = ()
    pointers: tuple[Pointer, ...] = ()
    helo: Helo | None = None
    unclear: str = ""
    """Why the address that mail leaves from could not be found."""
    sites: tuple[Site, ...] = ()
    mailboxes: tuple[Mailbox, ...] = ()
