"""The journal: every fact of a message's life, in the order in which it was recorded. Sequence numbers are never reused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from postmeter.events import Event
from postmeter.mail.draft import Figure


@dataclass(frozen=True, slots=True)
class Entry:
    """An event with the number and host that the journal gave it."""

    seq: int
    host: str
    event: Event


class Journal:
    """One a process; not to be carried over a fork. Every method may raise `StoreError`."""

    def __init__(self, path: Path, *, sync: str = "normal", host: str = "", readonly: bool = False) -> None:
        raise NotImplementedError

    def record(
        self,
        events: Iterable[Event],
        *,
        figures: Mapping[Figure, int] | None = None,
        positions: Mapping[str, str] | None = None,
    ) -> int:
        """Record events, totals and positions in one transaction; returns how many events were new."""
        raise NotImplementedError

    def position(self, name: str) -> str:
        """The position saved under that name; empty when there is none."""
        raise NotImplementedError

    def events(self, *, after: int = 0, limit: int = 1000) -> list[Entry]:
        """The next slice of events behind `after`, oldest first."""
        raise NotImplementedError

    def of_reference(self, reference: str) -> list[Entry]:
        raise NotImplementedError

    def of_queue_id(self, queue_id: str) -> list[Entry]:
        raise NotImplementedError

    def of_login(self, login: str, *, since: float = 0.0, limit: int = 1000) -> Iterator[Entry]:
        raise NotImplementedError

    def totals(self) -> dict[Figure, int]:
        """Every total since the first day."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
