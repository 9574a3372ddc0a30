"""What administrators are told by mail about DKIM keys: what DNS shows no more, and what a rotation waits for.

Pure: events in, subject and text out. Knows nothing of when or how a letter goes. Parts of it are what strangers'
name servers said: each stays on its line, printable and cut.
"""

from __future__ import annotations

from collections.abc import Sequence

from postmeter.books.letters import Letter
from postmeter.events import KeyChanged
from postmeter.submission import keyrecord

TOLD = frozenset({"failed", "mended", "pending", "waiting", "removable"})
"""The changes that somebody has to know of; the others are in the journal."""

_LONGEST = 300  # characters
_MOST = 50  # keys in one letter; the others are counted
_TITLES = {
    "failed": "DNS does not show what we sign with",
    "mended": "DNS shows it again",
    "pending": "a new key waits for its record",
    "waiting": "a new key still waits for its record",
    "removable": "a record is not needed any more",
}


def news(events: Sequence[KeyChanged], *, host: str) -> Letter:
    """Each key once, as it was last heard of; what fails comes first."""
    latest = list({(event.domain, event.selector): event for event in events}.values())
    latest.sort(key=lambda event: event.change != "failed")
    told = [_block(event) for event in latest[:_MOST]]
    if len(latest) > _MOST:
        told.append(f"And {len(latest) - _MOST} more: postmeter dkim check\n")
    return Letter(f"postmeter on {host}: {_subject(latest)}", "\n".join([*told, _WHAT_HELPS]))


def _subject(latest: Sequence[KeyChanged]) -> str:
    first = latest[0]
    title = _TITLES[first.change]
    if len(latest) == 1:
        return f"DKIM key {first.selector} of {first.domain}: {title}"
    failed = sum(event.change == "failed" for event in latest)
    return f"{failed} of {len(latest)} DKIM keys failed" if failed else f"news of {len(latest)} DKIM keys"


def _block(event: KeyChanged) -> str:
    name = f"{event.selector}._domainkey.{event.domain}"
    lines = [f"{name}: {_TITLES[event.change]}", f"  {_printable(event.what)}"]
    if event.fix:
        lines.append(f"  What helps: {_printable(event.fix)}")
    if event.record:
        lines += ["", keyrecord.zone_line(name, event.record)]
    return "\n".join(lines) + "\n"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:_LONGEST])


_WHAT_HELPS = """\
To see how it stands now:

  postmeter dkim check
      every key beside what DNS shows, each with what to do
  postmeter dkim dns DOMAIN
      the records as they have to be published
"""
