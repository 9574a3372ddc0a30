"""The signed examples of RFC 6376 (appendix A) and RFC 8463 (appendix A): ours hashes and signs the same octets.

Keys, fields and signatures are those of the standards. Both have one body hash: RFC 6376's is of a body with one space
before "Are", in simple form; RFC 8463's body has two, which its relaxed form makes one.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.serialization import load_der_public_key

from postmeter.mail.draft import Draft
from postmeter.mail.message import Envelope, Field, Message
from postmeter.submission import headers, keys, signing
from tests.lab.verify import verify_dkimpy

HEADER = (
    Field(b"From", b" Joe SixPack <joe@football.example.com>"),
    Field(b"To", b" Suzie Q <suzie@shopping.example.net>"),
    Field(b"Subject", b" Is dinner ready?"),
    Field(b"Date", b" Fri, 11 Jul 2003 21:00:37 -0700 (PDT)"),
    Field(b"Message-ID", b" <20030712040037.46341.5F8J@football.example.com>"),
)
RECEIVED = Field(
    b"Received",
    b" from client1.football.example.com  [192.0.2.1]\n"
    b"      by submitserver.example.com with SUBMISSION;\n"
    b"      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)",
)
BODY = b"Hi.\r\n\r\nWe lost the game. Are you hungry yet?\r\n\r\nJoe.\r\n"
HASH = b"2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="

SEED = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="  # RFC 8463 appendix A.1, after RFC 8032 section 7.1
ED_PUBLIC = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
ED_TAGS = (
    b" v=1; a=ed25519-sha256; c=relaxed/relaxed;\n"
    b" d=football.example.com; i=@football.example.com;\n"
    b" q=dns/txt; s=brisbane; t=1528637909; h=from : to :\n"
    b" subject : date : message-id : from : subject : date;\n"
    b" bh=%b;\n b=" % HASH
)
ED_SIGNATURE = b"/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\n Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw=="


@dataclass(frozen=True)
class Example:
    """`tags` up to and with `b=`, `tail` what stands behind the signature."""

    form: str
    header: tuple[Field, ...]
    body: bytes
    tags: bytes
    signature: bytes
    name: str
    record: str
    tail: bytes = b""

    def raw(self) -> bytes:
        signature = Field(b"DKIM-Signature", self.tags + self.signature + self.tail)
        return b"".join(field.wire() for field in (signature, *self.header)) + b"\r\n" + self.body


RFC_6376 = Example(
    "simple/simple",
    (RECEIVED, *HEADER),
    BODY,
    b" v=1; a=rsa-sha256; s=brisbane; d=example.com;\n"
    b"      c=simple/simple; q=dns/txt; i=joe@football.example.com;\n"
    b"      h=Received : From : To : Subject : Date : Message-ID;\n"
    b"      bh=%b;\n      b=" % HASH,
    b"AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB\n"
    b"      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut\n"
    b"      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV\n"
    b"      4bmp/YzhwvcubU4=",
    "brisbane._domainkey.example.com",
    "v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkM"
    "oGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/R"
    "tdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB",
    b";",
)
RFC_8463_ED = Example(
    "relaxed/relaxed",
    HEADER,
    BODY.replace(b"game. ", b"game.  "),
    ED_TAGS,
    ED_SIGNATURE,
    "brisbane._domainkey.football.example.com",
    f"v=DKIM1; k=ed25519; p={ED_PUBLIC}",
)
RFC_8463_RSA = Example(
    "relaxed/relaxed",
    HEADER,
    BODY.replace(b"game. ", b"game.  "),
    b" v=1; a=rsa-sha256; c=relaxed/relaxed;\n"
    b" d=football.example.com; i=@football.example.com;\n"
    b" q=dns/txt; s=test; t=1528637909; h=from : to : subject :\n"
    b" date : message-id : from : subject : date;\n"
    b" bh=%b;\n b=" % HASH,
    b"F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3\n"
    b" DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz\n"
    b" dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=",
    "test._domainkey.football.example.com",
    "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWR"
    "iGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutAC"
    "DfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3"
    "Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
)
EXAMPLES = pytest.mark.parametrize("example", [RFC_6376, RFC_8463_ED, RFC_8463_RSA], ids=["6376", "8463e", "8463r"])


def data(example: Example) -> bytes:
    """What was signed, by our canonical forms; fields from the bottom up as h= names them (RFC 6376 section 5.4.2)."""
    field = signing.form_of(example.form).field
    listed = re.search(rb"h=([^;]*);", example.tags)
    assert listed is not None
    left = list(example.header)
    covered = []
    for name in (each.strip().lower() for each in listed[1].split(b":")):
        nth = max((nth for nth, one in enumerate(left) if one.key == name), default=-1)
        if nth >= 0:
            found = left.pop(nth)
            covered.append(field(found.name, found.value) + b"\r\n")
    return b"".join(covered) + field(b"DKIM-Signature", example.tags + example.tail)


def holds(example: Example, signed: bytes) -> bool:
    public = base64.b64decode(example.record.partition("p=")[2])
    signature = base64.b64decode(example.signature.replace(b"\n", b"").replace(b" ", b""))
    try:
        if b"ed25519" in example.tags:
            digest = Hash(SHA256())
            digest.update(signed)
            Ed25519PublicKey.from_public_bytes(public).verify(signature, digest.finalize())
        else:
            key = load_der_public_key(public)
            assert isinstance(key, RSAPublicKey)
            key.verify(signature, signed, PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


@EXAMPLES
def test_the_signature_of_the_standard_holds_over_our_canonical_forms(example: Example) -> None:
    assert holds(example, data(example))
    assert not holds(example, data(example).replace(b"ready", b"Ready")), "so that this can fail"


@EXAMPLES
def test_the_body_hash_is_the_standards(example: Example) -> None:
    body = b"".join(signing.form_of(example.form).body(example.body))
    digest = Hash(SHA256())
    digest.update(body)
    assert base64.b64encode(digest.finalize()) == HASH


@EXAMPLES
def test_dkimpy_accepts_the_example_as_it_stands_here(example: Example) -> None:
    """Nothing was mistyped: the message verifies for somebody else too."""
    [verdict] = verify_dkimpy([example.raw()], {example.name: example.record})
    assert verdict.accepted, verdict


def test_ed25519_over_the_same_tags_gives_the_same_signature() -> None:
    """Ed25519 has no chance in it (RFC 8032 section 5.1.6)."""
    private = Ed25519PrivateKey.from_private_bytes(base64.b64decode(SEED))
    key = keys.SigningKey("football.example.com", "brisbane", private)
    assert key.record() == RFC_8463_ED.record
    assert base64.b64encode(key.sign(data(RFC_8463_ED))) == ED_SIGNATURE.replace(b"\n ", b"")


def test_what_we_sign_of_the_examples_verifies_with_the_standards_key() -> None:
    """The same message and key, our own choice of fields and tags."""
    private = Ed25519PrivateKey.from_private_bytes(base64.b64decode(SEED))
    key = keys.SigningKey("football.example.com", "brisbane", private)
    draft = Draft(Message(Envelope(b""), HEADER, RFC_8463_ED.body, queue_id="Q", time=1528637909.0, reference=bytes(8)))
    order = headers.BY_DEFAULT
    [field] = signing.signatures(draft, [key], order=order, form=signing.form_of("relaxed/relaxed"))
    assert b"bh=%b;" % HASH in field.value.replace(b"\n ", b" ")
    raw = b"".join(each.wire() for each in (field, *HEADER)) + b"\r\n" + RFC_8463_ED.body
    [verdict] = verify_dkimpy([raw], {RFC_8463_ED.name: RFC_8463_ED.record})
    assert verdict.accepted, verdict
