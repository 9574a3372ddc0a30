"""How Postfix has our milter: where it stands, in which order, with which options, and whether it can be reached.

Plain functions from facts to findings; contrib/postfix/README.md has the reasons. Knows nothing of where facts come
from. postconf(5), MILTER_README.
"""

from __future__ import annotations

from collections.abc import Iterator

from postmeter.config.schema import Config
from postmeter.doctor import attaching, mending
from postmeter.doctor.facts import Facts
from postmeter.doctor.finding import UNKNOWN, WARNING, WRONG, Finding
from postmeter.doctor.mailer import Entry, Mailer, Service, is_ours, is_yes, seconds, split

_ATTACH = "postmeter attach"
_LEAST_CONTENT, _MOST_CONTENT = 30.0, 600.0  # seconds; clients wait 10 minutes for the last reply (RFC 5321 4.5.3.2.6)
_LEAST_COMMAND = 5.0
_HARMS = {
    "accept": (WRONG, "leaves unmetered, unsigned, perhaps half rewritten"),
    "reject": (WARNING, "is refused for good, and its senders get it back"),
    "quarantine": (WARNING, "is put on hold, unmetered and unsigned, until somebody lets it go"),
}
_SIGNERS = {"opendkim": "OpenDKIM", "dkimpy": "dkimpy-milter", "rspamd": "rspamd", ":11332": "rspamd"}
"""By a word of the address: a path that says it, or the port that rspamd has by default."""

_MEMBERS = "permit_mynetworks,permit_sasl_authenticated,reject"
_PROTOCOL = 6  # of libmilter 8.14 and later
_MACROS = {
    "milter_connect_macros": ("{daemon_name}",),
    "milter_mail_macros": ("{auth_authen}",),
    "milter_end_of_data_macros": ("i",),
}
"""What postmeter reads of a message (milter/postmeter/submission), where smtpd(8) gives it by default."""


def with_ours(mailer: Mailer, config: Config) -> Iterator[tuple[Service | None, list[Entry], Entry]]:
    """Each place that has our milter, None for sendmail(1)'s mail, its list, and our entry in it."""
    queue = mailer.value("queue_directory")
    for service in [*mailer.smtpd(), None]:
        entries = mailer.entries(service)
        ours = [each for each in entries if is_ours(each.address, config.milter.listen, queue)]
        if ours:
            yield service, entries, ours[0]


def place(service: Service | None) -> str:
    return service.name if service else "sendmail(1)"


def attached(facts: Facts) -> Iterator[Finding]:
    """Nobody's mail is metered by a milter that no service has."""
    mailer = facts.mailer
    if mailer is None:
        fix = "run doctor as root, where Postfix is; --postfix DIR names the directory of its main.cf"
        yield Finding(UNKNOWN, "postfix", "nothing could be asked of Postfix", facts.mute, fix)
        return
    has = [service for service, _, _ in with_ours(mailer, facts.config)]
    if not has:
        known = f"{facts.config.milter.listen} stands in no smtpd_milters and not in non_smtpd_milters (postconf -x)"
        yield Finding(WRONG, "postfix", "Postfix does not have postmeter as a milter", known, _ATTACH)
        return
    for service in mailer.submissions():
        if service not in has:
            what = f"what users submit at {service.name} leaves unmetered and unsigned"
            known = f"postconf -Px {service.name}/smtpd_milters does not name {facts.config.milter.listen}"
            yield Finding(WRONG, "postfix", what, known, f"postmeter attach --service {service.name}")
    if None not in has:
        what = "mail by sendmail(1), of cron and PHP for example, passes unmetered and unsigned"
        yield Finding(WARNING, "postfix", what, "postconf -x non_smtpd_milters does not name postmeter", _ATTACH)


def logins(facts: Facts) -> Iterator[Finding]:
    """A login in main.cf is offered on port 25 as well: whoever sends there by it passes unmetered."""
    has = [service for _, service, _, _ in _found(facts)]
    if facts.mailer is None or not has:
        return
    for service in facts.mailer.smtpd():
        if service in has or service in facts.mailer.submissions() or _is_inside(service):
            continue
        if is_yes(facts.mailer.value("smtpd_sasl_auth_enable", service)):
            what = f"whoever logs in at {service.name} sends unmetered and unsigned"
            known = f"smtpd_sasl_auth_enable = yes in main.cf, and no postmeter in {_list(service)}"
            off = mending.given(service, "smtpd_sasl_auth_enable", "no")
            yield Finding(WARNING, "postfix", what, known, f"{off}, or postmeter attach --service {service.name}")


def strangers(facts: Facts) -> Iterator[Finding]:
    """A name that stands in main.cf is that of port 25 as well."""
    for mailer, service, _, _ in _found(facts):
        if service is not None and attaching.open_to_all(mailer, facts.config, service):
            name = mailer.value(attaching.NAMED, service)
            what = f"strangers' mail at {service.name} counts as yours: it is metered, and signed for any From of yours"
            known = f"{attaching.NAMED} = {name} there, which senders.daemon_names lists"
            if attaching.public(service):
                yield Finding(WRONG, "postfix", what, known, mending.given(service, attaching.NAMED, "$myhostname"))
            else:
                known = f"{known}; no smtpd_…_restrictions end with reject: anybody may write to your own users there"
                fix = mending.given(service, "smtpd_client_restrictions", _MEMBERS)
                yield Finding(WARNING, "postfix", what, known, fix)


def _is_inside(service: Service) -> bool:
    """For programs of this host, or what a content filter gives back: nobody logs in there."""
    return service.inside or service.options.get("content_filter") == ""


def order(facts: Facts) -> Iterator[Finding]:
    """A signature covers what postmeter saw; and twice in one list every message would be charged twice."""
    for mailer, service, entries, ours in _found(facts):
        behind = entries[entries.index(ours) + 1 :]
        queue = mailer.value("queue_directory")
        if any(is_ours(each.address, facts.config.milter.listen, queue) for each in behind):
            what = f"{place(service)} has postmeter twice: every message meets it twice"
            fix = _mended(facts, mailer, service) or "name it once, as the last one"
            yield Finding(WRONG, "order", what, _list(service), fix)
        others = [each.address for each in behind if each.address != ours.address]
        if others:
            what = f"{', '.join(others)} comes after postmeter at {place(service)}: what it alters breaks signatures"
            fix = _mended(facts, mailer, service) or "name postmeter as the last of the list"
            yield Finding(WARNING, "order", what, _list(service), fix)


def _last(facts: Facts, mailer: Mailer, entries: list[Entry]) -> list[int]:
    """All others in their order, and ours once behind them."""
    queue, listen = mailer.value("queue_directory"), facts.config.milter.listen
    ours = [nth for nth, each in enumerate(entries) if is_ours(each.address, listen, queue)]
    return [*(nth for nth in range(len(entries)) if nth not in ours), ours[0]]


def signers(facts: Facts) -> Iterator[Finding]:
    """Of two that sign, the first one's signature is broken by what the second alters, or mail has both."""
    dkim = facts.config.dkim
    if not dkim.sign and dkim.opendkim_tables is None:
        return
    for mailer, service, entries, ours in _found(facts):
        for nth, each in enumerate(entries):
            name = next((name for word, name in _SIGNERS.items() if word in each.address.lower()), "")
            if not name or each.address == ours.address:
                continue
            harm = "what postmeter alters breaks its signature" if nth < entries.index(ours) else "mail is signed twice"
            what = f"{name} has mail at {place(service)} too: where it signs, {harm}"
            off = mending.reordered(mailer, service, [other for other in range(len(entries)) if other != nth])
            off = off or f"take {each.address} off that list"
            fix = f"{off}, or let it verify only (its keys: postmeter dkim import-opendkim)"
            yield Finding(WARNING, "order", what, f"{each.address} in {_list(service)}", fix)


def default_action(facts: Facts) -> Iterator[Finding]:
    """`accept` lets mail leave unmetered and unsigned, and perhaps half rewritten, while postmeter is down."""
    for mailer, service, _, ours in _found(facts):
        action, own = _action(mailer, service, ours)
        if action in _HARMS:
            level, harm = _HARMS[action]
            what = f"when postmeter is down, mail at {place(service)} {harm}"
            known = f"milter_default_action = {action}"
            if "default_action" in ours.options:
                known = f"default_action={action} in {_list(service)}"
            fix = "postconf -e milter_default_action=tempfail && postfix reload"
            if own:
                fix = _mended(facts, mailer, service) or "write default_action=tempfail there"
            yield Finding(level, "default_action", what, known, fix)


def _action(mailer: Mailer, service: Service | None, ours: Entry) -> tuple[str, bool]:
    """What Postfix does without us, and whether that place says it for itself."""
    word = ours.options.get("default_action") or mailer.value("milter_default_action", service)
    own = "default_action" in ours.options or "milter_default_action" in (service.options if service else ())
    return "".join(word.split()[:1]), own


def sockets(facts: Facts) -> Iterator[Finding]:
    """Tried as Postfix does it: as its user, in its directory, chrooted where the service is."""
    for trial in facts.sockets:
        if trial.ok is None:
            yield Finding(UNKNOWN, "socket", f"whether {trial.about} is not known", trial.why, "run doctor as root")
        elif not trial.ok:
            fix = "start `postmeter milter`; postmeter check-config tells which directory or mode keeps Postfix out"
            yield Finding(WRONG, "socket", f"{trial.about}: it does not", trial.why, fix)


def timeouts(facts: Facts) -> Iterator[Finding]:
    for mailer, service, _, ours in _found(facts):
        content, command = (_timeout(mailer, service, ours, kind) for kind in ("content", "command"))
        if not _LEAST_CONTENT <= content <= _MOST_CONTENT:
            what = f"Postfix waits {content:g} s at {place(service)} for the verdict on a message"
            fix = _mended(facts, mailer, service) or "content_timeout=300s"
            yield Finding(WARNING, "timeouts", what, "content_timeout, milter_content_timeout", fix)
        if command < _LEAST_COMMAND:
            what = f"Postfix waits only {command:g} s at {place(service)} for the answer to a command"
            fix = _mended(facts, mailer, service) or "command_timeout=30s"
            yield Finding(WARNING, "timeouts", what, "command_timeout, milter_command_timeout", fix)


def _mended(facts: Facts, mailer: Mailer, service: Service | None) -> str:
    """All that is wrong with the list at once."""
    entries = mailer.entries(service)
    order = _last(facts, mailer, entries)
    return mending.mended(
        mailer, service, order[-1], options=_options(mailer, service, entries[order[-1]]), order=order
    )


def _options(mailer: Mailer, service: Service | None, ours: Entry) -> list[str]:
    action, own = _action(mailer, service, ours)
    options = ["default_action=tempfail"] if own and action in _HARMS else []
    if not _LEAST_CONTENT <= _timeout(mailer, service, ours, "content") <= _MOST_CONTENT:
        options.append("content_timeout=300s")
    if _timeout(mailer, service, ours, "command") < _LEAST_COMMAND:
        options.append("command_timeout=30s")
    return options


def _timeout(mailer: Mailer, service: Service | None, ours: Entry, kind: str) -> float:
    own = ours.options.get(f"{kind}_timeout")
    return seconds(own or mailer.value(f"milter_{kind}_timeout", service))


def macros(facts: Facts) -> Iterator[Finding]:
    """Without the login's macro every sender would be an address, and share one limit with its neighbours."""
    untold: dict[tuple[str, str, str], list[str]] = {}
    old: dict[str, list[str]] = {}
    for mailer, service, _, _ in _found(facts):
        for name, wanted in _MACROS.items() if service is not None else ():
            value = mailer.value(name, service)
            given = {each.strip("{}") for each in split(value.replace("{", " {").replace("}", "} "))}
            missing = ", ".join(macro for macro in wanted if macro.strip("{}") not in given)
            if missing:
                untold.setdefault((missing, name, value), []).append(place(service))
        protocol = mailer.value("milter_protocol", service)
        if protocol.isdigit() and int(protocol) < _PROTOCOL:
            old.setdefault(protocol, []).append(place(service))
    for (missing, name, value), places in untold.items():
        what = f"{', '.join(places)} does not tell postmeter {missing}"
        yield Finding(WRONG, "macros", what, f"{name} = {value}", f"postconf -X {name} && postfix reload")
    for protocol, places in old.items():
        what = f"an old milter protocol lacks what postmeter needs, at {', '.join(places)}"
        yield Finding(WRONG, "macros", what, f"milter_protocol = {protocol}",
                      "postconf -X milter_protocol && postfix reload")  # fmt: skip


def switched_off(facts: Facts) -> Iterator[Finding]:
    """`no_milters` beside our milter: it stands there and never runs, as it should be behind a content filter only."""
    for mailer, service, _, _ in _found(facts):
        if service is None or service.options.get("content_filter") == "":
            continue
        if "no_milters" in split(mailer.value("receive_override_options", service)):
            what = f"{service.name} names postmeter and never asks it"
            fix = mending.switched(mailer, service, "receive_override_options", word="no_milters", on=False)
            yield Finding(WRONG, "postfix", what, "receive_override_options has no_milters", fix)


def proxied(facts: Facts) -> Iterator[Finding]:
    """A filter before the queue takes the message past all milters (SMTPD_PROXY_README): they see the envelope only."""
    for mailer, service, _, _ in _found(facts):
        to = mailer.value("smtpd_proxy_filter", service) if service is not None else ""
        if service is not None and to:
            what = f"what comes in at {service.name} leaves unmetered and unsigned: a filter takes it past milters"
            off = mending.given(service, "smtpd_proxy_filter", "")
            fix = f"{off}, or give postmeter to the service that the filter hands mail on to, where no login is known"
            yield Finding(WRONG, "postfix", what, f"smtpd_proxy_filter = {to}", fix)


def filtered_twice(facts: Facts) -> Iterator[Finding]:
    """A content filter gives mail back by a service of its own, which must not meet the milter again unawares."""
    for mailer, service, _, _ in _found(facts):
        if service is None or service.options.get("content_filter") != "":
            continue
        off = "no_milters" in split(mailer.value("receive_override_options", service))
        name = mailer.value("milter_macro_daemon_name", service)
        if off or name in facts.config.senders.refiltered or not _filters(mailer):
            continue
        what = f"mail that a content filter gives back at {service.name} meets postmeter a second time"
        known = f"{service.name} has content_filter= and postmeter, and no no_milters"
        fix = mending.switched(mailer, service, "receive_override_options", word="no_milters", on=True)
        other = "or senders.refiltered where it alters mail (contrib/postfix/README.md)"
        yield Finding(WRONG, "double filtering", what, known, f"{fix}, {other}")


def _filters(mailer: Mailer) -> bool:
    return any(mailer.value("content_filter", service) for service in [None, *mailer.smtpd()])


def _found(facts: Facts) -> Iterator[tuple[Mailer, Service | None, list[Entry], Entry]]:
    """As `with_ours`, nothing where Postfix could not be asked."""
    if facts.mailer is not None:
        yield from ((facts.mailer, *found) for found in with_ours(facts.mailer, facts.config))


def _list(service: Service | None) -> str:
    return f"postconf -Px {service.name}/smtpd_milters" if service else "postconf -x non_smtpd_milters"


CHECKS = (
    attached, logins, strangers, order, signers, default_action, sockets, timeouts, macros, switched_off, proxied,
    filtered_twice,
)  # fmt: skip
