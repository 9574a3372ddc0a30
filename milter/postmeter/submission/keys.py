"""Private keys: parsed, judged, and what they sign.

Knows nothing of messages, nor of which key is for whom (`keyring`). Keys are `cryptography` objects. Key types: RFC
6376 section 3.3, RFC 8301 section 3.2, RFC 8463.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import cryptography
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.backends import default_backend
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from postmeter.submission import keyfiles
from postmeter.submission.keyfiles import KeyProblem

PrivateKey: TypeAlias = RSAPrivateKey | Ed25519PrivateKey

LEAST, ENOUGH = 1024, 2048  # bits; RFC 8301 section 3.2

# Validation asks whether p and q are prime: 36 ms, against 0.3 ms without in cryptography 38, and 0.01 ms in 50. What
# matters here, that private and public half belong together, `proves_itself` shows in 0.3 ms. Version 39 made a switch
# of it; before, it is a member of the backend that its own tests use.
_MODERN = int(cryptography.__version__.split(".")[0]) >= 39
_UNVALIDATED: dict[str, Any] = {"unsafe_skip_rsa_key_validation": True} if _MODERN else {}
if not _MODERN and hasattr(default_backend(), "_rsa_skip_check_key"):
    default_backend()._rsa_skip_check_key = True
_PADDING, _SHA256 = PKCS1v15(), SHA256()


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key with the d= and s= under which its public half stands in DNS, and the i= that it bears where it can."""

    domain: str
    selector: str
    private: PrivateKey
    identity: str = ""
    algorithm: str = field(init=False)

    def __post_init__(self) -> None:
        kind = "rsa" if isinstance(self.private, RSAPrivateKey) else "ed25519"
        object.__setattr__(self, "algorithm", f"{kind}-sha256")

    @property
    def weak(self) -> str:
        """What receivers may hold against it, in words; empty when nothing."""
        if isinstance(self.private, RSAPrivateKey) and self.private.key_size < ENOUGH:
            return f"RSA of {self.private.key_size} bits, and RFC 8301 asks for {ENOUGH}"
        return ""

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


def load(path: Path) -> PrivateKey:
    """The key in a file. Raises KeyProblem."""
    return parse(path, keyfiles.read(path))


def parse(path: Path, data: bytes) -> PrivateKey:
    """A private key out of what `path` holds: PEM (PKCS#1, PKCS#8), or dkimpy's base64 of an Ed25519 seed (C11)."""
    key = _pem(path, data) if b"-----BEGIN" in data else _seed(path, data)
    if isinstance(key, RSAPrivateKey) and key.key_size < LEAST:
        what = f"RSA of {key.key_size} bits, which no receiver accepts"
        raise KeyProblem(path, what, f"make an RSA key of {ENOUGH} bits under a new selector")
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


def proves_itself(private: PrivateKey) -> bool:
    """Whether the public half accepts what the private one signs; a damaged RSA key parses well otherwise."""
    if isinstance(private, Ed25519PrivateKey):
        return True  # its public half is computed from the private one
    try:
        private.public_key().verify(private.sign(b"postmeter", _PADDING, _SHA256), b"postmeter", _PADDING, _SHA256)
    except (InvalidSignature, ValueError):
        return False
    return True
