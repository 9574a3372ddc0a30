"""Which messages and which of their parts may be changed at all, and what is in those that may.

Knows nothing of links. On any doubt the message or the part stays as it is, with a reason to count; D17 and RFC 2046
say what may change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from postmeter.config.schema import Tracking
from postmeter.mail import charset, coding
from postmeter.mail.charset import View
from postmeter.mail.draft import Draft
from postmeter.mail.mime import Part
from postmeter.tracking.bulk import is_bulk

# Reasons for a whole message
NOT_BULK = "not_bulk"  # tracking.mail: bulk
TOO_LARGE = "too_large"  # tracking.max_size
ALREADY_SIGNED = "already_signed"  # somebody else's DKIM or ARC signature covers the body
PGP = "pgp"  # inline
SMIME = "smime"  # application/pkcs7-mime
STRUCTURE = "structure"  # MIME that cannot be read without guessing; also for a part
TOO_MANY_LINKS = "too_many_links"  # tracking.max_links
SIZE_LIMIT = "size_limit"  # would outgrow Postfix's message_size_limit
# Reasons for a part
ATTACHMENT = "attachment"
SIGNED = "signed"  # within multipart/signed
ENCRYPTED = "encrypted"  # within multipart/encrypted
REPORT = "report"  # within multipart/report
CHARSET = "charset"  # unknown, or one in which nobody can tell what is ASCII
ENCODING = "encoding"  # unknown, or not kept strictly
AMP_SIZE = "amp_size"  # would outgrow what Gmail shows of AMP
NO_PLACE = "no_place"  # ends within a comment, a tag or a text: nothing can be put at its end
OF_MESSAGES = (NOT_BULK, TOO_LARGE, ALREADY_SIGNED, PGP, SMIME, STRUCTURE, TOO_MANY_LINKS, SIZE_LIMIT)
OF_PARTS = (ATTACHMENT, SIGNED, ENCRYPTED, REPORT, CHARSET, ENCODING, AMP_SIZE, NO_PLACE)

HTML = "text/html"
AMP = "text/x-amp-html"  # amp.dev/documentation/guides-and-tutorials/learn/email-spec/amp-email-structure
TEXT = "text/plain"

_SIGNATURES = frozenset({b"dkim-signature", b"arc-message-signature"})
_SMIME = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime"})
_AROUND = {"multipart/signed": SIGNED, "multipart/encrypted": ENCRYPTED, "multipart/report": REPORT}
_PGP = b"-----BEGIN PGP "  # RFC 9580 section 6.2


@dataclass(frozen=True, slots=True)
class Leaf:
    """A part that may be changed: its octets decoded, and as ASCII can be looked for."""

    part: Part
    decoded: bytes
    view: View


def refuse(draft: Draft, tracking: Tracking) -> str:
    """Why this message stays as it is, from what its header and its size tell; or nothing."""
    if tracking.mail == "bulk" and not is_bulk(draft, tracking):
        return NOT_BULK
    if len(draft.body) > tracking.max_size:
        return TOO_LARGE
    if not _SIGNATURES.isdisjoint([field.key for field in draft.fields]):
        return ALREADY_SIGNED
    return ""


def refuse_structure(draft: Draft, parts: Sequence[Part], kinds: frozenset[str]) -> str:
    """Why it does, from what its parts are, of which those `kinds` are meant to change; or nothing."""
    known = {part.kind for part in parts}
    if known & _SMIME:
        return SMIME
    if any(part.multipart for part in parts):
        return STRUCTURE
    return PGP if known & kinds and draft.body.rfind(_PGP) >= 0 else ""  # find takes three times as long


def opened(body: bytes, part: Part) -> Leaf | str:
    """What is in the part, or why it stays as it is."""
    if reason := _refuse_part(part):
        return reason
    decoded = coding.decode(body, part.encoding, start=part.body_start, end=part.end)
    if decoded is None:
        return ENCODING
    if _PGP in decoded:
        return PGP
    view = charset.view(decoded, part.params.get("charset", ""))
    if view is None or (view.width > 1 and part.encoding in coding.IDENTITY):  # line ends are octets there
        return CHARSET
    return Leaf(part, decoded, view)


def _refuse_part(part: Part) -> str:
    for around in part.enclosing:
        if around in _AROUND:
            return _AROUND[around]
    if part.broken:
        return STRUCTURE
    if part.disposition not in ("", "inline") or part.named:  # RFC 2183 section 2.8: an unknown one is an attachment
        return ATTACHMENT
    return ""


def shown(parts: Sequence[Part]) -> Part | None:
    """Of some HTML parts the one that a reader sees first: of alternatives the last (RFC 2046 section 5.1.4)."""
    chosen: Part | None = None
    for part in parts:
        if _aside(part):
            continue
        if chosen is None or _alternatives(chosen, part):
            chosen = part
    return chosen


def _aside(part: Part) -> bool:
    """Whether it is a part of multipart/related that is not its first one, the root (RFC 2387 section 3.2)."""
    return any(kind == "multipart/related" and place != "1" for kind, place in _places(part))


def _alternatives(one: Part, other: Part) -> bool:
    """Whether the innermost multipart around both shows only one of them."""
    for (kind, place), (_, elsewhere) in zip(_places(one), _places(other), strict=False):
        if place != elsewhere:
            return kind == "multipart/alternative"
    return False


def _places(part: Part) -> list[tuple[str, str]]:
    """The multiparts around it, each with its place there."""
    return list(zip(part.enclosing, part.path.split("."), strict=False))
