"""Every key that is configured, whatever its state, and what DNS has to show for it.

For those who look after keys; who signs asks `keyring`. Knows nothing of DNS. A directory of `keys: auto` is read anew
each time, and no private key is kept.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from postmeter.config.schema import Dkim, SignEntry
from postmeter.mail.address import ascii_domain
from postmeter.submission import keydir, keyrecord, keys
from postmeter.submission.keydir import KeyState
from postmeter.submission.keyrecord import Expected
from postmeter.submission.keys import SigningKey

_ALWAYS = KeyState("active", 0.0)


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key file with the d= and s= it is for."""

    domain: str
    selector: str
    file: Path
    state: KeyState

    @property
    def name(self) -> str:
        """Where DNS has its record."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def signs(self) -> bool:
        return self.state.state == "active"

    def expected(self) -> Expected:
        """What DNS has to show. Raises KeyProblem."""
        key = SigningKey(self.domain, self.selector, keys.load(self.file))
        tags = keyrecord.parse(key.record())
        return Expected(tags["k"], base64.b64decode(tags["p"]), getattr(key.private, "key_size", 0))


def entry_of(dkim: Dkim, domain: str) -> SignEntry | None:
    """The entry that is for that very domain."""
    name = ascii_domain(domain)
    return next((entry for entry in dkim.sign if ascii_domain(entry.domain) == name), None)


def of_entry(dkim: Dkim, entry: SignEntry) -> list[ListedKey]:
    """Raises KeyProblem when a directory cannot be read."""
    domain = ascii_domain(entry.domain)
    if isinstance(entry.keys, str):
        return list(of_folder(dkim.keys_dir, domain))
    return [ListedKey(domain, key.selector, key.file, _ALWAYS) for key in entry.keys]


def of_folder(keys_dir: Path, domain: str) -> Iterator[ListedKey]:
    """What lies in the directory of a domain, whether or not the configuration names that. Raises KeyProblem."""
    folder = keydir.folder(keys_dir, domain)
    files = keydir.key_files(folder)
    states = keydir.read_state(folder)
    for selector, file in files.items():
        yield ListedKey(domain, selector, file, states.get(selector, _ALWAYS))
