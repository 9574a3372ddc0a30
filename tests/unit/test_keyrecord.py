"""What a key's record is worth: every fault has its word and its fix; dkimpy takes whatever we call right."""

from __future__ import annotations

import base64
import re
from dataclasses import replace

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from postmeter.submission import keyrecord
from postmeter.submission.keyrecord import Expected, judge
from tests.lab.keys import any_rsa_key

_DER = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
RSA_KEY = any_rsa_key().public_key()
RSA = Expected("rsa", RSA_KEY.public_bytes(*_DER), 2048)
OTHER = Expected("rsa", rsa.generate_private_key(65537, 2048).public_key().public_bytes(*_DER), 2048)
SHORT = Expected("rsa", rsa.generate_private_key(65537, 1024).public_key().public_bytes(*_DER), 1024)
TINY = Expected("rsa", b"\x30" + bytes(90), 512)
ED_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key()  # one for all: it names tests
ED = Expected("ed25519", ED_KEY.public_bytes(Encoding.Raw, PublicFormat.Raw), 0)
PKCS1 = base64.b64encode(RSA_KEY.public_bytes(Encoding.DER, PublicFormat.PKCS1)).decode()
ED_DER = base64.b64encode(ED_KEY.public_bytes(*_DER)).decode()
P = RSA.encoded


@pytest.mark.parametrize(
    ("record", "key", "word", "told"),
    [
        (RSA.text, RSA, "right", ""),
        (ED.text, ED, "right", ""),
        (f"p={P}", RSA, "right", ""),
        (f"v=DKIM1;k=rsa;p={P};", RSA, "right", ""),
        (f"v=DKIM1; k=rsa; h=sha1:sha256; s=email; n=a note; x_own=1; p={P[:99]} {P[99:]}", RSA, "right", ""),
        (f"v=DKIM1; t=y:s; p={P}", RSA, "testing", "t=y"),
        (SHORT.text, SHORT, "short", "RSA of 1024 bits, and RFC 8301 asks for 2048"),
        (TINY.text, TINY, "too short", "RSA of 512 bits"),
        (OTHER.text, RSA, "different", "p= is another key"),
        ("v=DKIM1; p=", RSA, "revoked", "p= is empty"),
        ("v=DKIM1; k=rsa", RSA, "malformed", "it has no p="),
        (f"v=DKIM1; k=ed25519; p={P}", RSA, "wrong type", "k=ed25519, and the key is rsa"),
        (f"v=DKIM1; p={ED.encoded}", ED, "wrong type", "it has no k=, which means rsa"),
        (f"v=DKIM1; h=sha1; p={P}", RSA, "wrong hash", "h=sha1 leaves out sha256"),
        (f"v=DKIM1; s=tlsrpt; p={P}", RSA, "wrong service", "s=tlsrpt is neither"),
        (f"v=DKIM1; k=rsa; p={P[:216]}", RSA, "malformed", f"p= ends after 216 of {len(P)} characters"),
        (f"v=DKIM1; k=rsa; p={PKCS1}", RSA, "malformed", "PKCS#1"),
        (f"v=DKIM1; k=ed25519; p={ED_DER}", ED, "malformed", "RFC 8463 wants the 32 octets alone"),
        (f"v=DKIM1; k=rsa; p={P[:-4]}%%%%", RSA, "malformed", "p= is not base64"),
        (f"v=DKIM2; p={P}", RSA, "malformed", "v=DKIM2"),
        (f"k=rsa; v=DKIM1; p={P}", RSA, "malformed", "as the first tag"),
        (f"v=DKIM1\\; k=rsa\\; p={P}", RSA, "malformed", "backslashes"),
        (f'"v=DKIM1; k=rsa; p={P[:200]}" "{P[200:]}"', RSA, "malformed", "quotation marks"),
        (f"v=DKIM1; p={P}; p={P}", RSA, "malformed", "p= stands there twice"),
        ("v=spf1 -all", RSA, "malformed", "v=spf1 -all"),
        ("", RSA, "malformed", "is no tag"),
        (f"v=DKIM1; k=rsa; p={P}".replace("D", "Đ"), RSA, "malformed", "not ASCII"),
    ],
)
def test_a_record_has_its_word(record: str, key: Expected, word: str, told: str) -> None:
    finding = judge([record.encode()], key)
    assert finding.word == word
    assert told in finding.what
    assert finding.ok is (word in ("right", "testing", "short"))
    assert bool(finding.fix) is (word != "right")


def test_no_record_and_several_are_wrong() -> None:
    """Verifiers take any of several: ours among them is luck."""
    assert judge([], RSA).word == "missing"
    several = judge([RSA.text.encode(), b"v=spf1 -all"], RSA)
    assert (several.word, several.ok) == ("several", False)


def test_t_s_is_wrong_only_where_i_may_name_a_domain_below() -> None:
    """RFC 6376 section 3.6.1: with t=s a signature whose i= does so fails."""
    record = f"v=DKIM1; t=s; p={P}".encode()
    assert judge([record], RSA).word == "right"
    strict = judge([record], replace(RSA, below=True))
    assert (strict.word, strict.ok) == ("strict", False)


_SPACE = st.sampled_from(["", " ", "\t", "  "])
_EXTRA = st.sampled_from(["h=sha256", "s=*", "s=email", "n=hello", "t=s", "x=1", "k=rsa", "g=*"])


@st.composite
def good_records(draw: st.DrawFn) -> str:
    """Every way to write the RSA key that RFC 6376 allows: order, white space, tags that change nothing."""
    at = draw(st.integers(0, len(P)))
    tags = [f"p={P[:at]}{draw(_SPACE)}{P[at:]}", *draw(st.lists(_EXTRA, unique_by=lambda tag: tag[0]))]
    tags = draw(st.permutations(tags))
    if draw(st.booleans()):
        tags = ["v=DKIM1", *tags]
    spaced = [re.sub("=", lambda _: f"{draw(_SPACE)}={draw(_SPACE)}", tag, count=1) for tag in tags]
    return ";".join(f"{draw(_SPACE)}{tag}{draw(_SPACE)}" for tag in spaced) + draw(st.sampled_from(["", ";"]))


@given(good_records())
def test_every_way_to_write_a_good_record_is_right_for_dkimpy_too(record: str) -> None:
    assert judge([record.encode()], RSA).word == "right"
    assert dkimpy_takes(record.encode())


@given(good_records(), st.integers(0, 500), st.integers(0, 3), st.text(max_size=3))
def test_what_we_call_right_dkimpy_takes(record: str, at: int, gone: int, put: str) -> None:
    """Of records with a few characters replaced; and nothing makes the judge stumble."""
    damaged = (record[:at] + put + record[at + gone :]).encode()
    if judge([damaged], RSA).ok:
        assert dkimpy_takes(damaged)


@given(st.binary(max_size=60), st.sampled_from([RSA, ED]))
def test_anything_can_be_judged(raw: bytes, key: Expected) -> None:
    assert judge([raw], key).word


def dkimpy_takes(record: bytes) -> bool:
    found = dkim.load_pk_from_dns(b"s._domainkey.example.com", dnsfunc=lambda name, timeout=5: record)[0]
    return bool(found["modulus"] == RSA_KEY.public_numbers().n)


@given(st.text("abc=; ", max_size=900))
def test_a_zone_line_says_the_record_in_strings_of_255(text: str) -> None:
    line = keyrecord.zone_line("s._domainkey.example.com", text)
    assert line.startswith("s._domainkey.example.com. IN TXT ")
    strings = re.findall(r'"([^"]*)"', line)
    assert "".join(strings) == text
    assert all(len(string) <= 255 for string in strings)
