"""The two messages that are measured: a short plain one and a newsletter, the same octets in every run.

Knows nothing of who sends them. RFC 5322, RFC 2045 section 6.7 (quoted-printable), RFC 2369 and 8058 (List fields).
"""

from __future__ import annotations

import quopri
import random
from dataclasses import dataclass

LINKS = 25
_PLAIN_SIZE, _NEWSLETTER_SIZE = 2_000, 30_000
_BOUNDARY = "=_7f1c0b6e2a"
_ASCII = [
    "autumn", "harvest", "delivery", "orchard", "basket", "morning", "our", "every", "customer", "garden",
    "offer", "season", "workshop", "recipe", "kitchen", "weather", "region", "invite", "evening", "tasting",
    "market", "photo", "story", "read", "more", "price", "order",
]  # fmt: skip
_WORDS = [*_ASCII, "für", "über", "größere", "Äpfel", "Gemüse", "Küche"]


@dataclass(frozen=True, slots=True)
class Mail:
    """`raw` has CRLF line ends; `links` is how many a tracker rewrites."""

    name: str
    raw: bytes
    links: int

    def fields(self) -> list[tuple[str, bytes]]:
        """Header fields as a milter gets them: the value with its leading space, folds by bare LF (D14, D15)."""
        lines: list[str] = []
        for line in self.raw.partition(b"\r\n\r\n")[0].decode("ascii").split("\r\n"):
            if line[:1] in (" ", "\t"):
                lines[-1] += "\n" + line
            else:
                lines.append(line)
        split = (line.partition(":") for line in lines)
        return [(name, value.encode()) for name, _, value in split]

    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]


def plain() -> Mail:
    """Two kilobytes of text/plain in all."""
    header = _header("Your order has been sent", ["Content-Type: text/plain; charset=utf-8"])
    header += "Content-Transfer-Encoding: 7bit\r\n"
    dice = random.Random(2)
    body = ""
    while len(header) + len(body) < _PLAIN_SIZE - 40:
        body += _sentence(dice, 9, ascii_only=True) + "\r\n"
    return Mail("plain", f"{header}\r\n{body}".encode(), 0)


def newsletter() -> Mail:
    """Thirty kilobytes: multipart/alternative, the HTML in quoted-printable with 25 links in tables and styles."""
    fields = [
        "List-Id: <news.example.com>",
        "List-Unsubscribe: <https://example.com/leave?u=2f8a91c04d>,\r\n <mailto:leave@example.com?subject=2f8a91c04d>",
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click",
        f'Content-Type: multipart/alternative;\r\n boundary="{_BOUNDARY}"',
    ]
    header = _header("=?utf-8?Q?Herbst_im_Garten:_f=C3=BCr_Sie_ausgesucht?=", fields)
    text = _part("text/plain", "\n".join(_sentence(random.Random(nth), 11) for nth in range(24)))
    page = _part("text/html", _page(_NEWSLETTER_SIZE - len(header) - len(text) - 60))
    return Mail("newsletter", f"{header}\r\n{text}{page}--{_BOUNDARY}--\r\n".encode(), LINKS)


def _header(subject: str, fields: list[str]) -> str:
    lines = [
        "From: Example Shop <news@example.com>",
        "To: A Reader <reader@example.net>",
        f"Subject: {subject}",
        "Date: Mon, 02 Nov 2026 10:00:00 +0000",
        "Message-ID: <20261102100000.4af1c2@example.com>",
        "MIME-Version: 1.0",
        "X-Mailer: newsroom 4.2",
        *fields,
    ]
    return "".join(f"{line}\r\n" for line in lines)


def _part(kind: str, text: str) -> str:
    coded = quopri.encodestring(text.encode()).decode("ascii").replace("\n", "\r\n")
    head = f"--{_BOUNDARY}\r\nContent-Type: {kind}; charset=utf-8\r\n"
    return f"{head}Content-Transfer-Encoding: quoted-printable\r\n\r\n{coded}\r\n"


def _page(octets: int) -> str:
    """HTML that becomes about so many octets: 25 sections, as much text in each as there is room for."""
    words = 10
    while True:
        dice = random.Random(30)
        sections = "".join(_section(dice, nth, words) for nth in range(LINKS))
        page = f"<!DOCTYPE html>\n<html><head><title>Herbst</title></head>\n<body>\n<table>\n{sections}</table>\n"
        page += "</body></html>"
        if len(quopri.encodestring(page.encode())) * 1.01 > octets:
            return page
        words += 1


def _section(dice: random.Random, nth: int, words: int) -> str:
    target = f"https://shop.example.com/offer/{nth}?utm_source=news&amp;utm_campaign=herbst&amp;id={dice.getrandbits(48)}"
    style = "font-family:Arial,Helvetica,sans-serif;font-size:15px;line-height:22px;color:#333333;padding:12px 24px"
    return (
        f'<tr><td style="{style}">\n<h2>{_sentence(dice, 4)}</h2>\n<p>{_sentence(dice, words)}</p>\n'
        f'<a href="{target}" style="color:#1a73e8;text-decoration:none">{_sentence(dice, 3)}</a>\n</td></tr>\n'
    )


def _sentence(dice: random.Random, words: int, *, ascii_only: bool = False) -> str:
    return " ".join(dice.choices(_ASCII if ascii_only else _WORDS, k=words)).capitalize() + "."
