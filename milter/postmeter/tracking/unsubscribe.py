"""One-click unsubscribe (RFC 8058): the step that gives bulk mail List-Unsubscribe and List-Unsubscribe-Post.

Only to mail of one recipient, for the address is in the token, and only where nobody else has thought of it. Knows
nothing of what becomes of a POST, which is `leaving`'s, nor of signatures: both fields are in our default list of those
that are signed, as section 4 demands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import quote

from postmeter.config.schema import Tracking
from postmeter.mail.draft import Draft, Step
from postmeter.mail.hop import long_line
from postmeter.mail.message import Field
from postmeter.mail.scope import scope
from postmeter.token import Mint, Unsubscribe
from postmeter.tracking.bulk import is_bulk
from postmeter.tracking.settings import Sections

_FIELD, _POST = b"List-Unsubscribe", b"List-Unsubscribe-Post"
_ONE_CLICK = b" List-Unsubscribe=One-Click"
_OURS = frozenset({_FIELD.lower(), _POST.lower()})
_SIGNATURES = frozenset({b"dkim-signature", b"arc-message-signature"})
_PLAIN = "@!$'*+-._~"  # what stands in an address and has no other meaning in a URL (RFC 6068 section 2)
_ROOM = 4096  # what later steps may add: two signatures, a few fields


def wanted(tracking: Tracking) -> bool:
    """Whether mail of anybody gets one."""
    overrides = (*tracking.domains.values(), *tracking.logins.values())
    return tracking.unsubscribe or any(keys.get("unsubscribe") for keys in overrides)


def step(tracking: Tracking, tokens: Mint, *, nonce: Callable[[], bytes], size_limit: int) -> Step:
    """`nonce` gives twelve bytes of chance; `size_limit` is Postfix's message_size_limit, 0 for none."""
    sections: Sections[Tracking] = Sections(tracking, lambda section: section)

    def add_unsubscribe(draft: Draft) -> None:
        section = sections.of(draft.from_domain, draft.message.envelope.login)
        if draft.free or not section.unsubscribe or not section.url:
            return
        leaves = scope(draft.fields)
        reason = _refuse(draft, section) or ("" if leaves else "it has no one author")
        if reason:
            draft.note("unsubscribe", f"none added: {reason}")
            return
        said = Unsubscribe(draft.message.reference, draft.message.envelope.rcpt_to[0], leaves)
        url = tokens.unsubscribe_url(section.url, said, nonce=nonce())
        _insert(draft, [url, *_mailto(section.unsubscribe_mailto, url)], leaves, size_limit)

    return add_unsubscribe


def _refuse(draft: Draft, section: Tracking) -> str:
    """Why the message gets none; or nothing."""
    if not is_bulk(draft, section):
        return "it is not bulk mail"
    keys = {field.key for field in draft.fields}
    if keys & _OURS:
        return "it has one of its own"
    if keys & _SIGNATURES:
        return "somebody else has signed it"
    if len(draft.message.envelope.rcpt_to) != 1:
        return "it has not exactly one recipient"
    if draft.borrowed:
        return "its login may not use this From domain"
    return "" if str(section.url).startswith("https:") else "tracking.url is not https (RFC 8058 section 3.1)"


def _mailto(address: str | None, url: str) -> list[str]:
    """The same token as a mail's subject, for programs without one click (RFC 2369 section 3.2, RFC 6068)."""
    if address is None:
        return []
    return [f"mailto:{quote(address, safe=_PLAIN)}?subject=unsubscribe%20{url.rpartition('/')[2]}"]


def _insert(draft: Draft, urls: Sequence[str], leaves: str, size_limit: int) -> None:
    """At the end of the header. A URL cannot be folded: its line is as long as it is, 998 octets at most."""
    value = b",\n".join(f" <{url}>".encode("ascii") for url in urls)
    added = [Field(_FIELD, value), Field(_POST, _ONE_CLICK)]
    size = sum(len(field.wire()) for field in [*draft.fields, *added]) + 2 + len(draft.body)
    if long_line(added[0].wire()) >= 0:
        draft.note("unsubscribe", "none added: its line would be too long")
    elif size_limit and size + _ROOM > size_limit:
        draft.note("unsubscribe", "none added: the message would be too large")
    else:
        for field in added:
            draft.insert_field(field, at=len(draft.fields) + 1)
        draft.facts["unsubscribe"] = leaves
        draft.facts["bulk"] = True
        draft.note("unsubscribe", f"List-Unsubscribe and List-Unsubscribe-Post added: who uses it leaves {leaves}")
