"""Links become tracked links: which parts of a message may be touched, and the change of only the bytes of `href`.

Pure but for what it does to the draft. Refuses to know what is shown to whom: a body is one for all recipients. On any
doubt the message, the part or the link stays as it is and the reason is counted; D17 and RFC 2046 say what may change.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TypeAlias

from postmeter.config.schema import Tracking
from postmeter.mail import coding, html, mime
from postmeter.mail.coding import Edit
from postmeter.mail.draft import Draft, Step
from postmeter.mail.message import Field, PartChange
from postmeter.mail.mime import Part
from postmeter.token import Mint
from postmeter.tracking import targets
from postmeter.tracking.bulk import is_bulk
from postmeter.tracking.settings import Sections, own_hosts
from postmeter.tracking.targets import Rules

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
CHARSET = "charset"  # unknown, or one that does not keep ASCII where it is
ENCODING = "encoding"  # unknown, or not kept strictly
_OF_MESSAGES = (NOT_BULK, TOO_LARGE, ALREADY_SIGNED, PGP, SMIME, STRUCTURE, TOO_MANY_LINKS, SIZE_LIMIT)
_OF_PARTS = (ATTACHMENT, SIGNED, ENCRYPTED, REPORT, CHARSET, ENCODING)
REASONS = _OF_MESSAGES + _OF_PARTS + targets.REASONS

_ROOM = 8192  # what later steps may add: two signatures, a few fields
_MOST_TAGS = 50_000  # links looked at in a part, tracked or not: half a second; those behind them stay as they are
_SIGNATURES = frozenset({b"dkim-signature", b"arc-message-signature"})
_SMIME = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime"})
_AROUND = {"multipart/signed": SIGNED, "multipart/encrypted": ENCRYPTED, "multipart/report": REPORT}
_PGP = b"-----BEGIN PGP "  # RFC 9580 section 6.2
_ASCII_INSIDE = re.compile(  # charsets in which an octet below 0x40 is always that ASCII character
    r"(?:us-ascii|ascii|ansi_x3\.4-1968|utf-?8|iso[-_]?8859[-_][0-9]{1,2}(?:-[ei])?|latin-?[0-9]{1,2}"
    r"|windows-(?:125[0-8]|874|31j|949)|cp-?(?:125[0-8]|437|850|852|866|874|932|936|949|950)|ibm(?:437|850|852|866)"
    r"|koi8-[ru]|koi8-ru|macintosh|x-mac-[a-z]+|tis-620|viscii|gb2312|gbk|gb18030|big5(?:-hkscs)?|euc-(?:jp|kr|cn|tw)"
    r"|ks_c_5601-1987|shift[-_]jis|sjis|x-sjis)"
)
_ENCODING_FIELD = b"Content-Transfer-Encoding"
_QUOTED = b" quoted-printable"
_ANGLED = re.compile(rb"<([^<>]*)>")


_Judge: TypeAlias = Callable[[Rules, bytes, bool], tuple[str, str]]
_KEPT = 2048  # values whose verdict is remembered: the copies of a newsletter share most of their links
_REMEMBERED = 500  # octets of such a value at most: some 3 MB a process in all


@dataclass(frozen=True, slots=True)
class _Page:
    """An HTML part that can be read, and its links that may be tracked, each with its target."""

    part: Part
    raw: bytes
    decoded: bytes
    links: tuple[tuple[html.Link, str], ...]


def step(tracking: Tracking, tokens: Mint, *, size_limit: int) -> Step:
    """`size_limit` is Postfix's message_size_limit, 0 for none: no message may outgrow it."""
    sections = Sections(tracking, partial(Rules, own=own_hosts(tracking)))
    judge = lru_cache(maxsize=_KEPT)(Rules.judge)

    def rewrite_links(draft: Draft) -> None:
        if draft.free:
            return
        rules = sections.of(draft.from_domain, draft.message.envelope.login)
        if rules.tracking.url is not None and rules.tracking.links != "off":
            _Rewrite(draft, rules, judge, tokens, size_limit).run(rules.tracking.url)

    return rewrite_links


class _Rewrite:
    """One message's links, from the look at the whole to the changed body."""

    __slots__ = ("_draft", "_judge", "_limit", "_rules", "_skipped", "_tokens")

    def __init__(self, draft: Draft, rules: Rules, judge: _Judge, tokens: Mint, size_limit: int) -> None:
        self._draft = draft
        self._rules = rules
        self._judge = judge
        self._tokens = tokens
        self._limit = size_limit
        self._skipped: Counter[str] = Counter()

    def run(self, base_url: str) -> None:
        parts = self._parts()
        pages = self._pages(parts)
        found = sum(len(page.links) for page in pages)
        if found > self._rules.tracking.max_links:
            self._leave(TOO_MANY_LINKS)
        elif found:
            self._change(base_url, pages)
        self._tell()

    def _parts(self) -> Sequence[Part]:
        """The HTML parts, unless the message has to stay as it is."""
        reason = refuse(self._draft, self._rules.tracking)
        parts = () if reason else mime.leaves(self._draft.fields, self._draft.body)
        reason = reason or _structure(self._draft, parts)
        if reason:
            self._leave(reason)
            return ()
        return [part for part in parts if part.kind == "text/html"]

    def _leave(self, reason: str) -> None:
        """The message stays as it is: what was found about its links no longer matters."""
        self._skipped = Counter({reason: 1})

    def _pages(self, parts: Sequence[Part]) -> list[_Page]:
        unsubscribe = _unsubscribe_urls(self._draft.fields)
        pages: list[_Page] = []
        for part in parts:
            raw = self._draft.body[part.body_start : part.end]
            reason = _refuse_part(part)
            decoded = None if reason else coding.decode(raw, part.encoding)
            if decoded is None or _PGP in decoded:
                self._skipped[reason or (ENCODING if decoded is None else PGP)] += 1
                continue
            utf8 = part.params.get("charset", "").lower() in ("utf-8", "utf8")
            pages.append(_Page(part, raw, decoded, self._links(decoded, unsubscribe, utf8=utf8)))
        return pages

    def _links(
        self, document: bytes, unsubscribe: frozenset[str], *, utf8: bool
    ) -> tuple[tuple[html.Link, str], ...]:
        kept: list[tuple[html.Link, str]] = []
        for seen, link in enumerate(html.links(document)):
            if len(kept) > self._rules.tracking.max_links or seen > _MOST_TAGS:
                break
            value = document[link.start : link.end]
            url, reason = (self._judge if len(value) <= _REMEMBERED else Rules.judge)(self._rules, value, utf8)
            if not reason and url in unsubscribe:
                reason = targets.UNSUBSCRIBE
            reason = reason or targets.refuse_text(html.visible_text(document, link))
            if reason:
                self._skipped[reason] += 1
            else:
                kept.append((link, url))
        return tuple(kept)

    def _change(self, base_url: str, pages: Sequence[_Page]) -> None:
        edits: list[Edit] = []
        changes: list[PartChange] = []
        recoded = False
        number = 0
        for page in pages:
            tracked = self._tracked(base_url, page, number)
            coded = coding.change(page.raw, page.decoded, page.part.encoding, tracked) if tracked else None
            if coded is None:
                self._skipped[ENCODING] += bool(tracked)
                continue
            number += len(tracked)
            label = coded.encoding != page.part.encoding
            recoded = recoded or (label and not page.part.enclosing)
            edits += _label(self._draft.body, page.part) if label and page.part.enclosing else ()
            edits.append(Edit(page.part.body_start, page.part.end, coded.raw))
            changes.append(PartChange(page.part.path, "links, recoded" if label else "links", len(tracked)))
        self._commit(coding.splice(self._draft.body, edits), tuple(changes), recoded=recoded)

    def _tracked(self, base_url: str, page: _Page, number: int) -> list[Edit]:
        reference = self._draft.message.reference
        return [
            Edit(
                link.start,
                link.end,
                self._tokens.link_url(base_url, reference=reference, link=at, target=url).encode("ascii"),
            )
            for at, (link, url) in enumerate(page.links, number + 1)
        ]

    def _commit(self, body: bytes, changes: tuple[PartChange, ...], *, recoded: bool) -> None:
        draft = self._draft
        number = sum(change.count for change in changes)
        if self._limit and draft.message.size() + len(body) - len(draft.body) + _ROOM > self._limit:
            self._leave(SIZE_LIMIT)
        elif number:
            draft.replace_body(body, changes)
            if recoded:
                _label_message(draft)
            draft.count("links_rewritten_total", by=number)
            draft.facts["links"] = number
            draft.facts["parts"] = [
                {"path": change.path, "reason": change.reason, "count": change.count} for change in changes
            ]
            for change in changes:
                draft.note("links", _told(change))

    def _tell(self) -> None:
        for reason, count in self._skipped.items():
            self._draft.count("rewrite_skipped_total", reason, by=count)
            self._draft.note("links", f"left as it was, {count} time{'s' * (count > 1)}: {reason}")


def _told(change: PartChange) -> str:
    recoded = ", and the part is quoted-printable now" if "recoded" in change.reason else ""
    return f"{change.count} link{'s' * (change.count > 1)} tracked in part {change.path}{recoded}"


def refuse(draft: Draft, tracking: Tracking) -> str:
    """Why no link of this message is tracked, from what its header and its size tell; or nothing."""
    if tracking.mail == "bulk" and not is_bulk(draft, tracking):
        return NOT_BULK
    if len(draft.body) > tracking.max_size:
        return TOO_LARGE
    if any(field.name.lower() in _SIGNATURES for field in draft.fields):
        return ALREADY_SIGNED
    return ""


def _structure(draft: Draft, parts: Sequence[Part]) -> str:
    """Why no link of this message is tracked, from what its parts are; or nothing."""
    kinds = {part.kind for part in parts}
    if kinds & _SMIME:
        return SMIME
    if any(part.multipart for part in parts):
        return STRUCTURE
    return PGP if "text/html" in kinds and _PGP in draft.body else ""


def _refuse_part(part: Part) -> str:
    for around in part.enclosing:
        if around in _AROUND:
            return _AROUND[around]
    if part.broken:
        return STRUCTURE
    if part.disposition not in ("", "inline") or part.named:  # RFC 2183 section 2.8: an unknown one is an attachment
        return ATTACHMENT
    charset = part.params.get("charset", "us-ascii").strip().lower()
    return "" if _ASCII_INSIDE.fullmatch(charset) else CHARSET


def _unsubscribe_urls(fields: Sequence[Field]) -> frozenset[str]:
    """The URLs of List-Unsubscribe (RFC 2369 section 2: white space within is not meant)."""
    values = (field.value for field in fields if field.name.lower() == b"list-unsubscribe")
    return frozenset(b"".join(url.split()).decode("latin-1") for value in values for url in _ANGLED.findall(value))


def _label(body: bytes, part: Part) -> list[Edit]:
    """The change in a part's header that says it is quoted-printable now."""
    if part.encoding_span:
        start, end = part.encoding_span
        return [Edit(start, end, _QUOTED + (b"\r" if body[end - 1 : end] == b"\r" else b""))]
    line_end = b"\r\n" if body[: part.start].endswith(b"\r\n") else b"\n"
    return [Edit(part.start, part.start, _ENCODING_FIELD + b":" + _QUOTED + line_end)]


def _label_message(draft: Draft) -> None:
    """The same for a message that is no multipart."""
    known = [field.name for field in draft.fields if field.key == _ENCODING_FIELD.lower()]
    if known:
        draft.replace_field(known[0], nth=1, value=_QUOTED)
    else:
        draft.insert_field(Field(_ENCODING_FIELD, _QUOTED), at=len(draft.fields) + 1)
