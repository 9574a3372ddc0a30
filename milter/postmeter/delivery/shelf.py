"""Lives in memory, found by key and by Message-ID, and which of them changed since they were last written down.

Knows nothing of lines or of what a life means. Beside them two short memories: queue ids that are not ours, and which
TLS a daemon of Postfix has spoken lately. All are bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from itertools import islice
from typing import Generic, TypeAlias, TypeVar

from postmeter.delivery import word
from postmeter.delivery.postfixlog import Line
from postmeter.events import Event
from postmeter.store.lives import Key, Life

_MOST = 100_000  # lives; beyond that the oldest are given up
_LIKE = 200  # lives looked at for one Message-ID: a campaign may give all its mail the same
_PIDS = 2_000
_SLACK = 2.0  # seconds: stamps of a log may be whole seconds

Gone: TypeAlias = tuple[str, str, str, float]
"""Key and arrival of a life that is over."""

Queue: TypeAlias = dict[tuple[str, str], tuple[int, float]]
"""Recipients by state and provider: how many, and since when the oldest."""

K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True)
class Told:
    """What lines have given since it was last asked."""

    events: list[Event] = field(default_factory=list)
    changed: list[Life] = field(default_factory=list)
    gone: list[Gone] = field(default_factory=list)
    shown: set[str] = field(default_factory=set)
    """References of messages that Postfix has taken."""


class Shelf:
    """The lives that are not over."""

    def __init__(self, lives: Iterable[Life], *, most: int = _MOST) -> None:
        self._most = most
        self._lives = {life.key: life for life in lives}
        self._saved = {(*key, life.arrival) for key, life in self._lives.items()}
        self._changed: dict[Key, None] = {}
        self._gone: list[Gone] = []
        self._same: dict[str, dict[Key, None]] = {}
        self._owned: dict[str, dict[Key, None]] = {}
        self._instances: dict[str, None] = {}
        for life in self._lives.values():
            self._link(life)

    def __iter__(self) -> Iterator[Life]:
        """As they are now, whatever happens to them meanwhile."""
        return iter(list(self._lives.values()))

    def get(self, key: Key) -> Life | None:
        return self._lives.get(key)

    def named(self, message_id: str) -> list[Life]:
        """The latest with that Message-ID."""
        same = self._same.get(message_id, {}) if message_id else {}
        return [self._lives[key] for key in islice(reversed(same), _LIKE)]

    def called(self, host: str, queue_id: str) -> list[Life]:
        """Those of a host with that queue id, one of each instance at most."""
        keys = ((host, instance, queue_id) for instance in self._instances)
        return [self._lives[key] for key in keys if key in self._lives]

    def owned(self, reference: str) -> bool:
        """Whether one of them is that message's."""
        return reference in self._owned

    def goes_on(self, life: Life, reference: str) -> bool:
        """Whether it is that message's, whose host has another name by now; then it has all that the old one had.

        A container that is made anew has one, and a server that is renamed; the queue stays. By long queue ids only,
        which no other host gives (postconf(5), enable_long_queue_ids).
        """
        for old in [self._lives[key] for key in self._owned.get(reference, ())]:
            if (old.instance, old.queue_id) == (life.instance, life.queue_id) and "z" in old.queue_id and not old.ended:
                self.drop(old)
                self.drop(life)  # as it was known until now
                for each in fields(Life):
                    if each.name != "host":
                        setattr(life, each.name, getattr(old, each.name))
                self.put(life)
                return True
        return False

    def put(self, life: Life) -> None:
        """It is new or has changed."""
        key = life.key
        if (old := self._lives.get(key)) is not None and old is not life:
            self._unlink(old)
        self._lives[key] = life
        self._link(life)
        self._changed[key] = None

    def rename(self, life: Life, message_id: str) -> None:
        """It has this Message-ID."""
        self._unlink(life)
        life.message_id = message_id
        self.put(life)

    def drop(self, life: Life) -> None:
        """It is over."""
        if self._lives.get(life.key) is life:
            del self._lives[life.key]
            self._unlink(life)
        key = (*life.key, life.arrival)
        if key in self._saved:
            self._saved.discard(key)
            self._gone.append(key)

    def too_many(self) -> Life | None:
        """The oldest, while there are more than can be held."""
        return next(iter(self._lives.values())) if len(self._lives) > self._most else None

    def unsaved(self) -> int:
        """How many have changed or are over since the last time."""
        return len(self._changed) + len(self._gone)

    def changes(self) -> tuple[list[Life], list[Gone]]:
        """What is to be written down, and what is to be forgotten, since the last time."""
        changed = [self._lives[key] for key in self._changed if key in self._lives]
        gone, self._gone = self._gone, []
        self._saved.update((*life.key, life.arrival) for life in changed)
        self._changed.clear()
        return changed, gone

    def queue(self) -> Queue:
        """The recipients of ours in Postfix's queue."""
        found: Queue = {}
        for life in self:
            if not life.reference or life.ended or life.told:
                continue
            for recipient in life.recipients.values():
                if recipient.open():
                    _, provider = next(iter(recipient.finals.values()), ("", "other"))
                    state = "deferred" if recipient.finals else "held" if life.held else "active"
                    count, since = found.get((state, provider), (0, life.arrival))
                    found[state, provider] = count + 1, min(since, life.arrival)
        return found

    def coming(self) -> set[str]:
        """Queue ids that were begun and neither refused nor put into the queue: its `incoming` may hold them."""
        return {life.queue_id for life in self if life.begun and not (life.reference or life.shown or life.ended)}

    def _link(self, life: Life) -> None:
        self._instances.setdefault(life.instance)
        for table, name in ((self._same, life.message_id), (self._owned, life.reference)):
            if name:
                table.setdefault(name, {})[life.key] = None

    def _unlink(self, life: Life) -> None:
        for table, name in ((self._same, life.message_id), (self._owned, life.reference)):
            keys = table.get(name, {})
            keys.pop(life.key, None)
            if not keys:
                table.pop(name, None)


class Lately(Generic[K, V]):
    """A table that forgets what was put into it longest ago."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._table: OrderedDict[K, V] = OrderedDict()

    def __contains__(self, key: K) -> bool:
        return key in self._table

    def get(self, key: K) -> V | None:
        return self._table.get(key)

    def put(self, key: K, value: V) -> None:
        self._table[key] = value
        self._table.move_to_end(key)
        if len(self._table) > self._most:
            self._table.popitem(last=False)

    def forget(self, key: K) -> None:
        self._table.pop(key, None)


class Ciphers:
    """The lines about TLS connections, which name no message, only who spoke with whom."""

    def __init__(self) -> None:
        self._begun: Lately[tuple[str, str, int], tuple[str, float, str]] = Lately(_PIDS)

    def begin(self, line: Line) -> None:
        said = line.values
        how = " ".join(said[part] for part in ("trust", "protocol", "cipher") if said.get(part))
        self._begun.put((line.host, line.instance, line.pid), (said.get("relay", ""), line.time, how))

    def of(self, line: Line) -> str:
        """Of this delivery's connection: its TLS began just before it, or it is one used again (postconf(5), 3.11)."""
        if said := line.values.get("tls"):
            return said
        relay, when, how = self._begun.get((line.host, line.instance, line.pid)) or ("", 0.0, "")
        if not relay or relay != line.values.get("relay"):
            return ""
        if "conn_use" in line.values:
            return how
        return how if line.time - when <= sum(word.delays(line.values)[2:]) + _SLACK else ""
