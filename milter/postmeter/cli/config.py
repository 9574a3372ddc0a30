"""`postmeter check-config`: everything that would keep the daemons from starting, and what they would do.

Puts together what `config` finds in the file and on the machine and what `submission.keys` finds in the keys.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from postmeter.cli import providers, robots
from postmeter.cli.command import CONFIGURATION, OK, Command
from postmeter.cli.postfix import expiry, oblivion, retirement
from postmeter.config.check import check, whose
from postmeter.config.load import Loaded, load_with_lines
from postmeter.config.maillog import of_log
from postmeter.config.permissions import Person, myself, owner, unlistable, unreadable
from postmeter.config.problem import Problem
from postmeter.config.rotating import of_rotation
from postmeter.config.schema import Config, Dkim, Limit, Quota, Rule, Senders
from postmeter.config.secret_files import tracked_urls
from postmeter.config.tls import of_web

if TYPE_CHECKING:
    from postmeter.submission.keyring import Keyring

_SHOWN = 20  # domains by name


def run(args: Namespace) -> int:
    loaded = load_with_lines(args.file or args.config)
    problems = all_problems(loaded)
    for problem in problems:
        print(problem, file=sys.stderr)
    if any(problem.severity == "error" for problem in problems):
        return CONFIGURATION
    print(f"{loaded.file}: OK")
    for topic, text in summary(loaded.config):
        print(f"  {topic:<8} {text}")
    return OK


def all_problems(loaded: Loaded) -> list[Problem]:
    """Everything that can be told without asking DNS, in the order of the lines."""
    me = whose(loaded.config)
    problems = list(dict.fromkeys([*not_ours(loaded), *check(loaded, me=me), *check(loaded, daemon="books", me=me)]))
    problems += expiry(loaded)
    problems += [*of_web(loaded, myself()), *robots.problems(loaded), *providers.problems(loaded)]
    problems += [*key_problems(loaded), *_keys_closed_to(me, loaded), *of_rotation(loaded, me), *retirement(loaded)]
    problems += [*of_log(loaded, me), *oblivion(loaded)]
    return sorted(problems, key=lambda problem: problem.line)


def not_ours(loaded: Loaded) -> Iterator[Problem]:
    """Whoever is neither root nor the daemons' user should not take for a fault what is closed to him alone."""
    me, daemons = myself(), owner(loaded.config.journal.path.parent)
    if me.uid != 0 and daemons is not None and daemons.uid not in (0, me.uid):
        what = f"{me.name} is not {daemons.name}, whose the journal's directory is: files are looked at as {me.name}"
        yield Problem(loaded.file, 0, "", what, f"run it as root, or as {daemons.name}", "warning")


def key_problems(loaded: Loaded) -> list[Problem]:
    """What is wrong with the DKIM keys, at the line of the key that shows it; nothing twice."""
    from postmeter.submission.keyring import Keyring

    ring = Keyring(loaded.config.dkim)
    found: dict[str, Problem] = {}
    for problem in ring.examine():
        tell = loaded.problem if problem.fatal else loaded.warning
        found.setdefault(str(problem), tell(problem.key, f"{problem.path}: {problem.what}", problem.fix))
    if any(problem.severity == "error" for problem in found.values()):
        return list(found.values())
    return [*found.values(), *_disproved(loaded, ring)]


def _disproved(loaded: Loaded, ring: Keyring) -> list[Problem]:
    """What an independent verifier says against a sample signed with good keys."""
    from postmeter.submission import signing

    dkim = loaded.config.dkim
    wrong = signing.disproved(dkim, ring) if dkim.signs else []
    return [loaded.problem("dkim", what, "do not sign with it, and report this") for what in wrong]


def _keys_closed_to(me: Person, loaded: Loaded) -> Iterator[Problem]:
    """Keys that we can read, as root can, and the daemon's user not."""
    from postmeter.submission.keyfiles import KeyProblem
    from postmeter.submission.keyring import Keyring

    if me == myself():
        return  # then loading them has told it
    tables = loaded.config.dkim.opendkim_tables
    for name in ("key_table", "signing_table") if tables is not None else ():
        fault = unreadable(getattr(tables, name).path, me, "")
        if fault:
            yield loaded.problem(f"dkim.opendkim_tables.{name}", fault.what, fault.fix)
    told: set[str] = set()
    with suppress(KeyProblem):  # loading them has told it
        for place in Keyring(loaded.config.dkim).places():
            fault = unreadable(place.file, me, "") if place.file.exists() else None
            fault = fault or (unlistable(place.file.parent, me) if place.key.endswith(".keys") else None)
            if fault and fault.what not in told:
                told.add(fault.what)
                yield loaded.problem(place.key, fault.what, fault.fix)


def summary(config: Config) -> Iterator[tuple[str, str]]:
    """What the daemons do with such a configuration, in words."""
    if config.mode == "observe":
        yield "mode", "observe: nothing is refused, changed or signed"
    yield "listens", _listeners(config)
    yield "ours", _senders(config.senders)
    yield "limits", _limits(config.quota)
    yield from _quotas(config.quota)
    yield "signs", ", ".join(_signed(config.dkim)) or "nothing"
    yield "tracks", _tracked(config)
    yield "journal", str(config.journal.path)


def _listeners(config: Config) -> str:
    listeners = [f"{config.milter.listen} (Postfix)"]
    if any(True for _ in tracked_urls(config)):
        listeners.append(f"{config.web.listen} (links)")
    if config.metrics.listen:
        listeners.append(f"{config.metrics.listen} (metrics)")
    return ", ".join(listeners)


def _senders(senders: Senders) -> str:
    kinds = ["logins"] * senders.authenticated + ["client certificates"] * senders.certificates
    kinds += [f"service {name}" for name in senders.daemon_names]
    kinds += [f"network {network} (from a domain of ours)" for network in senders.networks]
    return "mail of " + ", ".join(kinds) if kinds else "no mail at all"


def _limits(quota: Quota) -> str:
    levels = (
        ("", _texts(quota.limits, quota.rules)),
        ("a From domain: ", _texts(quota.domains.limits, quota.domains.rules)),
        ("a network: ", _texts(quota.networks.limits, quota.networks.rules)),
        ("all mail: ", _texts(quota.total.limits)),
    )
    text = "; ".join(name + limits for name, limits in levels if limits)
    return f"{text}; over: {quota.over}" if text else "nothing"


def _texts(limits: tuple[Limit, ...], rules: tuple[Rule, ...] = ()) -> str:
    ruled = [f"{len(rules)} {'rule' if len(rules) == 1 else 'rules'}"] if rules else []
    return ", ".join([*(limit.text for limit in limits), *ruled])


def _quotas(quota: Quota) -> Iterator[tuple[str, str]]:
    """What few have."""
    from postmeter.submission.levels import may_hold

    if quota.store is not None:
        yield "counts", f"in Redis at {quota.store}; when that is gone: {quota.on_store_down}"
    if may_hold(quota):
        yield "holds", f"at most {quota.hold_at_most} messages of a sender, for postmeter-release.timer to let go"
    if quota.brake.mode != "off":
        action = f", to {quota.brake.action}" if quota.brake.mode == "on" else ""
        yield "brakes", f"stolen accounts: {quota.brake.mode}{action}; signs: {', '.join(quota.brake.signs)}"


def _signed(dkim: Dkim) -> Iterator[str]:
    for entry in dkim.sign[:_SHOWN]:
        listed = ", ".join(key.selector for key in entry.keys if not isinstance(key, str))
        below = " and below" if entry.subdomains else ""
        yield f"{entry.domain}{below} ({listed or 'auto'})"
    if len(dkim.sign) > _SHOWN:
        yield f"{len(dkim.sign) - _SHOWN} more domains"
    if dkim.default_domain:
        yield f"all others as {dkim.default_domain}"
    if dkim.opendkim_tables is not None:
        yield f"what {dkim.opendkim_tables.signing_table} says"


def _tracked(config: Config) -> str:
    urls = sorted({url for _, url in tracked_urls(config)})
    overrides = [*config.tracking.domains.values(), *config.tracking.logins.values()]
    links = {config.tracking.links, *(known.get("links", "off") for known in overrides)} != {"off"}
    opens = config.tracking.opens or any(known.get("opens") for known in overrides)
    if not urls or not (links or opens):
        return "nothing"
    kind = "bulk mail" if config.tracking.mail == "bulk" else "all mail"
    what = " and ".join(["links"] * links + ["opens"] * opens)
    return f"{what} in {kind}, by {', '.join(urls)}"


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, nargs="?", help="the configuration, instead of -c")


COMMANDS = (
    Command(
        "check-config",
        "say what is wrong with a configuration, or what it does",
        "postmeter check-config /etc/postmeter/postmeter.yaml",
        _arguments,
        run,
    ),
)
