"""Encoding before signing: every leaf decodes to what it was, and nothing is left that Postfix would convert."""

from __future__ import annotations

import email
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.mail import hop, mime, reading, safe
from postmeter.mail.message import Field

TEXT = b"gr\xc3\xbc\xc3\x9fe\r\n"
PLAIN = b"plain = text \r\n"
LONG = b"word " * 300
UTF8_MAIL = b"From: gr\xc3\xbc\xc3\x9f@example.net\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"

octets = st.lists(
    st.sampled_from([b"a", b" ", b"\t", b"=", b".", b"\xc3\xa9", b"\xff", b"\r\n", b"From ", b"x" * 999, b" y" * 600])
)
labels = st.sampled_from([b"", b"7bit", b"8bit", b"BINARY", b"8bit (really)", b"quoted-printable", b"base64"])
leaf = st.builds(lambda label, pieces: _entity(b"text/plain", label, b"".join(pieces)), labels, octets)
trees = st.recursive(
    leaf,
    lambda inner: st.builds(
        lambda kind, label, parts: _multipart(parts, kind=kind, label=label),
        st.sampled_from([b"multipart/mixed", b"multipart/digest", b"multipart/alternative"]),
        st.sampled_from([b"", b"8bit"]),
        st.lists(inner, min_size=1, max_size=3),
    )
    | st.builds(lambda label, part: _entity(b"message/rfc822", label, part), st.sampled_from([b"", b"8bit"]), inner),
    max_leaves=5,
)


kinds = st.tuples(
    st.sampled_from([b" ", b"(x) ", b"x"]),
    st.sampled_from([b"multipart", b"MultiPart", b"message", b"Message", b"text"]),
    st.sampled_from([b"", b" ", b"(x)", b" (y) "]),
    st.sampled_from([b"/mixed", b"/digest", b"/ RFC822", b"/rfc822", b"/Global", b""]),
    st.sampled_from([b"", b"; boundary=b", b"\n\t;boundary=c"]),
).map(b"".join)


@given(st.lists(kinds, max_size=2))
def test_no_label_in_a_body_is_overlooked_whatever_the_header_says_it_is(values: list[bytes]) -> None:
    """Most mail is told by its type alone; each spelling by which Postfix takes a body for several must be seen."""
    fields = [Field(b"Content-Type", value) for value in values]
    part = b"Content-Transfer-Encoding: 8bit\r\n\r\nx\r\n"
    body = part + b"--b\r\n" + part + b"--b--\r\n"
    assert hop.converts(fields, body) == any(True for _ in hop.labels(fields, body))


def _entity(kind: bytes, label: bytes, body: bytes, *fields: bytes) -> bytes:
    named = [b"Content-Type: " + kind, *([b"Content-Transfer-Encoding: " + label] if label else []), *fields]
    return b"\r\n".join([*named, b"", body])


def _multipart(parts: Sequence[bytes], *, kind: bytes = b"multipart/mixed", label: bytes = b"") -> bytes:
    used = max([int(number) for part in parts for number in re.findall(rb"boundary=b(\d+)", part)], default=0)
    boundary = b"b%d." % (used + 1)
    lines = [b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts]
    return _entity(kind + b"; boundary=" + boundary, label, b"".join(lines) + b"--" + boundary + b"--\r\n")


def leaves(raw: bytes) -> list[object]:
    """What is in the leaves, as the email package decodes it."""
    return [part.get_payload(decode=True) for part in email.message_from_bytes(raw).walk() if not part.is_multipart()]


def made(raw: bytes) -> tuple[bytes, safe.Safe]:
    """The whole message afterwards."""
    fields, body = reading.read(raw)
    done = safe.recode(fields, body)
    header = safe.labelled(fields, done.label)
    if done.label and not any(one.key == b"content-transfer-encoding" for one in fields):
        header.append(Field(b"Content-Transfer-Encoding", b" " + done.label.encode()))
    return b"".join(one.wire() for one in header) + b"\r\n" + done.body, done


def as_it_leaves(raw: bytes) -> bool:
    """Nothing in it that smtp(8) would convert or break, judged by what stands there, not by how we read it."""
    declared = re.search(rb"(?im)^content-transfer-encoding:\s*(8bit|binary)", raw)
    return not declared and all(len(line) <= 998 for line in raw.split(b"\r\n"))


@given(trees)
def test_every_leaf_decodes_to_what_it_was(raw: bytes) -> None:
    after, done = made(raw)
    if done.problem:  # a leaf that says quoted-printable or base64 and is not
        assert done.problem == safe.ENCODING
        assert after == raw
    else:
        assert as_it_leaves(after)
        assert leaves(after) == leaves(raw)
        assert bool(done.parts) == (not as_it_leaves(raw))
        assert done.parts or after == raw


@pytest.mark.parametrize(
    ("kind", "label", "body", "reason"),
    [
        (b"text/plain", b"8bit", TEXT * 9 + PLAIN * 20, "8bit: quoted-printable"),
        (b"text/plain", b"8bit", TEXT, "8bit: base64"),  # the shorter one
        (b"text/plain", b"8bit", PLAIN, "8bit: 7bit"),
        (b"text/plain", b"binary; x", PLAIN, "binary: 7bit"),
        (b"text/plain", b"8bit", LONG, "8bit: quoted-printable"),
        (b"text/plain", b"", LONG, "long_line: quoted-printable"),
        (b"text/plain", b"quoted-printable", b"=41" * 400, "long_line: quoted-printable"),
        (b"image/png", b"base64", b"/+8A" * 300, "long_line: base64"),
        (b"application/octet-stream", b"binary", bytes(range(256)) * 3, "binary: base64"),
        (b"text/plain", b"8bit", b"a bare \r in text\r\n", "8bit: base64"),
        (b"message/delivery-status", b"8bit", TEXT, "8bit: 7bit"),  # may not be encoded (RFC 2046 section 5.2)
        (b"message/global", b"8bit", PLAIN, "8bit: 7bit"),
        (b"message/global", b"8bit", UTF8_MAIL + PLAIN * 20, "8bit: base64"),  # RFC 6532 section 3.7 allows it
        (b"message/global", b"", UTF8_MAIL, "8bit: base64"),
        (b"message/global", b"quoted-printable", UTF8_MAIL.replace(b"\xc3", b"=C3"), "8bit: base64"),
        (b"Message/Global", b"", LONG, "long_line: base64"),
        (b"multipart/mixed", b"8bit", PLAIN, "8bit: 7bit"),  # without a boundary
    ],
)
def test_what_becomes_of_a_leaf(kind: bytes, label: bytes, body: bytes, reason: str) -> None:
    after, done = made(_multipart([_entity(kind, label, body)]))
    assert [change.reason for change in done.parts] == [reason]
    assert (b"Content-Transfer-Encoding: " + reason.partition(": ")[2].encode()) in after


@pytest.mark.parametrize("label", [b"7bit", b"8-bit", b'"8bit"', b"x-8bit", b""])
@pytest.mark.parametrize("body", [TEXT, b"x" * 998 + b"\r\n" + TEXT, b"x" * 998])
def test_what_is_not_declared_is_left_alone(label: bytes, body: bytes) -> None:
    """8-bit text under a 7bit label, or none that Postfix knows, goes over every hop as it is (mime_state.c)."""
    raw = _multipart([_entity(b"text/plain", label, body)])
    assert made(raw)[0] == raw


def test_labels_of_what_holds_other_parts_say_7bit() -> None:
    """Multiparts and attached messages, each with its path; the header's own order stays."""
    inner = _entity(b"text/plain", b"8bit", TEXT, b"X-Last: 1")
    raw = _multipart([_entity(b"message/rfc822", b"binary", _multipart([inner], label=b"8bit"))], label=b"8bit")
    after, done = made(raw)
    assert [(change.path, change.reason) for change in done.parts] == [
        ("0", "8bit: 7bit"),
        ("1", "binary: 7bit"),
        ("1.1", "8bit: 7bit"),
        ("1.1.1", "8bit: base64"),
    ]
    assert after.count(b"Content-Transfer-Encoding: 7bit\r\n") == 3
    assert b"Content-Transfer-Encoding: base64\r\nX-Last: 1\r\n" in after


def test_long_lines_in_the_header_of_a_part_are_folded() -> None:
    part = _entity(b"text/plain", b"", PLAIN, b"X-Long: " + LONG)
    after, done = made(_multipart([part]))
    assert [change.reason for change in done.parts] == ["long_line: folded"]
    assert after.replace(b"\r\n word", b" word") == _multipart([part])


DECLARED = _entity(b"text/plain", b"8bit", TEXT)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"DKIM-Signature: v=1\r\n" + DECLARED, safe.ALREADY_SIGNED),
        (b"ARC-Message-Signature: i=1\r\n" + DECLARED, safe.ALREADY_SIGNED),
        (_multipart([_entity(b"message/rfc822", b"", b"dkim-signature: v=1\r\n" + DECLARED)]), safe.ALREADY_SIGNED),
        (_multipart([DECLARED], kind=b"multipart/signed"), safe.SIGNED),
        (_multipart([_multipart([DECLARED])], kind=b"multipart/signed"), safe.SIGNED),
        (_multipart([_multipart([DECLARED], kind=b"multipart/encrypted")]), safe.ENCRYPTED),
        (_entity(b"application/pkcs7-mime", b"binary", TEXT), safe.SMIME),
        (_entity(b"text/plain", b"8bit", b"-----BEGIN PGP SIGNED MESSAGE-----\r\n" + TEXT), safe.PGP),
        (_entity(b"text/plain", b"x-uuencode", LONG), safe.ENCODING),
        (_entity(b"text/plain", b"quoted-printable", b"=zz" * 500), safe.ENCODING),
        (b"Content-Type: text/html\r\n" + DECLARED, safe.STRUCTURE),
        (_multipart([DECLARED]).replace(b"--\r\n", b"--\r\n" + LONG), safe.STRUCTURE),
        (_multipart([b"a b c\r\n" + DECLARED]), safe.STRUCTURE),
    ],
)
def test_what_must_not_be_touched_stays(raw: bytes, reason: str) -> None:
    fields, body = reading.read(raw)
    done = safe.recode(fields, body)
    assert (done.problem, done.parts, done.label) == (reason if hop.converts(fields, body) else done.problem, (), "")
    assert done.body is body


def test_one_that_must_stay_keeps_the_others() -> None:
    """A signature that breaks at one part breaks: then the rest need not be changed either."""
    raw = _multipart([DECLARED, _multipart([DECLARED], kind=b"multipart/signed")])
    assert made(raw)[0] == raw


def test_signed_and_7bit_does_not_keep_the_others() -> None:
    sealed = _multipart([_entity(b"text/plain", b"", PLAIN)], kind=b"multipart/signed", label=b"8bit")
    after, done = made(_multipart([DECLARED, sealed]))
    assert [change.path for change in done.parts] == ["1", "2"]
    assert sealed.partition(b"\r\n\r\n")[2] in after


def test_all_in_ascii_is_relabelled_though_it_can_be_read_in_several_ways() -> None:
    """Two types, so two readings; 7bit is the truth in both."""
    raw = b"Content-Type: text/html\r\n" + _multipart([_entity(b"text/plain", b"8bit", PLAIN)], label=b"8bit")
    after, done = made(raw)
    assert [(change.reason, change.count) for change in done.parts] == [("8bit: 7bit", 2)]
    assert after == raw.replace(b"8bit", b"7bit")


def test_what_would_take_too_long_to_read_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hop, "_MOST", 50)
    fields, _ = reading.read(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n")
    assert safe.recode(fields, b"--b\r\n" * 51).problem == safe.STRUCTURE
    assert safe.recode(fields, b"--b\r\n" * 49) == safe.Safe(b"--b\r\n" * 49)


def test_unlabelled_text_of_an_attached_message_gets_what_makes_its_label_count() -> None:
    after, _ = made(_entity(b"message/rfc822", b"", b"Subject: x\r\n\r\n" + LONG))
    assert b"\r\n\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\nSubject: x\r\n\r\n" in after


@given(st.lists(st.sampled_from([b"x" * 997, b"x", b"yy", b"\r\n", b"\r\n\r\n"])))
def test_long_lines_are_found_as_by_splitting(pieces: list[bytes]) -> None:
    body = b"".join(pieces)
    lines = body.split(b"\r\n")
    long = [sum(len(one) + 2 for one in lines[:nth]) for nth, line in enumerate(lines) if len(line) > 998]
    assert (hop.long_line(body) >= 0) == bool(long)
    assert not long or hop.long_line(body) <= long[0] < hop.long_line(body) + 1000
    within = hop.long_line(b"x" * 999 + body + b"x" * 999, 999, 999 + len(body))
    assert within == (hop.long_line(body) + 999 if long else -1)


@pytest.mark.parametrize("at", [0, 2**20 - 19, 2**20 - 10, 2**20 - 1, 2**20, 3 * 2**20])
def test_what_may_be_sealed_is_not_relabelled_wherever_it_says_so(at: int) -> None:
    """Of several labels each counts for Postfix; which one we mean is in doubt."""
    head = b"--b\r\nContent-Transfer-Encoding: 8bit\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    lines = (b"x" * 70 + b"\r\n") * (at // 72) + b"y" * (at % 72)
    fields = (Field(b"Content-Type", b' multipart/mixed; boundary="b"'),)
    relabelled = safe.recode(fields, lines[len(head) :] + b"\r\n" + head)
    sealed = safe.recode(fields, lines + b"Multipart/Encrypted\r\n" + head)
    assert (relabelled.problem, len(relabelled.parts)) == ("", 1)
    assert (sealed.problem, sealed.parts) == (safe.STRUCTURE, ())


@given(st.lists(st.sampled_from([b"a" * 300, b" ", b"\t", b"\n b", b"c"])))
def test_a_folded_value_reads_as_before(pieces: list[bytes]) -> None:
    value = b" " + b"".join(pieces)
    folded = safe.fold(value, 900)
    if folded is not None:
        first, *others = folded.split(b"\n")
        assert len(first) <= 900
        assert all(len(line) <= 998 and line.startswith((b" ", b"\t")) for line in others)
        assert folded.replace(b"\n", b"") == value.replace(b"\n", b"")


def test_parts_of_attached_messages_have_paths_of_their_own() -> None:
    raw = _multipart([_entity(b"message/rfc822", b"", _multipart([DECLARED])), DECLARED])
    fields, body = reading.read(raw)
    found = [(part.path, part.kind) for part in mime.entities(fields, body)]
    assert found == [
        ("0", "multipart/mixed"),
        ("1", "message/rfc822"),
        ("1.1", "multipart/mixed"),
        ("1.1.1", "text/plain"),
        ("2", "text/plain"),
    ]
