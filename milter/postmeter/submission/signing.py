"""The last step: DKIM-Signature fields over the message as it will leave.

RFC 6376 section 5, RFC 8463. dkimpy's rules, with the costly operation done by `cryptography` on a kept key. Knows
nothing of who may use a domain (`may_sign` tells) nor of where keys come from. Never l=, which lets others append.
"""

from __future__ import annotations

import hashlib
import logging
from binascii import b2a_base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InternalError

from postmeter.config.schema import Dkim
from postmeter.mail import address, canonical
from postmeter.mail.draft import Draft, Step
from postmeter.mail.message import Envelope, Field, Message
from postmeter.mail.reply import Reply
from postmeter.runtime.logs import OnceAMinute
from postmeter.submission import headers
from postmeter.submission.auid import auid
from postmeter.submission.keyfiles import KeyProblem
from postmeter.submission.keyring import Keyring
from postmeter.submission.keys import SigningKey

once = OnceAMinute(logging.getLogger(__name__))

_NAME = b"DKIM-Signature"
_WIDTH = 76  # RFC 5322 section 2.1.1 asks for 78 at most

# White space of every kind, a field that is folded, one that is there twice: what canonicalization is about.
_SAMPLE = Message(
    Envelope(b""),
    tuple(
        Field(name, value)
        for name, value in (
            (b"Received", b" from client by server"),
            (b"From", b" Postmeter <postmaster@example.com>"),
            (b"To", b" a@example.com,\n\tb@example.com "),
            (b"Subject", b"  a \t sample"),
            (b"List-Unsubscribe", b" <https://example.com/>"),
            (b"list-unsubscribe", b" <mailto:leave@example.com>"),
        )
    ),
    b"two  spaces, \t a tab \r\n\r\nand an end\r\n\r\n",
    queue_id="SAMPLE",
    time=0.0,
    reference=bytes(8),
)

MaySign = Callable[[Draft], str]
"""Empty, or the reason why this message must leave unsigned, as `dkim_unsigned_total` counts it."""


@dataclass(frozen=True, slots=True)
class Form:
    """A canonicalization, as in c=."""

    name: bytes
    field: Callable[[bytes, bytes], bytes]
    body: Callable[[bytes], Iterator[bytes]]


def form_of(name: str) -> Form:
    header, _, body = name.partition("/")
    return Form(
        name.encode(),
        {"relaxed": canonical.relaxed_field, "simple": canonical.simple_field}[header],
        {"relaxed": canonical.relaxed_body, "simple": canonical.simple_body}[body],
    )


def step(dkim: Dkim, keyring: Keyring, *, may_sign: MaySign) -> Step:
    """Sign with all keys of the From domain, or say why not."""
    form = form_of(dkim.canonicalization)
    listed = headers.rules(dkim)
    usual = headers.Order(listed)

    def sign_draft(draft: Draft) -> Reply | None:
        reason = may_sign(draft)
        try:
            keys = () if reason else keyring.for_domain(draft.from_domain, local_part(draft, dkim))
            rules = headers.without_long(draft.fields, listed) if dkim.make_safe else listed
            order = usual if rules is listed else headers.Order(rules)
            identity = _identity(draft, dkim.identity) if dkim.identity else ""
            new = signatures(draft, keys, order=order, form=form, expire=dkim.expire, identity=identity) if keys else []
        except (KeyProblem, ValueError, InternalError) as problem:
            return _failed(draft, str(problem), tempfail=dkim.on_error == "tempfail")
        if not keys:
            _unsigned(draft, reason or "no_key")
        # Each goes on top of all, Postfix's own Received too (D12): RSA, which every verifier knows, becomes the first.
        for field in reversed(new):
            draft.insert_field(field, at=0)
        _record(draft, keys)
        return None

    return sign_draft


def signatures(
    draft: Draft,
    keys: Sequence[SigningKey],
    *,
    order: headers.Order,
    form: Form,
    expire: float | None = None,
    identity: str = "",
) -> list[Field]:
    """One DKIM-Signature field a key, over the draft as it stands; `identity` is the address for i=."""
    choice = order.choose(draft.fields)
    covered = b"".join([form.field(field.name, field.value) + b"\r\n" for field in choice.fields])
    body_hash = _body_hash(draft.body, form)
    made = []
    now = int(draft.message.time)
    times = [b" t=%d;" % now] if expire is None else [b" t=%d;" % now, b" x=%d;" % (now + int(expire))]
    for key in keys:
        named = key.identity or identity
        who = auid(named, key.domain) if named else b""
        more = [b" i=%b;" % who, *times] if who else times
        value = _tags(key, form=form, names=choice.names, body_hash=body_hash, more=more)
        # The field itself comes last, with b= empty and no line end (RFC 6376 section 3.7).
        signature = key.sign(covered + form.field(_NAME, value))
        made.append(Field(_NAME, value + _folded_base64(signature)))
    return made


def disproved(dkim: Dkim, keyring: Keyring) -> list[str]:
    """What dkimpy, which shares no code with us, says against a sample signed as configured: one a kind of key.

    For `check-config`. dkimpy and the resolver it brings are 8 MB, so it is imported here and not in every worker.
    """
    import dkim as dkimpy

    draft, order, form = Draft(_SAMPLE), headers.Order(headers.rules(dkim)), form_of(dkim.canonicalization)
    wrong = []
    for key in keyring.samples():
        [field] = signatures(draft, [key], order=order, form=form)
        raw = b"".join(each.wire() for each in (field, *draft.fields)) + b"\r\n" + draft.body
        record, reason = key.record().encode(), ""
        try:
            accepted = dkimpy.DKIM(raw).verify(dnsfunc=lambda name, timeout=5, record=record: record)
        except dkimpy.NaClNotFoundError:  # without PyNaCl dkimpy cannot tell Ed25519
            continue
        except dkimpy.DKIMException as error:
            accepted, reason = False, f": {error}"
        if not accepted:
            wrong.append(f"dkimpy does not accept what {key.selector}._domainkey.{key.domain} signs{reason}")
    return wrong


def local_part(draft: Draft, dkim: Dkim) -> str:
    """What stands before the @ of the only From address, where the choice of a key may depend on it."""
    authors = address.from_addresses(draft.fields) if dkim.opendkim_tables is not None else []
    return authors[0].rpartition("@")[0] if len(authors) == 1 else ""


def _identity(draft: Draft, wanted: str) -> str:
    """The address that i= shall name. `sender` is the login, also of what a content filter has given back."""
    if wanted == "login":
        return draft.sender
    authors = address.from_addresses(draft.fields) if wanted == "from" else []
    return authors[0] if len(authors) == 1 else ""


def _body_hash(body: bytes, form: Form) -> bytes:
    digest = hashlib.sha256()
    for piece in form.body(body):
        digest.update(piece)  # lets go of the GIL from 2 kB on
    return b2a_base64(digest.digest(), newline=False)


def _tags(key: SigningKey, *, form: Form, names: tuple[bytes, ...], body_hash: bytes, more: list[bytes]) -> bytes:
    """The tag list up to `b=`, folded by LF and space, as Postfix wants it (D15). The leading space is ours (D14)."""
    head, width = _head(key.algorithm, form.name, key.domain, key.selector)
    middle, width = _fold((*more, b" q=dns/txt;"), width)
    listed, width = (_kept_list if len(names) <= _USUAL else _list)(names, width)
    tail, _ = _fold((b" bh=%b;" % body_hash,), width)
    return b" %b%b%b%b\n b=" % (head, middle, listed, tail)


@lru_cache(maxsize=1024)
def _head(algorithm: str, form: bytes, domain: str, selector: str) -> tuple[bytes, int]:
    """The tags of a key, which come first: the same in all its signatures."""
    tags = b"v=1;", b" a=%b;" % algorithm.encode(), b" c=%b;" % form, b" d=%b;" % domain.encode()
    return _fold((*tags, b" s=%b;" % selector.encode()), len(_NAME) + 2)


def _list(names: tuple[bytes, ...], width: int) -> tuple[bytes, int]:
    """h=. White space is allowed around its colons (RFC 6376 section 3.5), so it may be folded behind any of them."""
    listed = [name + b":" for name in names[:-1]] + [names[-1] + b";"]
    return _fold((b" h=" + listed[0], *listed[1:]), width)


_USUAL = 100  # names: senders cannot fill what is kept with longer ones
_kept_list = lru_cache(maxsize=256)(_list)


def _fold(tags: Sequence[bytes], width: int) -> tuple[bytes, int]:
    """The tags in lines, the first of which is `width` wide already; and how wide the last one is."""
    lines = []
    for tag in tags:
        if width + len(tag) > _WIDTH:
            lines.append(b"\n ")
            tag = tag.lstrip()
            width = 1
        lines.append(tag)
        width += len(tag)
    return b"".join(lines), width


def _folded_base64(signature: bytes) -> bytes:
    text = b2a_base64(signature, newline=False)
    first, others = _WIDTH - 3, _WIDTH - 1  # " b=" stands before the first line, a space before the others
    return b"\n ".join([text[:first], *[text[at : at + others] for at in range(first, len(text), others)]])


def _record(draft: Draft, keys: Sequence[SigningKey]) -> None:
    signed = [f"{key.domain}/{key.selector}/{key.algorithm}" for key in keys]
    for key in keys:
        draft.count("dkim_signatures_total", key.domain, key.algorithm)
    if signed:
        draft.facts["signatures"] = signed
        draft.note("dkim", f"signed by {', '.join(signed)}")


def _unsigned(draft: Draft, reason: str) -> None:
    draft.count("dkim_unsigned_total", reason)
    draft.note("dkim", f"not signed: {reason}")


def _failed(draft: Draft, why: str, *, tempfail: bool) -> Reply | None:
    """We hold a key and cannot use it. A bounce is never refused: nobody would be told (RFC 5321 section 4.5.5)."""
    draft.count("errors_total", "dkim")
    draft.note("dkim", f"signing failed: {why}")
    once.log(logging.ERROR, why, "%s: signing failed: %s", draft.message.queue_id, why)
    if tempfail and draft.message.envelope.mail_from:
        return Reply(451, "4.7.5", f"cannot sign mail from {draft.from_domain} now, try again later")
    _unsigned(draft, "error")
    return None
