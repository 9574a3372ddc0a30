"""`dkim`: which domains are signed with which keys, and how (RFC 6376, RFC 8463)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from postmeter.config import amounts, forms
from postmeter.config.amounts import HOUR
from postmeter.config.problem import MistakeError, quoted
from postmeter.config.readers import Place, Reader, choice, listing, optional, scalar, word_or
from postmeter.config.section import required, section, setting
from postmeter.config.tablefile import TableFile, table_file
from postmeter.config.tree import Node
from postmeter.config.values import InetAddress

_CANONICALIZATIONS = ("relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple")


@dataclass(frozen=True, slots=True)
class HeaderRule:
    """A field to sign. `mark` is "o" (oversigned, even if absent), "x" (oversigned if present) or "" (if present)."""

    name: str
    mark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEntry:
    selector: str = required(forms.selector, "The selector, as in SELECTOR._domainkey.DOMAIN.")
    file: Path = required(forms.path, "The private key, PEM.")


def _keys(node: Node, place: Place) -> tuple[KeyEntry, ...]:
    found = _key_list.take(node, place)
    selectors = [entry.selector for entry in found]
    if not found:
        raise place.complain(node.line, "no key to sign with", "list a selector and a file, or take the entry out")
    if len(set(selectors)) < len(selectors):
        raise place.complain(node.line, "a selector stands twice", "give each key a selector of its own")
    return found


_key_list = listing(section(KeyEntry))


@dataclass(frozen=True, slots=True, kw_only=True)
class SignEntry:
    domain: str = required(forms.domain, "The domain of the From address, and of d=.")
    keys: tuple[KeyEntry, ...] | str = required(
        word_or("auto", other=Reader("a list of keys", _keys)),
        "One signature each: RSA for all, Ed25519 beside it; or auto: all keys of keys_dir/DOMAIN/, which is named by "
        "the domain as DNS has it (A-labels). There SELECTOR.pem is a key, and these can be rotated.",
    )
    subdomains: bool = setting(forms.boolean, "false", "Also sign From addresses below the domain with its d=.")


def _sign(node: Node, place: Place) -> tuple[SignEntry, ...]:
    found = _sign_list.take(node, place)
    first: dict[str, int] = {}
    for index, entry in enumerate(found):
        if entry.domain in first:
            line = place.reading.lines.get(place.item(index).path, node.line)
            what = f"{entry.domain} stands in {place.item(first[entry.domain]).path} already"
            raise place.item(index).complain(line, what, "list all of its keys in one entry")
        first[entry.domain] = index
    return found


_sign_list = listing(section(SignEntry))


def _header(text: str) -> HeaderRule:
    match = re.fullmatch(r"(?:\(([ox])\))?(?!\()([!-9;-~]+)", text)  # RFC 5322 section 2.2
    if match is None:
        raise MistakeError(
            f"{quoted(text)} is not a header field", 'write it like "(o)from", "(x)date" or list-unsubscribe'
        )
    return HeaderRule(match[2].lower(), match[1] or "")


def _headers(node: Node, place: Place) -> tuple[HeaderRule, ...] | str:
    found = _header_list.take(node, place)
    if not isinstance(found, str) and "from" not in {rule.name for rule in found}:
        raise place.complain(node.line, "from is not among them", 'add "(o)from": RFC 6376 section 5.4 demands it')
    trace = sorted({rule.name for rule in found} & _TRACE) if not isinstance(found, str) else []
    if trace:
        raise place.complain(node.line, f"{trace[0]} changes on the road", "take it out: RFC 6376 section 5.4.1")
    return found


# Added or removed by every relay: a signature over them breaks (RFC 6376 section 5.4.1).
_TRACE = frozenset({"return-path", "received", "dkim-signature", "authentication-results"})

_header_list = word_or("default", other=listing(scalar("a header field", _header)))


_table = scalar("a file, or refile: and a file", table_file)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpendkimTables:
    key_table: TableFile = required(_table, "OpenDKIM's KeyTable.")
    signing_table: TableFile = required(_table, "OpenDKIM's SigningTable, with refile: before it where it has globs.")
    multiple_signatures: bool = setting(
        forms.boolean, "false", "As MultipleSignatures: all lines that match sign, and not the first alone."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dkim:
    sign: tuple[SignEntry, ...] = setting(
        Reader("a list of domains with their keys", _sign),
        [],
        "Which From domains are signed, and with which keys.",
        example="[{domain: example.com, keys: [{selector: pm2026a, file: /etc/postmeter/keys/pm2026a.pem}]}]",
    )
    default_domain: str | None = setting(
        optional(forms.domain),
        None,
        "A domain of dkim.sign that signs From domains which no entry covers (not aligned: DMARC does not pass).",
    )
    keys_dir: Path = setting(
        forms.path,
        "/etc/postmeter/keys",
        "Where `dkim new` and `dkim rotate` write; the state of a rotation lies beside the key.",
    )
    canonicalization: str = setting(choice(*_CANONICALIZATIONS), "relaxed/relaxed", "Of header and body.")
    headers: tuple[HeaderRule, ...] | str = setting(
        Reader("default, or a list of header fields", _headers),
        "default",
        "default, or a list: (o) oversigned, (x) if present.",
        example='["(o)from", "(x)date", list-unsubscribe-post]',
    )
    expire: float | None = setting(
        optional(forms.duration(HOUR)),
        None,
        "x=: how long a signature holds; at least Postfix's maximal_queue_lifetime and two days.",
        example="30d",
    )
    identity: str | None = setting(
        optional(choice("login", "from")),
        None,
        "i=: null, or the address of the login or the From field, where that lies in the signing domain or below it.",
    )
    make_safe: bool = setting(
        forms.boolean,
        "true",
        "Re-encode before signing what a later hop would (parts declared 8bit or binary, lines over 998).",
    )
    opendkim_tables: OpendkimTables | None = setting(
        optional(section(OpendkimTables)),
        None,
        "OpenDKIM's own tables, read as they are, at the start and at a reload; entries of dkim.sign come first.",
        example="{key_table: /etc/opendkim/key.table, signing_table: refile:/etc/opendkim/signing.table}",
    )
    check_every: float = setting(
        forms.duration(), "1h", "How often `postmeter books` compares the keys with DNS; 0 is never."
    )
    resolvers: tuple[InetAddress, ...] = setting(
        listing(forms.resolver), [], "Name servers to ask, ADDRESS or ADDRESS:PORT. Empty: the system's."
    )
    rotate_every: float | None = setting(
        optional(forms.duration(HOUR)), None, "New keys are made after so long, only for `keys: auto`.", example="180d"
    )
    rotate_seen: float = setting(
        forms.duration(),
        "24h",
        "Every authoritative server and resolver must have shown a new key for so long before it signs.",
    )
    retire_after: float = setting(
        forms.duration(), "7d", "How long mail signed by the old key may still be on its way."
    )
    key_cache: int = setting(forms.whole(1), "10000", "Parsed keys kept by a worker.")
    on_error: str = setting(
        choice("tempfail", "accept"),
        "tempfail",
        "When signing for a domain we hold a key for fails: 451 4.7.5, or accept it unsigned.",
    )

    @property
    def signs(self) -> bool:
        return bool(self.sign) or self.opendkim_tables is not None


def default_known(dkim: Dkim, place: Place) -> None:
    """The default signs with keys, and these are an entry's."""
    if dkim.default_domain is not None and dkim.default_domain not in {entry.domain for entry in dkim.sign}:
        key = Place(place.reading, f"{place.path}.default_domain")
        raise key.complain(key.line, f"{dkim.default_domain} is no domain of dkim.sign", "add it there, with its keys")


def agrees(dkim: Dkim, place: Place) -> None:
    """Whether its keys fit each other."""
    default_known(dkim, place)
    rotation_fits(dkim, place)


def rotation_fits(dkim: Dkim, place: Place) -> None:
    """One rotation ends before the next begins."""
    needs = dkim.rotate_seen + dkim.retire_after
    if dkim.rotate_every is not None and dkim.rotate_every <= needs:
        key = Place(place.reading, f"{place.path}.rotate_every")
        what = f"is no longer than rotate_seen and retire_after together, {amounts.duration_text(needs)}"
        raise key.complain(key.line, what, "give a longer time, for example 180d")
