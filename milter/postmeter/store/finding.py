"""Finds messages by what people have in their hands: a queue id, a Message-ID, an address, a reference.

Reads indices only, whatever is asked for; those of columns that may be empty are used where a query says that they are
not. Queue ids are used again and Message-IDs may be anybody's, so there may be several. Knows nothing of how what is
found is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from postmeter.events import REFERENCE, Refiltered, Submitted
from postmeter.store import fates, rows, veil
from postmeter.store.accounts import storable
from postmeter.store.database import Database
from postmeter.store.fates import Fate
from postmeter.store.rows import Entry

_MOST_EVENTS = 5000  # of a message: one of a thousand recipients that was opened a lot


class Finder:
    """In one journal."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def references(self, text: str, *, most: int) -> list[str]:
        """Of the messages that it names, latest first; an address is whom they went to."""
        found = [*self._by_queue_id(text, most), *(self._by_message_id(text) if "@" in text or "<" in text else ())]
        if "@" in text:
            found += self._by_recipient(text, most)
        if REFERENCE.fullmatch(text):
            found.append(text)
        return list(dict.fromkeys(found))[:most]

    def forms(self, address: str) -> tuple[str, ...]:
        """What an address may stand as."""
        return veil.forms(storable(address), veil.read_key(self._database)) if "@" in address else ()

    def fates(self, reference: str) -> list[Fate]:
        return fates.of_reference(self._database, reference)

    def events(self, reference: str) -> list[Entry]:
        """All that is known of a message, in the order of its times."""
        named = self._entries("WHERE reference = ? AND reference != '' ORDER BY seq LIMIT ?", reference, _MOST_EVENTS)
        return sorted([*named, *self._released(named)], key=lambda entry: (entry.event.time, entry.seq))

    def _released(self, entries: Sequence[Entry]) -> Iterable[Entry]:
        """What became of it in the hold queue, which is told by queue id: until that one is used again."""
        for entry in entries:
            if not isinstance(entry.event, Submitted | Refiltered):
                continue
            queue_id, begun = entry.event.queue_id, entry.event.time
            later = (
                "SELECT min(time) FROM events WHERE queue_id = ? AND queue_id != '' AND kind = 'submitted' AND time > ?"
            )
            [(until,)] = self._database.query(later, (queue_id, begun))
            where = (
                "WHERE queue_id = ? AND queue_id != '' AND kind = 'released' AND time >= ? AND time < ? ORDER BY seq"
            )
            yield from self._entries(where, queue_id, begun, float("inf") if until is None else until)

    def _by_queue_id(self, text: str, most: int) -> list[str]:
        sql = """
            SELECT reference FROM events
            WHERE queue_id = ? AND queue_id != '' AND reference != '' AND kind IN ('submitted', 'refiltered')
            ORDER BY time DESC LIMIT ?
        """
        return [str(reference) for (reference,) in self._database.query(sql, (storable(text), most))]

    def _by_message_id(self, text: str) -> list[str]:
        """With its angle brackets or without; the digest of another one may be the same."""
        message_id = text if text.startswith("<") else f"<{text}>"
        found = fates.references(self._database, message_id)
        return [reference for reference in found if self._is(reference, message_id)]

    def _is(self, reference: str, message_id: str) -> bool:
        sql = "SELECT data ->> 'message_id' FROM events WHERE reference = ? AND reference != '' AND kind = 'submitted'"
        return any(found.strip() == message_id for (found,) in self._database.query(sql, (reference,)))

    def _by_recipient(self, text: str, most: int) -> list[str]:
        found = [fate for form in self.forms(text) for fate in fates.of_recipient(self._database, form, most=most)]
        return [fate.reference for fate in sorted(found, key=lambda fate: -fate.time)]

    def _entries(self, where: str, *values: object) -> list[Entry]:
        return [rows.decode(row) for row in self._database.query(rows.SELECT + where, values)]
