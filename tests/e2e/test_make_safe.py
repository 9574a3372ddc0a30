"""Signatures that survive the road: verified behind a hop that offers neither 8BITMIME nor SMTPUTF8.

Postfix as it is installed by default: it converts what is declared 8bit (D44) and breaks lines over 998 octets (C20).
All else is on: links are tracked, quotas counted. A fixed sample of each corpus in `make test`, all in `make all`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from postmeter.mail import hop, reading, safe
from postmeter.mail.address import domain, from_addresses
from tests import corpora, link_oracle
from tests.e2e.conftest import OpenLab
from tests.lab import verify
from tests.lab.keys import DkimKey, make_key, records
from tests.lab.lab import Lab, letter
from tests.lab.product import Postmeter
from tests.lab.sink import SEVEN_BIT, Delivery

SELECTOR = "road"
FOREIGN = re.compile(rb"(?im)^(?:dkim|domainkey|arc-message)-signature[ \t]*:.*\r\n(?:[ \t].*\r\n)*")
NAME = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")
FRAGILE = {"msg-mime4j/testmsgs/very-very-long-boundary.msg"}
"""Signed, counted and noted as fragile: its boundary is longer than a line may be."""

ENTITY = b"Content-Type: text/plain\r\nContent-Transfer-Encoding: 8bit\r\n\r\ngr\xc3\xbc\xc3\x9fe\r\n"
LABELS = [b"8bit", b"BINARY", b"8bit (so)", b"(x) 8bit", b"8bit; x", b"8bit x", b'"8bit"', b"8-bit", b"7bit", b""]
GLOBAL = [b"", *(b"Content-Transfer-Encoding: %b\r\n" % label for label in (b"8bit", b"7bit", b"quoted-printable"))]
WITHIN = [b"From: gr\xc3\xbc\xc3\x9f@example.net\r\n" + ENTITY, b"Content-Transfer-Encoding: 8bit\r\n\r\nplain\r\n"]


def multipart(*parts: bytes, kind: bytes = b"mixed", boundary: bytes = b"b") -> bytes:
    head = b"Content-Type: multipart/" + kind + b"; boundary=" + boundary + b"\r\n\r\n"
    return head + b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"


QUIRKS = [
    *(b"Content-Transfer-Encoding: " + label + b"\r\n\r\ngr\xc3\xbc\xc3\x9fe\r\n" for label in LABELS),
    *(multipart(b"Content-Transfer-Encoding: " + label + b"\r\n\r\nplain\r\n") for label in LABELS),
    multipart(ENTITY),
    b"Content-Transfer-Encoding: quoted-printable\r\n" + multipart(ENTITY),
    b"Content-Transfer-Encoding: base64\r\n" + multipart(ENTITY + b"y" * 999),
    multipart(ENTITY).replace(b"--b\r\n", b"--b and more\r\n", 1),
    multipart(ENTITY, boundary=b'"b"; boundary=c'),
    multipart(ENTITY, boundary=b"c"),
    multipart(b"Content-Type: message/rfc822\r\n\r\n" + ENTITY),
    multipart(b"\r\n" + ENTITY, kind=b"digest"),
    multipart(b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" + ENTITY),
    multipart(b"Content-Type: message/partial\r\n\r\n" + ENTITY),
    multipart(b"Content-Type: message/external-body\r\n\r\n" + ENTITY),
    multipart(b"Content-Type: message/rfc822\r\n\r\nX-Other: 1\r\n\r\n" + ENTITY),
    *(multipart(label + b"Content-Type: message/global\r\n\r\n" + inner) for label in GLOBAL for inner in WITHIN),
    multipart(b"no field\r\n" + ENTITY),
    multipart(b"Content-Type: message/rfc822\r\nno field\r\n" + ENTITY),
    multipart(b"Content-Type: text/plain\r\n\r\nx").replace(b"--b--\r\n", b"--b--\r\n--b\r\n" + ENTITY),
    multipart(multipart(b"\r\nx").replace(b"b", b"bb")).replace(b"--bb--", b"--bb--\r\n--b\r\n" + ENTITY),
    multipart(b"\r\n" + b"y" * 998),
    multipart(b"\r\n" + b"y" * 999),
    multipart(b"\r\n" + b"y" * 5000),
]


class Road(Lab):
    """A key for every From domain; `make_safe` and Postfix's own settings as they come."""

    def __init__(self, domains: Sequence[str]) -> None:
        sections = {
            "senders": {"from": {"*": "any"}},
            "quota": {"limits": ["100000 messages/day", "10G/day"]},
            "tracking": {"url": link_oracle.BASE, "mail": "all"},
        }
        postmeter = Postmeter(sections)
        self.domains = domains
        folder = postmeter.folder / "keys"
        self.key: DkimKey = make_key(folder, domain="example.com", selector=SELECTOR, user=postmeter.user)
        file = str(self.key.file)
        entries = [{"domain": name, "keys": [{"selector": SELECTOR, "file": file}]} for name in domains]
        postmeter.settings["dkim"] = {"sign": entries}
        postmeter.secrets()
        super().__init__(postmeter=postmeter, hop=SEVEN_BIT)

    def refused(self, arrived: Sequence[Delivery]) -> list[str]:
        """What each verifier says of messages of ours that it does not accept."""
        value = next(iter(records(self.key).values()))
        known = {f"{SELECTOR}._domainkey.{name}": value for name in self.domains}
        verdicts = map(_of_ours, verify.verify_all([each.data for each in arrived], known))
        return [f"{each.body[:200]!r}: {verdict}" for each, verdict in zip([*arrived] * 3, verdicts, strict=True)
                if not verdict.accepted]  # fmt: skip


def _of_ours(verdict: verify.Verdict) -> verify.Verdict:
    return replace(verdict, signatures=tuple(each for each in verdict.signatures if each.selector in (SELECTOR, "")))


def _domains(message: bytes) -> list[str]:
    return [name for known in from_addresses(reading.read(message)[0]) if NAME.fullmatch(name := domain(known))]


def _samples() -> dict[str, bytes]:
    corpora.need()
    samples = corpora.messages() if os.environ.get("POSTMETER_ALL") else corpora.sample(6)
    return {str(each): FOREIGN.sub(b"", each.sendable()) for each in samples}


@pytest.fixture(scope="module")
def road(open_lab: OpenLab) -> Road:
    names = set() if corpora.absent() else {name for raw in _samples().values() for name in _domains(raw)}
    lab = Road(sorted(names | {"example.com"}))
    open_lab(lab)
    return lab


def test_every_signed_message_is_accepted_behind_a_7_bit_hop(road: Road, needs_verifiers: None) -> None:
    """By OpenDKIM, Mail::DKIM and dkimpy."""
    samples = _samples()
    arrived = {name: road.deliver(raw) for name, raw in samples.items()}
    signed = {name: each for name, each in arrived.items() if each.data.startswith(b"DKIM-Signature:")}
    assert len(signed) > 0.6 * len(samples)
    fragile = FRAGILE & signed.keys()
    assert road.refused([each for name, each in signed.items() if name not in fragile]) == []
    assert road.postmeter.metrics().figure("dkim_fragile_total") == len(fragile)


@pytest.mark.parametrize("mail_args", [b"", b"BODY=8BITMIME"])
def test_mail_like_everybodys_is_accepted_there(road: Road, needs_verifiers: None, mail_args: bytes) -> None:
    """8-bit text, plain and in parts; every quirk of labels; a long line; long fields in the header."""
    head = b"From: alice@example.com\r\nTo: reader@example.net\r\nDate: Mon, 02 Nov 2026 10:00:00 +0000\r\n"
    sound = [raw for raw in QUIRKS if not safe.recode(*reading.read(raw)).problem]
    assert len(QUIRKS) - len(sound) == 3  # 8-bit text where Postfix and others do not see the same parts
    letters = [head + b"Message-ID: <%d@example.com>\r\n" % nth + raw for nth, raw in enumerate(sound)]
    letters += [
        letter("Grüße.\r\n" * 50),
        letter("Grüße, <a href='https://example.org/x'>sieh</a>.\r\n" * 50, html=True),
        letter("word " * 1000 + "\r\n"),
        letter(subject="word " * 400),
        letter(fields=["References: " + " ".join(f"<{nth}@example.com>" for nth in range(300))]),
        letter(fields=["List-Unsubscribe: <https://example.com/" + "x" * 2000 + ">"]),
        letter(fields=["X-Spam-Report: " + "x" * 3000]),
    ]
    arrived = [road.deliver(raw, args=mail_args) for raw in letters]
    assert all(each.data.startswith(b"DKIM-Signature:") for each in arrived)
    assert all(b"8bit" not in each.data.lower() or each.data.count(b"8bit") == 1 for each in arrived)
    assert road.refused(arrived) == []


def test_we_know_what_postfix_converts(road: Road) -> None:
    """Through Postfix alone: it changes a message exactly where `hop` says so."""
    samples = {} if corpora.absent() else _samples()
    samples |= {f"quirk {nth}": b"From: alice@example.com\r\n" + raw for nth, raw in enumerate(QUIRKS)}
    compared = 0
    for name, raw in samples.items():
        fields, body = reading.read(raw)
        labels = [one.value.strip().lower() for one in fields if one.key == b"content-transfer-encoding"]
        if {b"7bit", b"quoted-printable", b"base64"} & set(labels):
            continue  # then Postfix takes the whole for 7bit, whatever its parts say (cleanup_message.c)
        wanted = hop.converts(fields, body) or hop.long_line(body) >= 0
        delivery = road.deliver_bare(raw)
        changed = delivery.body.rstrip(b"\r\n") != body.rstrip(b"\r\n")
        top = [value.lower() for value in delivery.values(b"content-transfer-encoding")]
        assert (changed or top != labels) == wanted, name
        compared += 1
    assert compared > len(QUIRKS) - 8
