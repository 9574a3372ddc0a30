"""How well the brake tells a thief from a newsletter: `python -m tests.bench.brake` runs a year of a company's mail.

The parts are the product's own, from the database up: every message is settled as a worker settles it, the books learn
each ten minutes, and break-ins are tried on copies of the database from several days of the year.
"""

from __future__ import annotations

import random
import sqlite3
import statistics
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from postmeter.books.baselines import Baselines
from postmeter.config.schema import Brake
from postmeter.events import Braked
from postmeter.mail.draft import Draft
from postmeter.mail.message import Client, Envelope, Message
from postmeter.store.accounts import Overdrawn
from postmeter.store.database import Database
from postmeter.store.journal import Journal
from postmeter.store.profiles import Profiles
from postmeter.store.settle import Settler
from postmeter.submission.brake import DAY, Watch
from postmeter.submission.network import network
from postmeter.submission.pipeline import submitted
from tests.bench.company import HOUR, OFFICE, START, WEBMAIL, Company, Mail

PREFIX = (24, 56)
LEARNED_EVERY = 600.0
ABROAD = "203.0.113.66"
MOST = 400
"""Recipients after which a break-in has been missed."""


class Worker:
    """A worker and the books of one host, under a clock of ours. A login that is stopped is released at once."""

    def __init__(self, folder: Path, settings: Brake) -> None:
        self.path = folder / "journal.db"
        self.now = START
        self.journal = Journal(self.path)
        self.settler = Settler(self.path, tick=3600.0)
        self.baselines = Baselines(self.journal, learn=settings.learn, clock=lambda: self.now)
        self.released: dict[str, float] = defaultdict(float)
        self.passed: dict[tuple[str, int], Overdrawn] = {}
        self.watch = Watch(
            settings,
            Profiles(Database(self.path, sync="normal", readonly=True)),
            prefix=PREFIX,
            released=lambda login, *, at_once=False: self.released[login],
        )
        self._learned = 0.0
        self._number = 0

    def send(self, mail: Mail) -> Braked | None:
        """None when it went out."""
        self.now = mail.time
        if self.now - self._learned >= LEARNED_EVERY:
            self.learn()
        draft = _draft(mail, self._number)
        self._number += 1
        event = submitted(draft, network=network(draft.message.envelope.client, PREFIX))
        settle = partial(self.settler.settle, event=event, figures={}, now=mail.time)
        settled, braked = self.watch.settle(draft, (), settle, mail.time)
        return braked if settled.refused else None

    def learn(self) -> None:
        while self.baselines.work():
            pass
        self._learned = self.now
        # What has been learned and is older than any look back is of no use here.
        with self.journal.database.transaction() as link:
            link.execute("DELETE FROM events WHERE time < ?", (self.now - 2 * HOUR,))
        self.baselines.sweep()

    def close(self) -> None:
        self.settler.close()
        self.journal.close()


class Counting(Watch):
    """Notes as well whoever sent more than usual, once a login and day, whatever the second sign said."""

    def __init__(self, watch: Watch) -> None:
        for name in ("_settings", "_profiles", "_prefix", "_released", "_except", "_house", "_asked_at"):
            setattr(self, name, getattr(watch, name))
        self._measures, self._cleared = {}, {}
        self.unusual: dict[str, list[float]] = defaultdict(list)

    def suspect(self, draft: Draft, over: Overdrawn, now: float) -> Braked | None:
        times = self.unusual[draft.sender]
        if not times or now - times[-1] >= DAY:
            times.append(now)
        return super().suspect(draft, over, now)


@dataclass(frozen=True, slots=True)
class BreakIn:
    """`client` empty: the victim's own network. `pace`: recipients an hour, `each` of them in a message."""

    name: str
    client: str
    pace: float
    each: int = 1
    hour: float = 10.5
    contacts: bool = False


BREAK_INS = (
    BreakIn("blast from abroad, office hours", ABROAD, 1800),
    BreakIn("blast from abroad, at night", ABROAD, 1800, hour=3),
    BreakIn("blast from abroad, 50 a message", ABROAD, 3000, each=50),
    BreakIn("from abroad, 40 an hour", ABROAD, 40),
    BreakIn("from abroad, 40 an hour, at night", ABROAD, 40, hour=3),
    BreakIn("from abroad, 15 an hour", ABROAD, 15),
    BreakIn("from abroad, to the victim's contacts", ABROAD, 600, contacts=True),
    BreakIn("blast from the victim's own computer", "", 1800),
    BreakIn("from the victim's own computer, 40 an hour", "", 40),
    BreakIn("blast by webmail", WEBMAIL, 1800),
    BreakIn("by webmail, 40 an hour, at night", WEBMAIL, 40, hour=3),
)


@dataclass(slots=True)
class Result:
    """What the year gave. `alarms` and `unusual`: login to times; `out` the recipients got by each break-in tried."""

    mails: int = 0
    recipients: int = 0
    alarms: dict[str, list[tuple[float, tuple[str, ...]]]] = field(default_factory=lambda: defaultdict(list))
    unusual: dict[str, list[float]] = field(default_factory=dict)
    out: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))


def run(company: Company, settings: Brake, *, trials: Iterable[int] = (), scratch: Path | None = None) -> Result:
    """The year; on each day of `trials`, every break-in on every kind of victim."""
    result, days = Result(), sorted(trials)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        worker = Worker(Path(folder), settings)
        counting = Counting(worker.watch)
        worker.watch = counting
        for mail in company.mail():
            while days and mail.time >= START + days[0] * DAY:
                worker.learn()
                _try(worker, company, days.pop(0), settings, result)
            result.mails += 1
            result.recipients += len(mail.recipients)
            braked = worker.send(mail)
            if braked is not None:
                result.alarms[mail.login].append((mail.time, braked.signs))
                worker.released[mail.login] = mail.time
        worker.close()
        result.unusual = dict(counting.unusual)
    return result


def victims(company: Company, day: int) -> Iterator[tuple[str, str, str, list[str]]]:
    """A kind, a login, a client address of its own and its contacts, one of each kind."""
    here = [person for person in company.people if person.since < day - 30]
    staff = [person for person in here if person.curious < 0.4]
    kinds: list[tuple[str, Callable[[float], bool]]] = [
        ("busy", lambda pace: pace > 14),
        ("calm", lambda pace: 3 < pace < 10),
        ("idle", lambda pace: pace < 1),
    ]
    for kind, fits in kinds:
        person = next((person for person in staff if fits(person.pace)), None)
        if person is not None:
            yield kind, person.login, OFFICE, person.contacts
    yield "shared", "info@example.com", OFFICE, [f"nobody{nth}@example.net" for nth in range(200)]
    seller = next(person for person in here if person.curious > 0.4)
    yield "sales", seller.login, OFFICE, seller.contacts
    yield "newsletter", "weekly@example.com", OFFICE, company.list_of("weekly")
    yield "shop", "shop@example.com", OFFICE, company.list_of("weekly")
    yield "new", "just.hired@example.com", OFFICE, company.colleagues


def _try(worker: Worker, company: Company, day: int, settings: Brake, result: Result) -> None:
    for kind, login, client, contacts in victims(company, day):
        for number, case in enumerate(BREAK_INS):
            if case.client == WEBMAIL and kind in ("newsletter", "shop"):
                continue
            with tempfile.TemporaryDirectory(dir=worker.path.parent) as folder:
                _copy(worker.path, Path(folder) / "journal.db")
                thief = Worker(Path(folder), settings)
                chance = random.Random(f"{day} {kind} {number}")
                result.out[case.name, kind].append(_steal(thief, case, login, client, contacts, day, chance))
                thief.close()


def _steal(
    worker: Worker, case: BreakIn, login: str, client: str, contacts: list[str], day: int, chance: random.Random
) -> int:
    """How many recipients got something; MOST when nobody stopped it."""
    time, out = START + day * DAY + case.hour * HOUR, 0
    while out < MOST:
        fresh = tuple(f"x{chance.getrandbits(48):x}@example.com" for _ in range(case.each))
        to = tuple(chance.choices(contacts, k=case.each)) if case.contacts else fresh
        if worker.send(Mail(time, login, case.client or client, to)) is not None:
            return out
        out += case.each
        time += case.each * HOUR / case.pace * chance.uniform(0.7, 1.3)
    return MOST


def _copy(source: Path, target: Path) -> None:
    with sqlite3.connect(source) as link, sqlite3.connect(target) as copy:
        link.backup(copy)
    link.close()
    copy.close()


def _draft(mail: Mail, number: int) -> Draft:
    envelope = Envelope(
        mail_from=mail.login.encode(),
        rcpt_to=tuple(name.encode() for name in mail.recipients),
        client=Client(address=mail.client, port=40_000),
        login=mail.login,
        service="submission",
    )
    message = Message(envelope, (), b"", f"Q{number}", mail.time, number.to_bytes(8, "big"))
    return Draft(message, sender=mail.login, from_domain="example.com")


def show(result: Result) -> None:
    print(f"{result.mails} messages, {result.recipients} recipients")
    alone = sum(map(len, result.unusual.values()))
    print(f"false alarms a year without a second sign: {alone}, {len(result.unusual)} logins")
    for login, times in sorted(result.unusual.items(), key=lambda item: -len(item[1]))[:8]:
        print(f"    {len(times):4} {login}")
    alarms = [(login, time, signs) for login, listed in result.alarms.items() for time, signs in listed]
    print(f"false alarms a year with it: {len(alarms)}")
    for (login, signs), count in Counter((login, "+".join(signs)) for login, _, signs in alarms).most_common():
        print(f"    {count:4} {login} {signs}")
    print("recipients that a break-in reached, median and most, and how many were missed, by victim")
    names = list(dict.fromkeys(name for name, _ in result.out))
    kinds = list(dict.fromkeys(kind for _, kind in result.out))
    print(f"{'':44}" + "".join(f"{kind:>20}" for kind in kinds))
    for name in names:
        print(f"{name:44}" + "".join(f"{_cell(result.out.get((name, kind), [])):>20}" for kind in kinds))


def _cell(out: list[int]) -> str:
    if not out:
        return "-"
    stopped = [one for one in out if one < MOST]
    missed = len(out) - len(stopped)
    text = f"{statistics.median(stopped):g}, {max(stopped)}" if stopped else ""
    return f"{text} missed {missed}/{len(out)}".strip() if missed else text


def main() -> int:
    scratch = Path("/dev/shm")
    for seed in (1, 2, 3):
        trials = [100, 163, 226, 289]
        result = run(Company(seed), Brake(mode="on"), trials=trials, scratch=scratch if scratch.is_dir() else None)
        print(f"\ncompany {seed}")
        show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
