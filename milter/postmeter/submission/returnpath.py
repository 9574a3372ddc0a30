"""The step that says where bounces and complaints go: a tagged return path, ENVID, Feedback-ID, CFBL-Address.

RFC 5321 section 4.4, RFC 3461 (ENVID), RFC 9477 (CFBL-Address). The address is of the From domain's entry, so that SPF
stays aligned. Knows nothing of what comes back, nor of what bulk mail is, which it is told.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from postmeter.config.schema import Bounces
from postmeter.mail import address
from postmeter.mail.draft import Draft, Step
from postmeter.mail.message import Envelope, Field
from postmeter.tag import Tagger, fits, tagged

FEEDBACK_ID, CFBL_ADDRESS, CFBL_FEEDBACK_ID = b"Feedback-ID", b"CFBL-Address", b"CFBL-Feedback-ID"

_NOT_A_WORD = re.compile(r"[^A-Za-z0-9._@-]+")
_LONGEST = 60  # letters of a part of Feedback-ID, so that it fits one line
_ROOM = 1024  # octets that our fields may take, and signatures after them
_SENDER_ID = "postmeter"  # of 5 to 15 letters, the same in all mail: support.google.com/mail/answer/6254652


def step(bounces: Bounces, tagger: Tagger, *, bulk: Callable[[Draft], bool], size_limit: int = 0) -> Step:
    """`size_limit` is Postfix's message_size_limit, 0 for none."""

    def mark_returns(draft: Draft) -> None:
        reason = _spare(draft)
        is_bulk = not reason and bulk(draft)
        if not reason and bounces.tag == "bulk" and not is_bulk:
            reason = "it is not bulk mail"
        if reason:
            draft.note("return path", f"left as it is: {reason}")
            return
        if is_bulk:
            draft.facts["bulk"] = True
        tag = tagger.tag(draft.message.reference)
        _replace_sender(draft, bounces, tagger, tag)
        if not size_limit or draft.size + _ROOM < size_limit:
            _add_fields(draft, bounces, tagger, tag)

    return mark_returns


def _spare(draft: Draft) -> str:
    """Why nothing is to be done: a bounce must not come back, and who borrows a domain is not spoken for by it."""
    if not draft.message.envelope.mail_from:
        return "it has none"
    if draft.free:
        return f"it is a {draft.free}" if draft.free != "marked" else "it was here before"
    if draft.borrowed:
        return "its login may not use this From domain"
    return "" if draft.from_domain else "it has no one From domain"


def _replace_sender(draft: Draft, bounces: Bounces, tagger: Tagger, tag: str) -> None:
    base = bounces.domains.get(draft.from_domain)
    if base is None:
        draft.note("return path", f"left as it is: {draft.from_domain} is not in bounces.domains")
    elif tagger.open_address(address.text(draft.message.envelope.mail_from)) is not None:
        draft.note("return path", "left as it is: it has a tag of ours")
    elif not fits(base):
        draft.note("return path", f"left as it is: {base} has no room for a tag")
    else:
        new = tagged(base, tag, delimiter=bounces.delimiter)
        args = (f"ENVID={tag}".encode(),) if bounces.envid and may_set_envid(draft.message.envelope) else ()
        draft.replace_sender(new.encode(), args)
        draft.facts["return_path"] = new
        draft.note("return path", f"bounces come to {new}{', with that ENVID' if args else ''}")


def may_set_envid(envelope: Envelope) -> bool:
    """Only where the client sent none (RFC 3461 section 4.4). Of sendmail(1)'s mail Postfix tells us nothing."""
    return envelope.waits and not any(arg[:6].upper() == b"ENVID=" for arg in envelope.args)


def _add_fields(draft: Draft, bounces: Bounces, tagger: Tagger, tag: str) -> None:
    """At the end of the header, each only where there is none. DKIM covers them (RFC 9477 section 3.1.4)."""
    known = {field.key for field in draft.fields}
    wanted = []
    if bounces.feedback_id:
        wanted.append((FEEDBACK_ID, _feedback_id(draft, tagger)))
    if bounces.cfbl_address and CFBL_ADDRESS.lower() not in known:
        if _covers(bounces.cfbl_address, draft.from_domain):
            wanted += [(CFBL_ADDRESS, f"{bounces.cfbl_address}; report=arf"), (CFBL_FEEDBACK_ID, tag)]
        else:
            draft.note("return path", f"no CFBL-Address: it is not of {draft.from_domain}, nor below it (RFC 9477)")
    for name, value in wanted:
        if name.lower() not in known:
            draft.insert_field(Field(name, f" {value}".encode()), at=len(draft.fields) + 1)
            draft.note("return path", f"{name.decode()}: {value}")


def _covers(cfbl_address: str, from_domain: str) -> bool:
    """RFC 9477 section 3.1: its domain is the From domain or below it; another would have to sign the mail as well."""
    return f".{address.domain(cfbl_address)}".endswith(f".{from_domain}")


def _feedback_id(draft: Draft, tagger: Tagger) -> str:
    """campaign:login:domain:postmeter. A login that the From field does not show stands there by a pseudonym."""
    login, authors = draft.sender, address.from_addresses(draft.fields)
    shown = login.partition("@")[0] if login.lower() in [author.lower() for author in authors] else ""
    parts = (draft.wishes.campaign, shown or tagger.pseudonym(login), draft.from_domain)
    return ":".join([*(_NOT_A_WORD.sub("-", part)[:_LONGEST] for part in parts), _SENDER_ID])
