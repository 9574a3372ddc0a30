"""What tracking the links of a message costs, beside lxml and the email package at the same job.

    PYTHONPATH=milter:. build/venv/bin/python -m tests.bench.links [--rounds 5] [--parts]

CPU milliseconds a message, the median of rounds in which the rows take turns; from 2 kB to 10 MB, where each 1.1 kB of
HTML holds a link, and a column that stays the same says that the cost is linear. All mint the same tokens. No other
library rewrites in place, so the peers do what most programs do: `email` parses, decodes, replaces by an expression,
sets the content and serialises; `lxml` is given the decoded page alone, parses, rewrites and serialises it, and knows
of no message, encoding or reason to leave a link alone. The rounds are copies of one newsletter, whose links we have
judged before; `first` is the same where none has been seen, each time. `--parts` shows where our own time goes.
"""

from __future__ import annotations

import argparse
import binascii
import email
import importlib.util
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence

from postmeter.config.schema import Tracking
from postmeter.mail import anew, coding, html, mime
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


TRACKING = Tracking(url="https://click.example.com", max_links=100_000, max_size=1 << 30)


def ours(one: Message) -> Callable[[], object]:
    step = links.step(TRACKING, MINT, size_limit=0)

    def run() -> object:
        draft = Draft(one, from_domain="example.com")
        step(draft)
        return draft.facts["links"]

    return run


def first(one: Message) -> Callable[[], object]:
    """A step of its own each time, which remembers nothing; what it takes to make one counts too."""
    return lambda: ours(one)()


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
    edits = [coding.Edit(*link.value, url) for link in html.read(decoded, most=100_000).links]
    return {
        "  mime.leaves": lambda: mime.leaves(one.fields, one.body),
        "  coding.decode": lambda: coding.decode(raw, page.encoding),
        "  html.read": lambda: html.read(decoded, most=100_000),
        "  anew.change": lambda: anew.change(raw, decoded, page.encoding, edits),
    }


def with_lxml(one: Message) -> Callable[[], object]:
    from lxml import etree

    (page,) = [part for part in mime.leaves(one.fields, one.body) if part.kind == "text/html"]
    decoded = coding.decode(one.body[page.body_start : page.end], page.encoding) or b""

    def run() -> object:
        tree = etree.fromstring(decoded, etree.HTMLParser(encoding="utf-8", huge_tree=True))
        for number, link in enumerate(tree.iter("a", "area"), 1):
            target = link.get("href", "")
            if target.startswith(("http://", "https://")):
                url = MINT.link_url("https://click.example.com", reference=bytes(8), link=number, target=target)
                link.set("href", url)
        return etree.tostring(tree, method="html", encoding="utf-8")

    return run


Row = Callable[[Message], Callable[[], object]]
ROWS: dict[str, Row] = {"postmeter": ours, "first": first, "email": theirs, "lxml": with_lxml}
SIZES = (2_000, 30_000, 300_000, 1_000_000, 10_000_000)
ENCODINGS = ("7bit", "quoted-printable", "base64")


def measure(runs: dict[str, Callable[[], object]], rounds: int, size: int) -> dict[str, float]:
    """CPU milliseconds of each; small jobs are repeated, since the clock of processor time is coarse."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    repeat = max(1, 1_000_000 // size)
    for _ in range(rounds):
        for name, run in runs.items():
            begun = time.process_time()
            for _ in range(repeat):
                run()
            times[name].append((time.process_time() - begun) / repeat * 1000)
    return {name: statistics.median(each) for name, each in times.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.links", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", action="store_true", help="where our own time goes, too")
    options = parser.parse_args(arguments)
    rows = dict(ROWS)
    if importlib.util.find_spec("lxml") is None:
        del rows["lxml"]
        print("lxml: not installed: sh tests/lab/install.sh bench", file=sys.stderr)
    print(f"{'links: CPU ms a message, times ours':<42}" + "".join(f"{name:>17}" for name in rows) + "  us/kB of ours")
    for encoding in ENCODINGS:
        for size in SIZES:
            _show(encoding, size, rows, options)


def _show(encoding: str, size: int, rows: dict[str, Row], options: argparse.Namespace) -> None:
    tracked = max(2, size // 1100)
    one = message(newsletter(size, tracked), encoding)
    assert ours(one)() == tracked
    found = measure({name: row(one) for name, row in rows.items()}, options.rounds, size)
    mine = found["postmeter"]
    name = f"{encoding}, {size // 1000:,} kB, {tracked:,} links"
    columns = "".join(f"{spent:>10.2f}{spent / mine:>6.1f}x" for spent in found.values())
    print(f"{name:<42}{columns}{mine * 1e6 / size:>15.1f}", flush=True)
    if options.parts:
        for part, spent in measure(parts(one), options.rounds, size).items():
            print(f"{part:<42}{spent:>10.2f}{spent / mine:>6.1f}x")


if __name__ == "__main__":
    main()
