"""rspamd's dkim_signing.conf turned into our configuration.

Knows what its settings mean (rspamd.com/doc/modules/dkim_signing.html); what it finds out at each message, which key
lies where its path says, is looked up now, in the files that are there.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path

from postmeter.cli import ucl
from postmeter.cli.carried import Carried
from postmeter.cli.carried import Value as Yaml
from postmeter.cli.ucl import Section, UclError, Value
from postmeter.config import values
from postmeter.config.problem import MistakeError
from postmeter.submission import headers

_PATH, _SELECTOR_DEFAULT = "/var/lib/rspamd/dkim/$domain.$selector.key", "dkim"
_NO = frozenset({"false", "no", "off", "0"})
_SILENT = frozenset(
    {"allow_envfrom_empty", "allow_username_mismatch", "auth_only", "check_pubkey", "domain", "enabled", "key_table"}
    | {"path", "path_map", "selector", "selector_map", "sign_authenticated", "sign_headers", "sign_local"}
    | {"sign_networks", "signing_table", "symbol", "try_fallback", "use_domain", "use_esld"}
)
_REASONS = {
    "sign_inbound": "mail for this host is nobody's to sign: only senders of ours are signed",
    "allow_hdrfrom_mismatch": "keys are found by the From field, as DMARC wants it, whatever the envelope says",
    "allow_hdrfrom_mismatch_sign_networks": "keys are found by the From field, as DMARC wants it",
    "allow_hdrfrom_multiple": "mail with more than one From address leaves unsigned, and is counted",
    "allow_pubkey_mismatch": "`postmeter dkim check` and books compare keys with DNS, and tell; signing goes on",
    "use_redis": "keys in Redis are not read: write them to files of postmeter's",
    "key_prefix": "keys in Redis are not read",
    "selector_prefix": "selectors in Redis are not read",
    "use_vault": "keys in Vault are not read: write them to files of postmeter's",
    "use_domain_sign_networks": "keys are found by the From field, as DMARC wants it",
    "use_domain_sign_local": "keys are found by the From field, as DMARC wants it",
    "use_domain_sign_inbound": "keys are found by the From field, as DMARC wants it",
    "use_http_headers": "there is no HTTP here",
    "sign_condition": "there are no scripts: say by senders, and by dkim.sign, what is signed",
}


def carry(path: Path) -> Carried:
    """Raises MistakeError when the file cannot be read, or not understood."""
    out = Carried()
    said = _section(path)
    if _off(said, "enabled"):
        out.advise("`enabled` is false there: rspamd signed nothing.")
    _keys(said, path, out)
    _headers(said, path, out)
    _senders(said, path, out)
    if said.values.get("use_domain", "header") != "header":
        out.leave(_where(said, path, "use_domain"), "use_domain", "keys are found by the From field, as DMARC wants it")
    if _off(said, "allow_envfrom_empty"):
        why = "bounces and other mail with an empty sender are signed too, if their From is ours"
        out.leave(_where(said, path, "allow_envfrom_empty"), "allow_envfrom_empty", why)
    for name in said.values:
        if name not in _SILENT and not _off(said, name):
            reason = "keys in Vault are not read" if name.startswith("vault") else "not known to postmeter"
            out.leave(_where(said, path, name), name, _REASONS.get(name, reason))
    return out


def _section(path: Path) -> Section:
    """The settings, with or without `dkim_signing { … }` around them, as a file of override.d or the main one has."""
    try:
        found = ucl.read(path.read_text(errors="surrogateescape"))
    except OSError as error:
        raise MistakeError(f"{path}: {error.strerror}", "name a dkim_signing.conf that can be read") from None
    except UclError as error:
        raise MistakeError(f"{path}: {error}", "take that out of a copy, and name the copy") from None
    inner = found.values.get("dkim_signing")
    return inner if isinstance(inner, Section) else found


def _off(said: Section, name: str) -> bool:
    value = said.values.get(name)
    return isinstance(value, str) and value.lower() in _NO


def _on(said: Section, name: str) -> bool:
    return name in said.values and not _off(said, name)


def _where(said: Section, path: Path, name: str) -> str:
    return f"{path}:{said.lines.get(name, 1)}"


def _text(said: Section, name: str) -> str:
    value = said.values.get(name)
    return value if isinstance(value, str) else ""


def _keys(said: Section, path: Path, out: Carried) -> None:
    tables = {name: _text(said, name).removeprefix("file://") for name in ("key_table", "signing_table")}
    if all(file.startswith("/") for file in tables.values()):
        out.put("dkim", "opendkim_tables", {name: f"refile:{file}" for name, file in tables.items()})
        return
    for name in tables.keys() & said.values.keys():
        out.leave(_where(said, path, name), name, "only both tables, each one file, are read: name those")
    entries: dict[str, list[tuple[str, str]]] = {}
    for domain, selector, file in _named(said, path, out):
        known = entries.setdefault(domain, [])
        if selector not in dict(known):
            known.append((selector, file))
    for domain, selector, file in [*_mapped(said, path, out), *_found(said)]:
        entries.setdefault(domain, [(selector, file)])
    _put(said, entries, out)
    if not entries:
        template = _text(said, "path") or _PATH
        out.advise(f"No key is named by domain, and none lies at {template} yet: list your domains in dkim.sign.")


def _put(said: Section, entries: dict[str, list[tuple[str, str]]], out: Carried) -> None:
    listed: list[Yaml] = []
    for domain, keys in entries.items():
        files: list[Yaml] = [{"selector": selector, "file": file} for selector, file in keys]
        entry: dict[str, Yaml] = {"domain": domain, "keys": files}
        listed.append(entry if _off(said, "use_esld") else entry | {"subdomains": True})
    if listed:
        out.put("dkim", "sign", listed, "" if _off(said, "use_esld") else "subdomains: as use_esld")


def _named(said: Section, path: Path, out: Carried) -> Iterator[tuple[str, str, str]]:
    """`domain { example.com { path, selector, selectors [ … ] } }`"""
    block = said.values.get("domain")
    if not isinstance(block, Section):
        return
    for name, value in block.values.items():
        where = f"{path}:{block.lines[name]}"
        if not isinstance(value, Section) or _domain(name) is None:
            out.leave(where, f"domain {name}", "not a domain with a path and a selector")
            continue
        several = value.values.get("selectors", [value])
        for each in several if isinstance(several, list) else [several]:
            yield from _one(each, said, name.lower(), where, out)


def _one(value: Value, said: Section, domain: str, where: str, out: Carried) -> Iterator[tuple[str, str, str]]:
    if not isinstance(value, Section):
        out.leave(where, f"domain {domain}", "a selector without its path")
        return
    selector = _text(value, "selector") or _text(said, "selector") or _SELECTOR_DEFAULT
    file = _filled(_text(value, "path") or _text(said, "path") or _PATH, domain, selector)
    if file.startswith("/"):
        yield domain, selector, file
    else:
        out.leave(where, f"domain {domain}", "its key stands in the configuration: write it to a file")


def _mapped(said: Section, path: Path, out: Carried) -> Iterator[tuple[str, str, str]]:
    """What selector_map and path_map say, each with the other's default."""
    selectors = dict(_map(said, path, "selector_map", out))
    paths = dict(_map(said, path, "path_map", out))
    for domain in dict.fromkeys([*selectors, *paths]):
        selector = selectors.get(domain) or _text(said, "selector") or _SELECTOR_DEFAULT
        file = paths.get(domain) or _text(said, "path") or _PATH
        if _domain(domain) is None:
            out.leave(_where(said, path, "path_map"), domain, "not a domain; patterns are not known: list each domain")
        else:
            yield domain, selector, _filled(file, domain, selector)


def _map(said: Section, path: Path, name: str, out: Carried) -> Iterator[tuple[str, str]]:
    value = said.values.get(name)
    if isinstance(value, list | Section) or value is None:
        if value is not None:
            out.leave(_where(said, path, name), name, "only a map in one file is read")
        return
    file = value.removeprefix("file://").removeprefix("map://")
    if not file.startswith("/"):
        out.leave(_where(said, path, name), f"{name} {value}", "only a map in one file, without patterns, is read")
        return
    try:
        lines = Path(file).read_text(errors="surrogateescape").split("\n")
    except OSError as error:
        out.leave(_where(said, path, name), f"{name} {file}", error.strerror or "cannot be read")
        return
    for line in lines:
        parts = line.partition("#")[0].split(None, 1)
        if len(parts) == 2:
            yield parts[0].lower(), parts[1].strip().strip('"')


def _found(said: Section) -> Iterator[tuple[str, str, str]]:
    """Keys that lie where `path` says, for domains of which nothing else is known."""
    if _off(said, "try_fallback"):
        return
    template, selector = _text(said, "path") or _PATH, _text(said, "selector") or _SELECTOR_DEFAULT
    if not template.startswith("/") or "$domain" not in template:
        return
    template = template.replace("$selector", selector)
    before = template.partition("$domain")[0].rpartition("/")[0]
    name = re.compile(re.escape(template).replace(re.escape("$domain"), "(?P<domain>[^/]+)", 1))
    for file in sorted(Path(before or "/").glob(template[len(before) + 1 :].replace("$domain", "*"))):
        found = name.fullmatch(str(file))
        if found and _domain(found["domain"]):
            yield found["domain"].lower(), selector, str(file)


def _filled(template: str, domain: str, selector: str) -> str:
    return template.replace("$domain", domain).replace("$selector", selector)


def _domain(name: str) -> str | None:
    try:
        return values.domain(name)
    except MistakeError:
        return None


def _headers(said: Section, path: Path, out: Carried) -> None:
    """Both have the same marks."""
    text = _text(said, "sign_headers")
    rules = [rule.strip().lower() for rule in text.split(":") if rule.strip()]
    if rules and rules != [f"({rule.mark}){rule.name}" if rule.mark else rule.name for rule in headers.DEFAULT]:
        if any(rule.rpartition(")")[2] == "from" for rule in rules):
            out.put("dkim", "headers", rules)
        else:
            why = "From is not among them (RFC 6376 section 5.4)"
            out.leave(_where(said, path, "sign_headers"), "sign_headers", why)


def _senders(said: Section, path: Path, out: Carried) -> None:
    if _on(said, "allow_username_mismatch"):
        out.put("senders", "from_mismatch", "report", "allow_username_mismatch: signed whatever the From, and counted")
    if _off(said, "sign_authenticated"):
        out.put("senders", "authenticated", False)
    networks = [] if _off(said, "sign_local") else ["127.0.0.0/8", "::1"]
    if networks:
        private = "rspamd signed for all of its local_addrs, 10.0.0.0/8, 172.16.0.0/12 and 192.168.0.0/16 among them"
        out.advise(f"{private}. Here only this host is trusted: list in senders.networks who else is.")
    found = list(_networks(said, path, out))
    if found or not networks:
        out.put("senders", "networks", [*networks, *found], "sign_local and sign_networks")


def _networks(said: Section, path: Path, out: Carried) -> Iterator[str]:
    value = said.values.get("sign_networks", [])
    texts = [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)]
    for text in texts:
        for entry in _entries(text, said, path, out):
            try:
                yield str(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                out.leave(_where(said, path, "sign_networks"), entry, "not a network: list its address")


def _entries(text: str, said: Section, path: Path, out: Carried) -> list[str]:
    file = text.removeprefix("file://")
    if not file.startswith("/"):
        return [part for part in re.split(r"[\s,;]+", text) if part]
    try:
        lines = Path(file).read_text(errors="surrogateescape").split("\n")
    except OSError as error:
        out.leave(_where(said, path, "sign_networks"), file, error.strerror or "cannot be read")
        return []
    return [words[0] for line in lines if (words := line.partition("#")[0].split())]
