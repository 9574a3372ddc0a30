"""Finds messages by what people have in their hands: a queue id, a Message-ID, an address, a reference.

Reads indices only, whatever is asked for; those of columns that may be empty are used where a query says that they are
not. Queue ids are used again and Message-IDs may be anybody's, so there may be several. Knows nothing of how what is
found is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeAlias

from postmeter.events import REFERENCE, Event, Refiltered, Submitted
from postmeter.store import fates, rows, veil
from postmeter.store.accounts import storable
from postmeter.store.database import Database
from postmeter.store.fates import Fate
from postmeter.store.rows import Entry

Wanted: TypeAlias = Callable[[Event], bool]

HITS = "('opened', 'clicked', 'rejudged')"
"""Kinds of which a message may have any number."""

_SLICE = 1000  # events read at once


def first(entries: Iterable[Entry], wanted: Wanted, most: int) -> list[Entry]:
    """Those that are wanted: `most` of them, and one more where there are more."""
    return list(islice((entry for entry in entries if wanted(entry.event)), most + 1))


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

    def events(
        self, reference: str, *, wanted: Wanted = lambda event: True, most: int = _SLICE
    ) -> tuple[list[Entry], bool]:
        """What is known of a message and is wanted, in the order of its times; and whether that is not all.

        Of more than `most` hits are left out first.
        """
        named = first(self._of_reference(reference), wanted, most)
        more, named = len(named) > most, named[:most]
        found = [*named, *self._released(named)]
        return sorted(found, key=lambda entry: (entry.event.time, entry.seq)), more

    def _of_reference(self, reference: str) -> Iterator[Entry]:
        for kinds in ("NOT IN", "IN"):
            where = f"WHERE reference = ? AND reference != '' AND kind {kinds} {HITS} AND seq > ? ORDER BY seq LIMIT ?"
            after = 0
            while found := self._entries(where, reference, after, _SLICE):
                yield from found
                after = found[-1].seq

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
        return rows.readable(self._database.query(rows.SELECT + where, values))
