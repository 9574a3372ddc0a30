"""The step before signing: what a later hop would convert is converted now, so that signatures survive the road.

`dkim.make_safe`. Only messages that will be signed, and only what `mail.safe` cannot leave as it is. What stays fragile
is signed all the same, with a note and a figure. Knows nothing of MIME, and nothing of how signatures are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from postmeter.config.schema import Dkim
from postmeter.mail import safe
from postmeter.mail.address import is_utf_8
from postmeter.mail.coding import MAX_LINE
from postmeter.mail.draft import Draft, Step
from postmeter.mail.message import Envelope, Field, PartChange
from postmeter.submission import headers

# Why a message that a later hop may break is signed as it is
SIZE_LIMIT = "size_limit"  # would outgrow Postfix's message_size_limit
HEADER = "header"  # a line over 998 octets, without white space or no UTF-8, in a field that has to be signed; or many
REASONS = (
    safe.ALREADY_SIGNED,
    safe.SIGNED,
    safe.ENCRYPTED,
    safe.SMIME,
    safe.PGP,
    safe.ENCODING,
    safe.STRUCTURE,
    SIZE_LIMIT,
    HEADER,
)

_MOST_FOLDED = 100  # fields; each makes us, and Postfix, look through the header again
_ROOM = 8192  # what signing may add
_NAME = "make_safe"


def step(dkim: Dkim, *, will_sign: Callable[[Draft], bool], size_limit: int) -> Step:
    """`size_limit` is Postfix's message_size_limit: no message may outgrow it."""
    rules = headers.rules(dkim)
    covered = frozenset(rule.name.encode() for rule in rules)
    needed = frozenset(rule.name.encode() for rule in rules if not headers.may_miss(rule))

    def make_safe(draft: Draft) -> None:
        if will_sign(draft):
            _make_header_safe(draft, covered, needed)
            _make_body_safe(draft, size_limit)

    return make_safe


def _make_header_safe(draft: Draft, covered: frozenset[bytes], needed: frozenset[bytes]) -> None:
    """Fold lines over 998 octets of fields that a signature covers; the others may break, it does not matter."""
    if not headers.large(draft.fields):
        return
    found = [(nth, one) for nth, one in _numbered(draft.fields) if one.key in covered and headers.too_long(one)]
    if len(found) > _MOST_FOLDED:
        _fragile(draft, HEADER)
        return
    for nth, one in found:
        value = safe.fold(one.value, MAX_LINE - len(one.name) - 1) if is_utf_8(one.value) else None
        name = one.name.decode("ascii", "replace")
        if value is not None:
            draft.replace_field(one.name, nth=nth, value=value)
            draft.note(_NAME, f"{name} folded: it had a line over {MAX_LINE} octets")
        elif one.key in needed:
            _fragile(draft, HEADER)
        else:
            draft.note(_NAME, f"{name} left out of the signature: a line over {MAX_LINE} octets, and no way to fold it")


def _numbered(fields: Sequence[Field]) -> Iterator[tuple[int, Field]]:
    """Each field with its number among those of its name."""
    seen: dict[bytes, int] = {}
    for one in fields:
        seen[one.key] = seen.get(one.key, 0) + 1
        yield seen[one.key], one


def _make_body_safe(draft: Draft, size_limit: int) -> None:
    made = safe.recode(draft.fields, draft.body, eight_bit=not _needs_smtputf8(draft.message.envelope, draft.fields))
    if made.problem:
        _fragile(draft, made.problem)
    elif made.parts and draft.size_with(made.body) + _ROOM > size_limit:
        _fragile(draft, SIZE_LIMIT)
    elif made.parts:
        if made.body != draft.body:
            draft.replace_body(made.body, made.parts)
        if made.label:
            _label(draft, made.label)
        known = draft.facts.get("parts")
        before = known if isinstance(known, list) else []
        told = [{"path": part.path, "reason": part.reason, "count": part.count} for part in made.parts]
        draft.facts["parts"] = [*before, *told]
        for part in made.parts:
            draft.note(_NAME, _told(part))


def _told(part: PartChange) -> str:
    was, now = part.reason.split(": ")
    why = f"it had a line over {MAX_LINE} octets" if was == safe.LONG_LINE else f"it was declared {was}"
    return f"part {part.path} is {now} now: {why}, which a later hop may change"


def _label(draft: Draft, label: str) -> None:
    """The message's own transfer encoding, which means something only beside MIME-Version (RFC 2045 section 4)."""
    nth, named = 0, False
    for old, new in zip(draft.fields.copy(), safe.labelled(draft.fields, label), strict=True):
        if old.key == safe.ENCODING_FIELD.lower():
            nth, named = nth + 1, True
            if new != old:
                draft.replace_field(old.name, nth=nth, value=new.value)
    if not named:
        draft.insert_field(Field(safe.ENCODING_FIELD, b" " + label.encode("ascii")), at=len(draft.fields) + 1)
    if label != "7bit" and not any(one.key == b"mime-version" for one in draft.fields):
        draft.insert_field(Field(b"MIME-Version", b" 1.0"), at=len(draft.fields) + 1)


def _fragile(draft: Draft, reason: str) -> None:
    draft.count("dkim_fragile_total", reason)
    draft.facts["fragile"] = reason
    draft.note(_NAME, f"left as it is, and a later hop may break its signature: {reason}")


def _needs_smtputf8(envelope: Envelope, fields: Sequence[Field]) -> bool:
    """Such mail goes only to hops that take 8 bits, for SMTPUTF8 comes with 8BITMIME (RFC 6531 section 3.1)."""
    if not envelope.args or not any(arg.upper() == b"SMTPUTF8" for arg in envelope.args):
        return False
    addresses = (envelope.mail_from, *envelope.rcpt_to)
    return not all(text.isascii() for text in (*addresses, *(one.value for one in fields)))
