"""DKIM key pairs for labs: the private key as a file, the public one as the DNS record it needs (RFC 6376, RFC 8463).

Knows nothing of how postmeter reads keys.
"""

from __future__ import annotations

import base64
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

_DER = serialization.Encoding.DER
_PKCS8 = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


@dataclass(frozen=True, slots=True)
class DkimKey:
    """`name` is where DNS holds `record`; `entry` is the key as a configuration lists it."""

    domain: str
    selector: str
    file: Path
    record: str

    @property
    def name(self) -> str:
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def entry(self) -> dict[str, str]:
        return {"selector": self.selector, "file": str(self.file)}


def make_key(folder: Path, *, domain: str, selector: str, algorithm: str = "rsa", user: str = "nobody") -> DkimKey:
    """A 2048-bit RSA or an Ed25519 key in `folder`, which nobody but `user` may enter."""
    private, record = _rsa(domain, selector) if algorithm == "rsa" else _ed25519(domain, selector)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{domain}.{selector}.pem"
    file.touch(mode=0o600)
    file.write_bytes(private)
    for path, mode in ((folder, 0o700), (file, 0o600)):
        shutil.chown(path, user)
        path.chmod(mode)
    return DkimKey(domain, selector, file, record)


@cache
def any_rsa_key() -> rsa.RSAPrivateKey:
    """One of 2048 bits for all who do not care which."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache  # the same key for the same name: making one takes as long as a test may
def _rsa(domain: str, selector: str) -> tuple[bytes, str]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(_DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return key.private_bytes(*_PKCS8), f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}"


@cache
def _ed25519(domain: str, selector: str) -> tuple[bytes, str]:
    key = ed25519.Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return key.private_bytes(*_PKCS8), f"v=DKIM1; k=ed25519; p={base64.b64encode(public).decode()}"


def records(*keys: DkimKey) -> dict[str, str]:
    """What DNS must hold for these keys."""
    return {key.name: key.record for key in keys}
