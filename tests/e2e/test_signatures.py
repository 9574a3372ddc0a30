"""Other people's verifiers on our signatures over every message of the corpora: OpenDKIM, Mail::DKIM and dkimpy.

Signed in process, as the milter would, and verified as Postfix would deliver it; what later hops do to a message on its
road is another matter (`test_make_safe`).

Where the three disagree, as looked into on 836 messages:
- OpenDKIM says permerror to any message whose From holds no address (`From: MAILER-DAEMON <>`, `From: me`); the others
  accept it. We sign no such message, so here its From is replaced.
- `opendkim -t` cannot read a field over 64 KiB; Postfix cuts at 60,000 octets (D15), and so does `message`.
- A DKIM-Signature of somebody else's that is cut short makes OpenDKIM give up on the whole message, so those are taken
  out here. Mail::DKIM reports DomainKey-Signatures too: only ours are judged.
- Mail::DKIM in Debian 12 knows no Ed25519 and calls it invalid, which the lab counts as "cannot say".
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from postmeter.config.schema import Dkim, KeyEntry, SignEntry
from postmeter.mail import address
from postmeter.mail.draft import Draft
from postmeter.mail.message import Envelope, Field, Message
from postmeter.submission import keyring, signing
from tests import corpora
from tests.e2e.conftest import OpenLab
from tests.e2e.test_make_safe import FRAGILE
from tests.lab import verify
from tests.lab.handed import handed
from tests.lab.keys import make_key, records
from tests.lab.lab import ALICE, Lab
from tests.lab.opendkim import OpenDkimVerifier
from tests.lab.product import Postmeter

NAMES = ("rsa", "ed25519")
Verifier = Callable[[Sequence[bytes], verify.Records], list[verify.Verdict]]
FROM = Field(b"From", b" Alice <alice@example.com>")


def message(raw: bytes) -> Message:
    """As a step gets it: nobody else's signature, and a From to sign for where there is none."""
    found, body = handed(raw)
    fields = [field for field in (Field(*each) for each in found) if field.key != b"dkim-signature"]
    if not address.from_addresses(fields):
        fields = [*(field for field in fields if field.key != b"from"), FROM]
    envelope = Envelope(b"alice@example.com")
    return Message(envelope, tuple(fields), body, queue_id="Q", time=1_700_000_000.0, reference=b"12345678")


def delivered(draft: Draft) -> bytes:
    return b"".join(field.wire() for field in draft.fields) + b"\r\n" + draft.body


def of_ours(verdict: verify.Verdict) -> verify.Verdict:
    mine = tuple(each for each in verdict.signatures if each.domain in ("example.com", "") and each.selector in NAMES)
    return replace(verdict, signatures=mine)


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dkim, dict[str, str]]:
    folder = tmp_path_factory.mktemp("keys")
    pair = [make_key(folder, domain="example.com", selector=name, algorithm=name, user="root") for name in NAMES]
    entries = tuple(KeyEntry(selector=key.selector, file=Path(key.file)) for key in pair)
    return Dkim(sign=(SignEntry(domain="example.com", keys=entries),)), records(*pair)


OTHERS = (verify.verify_mail_dkim, verify.verify_dkimpy)
ALL = (verify.verify_opendkim, *OTHERS)


def refused(
    names: Sequence[str], signed: Sequence[bytes], keys_in_dns: dict[str, str], by: Sequence[Verifier] = ALL
) -> list[str]:
    """What each verifier says of the messages whose signatures it does not accept."""
    found = []
    for verifier in by:
        verdicts = map(of_ours, verifier(signed, keys_in_dns))
        found += [f"{name}: {each}" for name, each in zip(names, verdicts, strict=True) if not each.accepted]
    return found


def test_three_verifiers_accept_our_signature_on_every_message(
    section: tuple[Dkim, dict[str, str]], needs_corpora: None, needs_verifiers: None
) -> None:
    step = signing.step(section[0], keyring.load(section[0]), may_sign=lambda draft: "")
    samples = corpora.messages()
    signed = []
    for sample in samples:
        draft = Draft(message(sample.sendable()))
        draft.from_domain = "example.com"
        assert step(draft) is None
        signed.append(delivered(draft))
    found = refused([sample.name for sample in samples], signed, section[1])
    assert not found, f"{len(found)} of {len(samples)}: {found[:20]}"


def test_three_verifiers_accept_what_a_real_postfix_delivers(
    open_lab: OpenLab, needs_corpora: None, needs_verifiers: None
) -> None:
    """Fields as libmilter gives them, ours as Postfix puts them in; to a next hop that takes 8 bits."""
    postmeter = Postmeter()
    pair = [postmeter.key("example.com", name, name) for name in NAMES]
    lab = open_lab(Lab(postmeter=postmeter))
    samples = corpora.messages() if os.environ.get("POSTMETER_ALL") == "1" else corpora.sample(8)
    samples = tuple(sample for sample in samples if sample.name not in FRAGILE)
    signed = through(lab, samples)
    found = refused([sample.name for sample in samples], signed, records(*pair))
    assert not found, f"{len(found)} of {len(samples)}: {found[:20]}"
    postmeter.wait_figure(len(samples), "dkim_signatures_total", domain="example.com", algorithm="rsa-sha256")


@pytest.mark.parametrize("form", ["relaxed/simple", "simple/relaxed", "simple/simple"])
def test_three_verifiers_accept_every_form_behind_a_real_postfix(
    open_lab: OpenLab, tmp_path: Path, form: str, needs_corpora: None, needs_verifiers: None
) -> None:
    """In simple form each space counts that Postfix hands over and delivers, after the colon too (D14).

    So OpenDKIM is asked as a milter: `opendkim -t` puts one space behind each colon, and calls what had two altered.
    """
    postmeter = Postmeter({"dkim": {"canonicalization": form}})
    pair = [postmeter.key("example.com", name, name) for name in NAMES]
    lab = open_lab(Lab(postmeter=postmeter))
    samples = tuple(sample for sample in corpora.sample(3) if sample.name not in FRAGILE)
    signed = through(lab, samples)
    with lab.client() as client:
        client.send(ODD, mail_from=ALICE, rcpt_to=["odd@example.net"])
    signed.append(lab.sink.wait_for(b"odd@example.net").data)
    names = [*(sample.name for sample in samples), "odd"]
    found = refused(names, signed, records(*pair), by=OTHERS)
    with OpenDkimVerifier(tmp_path, records(*pair)) as opendkim, opendkim.session("192.0.2.1") as mta:
        for name, raw in zip(names, signed, strict=True):
            fields, body = handed(raw)
            said = opendkim.results(mta, [(field.decode(), value) for field, value in fields], body)
            passed = [f"s={each}" in result for each in NAMES for result in PASSED.findall(said)]
            found += [] if sum(passed) == 2 else [f"{name}: OpenDKIM: {said}"]
    assert not found, f"{len(found)} of {len(signed)}: {found[:20]}"


ODD = (
    b"From:alice@example.com\r\nTo:\tb@example.net\r\nSubject:   wide  \r\n\t folded \r\nDate:\r\n x\r\nX-A:\r\n\r\n"
    b" \t a  b \r\n\r\n \r\n\r\n"
)
PASSED = re.compile(r"dkim=pass[^;]*header\.d=example\.com[^;]*")


def through(lab: Lab, samples: Sequence[corpora.Sample]) -> list[bytes]:
    """What arrives of them, in their order, sent by alice in her own name."""
    with lab.client() as client:
        for nth, sample in enumerate(samples):
            whole = message(sample.sendable())
            fields = [field for field in whole.fields if field.key not in (b"from", b"received")]
            raw = b"".join(field.wire() for field in (FROM, *fields)) + b"\r\n" + whole.body
            client.send(raw, mail_from=ALICE, rcpt_to=[f"reader{nth}@example.net"])
    return [lab.sink.wait_for(f"reader{nth}@example.net".encode()).data for nth in range(len(samples))]
