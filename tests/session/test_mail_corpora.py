"""Parts of mail that nobody here wrote, as they are found and as they are made safe, judged by the email package."""

from __future__ import annotations

import email
import re
from collections.abc import Sequence

import pytest

from postmeter.mail import coding, mime, reading, safe
from postmeter.mail.message import Field
from tests import corpora

FOREIGN = re.compile(rb"(?im)^(?:dkim|domainkey|arc-message)-signature[ \t]*:.*\r\n(?:[ \t].*\r\n)*")

pytestmark = pytest.mark.usefixtures("needs_corpora")


def test_corpus_parts_are_those_of_the_email_package() -> None:
    """Where the email package sees no defect and we see nothing broken, both see the same parts with the same bytes."""
    compared = 0
    for sample in corpora.messages():
        raw = sample.sendable()
        fields, body = reading.read(raw)
        parts = [part for part in mime.leaves(fields, body) if part.start < part.end or not part.enclosing]
        parsed = list(email.message_from_bytes(raw).walk())
        theirs = [one for one in parsed if one.get_content_maintype() not in ("multipart", "message")]
        theirs = [one for one in theirs if one.keys() or one.get_payload() or len(parsed) == 1]
        if any(one.defects or one.get_content_maintype() == "message" for one in parsed):
            continue
        if any(part.broken or part.kind.startswith("message/") for part in parts):
            continue
        assert [part.kind for part in parts] == [one.get_content_type() for one in theirs], sample.name
        for part, one in zip(parts, theirs, strict=True):
            ours = coding.decode(body[part.body_start : part.end], part.encoding)
            named = str(one.get("content-transfer-encoding", "7bit")).lower()
            if ours is not None and named == part.encoding:  # all else every program decodes in its own way
                assert ours == one.get_payload(decode=True), (sample.name, part.path)
                compared += 1
    assert compared > 200


def test_what_is_made_safe_decodes_to_what_it_was() -> None:
    """Each leaf as it was; what is not changed is the same octets; one message stays fragile."""
    fragile, changed = [], 0
    for sample in corpora.messages():
        raw = FOREIGN.sub(b"", sample.sendable())
        fields, body = reading.read(raw)
        done = safe.recode(fields, body)
        if done.problem:
            fragile.append(sample.name.rpartition("/")[2])
        if done.parts:
            changed += 1
            header = safe.labelled(fields, done.label)
            if done.label and not any(one.key == b"content-transfer-encoding" for one in fields):
                header.append(Field(b"Content-Transfer-Encoding", b" " + done.label.encode()))
            assert leaves(header, done.body) == leaves(fields, body), sample.name
        else:
            assert done.body == body
    assert fragile == ["very-very-long-boundary.msg"]  # a delimiter line of over 998 octets
    assert changed > 70


def leaves(fields: Sequence[Field], body: bytes) -> list[object]:
    """What is in the leaves, as the email package decodes it."""
    whole = b"".join(field.wire() for field in fields) + b"\r\n" + body
    return [part.get_payload(decode=True) for part in email.message_from_bytes(whole).walk() if not part.is_multipart()]
