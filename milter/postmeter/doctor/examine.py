"""The whole examination: facts of everywhere, all checks over them, the worst first.

Knows no check by name: a new one is a function in one of the lists.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from postmeter.config.problem import Problem
from postmeter.config.schema import Config
from postmeter.doctor import attachment, collect, domains, host, journald, outside, places, settings
from postmeter.doctor.facts import Facts, Key
from postmeter.doctor.finding import NOTE, UNKNOWN, WARNING, WRONG, Finding
from postmeter.doctor.mailer import Mailer, MailerError, read
from postmeter.doctor.names import Names

Check = Callable[[Facts], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    *attachment.CHECKS,
    *settings.CHECKS,
    *journald.CHECKS,
    *host.CHECKS,
    *domains.CHECKS,
    *places.CHECKS,
)
_WORST = (WRONG, WARNING, UNKNOWN, NOTE)


def facts_of(
    config: Config, *, postfix: Path | None, problems: Sequence[Problem], keys: Iterable[Key], given: Iterable[str] = ()
) -> Facts:
    """What can be found out from here. `problems` and `keys` come from those who load keys."""
    mailer: Mailer | None = None
    mute = ""
    try:
        mailer = read(postfix)
    except MailerError as error:
        mute = str(error)
    seen = outside.look(config, mailer, Names(config.dkim.resolvers), given=given)
    return Facts(
        config=config,
        now=time.time(),
        mailer=mailer,
        mute=mute,
        problems=tuple(problems),
        sockets=tuple(collect.sockets(mailer, config)) if mailer else (),
        stores=tuple(collect.stores(config)),
        disks=tuple(collect.disks(config, mailer)),
        clock=collect.clock(),
        log_limits=journald.limits(config),
        routes=collect.routes(mailer, config, postfix) if mailer else {},
        keys=tuple(keys),
        senders=seen.senders,
        policies=seen.policies,
        pointers=seen.pointers,
        helo=seen.helo,
        unclear=seen.unclear,
        sites=seen.sites,
        mailboxes=seen.mailboxes,
    )


def judge(facts: Facts) -> list[Finding]:
    """All findings once, the worst first, each group in the order of the checks."""
    found = dict.fromkeys(finding for check in CHECKS for finding in check(facts))
    return sorted(found, key=lambda finding: _WORST.index(finding.level))
