"""A line of the tracking server's spool about somebody who unsubscribed, as an event.

The server is another, less trusted user: a line is taken for what it may hold and for no more. Whoever rules there can
unsubscribe anybody anyway, since that is what its secrets are for. Knows nothing of suppression, which comes with the
event.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from postmeter.books import spooled
from postmeter.events import Unsubscribed
from postmeter.mail.draft import Figure
from postmeter.mail.scope import from_domain
from postmeter.tracking.leaving import KIND

_LONGEST = 1100  # characters; a URL with more does not fit a line of mail
_SCOPE = re.compile(r"from:[^@\s].*@[^\s/]+|list:[^/\s@]+/[!-~]+")


def unsubscribed(source: str, said: Mapping[str, Any]) -> tuple[Unsubscribed, Mapping[Figure, int]]:
    """ValueError, TypeError or KeyError for what is none. It is counted with the event, once."""
    scope = spooled.text(said["scope"], _LONGEST)
    recipient = spooled.text(said["recipient"], _LONGEST)
    if not _SCOPE.fullmatch(scope) or not recipient:
        raise ValueError("nobody, or nothing that can be left")
    reference = spooled.reference(said["reference"])
    event = Unsubscribed(
        source=f"unsubscribed:{reference}",
        time=spooled.number(said["time"]),
        reference=reference,
        recipient=recipient,
        scope=scope,
        from_domain=from_domain(scope),
        host=spooled.text(said["host"], 255),
    )
    return event, Counter()


OTHERS = {KIND: unsubscribed}
"""For the reader of hits."""
