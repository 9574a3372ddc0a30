"""Which header fields a signature covers, and in what order.

Knows nothing of keys or hashes. Fields are taken from the bottom up (RFC 6376 section 5.4.2). A name that stands in h=
once more than there are such fields is oversigned: nobody can add another one unnoticed (section 8.15).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from postmeter.config.schema import Dkim, HeaderRule
from postmeter.mail import hop
from postmeter.mail.coding import MAX_LINE
from postmeter.mail.message import Field

# rspamd's list, the best model (C7): (o) oversigned, even when absent; (x) oversigned when present; else when present.
# List-Unsubscribe and List-Unsubscribe-Post must be covered for one-click to work (RFC 8058 section 4).
_DEFAULT = """
    (o)from (x)sender (o)reply-to (o)subject (x)date (x)message-id (o)to (o)cc (x)mime-version (x)content-type
    (x)content-transfer-encoding (x)in-reply-to (x)references
    resent-date resent-from resent-sender resent-to resent-cc resent-message-id
    list-id list-help list-unsubscribe list-unsubscribe-post list-subscribe list-post list-owner list-archive
    (x)openpgp (x)autocrypt (x)feedback-id (x)cfbl-address (x)cfbl-feedback-id
"""


def _rule(text: str) -> HeaderRule:
    mark, _, name = text.rpartition(")")
    return HeaderRule(name, mark.lstrip("("))


DEFAULT = tuple(_rule(text) for text in _DEFAULT.split())

_USUAL = 50  # fields


@dataclass(frozen=True, slots=True)
class Choice:
    """`names` is h= in order; `fields` are what a verifier will find for them: absent ones give nothing."""

    names: tuple[bytes, ...]
    fields: tuple[Field, ...]


def rules(dkim: Dkim) -> Sequence[HeaderRule]:
    """As configured."""
    return DEFAULT if isinstance(dkim.headers, str) else dkim.headers


def may_miss(rule: HeaderRule) -> bool:
    """Whether the field may be left unsigned where its signature would break: not what (o) guards, never From."""
    return rule.mark != "o" and rule.name != "from"


def large(fields: Sequence[Field]) -> list[Field]:
    """Those that have room for a line over 998 octets: hardly ever any."""
    return [field for field in fields if len(field.name) + len(field.value) >= MAX_LINE]


def too_long(field: Field) -> bool:
    """Whether it has a line over 998 octets, which a later hop would break."""
    return hop.long_line(field.wire()) >= 0


def without_long(fields: Sequence[Field], listed: Sequence[HeaderRule]) -> Sequence[HeaderRule]:
    """The rules but for those of fields that are too long and may stay unsigned."""
    broken = {field.key for field in large(fields) if too_long(field)}
    return [rule for rule in listed if not (may_miss(rule) and rule.name.encode() in broken)] if broken else listed


class Order:
    """Rules at work. One sender's headers are alike, so what is signed of those with the same names is found out once.

    Names without a rule do not count, and a header of very many fields is looked through each time: senders cannot
    fill up what is kept.
    """

    def __init__(self, listed: Sequence[HeaderRule]) -> None:
        self._rules = [(rule.name.encode(), rule.mark) for rule in listed]
        self._names = frozenset([name for name, _ in self._rules])
        self._kept = lru_cache(maxsize=256)(self._order)

    def choose(self, fields: Sequence[Field]) -> Choice:
        """What to sign of a message with these `fields`."""
        known = self._names
        keys = tuple([key if (key := field.key.rstrip(b" \t")) in known else b"" for field in fields])
        names, places = (self._kept if len(keys) <= _USUAL else self._order)(keys)
        return Choice(names, tuple([fields[place] for place in places]))

    def _order(self, keys: tuple[bytes, ...]) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
        """h=, and the places of what is signed; `keys` are the fields' names, empty where there is no rule."""
        present: dict[bytes, list[int]] = {}
        for place in reversed(range(len(keys))):
            present.setdefault(keys[place], []).append(place)
        names: list[bytes] = []
        places: list[int] = []
        for name, mark in self._rules:
            found = present.pop(name, None)  # taken once, were a name listed twice
            if found:
                names += [name] * (len(found) + bool(mark))
                places += found
            elif mark == "o" and name not in names:
                names.append(name)
        return tuple(names), tuple(places)


BY_DEFAULT = Order(DEFAULT)
