"""An authority of our own, a certificate for the private Postfix and one for a client (RFC 5280).

Good for a day and for tests only; knows nothing of who uses them.
"""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CLIENT_NAME = "relay.example.com"


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files; those of server and client hold certificate and key."""

    authority: Path
    server: Path
    client: Path

    def context(self, *, client: bool = False) -> ssl.SSLContext:
        """A TLS client that trusts only our authority, with the client certificate when wanted."""
        context = ssl.create_default_context(cafile=str(self.authority))
        context.check_hostname = False
        if client:
            context.load_cert_chain(str(self.client))
        return context


def make(folder: Path, *, host: str) -> Certificates:
    """Write authority.pem, server.pem (for `host`) and client.pem (CN `CLIENT_NAME`) into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("postmeter test authority", authority_key, None, authority_key)
    paths = Certificates(folder / "authority.pem", folder / "server.pem", folder / "client.pem")
    paths.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    for path, name in ((paths.server, host), (paths.client, CLIENT_NAME)):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(name, key, authority, authority_key)
        path.touch(mode=0o600)
        path.write_bytes(_key_pem(key) + certificate.public_bytes(serialization.Encoding.PEM))
    return paths


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name.replace(" ", "-"))]), critical=False)
    )
    for extension, critical in _for_strict_clients(key, issuer_key, authority=issuer is None):
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(issuer_key, hashes.SHA256())


def _for_strict_clients(
    key: ec.EllipticCurvePrivateKey, issuer_key: ec.EllipticCurvePrivateKey, *, authority: bool
) -> Iterator[tuple[x509.ExtensionType, bool]]:
    """What RFC 5280 section 4.2.1 demands and Python, from 3.13 on, insists on (VERIFY_X509_STRICT)."""
    yield x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False
    yield x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False
    usage = dict.fromkeys(
        ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
         "decipher_only"], False,
    )  # fmt: skip
    yield x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **usage), True


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
