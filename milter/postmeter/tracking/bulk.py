"""What bulk mail is: the one definition for links and everything else that is meant for newsletters only.

Knows only fields, login and From address. A reply and what a program sent by itself are never bulk (RFC 3834
section 5); otherwise a campaign field, List-Unsubscribe (RFC 2369) or the configuration says so.
"""

from __future__ import annotations

from postmeter.config.schema import Tracking
from postmeter.mail import address
from postmeter.mail.draft import Draft
from postmeter.tracking import services

CAMPAIGN_FIELDS = services.CAMPAIGN_FIELDS | {
    b"feedback-id",  # Gmail
    b"x-campaign",
    b"x-campaignid",
    b"x-campaign-id",
    b"x-postal-tag",
}
_MARKS = CAMPAIGN_FIELDS | {b"list-unsubscribe"}
_BY_WHOM = b"auto-submitted"
_REPLY = frozenset({b"in-reply-to", b"references"})


def is_bulk(draft: Draft, tracking: Tracking) -> bool:
    """Asked of the message as it was submitted: the fields that tell may be gone by now, or others be there."""
    fields, keys = draft.message.fields, draft.message.keys
    if not _REPLY.isdisjoint(keys):
        return False
    if _BY_WHOM in keys and not all(_by_hand(field.value) for field in fields if field.key == _BY_WHOM):
        return False
    marked = bool(draft.wishes.campaign or draft.wishes.tags) or not _MARKS.isdisjoint(keys)
    return marked or _listed(draft, tracking.bulk_senders)


def _by_hand(value: bytes) -> bool:
    """RFC 3834 section 5: `no`, perhaps with parameters or a comment behind it."""
    return value.split(b";")[0].split(b"(")[0].strip().lower() == b"no"


def _listed(draft: Draft, senders: tuple[str, ...]) -> bool:
    """Whether the login or the one From address, or the domain of either, is in the list, which has A-labels."""
    if not senders:
        return False
    names = [draft.message.envelope.login.lower()]
    froms = address.from_addresses(draft.fields)
    if len(froms) == 1:
        names.append(froms[0].lower())
    known = set(names)
    for name in names:
        if "@" in name:
            domain = f"@{address.domain(name)}"
            known |= {domain, name.rpartition("@")[0] + domain}
    return any(sender.lower() in known for sender in senders)
