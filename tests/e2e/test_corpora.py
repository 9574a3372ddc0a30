"""Mail that nobody here wrote, through a real Postfix with every step on: what arrives differs only where recorded.

A fixed sample of each corpus in `make test`, all of it in `make all`. Signed for whatever domain its From bears; other
signatures are taken out first, since some verifiers give up on a message that holds a broken one (test_signatures).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from postmeter.mail.address import domain, from_addresses
from postmeter.mail.reading import read
from tests import corpora, link_oracle
from tests.e2e.conftest import OpenLab
from tests.lab.keys import DkimKey, make_key, records
from tests.lab.lab import ALICE, Lab
from tests.lab.product import Postmeter
from tests.lab.sink import Delivery
from tests.lab.verify import Verdict, verify_all

SELECTOR = "corpus"
OURS = re.compile(rb"DKIM-Signature:(?:[^\r\n]|\r\n[ \t])*\r\n")
FOREIGN = re.compile(rb"(?im)^(?:dkim|domainkey)-signature[ \t]*:.*\r\n(?:[ \t].*\r\n)*")
UNSAFE = re.compile(rb"(?i)\ncontent-transfer-encoding:\s*(?:8bit|binary)|[^\n]{999}")
NAME = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")


@dataclass
class Pair:
    """One message with postmeter and without."""

    name: str
    ours: Delivery
    bare: Delivery

    @property
    def signature(self) -> bytes:
        found = OURS.match(self.ours.data)
        return found[0] if found else b""

    @property
    def unsigned(self) -> bytes:
        """What arrived, without our signature and Postfix's Received field."""
        return replace(self.ours, data=self.ours.data[len(self.signature) :]).as_sent


class Corpus(Lab):
    """Everything on: quota, links in all mail, a key for every From domain."""

    def __init__(self, domains: Sequence[str]) -> None:
        postmeter = Postmeter(
            {
                "senders": {"from": {"*": "any"}},
                "quota": {"limits": ["100000 messages/day", "10G/day"]},
                "tracking": {"url": link_oracle.BASE, "mail": "all"},
            }
        )
        self.key: DkimKey = make_key(
            postmeter.folder / "keys", domain="example.com", selector=SELECTOR, user=postmeter.user
        )
        file = str(self.key.file)
        entries = [{"domain": name, "keys": [{"selector": SELECTOR, "file": file}]} for name in domains]
        postmeter.settings["dkim"] = {"sign": entries}
        postmeter.secrets().write_text(bytes(range(32)).hex() + "\n")  # the secret that link_oracle knows
        # Without the local rewriting that adds fields, and the line limit that breaks long lines of what is sent bare:
        # this is about what we do to a message. What it is good for is seen with Postfix's own settings, in
        # test_make_safe.
        settings = {"local_header_rewrite_clients": "", "smtp_line_length_limit": "0"}
        super().__init__(postmeter=postmeter, postfix=settings)


@dataclass
class Sent:
    lab: Corpus
    pairs: list[Pair]


@pytest.fixture(scope="module")
def sent(open_lab: OpenLab) -> Sent:
    """Each message sent twice."""
    corpora.need()
    samples = corpora.messages() if os.environ.get("POSTMETER_ALL") else corpora.sample(5)
    messages = {str(each): FOREIGN.sub(b"", each.sendable()) for each in samples}
    domains = {name for message in messages.values() for name in _domains(message)}
    lab = Corpus(sorted(domains))
    open_lab(lab)
    made = [Pair(name, lab.deliver(message), lab.deliver_bare(message)) for name, message in messages.items()]
    return Sent(lab, made)


def _domains(message: bytes) -> list[str]:
    return [name for known in from_addresses(read(message)[0]) if NAME.fullmatch(name := domain(known))]


def test_only_links_and_codings_differ(sent: Sent) -> None:
    """Judged by the email package and html.parser; other than by a link only what a later hop would change changes."""
    rewritten = 0
    for pair in sent.pairs:
        if pair.unsigned != pair.bare.as_sent:
            changed = link_oracle.assert_only_links_differ(pair.bare.as_sent, pair.unsigned)
            assert changed or UNSAFE.search(pair.bare.as_sent), f"{pair.name}: changed, and no link in it"
            rewritten += changed
    assert rewritten >= 10


def test_every_signature_is_accepted_by_all_verifiers(sent: Sent, needs_verifiers: None) -> None:
    signed = [pair for pair in sent.pairs if pair.signature]
    assert len(signed) > 0.6 * len(sent.pairs)
    names = {found[1].decode() for pair in signed if (found := re.search(rb"d=([^;\s]+)", pair.signature))}
    value = next(iter(records(sent.lab.key).values()))
    known = {f"{SELECTOR}._domainkey.{name}": value for name in names}
    verdicts = verify_all([pair.ours.data for pair in signed], known)
    refused = [str(verdict) for verdict in map(_of_ours, verdicts) if not verdict.accepted]
    assert not refused


def _of_ours(verdict: Verdict) -> Verdict:
    mine = tuple(each for each in verdict.signatures if each.selector in (SELECTOR, ""))
    return replace(verdict, signatures=mine)


def test_what_is_unsigned_has_no_single_from_address(sent: Sent) -> None:
    for pair in sent.pairs:
        if not pair.signature:
            assert len(_domains(FOREIGN.sub(b"", pair.bare.as_sent))) != 1, pair.name


def test_the_journal_has_every_message(sent: Sent) -> None:
    lab = sent.lab
    lab.postmeter.wait_figure(len(sent.pairs), "messages_total", service="ORIGINATING", result="accepted")
    lab.postmeter.wait_figure(len(sent.pairs), "recipients_total")
    signed = sum(bool(pair.signature) for pair in sent.pairs)
    assert signed + lab.postmeter.metrics().figure("dkim_unsigned_total") == len(sent.pairs)
    assert ALICE in lab.postmeter.run("quota", "show").stdout.decode()
