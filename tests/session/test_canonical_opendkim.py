"""What we hash is what OpenDKIM hashes, byte for byte: all four forms, on mail that nobody here wrote and on noise.

The judge is Debian's opendkim, run as the milter that it is and told to keep what it hashed. Where it is no judge:

- In relaxed fields it takes vertical tab and form feed for white space, as dkimpy does. RFC 6376 section 2.8 names
  space and tab alone, and so do we. Not one message of the corpora has them in a field.
- A body whose last line has no end it leaves unsigned without a word when the form is relaxed; we sign what the next
  hop will get (D36).
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from postmeter.mail.message import Field
from postmeter.submission import signing
from tests import corpora
from tests.lab.handed import handed
from tests.lab.keys import make_key
from tests.lab.opendkim import Hashed, OpenDkim

FORMS = ("relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple")
FROM = ("From", b" Alice <alice@example.com>")
Sample = tuple[str, list[tuple[str, bytes]], bytes]
UNSIGNED = re.compile(rb"b=[^;]*$")


@pytest.fixture(params=FORMS)
def judge(request: pytest.FixtureRequest, tmp_path: Path, needs_verifiers: None) -> Iterator[tuple[OpenDkim, str]]:
    key = make_key(tmp_path / "keys", domain="example.com", selector="judge", user="root")
    with OpenDkim(tmp_path, key, form=request.param) as opendkim:
        yield opendkim, request.param


def ours(form: signing.Form, fields: Sequence[tuple[str, bytes]], body: bytes, theirs: Hashed) -> tuple[bytes, bytes]:
    """Body and header in our forms: the fields that OpenDKIM signed, from the bottom up, and its own one last."""
    names = re.search(rb"\sh=([^;]*);", theirs.signature)
    assert names is not None
    left = [Field(name.encode(), value) for name, value in fields]
    header = []
    for name in (re.sub(rb"\s", b"", each).lower() for each in names[1].split(b":")):
        nth = max(nth for nth, field in enumerate(left) if field.key == name)
        found = left.pop(nth)
        header.append(form.field(found.name, found.value) + b"\r\n")
    header.append(form.field(b"DKIM-Signature", UNSIGNED.sub(b"b=", theirs.signature)))
    return b"".join(form.body(body)), b"".join(header)


def differences(judge: tuple[OpenDkim, str], samples: Iterator[Sample]) -> list[str]:
    opendkim, name = judge
    form = signing.form_of(name)
    wrong = []
    with opendkim.session() as mta:
        for what, fields, body in samples:
            theirs = opendkim.hashed(mta, fields, body, sender="alice@example.com")
            if not theirs.signature:
                wrong.append(f"{what}: OpenDKIM did not sign")
            elif (theirs.body, theirs.header) != ours(form, fields, body, theirs):
                wrong.append(what)
    return wrong


def test_mail_that_nobody_here_wrote(judge: tuple[OpenDkim, str], needs_corpora: None) -> None:
    """All of it in `make all`, a few of each corpus in `make test`."""
    samples = corpora.messages() if os.environ.get("POSTMETER_ALL") == "1" else corpora.sample(6)

    def parsed() -> Iterator[Sample]:
        for sample in samples:
            found, body = handed(sample.sendable())
            # OpenDKIM wants one From with a domain that it has a key for, and gives up on others' broken signatures.
            left_out = (b"from", b"dkim-signature")
            fields = [(name.decode(), value) for name, value in found if name.lower() not in left_out]
            yield sample.name, [FROM, *fields], body

    assert differences(judge, parsed()) == []


WORDS = [b" ", b"  ", b"\t", b" \t", b"a", b"Zz", b"\xe4\xf6", b";", b":", b"="]
ENDS = [b"\r\n", b" \r\n", b"\t\r\n", b"\r\n\r\n", b" \t \r\n"]


def test_noise_of_white_space_and_line_ends(judge: tuple[OpenDkim, str]) -> None:
    """Runs of blanks, blank lines at the end, bodies of nothing else, folded and empty fields."""
    dice = random.Random(6376)

    def noise() -> Iterator[Sample]:
        yield "no body", [FROM], b""
        yield "one line end", [FROM], b"\r\n"
        for nth in range(200):
            words = dice.choices([*WORDS, b"\x0b", b"\x00", *ENDS * 2], k=dice.randrange(40))
            body = b"".join(words) + dice.choice(ENDS)
            values = [b"".join(dice.choices([*WORDS, b"\n ", b"\n\t"], k=dice.randrange(12))) for _ in range(4)]
            names = dice.choices(["X-a", "SUBJECT", "to", "X-Long-NAME", "x-A"], k=4)
            yield f"noise {nth}: {values} {body!r}", [FROM, *zip(names, values, strict=True)], body

    assert differences(judge, noise()) == []
