"""Mail of megabytes is changed as mail of a few lines is, though in pieces, and what is kept of it stays small."""

from __future__ import annotations

import base64
import binascii
import email
from io import BytesIO

import pytest

from postmeter.mail import anew, coding, reading, safe
from postmeter.mail.apply import apply
from postmeter.mail.coding import Edit
from postmeter.mail.message import Field, ReplaceBody
from postmeter.tracking import parts
from tests.link_oracle import BASE
from tests.unit.test_mail_coding import octets as written
from tests.unit.test_tracking_links import HTML, LINK, draft_of, multipart, run, skipped, tracked


@pytest.mark.parametrize(
    ("line", "expected"),
    [("Grüße, and enough without \r\n", anew.QUOTED), ("ж" * 30 + "\r\n", anew.BASE64), ("é " * 600_000, anew.BASE64)],
    ids=["quoted", "base64", "one line"],
)
def test_what_is_large_is_encoded_as_if_in_one_piece(line: str, expected: str) -> None:
    text = (line * (2_200_000 // len(line.encode()) + 1)).encode() + b"and an end that is no whole line "
    into = BytesIO()
    encoding = anew.encode(b"x" + text + b"y", into, start=1, end=len(text) + 1, head=str.encode)
    assert encoding == expected
    assert into.getvalue().startswith(encoding.encode())
    coded = into.getvalue()[len(encoding) :]
    lines = coded.split(b"\r\n")
    assert coding.decode(coded, encoding) == text
    assert max(map(len, lines)) <= 76
    if encoding == "base64":
        assert lines == base64.encodebytes(text).split()
    else:
        assert coded == binascii.b2a_qp(text, istext=True).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


@pytest.mark.parametrize("text", ["word ", "=      ", "some text, and a few more for Grüße "])
def test_a_line_of_megabytes_is_made_quoted_printable_as_if_in_one_piece(text: str) -> None:
    line = b"a first one\r\n" + (text * (2_200_000 // len(text))).encode() + b"\r\n"
    start = line.find(text[:2].encode())
    changed = anew.change(line, line, "8bit", [Edit(start, start, b"x")])
    assert changed is not None
    [(begin, end, new)] = changed.edits
    wanted = line[:start] + b"x" + line[start:]
    assert (changed.encoding, begin, end) == ("quoted-printable", 0, len(line))
    assert written(new).split(b"\r\n") == binascii.b2a_qp(wanted).split(b"\r\n")
    assert coding.decode(written(new), "quoted-printable") == wanted


@pytest.mark.parametrize("text", ["==", "漢字 ", "some text, and Grüße "])
@pytest.mark.parametrize("size", [3_000, 2_200_000])
def test_a_long_line_that_needs_many_escapes_becomes_base64(text: str, size: int) -> None:
    """Quoted-printable would be up to three times as much; beside another part no line end is added."""
    line = (text * (size // len(text.encode()))).encode() + b"\r\n"
    for body, end, closed in (
        (b"before" + line, 6 + len(line), b"\r\n"),
        (b"before" + line + b"--", 6 + len(line), b""),
    ):
        changed = anew.change(body, line, "8bit", [Edit(0, 0, b"x")], start=6, end=end)
        assert changed is not None
        [(begin, stop, new)] = changed.edits
        assert (changed.encoding, begin, stop) == ("base64", 6, end)
        assert written(new) == base64.encodebytes(b"x" + line).replace(b"\n", b"\r\n")[:-2] + closed
        assert anew.splice(body, changed.edits) == body[:6] + written(new) + body[end:]


@pytest.mark.parametrize("end", [b"\n", b"\n\r", b"\n\n\r\n\r\r\n"])
def test_bare_line_ends_are_the_same_in_what_is_large(end: bytes) -> None:
    fields = [Field(b"Content-Type", b" text/plain"), Field(b"Content-Transfer-Encoding", b" 8bit")]
    body = (b"some words of greeting: gr\xc3\xbc\xc3\x9fe" + end) * 50_000
    made = safe.recode(fields, body)
    assert made.label == ("quoted-printable" if b"\r" not in end else "base64")
    assert coding.decode(made.body, made.label) == reading.crlf(body)


@pytest.mark.parametrize(
    ("encoding", "page"), [("base64", b"some text\r\n" * 120_000), ("8bit", "Grüße ".encode() * 150_000)]
)
def test_the_record_of_a_large_part_holds_none_of_it(encoding: str, page: bytes) -> None:
    """How it can be had again from the new one is enough; the old body is gone when others work on the message."""
    page = b'<a href="https://shop.example.com/x">go</a>' + page
    html = base64.encodebytes(page).replace(b"\n", b"\r\n") if encoding == "base64" else page
    head = f"Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode()
    raw = multipart("mixed", "%", "Content-Type: text/plain\n\nend").encode().replace(b"%", head + html)
    draft = run(raw)
    [change] = [change for change in draft.changes if isinstance(change, ReplaceBody)]
    olds = [span.old for part in change.parts for span in part.spans]
    assert sum(len(old) for old in olds if not callable(old)) < 10
    assert any(map(callable, olds))


@pytest.mark.parametrize(("text", "coding"), [("some words ", "quoted-printable"), ("漢字 ", "base64")])
@pytest.mark.parametrize("octets", [2_000, 1_100_000])
def test_a_page_on_one_line_is_encoded_in_the_shorter_way(text: str, coding: str, octets: int) -> None:
    """However large it is, and alone as well as between other parts."""
    page = f"{HTML}\r\n\r\n{LINK}{text * (octets // len(text.encode()))}\r\n"
    for raw in (page, multipart("mixed", "\r\nfirst", page, "\r\nlast")):
        draft = run(raw)
        parsed = email.message_from_bytes(apply(draft.message, draft.changes))
        [found] = [part for part in parsed.walk() if part.get_content_type() == "text/html"]
        assert found["Content-Transfer-Encoding"] == coding
        payload = found.get_payload(decode=True)
        assert isinstance(payload, bytes)
        [url] = tracked(payload)
        before = page.partition("\r\n\r\n")[2].strip()
        assert payload.decode().strip() == before.replace("https://example.com/", f"{BASE}{url}")


def test_a_message_never_outgrows_the_size_limit() -> None:
    """Room for signatures and fields to come is kept, too."""
    raw = f"{HTML}\r\n\r\n{LINK}" + "<p>\r\n" * 3000
    size = draft_of(raw).message.size()
    assert skipped(run(raw, size_limit=size + 8192)) == {parts.SIZE_LIMIT: 1}
    assert run(raw, size_limit=size + 8192 + 200).facts["links"] == 1
    assert run(raw, size_limit=0).facts["links"] == 1
