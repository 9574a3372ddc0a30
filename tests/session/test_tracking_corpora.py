"""Links in mail that nobody here wrote, judged by the email package and html.parser."""

from __future__ import annotations

import base64
import binascii
import time
from collections import Counter

import pytest

from postmeter.config.schema import Tracking
from postmeter.mail import reading
from postmeter.mail.apply import apply
from postmeter.mail.draft import Draft
from postmeter.mail.message import Envelope, Message
from postmeter.tracking import links
from tests import corpora
from tests.link_oracle import BASE, MINT, assert_only_links_differ

ALL = Tracking(url=BASE, mail="all", skip_links=())
STEP = links.step(ALL, MINT, size_limit=0)
LAYOUTS = tuple(each for each in corpora.messages() if each.corpus == "html-mailchimp-blueprints")


def message(raw: bytes) -> Message:
    """Without the signatures of others, which would keep every link of the message from being touched."""
    fields, body = reading.read(raw)
    fields = tuple(field for field in fields if field.key not in (b"dkim-signature", b"arc-message-signature"))
    return Message(Envelope(b"news@example.com"), fields, body, queue_id="4X", time=0.0, reference=b"\1" * 8)


def rewrite(raw: bytes) -> tuple[bytes, bytes, Draft]:
    """The message before and after, as a client would see it."""
    original = message(raw)
    draft = Draft(original)
    STEP(draft)
    return apply(original, ()), apply(original, draft.changes), draft


def test_corpus_messages_differ_only_in_href_values() -> None:
    """Every message of every set: nothing but href values changes, and something does somewhere."""
    corpora.need()
    total = 0
    for sample in corpora.messages():
        before, after, draft = rewrite(sample.raw())
        number = assert_only_links_differ(before, after)
        assert number == draft.facts.get("links", 0), sample.name
        assert (before == after) == (not draft.changes), sample.name
        total += number
    assert total > 140


@pytest.mark.parametrize("encoding", ["7bit", "8bit", "quoted-printable", "base64"])
def test_every_layout_in_every_encoding(encoding: str) -> None:
    """All newsletter layouts, with lines as they are, in each transfer encoding that can hold them."""
    corpora.need()
    for layout in LAYOUTS:
        page = reading.crlf(layout.path.read_bytes())
        if encoding == "7bit":
            page = page.decode("latin-1").encode("ascii", "xmlcharrefreplace")
        head = f"Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
        before, after, draft = rewrite(head.encode() + encoded(page, encoding))
        assert assert_only_links_differ(before, after) == draft.facts.get("links", 0), layout.name
        assert draft.facts.get("links") or not layout.path.read_bytes().count(b'<a href="http'), layout.name
        assert max(map(len, after.split(b"\r\n"))) <= max(998, *map(len, before.split(b"\r\n"))), layout.name


def test_quoted_lines_without_links_stay_as_they_stood() -> None:
    """In quoted-printable only the lines that hold a link change, four for a link at most."""
    corpora.need()
    for layout in LAYOUTS:
        page = encoded(reading.crlf(layout.path.read_bytes()), "quoted-printable")
        _, after, draft = rewrite(
            b"Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + page
        )
        lost = Counter(page.split(b"\r\n")) - Counter(after.split(b"\r\n"))
        assert lost.total() <= 4 * draft.figures["links_rewritten_total", ()], layout.name
        assert all(len(line) <= 76 for line in draft.body.split(b"\r\n"))


def encoded(page: bytes, encoding: str) -> bytes:
    if encoding == "base64":
        return base64.encodebytes(page).replace(b"\n", b"\r\n")
    return binascii.b2a_qp(page, istext=True) if encoding == "quoted-printable" else page


ATTACKS = {
    "open quotes": b'<a href="',
    "open tags": b"<a ",
    "open comments": b"<a><!--",
    "closed comments": b"<!-->--><!--->",
    "cdata": b"<a><![CDATA[",
    "raw text": b"<title></title ",
    "scripts": b"<script><!--</script>",
    "crossed quotes": b"<p a='\"><a href=\"'",
    "no links": b"<p x= y ='z'>",
    "links": b"<a href=http://x.example/>",
    "text": b"<a href=http://x.example/><<<<<&&&#&#x",
    "references": b"<a href='http://x.example/?&#0000&lt&gt=&amp;&notit;'>",
    "attributes": b"<a " + b"x='y' " * 50 + b">",
    "names": b"<a" + b"/x" * 50,
    "soft breaks": b"=\r\n",
    "equals": b"=3D",
    "bad equals": b"= =",
    "boundaries": b"\r\n--b",
    "padded boundaries": b"\r\n--b" + b" " * 40,
    "nested": b"\r\n--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
    "folded": b"\r\n--b\r\nContent-Type: text/html;\r\n a=b;\r\n ",
}


@pytest.mark.parametrize("piece", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("encoding", ["8bit", "quoted-printable", "base64"])
def test_hostile_input_costs_what_its_length_costs(piece: bytes, encoding: str) -> None:
    """128 kB of each attack: far below what work that grows with the square would take (minutes)."""
    text = piece * ((1 << 17) // len(piece))
    body = encoded(text, encoding) if encoding == "base64" else text
    head = f"Content-Type: text/html\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode()
    mixed = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + head
    for raw in (head + body, mixed + body + b"\r\n--b--\r\n"):
        begun = time.process_time()
        rewrite(raw)
        assert time.process_time() - begun < 1.5
