"""What tracking the links of a message costs, beside the email package and html.parser at the same job.

    PYTHONPATH=milter python tests/bench/links.py [ROUNDS]

Prints microseconds a message: the least and the median of the rounds. No other library rewrites in place, so the
baseline is what most programs do: parse, decode, rewrite, set the payload, serialise.
"""

from __future__ import annotations

import binascii
import email
import re
import statistics
import sys
import time
from collections.abc import Callable

from postmeter.config.schema import Tracking
from postmeter.mail import coding, html, mime
from postmeter.mail.draft import Draft
from postmeter.mail.message import Envelope, Field, Message
from postmeter.token import Mint
from postmeter.tracking import links

MINT = Mint([bytes(range(32))])
ARTICLE = (
    '<tr><td style="padding:12px 8px;font-family:Arial,sans-serif;color:#333333" valign="top" align="left">'
    '<p style="margin:0 0 10px">An article that goes on for a while, says &amp; tells little: {n}.</p>'
    '<img src="https://img.example.com/i/{n}.png" alt="" width="100" height="80">'
    '<a style="color:#0066cc;text-decoration:none" target="_blank" '
    'href="https://www.example.com/shop/item/{n}?utm_source=newsletter&amp;utm_medium=email&amp;id={n}">'
    "Read more about it</a></td></tr>\r\n"
)
ROW = (
    '<tr><td style="padding:12px 8px;font-family:Arial,sans-serif;color:#333333" valign="top">'
    '<p style="margin:0 0 10px">Some more words here</p></td></tr>\r\n'
)


def newsletter(size: int, tracked: int) -> bytes:
    """A page of about that size with so many links."""
    articles = "".join(ARTICLE.format(n=n) for n in range(tracked))
    rows = ROW * max(0, (size - len(articles)) // len(ROW))
    page = f"<html><head><style>p {{margin: 0}}</style></head><body><table>{articles}{rows}</table></body></html>\r\n"
    return page.encode()


def message(page: bytes, encoding: str) -> Message:
    body = {
        "7bit": lambda: page,
        "quoted-printable": lambda: binascii.b2a_qp(page, istext=True),
        "base64": lambda: b"".join(
            binascii.b2a_base64(page[at : at + 57], newline=False) + b"\r\n" for at in range(0, len(page), 57)
        ),
    }[encoding]()
    head = f"--b\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    plain = b"--b\r\nContent-Type: text/plain\r\n\r\nRead it on the web.\r\n"
    fields = [
        (b"From", b" News <news@example.com>"), (b"To", b" reader@example.net"), (b"Subject", b" News"),
        (b"Date", b" Sun, 22 Nov 2026 12:00:00 +0000"), (b"Message-ID", b" <1@example.com>"),
        (b"List-Unsubscribe", b" <https://www.example.com/u/1>"), (b"MIME-Version", b" 1.0"),
        (b"Content-Type", b' multipart/alternative; boundary="b"'),
    ]  # fmt: skip
    return Message(
        Envelope(b"news@example.com", rcpt_to=(b"reader@example.net",), login="news@example.com"),
        tuple(Field(name, value) for name, value in fields),
        plain + head.encode() + body + b"--b--\r\n",
        queue_id="4ABC",
        time=0.0,
        reference=bytes(8),
    )


def ours(one: Message) -> Callable[[], object]:
    step = links.step(Tracking(url="https://click.example.com"), MINT, size_limit=0)

    def run() -> object:
        draft = Draft(one, from_domain="example.com")
        step(draft)
        return draft.facts["links"]

    return run


def theirs(one: Message) -> Callable[[], object]:
    raw = b"".join(field.wire() for field in one.fields) + b"\r\n" + one.body
    pattern = re.compile(r'(<a\s[^>]*?href=")(https?://[^"]*)(")', re.IGNORECASE)

    def tracked(found: re.Match[str]) -> str:
        url = MINT.link_url("https://click.example.com", reference=bytes(8), link=1, target=found[2])
        return found[1] + url + found[3]

    def run() -> object:
        parsed = email.message_from_bytes(raw)
        for part in parsed.walk():
            if part.get_content_type() == "text/html":
                payload = part.get_payload(decode=True)
                assert isinstance(payload, bytes)
                encoding = part.get_content_charset("utf-8")
                del part["Content-Transfer-Encoding"]
                part.set_payload(pattern.sub(tracked, payload.decode(encoding)), encoding)
        return parsed.as_bytes()

    return run


def parts(one: Message) -> dict[str, Callable[[], object]]:
    """Where our time goes."""
    (page,) = [part for part in mime.leaves(one.fields, one.body) if part.kind == "text/html"]
    raw = one.body[page.body_start : page.end]
    decoded = coding.decode(raw, page.encoding) or b""
    url = b"https://click.example.com/c/" + b"A" * 150
    edits = [coding.Edit(link.start, link.end, url) for link in html.read(decoded, most=1000).links]
    return {
        "  mime.leaves": lambda: mime.leaves(one.fields, one.body),
        "  coding.decode": lambda: coding.decode(raw, page.encoding),
        "  html.read": lambda: html.read(decoded, most=1000),
        "  coding.change": lambda: coding.change(raw, decoded, page.encoding, edits),
    }


def measure(run: Callable[[], object], rounds: int) -> tuple[float, float]:
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        run()
        times.append((time.perf_counter() - begun) * 1e6)
    return min(times), statistics.median(times)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print(f"{'':44}{'least':>10}{'median':>10}  microseconds, {rounds} rounds")
    for size, tracked in ((2_000, 2), (28_000, 25), (1_000_000, 500)):
        for encoding in ("7bit", "quoted-printable", "base64"):
            one = message(newsletter(size, tracked), encoding)
            name = f"{len(one.body):,} bytes, {tracked} links, {encoding}"
            runs = {name: ours(one), "  email package": theirs(one), **parts(one)}
            for label, run in runs.items():
                least, median = measure(run, max(5, rounds * 30_000 // max(30_000, size)))
                print(f"{label:44}{least:10.0f}{median:10.0f}")


if __name__ == "__main__":
    main()
