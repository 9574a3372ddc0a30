"""opendkim.conf turned into our configuration: what signs and how, whose mail it is, and what has no place here.

Knows what OpenDKIM's parameters mean (opendkim.conf(5)); the lines of its tables are read as the milter reads them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from postmeter.cli import import_tables, opendkimreasons
from postmeter.cli.carried import Carried, Value
from postmeter.cli.opendkimconf import OpendkimConf, Setting, read
from postmeter.config import values
from postmeter.config.amounts import DAY
from postmeter.config.problem import MistakeError
from postmeter.submission import headers

_SHORTEST = 7 * DAY  # of signatures: Postfix's maximal_queue_lifetime, five days by default, and two
_TRACE = frozenset({"return-path", "received", "dkim-signature", "authentication-results"})


def carry(path: Path, *, tables: bool) -> Carried:
    """Raises MistakeError when the file itself cannot be read."""
    conf, out = OpendkimConf(read(path)), Carried()
    if "s" not in (conf.value("Mode") or "sv"):
        out.advise("Mode says that this OpenDKIM only verifies: it signed nothing, and what follows may be moot.")
    _keys(conf, out, tables=tables)
    _canonicalization(conf, out)
    _headers(conf, out)
    _expire(conf, out)
    _resolvers(conf, out)
    _failure(conf, out)
    _senders(conf, out)
    _socket(conf, out)
    for setting in conf:
        reason = opendkimreasons.why_not(setting)
        if reason:
            out.leave(setting.where, setting.shown, reason)
    return out


def _keys(conf: OpendkimConf, out: Carried, *, tables: bool) -> None:
    if conf.value("KeyTable") or conf.value("SigningTable"):
        import_tables.carry(conf, out, keep=tables)
    elif conf.value("Domain") or conf.value("KeyFile"):
        _single_key(conf, out)
    else:
        out.advise("There is no KeyTable and no KeyFile, so nothing is signed. `postmeter dkim new DOMAIN` makes keys.")


def _single_key(conf: OpendkimConf, out: Carried) -> None:
    """One key and selector for all domains."""
    domains, selector, file = conf.get("Domain"), conf.value("Selector"), conf.value("KeyFile")
    if domains is None or not selector or not file:
        missing = [name for name in ("Domain", "Selector", "KeyFile") if not conf.value(name)]
        out.leave("all of it", "keys", f"without {' and '.join(missing)} OpenDKIM would not have started either")
        return
    keys: list[Value] = [{"selector": selector, "file": str(conf.path(file))}]
    entries: list[Value] = []
    for name in _entries(conf, domains, out):
        try:
            entry: dict[str, Value] = {"domain": values.domain(name), "keys": keys}
        except MistakeError as mistake:
            why = "every domain is signed with this key: list those that are yours" if "*" in name else mistake.what
            out.leave(domains.where, f"Domain {name}", why)
            continue
        entries.append(entry | ({"subdomains": True} if conf.on("SubDomains") else {}))
    if entries:
        out.put("dkim", "sign", entries)


def _entries(conf: OpendkimConf, setting: Setting, out: Carried) -> list[str]:
    try:
        return conf.entries(setting)
    except MistakeError as mistake:
        out.leave(setting.where, setting.shown, f"{mistake.what}; {mistake.fix}")
        return []


def _canonicalization(conf: OpendkimConf, out: Carried) -> None:
    setting = conf.get("Canonicalization")
    if setting is None:
        why = "OpenDKIM's default was simple/simple; ours, relaxed/relaxed, also survives relays that fold header lines"
        out.put("dkim", "canonicalization", "relaxed/relaxed", why)
        return
    header, slash, body = setting.value.lower().partition("/")
    form = f"{header}/{body if slash else 'simple'}"  # one word is for the header
    if re.fullmatch(r"(relaxed|simple)/(relaxed|simple)", form):
        out.put("dkim", "canonicalization", form)
    else:
        out.leave(setting.where, f"Canonicalization {setting.value}", "neither relaxed nor simple; ours is the default")


def _headers(conf: OpendkimConf, out: Carried) -> None:
    """A list of its own is carried over; where only names are added to a default, ours is the better one to add to."""
    signed, more, omitted = (conf.get(name) for name in ("SignHeaders", "OversignHeaders", "OmitHeaders"))
    listed = [name.lower() for name in _entries(conf, signed, out)] if signed else ["*"]
    over = {name.lower() for name in _entries(conf, more, out)} if more else set()
    left_out = {name.lower().removeprefix("+") for name in _entries(conf, omitted, out)} if omitted else set()
    left_out |= {name[1:] for name in listed if name.startswith("-")} | _TRACE
    plain = [name.removeprefix("+") for name in listed if name != "*" and not name.startswith("-")]
    wanted = _marked(plain, over, added="*" in listed)
    kept = {name: mark for name, mark in wanted.items() if name == "from" or name not in left_out}
    for name in sorted({*plain, *over} - set(wanted)):
        where = signed or more
        out.leave(where.where if where else "", name, "no name of a header field, or oversigned without being signed")
    if kept == {rule.name: rule.mark for rule in headers.DEFAULT}:
        return
    rules = [f"({mark}){name}" if mark else name for name, mark in kept.items()]
    out.put("dkim", "headers", rules, "(o) oversigned, also when absent; (x) oversigned when present")


def _marked(plain: list[str], over: set[str], *, added: bool) -> dict[str, str]:
    """Fields with our marks: From in any case, and all that ours has by default where names are `added` to that."""
    ours = {rule.name: rule.mark for rule in headers.DEFAULT} if added else {"from": ""}
    wanted = ours | {name: ours.get(name, "") for name in plain if _is_name(name)}
    return wanted | {name: "o" for name in over if name in wanted}


def _is_name(name: str) -> bool:
    return re.fullmatch(r"[!-9;-~]+", name) is not None and not set("*()") & set(name)


def _expire(conf: OpendkimConf, out: Carried) -> None:
    setting = conf.get("SignatureTTL")
    if setting is None or not setting.value.isdigit() or int(setting.value) == 0:
        return
    seconds = int(setting.value)
    if seconds < _SHORTEST:
        why = "mail may wait longer than that in Postfix's queue and then arrive with a signature that does not hold"
        out.leave(setting.where, f"SignatureTTL {seconds}", f"{why}; dkim.expire is 7d instead")
    out.put("dkim", "expire", f"{max(seconds, int(_SHORTEST))}s" if seconds > _SHORTEST else "7d")


def _resolvers(conf: OpendkimConf, out: Carried) -> None:
    setting = conf.get("Nameservers")
    found = [name for name in _entries(conf, setting, out) if _address(name)] if setting else []
    if found:
        out.put("dkim", "resolvers", found)


def _failure(conf: OpendkimConf, out: Carried) -> None:
    setting = conf.get("On-SignatureError") or conf.get("On-InternalError") or conf.get("On-Default")
    if setting is not None and setting.value[:1].lower() == "a":
        why = f"{setting.name} {setting.value}: mail that cannot be signed leaves unsigned"
        out.put("dkim", "on_error", "accept", why)


def _senders(conf: OpendkimConf, out: Carried) -> None:
    why = "OpenDKIM signs any From for any login. So does this, and counts it: list in senders.from who may use what,"
    out.put("senders", "from_mismatch", "report", f"{why} and then write reject or unsigned here.")
    services = list(dict.fromkeys([*_macros(conf, out), *_mta(conf, out)]))
    if services:
        out.put("senders", "daemon_names", services)
    setting = conf.get("InternalHosts")
    hosts = _entries(conf, setting, out) if setting else []
    if setting and hosts:  # what cannot be read leaves the default, which is this host
        out.put("senders", "networks", list(_networks(hosts, setting, out)), "InternalHosts")


def _mta(conf: OpendkimConf, out: Carried) -> list[str]:
    setting = conf.get("MTA")
    return [name for name in _entries(conf, setting, out) if re.fullmatch(r"[!-~]+", name)] if setting else []


def _macros(conf: OpendkimConf, out: Carried) -> Iterator[str]:
    """Values of {daemon_name} are ours to say; a login is believed in any case."""
    setting = conf.get("MacroList")
    if setting is None:
        return
    for entry in _entries(conf, setting, out):
        name, *listed = filter(None, re.split(r"[{}=|\s]+", entry))
        if name == "daemon_name" and listed:
            yield from listed
        elif name not in ("auth_type", "auth_authen"):
            why = "only daemon_name with its values, and a login, tell whose mail it is: name the service"
            out.leave(setting.where, f"MacroList {entry}", f"{why} (milter_macro_daemon_name) in senders.daemon_names")


_Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"
_LOOPBACK = tuple(map(ipaddress.ip_network, ("127.0.0.0/8", "::1")))


def _networks(entries: list[str], setting: Setting, out: Carried) -> Iterator[str]:
    """Exceptions are cut out: OpenDKIM asks for the longest prefix first, with ! and then without."""
    inside: list[_Network] = []
    outside: list[_Network] = []
    for entry in entries:
        bare = re.sub(r"[\[\]]", "", entry).removeprefix("!")
        local = entry.lower() == "localhost"
        try:
            named = _LOOPBACK if local else (ipaddress.ip_network(bare, strict=False),)
        except ValueError:
            why = "no address: names are not looked up, list its address or network"
            out.leave(setting.where, f"InternalHosts {entry}", why)
            continue
        if entry.startswith("!"):
            outside += named
        elif named[0].prefixlen == 0:
            why = "all the world would be inside, and only this host is: clients with a login are ours without it"
            out.leave(setting.where, f"InternalHosts {entry}", why)
            inside += [here for here in _LOOPBACK if not any(_within(network, here) for network in inside)]
        else:
            inside += named
    yield from dict.fromkeys(str(part) for network in inside for part in _without(network, outside))


def _without(network: _Network, exceptions: list[_Network]) -> list[_Network]:
    left = [network]
    for exception in exceptions:
        if _within(exception, network):
            left = [part for each in left for part in _cut(each, exception)]
    return sorted(left, key=lambda part: int(part.network_address))


def _cut(network: _Network, exception: _Network) -> list[_Network]:
    if _within(network, exception):
        return []
    return list(network.address_exclude(exception)) if _within(exception, network) else [network]  # type: ignore[arg-type]


def _within(inner: _Network, outer: _Network) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _socket(conf: OpendkimConf, out: Carried) -> None:
    setting = conf.get("Socket")
    if setting is not None:
        why = "postmeter has a socket of its own, so that both can run while you try it. In main.cf put"
        out.leave(setting.where, f"Socket {setting.value}", f"{why} unix:postmeter/milter.sock in place of OpenDKIM's")
