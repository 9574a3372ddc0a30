"""A message on its way through the steps: how it will leave, the changes that make it so, and what to tell about them.

One draft a message, from its end to the verdict. Steps alter it only by its methods, so that `fields` and `body`
always equal the original with `changes` applied; nothing outside is touched before the session applies them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any, TypeAlias

from postmeter.events import Event
from postmeter.mail.message import (
    Change,
    DropField,
    DropRecipient,
    Field,
    InsertField,
    Message,
    PartChange,
    ReplaceBody,
    ReplaceField,
    ReplaceSender,
)
from postmeter.mail.reply import Reply
from postmeter.token import Mark

Figure: TypeAlias = tuple[str, tuple[str, ...]]
"""A metric's name without its prefix, and its label values in the order of `metrics`."""

MOST_DROPPED = 100
"""Fields at a time. Postfix goes through the header anew for each: 3,000 take it half a second, ten times as many a
minute, and ten megabytes have room for 300,000."""


@dataclass(frozen=True, slots=True)
class Note:
    """What a step did or skipped, and why, in words a person understands."""

    step: str
    text: str


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the sender asked for in fields of this message, and what he calls it; None where he said nothing."""

    clicks: str | None = None
    """`off`, `html` or `html+text`."""
    opens: bool | None = None
    campaign: str = ""
    tags: tuple[str, ...] = ()
    test: bool = False
    """Nobody shall get it."""


@dataclass(slots=True)
class Draft:
    """`sender` is whom quotas count; `from_domain` that of the one From address, empty when there is none such.

    `borrowed` says that the sender may not use that domain: then it earns the message nothing.
    """

    message: Message
    sender: str = ""
    from_domain: str = ""
    borrowed: bool = False
    hold: str = ""
    """Why the message goes to Postfix's hold queue instead of out: `quota` or `brake`; empty when it does not."""
    free: str = ""
    """Why the message is neither charged nor rewritten, only signed: `notice` (our own mail), `marked` (it was here
    before) or `test` (nobody gets it); empty when it is mail like any other."""
    mark: Mark | None = None
    """What was said of the message when it was here before, once that is believed."""
    wishes: Wishes = Wishes()
    """Believed only of senders who may ask."""
    tally: object = None
    """What quotas made of the message, once: the step and `settle` must mean the same."""
    fields: list[Field] = field(default_factory=list)
    body: bytes = b""
    """Given with the draft it is held here alone, and gone when a step replaces it; else it is the message's."""
    changes: list[Change] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    figures: dict[Figure, int] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)
    """What the journal keeps besides the envelope: signatures, links, changed parts. JSON values only."""
    besides: list[Event] = field(default_factory=list)
    """Facts of their own, which are recorded with the message or not at all."""
    size: int = 0
    """Octets of the message as it came (`Message.size`)."""

    def __post_init__(self) -> None:
        self.fields = list(self.message.fields)
        self.body = self.body or self.message.body
        self.size = self.size_with(self.body)

    def size_with(self, body: bytes) -> int:
        """Octets that the message as it came would have with that body."""
        return self.message.size() - len(self.message.body) + len(body)

    def state(self) -> State:
        """All that a step may alter, to go back to with `restore`, once. Cheap: it is asked for often, wanted never."""
        lists = [*self.fields], [*self.changes], [*self.notes], [*self.besides]
        return _values(self), lists, self.figures.copy(), self.facts.copy()

    def restore(self, state: State) -> None:
        """Be again what the draft was when it gave that state, whatever was done to it meanwhile."""
        values, lists, figures, facts = state
        for name, value in zip((*_VALUES, *_LISTS), (*values, *lists), strict=True):
            setattr(self, name, value)
        self.figures, self.facts = figures, facts

    def note(self, step: str, text: str) -> None:
        self.notes.append(Note(step, text))

    def count(self, metric: str, *labels: str, by: int = 1) -> None:
        figure = metric, labels
        self.figures[figure] = self.figures.get(figure, 0) + by

    def replace_body(self, body: bytes, parts: tuple[PartChange, ...]) -> None:
        self.body = body
        self.changes.append(ReplaceBody(body, parts))

    def insert_field(self, new: Field, *, at: int = 0) -> None:
        """Insert above everything (`at` 0), Postfix's own Received included, or below `at` delivered fields."""
        self.fields.insert(at, new)
        self.changes.append(InsertField(at, new))

    def replace_field(self, name: bytes, *, nth: int, value: bytes) -> None:
        """Give the `nth` field of that name, as received and counted from 1, another value."""
        self.fields[self._index(name, nth)] = Field(name, value)
        self.changes.append(ReplaceField(name, nth, value))

    def replace_sender(self, address: bytes, args: tuple[bytes, ...] = ()) -> None:
        """Give the message another return path, with these parameters of MAIL."""
        self.changes.append(ReplaceSender(address, args))

    def drop_recipients(self, gone: Container[bytes]) -> None:
        """From here on the message has the others only."""
        envelope = self.message.envelope
        left = tuple(rcpt for rcpt in envelope.rcpt_to if rcpt not in gone)
        self.changes += [DropRecipient(rcpt) for rcpt in dict.fromkeys(envelope.rcpt_to) if rcpt in gone]
        self.message = replace(self.message, envelope=replace(envelope, rcpt_to=left))

    def drop_fields(self, *names: bytes) -> Reply | None:
        """Remove all fields of these names. Of too many none goes, and the message is better refused."""
        keys = {name.lower(): name for name in names}
        found = [known.key for known in self.fields if known.key in keys]
        if not found:
            return None
        counts = Counter(found)
        if counts.total() > MOST_DROPPED:
            most = keys[counts.most_common(1)[0][0]].decode("ascii", "replace")
            others = " and its like" if len(counts) > 1 else ""
            return Reply(550, "5.6.0", f"{counts.total()} fields named {most}{others}")
        self.fields = [known for known in self.fields if known.key not in counts]
        for key, count in counts.items():
            self.changes += drops(keys[key], count)
        return None

    def _index(self, name: bytes, nth: int) -> int:
        hits = [index for index, known in enumerate(self.fields) if known.key == name.lower()]
        return hits[nth - 1]


State: TypeAlias = tuple[tuple[Any, ...], tuple[list[Any], ...], dict[Figure, int], dict[str, object]]
"""Of a draft, at some moment."""

_LISTS = ("fields", "changes", "notes", "besides")
_VALUES = tuple(one.name for one in fields(Draft) if one.name not in (*_LISTS, "figures", "facts"))
_values = attrgetter(*_VALUES)


def drops(name: bytes, count: int) -> list[DropField]:
    """What takes so many fields of a name off, from the highest down (D13); nothing where they are too many."""
    return [DropField(name, nth) for nth in range(count, 0, -1)] if count <= MOST_DROPPED else []


Step: TypeAlias = Callable[[Draft], Reply | None]
"""Alters the draft or refuses the message; has no effect outside it."""
