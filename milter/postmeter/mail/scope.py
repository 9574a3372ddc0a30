"""What a person leaves who unsubscribes: one list, or the bulk mail of one From address; never more than that.

Text, the same in tokens, events and the table of suppressions:

    list:FROM-DOMAIN/LIST-ID    mail of this From domain with this List-Id (RFC 2919)
    from:ADDRESS                bulk mail without a List-Id from this address

All in lower case: identifiers and domains are the same in any (RFC 2919 section 6), and of addresses that differ in
nothing else none belongs to another person. The From domain is part of a list's name because senders give lists names
such as `newsletter`, which somebody else's may bear too. Knows nothing of who asks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from unicodedata import normalize

from postmeter.mail import address
from postmeter.mail.message import Field

_LONGEST = 2000  # characters; a line of SMTP has fewer (RFC 5321 section 4.5.3.1.4, and what Postfix takes)
_DRESSED = re.compile(r"[\"\\()<>]|\A@")
_ROUTE = re.compile(r"\A(?:@[^\s@,:\"]{1,255},?){1,100}:")
_PIECE = re.compile(r"\"(?P<quoted>(?:[^\"\\]|\\.){0,320})\"|\([^()\"\\]*\)|(?P<other>[^\"()]|[\"()])", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_LIST_ID = re.compile(rb"<\s*([!-;=?A-~]{1,255})\s*>\s*\Z")  # RFC 2919 section 3: last, in angle brackets; no @


def scope(fields: Sequence[Field]) -> str:
    """Of mail with these fields; empty where it has no one author with a domain, or one that could be misread."""
    authors = address.from_addresses(fields)
    if len(authors) != 1 or not address.domain(authors[0]):
        return ""
    named = _list_id(fields)
    return f"list:{address.domain(authors[0])}/{named}" if named else f"from:{canonical(authors[0])}"


def from_domain(scope: str) -> str:
    """The From domain that a scope is of."""
    kind, _, rest = scope.partition(":")
    return rest.partition("/")[0] if kind == "list" else rest.rpartition("@")[2]


def shown(scope: str) -> str:
    """As a person knows it: the address; or the list's name, with the domain where that does not tell it."""
    kind, _, rest = scope.partition(":")
    if kind != "list":
        return rest
    domain, _, named = rest.partition("/")
    return named if f".{named}".endswith(f".{domain}") else f"{named} ({domain})"


def as_mail_has_it(scope: str) -> str:
    """A scope that somebody typed, `domain:FROM-DOMAIN` too, as it is known of messages: in any other spelling it would
    hold for none of them."""
    kind, _, rest = scope.partition(":")
    if kind == "domain":
        return f"domain:{_typed(rest)}"
    if kind == "list":
        domain, _, named = rest.partition("/")
        return f"list:{_typed(domain)}/{named.lower()}"
    if kind == "from":
        local, at, domain = rest.rpartition("@")
        return "from:" + canonical(local + at + normalize("NFC", domain))
    return scope


def _typed(domain: str) -> str:
    return address.ascii_domain(normalize("NFC", domain))


def canonical(mailbox: str) -> str:
    """One spelling of an address, for comparisons; what has no domain is in lower case too.

    Postfix takes a source route, needless quotes, comments and brackets off (RFC 5321 sections 4.1.1.3 and 4.1.2,
    RFC 5322 section 4.4) and delivers to the same mailbox, whatever a client has put around it.
    """
    found = _spelt(mailbox)
    if _DRESSED.search(found) and _spelt(found) != found:
        return mailbox.lower()  # no address: what would be taken off it has no end
    return found


def _spelt(mailbox: str) -> str:
    if len(mailbox) <= _LONGEST and _DRESSED.search(mailbox):
        mailbox = _undressed(mailbox)
    local, at, _ = mailbox.rpartition("@")
    return f"{local.lower()}@{address.domain(mailbox)}" if at else mailbox.lower()


def _undressed(mailbox: str) -> str:
    """As it is where that would say another's address, once more undressed: a mark that is quoted itself."""
    mailbox = mailbox.strip("<>")
    plain = "".join(_said(found) for found in _PIECE.finditer(_ROUTE.sub("", mailbox)))
    return mailbox if _DRESSED.search(plain) else plain


def _said(piece: re.Match[str]) -> str:
    return _ESCAPED.sub(r"\1", piece["quoted"]) if piece["quoted"] is not None else piece["other"] or ""


def _list_id(fields: Sequence[Field]) -> str:
    """The one List-Id; empty where there is none, several, or one that is none."""
    found = [field.value for field in fields if field.key == b"list-id"]
    match = _LIST_ID.search(found[0]) if len(found) == 1 else None
    return match[1].decode("ascii").lower() if match else ""
