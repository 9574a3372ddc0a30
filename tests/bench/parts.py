"""What `make bench` runs through Postfix: each part answers one question, with rows that take turns.

Knows nothing of how a turn is measured.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace

from tests.bench import peers
from tests.bench.messages import Mail, newsletter, plain
from tests.bench.rows import ALONE, FLOOR, FOREIGN, INET, LEAST, OURS, ROWS, SYNC, WORKERS, Row

PLAIN, NEWSLETTER = plain(), newsletter()
MAILS = (PLAIN, NEWSLETTER)
SESSIONS = (1, 2, 8, 32, 100)
MANY = 8
RATE = 200


@dataclass(frozen=True, slots=True)
class Turn:
    """What is measured at a time: so many SMTP sessions send one message again and again through one row."""

    row: Row
    mail: Mail
    sessions: int = MANY


@dataclass(frozen=True, slots=True)
class Part:
    """`messages` in each turn. With a `rate` they are sent so many a second, else as fast as they are taken.

    `disk`: Postfix's queue too is there, not in memory; postmeter's journal always is. `bare`: over the milter
    protocol, without Postfix, which else has most of the machine.
    """

    name: str
    about: str
    turns: Sequence[Turn]
    messages: int
    rate: int = 0
    disk: bool = False
    bare: bool = False

    @property
    def rows(self) -> list[Row]:
        return list({turn.row.name: turn.row for turn in self.turns}.values())

    def without(self, names: Container[str]) -> Part:
        """The same, but for these rows."""
        return replace(self, turns=[turn for turn in self.turns if turn.row.name not in names])


def _turns(rows: Sequence[Row], mails: Sequence[Mail] = MAILS) -> list[Turn]:
    """Rows within messages, so that neighbours in time are neighbours in the table."""
    return [Turn(row, mail) for mail in mails for row in rows]


def _row(name: str) -> Row:
    return next(row for row in [*ROWS, *peers.PEERS] if row.name == name)


_OURS, _ALONE, _FLOOR, _LEAST, _OPENDKIM = map(_row, (OURS, ALONE, FLOOR, LEAST, "opendkim"))

PARTS: list[Part] = [
    Part("speed", "every row, over unix sockets", _turns([*ROWS, *peers.PEERS]), 1000),
    Part("inet", "milters on ports of loopback", _turns([INET, *peers.INET], [PLAIN]), 800),
    Part("foreign", "mail that is not ours", _turns(FOREIGN), 1500),
    Part("workers", "one worker and two", _turns([WORKERS, _OURS]), 800),
    Part("protocol", "without Postfix", _turns([_FLOOR, WORKERS, _OURS, _OPENDKIM]), 800, bare=True),
    Part("sessions", "from 1 to 100 SMTP sessions", [Turn(_OURS, NEWSLETTER, each) for each in SESSIONS], 800),
    Part("waits", "how long a message takes", _turns([_ALONE, _OPENDKIM, _LEAST, _OURS]), 1000, rate=RATE),
    Part("disk", "queue on disk", _turns([_ALONE, _OPENDKIM, _OURS, SYNC], [PLAIN]), 800, disk=True),
]


def with_sessions(part: Part, count: int) -> Part:
    return replace(part, turns=list(dict.fromkeys(replace(turn, sessions=count) for turn in part.turns)))


def names() -> list[str]:
    """Of all rows."""
    return list(dict.fromkeys(row.name for part in PARTS for row in part.rows))


def chosen(wanted: Sequence[str], only: Sequence[str]) -> Iterator[Part]:
    """Parts of these names, all when there are none, with these rows only: `ROW` or `ROW:MESSAGE`.

    Rows that are given without a part are those of the first part that has them.
    """
    pairs = {(row, mail) for row, _, mail in (name.partition(":") for name in only)}
    for part in PARTS:
        if wanted and part.name not in wanted:
            continue
        fit = [turn for turn in part.turns if pairs & {(turn.row.name, ""), (turn.row.name, turn.mail.name)}]
        if fit or not only:
            yield replace(part, turns=fit or part.turns)
        if not wanted:
            pairs -= {pair for turn in fit for pair in ((turn.row.name, ""), (turn.row.name, turn.mail.name))}


def present(part: Part) -> tuple[Part, dict[str, str]]:
    """The part with what is here, and why the rest is not."""
    lacks = {row.name: reason for row in part.rows if (reason := peers.missing(row.name))}
    return part.without(lacks), lacks
