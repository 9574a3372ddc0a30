"""Mail that nobody here wrote, for tests that want more than we can think of.

The folder is $POSTMETER_CORPORA, or `../shared/corpora` beside the clone; nothing of it is copied into the project, and
tests that need it are skipped, saying so, where it is absent. Knows nothing of what is done to the messages.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "corpora"

# Which files of a set are messages; what else lies there is goldens, parse events, licences.
_MESSAGES = {
    "msg-enmime": ("testdata/**/*.raw",),
    "msg-flanker": ("messages/**/*.eml", "messages/dkim/email.*"),
    "msg-mikel-mail": ("emails/**/*.eml", "emails/sample_output_multipart"),
    "msg-mime4j": ("**/*.msg",),
    "msg-postfix-mime": ("mime_*.in*", "bug*.in"),
    "bounce-flufl": ("[!_]*.txt",),
    "bounce-sisimai-odd": ("**/*.eml",),
    "dsn-arf-hyvor": ("[!_]*.txt",),
    "html-mailchimp-blueprints": ("**/*.html",),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One file of a corpus; `name` is its path below the corpora folder."""

    name: str
    path: Path

    @property
    def corpus(self) -> str:
        return self.name.partition("/")[0]

    def raw(self) -> bytes:
        """The file; an HTML layout as the newsletter that a mailing program would make of it."""
        data = self.path.read_bytes()
        return newsletter(data) if self.path.suffix == ".html" else data

    def sendable(self) -> bytes:
        """The message as an SMTP client could send it."""
        return sendable(self.raw())

    def __str__(self) -> str:
        return self.name


def folder() -> Path:
    """Where the corpora are, or would be."""
    return Path(os.environ.get("POSTMETER_CORPORA") or _BESIDE)


def absent() -> str:
    """Why there are no corpora; empty when there are."""
    return "" if folder().is_dir() else f"no corpora at {folder()} (set POSTMETER_CORPORA)"


def need() -> None:
    """Skip the test that calls, where there are no corpora."""
    if reason := absent():
        pytest.skip(reason)


@cache
def messages() -> tuple[Sample, ...]:
    """Every message of every set, in the order of their names; none when the corpora are absent."""
    return tuple(sorted(_all(), key=lambda sample: sample.name))


def sample(count: int) -> tuple[Sample, ...]:
    """`count` messages of each set, the same ones each time: those whose names hash lowest."""
    chosen = []
    for corpus in _MESSAGES:
        of_it = [each for each in messages() if each.corpus == corpus]
        chosen += sorted(of_it, key=lambda each: hashlib.sha256(each.name.encode()).digest())[:count]
    return tuple(sorted(chosen, key=lambda each: each.name))


def _all() -> Iterator[Sample]:
    root = folder()
    for corpus, patterns in _MESSAGES.items():
        for path in {path for pattern in patterns for path in (root / corpus).glob(pattern)}:
            if path.is_file():
                yield Sample(path.relative_to(root).as_posix(), path)


def sendable(raw: bytes) -> bytes:
    """What a client does to a file before it sends it: CRLF line ends and a last one, no mbox line, no NUL.

    RFC 5321 section 2.3.8 (line ends), 4.5.2 (NUL is not mail); RFC 4155 (the From_ line).
    """
    lines = re.sub(rb"\r\n|\r|\n", b"\r\n", raw.replace(b"\0", b""))
    if re.match(rb">?From ", lines):
        lines = lines.partition(b"\r\n")[2]
    return lines if lines.endswith(b"\r\n") else lines + b"\r\n"


def newsletter(html: bytes) -> bytes:
    """A message of one text/html part with that layout, 8bit when it must be."""
    coding = b"7bit" if html.isascii() else b"8bit"
    header = [
        b"From: Example News <news@example.com>",
        b"To: reader@example.net",
        b"Subject: What is new",
        b"Date: Mon, 02 Nov 2026 10:00:00 +0000",
        b"Message-ID: <newsletter@example.com>",
        b"List-Unsubscribe: <mailto:leave@example.com>",
        b"MIME-Version: 1.0",
        b"Content-Type: text/html; charset=utf-8",
        b"Content-Transfer-Encoding: " + coding,
    ]
    return b"\r\n".join(header) + b"\r\n\r\n" + html
