"""Links, opens and text in mail that nobody here wrote, judged by the email package and html5lib, and undone.

A sample of each set, and hostile input of 128 kB; with POSTMETER_ALL=1 every message, and 10 MB.
"""

from __future__ import annotations

import base64
import binascii
import os
import time
from collections import Counter
from pathlib import Path

import pytest

from postmeter.config.schema import Tracking
from postmeter.mail import reading
from postmeter.mail.apply import apply, before, undo
from postmeter.mail.draft import Draft
from postmeter.mail.message import Envelope, Message, ReplaceBody
from postmeter.tracking import links
from tests import corpora
from tests.link_oracle import BASE, MINT, differences

EVERYTHING = Tracking(
    url=BASE, mail="all", skip_links=(), links="html+text", opens=True, honeypot=True, max_size=1 << 30
)
LINKS = Tracking(url=BASE, mail="all", skip_links=())
WHOLE = bool(os.environ.get("POSTMETER_ALL"))
MESSAGES = corpora.messages() if WHOLE else corpora.sample(40)
LAYOUTS = tuple(each for each in MESSAGES if each.corpus == "html-mailchimp-blueprints")
HOSTILE = 1 << 17
SPAM_ASSASSIN = Path("build/spam-assassin/package/data")


def message(raw: bytes) -> Message:
    """Without the signatures of others, which would keep every link of the message from being touched."""
    fields, body = reading.read(raw)
    fields = tuple(field for field in fields if field.key not in (b"dkim-signature", b"arc-message-signature"))
    return Message(Envelope(b"news@example.com"), fields, body, queue_id="4X", time=0.0, reference=b"\1" * 8)


def rewrite(raw: bytes, tracking: Tracking = EVERYTHING) -> tuple[bytes, bytes, Draft]:
    """The message before and after, as a client would see it."""
    original = message(raw)
    draft = Draft(original)
    links.step(tracking, MINT, size_limit=0)(draft)
    return apply(original, ()), apply(original, draft.changes), draft


def judge(raw: bytes) -> Draft:
    """The draft of a message that differs only as it may, as much as it says, and comes back by its record alone."""
    before, after, draft = rewrite(raw)
    seen = differences(before, after)
    assert seen.links == draft.facts.get("links", 0)
    assert seen.images == (draft.facts.get("opens") is True)
    assert seen.traps <= 1
    assert (before == after) == (not draft.changes)
    for change in draft.changes:
        if isinstance(change, ReplaceBody):
            assert undo(change) == draft.message.body
            assert recorded(draft.message.body, change)
    return draft


def recorded(body: bytes, change: ReplaceBody) -> bool:
    """Whether the octets between the recorded spans are those of the old body, one after the other."""
    at = behind = 0
    spans = sorted((span for part in change.parts for span in part.spans), key=lambda span: span.start)
    for span in spans:
        kept = change.body[behind : span.start]
        if body[at : at + len(kept)] != kept:
            return False
        at, behind = at + len(kept) + len(before(change.body, span)), span.end
    return body[at:] == change.body[behind:]


def test_corpus_messages_differ_only_as_they_may() -> None:
    corpora.need()
    figures: Counter[str] = Counter()
    for sample in MESSAGES:
        draft = judge(sample.raw())
        figures += Counter({name: int(bool(draft.facts.get(name))) for name in ("links", "opens")})
    assert figures["links"] > 20
    assert figures["opens"] > 40


@pytest.mark.skipif(not WHOLE, reason="`make all` alone gets the SpamAssassin corpus")
@pytest.mark.parametrize("folder", ["easy-ham-1", "spam-1"])
def test_real_mail_of_many_programs_differs_only_as_it_may(folder: str) -> None:
    """The SpamAssassin project's public corpus: 3,000 messages in these two folders, 500 of them spam."""
    paths = sorted((SPAM_ASSASSIN / folder).glob("*.txt"))
    if not paths:
        pytest.skip(f"the SpamAssassin corpus is not at {SPAM_ASSASSIN}: npm(1) was not there to get it")
    assert len(paths) == {"easy-ham-1": 2500, "spam-1": 500}[folder]
    rewritten = sum(bool(judge(path.read_bytes()).facts.get("links")) for path in paths)
    assert rewritten > 100


@pytest.mark.parametrize("encoding", ["7bit", "8bit", "quoted-printable", "base64"])
def test_every_layout_in_every_encoding(encoding: str) -> None:
    """All newsletter layouts, with lines as they are, in each transfer encoding that can hold them."""
    corpora.need()
    for layout in LAYOUTS:
        page = reading.crlf(layout.path.read_bytes())
        if encoding == "7bit":
            page = page.decode("latin-1").encode("ascii", "xmlcharrefreplace")
        head = f"Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
        before, after, _ = rewrite(head.encode() + encoded(page, encoding))
        draft = judge(head.encode() + encoded(page, encoding))
        assert draft.facts.get("links") or not layout.path.read_bytes().count(b'<a href="http'), layout.name
        assert max(map(len, after.split(b"\r\n"))) <= max(998, *map(len, before.split(b"\r\n"))), layout.name


def test_quoted_lines_without_links_stay_as_they_stood() -> None:
    """In quoted-printable only the lines that hold a link change, four for a link at most."""
    corpora.need()
    for layout in LAYOUTS:
        page = encoded(reading.crlf(layout.path.read_bytes()), "quoted-printable")
        _, after, draft = rewrite(
            b"Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + page,
            LINKS,
        )
        lost = Counter(page.split(b"\r\n")) - Counter(after.split(b"\r\n"))
        assert lost.total() <= 4 * draft.figures.get(("links_rewritten_total", ()), 0), layout.name
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
    "conditions": b"<!--[if mso]>",
    "nested conditions": b"<!--[if mso]><a href=x><![endif]-->",
    "shapes": b"<v:rect href=http://x.example/>",
    "shapes that end": b"<!--[if mso]><v:rect href=http://x.example/><![endif]-->",
    "bases": b"<base href=http://x.example/>",
    "bodies": b"</body>",
    "switches": b"<a clicktracking=off href=http://x.example/>",
    "switches of one": b" clicktracking=off",
    "opening": b"<",
    "areas": b"<area href=http://x.example/>",
    "shifts": b"\x1b$B",
    "shifts that end": b"\x1b(Ba\x1b$B\x1b(B",
    "urls": b"http://x.example/ ",
    "brackets": b"http://x.example/))))))",
    "lines of urls": b"http://x.example/\r\n",
    "colons": b"://",
    "quotes": b"> http://x\r\n",
    "signatures": b"-- \r",
    "schemes": b"http://",
    "angles": b"<http://x",
}
KINDS = (
    "text/html", "text/html; charset=iso-2022-jp", "text/html; charset=utf-16le", "text/plain",
    "text/plain; format=flowed; delsp=yes",
)  # fmt: skip


@pytest.mark.parametrize("piece", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("encoding", ["8bit", "quoted-printable", "base64"])
def test_hostile_input_costs_what_its_length_costs(piece: bytes, encoding: str) -> None:
    """Far below what work that grows with the square would take: minutes for 128 kB, hours for 10 MB."""
    text = piece * (HOSTILE // len(piece))
    if WHOLE and encoding == "8bit":
        for kind in ("text/html", "text/plain"):
            assert seconds(f"Content-Type: {kind}\r\n\r\n".encode() + piece * ((10 << 20) // len(piece))) < 10
    body = encoded(text, encoding) if encoding == "base64" else text
    for kind in KINDS:
        head = f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode()
        mixed = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + head
        for raw in (head + body, mixed + body + b"\r\n--b--\r\n"):
            assert seconds(raw) < 1


def seconds(raw: bytes) -> float:
    begun = time.process_time()
    rewrite(raw)
    return time.process_time() - begun
