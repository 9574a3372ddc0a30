"""The ledger in Redis or Valkey: every key of a level holds its accounts, decided and charged by one script at once.

The server's clock rules, for hosts disagree: what a caller says of the time counts only where tests ask for it. Names
have the prefix in braces, so that all of ours lie in one slot of a cluster (redis.io: cluster-spec, "Hash tags").
Knows nothing of events, and of the journal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, TypeAlias

from postmeter.store.accounts import DONE, Charge, Overdrawn, Settled, StoreDownError, account_name
from postmeter.store.folio import MICROSECONDS
from postmeter.store.ledger import Usage
from postmeter.store.redis_server import RedisServer, Script
from postmeter.store.window import Window

ACCOUNTS = Script(Path(__file__).with_name("redis_accounts.lua"))

_SLICE = 100  # keys looked at by one script, and asked of one SCAN: everybody waits for it
_LATE = 2
_json = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the script answered: `at` is when, in microseconds; `told` are index of the charge, percent and used."""

    at: int
    settled: Settled
    told: tuple[tuple[int, int, int], ...] = ()
    one_at: float = 0.0
    """When one more fits where something was refused; in the past where that is never."""


Read: TypeAlias = Callable[[Sequence[int], Sequence[Charge]], Any]
"""What an answer means for these charges."""


def _as_it_is(answer: Sequence[int], charges: Sequence[Charge]) -> Any:
    return answer


class RedisLedger:
    """Called from any thread. Everything may raise `StoreDownError`."""

    def __init__(self, server: RedisServer, prefix: str, *, caller_clock: bool = False) -> None:
        """`caller_clock` is for tests: the time that callers give is the time."""
        self._server = server
        self._prefix = f"{{{prefix}}}:"
        self._caller_clock = caller_clock
        self._ahead: float | None = None  # seconds of the server's clock before our monotonic one

    def settle(self, charges: Sequence[Charge], now: float) -> Verdict:
        """All are charged, or none. What is decided after we gave up waiting is not charged, if it can be helped."""
        for _ in range(2):
            verdict: Verdict | None = self._run("settle", charges, now, self._until(), read=self._settled)
            if verdict is not None:
                return verdict
        raise StoreDownError("the quotas' store answers too late")

    def check(self, charges: Sequence[Charge], now: float) -> Overdrawn | None:
        verdict: Verdict = self._run("check", charges, now, read=_verdict)
        return verdict.settled.refused

    def give_back(self, charges: Sequence[Charge], verdict: Verdict, now: float) -> None:
        """Undo what `settle` charged, and what it said somebody is warned of."""
        self._run("give back", charges, now, 0, verdict.at, [(nth + 1, percent) for nth, percent, _ in verdict.told])

    def refund(self, charges: Sequence[Charge], at: float, now: float, *, reference: str) -> None:
        """Undo what a message was charged at that time, once, however often it is asked: a year remembers it."""
        names = [self._prefix + name for name in dict.fromkeys(charge.name for charge in charges)]
        mark = self._name(f"refunded-{reference}")  # no second colon: not the name of an account
        self._server.run(
            ACCOUNTS, [*names, mark], "refund", _json([self._now(now), 0, _rows(charges), round(at * MICROSECONDS)])
        )

    def usage(self, now: float, *, level: str | None = None, key: str | None = None) -> list[Usage]:
        """What every key, or those of a level, or one of a level, has used; accounts that are empty are left out."""
        if key is None:
            return list(self.each_usage(now, level=level))
        return list(self._look([self._name(account_name(level or "sender", key))], now))

    def each_usage(self, now: float, *, level: str | None = None) -> Iterator[Usage]:
        """As `usage`, key by key in slices, in no order."""
        for names in self._names(f"{level or '*'}:*"):
            yield from self._look(names, now)

    def reset(self, level: str, key: str) -> int:
        """Empty all accounts of a key; returns how many there were."""
        return int(self._server.run(ACCOUNTS, [self._name(account_name(level, key))], "reset", _json([0, 0])))

    def close(self) -> None:
        self._server.close()

    def _look(self, names: Sequence[str], now: float) -> Iterator[Usage]:
        if not names:
            return
        micro, *found = self._server.run(ACCOUNTS, names, "look", _json([self._now(now), 0]))
        at = micro / MICROSECONDS
        for nth, unit, window, times, amounts in found:
            level, _, key = names[nth - 1].removeprefix(self._prefix).partition(":")
            state = Window(window * MICROSECONDS, tuple(times), tuple(amounts))
            yield Usage(level=level, key=key, unit=unit.decode(), window=window, used=sum(amounts), state=state, now=at)

    def _names(self, pattern: str) -> Iterator[list[str]]:
        """In slices; a name may come twice (redis.io: SCAN), and one that a cluster moves meanwhile not at all."""
        seen: set[str] = set()
        cursor: Any = b"0"
        self._server.ask("EXISTS", self._name("orders"))  # a cluster tells who holds our slot; SCAN asks whoever it is
        while True:
            cursor, found = self._server.ask("SCAN", cursor, "MATCH", self._name(pattern), "COUNT", _SLICE)
            fresh = {name.decode() for name in found} - seen
            seen |= fresh
            yield sorted(fresh)
            if cursor in (b"0", 0):
                return

    def _run(
        self, verb: str, charges: Sequence[Charge], now: float, until: int = 0, *more: object, read: Read = _as_it_is
    ) -> Any:
        keys = [self._prefix + name for name in dict.fromkeys(charge.name for charge in charges)]
        asked = _json([self._now(now), until, _rows(charges), *more])
        return self._server.run(ACCOUNTS, keys, verb, asked, read=lambda answer: read(answer, charges))

    def _settled(self, answer: Sequence[int], charges: Sequence[Charge]) -> Verdict | None:
        """None for what was asked too late."""
        at, outcome = answer[:2]
        self._learn_clock(at)
        return None if outcome == _LATE else _verdict(answer, charges)

    def _now(self, now: float) -> int:
        return int(now * MICROSECONDS) if self._caller_clock else 0

    def _until(self) -> int:
        """When we give up, by the server's clock, as far as we know that; 0 for never."""
        if self._ahead is None or self._caller_clock:
            return 0
        return int((self._server.deadline() + self._ahead) * MICROSECONDS)

    def _learn_clock(self, at: int) -> None:
        self._ahead = at / MICROSECONDS - monotonic()

    def _name(self, name: str) -> str:
        return self._prefix + name


def _rows(charges: Sequence[Charge]) -> list[tuple[object, ...]]:
    """As the script wants them, each with the number of its key among those of all charges."""
    numbers = {name: nth for nth, name in enumerate(dict.fromkeys(charge.name for charge in charges), 1)}
    return [
        (numbers[each.name], each.unit, each.window, each.limit, each.amount, each.enforce, each.warn)
        for each in charges
    ]


def _verdict(answer: Sequence[int], charges: Sequence[Charge]) -> Verdict:
    at, outcome, index, used, room_at, one_at, *told = answer
    triples = tuple((told[nth] - 1, told[nth + 1], told[nth + 2]) for nth in range(0, len(told), 3))
    if not index:
        return Verdict(at=at, settled=DONE, told=triples)
    room = None if room_at < 0 else room_at / MICROSECONDS
    over = Overdrawn(charge=charges[index - 1], used=used, room_at=room)
    settled = Settled(refused=over) if outcome else Settled(observed=over)
    return Verdict(at=at, settled=settled, told=triples, one_at=one_at / MICROSECONDS)
