"""Large messages over the milter protocol, and what a worker holds while it works on them.

Knows nothing of how a milter collects or changes them.
"""

from __future__ import annotations

import base64
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench import held
from tests.bench.messages import Mail
from tests.lab.mta import Mta

_B = b"=_large"
_TOP = b"From: news@example.com\r\nTo: reader@example.net\r\nSubject: large\r\nMIME-Version: 1.0\r\n"
_PARTS = _TOP + b'Content-Type: multipart/mixed; boundary="%b"\r\n\r\n' % _B
_PAGE = b'<html><body><p><a href="https://shop.example.com/x">offer</a></p></body></html>\r\n'
_WORDS = b"<p>some text for a reader, and more of it</p>\r\n"
_LINE = "Grüße aus Köln, und viel Text dazu, bis auch diese Zeile zu Ende ist.\r\n".encode()


@dataclass(frozen=True, slots=True)
class Peak:
    """Of one message: how much more was resident than before it, in its own sizes, and what became of it."""

    name: str
    octets: int
    times: float
    rewritten: bool
    taken: bool


def attachment(octets: int) -> Mail:
    """A header and base64, nothing that anybody would change."""
    head = _TOP + b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    return Mail("attachment", head + _base64(octets), 0)


def page_and_attachment(octets: int) -> Mail:
    """The HTML has a link."""
    page = b"--%b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n%b" % (_B, _PAGE)
    file = b"--%b\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n" % _B
    return Mail("page and attachment", _PARTS + page + file + _base64(octets) + b"--%b--\r\n" % _B, 1)


def eight_bit(octets: int) -> Mail:
    """Text that has to be encoded before it is signed."""
    head = _TOP + b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    return Mail("8-bit text", head + _LINE * (octets // len(_LINE)), 0)


def eight_bit_part(octets: int) -> Mail:
    """The same as one part of several, which takes most: the part is cut out, and then put in again."""
    head = b"--%b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" % _B
    return Mail("8-bit part", _PARTS + head + _LINE * (octets // len(_LINE)) + b"\r\n--%b--\r\n" % _B, 0)


def long_line_part(octets: int) -> Mail:
    """ASCII that has to be encoded for its one line."""
    head = b"--%b\r\nContent-Type: text/plain\r\n\r\n" % _B
    return Mail("long line", _PARTS + head + b"word " * (octets // 5) + b"\r\n--%b--\r\n" % _B, 0)


def eight_bit_page(octets: int) -> Mail:
    """One part with a link that has to be encoded besides: the body as it came, tracked and encoded, all at once."""
    head = b"--%b\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" % _B
    return Mail("8-bit page", _PARTS + head + _PAGE + _LINE * (octets // len(_LINE)) + b"\r\n--%b--\r\n" % _B, 1)


def pages(octets: int) -> Mail:
    """All of it HTML in quoted-printable, far beyond what tracking.max_size allows by default."""
    text = b'<p>some text for a reader <a href=3D"https://shop.example.com/x">go</a> and more of it</p>\r\n'
    head = _TOP + b"Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    return Mail("HTML only", head + text * (octets // len(text)), octets // len(text))


def base64_page(octets: int) -> Mail:
    """A page that is written anew as a whole for its link."""
    return Mail("base64 page", _PARTS + _base64_html(octets) + b"--%b--\r\n" % _B, 1)


def line_page(octets: int) -> Mail:
    """A page in one line, which has to be encoded for its link; quoted-printable would take three times as much."""
    text = "漢字ひらがな".encode()
    head = b"--%b\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" % _B
    return Mail("page in a line", _PARTS + head + _PAGE[:-2] + text * (octets // len(text)) + b"\r\n--%b--\r\n" % _B, 1)


def shifted_page(octets: int) -> Mail:
    """A page whose charset has shifts at each few words."""
    text = "漢字ひらがな text\r\n".encode("iso-2022-jp")
    head = b"--%b\r\nContent-Type: text/html; charset=iso-2022-jp\r\n\r\n" % _B
    return Mail("ISO-2022-JP page", _PARTS + head + _PAGE + text * (octets // len(text)) + b"--%b--\r\n" % _B, 1)


def page_and_text(octets: int) -> Mail:
    """One part is written anew for its link, and the other one encoded."""
    return _beside_text("page and 8-bit text", _base64_html(octets // 2), octets // 2)


def page_beside_text(octets: int) -> Mail:
    """The same where the page is most of it."""
    return _beside_text("base64 beside text", _base64_html(octets * 3 // 4), octets // 4)


def line_beside_text(octets: int) -> Mail:
    """Two parts are encoded, first the one with a link, in which lines grow too long, then the other."""
    text = "漢字ひらがな".encode()
    head = b"--%b\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" % _B
    page = head + _PAGE[:-2] + text * (octets * 3 // 4 // len(text)) + b"\r\n"
    return _beside_text("line beside text", page, octets // 4)


def base64_pages(octets: int) -> Mail:
    """Many, none of which is large by itself."""
    count = octets // 1_300_000
    pages = b"".join([_base64_html(octets // count) for _ in range(count)])
    return Mail("base64 pages", _PARTS + pages + b"--%b--\r\n" % _B, count)


def header_lines(octets: int) -> Mail:
    """A link, and a part that is all header."""
    page = b"--%b\r\nContent-Type: text/html\r\n\r\n" % _B
    head = b"--%b\r\nContent-Type: message/rfc822\r\n\r\n" % _B
    fields = b"X-Field: value\r\n" * (octets // 16)
    return Mail("header lines", _PARTS + page + _PAGE + head + fields + b"\r\nend\r\n--%b--\r\n" % _B, 1)


Making = Callable[[int], Mail]

KINDS: tuple[Making, ...] = (
    attachment, page_and_attachment, eight_bit, eight_bit_part, long_line_part, pages, eight_bit_page,
    base64_page, line_page, shifted_page, page_and_text, page_beside_text, line_beside_text, base64_pages, header_lines,
)  # fmt: skip


def measure(address: Path, worker: int, mail: Mail) -> Peak:
    """One message through a worker that serves nobody else."""
    fields, body = mail.fields(), mail.body()
    held.forget_peak(worker)
    before = held.resident(worker)
    verdict, rewritten = send(address, fields, body)
    times = (held.peak(worker) - before) / len(mail.raw)
    return Peak(mail.name, len(mail.raw), times, rewritten, verdict == "a")


def at_once(address: Path, mail: Mail, count: int) -> list[str]:
    """The verdicts on so many copies, each sent by a process of its own."""
    fields, body = mail.fields(), mail.body()
    pids = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            os._exit(_told(address, fields, body))
        pids.append(pid)
    return [chr(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])) for pid in pids]


def _told(address: Path, fields: list[tuple[str, bytes]], body: bytes) -> int:
    try:
        return ord(send(address, fields, body)[0])
    except OSError:
        return ord("!")


def send(address: Path, fields: list[tuple[str, bytes]], body: bytes) -> tuple[str, bool]:
    """The verdict's code, and whether the body was replaced."""
    with Mta(address, timeout=300) as mta:
        mta.negotiate()
        mta.connect(address="127.0.0.1")
        mta.mail("news@example.com")
        queue_id = f"{os.getpid():X}"
        mta.rcpt("reader@example.net", queue_id=queue_id)
        taken = mta.message(fields, body, queue_id=queue_id)
        mta.abort()
        mta.quit()
        return taken.verdict.code, any(change.code == "b" for change in taken.changes)


def _base64(octets: int) -> bytes:
    return base64.encodebytes(random.Random(1).randbytes(octets * 57 // 78)).replace(b"\n", b"\r\n")


def _base64_html(octets: int) -> bytes:
    head = b"--%b\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n" % _B
    page = _PAGE + _WORDS * (octets * 57 // 78 // len(_WORDS))
    return head + base64.encodebytes(page).replace(b"\n", b"\r\n")


def _beside_text(name: str, page: bytes, octets: int) -> Mail:
    head = b"--%b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" % _B
    return Mail(name, _PARTS + page + head + _LINE * (octets // len(_LINE)) + b"--%b--\r\n" % _B, 1)
