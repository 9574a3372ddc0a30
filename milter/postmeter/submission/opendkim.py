"""OpenDKIM's KeyTable and SigningTable, read as they are: which keys sign for a From address.

Knows nothing of messages, nor of what is in a key. After opendkim.conf(5), KeyTable, SigningTable and
MultipleSignatures; where that is silent, after what Debian's opendkim 2.11 does. In one thing it is not followed: of
more than two lines that match it signs with the first and the last only, against its own page.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from postmeter.config.schema import OpendkimTables
from postmeter.config.tablefile import TableFile
from postmeter.mail.address import ascii_domain
from postmeter.submission import tablelines
from postmeter.submission.keyfiles import KeyProblem
from postmeter.submission.tablelines import Globs, Line

_HOST = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")  # what may stand in d= and in a path
_SELECTOR = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")  # RFC 6376 section 3.1
_PKCS1 = re.compile(rb"\x30(?:[\x00-\x7f]|\x81.|\x82..)\x02\x01\x00\x02", re.DOTALL)  # RFC 8017 appendix A.1.2


@dataclass(frozen=True, slots=True)
class TableKey:
    """A key that signs. `inline` is the PEM where the key stands in the table itself, which `file` then is."""

    domain: str
    selector: str
    file: Path
    identity: str = ""
    inline: bytes = b""


class Tables:
    """Both tables as they were when they were read. Safe to share: nothing changes."""

    def __init__(self, tables: OpendkimTables) -> None:
        """Raises KeyProblem for what cannot be read or understood, with the line."""
        self._multiple = tables.multiple_signatures
        self._keys = _KeyTable(tables.key_table)
        self._signing = _SigningTable(tables.signing_table)
        for line in self._signing.lines:
            self._check(line)

    def for_address(self, local: str, domain: str) -> tuple[TableKey, ...]:
        """The keys that sign, each once, in the order of the lines. Raises KeyProblem for one that there is not."""
        name = ascii_domain(domain)
        if not _HOST.fullmatch(name):
            return ()
        lines = self._signing.matches(local.lower(), name)
        found = [self._resolve(line, name) for line in (lines if self._multiple else lines[:1])]
        once: dict[tuple[str, str], TableKey] = {}
        for key in found:
            once.setdefault((key.domain, key.selector), key)
        return tuple(once.values())

    def holds(self, domain: str) -> bool:
        """Whether some address of a domain is signed by its own key, or by one of a domain above it.

        A line for all the world's domains does not make them ours.
        """
        name = ascii_domain(domain)
        if not _HOST.fullmatch(name):
            return False
        return any(self._aligned(line, name) for line in self._signing.reaching(name))

    def keys(self) -> Iterator[TableKey]:
        """Every key that a line of the SigningTable names, once.

        Of those with `%` only what a line for one domain makes of it.
        """
        seen: set[tuple[str, str]] = set()
        for line in self._signing.lines:
            name, _ = _named(line)
            domain = self._signing.domain_of(line)
            row = self._keys.find(domain if name == "%" else name)
            if row is None or (row.domain == "%" and not domain):
                continue
            key = self._resolve(line, domain)
            if (key.domain, key.selector) not in seen:
                seen.add((key.domain, key.selector))
                yield key

    def domains(self) -> Iterator[str]:
        """Every domain that a line is for by name, once, in the order of the lines."""
        yield from dict.fromkeys(filter(None, map(self._signing.domain_of, self._signing.lines)))

    def patterns(self) -> Iterator[Line]:
        """The lines for more than one domain."""
        yield from (line for line in self._signing.lines if not self._signing.domain_of(line))

    def tells_users_apart(self, domain: str) -> bool:
        """Whether the key of some address depends on what stands before its @."""
        return any(self._signing.by_user(line) for line in self._signing.reaching(domain))

    def oddities(self) -> Iterator[KeyProblem]:
        """What OpenDKIM passes over in silence."""
        for table in (self._keys.file, self._signing.file):
            for number in tablelines.indented(table.path) if table.globs else ():
                what = f"line {number}: begins with white space, and so it says nothing in a refile:"
                yield KeyProblem(table.path, what, "remove the white space, or the line", fatal=False)
        for line in self._signing.lines:
            _, identity = _named(line)
            if identity and "@" not in identity:
                what = f"line {line.number}: {identity!r} is no address for i=, and OpenDKIM leaves such mail unsigned"
                yield KeyProblem(self._signing.file.path, what, f"write @{identity}, or nothing", fatal=False)

    def _check(self, line: Line) -> None:
        """What can be told before there is an address."""
        name, _ = _named(line)
        path = self._signing.file.path
        if not name:
            raise KeyProblem(path, f"line {line.number}: {line.key} names no key", "write a name of the KeyTable there")
        domain = self._signing.domain_of(line)
        if name == "%" and not domain:
            return
        if self._keys.find(domain if name == "%" else name) is None:
            raise self._unknown(line, domain if name == "%" else name)

    def _unknown(self, line: Line, name: str) -> KeyProblem:
        what = f"line {line.number}: names the key {name!r}, which {self._keys.file.path} has not"
        return KeyProblem(self._signing.file.path, what, "add it there, or take the line out")

    def _resolve(self, line: Line, domain: str) -> TableKey:
        name, identity = _named(line)
        name = domain if name == "%" else name
        row = self._keys.find(name)
        if row is None:
            raise self._unknown(line, name)
        return replace(row.key(domain, self._keys.file.path), identity=identity.replace("%", domain))

    def _aligned(self, line: Line, domain: str) -> bool:
        name, _ = _named(line)
        row = self._keys.find(domain if name == "%" else name)
        if row is None:
            return False
        if row.domain == "%" and "%" in row.place:
            return row.key(domain, self._keys.file.path).file.exists()
        signing = domain if row.domain == "%" else ascii_domain(row.domain)
        return domain == signing or domain.endswith(f".{signing}")


@dataclass(frozen=True, slots=True)
class _Row:
    """A value of the KeyTable: `domain:selector:place`, where the place is a path or a key."""

    domain: str
    selector: str
    place: str

    def key(self, domain: str, table: Path) -> TableKey:
        signing = domain if self.domain == "%" else ascii_domain(self.domain)
        if self.place.startswith("/"):
            return TableKey(signing, self.selector, Path(self.place.replace("%", signing)))
        return TableKey(signing, self.selector, table, inline=_armoured(self.place))


class _KeyTable:
    def __init__(self, file: TableFile) -> None:
        self.file = file
        lines = tablelines.read(file.path, globs=file.globs)
        self._rows = {line.number: _row(line, file.path) for line in lines}
        self._globs = Globs(lines, path=file.path) if file.globs else None
        self._lines = {} if file.globs else _first(lines)

    def find(self, name: str) -> _Row | None:
        """Names are told apart by case, as OpenDKIM does."""
        if self._globs is None:
            line = self._lines.get(name)
            return self._rows[line.number] if line else None
        found = self._globs.matches(name)
        return self._rows[found[0].number] if found else None


class _SigningTable:
    def __init__(self, file: TableFile) -> None:
        self.file = file
        self.lines = [replace(line, key=_folded(line.key)) for line in tablelines.read(file.path, globs=file.globs)]
        self._globs = Globs(self.lines, path=file.path) if file.globs else None
        self._lines = {} if file.globs else _first(self.lines)
        self._users: dict[str, list[Line]] = {}
        for line in self.lines:
            if "@" in line.key and (not file.globs or tablelines.is_exact(line.key)):
                self._users.setdefault(line.key.rpartition("@")[2], []).append(line)

    def matches(self, local: str, domain: str) -> Sequence[Line]:
        """What matches an address, the first first."""
        if self._globs is not None:
            return self._globs.matches(f"{local}@{domain}")
        return [line for key in _forms(local, domain) if (line := self._lines.get(key)) is not None]

    def reaching(self, domain: str) -> Iterator[Line]:
        """All lines that could match some address of a domain."""
        yield from self._users.get(domain, ())
        if self._globs is not None:
            near = self._globs.near(f"@{domain}")
            yield from (line for line in near if tablelines.reaches(line.key, domain))
            return
        for key in (domain, *tablelines.dotted(domain), "*"):
            yield from self._users.get(key, ()) if key != domain else ()
            if (line := self._lines.get(key)) is not None:
                yield line

    def by_user(self, line: Line) -> bool:
        local, at, _ = line.key.rpartition("@")
        return bool(at) and (not self.file.globs or local.strip("*") != "")

    def domain_of(self, line: Line) -> str:
        """The one domain that a line is for; empty where it is for several."""
        host = line.key.rpartition("@")[2]
        if self.file.globs and "@" not in line.key:
            return ""
        return host if _HOST.fullmatch(host) else ""


def _forms(local: str, domain: str) -> Iterator[str]:
    """Keys in the order in which OpenDKIM looks for them (opendkim.conf(5), SigningTable)."""
    yield f"{local}@{domain}"
    yield domain
    for end in tablelines.dotted(domain):
        yield f"{local}@{end}"
        yield end
    yield f"{local}@*"
    yield "*"


def _first(lines: Iterable[Line]) -> dict[str, Line]:
    """Of several lines with one key the first counts."""
    found: dict[str, Line] = {}
    for line in lines:
        found.setdefault(line.key, line)
    return found


def _folded(key: str) -> str:
    """Lower case, and the domain as DNS has it."""
    key = key.lower()
    if key.isascii():
        return key
    before, at, domain = key.rpartition("@")
    return f"{before}{at}{ascii_domain(domain)}"


def _named(line: Line) -> tuple[str, str]:
    """The key's name and the identity for i= that a line of the SigningTable has."""
    name, _, identity = line.value.partition(":")
    return name.strip(), identity.strip()


def _row(line: Line, path: Path) -> _Row:
    parts = [part.strip() for part in line.value.split(":", 2)]
    if len(parts) < 3 or not all(parts):
        what = f"line {line.number}: {line.key} is not DOMAIN:SELECTOR:PATH"
        raise KeyProblem(path, what, "write all three, with colons between them")
    row = _Row(*parts)
    if row.domain != "%" and not _HOST.fullmatch(ascii_domain(row.domain)):
        raise KeyProblem(path, f"line {line.number}: {row.domain!r} is no domain", "write a domain, or % alone")
    if not _SELECTOR.fullmatch(row.selector):
        raise KeyProblem(path, f"line {line.number}: {row.selector!r} is no selector", "write it as DNS has it")
    if row.place.startswith(("./", "../")):
        raise KeyProblem(path, f"line {line.number}: {row.place} depends on a directory", "write the path from / on")
    if not row.place.startswith("/") and not _armoured(row.place):
        what = f"line {line.number}: holds neither a path nor a key in base64"
        raise KeyProblem(path, what, "write the path from / on")
    return row


def _armoured(text: str) -> bytes:
    """The PEM of a key that stands in the table as base64 of its DER (RFC 7468); empty where it is none."""
    try:
        der = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    if not der.startswith(b"\x30"):
        return b""
    label = b"RSA PRIVATE KEY" if _PKCS1.match(der) else b"PRIVATE KEY"
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label, base64.encodebytes(der), label)
