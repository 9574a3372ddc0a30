"""Signatures: what goes into them is what dkimpy verifies; what cannot be signed says why."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path
from time import time

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from dkim.util import parse_tag_value
from hypothesis import given, settings
from hypothesis import strategies as st

from postmeter.config.schema import Dkim, KeyEntry, SignEntry
from postmeter.mail import canonical
from postmeter.mail.draft import Draft, Figure
from postmeter.mail.message import Envelope, Field, Message
from postmeter.submission import headers, keyring, keys, signing
from tests import corpora
from tests.lab.verify import verify_dkimpy

PEM = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
RSA_KEY = keys.SigningKey("example.com", "r", rsa.generate_private_key(65537, 2048))
ED_KEY = keys.SigningKey("example.com", "e", ed25519.Ed25519PrivateKey.generate())
BOTH = (RSA_KEY, ED_KEY)
RECORDS = {f"{key.selector}._domainkey.{key.domain}": key.record() for key in BOTH}
FORMS = ["relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"]
TIME = 1_700_000_000.9

HEADER = (
    Field(b"From", b" Alice <alice@example.com>"),
    Field(b"To", b" bob@example.net"),
    Field(b"Subject", b" a folded\n\tsubject "),
    Field(b"DKIM-Signature", b" v=1; a=rsa-sha256; d=other.example; s=x; h=from; bh=; b="),
)


def draft(
    fields: tuple[Field, ...] = HEADER, body: bytes = b"Hello\r\n", *, mail_from: bytes = b"alice@example.com"
) -> Draft:
    made = Draft(Message(Envelope(mail_from), fields, body, queue_id="Q", time=TIME, reference=b"12345678"))
    made.from_domain = "example.com"
    return made


def wire(message: Draft) -> bytes:
    """The message as the next hop gets it: Postfix ends every line, the last one too, with CRLF (D36)."""
    body = message.body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    end = b"" if body.endswith(b"\r\n") or not body else b"\r\n"
    return b"".join(field.wire() for field in message.fields) + b"\r\n" + body + end


def sign(message: Draft, form: str = "relaxed/relaxed") -> list[Field]:
    return signing.signatures(message, BOTH, order=headers.BY_DEFAULT, form=signing.form_of(form))


def signed(message: Draft, form: str = "relaxed/relaxed") -> bytes:
    """The message as the next hop gets it, signed with both keys."""
    for field in sign(message, form):
        message.insert_field(field, at=0)
    return wire(message)


def parsed(raw: bytes) -> tuple[tuple[Field, ...], bytes]:
    """Header fields as Postfix hands them over, and the body; what is no header line ends the header (cleanup(8))."""
    fields: list[Field] = []
    at = 0
    while match := re.compile(rb"([!-9;-~]+)[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)\r\n").match(raw, at):
        fields.append(Field(match[1], match[2].replace(b"\r\n", b"\n")))
        at = match.end()
    return tuple(fields), raw[at:].removeprefix(b"\r\n")


def ours(raw: bytes) -> list[str]:
    """dkimpy's results for the two signatures on top."""
    [found] = verify_dkimpy([raw], RECORDS)
    assert not found.trouble, found
    return [each.result for each in found.signatures[:2]]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("body", [b"", b"\r\n", b"a \t b \r\n\r\n\r\n", b"no end", b"bare\nlines\n", b"\xff\x00\r\n"])
def test_dkimpy_accepts_both_signatures_in_every_form(form: str, body: bytes) -> None:
    assert ours(signed(draft(body=body), form)) == ["pass", "pass"]


VALUES = [b" ", b"\n ", b"\n\t", b"  ", b"\t", b"a", b"B:;=", b"\xc3\xa9", b"\xff", b"=?utf-8?q?x?="]
values = st.lists(st.sampled_from(VALUES), max_size=9).map(b"".join)
fields_ = st.lists(
    st.builds(Field, st.sampled_from([b"From", b"to", b"SUBJECT", b"Date", b"X-Odd", b"List-Unsubscribe"]), values),
    max_size=10,
)
BODIES = [b"\r\n", b"\n", b" ", b"\t", b"a", b"\xff", b".", b"=3D"]
bodies = st.lists(st.sampled_from(BODIES), max_size=20).map(b"".join)


@settings(max_examples=40)
@given(fields_, bodies)
def test_dkimpy_accepts_whatever_was_signed(fields: list[Field], body: bytes) -> None:
    assert ours(signed(draft((*fields, HEADER[0]), body))) == ["pass", "pass"]


@settings(max_examples=60)
@given(fields_, st.binary(max_size=40))
def test_nothing_in_a_message_makes_signing_raise(fields: list[Field], odd: bytes) -> None:
    """Control characters, bare CR, names that are none: signed as they arrived."""
    strange = (*fields, Field(b"Subject", odd), Field(odd or b"x", odd), HEADER[0])
    assert len(sign(draft(strange, odd))) == 2


@pytest.mark.parametrize("change", ["drop", "add", "alter", "body", "order"])
def test_a_changed_message_fails(change: str) -> None:
    """So that the tests above can fail."""
    message = draft((*HEADER, Field(b"To", b" second@example.net")))
    signed(message)
    if change == "drop":
        message.drop_fields(b"Subject")
    elif change == "add":
        message.insert_field(Field(b"Cc", b" eve@example.org"), at=2)  # was absent: oversigned
    elif change == "alter":
        message.replace_field(b"Subject", nth=1, value=b" another")
    elif change == "order":
        message.replace_field(b"To", nth=1, value=b" second@example.net")
        message.replace_field(b"To", nth=2, value=b" bob@example.net")
    else:
        message.replace_body(b"Goodbye\r\n", ())
    assert ours(wire(message)) == ["fail", "fail"]


def test_the_field_is_folded_as_postfix_wants_it_and_says_what_it_must() -> None:
    """LF and space, at most 78 columns (RFC 5322 2.1.1), never l=; t= is the message's time."""
    long_name = keys.SigningKey("a" * 60 + "." + "b" * 60 + ".example", "s" * 40, RSA_KEY.private)
    for key in (*BOTH, long_name):
        [field] = signing.signatures(draft(), [key], order=headers.BY_DEFAULT, form=signing.form_of("relaxed/relaxed"))
        first, *others = (field.name + b":" + field.value).split(b"\n")
        assert b"\r" not in field.value
        assert first.startswith(b"DKIM-Signature: v=1; a=")
        assert all(line.startswith(b" ") and not line.startswith(b"  ") for line in others)
        assert all(len(line) <= 78 or line.startswith((b" d=", b" s=")) for line in (first, *others))
        tags = parse_tag_value(field.value)
        assert {name: tags[name] for name in (b"v", b"a", b"c", b"d", b"s", b"q", b"t")} == {
            b"v": b"1",
            b"a": key.algorithm.encode(),
            b"c": b"relaxed/relaxed",
            b"d": key.domain.encode(),
            b"s": key.selector.encode(),
            b"q": b"dns/txt",
            b"t": b"1700000000",
        }
        assert set(tags) == {b"v", b"a", b"c", b"d", b"s", b"q", b"t", b"h", b"bh", b"b"}


# --- the step


def ring(tmp_path: Path, *, on_error: str = "tempfail") -> tuple[Dkim, keyring.Keyring, Path]:
    files = []
    for key in (ED_KEY, RSA_KEY):
        file = tmp_path / key.selector
        file.touch(mode=0o600)
        file.write_bytes(key.private.private_bytes(*PEM))
        files.append(KeyEntry(selector=key.selector, file=file))
    entry = SignEntry(domain="example.com", keys=tuple(files), subdomains=True)
    dkim_section = Dkim(sign=(entry,), on_error=on_error)
    return dkim_section, keyring.Keyring(dkim_section), files[0].file


def test_a_message_of_ours_gets_a_signature_a_key_rsa_on_top(tmp_path: Path) -> None:
    section, keys_, _ = ring(tmp_path)
    message = draft()
    message.from_domain = "News.Example.com"
    assert signing.step(section, keys_, may_sign=lambda draft: "")(message) is None
    assert [field.name for field in message.fields[:3]] == [b"DKIM-Signature", b"DKIM-Signature", b"From"]
    assert message.fields[2:] == list(HEADER), "others' signatures stay"
    assert b"a=rsa-sha256" in message.fields[0].value
    assert message.facts["signatures"] == ["example.com/r/rsa-sha256", "example.com/e/ed25519-sha256"]
    assert message.figures == {
        ("dkim_signatures_total", ("example.com", "rsa-sha256")): 1,
        ("dkim_signatures_total", ("example.com", "ed25519-sha256")): 1,
    }
    assert ours(wire(message)) == ["pass", "pass"]


def unsigned(message: Draft) -> tuple[int, dict[Figure, int]]:
    return len(message.changes), {**message.figures}


def test_a_message_that_may_not_be_signed_is_left_alone_and_counted(tmp_path: Path) -> None:
    section, keys_, _ = ring(tmp_path)
    message = draft()
    assert signing.step(section, keys_, may_sign=lambda draft: "from_mismatch")(message) is None
    assert unsigned(message) == (0, {("dkim_unsigned_total", ("from_mismatch",)): 1})
    assert "signatures" not in message.facts


def test_a_domain_without_a_key_is_left_unsigned_and_counted(tmp_path: Path) -> None:
    section, keys_, _ = ring(tmp_path)
    message = draft()
    message.from_domain = "example.org"
    assert signing.step(section, keys_, may_sign=lambda draft: "")(message) is None
    assert unsigned(message) == (0, {("dkim_unsigned_total", ("no_key",)): 1})


def test_a_key_that_vanished_tempfails_or_passes_unsigned_as_configured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Never unsigned by accident; but a bounce is never refused (RFC 5321 section 4.5.5)."""
    for on_error, mail_from, code in [
        ("tempfail", b"alice@example.com", 451),
        ("tempfail", b"", None),
        ("accept", b"alice@example.com", None),
    ]:
        section, keys_, first = ring(tmp_path, on_error=on_error)
        first.unlink()
        message = draft(mail_from=mail_from)
        reply = signing.step(section, keys_, may_sign=lambda draft: "")(message)
        assert (reply and (reply.code, reply.status)) == (code and (code, "4.7.5"))
        assert message.figures["errors_total", ("dkim",)] == 1
        assert (message.figures.get(("dkim_unsigned_total", ("error",))) == 1) == (reply is None)
        assert not message.changes
        assert str(first) in caplog.text, "the log names the file"


def test_a_bounce_from_here_is_signed_like_other_mail(tmp_path: Path) -> None:
    """G11: docker-mailserver's users miss it."""
    section, keys_, _ = ring(tmp_path)
    message = draft(mail_from=b"")
    assert signing.step(section, keys_, may_sign=lambda draft: "")(message) is None
    assert len(message.changes) == 2


TAGS = (b"i", b"t", b"x")


@pytest.mark.parametrize(
    ("settings_", "sender", "author", "expected"),
    [
        ({}, "alice@example.com", b"alice@example.com", (None, b"1700000000", None)),
        ({"expire": 30 * 86400.0}, "", b"alice@example.com", (None, b"1700000000", b"1702592000")),
        ({"identity": "login"}, "al=ice@example.com", b"b@example.com", (b"al=3Dice@example.com", b"1700000000", None)),
        ({"identity": "login"}, "alice", b"alice@example.com", (None, b"1700000000", None)),
        ({"identity": "login"}, "alice@example.org", b"alice@example.com", (None, b"1700000000", None)),
        ({"identity": "from"}, "alice", b"Bob@News.Example.com", (b"Bob@news.example.com", b"1700000000", None)),
        ({"identity": "from"}, "alice", b"a@example.com, b@example.com", (None, b"1700000000", None)),
    ],
)
def test_expiry_and_identity_are_written_as_asked(
    tmp_path: Path, settings_: dict[str, object], sender: str, author: bytes, expected: tuple[bytes | None, ...]
) -> None:
    section, keys_, _ = ring(tmp_path)
    section = replace(section, **settings_)  # type: ignore[arg-type]
    message = draft((Field(b"From", b" " + author), *HEADER[1:]))
    message.sender = sender
    assert signing.step(section, keys_, may_sign=lambda draft: "")(message) is None
    for field in message.fields[:2]:
        tags = parse_tag_value(field.value)
        assert tuple(tags.get(name) for name in TAGS) == expected


@settings(max_examples=30)
@given(st.text('a"=;@ .é\\', max_size=12), st.sampled_from(["example.com", "sub.example.com", "example.org"]))
def test_dkimpy_accepts_whatever_the_identity(local: str, host: str) -> None:
    """An i= that it could not read, or that lies outside d=, would fail."""
    message = draft()
    form = signing.form_of("relaxed/relaxed")
    now = replace(message.message, time=time())  # dkimpy looks at x= with its own clock
    made = Draft(now)
    identity = f"{local}@{host}"
    for field in signing.signatures(
        made, BOTH, order=headers.BY_DEFAULT, form=form, expire=7 * 86400.0, identity=identity
    ):
        made.insert_field(field, at=0)
    assert ours(wire(made)) == ["pass", "pass"]


def test_the_default_domain_signs_what_no_entry_covers(tmp_path: Path) -> None:
    section, _, _ = ring(tmp_path)
    section = replace(section, default_domain="example.com", identity="from")
    message = draft((Field(b"From", b" x@customer.example"), *HEADER[1:]))
    message.from_domain = "customer.example"
    assert signing.step(section, keyring.Keyring(section), may_sign=lambda draft: "")(message) is None
    assert parse_tag_value(message.fields[0].value)[b"d"] == b"example.com"
    assert b"i" not in parse_tag_value(message.fields[0].value), "it may not name an address outside d="
    assert ours(wire(message)) == ["pass", "pass"]


def test_the_default_domain_signs_nothing_that_may_not_be_signed(tmp_path: Path) -> None:
    section, _, _ = ring(tmp_path)
    section = replace(section, default_domain="example.com")
    message = draft()
    message.from_domain = "customer.example"
    step = signing.step(section, keyring.Keyring(section), may_sign=lambda draft: "from_mismatch")
    assert step(message) is None
    assert unsigned(message) == (0, {("dkim_unsigned_total", ("from_mismatch",)): 1})


# --- vectors of others


def recomputed(raw: bytes, value: bytes, key: bytes) -> tuple[bytes, bytes]:
    """bh= and b= of somebody's signature, made again by our canonicalization and key; both algorithms are exact."""
    fields, body = parsed(raw)
    tags = parse_tag_value(value)
    form = signing.form_of((tags.get(b"c") or b"simple/simple").decode())
    covered = b""
    left = [field for field in fields if field.key != b"dkim-signature"]
    for name in re.split(rb"\s*:\s*", tags[b"h"].lower()):
        for field in [field for field in reversed(left) if field.key == name][:1]:
            covered += form.field(field.name, field.value) + b"\r\n"
            left.remove(field)
    bare = re.sub(rb"(;\s*b=)[^;]*", rb"\1", value)
    signer = keys.SigningKey("d", "s", keys.parse(Path("vector"), key))
    return signing._body_hash(body, form), base64.b64encode(signer.sign(covered + form.field(b"DKIM-Signature", bare)))


@pytest.mark.parametrize("name", ["rfc6376.signed.msg", "rfc6376.signed.rsa.msg"])
def test_signatures_of_the_standards_example_come_out_again(name: str, needs_corpora: None) -> None:
    """RFC 6376 appendix A's message as signed by dkimpy's authors, simple/simple, RSA and Ed25519."""
    data = corpora.folder() / "dkim-dkimpy" / "data"
    raw = (data / name).read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    values = [field.value.replace(b"\n", b"\r\n") for field in parsed(raw)[0] if field.key == b"dkim-signature"]
    assert values
    for value in values:
        tags = parse_tag_value(value)
        file = "test.private" if tags[b"a"] == b"rsa-sha256" else "rfc8032_7_1.key"
        expected = (tags[b"bh"], re.sub(rb"\s", b"", tags[b"b"]))
        assert recomputed(raw, value, (data / file).read_bytes()) == expected


def test_dkimpy_accepts_our_signatures_on_mail_that_nobody_here_wrote(needs_corpora: None) -> None:
    refused = []
    for sample in corpora.sample(4):
        fields, body = parsed(sample.sendable())
        if not any(field.key == b"from" for field in fields):
            fields = (*fields, HEADER[0])
        if ours(signed(draft(fields, body))) != ["pass", "pass"]:
            refused.append(sample.name)
    assert not refused


def test_dkimpys_own_signature_of_the_same_message_has_the_same_body_hash() -> None:
    body = b"a \t b\r\n\r\n  c \r\n\r\n"
    fields = HEADER[:3]
    raw = b"".join(field.wire() for field in fields) + b"\r\n" + body
    private = RSA_KEY.private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    theirs = dkim.sign(raw, b"r", b"example.com", private, canonicalize=(b"relaxed", b"relaxed"))
    ours_, _ = sign(draft(fields, body))
    assert parse_tag_value(theirs.partition(b":")[2])[b"bh"] == parse_tag_value(ours_.value)[b"bh"]


@pytest.mark.parametrize("form", FORMS)
def test_check_config_has_dkimpy_verify_a_sample_of_each_kind_of_key(tmp_path: Path, form: str) -> None:
    section, keys_, _ = ring(tmp_path)
    assert {key.algorithm for key in keys_.samples()} == {"rsa-sha256", "ed25519-sha256"}
    assert signing.disproved(replace(section, canonicalization=form), keys_) == []


def test_a_sample_that_dkimpy_does_not_accept_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section, keys_, _ = ring(tmp_path)
    monkeypatch.setattr(canonical, "_squeeze", lambda text: text)  # a fault of ours in relaxed form
    found = signing.disproved(section, keys_)
    assert [line.split(":")[0] for line in found] == [
        f"dkimpy does not accept what {key.selector}._domainkey.example.com signs" for key in BOTH
    ]
