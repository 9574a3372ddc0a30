"""Private keys: read, judged and kept ready, found by the domain of a From address.

Knows nothing of messages. Keys are `cryptography` objects, parsed once: parsing with OpenSSL's full validation costs
more than a hundred signatures. Key types: RFC 6376 section 3.3, RFC 8301 section 3.2, RFC 8463.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import cryptography
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from postmeter.config.schema import Dkim, SignEntry
from postmeter.mail.address import ascii_domain
from postmeter.submission import keyfiles
from postmeter.submission.keyfiles import KeyProblem

__all__ = ["KeyProblem", "Keyring", "SigningKey", "check", "load"]

PrivateKey: TypeAlias = RSAPrivateKey | Ed25519PrivateKey

_LEAST, _ENOUGH = 1024, 2048  # bits; RFC 8301 section 3.2
_PROVED = 1000  # so many keys are tried out when they are loaded (0.3 ms each); 100,000 must load within seconds
_SAMPLED = 100  # domains that are looked through for one key of each kind

# Validation asks whether p and q are prime: 36 ms against 0.01 ms without (cryptography 50). What matters here, that
# private and public half belong together, `_proves_itself` shows in 0.3 ms. The switch is there since version 39.
_UNVALIDATED: dict[str, Any] = (
    {"unsafe_skip_rsa_key_validation": True} if int(cryptography.__version__.split(".")[0]) >= 39 else {}
)
_PADDING, _SHA256 = PKCS1v15(), SHA256()


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key with the d= and s= under which its public half stands in DNS."""

    domain: str
    selector: str
    private: PrivateKey

    @property
    def algorithm(self) -> str:
        return "rsa-sha256" if isinstance(self.private, RSAPrivateKey) else "ed25519-sha256"

    def sign(self, data: bytes) -> bytes:
        """The signature over the header hash input; RSA leaves the GIL to others meanwhile (measured)."""
        if isinstance(self.private, RSAPrivateKey):
            return self.private.sign(data, _PADDING, _SHA256)
        return self.private.sign(hashlib.sha256(data).digest())  # RFC 8463 section 3

    def record(self) -> str:
        """The TXT record for SELECTOR._domainkey.DOMAIN (RFC 6376 section 3.6.1, RFC 8463 section 4)."""
        if isinstance(self.private, RSAPrivateKey):
            kind = "rsa"
            public = self.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        else:
            kind = "ed25519"
            public = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return f"v=DKIM1; k={kind}; p={base64.b64encode(public).decode()}"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a key is, so that it can be loaded again when the cache has dropped it."""

    domain: str
    selector: str
    file: Path


class Keyring:
    """The configured keys by domain. Safe to share: after the start only an LRU cache changes, which needs no lock."""

    def __init__(self, dkim: Dkim) -> None:
        self._entries = {ascii_domain(entry.domain): entry for entry in dkim.sign}
        self._parents = any(entry.subdomains for entry in dkim.sign)
        self._load = lru_cache(maxsize=dkim.key_cache)(_load)

    def holds(self, domain: str) -> bool:
        return self._find(domain) is not None

    def for_domain(self, domain: str) -> tuple[SigningKey, ...]:
        """All keys to sign with for a From domain, RSA first; none when no entry covers it. Raises KeyProblem."""
        entry = self._find(domain)
        keys = [self._load(place) for place in _places(entry)] if entry else []
        return tuple(sorted(keys, key=lambda key: key.algorithm != "rsa-sha256"))

    def samples(self) -> Iterator[SigningKey]:
        """One key of each kind, as far as the first entries have one."""
        seen: set[str] = set()
        for domain in list(self._entries)[:_SAMPLED]:
            for key in self.for_domain(domain):
                if key.algorithm not in seen:
                    seen.add(key.algorithm)
                    yield key

    def examine(self) -> list[KeyProblem]:
        """Load every key once, and say what is wrong with which."""
        guard = keyfiles.Guard()
        places = [place for entry in self._entries.values() for place in _places(entry)]
        return [problem for nth, place in enumerate(places) for problem in self._examine(place, guard, nth < _PROVED)]

    def _examine(self, place: _Place, guard: keyfiles.Guard, prove: bool) -> Iterator[KeyProblem]:
        try:
            guard.check(place.file)
            key = self._load(place)
        except KeyProblem as problem:
            yield problem
            return
        if prove and not _proves_itself(key.private):
            yield KeyProblem(place.file, "is damaged: its two halves do not match", "restore it, or make a new key")
        elif isinstance(key.private, RSAPrivateKey) and key.private.key_size < _ENOUGH:
            what = f"RSA of {key.private.key_size} bits, and RFC 8301 asks for {_ENOUGH}"
            yield KeyProblem(place.file, what, f"make an RSA key of {_ENOUGH} bits under a new selector", fatal=False)

    def _find(self, domain: str) -> SignEntry | None:
        name = ascii_domain(domain)
        entry = self._entries.get(name)
        if entry is None and self._parents:
            above = (self._entries.get(parent) for parent in _parents(name))
            return next((found for found in above if found is not None and found.subdomains), None)
        return entry


def check(dkim: Dkim) -> list[KeyProblem]:
    """All that is wrong with the configured keys, warnings too (`fatal` False)."""
    return Keyring(dkim).examine()


def load(dkim: Dkim) -> Keyring:
    """The keyring, its keys parsed. Raises the first KeyProblem that is fatal; `check` tells all of them."""
    keyring = Keyring(dkim)
    for problem in keyring.examine():
        if problem.fatal:
            raise problem
    return keyring


def _parents(name: str) -> Iterable[str]:
    while "." in name:
        name = name.partition(".")[2]
        yield name


def _places(entry: SignEntry) -> Iterator[_Place]:
    if not isinstance(entry.keys, str):  # "auto" is refused by the configuration until keys can be rotated
        for key in entry.keys:
            yield _Place(ascii_domain(entry.domain), key.selector, key.file)


def _load(place: _Place) -> SigningKey:
    return SigningKey(place.domain, place.selector, parse(place.file, keyfiles.read(place.file)))


def parse(path: Path, data: bytes) -> PrivateKey:
    """A private key out of what `path` holds: PEM (PKCS#1, PKCS#8), or dkimpy's base64 of an Ed25519 seed (C11)."""
    key = _pem(path, data) if b"-----BEGIN" in data else _seed(path, data)
    if isinstance(key, RSAPrivateKey) and key.key_size < _LEAST:
        what = f"RSA of {key.key_size} bits, which no receiver accepts"
        raise KeyProblem(path, what, f"make an RSA key of {_ENOUGH} bits under a new selector")
    return key


def _pem(path: Path, data: bytes) -> PrivateKey:
    _check_armour(path, data)
    try:
        key: object = load_pem_private_key(data, None, **_UNVALIDATED)
    except TypeError:  # so cryptography says that it wants a password
        raise _encrypted(path) from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyProblem(path, "holds no key that can be read", "restore it: it may be half written") from None
    if not isinstance(key, RSAPrivateKey | Ed25519PrivateKey):
        kind = type(key).__name__.strip("_").removesuffix("PrivateKey")
        raise KeyProblem(path, f"wrong type of key ({kind})", "DKIM knows RSA and Ed25519 only")
    return key


def _check_armour(path: Path, data: bytes) -> None:
    """What is not even worth parsing, told apart for the operator."""
    if b"ENCRYPTED" in data:
        raise _encrypted(path)
    if b"-----BEGIN OPENSSH" in data:
        raise KeyProblem(path, "is a key in OpenSSH's form", "make a key with `openssl genpkey`")
    if b"PRIVATE KEY-----" not in data:
        raise KeyProblem(path, "holds no private key", "name the file with the private half")
    if b"-----END" not in data:
        raise KeyProblem(path, "ends in the middle of the key", "write it again: first beside it, then rename")


def _encrypted(path: Path) -> KeyProblem:
    return KeyProblem(path, "is protected by a passphrase", f"openssl pkey -in {path} -out NEW, and use that")


def _seed(path: Path, data: bytes) -> PrivateKey:
    try:
        seed = base64.b64decode(data.strip(), validate=True)
    except (binascii.Error, ValueError):
        seed = b""
    if len(seed) != 32:  # RFC 8032 section 5.1.5
        fix = "give PEM, or the base64 of an Ed25519 seed of 32 octets"
        raise KeyProblem(path, "is empty" if not data.strip() else "is no private key", fix)
    return Ed25519PrivateKey.from_private_bytes(seed)


def _proves_itself(private: PrivateKey) -> bool:
    """Whether the public half accepts what the private one signs; a damaged RSA key parses well otherwise."""
    if isinstance(private, Ed25519PrivateKey):
        return True  # its public half is computed from the private one
    try:
        private.public_key().verify(private.sign(b"postmeter", _PADDING, _SHA256), b"postmeter", _PADDING, _SHA256)
    except (InvalidSignature, ValueError):
        return False
    return True
