"""Which keys sign for a From domain, as configured; loaded when first needed, and again when their files change.

Knows nothing of messages. At the start only so many keys are looked at, so that a hundred thousand domains start as
fast as ten; the others are judged in the same way when their first message comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from postmeter.config.schema import Dkim, OpendkimTables
from postmeter.mail.address import ascii_domain
from postmeter.submission import keydir, keyfiles, keys
from postmeter.submission.kept import Kept, Watch
from postmeter.submission.keyfiles import KeyProblem
from postmeter.submission.keys import SigningKey
from postmeter.submission.opendkim import TableKey, Tables

AT_START = 1000  # keys: half a second
_PROVED = 1000  # so many keys are tried out by `check-config` too (0.3 ms each); it parses all of them
_TABLES = "dkim.opendkim_tables"
_SAMPLED = 100  # domains that are looked through for one key of each kind


@dataclass(frozen=True, slots=True)
class Place:
    """A key that signs: d= and s=, its file, and the configuration key that leads there; what i= shall name.

    `inline` is the key itself where it stands in a table.
    """

    domain: str
    selector: str
    file: Path
    key: str
    identity: str = ""
    inline: bytes = b""


class Keyring:
    """The keys of one configuration. Safe to share between threads, and to be forked with."""

    def __init__(self, dkim: Dkim, *, clock: Callable[[], float] = time.time) -> None:
        self._entries = {ascii_domain(entry.domain): (nth, entry) for nth, entry in enumerate(dkim.sign)}
        self._parents = any(entry.subdomains for entry in dkim.sign)
        self._default = ascii_domain(dkim.default_domain or "")
        self._keys_dir = dkim.keys_dir
        self._tables, self._broken = _read(dkim.opendkim_tables)
        self._kept: Kept[str | tuple[TableKey, ...], tuple[SigningKey, ...]] = Kept(
            most=dkim.key_cache, weigh=len, clock=clock
        )

    def holds(self, domain: str) -> bool:
        """Whether a domain is ours: by an entry of its own or by one above it, and not by the default."""
        return bool(self._own(domain)) or (self._tables is not None and self._tables.holds(domain))

    def signs(self, domain: str, local: str = "") -> bool:
        try:
            return bool(self._signer(domain, local))
        except KeyProblem:
            return True  # signing will fail, and say why

    def for_domain(self, domain: str, local: str = "") -> tuple[SigningKey, ...]:
        """All keys to sign with for a From domain, RSA first; none when nothing covers it. Raises KeyProblem.

        `local` is the part before the @, which OpenDKIM's tables may ask for.
        """
        signer = self._signer(domain, local)
        return self._kept.get(signer, self._load) if signer else ()

    def places(self) -> Iterator[Place]:
        """Every key that signs, in the order of the configuration. Raises KeyProblem."""
        for domain in self._entries:
            yield from self._places(domain)
        yield from (_place(key) for key in self._table_keys())

    def samples(self) -> Iterator[SigningKey]:
        """One key of each kind, as far as the first entries have one."""
        seen: set[str] = set()
        for signer in islice(self._signers(), _SAMPLED):
            for key in self._kept.get(signer, self._load):
                if key.algorithm not in seen:
                    seen.add(key.algorithm)
                    yield key

    def examine(self) -> Iterator[KeyProblem]:
        """Load every key once, and say what is wrong with which; little of it is kept in memory."""
        guard = keyfiles.Guard()
        count = 0
        for domain in self._entries:
            try:
                places = list(self._places(domain))
            except KeyProblem as problem:
                yield problem.at(self._key(domain))
                continue
            for place in places:
                yield from _examine(place, guard, prove=count < _PROVED)
                count += 1
            yield from self._strays(domain)
        yield from self._examine_tables(guard, prove=_PROVED - count)

    def _examine_tables(self, guard: keyfiles.Guard, *, prove: int) -> Iterator[KeyProblem]:
        if self._broken is not None:
            yield self._broken.at(_TABLES)
        elif self._tables is not None:
            for nth, key in enumerate(self._tables.keys()):
                yield from _examine(_place(key), guard, prove=nth < prove)
            yield from (problem.at(_TABLES) for problem in self._tables.oddities())

    def warm(self, most: int) -> None:
        """Load the first keys, so that what is forked off has them. Raises KeyProblem, also for what is no key."""
        count = 0
        for signer in self._signers():
            if count >= most:
                return
            count += len(self._kept.get(signer, self._load))

    def _signers(self) -> Iterator[str | tuple[TableKey, ...]]:
        """Who signs by name, in the order of the configuration. Raises KeyProblem."""
        yield from self._entries
        yield from ((key,) for key in self._table_keys())

    def _table_keys(self) -> Iterator[TableKey]:
        if self._broken is not None:
            raise self._broken
        return iter(()) if self._tables is None else self._tables.keys()

    def _own(self, domain: str) -> str:
        """The domain of the entry that covers a From domain; empty when none does."""
        name = domain if domain in self._entries else ascii_domain(domain)
        if name in self._entries:
            return name
        above = _parents(name) if self._parents else ()
        return next((parent for parent in above if parent in self._entries and self._entries[parent][1].subdomains), "")

    def _signer(self, domain: str, local: str) -> str | tuple[TableKey, ...]:
        """The domain of an entry, or keys of the tables; empty when nothing covers the address. Raises KeyProblem."""
        own = self._own(domain)
        if own or not domain:
            return own
        return (self._tables.for_address(local, domain) if self._tables is not None else ()) or self._default

    def _load(self, signer: str | tuple[TableKey, ...], watch: Watch) -> tuple[SigningKey, ...]:
        guard = keyfiles.Guard()
        places = self._places(signer, watch) if isinstance(signer, str) else map(_place, signer)
        found = [_load(place, guard, watch) for place in places]
        return tuple(sorted(found, key=lambda key: key.algorithm != "rsa-sha256"))

    def _places(self, domain: str, watch: Watch = lambda path: None) -> Iterator[Place]:
        nth, entry = self._entries[domain]
        if isinstance(entry.keys, str):
            folder = keydir.folder(self._keys_dir, domain)
            watch(folder)
            watch(folder / keydir.STATE)
            for selector, file in keydir.active(folder).items():
                yield Place(domain, selector, file, f"dkim.sign[{nth}].keys")
        else:
            for at, key in enumerate(entry.keys):
                yield Place(domain, key.selector, key.file, f"dkim.sign[{nth}].keys[{at}].file")

    def _strays(self, domain: str) -> Iterator[KeyProblem]:
        if isinstance(self._entries[domain][1].keys, str):
            for path in keydir.strays(keydir.folder(self._keys_dir, domain)):
                fix = "call it SELECTOR.pem, in lower case, or move it away"
                yield KeyProblem(path, "is not used", fix, fatal=False).at(self._key(domain))

    def _key(self, domain: str) -> str:
        return f"dkim.sign[{self._entries[domain][0]}].keys"


def load(dkim: Dkim) -> Keyring:
    """The keyring, its first keys loaded. Raises the first KeyProblem of these; `examine` tells all."""
    keyring = Keyring(dkim)
    keyring.warm(AT_START)
    return keyring


def _read(tables: OpendkimTables | None) -> tuple[Tables | None, KeyProblem | None]:
    """What is wrong with tables is told with the rest, by whoever asks for keys."""
    try:
        return (Tables(tables) if tables is not None else None), None
    except KeyProblem as problem:
        return None, problem


def _place(key: TableKey) -> Place:
    return Place(key.domain, key.selector, key.file, _TABLES, key.identity, key.inline)


def _parents(name: str) -> Iterable[str]:
    while "." in name:
        name = name.partition(".")[2]
        yield name


def _load(place: Place, guard: keyfiles.Guard, watch: Watch = lambda path: None, *, prove: bool = True) -> SigningKey:
    watch(place.file)
    guard.check(place.file)
    private = keys.parse(place.file, place.inline) if place.inline else keys.load(place.file)
    if prove and not keys.proves_itself(private):
        raise KeyProblem(place.file, "is damaged: its two halves do not match", "restore it, or make a new key")
    return SigningKey(place.domain, place.selector, private, place.identity)


def _examine(place: Place, guard: keyfiles.Guard, *, prove: bool) -> Iterator[KeyProblem]:
    try:
        key = _load(place, guard, prove=prove)
    except KeyProblem as problem:
        yield problem.at(place.key)
        return
    if key.weak:
        fix = f"make an RSA key of {keys.ENOUGH} bits under a new selector"
        yield KeyProblem(place.file, key.weak, fix, fatal=False).at(place.key)
