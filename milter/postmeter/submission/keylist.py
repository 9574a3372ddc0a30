"""Every key that is configured, whatever its state, and what DNS has to show for it.

For those who look after keys; who signs asks `keyring`. Knows nothing of DNS. A directory of `keys: auto` is read anew
each time, and no private key is kept.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from postmeter.config.schema import Dkim, SignEntry
from postmeter.mail.address import ascii_domain
from postmeter.submission import keydir, keyrecord, keys
from postmeter.submission.keydir import KeyState
from postmeter.submission.keyrecord import Expected
from postmeter.submission.keys import SigningKey
from postmeter.submission.opendkim import Tables

_ALWAYS = KeyState("active", 0.0)


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key file with the d= and s= it is for."""

    domain: str
    selector: str
    file: Path
    state: KeyState = _ALWAYS
    inline: bytes = b""
    """The key itself, where it stands in a table of OpenDKIM's."""
    below: bool = False
    """Whether i= may name a domain below d=."""

    @property
    def name(self) -> str:
        """Where DNS has its record."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def signs(self) -> bool:
        return self.state.state == "active"

    def expected(self) -> Expected:
        """What DNS has to show. Raises KeyProblem."""
        private = keys.parse(self.file, self.inline) if self.inline else keys.load(self.file)
        key = SigningKey(self.domain, self.selector, private)
        tags = keyrecord.parse(key.record())
        return Expected(tags["k"], base64.b64decode(tags["p"]), getattr(key.private, "key_size", 0), self.below)


@dataclass(frozen=True, slots=True)
class Domain:
    """What is configured for one d=: an entry of `dkim.sign`, keys of OpenDKIM's tables, or both."""

    name: str
    entry: SignEntry | None
    tabled: tuple[ListedKey, ...] = ()
    below: bool = False

    def keys(self, keys_dir: Path) -> list[ListedKey]:
        """Raises KeyProblem when a directory cannot be read."""
        listed = self.entry.keys if self.entry is not None else ()
        if isinstance(listed, str):
            own = list(of_folder(keys_dir, self.name))
        else:
            own = [ListedKey(self.name, key.selector, key.file) for key in listed]
        return [*(replace(key, below=self.below) for key in own), *self.tabled]


Tabled = Mapping[str, tuple[ListedKey, ...]]


def of_tables(dkim: Dkim) -> Tabled:
    """The keys of OpenDKIM's tables, by domain. Raises KeyProblem."""
    found: dict[str, tuple[ListedKey, ...]] = {}
    for key in Tables(dkim.opendkim_tables).keys() if dkim.opendkim_tables is not None else ():
        listed = ListedKey(key.domain, key.selector, key.file, inline=key.inline)
        found[key.domain] = (*found.get(key.domain, ()), listed)
    return found


def domains(dkim: Dkim, tabled: Tabled) -> Iterator[Domain]:
    """Each once, in the order of the configuration."""
    named = set()
    for entry in dkim.sign:
        name = ascii_domain(entry.domain)
        named.add(name)
        yield Domain(name, entry, tabled.get(name, ()), below=bool(dkim.identity) and entry.subdomains)
    yield from (Domain(name, None, keys) for name, keys in tabled.items() if name not in named)


def entry_of(dkim: Dkim, domain: str) -> SignEntry | None:
    """The entry that is for that very domain."""
    name = ascii_domain(domain)
    return next((entry for entry in dkim.sign if ascii_domain(entry.domain) == name), None)


def of_folder(keys_dir: Path, domain: str) -> Iterator[ListedKey]:
    """What lies in the directory of a domain, whether or not the configuration names that. Raises KeyProblem."""
    folder = keydir.folder(keys_dir, domain)
    files = keydir.key_files(folder)
    states = keydir.read_state(folder)
    for selector, file in files.items():
        yield ListedKey(domain, selector, file, states.get(selector, _ALWAYS))
