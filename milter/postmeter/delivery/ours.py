"""What the correlation asks of others: whose a queue id is, and who runs a relay.

Values and signatures only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """What our own record says of a message under some queue id."""

    time: float
    reference: str
    login: str = ""
    from_domain: str = ""
    campaign: str = ""
    recipients: tuple[str, ...] = ()
    first: bool = True
    """Not what came back from a content filter."""
    bounce: bool = False
    """Of nobody, to a null sender: made by Postfix itself, perhaps."""
    discarded: bool = False
    """We had it thrown away: nobody will get it."""
    held: bool = False
    """We had it put on hold, and charge it when it leaves."""
    over: bool = False
    """Of every recipient the last word is known: a queue id in the middle of its life is another message's."""


Lookup: TypeAlias = Callable[[str, float, float], Ours | None]
"""The newest message of ours of a queue id, of those that ended between two times."""

Provider: TypeAlias = Callable[[Mapping[str, str]], str]
"""By the values of a line about a delivery."""
