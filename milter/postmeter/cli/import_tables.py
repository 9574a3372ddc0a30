"""KeyTable and SigningTable turned into `dkim.sign`, or kept where they are.

A table can say what `dkim.sign` cannot: a key by local part, a key for every domain. So each domain is asked of the
tables as the milter would ask, and listed only where the answer is the same for every address of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from postmeter.cli.carried import Carried, Value
from postmeter.cli.opendkimconf import OpendkimConf
from postmeter.config.problem import MistakeError
from postmeter.config.schema import OpendkimTables
from postmeter.config.tablefile import TableFile, table_file
from postmeter.submission.keyfiles import KeyProblem
from postmeter.submission.opendkim import TableKey, Tables
from postmeter.submission.tablelines import Line

_ANYBODY, _ANYWHERE = "nobody.postmeter-import", "nowhere-postmeter-import"  # that no line names


def carry(conf: OpendkimConf, out: Carried, *, keep: bool) -> None:
    """With `keep` the tables stay; otherwise their domains are listed."""
    keys, signing = (_file(conf, name, out) for name in ("KeyTable", "SigningTable"))
    if keys is None or signing is None:
        return
    multiple = conf.on("MultipleSignatures")
    both = OpendkimTables(key_table=keys, signing_table=signing, multiple_signatures=multiple)
    if keep:
        spelt = {"key_table": str(keys), "signing_table": str(signing)}
        out.put("dkim", "opendkim_tables", spelt | ({"multiple_signatures": True} if multiple else {}))
    try:
        tables = Tables(both)
    except KeyProblem as problem:
        out.leave(str(problem.path), "the tables", f"{problem.what}; {problem.fix}")
        return
    if not keep:
        _list(tables, signing, out)


def _file(conf: OpendkimConf, name: str, out: Carried) -> TableFile | None:
    setting = conf.get(name)
    if setting is None:
        out.leave("all of it", name, "it is missing, so OpenDKIM signs nothing by tables")
        return None
    try:
        return table_file(conf.absolute(setting))
    except MistakeError as mistake:
        out.leave(setting.where, setting.shown, f"{mistake.what}; {mistake.fix}")
        return None


def _list(tables: Tables, signing: TableFile, out: Carried) -> None:
    entries: dict[str, dict[str, Value]] = {}
    before = len(out.left)
    for domain in tables.domains():
        keys = _keys_of(tables, _ANYBODY, domain)
        if keys and not tables.tells_users_apart(domain) and _listable(keys, domain):
            entries[domain] = _entry(tables, keys, domain)
        else:
            out.leave(str(signing.path), domain, _why(tables, keys, domain))
    default = {key.domain for key in _keys_of(tables, _ANYBODY, _ANYWHERE)} & set(entries)
    if entries:
        out.put("dkim", "sign", list(entries.values()))
    for domain in default:
        out.put("dkim", "default_domain", domain, "the line for all domains")
    for line in tables.patterns():
        if not _covered(line, entries, default=bool(default)):
            out.leave(f"{signing.path}:{line.number}", line.key, "dkim.sign lists domains, and knows no such pattern")
    if len(out.left) > before:
        out.advise("`--tables` keeps KeyTable and SigningTable as they are, and carries over all that they say.")


def _covered(line: Line, entries: Mapping[str, Mapping[str, Value]], *, default: bool) -> bool:
    """Whether entries for subdomains, or the default, say what a pattern did."""
    local, _, host = line.key.rpartition("@")
    above = host.lstrip("*").lstrip(".")
    if local.strip("*"):
        return False
    return default if not above else "subdomains" in entries.get(above, {})


def _keys_of(tables: Tables, local: str, domain: str) -> Sequence[TableKey]:
    try:
        return tables.for_address(local, domain)
    except KeyProblem:
        return ()


def _listable(keys: Sequence[TableKey], domain: str) -> bool:
    return all(key.domain == domain and not key.inline and not key.identity for key in keys)


def _entry(tables: Tables, keys: Sequence[TableKey], domain: str) -> dict[str, Value]:
    below = _keys_of(tables, _ANYBODY, f"{_ANYWHERE}.{domain}")
    files: list[Value] = [{"selector": key.selector, "file": str(key.file)} for key in keys]
    entry: dict[str, Value] = {"domain": domain, "keys": files}
    if list(below) == list(keys):
        entry["subdomains"] = True
    return entry


def _why(tables: Tables, keys: Sequence[TableKey], domain: str) -> str:
    return "; ".join(_reasons(tables, keys, domain)) or "no key is for all of its addresses"


def _reasons(tables: Tables, keys: Sequence[TableKey], domain: str) -> Iterator[str]:
    if tables.tells_users_apart(domain):
        yield "the local part decides on the key"
    other = sorted({key.domain for key in keys} - {domain})
    if other:
        yield f"it is signed by {', '.join(other)}: DMARC does not pass, make it a key of its own (postmeter dkim new)"
    if any(key.identity for key in keys):
        yield "i= is said by dkim.identity for all"
    if any(key.inline for key in keys):
        yield "its key stands in the table: write it to a file"
