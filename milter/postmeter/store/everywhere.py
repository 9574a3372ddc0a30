"""What the database of all hosts tells for reports and traces: figures, and the events of messages, wherever they are.

As `figures` and `finding` tell it of this host alone. Reads only; a host that is behind is behind here too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from postmeter.events import REFERENCE, Refiltered, Released, Submitted
from postmeter.store import figures, rows, shipped
from postmeter.store.database import Row
from postmeter.store.fates import Fate, Key, after, steps, withdrawn
from postmeter.store.finding import HITS, Wanted, first
from postmeter.store.postgres import Postgres
from postmeter.store.rows import Entry
from postmeter.store.shipped import address_name, message_id_name

PATIENCE = 30.0
"""Seconds: a person waits."""

_SLICE = 1000  # events read at once


class Everywhere:
    """For one thread. `forms` tells what an address may stand as. Every method may raise `StoreDownError`."""

    def __init__(self, url: str, *, password_file: Path | None = None, forms: Callable[[str], tuple[str, ...]]) -> None:
        self._forms = forms
        self._postgres = Postgres(url, password_file=password_file, patience=PATIENCE)

    def figures(self, *, since: int, until: int, by: Sequence[str]) -> dict[str, dict[str, Counter[str]]]:
        """As `figures.breakdowns`, of all hosts."""
        return figures.sorted_out(self._query(figures.breaking_down(by, mark="%s"), *(since, until) * len(by)))

    def references(self, text: str, *, most: int) -> list[str]:
        """Of the messages that it names, latest first: a queue id, a Message-ID, a recipient, or a reference."""
        found = self._by_queue_id(text, most)
        if "@" in text:
            message_id = text if text.startswith("<") else f"<{text}>"
            found += self._looked_up([message_id_name(message_id)], most)
            found += self._looked_up([address_name(form) for form in self.forms(text)], most)
        return list(dict.fromkeys([*found, *([text] if REFERENCE.fullmatch(text) else [])]))[:most]

    def forms(self, address: str) -> tuple[str, ...]:
        """What an address may stand as: hashes are those of the host that asks."""
        return self._forms(address) if "@" in address else ()

    def fates(self, reference: str) -> list[Fate]:
        """Of every recipient of a message, made of what its events say."""
        found: dict[Key, Fate] = {}
        entries: list[Entry] = []
        for entry in self._of_reference(reference, ["NOT IN"]):
            entries += [entry] if isinstance(entry.event, Submitted | Refiltered) else []
            for key, step in steps(entry.event):
                found[key] = after(found.get(key, Fate(*key)), step)
        for left in (left.event for entry in entries for left in self._released(entry)):
            if isinstance(left, Released) and (gone := withdrawn(left)):
                found = {key: after(fate, gone) for key, fate in found.items()}
        return [found[key] for key in sorted(found)]

    def events(
        self, reference: str, *, wanted: Wanted = lambda event: True, most: int = _SLICE
    ) -> tuple[list[Entry], bool]:
        """As `finding.Finder`; what a host told again after it was put back from a backup only once."""
        named = first(self._of_reference(reference), wanted, most)
        more, named = len(named) > most, named[:most]
        found = [*named, *(entry for one in named for entry in self._released(one))]
        return sorted(found, key=lambda entry: (entry.event.time, entry.host, entry.seq)), more

    def close(self) -> None:
        self._postgres.close()

    def _of_reference(self, reference: str, which: Sequence[str] = ("NOT IN", "IN")) -> Iterator[Entry]:
        """Each once, hits last."""
        seen: set[tuple[str, str]] = set()
        for kinds in which:
            where = f"WHERE reference = %s AND reference <> '' AND kind {kinds} {HITS} ORDER BY journal, seq"
            passed = 0
            while found := self._query(f"{rows.SELECT}{where} LIMIT %s OFFSET %s", reference, _SLICE, passed):
                passed += len(found)
                for entry in rows.readable(found):
                    if (name := (entry.host, entry.event.source)) not in seen:
                        seen.add(name)
                        yield entry

    def _released(self, one: Entry) -> list[Entry]:
        """What became of it in its host's hold queue, until the queue id is used again."""
        if not isinstance(one.event, Submitted | Refiltered):
            return []
        queue_id, begun = one.event.queue_id, one.event.time
        later = "SELECT min(time) FROM events WHERE queue_id = %s AND host = %s AND kind = 'submitted' AND time > %s"
        [(until,)] = self._query(later, queue_id, one.host, begun)
        where = "WHERE queue_id = %s AND host = %s AND kind = 'released' AND time >= %s AND time < %s ORDER BY seq"
        return self._entries(where, queue_id, one.host, begun, float("inf") if until is None else until)

    def _by_queue_id(self, queue_id: str, most: int) -> list[str]:
        sql = """
            SELECT reference FROM events
            WHERE queue_id = %s AND queue_id <> '' AND reference <> '' AND kind IN ('submitted', 'refiltered')
            ORDER BY time DESC LIMIT %s
        """
        return [str(reference) for (reference,) in self._query(sql, queue_id, most)]

    def _looked_up(self, names: Sequence[str], most: int) -> list[str]:
        """Latest first. A name may be cut, and then others bear it too."""
        sql = f"""
            SELECT events.reference, events.time FROM lookups
            JOIN events ON events.journal = lookups.journal AND events.seq = lookups.seq
            WHERE lookups.name IN ({", ".join(["%s"] * len(names))}) AND events.reference <> ''
            ORDER BY events.time DESC LIMIT %s
        """
        return [str(reference) for reference, _ in self._query(sql, *names, most)] if names else []

    def _entries(self, where: str, *values: object) -> list[Entry]:
        found = rows.readable(self._query(rows.SELECT + where, *values))
        return list({(entry.host, entry.event.source): entry for entry in found}.values())

    def _query(self, sql: str, *values: object) -> list[Row]:
        with self._postgres.transaction() as cursor:
            return cursor.execute(sql, [shipped.text(value) for value in values]).fetchall()
