"""Whether a row did its work: a fast signer that does not sign would be no comparison.

One message as it arrived at the next hop is looked at: signed once and so that dkimpy accepts it, its links tracked,
and else as it was sent. And a quota has counted every message of a turn. Knows nothing of time.
"""

from __future__ import annotations

import email
import email.policy
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.parts import Turn
from tests.bench.rows import SETTINGS, Started
from tests.lab.keys import DkimKey, records
from tests.lab.sink import Delivery
from tests.lab.verify import verify_dkimpy

DOMAIN = "check.example.net"
READER = f"reader@{DOMAIN}"
_BOUND = 5.0  # seconds until a quota must have counted; rspamd does so behind its answer


def wrong(turn: Turn, delivery: Delivery, key: DkimKey | None) -> str:
    """What is not as it should be with a message that went through the row; empty when all is."""
    signatures = len(delivery.values(b"dkim-signature"))
    if signatures != turn.row.signs:
        return f"{signatures} signatures"
    if turn.row.signs and key is not None:
        [verdict] = verify_dkimpy([delivery.data], records(key))
        if not verdict.accepted:
            return str(verdict)
    links = tracked(delivery.data) if turn.row.tracks else turn.mail.links
    if links != turn.mail.links:
        return f"{links} of {turn.mail.links} links are tracked"
    same = delivery.body == turn.mail.body() or (turn.row.tracks and turn.mail.links > 0)
    return "" if same else "the body is not what was sent"


def tracked(data: bytes) -> int:
    """Links of ours in the HTML parts of a message."""
    parsed = email.message_from_bytes(data, policy=email.policy.default)
    pages = [part.get_content() for part in parsed.walk() if part.get_content_type() == "text/html"]
    return sum(page.count(f'<a href="{SETTINGS["tracking"]["url"]}/') for page in pages)


@contextmanager
def quota(started: Started, count: int) -> Iterator[None]:
    """Around a turn of so many messages. Raises `RuntimeError` when its quota counted more or fewer."""
    if started.counted is None:
        yield
        return
    started.forget()
    before = started.counted()
    yield
    until = time.monotonic() + _BOUND
    while (found := started.counted() - before) != count:
        if time.monotonic() > until:
            raise RuntimeError(f"the quota counted {found} messages of {count}")
        time.sleep(0.02)
