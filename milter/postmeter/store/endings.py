"""What is recorded of the recipients of one message: who has ended how, and who received.

Reads the journal itself and not what follows it, so that what was recorded a moment ago is seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from postmeter.mail.scope import canonical
from postmeter.store.database import Database

_SQL = """
    SELECT kind, data ->> '$.recipient', data ->> '$.provider' FROM events
    WHERE reference = ? AND reference != '' AND kind IN ('sent', 'bounced', 'expired', 'complained')
"""


@dataclass(frozen=True, slots=True)
class Endings:
    """By recipient, in its canonical spelling: the kinds of events, and the provider where one is known."""

    recorded: Mapping[str, frozenset[str]]
    providers: Mapping[str, str]


def of_reference(database: Database, reference: str) -> Endings:
    recorded: dict[str, frozenset[str]] = {}
    providers: dict[str, str] = {}
    for kind, recipient, provider in database.query(_SQL, (reference,)):
        name = canonical(str(recipient))
        recorded[name] = recorded.get(name, frozenset()) | {str(kind)}
        if provider:
            providers[name] = str(provider)
    return Endings(recorded, providers)
